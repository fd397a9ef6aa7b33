//! Pulling: name → manifest → configuration → layers, everything checked against its digest.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use futures::{StreamExt, TryStreamExt};
use sha2::{Digest, Sha256};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::images::{LayerState, Progress, Shared, blocking, check_digests};
use crate::manifest::{
    Descriptor, ImageManifest, Manifest, architecture, digest_of, digest_text, parse_config, select,
};
use crate::reference::Reference;
use crate::registry::{Failure, Session, describe};
use crate::store::{Record, Store, io_error, remove_tree};
use crate::{Credentials, Image, ImageError, unpack};

const MANIFEST_BYTES_MAX: usize = 4 << 20;
const CONFIG_BYTES_MAX: usize = 8 << 20;
const LAYER_BYTES_MAX: u64 = 64 << 30;
const LAYERS_MAX: usize = 512;
const LAYERS_AT_ONCE: usize = 3;
/// Whoever wants the image asks again anyway, and there may be other places to look.
const RESOLVE_ATTEMPTS: u32 = 2;
const ATTEMPTS: u32 = 5;
const RETRY_FIRST: Duration = Duration::from_millis(200);
/// A report for every so many bytes.
const REPORT_BYTES: u64 = 1 << 20;

/// Fetches an image.
pub(crate) async fn pull(
    shared: &Arc<Shared>,
    reference: &Reference,
    credentials: &[Credentials],
) -> Result<Image, ImageError> {
    let name = reference.to_string();
    let _one_at_a_time = shared.lock(&name).await;
    let found = resolve(shared, reference, credentials).await.map_err(|failure| {
        if matches!(failure, Failure::Transient(_)) {
            // The machine's name servers may have changed since the clients read who they are.
            shared.connector.forget_clients();
        }
        failure.into_error(&name)
    })?;
    Fetch { shared: shared.clone(), name, session: found.session, manifest: found.manifest }
        .run(reference, &found.digest)
        .await
}

struct Resolved {
    session: Session,
    manifest: ImageManifest,
    /// Of what the name stands for, which may be an index.
    digest: String,
}

/// Asks every endpoint with every set of credentials until one has the image. When none has, the registry's own
/// last word counts.
async fn resolve(
    shared: &Shared,
    reference: &Reference,
    credentials: &[Credentials],
) -> Result<Resolved, Failure> {
    let mut failure = Failure::Other("no registry to ask".to_owned());
    for endpoint in shared.connector.endpoints(&reference.registry)? {
        let mut denied = None;
        for attempt in endpoint.attempts(credentials) {
            let session = endpoint.session(&reference.repository, attempt);
            match with_retries(RESOLVE_ATTEMPTS, || Box::pin(resolve_with(&session, reference))).await {
                Ok((manifest, digest)) => return Ok(Resolved { session, manifest, digest }),
                // What the registry says of the first credentials tells more than what it says of none.
                Err(error @ Failure::Denied(_)) => {
                    denied.get_or_insert(error);
                }
                Err(error) => {
                    tracing::debug!(registry = endpoint.host, ?error, "image is not to be had here");
                    failure = error;
                    denied = None;
                    break;
                }
            }
        }
        failure = denied.unwrap_or(failure);
    }
    Err(failure)
}

async fn resolve_with(session: &Session, reference: &Reference) -> Result<(ImageManifest, String), Failure> {
    let bytes = session.manifest(reference.manifest(), MANIFEST_BYTES_MAX).await?;
    let digest = digest_of(&bytes);
    if reference.digest.as_ref().is_some_and(|wanted| *wanted != digest) {
        return Err(Failure::Other(format!("the registry sent another manifest: {digest}")));
    }
    let index = match Manifest::parse(&bytes).map_err(Failure::Other)? {
        Manifest::Image(manifest) => return Ok((manifest, digest)),
        Manifest::Index(index) => index,
    };
    let chosen = select(&index, architecture())
        .ok_or_else(|| Failure::NotFound(format!("no image for linux/{} in the index", architecture())))?;
    let bytes = session.manifest(&chosen.digest, MANIFEST_BYTES_MAX).await?;
    if digest_of(&bytes) != chosen.digest {
        return Err(Failure::Other(format!("the registry sent another manifest than {}", chosen.digest)));
    }
    match Manifest::parse(&bytes).map_err(Failure::Other)? {
        Manifest::Image(manifest) => Ok((manifest, digest)),
        Manifest::Index(_) => Err(Failure::Other("an index within an index".to_owned())),
    }
}

async fn with_retries<'a, T>(
    attempts: u32,
    mut work: impl FnMut() -> BoxFuture<'a, Result<T, Failure>> + Send,
) -> Result<T, Failure> {
    let mut wait = RETRY_FIRST;
    for _ in 1..attempts {
        match work().await {
            Err(Failure::Transient(cause)) => {
                tracing::debug!(cause, "trying the registry again");
                tokio::time::sleep(wait).await;
                wait *= 2;
            }
            other => return other,
        }
    }
    work().await
}

struct Fetch {
    shared: Arc<Shared>,
    name: String,
    session: Session,
    manifest: ImageManifest,
}

impl Fetch {
    async fn run(self, reference: &Reference, digest: &str) -> Result<Image, ImageError> {
        let descriptors = &self.manifest.layers;
        check_digests(&self.name, descriptors.iter().map(|layer| &layer.digest))?;
        let id = self.manifest.config.digest.clone();
        let (config, layers) = self.configuration(&id).await?;
        if layers.len() != descriptors.len() || layers.len() > LAYERS_MAX {
            let cause = format!("{} layers for {} entries", descriptors.len(), layers.len());
            return Err(self.damaged(cause));
        }
        check_digests(&self.name, &layers)?;
        let active = self.shared.store.activity().map_err(io_error("cannot lock the image store"))?;
        let mut work: Vec<BoxFuture<'_, Result<(), ImageError>>> = Vec::new();
        for (compressed, layer) in descriptors.iter().zip(&layers) {
            work.push(Box::pin(self.layer(compressed, layer)));
        }
        futures::stream::iter(work).buffer_unordered(LAYERS_AT_ONCE).try_collect::<()>().await?;
        let record = Record {
            id,
            tags: reference.tagged().into_iter().collect(),
            digests: [reference.with_digest(digest)].into(),
            size_bytes: self.manifest.config.size + descriptors.iter().map(|layer| layer.size).sum::<u64>(),
            config,
            layers: layers.clone(),
        };
        let shared = self.shared.clone();
        let image = blocking(move || shared.store.commit(record)).await?;
        self.forget_partials();
        drop(active);
        Ok(image)
    }

    fn damaged(&self, cause: String) -> ImageError {
        ImageError::Damaged { name: self.name.clone(), cause }
    }

    async fn configuration(&self, id: &str) -> Result<(crate::ImageConfig, Vec<String>), ImageError> {
        let bytes = with_retries(ATTEMPTS, || Box::pin(self.session.small_blob(id, CONFIG_BYTES_MAX))).await;
        let bytes = bytes.map_err(|failure| failure.into_error(&self.name))?;
        if digest_of(&bytes) != id {
            return Err(self.damaged(format!("configuration is not {id}")));
        }
        parse_config(&bytes).map_err(|cause| self.damaged(cause))
    }

    /// Fetches and unpacks a layer unless it is there; whoever comes second waits and finds it.
    async fn layer(&self, compressed: &Descriptor, layer: &str) -> Result<(), ImageError> {
        let _one_at_a_time = self.shared.lock(layer).await;
        let (shared, digest) = (self.shared.clone(), compressed.digest.clone());
        let _among_processes =
            blocking(move || shared.store.lock_partial(&digest).map_err(io_error("cannot lock a layer")))
                .await?;
        if self.shared.store.has_layer(layer) {
            self.report(compressed, LayerState::Present, compressed.size);
            return Ok(());
        }
        let path = self.shared.store.partial_path(&compressed.digest);
        let path = path.ok_or_else(|| self.damaged(format!("unsupported digest {:?}", compressed.digest)))?;
        self.download(compressed, &path).await?;
        self.report(compressed, LayerState::Unpacking, compressed.size);
        let (shared, layer, name) = (self.shared.clone(), layer.to_owned(), self.name.clone());
        blocking(move || {
            let file = File::open(&path).map_err(io_error(format!("cannot open {}", path.display())))?;
            unpack_layer(&shared.store, file, &layer, &name)
        })
        .await?;
        self.report(compressed, LayerState::Done, compressed.size);
        Ok(())
    }

    async fn download(&self, layer: &Descriptor, path: &Path) -> Result<(), ImageError> {
        if layer.size > LAYER_BYTES_MAX {
            return Err(self.damaged(format!("layer {} of {} bytes is too large", layer.digest, layer.size)));
        }
        let outcome = with_retries(ATTEMPTS, || Box::pin(self.download_once(layer, path))).await;
        outcome.map_err(|failure| match failure {
            Failure::NotFound(cause) => self.damaged(cause),
            other => other.into_error(&self.name),
        })
    }

    /// Goes on where an earlier attempt ended. A file that turns out to be wrong is removed.
    async fn download_once(&self, layer: &Descriptor, path: &Path) -> Result<(), Failure> {
        let mut partial = Partial::open(path).await.map_err(disk)?;
        if partial.length < layer.size {
            self.download_rest(layer, &mut partial).await?;
        }
        partial.file.flush().await.map_err(disk)?;
        let found = digest_text(&partial.hash.finalize());
        if partial.length == layer.size && found == layer.digest {
            return Ok(());
        }
        tokio::fs::remove_file(path).await.map_err(disk)?;
        Err(Failure::Transient(format!(
            "layer {} arrived damaged ({} bytes, {found})",
            layer.digest, partial.length
        )))
    }

    async fn download_rest(&self, layer: &Descriptor, partial: &mut Partial) -> Result<(), Failure> {
        let (mut response, start) = self.session.blob(&layer.digest, partial.length).await?;
        if start != partial.length {
            partial.restart().await.map_err(disk)?;
            if start != 0 {
                return Err(Failure::Transient("the registry sent another range".to_owned()));
            }
        }
        let mut reported = partial.length;
        while let Some(chunk) =
            response.chunk().await.map_err(|error| Failure::Transient(describe(&error)))?
        {
            if partial.length + chunk.len() as u64 > layer.size {
                partial.restart().await.map_err(disk)?;
                return Err(Failure::Other(format!(
                    "layer {} is longer than its manifest says",
                    layer.digest
                )));
            }
            partial.append(&chunk).await.map_err(disk)?;
            if partial.length - reported >= REPORT_BYTES {
                reported = partial.length;
                self.report(layer, LayerState::Fetching, reported);
            }
        }
        partial.file.flush().await.map_err(disk)?;
        if partial.length < layer.size {
            let (length, size) = (partial.length, layer.size);
            return Err(Failure::Transient(format!(
                "layer {} ended after {length} of {size} bytes",
                layer.digest
            )));
        }
        Ok(())
    }

    fn report(&self, layer: &Descriptor, state: LayerState, done_bytes: u64) {
        self.shared.report(Progress {
            image: self.name.clone(),
            layer: layer.digest.clone(),
            state,
            done_bytes,
            total_bytes: layer.size,
        });
    }

    /// The compressed layers were kept in case of a crash before the image was recorded.
    fn forget_partials(&self) {
        for path in
            self.manifest.layers.iter().filter_map(|layer| self.shared.store.partial_path(&layer.digest))
        {
            if let Err(error) = remove_tree(&path) {
                tracing::warn!(path = %path.display(), %error, "a fetched layer stays until the next start");
            }
        }
    }
}

fn disk(error: io::Error) -> Failure {
    Failure::Other(format!("cannot write a layer: {error}"))
}

/// A file being fetched and the digest of what is in it so far.
struct Partial {
    file: tokio::fs::File,
    hash: Sha256,
    length: u64,
}

impl Partial {
    async fn open(path: &Path) -> io::Result<Self> {
        let mut options = tokio::fs::OpenOptions::new();
        let file = options.read(true).write(true).create(true).truncate(false).open(path).await?;
        let mut partial = Self { file, hash: Sha256::new(), length: 0 };
        let mut buffer = vec![0; 1 << 16];
        loop {
            match partial.file.read(&mut buffer).await? {
                0 => return Ok(partial),
                count => {
                    partial.hash.update(&buffer[..count]);
                    partial.length += count as u64;
                }
            }
        }
    }

    async fn append(&mut self, chunk: &[u8]) -> io::Result<()> {
        self.file.write_all(chunk).await?;
        self.hash.update(chunk);
        self.length += chunk.len() as u64;
        Ok(())
    }

    async fn restart(&mut self) -> io::Result<()> {
        use tokio::io::AsyncSeekExt;
        self.file.set_len(0).await?;
        self.file.rewind().await?;
        (self.hash, self.length) = (Sha256::new(), 0);
        Ok(())
    }
}

/// Unpacks a layer beside its place, checks what it is, and puts it there.
pub(crate) fn unpack_layer(
    store: &Store,
    compressed: impl io::Read,
    layer: &str,
    name: &str,
) -> Result<(), ImageError> {
    let work = store.work_directory().map_err(io_error("cannot make a work directory"))?;
    let outcome = unpack_into(store, compressed, &work, layer, name);
    if outcome.is_err() {
        remove_tree(&work).map_err(io_error(format!("cannot remove {}", work.display())))?;
    }
    outcome
}

fn unpack_into(
    store: &Store,
    compressed: impl io::Read,
    work: &PathBuf,
    layer: &str,
    name: &str,
) -> Result<(), ImageError> {
    use std::os::unix::fs::PermissionsExt;
    std::fs::set_permissions(work, std::fs::Permissions::from_mode(0o755))
        .map_err(io_error("work directory"))?;
    let damaged = |cause: String| ImageError::Damaged { name: name.to_owned(), cause };
    let found = unpack::unpack(compressed, work).map_err(|error| match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::PermissionDenied | io::ErrorKind::QuotaExceeded => {
            io_error(format!("cannot unpack layer {layer}"))(error)
        }
        _ => damaged(format!("layer {layer}: {error}")),
    })?;
    if found != layer {
        return Err(damaged(format!("layer {layer} unpacks to {found}")));
    }
    store.place_layer(work, layer).map_err(io_error(format!("cannot place layer {layer}")))
}
