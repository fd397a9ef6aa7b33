//! Volumes: making them before containers start, keeping their files current, taking them down.
//!
//! What comes from the API is written into one memory file system for the whole node, so that secrets never reach a
//! disk and no mount is needed per volume. What is on the disk lies below the pod's directory.

pub mod atomic;
pub mod claims;
pub mod host_path;
pub mod ownership;
pub mod payload;
pub mod subpath;
pub mod token;

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use client::Client;
use env::Env;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{EmptyDirVolumeSource, Pod, Volume};
use parking_lot::Mutex;

use crate::make::environment::Lookup;
use crate::make::field::Surroundings;
use crate::quantity;
use payload::Sources;
use token::Tokens;

/// All volumes of this node.
pub struct Volumes {
    root: PathBuf,
    client: Client,
    env: Env,
    tokens: Tokens,
    /// Pod uid → volume → where it is on the host.
    places: Mutex<BTreeMap<String, BTreeMap<String, PathBuf>>>,
}

/// Volume name and why it failed.
pub type Failures = Vec<(String, String)>;

/// What making a pod's volumes needs from outside.
pub struct Inputs<'a> {
    pub pod: &'a Pod,
    pub lookup: &'a dyn Lookup,
    pub around: &'a Surroundings,
}

impl Volumes {
    /// `root` is the kubelet's directory.
    pub fn new(root: PathBuf, client: Client, env: Env) -> Self {
        Self { root, client, env, tokens: Tokens::default(), places: Mutex::default() }
    }

    /// Mounts the memory file system unless it is there already.
    pub fn prepare(&self) -> io::Result<()> {
        let memory = self.memory();
        fs::create_dir_all(&memory)?;
        fs::create_dir_all(self.root.join("pods"))?;
        let mounted = linux::mount::list().map_err(|error| error.source)?;
        if mounted.iter().any(|mount| mount.mount_point == memory) {
            return Ok(());
        }
        let attributes = linux::mount::Attributes { no_suid: true, no_dev: true, ..Default::default() };
        match linux::mount::mount("tmpfs", "kobune", &memory, &["mode=0755"], attributes) {
            Ok(()) => Ok(()),
            // Without the right to mount there are no containers either; tests run so.
            Err(error) if error.source.kind() == io::ErrorKind::PermissionDenied => {
                tracing::warn!(%error, "secrets are kept on disk");
                Ok(())
            }
            Err(error) => Err(error.source),
        }
    }

    fn memory(&self) -> PathBuf {
        self.root.join("memory")
    }

    /// The pod's own directory.
    pub fn pod_directory(&self, uid: &str) -> PathBuf {
        self.root.join("pods").join(uid)
    }

    /// Where a volume that was set up is on the host.
    pub fn place(&self, uid: &str, volume: &str) -> Option<PathBuf> {
        self.places.lock().get(uid).and_then(|places| places.get(volume)).cloned()
    }

    /// When the pod's tokens must be renewed by calling [`Volumes::set_up`] again.
    pub fn refresh_at(&self, uid: &str) -> Option<Timestamp> {
        self.tokens.refresh_at(uid)
    }

    /// Sets up all volumes of the pod, or brings their files up to date.
    pub async fn set_up(&self, inputs: &Inputs<'_>) -> Result<(), Failures> {
        let pod = inputs.pod;
        let uid = pod.metadata.uid.clone().unwrap_or_default();
        let keys = payload::wanted_tokens(pod);
        let tokens = self.tokens.get(&self.client, &self.env, pod, &keys).await;
        let tokens = match tokens {
            Ok(tokens) => tokens,
            Err(status) => return Err(token_failures(pod, &format!("failed to fetch token: {status}"))),
        };
        let from = Sources { pod, lookup: inputs.lookup, around: inputs.around, tokens: &tokens };
        let mut failures = Failures::new();
        for volume in pod.spec.iter().flat_map(|spec| spec.volumes.iter().flatten()) {
            match self.set_up_one(&uid, volume, &from).await {
                Ok(place) => {
                    self.places.lock().entry(uid.clone()).or_default().insert(volume.name.clone(), place);
                }
                Err(cause) => failures.push((volume.name.clone(), cause)),
            }
        }
        if failures.is_empty() { Ok(()) } else { Err(failures) }
    }

    async fn set_up_one(&self, uid: &str, volume: &Volume, from: &Sources<'_>) -> Result<PathBuf, String> {
        let group = fs_group(from.pod);
        if let Some(files) = payload::payload(volume, from) {
            let place = self.memory().join(uid).join(&volume.name);
            let tag = format!("{}.{}", self.env.now().strftime("%Y_%m_%d_%H_%M_%S"), self.env.name_suffix(8));
            return write_files(&place, &files?, group, &tag)
                .map(|()| place)
                .map_err(|error| error.to_string());
        }
        if let Some(source) = &volume.empty_dir {
            let place = self.pod_directory(uid).join("volumes/kubernetes.io~empty-dir").join(&volume.name);
            return empty_directory(&place, source, group).map(|()| place);
        }
        if let Some(source) = &volume.host_path {
            let place = PathBuf::from(&source.path);
            return host_path::check(&place, source.type_.as_deref().unwrap_or_default()).map(|()| place);
        }
        if let Some(source) = &volume.persistent_volume_claim {
            let namespace = from.pod.metadata.namespace.as_deref().unwrap_or_default();
            let place = claims::locate(&self.client, namespace, &source.claim_name).await?;
            return own(from.pod, place, group).await;
        }
        if volume.image.is_some() {
            let place = self.image_place(uid, &volume.name);
            return fs::create_dir_all(&place).map(|()| place).map_err(|error| error.to_string());
        }
        Err(format!("volumes of this kind are not supported by this node: {}", kind_of(volume)))
    }

    fn image_place(&self, uid: &str, volume: &str) -> PathBuf {
        self.pod_directory(uid).join("volumes/kubernetes.io~image").join(volume)
    }

    /// Mounts an image's layers (the lowest first) as a volume that was set up, unless they are mounted already.
    pub fn mount_image(&self, uid: &str, volume: &str, layers: &[PathBuf]) -> linux::Result<()> {
        let place = self.image_place(uid, volume);
        if linux::mount::list()?.iter().any(|mount| mount.mount_point == place) {
            return Ok(());
        }
        let upside_down: Vec<&Path> = layers.iter().rev().map(PathBuf::as_path).collect();
        linux::mount::overlay_read_only(&upside_down, &place)
    }

    /// Takes down what the pod's volumes occupy. Data of claims and of the host stays.
    pub fn tear_down(&self, uid: &str) -> io::Result<()> {
        self.tokens.forget(uid);
        self.places.lock().remove(uid);
        let directory = self.pod_directory(uid);
        linux::mount::unmount_below(&directory).map_err(|error| error.source)?;
        remove(&self.memory().join(uid))?;
        remove(&directory.join("volumes"))?;
        remove(&directory.join("volume-subpaths"))
    }

    /// Takes down everything of the pod.
    pub fn remove_pod(&self, uid: &str) -> io::Result<()> {
        self.tear_down(uid)?;
        remove(&self.pod_directory(uid))
    }

    /// The uids of pods that have something here.
    pub fn known_pods(&self) -> io::Result<Vec<String>> {
        let mut uids = std::collections::BTreeSet::new();
        for directory in [self.root.join("pods"), self.memory()] {
            for entry in fs::read_dir(directory)? {
                uids.insert(entry?.file_name().to_string_lossy().into_owned());
            }
        }
        Ok(uids.into_iter().collect())
    }
}

fn token_failures(pod: &Pod, cause: &str) -> Failures {
    let volumes = pod.spec.iter().flat_map(|spec| spec.volumes.iter().flatten());
    let has_token = |volume: &&Volume| {
        let sources = volume.projected.iter().flat_map(|projected| projected.sources.iter().flatten());
        sources.into_iter().any(|source| source.service_account_token.is_some())
    };
    volumes.filter(has_token).map(|volume| (volume.name.clone(), cause.to_owned())).collect()
}

/// `spec.securityContext.fsGroup`.
pub fn fs_group(pod: &Pod) -> Option<u32> {
    let context = pod.spec.as_ref()?.security_context.as_ref()?;
    u32::try_from(context.fs_group?).ok()
}

fn write_files(place: &Path, files: &payload::Payload, group: Option<u32>, tag: &str) -> io::Result<()> {
    if !place.exists() {
        fs::create_dir_all(place)?;
        fs::set_permissions(place, fs::Permissions::from_mode(if group.is_some() { 0o2777 } else { 0o777 }))?;
        std::os::unix::fs::lchown(place, None, group)?;
    }
    atomic::write(place, files, group, tag).map(|_changed| ())
}

fn empty_directory(place: &Path, source: &EmptyDirVolumeSource, group: Option<u32>) -> Result<(), String> {
    let text = |error: &dyn std::fmt::Display| error.to_string();
    let existed = place.exists();
    fs::create_dir_all(place).map_err(|error| text(&error))?;
    match source.medium.as_deref().unwrap_or_default() {
        "" => {}
        "Memory" => mount_memory(place, source).map_err(|error| text(&error))?,
        medium => return Err(format!("unknown or unsupported storage medium {medium:?}")),
    }
    if !existed {
        fs::set_permissions(place, fs::Permissions::from_mode(0o777)).map_err(|error| text(&error))?;
        if let Some(group) = group {
            ownership::give_to_group(place, group, false).map_err(|error| text(&error))?;
        }
    }
    Ok(())
}

fn mount_memory(place: &Path, source: &EmptyDirVolumeSource) -> linux::Result<()> {
    if linux::mount::list()?.iter().any(|mount| mount.mount_point == place) {
        return Ok(());
    }
    let size = source.size_limit.as_ref().and_then(quantity::units).filter(|bytes| *bytes > 0);
    let size = size.map(|bytes| format!("size={bytes}"));
    let options: Vec<&str> = size.as_deref().into_iter().chain(["mode=0777"]).collect();
    linux::mount::mount("tmpfs", "tmpfs", place, &options, linux::mount::Attributes::default())
}

/// Gives a claim's directory to the pod's group; that can take long, so it is done aside.
async fn own(pod: &Pod, place: PathBuf, group: Option<u32>) -> Result<PathBuf, String> {
    let Some(group) = group else { return Ok(place) };
    let context = pod.spec.as_ref().and_then(|spec| spec.security_context.as_ref());
    let lazy = context.and_then(|c| c.fs_group_change_policy.as_deref()) == Some("OnRootMismatch");
    let target = place.clone();
    let done = tokio::task::spawn_blocking(move || ownership::give_to_group(&target, group, lazy)).await;
    match done {
        Ok(Ok(())) => Ok(place),
        Ok(Err(error)) => Err(format!("applyFSGroup failed: {error}")),
        Err(error) => Err(format!("applyFSGroup failed: {error}")),
    }
}

/// The name of a volume's source, for messages.
fn kind_of(volume: &Volume) -> String {
    let value = serde_json::to_value(volume).unwrap_or_default();
    let keys = value.as_object().into_iter().flatten().map(|(key, _)| key.clone());
    keys.filter(|key| key != "name").collect::<Vec<_>>().join(", ")
}

fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}
