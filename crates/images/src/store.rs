//! What is on disk: unpacked layers by the digest of their content, and one index file that names the images.
//!
//! ```text
//! index.json           every image: name, digests, configuration, layers
//! layers/<hex>/        an unpacked layer, complete as soon as it has this name
//! partial/<hex>        a compressed layer being fetched; kept to go on with after a crash
//! work/                layers being unpacked; emptied at start
//! ```
//! The index is replaced atomically after everything it refers to is on the disk, so a crash at any moment loses at
//! most an image that nobody was told of.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
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
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    index: Index,
    /// Layers that a pull or import is about to refer to.
    pinned: BTreeMap<String, usize>,
    sequence: u64,
}

/// Keeps layers from being collected while an image is put together.
pub(crate) struct Pin<'a> {
    store: &'a Store,
    layers: Vec<String>,
}

impl Drop for Pin<'_> {
    fn drop(&mut self) {
        let mut state = self.store.state.lock();
        for layer in &self.layers {
            if let Some(count) = state.pinned.get_mut(layer) {
                *count -= 1;
                if *count == 0 {
                    state.pinned.remove(layer);
                }
            }
        }
    }
}

/// Adds the path to an error.
pub(crate) fn io_error(what: impl std::fmt::Display) -> impl FnOnce(io::Error) -> ImageError {
    let what = what.to_string();
    move |source| ImageError::Io { what, source }
}

impl Store {
    /// Opens or makes the store in `root`, and removes what a crash left half done.
    pub fn open(root: PathBuf, now: SystemTime) -> Result<Self, ImageError> {
        for directory in ["layers", "partial", "work"] {
            let path = root.join(directory);
            fs::create_dir_all(&path).map_err(io_error(format!("cannot make {}", path.display())))?;
        }
        let index = read_index(&root.join("index.json"))?;
        let store = Self { root, state: Mutex::new(State { index, ..State::default() }) };
        store.clean(now).map_err(io_error("cannot clean the image store"))?;
        Ok(store)
    }

    fn clean(&self, now: SystemTime) -> io::Result<()> {
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
        self.collect(&self.state.lock())
    }

    /// Removes layers that no image and no pull refers to.
    fn collect(&self, state: &State) -> io::Result<()> {
        let used = state.index.images.values().flat_map(|record| &record.layers).chain(state.pinned.keys());
        let used: BTreeSet<&str> = used.filter_map(|layer| hex_of(layer)).collect();
        for entry in fs::read_dir(self.root.join("layers"))? {
            let entry = entry?;
            let name = entry.file_name();
            if !used.contains(name.to_string_lossy().as_ref()) {
                remove_tree(&entry.path())?;
            }
        }
        Ok(())
    }

    /// Keeps the layers until the pin is dropped.
    pub fn pin(&self, layers: &[String]) -> Pin<'_> {
        let mut state = self.state.lock();
        for layer in layers {
            *state.pinned.entry(layer.clone()).or_default() += 1;
        }
        Pin { store: self, layers: layers.to_vec() }
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

    /// An empty directory to work in; removed at the next start if it stays.
    pub fn work_directory(&self) -> io::Result<PathBuf> {
        let sequence = {
            let mut state = self.state.lock();
            state.sequence += 1;
            state.sequence
        };
        let path = self.root.join("work").join(sequence.to_string());
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

    /// Records an image and gives it the names, which other images lose. Everything it refers to is brought to the
    /// disk first.
    pub fn commit(&self, record: Record) -> Result<Image, ImageError> {
        linux::tree::sync_file_system(&self.root).map_err(io_error("cannot write layers to the disk"))?;
        let mut state = self.state.lock();
        let mut index = state.index.clone();
        for other in index.images.values_mut() {
            other.tags.retain(|tag| !record.tags.contains(tag));
        }
        let entry = index.images.entry(record.id.clone()).or_default();
        let (tags, digests) = (std::mem::take(&mut entry.tags), std::mem::take(&mut entry.digests));
        *entry = record;
        entry.tags.extend(tags);
        entry.digests.extend(digests);
        let image = self.image(entry);
        self.write_index(&index)?;
        state.index = index;
        Ok(image)
    }

    /// Removes a name, or the whole image with the given ID; layers that nobody uses any more go too.
    pub fn remove(&self, matches: impl Fn(&Record) -> Removal) -> Result<bool, ImageError> {
        let mut state = self.state.lock();
        let mut index = state.index.clone();
        let mut found = false;
        index.images.retain(|_, record| match matches(record) {
            Removal::Keep => true,
            Removal::Image => {
                found = true;
                false
            }
            Removal::Name(name) => {
                found = true;
                record.tags.remove(&name);
                record.digests.remove(&name);
                !record.tags.is_empty() || !record.digests.is_empty()
            }
        });
        if found {
            self.write_index(&index)?;
            state.index = index;
            self.collect(&state).map_err(io_error("cannot remove layers"))?;
        }
        Ok(found)
    }

    pub fn find(&self, matches: impl Fn(&Record) -> bool) -> Option<Image> {
        let state = self.state.lock();
        state.index.images.values().find(|record| matches(record)).map(|record| self.image(record))
    }

    pub fn list(&self) -> Vec<Image> {
        self.state.lock().index.images.values().map(|record| self.image(record)).collect()
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

    fn write_index(&self, index: &Index) -> Result<(), ImageError> {
        let write = || {
            let bytes = serde_json::to_vec(index)?;
            let (path, temporary) = (self.root.join("index.json"), self.root.join("index.json.new"));
            let mut file = File::create(&temporary)?;
            file.write_all(&bytes)?;
            file.sync_all()?;
            fs::rename(&temporary, &path)?;
            File::open(&self.root)?.sync_all()
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
