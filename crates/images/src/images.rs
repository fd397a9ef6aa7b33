//! [`Images`]: the image service of this machine.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Weak};
use std::time::SystemTime;

use async_trait::async_trait;
use env::Env;
use parking_lot::Mutex;
use tokio::sync::broadcast;

use crate::manifest::hex_of;
use crate::reference::Reference;
use crate::registry::Connector;
use crate::store::{Record, Removal, Store};
use crate::{
    BuiltinFile, Credentials, Image, ImageConfig, ImageError, ImageService, Registries, builtin, import, pull,
};

/// The host in the names of images that [`Images::ensure_builtin`] makes.
pub const BUILTIN_REGISTRY: &str = "kobune.local";

/// How many progress reports a slow listener may lag behind.
const PROGRESS_BUFFER: usize = 256;
/// A shorter prefix of an image ID is more likely a name.
const ID_PREFIX_MIN: usize = 12;

/// How far a layer of an image is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Progress {
    /// The image's full name.
    pub image: String,
    /// The digest of the compressed layer.
    pub layer: String,
    pub state: LayerState,
    pub done_bytes: u64,
    pub total_bytes: u64,
}

/// Where in its life a layer is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LayerState {
    Fetching,
    Unpacking,
    Done,
    /// It was on this machine already.
    Present,
}

/// The images of this machine. Cheap to clone.
#[derive(Clone)]
pub struct Images {
    pub(crate) shared: Arc<Shared>,
}

pub(crate) struct Shared {
    pub store: Store,
    pub connector: Connector,
    pub progress: broadcast::Sender<Progress>,
    /// One at a time for each image name and each layer: those who come second find the work done.
    locks: Mutex<BTreeMap<String, Weak<tokio::sync::Mutex<()>>>>,
}

impl Shared {
    /// Waits until nobody else works on `what`.
    pub async fn lock(&self, what: &str) -> tokio::sync::OwnedMutexGuard<()> {
        let lock = {
            let mut locks = self.locks.lock();
            locks.retain(|_, lock| lock.strong_count() > 0);
            let known = locks.get(what).and_then(Weak::upgrade);
            known.unwrap_or_else(|| {
                let lock = Arc::new(tokio::sync::Mutex::new(()));
                locks.insert(what.to_owned(), Arc::downgrade(&lock));
                lock
            })
        };
        lock.lock_owned().await
    }

    pub fn report(&self, progress: Progress) {
        // Nobody listening is no error.
        let _listeners = self.progress.send(progress);
    }
}

impl Images {
    /// Opens the images below `data_dir`; removes what a crash left half done.
    pub fn open(data_dir: &Path, registries: Registries, env: &Env) -> Result<Self, ImageError> {
        let store = Store::open(
            data_dir.join("images"),
            data_dir.join("containers/all"),
            SystemTime::from(env.now()),
        )?;
        let shared = Shared {
            store,
            connector: Connector::new(registries),
            progress: broadcast::Sender::new(PROGRESS_BUFFER),
            locks: Mutex::default(),
        };
        Ok(Self { shared: Arc::new(shared) })
    }

    /// Reports of running pulls, from now on.
    pub fn progress(&self) -> broadcast::Receiver<Progress> {
        self.shared.progress.subscribe()
    }

    /// Takes images from an archive of `docker save` or an OCI layout, perhaps compressed. `name` is for archives
    /// of one image that has none.
    pub async fn import(&self, archive: &Path, name: Option<&str>) -> Result<Vec<Image>, ImageError> {
        let name = name.map(Reference::parse).transpose()?;
        let (shared, archive) = (self.shared.clone(), archive.to_owned());
        blocking(move || import::import(&shared.store, &archive, name.as_ref())).await
    }

    /// Makes an image of files of this machine, unless it is there and up to date. Takes milliseconds: files are
    /// linked where possible.
    pub fn ensure_builtin(
        &self,
        name: &str,
        config: &ImageConfig,
        files: &[BuiltinFile],
    ) -> Result<Image, ImageError> {
        builtin::ensure(&self.shared.store, &Reference::parse(name)?, config, files)
    }
}

/// Runs work that waits for the disk.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, ImageError> + Send + 'static,
) -> Result<T, ImageError> {
    tokio::task::spawn_blocking(work).await.unwrap_or_else(|error| match error.try_into_panic() {
        Ok(panic) => std::panic::resume_unwind(panic),
        Err(error) => Err(ImageError::Io { what: "the process is stopping".into(), source: error.into() }),
    })
}

/// How a caller may name an image.
enum Query {
    Id(String),
    Reference(Reference),
}

/// An image ID, in full or the beginning of its digits, or a name.
fn query(name: &str) -> Result<Query, ImageError> {
    let digits = name.strip_prefix("sha256:").unwrap_or(name);
    let is_hex = digits.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    if is_hex && (ID_PREFIX_MIN..=64).contains(&digits.len()) {
        return Ok(Query::Id(format!("sha256:{digits}")));
    }
    Reference::parse(name).map(Query::Reference)
}

fn matches(query: &Query, record: &Record) -> bool {
    match query {
        Query::Id(id) => record.id.starts_with(id.as_str()),
        Query::Reference(reference) => match (&reference.digest, reference.tagged()) {
            (Some(digest), _) => record.digests.contains(&reference.with_digest(digest)),
            (None, tagged) => tagged.is_some_and(|name| record.tags.contains(&name)),
        },
    }
}

#[async_trait]
impl ImageService for Images {
    async fn pull(&self, name: &str, credentials: &[Credentials]) -> Result<Image, ImageError> {
        let reference = Reference::parse(name)?;
        if reference.registry == BUILTIN_REGISTRY {
            // Images that are part of the program have no registry that could be asked.
            return self.find(name).await?.ok_or_else(|| ImageError::NotFound(name.to_owned()));
        }
        pull::pull(&self.shared, &reference, credentials).await
    }

    async fn find(&self, name: &str) -> Result<Option<Image>, ImageError> {
        let query = query(name)?;
        self.shared.store.find(|record| matches(&query, record))
    }

    async fn list(&self) -> Result<Vec<Image>, ImageError> {
        self.shared.store.list()
    }

    async fn remove(&self, name: &str) -> Result<(), ImageError> {
        let query = query(name)?;
        let (shared, wanted) = (self.shared.clone(), name.to_owned());
        blocking(move || {
            let found = shared.store.remove(|record| match &query {
                _ if !matches(&query, record) => Removal::Keep,
                Query::Id(_) => Removal::Image,
                Query::Reference(reference) => match &reference.digest {
                    Some(digest) => Removal::Name(reference.with_digest(digest)),
                    None => untag(reference, record),
                },
            })?;
            if found { Ok(()) } else { Err(ImageError::NotFound(wanted)) }
        })
        .await
    }
}

/// With its last tag an image goes, though it still has the digest it was pulled by.
fn untag(reference: &Reference, record: &Record) -> Removal {
    match reference.tagged() {
        Some(name) if record.tags.len() > 1 => Removal::Name(name),
        _ => Removal::Image,
    }
}

/// Says whether a layer's digest can be used, in the words of an error.
pub(crate) fn check_digests<'a>(
    name: &str,
    digests: impl IntoIterator<Item = &'a String>,
) -> Result<(), ImageError> {
    match digests.into_iter().find(|digest| hex_of(digest).is_none()) {
        Some(digest) => Err(ImageError::Damaged {
            name: name.to_owned(),
            cause: format!("unsupported digest {digest:?}"),
        }),
        None => Ok(()),
    }
}
