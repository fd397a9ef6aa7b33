//! What is on disk: unpacked layers by the digest of their content, and one index file that names the images.
//!
//! ```text
//! index.json           every image: name, digests, configuration, layers
//! layers/<hex>/        an unpacked layer, complete as soon as it has this name
//! partial/<hex>        a compressed layer being fetched; kept to go on with after a crash
//! work/                layers being unpacked; emptied at start
//! active               locked by whoever adds layers, so that nobody collects them meanwhile
//! index.lock           locked by whoever changes the index
//! ```
//! Several processes may use a store at once: a pull by hand while the node runs. Containers hold on to layers by
//! links in their directories.
//!
//! The index is replaced atomically after everything it refers to is on the disk, so a crash at any moment loses at
//! most an image that nobody was told of.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File, TryLockError};
use std::io::{self, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

use crate::manifest::hex_of;
use crate::{Image, ImageConfig, ImageError};

/// What is left of an unfinished pull is kept this long.
const PARTIAL_KEPT: Duration = Duration::from_secs(24 * 3600);

/// An image as the index has it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Record {
    pub id: String,
    pub tags: BTreeSet<String>,
    pub digests: BTreeSet<String>,
    pub size_bytes: u64,
    pub config: ImageConfig,
    /// Digests of the uncompressed layers, lowest first.
    pub layers: Vec<String>,
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
struct Index {
    images: BTreeMap<String, Record>,
}

pub(crate) struct Store {
    root: PathBuf,
    /// Below it containers link to their layers: `<id>/l/<n>`.
    containers: PathBuf,
    state: Mutex<State>,
    sequence: AtomicU64,
}

#[derive(Default)]
struct State {
    index: Index,
    /// Which file the index was read from.
    version: Option<Version>,
}

/// Tells one index file from the one that replaces it.
type Version = (u64, u64, i64, i64);

/// While it lives no process collects layers.
pub(crate) struct Activity {
    _lock: File,
}

/// Adds the path to an error.
pub(crate) fn io_error(what: impl std::fmt::Display) -> impl FnOnce(io::Error) -> ImageError {
    let what = what.to_string();
    move |source| ImageError::Io { what, source }
}

impl Store {
    /// Opens or makes the store in `root`, and removes what a crash left half done, unless another process is at it.
    pub fn open(root: PathBuf, containers: PathBuf, now: SystemTime) -> Result<Self, ImageError> {
        for directory in ["layers", "partial", "work"] {
            let path = root.join(directory);
            fs::create_dir_all(&path).map_err(io_error(format!("cannot make {}", path.display())))?;
        }
        let store = Self { root, containers, state: Mutex::default(), sequence: AtomicU64::new(0) };
        store.refresh(&mut store.state.lock())?;
        store.clean(now).map_err(io_error("cannot clean the image store"))?;
        Ok(store)
    }

    fn clean(&self, now: SystemTime) -> io::Result<()> {
        let Some(_alone) = self.alone()? else { return Ok(()) };
        for entry in fs::read_dir(self.root.join("work"))? {
            remove_tree(&entry?.path())?;
        }
        for entry in fs::read_dir(self.root.join("partial"))? {
            let entry = entry?;
            let age = now.duration_since(entry.metadata()?.modified()?).unwrap_or_default();
            if age > PARTIAL_KEPT {
                fs::remove_file(entry.path())?;
            }
        }
        self.collect_alone(&self.state.lock().index)
    }

    fn lock_file(&self, name: &str) -> io::Result<File> {
        File::options().create(true).truncate(false).write(true).open(self.root.join(name))
    }

    /// Keeps everybody from collecting layers.
    pub fn activity(&self) -> io::Result<Activity> {
        let lock = self.lock_file("active")?;
        lock.lock_shared()?;
        Ok(Activity { _lock: lock })
    }

    /// A lock that shows that nobody adds layers just now; `None` when somebody does.
    fn alone(&self) -> io::Result<Option<File>> {
        let lock = self.lock_file("active")?;
        match lock.try_lock() {
            Ok(()) => Ok(Some(lock)),
            Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(error)) => Err(error),
        }
    }

    /// Waits until no other process works on the layer with that compressed digest.
    pub fn lock_partial(&self, digest: &str) -> io::Result<File> {
        let hex = hex_of(digest).ok_or(io::ErrorKind::InvalidInput)?;
        let lock = self.lock_file(&format!("partial/{hex}.lock"))?;
        lock.lock()?;
        Ok(lock)
    }

    /// Removes layers that nobody refers to; leaves that to a later time when layers are being added.
    fn collect(&self, index: &Index) -> io::Result<()> {
        match self.alone()? {
            Some(_alone) => self.collect_alone(index),
            None => Ok(()),
        }
    }

    fn collect_alone(&self, index: &Index) -> io::Result<()> {
        let recorded =
            index.images.values().flat_map(|record| &record.layers).filter_map(|layer| hex_of(layer));
        let mut used: BTreeSet<String> = recorded.map(str::to_owned).collect();
        used.extend(self.held_by_containers()?);
        for entry in fs::read_dir(self.root.join("layers"))? {
            let entry = entry?;
            if !used.contains(entry.file_name().to_string_lossy().as_ref()) {
                remove_tree(&entry.path())?;
            }
        }
        Ok(())
    }

    fn held_by_containers(&self) -> io::Result<Vec<String>> {
        let mut held = Vec::new();
        for container in entries(&self.containers)? {
            for link in entries(&container.join("l"))? {
                let layer = fs::read_link(link).unwrap_or_default();
                held.extend(layer.file_name().map(|name| name.to_string_lossy().into_owned()));
            }
        }
        Ok(held)
    }

    /// Reads the index again if another process replaced it.
    fn refresh(&self, state: &mut State) -> Result<(), ImageError> {
        let path = self.root.join("index.json");
        let version = version(&path).map_err(io_error(format!("cannot look at {}", path.display())))?;
        if version.is_some() && version != state.version {
            state.index = read_index(&path)?;
            state.version = version;
        }
        Ok(())
    }

    /// Changes the index, alone among all processes.
    fn change<T>(&self, change: impl FnOnce(&mut Index) -> Option<T>) -> Result<Option<T>, ImageError> {
        let mut state = self.state.lock();
        let lock = self.lock_file("index.lock").and_then(|lock| lock.lock().map(|()| lock));
        let _lock = lock.map_err(io_error("cannot lock the image index"))?;
        self.refresh(&mut state)?;
        let mut index = state.index.clone();
        let Some(outcome) = change(&mut index) else { return Ok(None) };
        state.version = self.write_index(&index)?;
        state.index = index;
        Ok(Some(outcome))
    }

    pub fn has_layer(&self, layer: &str) -> bool {
        self.layer_path(layer).is_some_and(|path| path.is_dir())
    }

    fn layer_path(&self, layer: &str) -> Option<PathBuf> {
        hex_of(layer).map(|hex| self.root.join("layers").join(hex))
    }

    /// Where a layer with that compressed digest is collected while it is fetched.
    pub fn partial_path(&self, digest: &str) -> Option<PathBuf> {
        hex_of(digest).map(|hex| self.root.join("partial").join(hex))
    }

    /// An empty directory to work in; removed at a later start if it stays.
    pub fn work_directory(&self) -> io::Result<PathBuf> {
        let sequence = self.sequence.fetch_add(1, Ordering::Relaxed);
        let path = self.root.join("work").join(format!("{}-{sequence}", std::process::id()));
        fs::create_dir(&path)?;
        Ok(path)
    }

    /// Gives an unpacked directory its place as a layer.
    pub fn place_layer(&self, unpacked: &Path, layer: &str) -> io::Result<()> {
        let path = self.layer_path(layer).ok_or(io::ErrorKind::InvalidInput)?;
        match fs::rename(unpacked, &path) {
            Err(_) if path.is_dir() => remove_tree(unpacked),
            other => other,
        }
    }

    /// Brings layers to the disk, then records the image.
    pub fn commit(&self, record: Record) -> Result<Image, ImageError> {
        linux::tree::sync_file_system(&self.root).map_err(io_error("cannot write layers to the disk"))?;
        self.record(record)
    }

    /// Records an image whose layers are on the disk, and gives it the names, which other images lose.
    pub fn record(&self, record: Record) -> Result<Image, ImageError> {
        let committed = self.change(|index| {
            for other in index.images.values_mut() {
                other.tags.retain(|tag| !record.tags.contains(tag));
            }
            let entry = index.images.entry(record.id.clone()).or_default();
            let (tags, digests) = (std::mem::take(&mut entry.tags), std::mem::take(&mut entry.digests));
            *entry = record;
            entry.tags.extend(tags);
            entry.digests.extend(digests);
            Some(self.image(entry))
        })?;
        Ok(committed.unwrap_or_default())
    }

    /// Removes a name, or the whole image with the given ID; layers that nobody uses any more go too.
    pub fn remove(&self, matches: impl Fn(&Record) -> Removal) -> Result<bool, ImageError> {
        let removed = self.change(|index| {
            let mut found = false;
            index.images.retain(|_, record| {
                let removal = matches(record);
                found |= !matches!(removal, Removal::Keep);
                removal.apply(record)
            });
            found.then_some(())
        })?;
        if removed.is_some() {
            self.collect(&self.state.lock().index).map_err(io_error("cannot remove layers"))?;
        }
        Ok(removed.is_some())
    }

    pub fn find(&self, matches: impl Fn(&Record) -> bool) -> Result<Option<Image>, ImageError> {
        let mut state = self.state.lock();
        self.refresh(&mut state)?;
        Ok(state.index.images.values().find(|record| matches(record)).map(|record| self.image(record)))
    }

    pub fn list(&self) -> Result<Vec<Image>, ImageError> {
        let mut state = self.state.lock();
        self.refresh(&mut state)?;
        Ok(state.index.images.values().map(|record| self.image(record)).collect())
    }

    fn image(&self, record: &Record) -> Image {
        Image {
            id: record.id.clone(),
            tags: record.tags.iter().cloned().collect(),
            digests: record.digests.iter().cloned().collect(),
            size_bytes: record.size_bytes,
            config: record.config.clone(),
            layers: record.layers.iter().filter_map(|layer| self.layer_path(layer)).collect(),
        }
    }

    fn write_index(&self, index: &Index) -> Result<Option<Version>, ImageError> {
        let write = || {
            let bytes = serde_json::to_vec(index)?;
            let (path, temporary) = (self.root.join("index.json"), self.root.join("index.json.new"));
            let mut file = File::create(&temporary)?;
            file.write_all(&bytes)?;
            file.sync_all()?;
            fs::rename(&temporary, &path)?;
            File::open(&self.root)?.sync_all()?;
            version(&path)
        };
        write().map_err(io_error("cannot write the image index"))
    }
}

/// What [`Store::remove`] does to an image.
pub(crate) enum Removal {
    Keep,
    Image,
    Name(String),
}

impl Removal {
    /// Whether the record stays.
    fn apply(self, record: &mut Record) -> bool {
        match self {
            Self::Keep => true,
            Self::Image => false,
            Self::Name(name) => {
                record.tags.remove(&name);
                record.digests.remove(&name);
                !record.tags.is_empty() || !record.digests.is_empty()
            }
        }
    }
}

fn version(path: &Path) -> io::Result<Option<Version>> {
    match fs::metadata(path) {
        Ok(found) => Ok(Some((found.ino(), found.size(), found.mtime(), found.mtime_nsec()))),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// What is in a directory; nothing when it is not there.
fn entries(directory: &Path) -> io::Result<Vec<PathBuf>> {
    match fs::read_dir(directory) {
        Ok(found) => found.map(|entry| Ok(entry?.path())).collect(),
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
            Ok(Vec::new())
        }
        Err(error) => Err(error),
    }
}

fn read_index(path: &Path) -> Result<Index, ImageError> {
    match fs::read(path) {
        Ok(bytes) => serde_json::from_slice(&bytes).map_err(|error| ImageError::Damaged {
            name: path.display().to_string(),
            cause: format!("{error}; remove the file to fetch all images anew"),
        }),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Index::default()),
        Err(error) => Err(io_error(format!("cannot read {}", path.display()))(error)),
    }
}

/// Removes a file or a directory with all that is in it.
pub(crate) fn remove_tree(path: &Path) -> io::Result<()> {
    match fs::symlink_metadata(path) {
        Ok(found) if found.is_dir() => fs::remove_dir_all(path),
        Ok(_) => fs::remove_file(path),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
    }
}
