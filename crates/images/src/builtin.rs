//! Images made of this machine's own files: they need no registry.

use std::fs;
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use crate::manifest::digest_text;
use crate::reference::Reference;
use crate::store::{Record, Store, io_error, remove_tree};
use crate::{Image, ImageConfig, ImageError};

/// A file of a built-in image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BuiltinFile {
    /// Absolute, in the image.
    pub path: PathBuf,
    /// On this machine. An empty path makes a directory.
    pub source: PathBuf,
    /// Permission bits.
    pub mode: u32,
}

/// Makes the image unless it is there with just these files.
pub(crate) fn ensure(
    store: &Store,
    name: &Reference,
    config: &ImageConfig,
    files: &[BuiltinFile],
) -> Result<Image, ImageError> {
    let layer = identity(files).map_err(io_error(format!("cannot read the files of {name}")))?;
    let id = image_id(&layer, config);
    let tag = name.tagged().ok_or_else(|| ImageError::InvalidName {
        name: name.to_string(),
        cause: "a built-in image has a tag".to_owned(),
    })?;
    if let Some(image) = store.find(|record| record.id == id && record.tags.contains(&tag))?
        && store.has_layer(&layer)
    {
        return Ok(image);
    }
    let _active = store.activity().map_err(io_error("cannot lock the image store"))?;
    let size_bytes = build(store, files, &layer).map_err(io_error(format!("cannot make image {name}")))?;
    store.record(Record {
        id,
        tags: [tag].into(),
        size_bytes,
        config: config.clone(),
        layers: vec![layer],
        ..Record::default()
    })
}

/// Stands for the content without reading it: the same file, unchanged, is the same layer.
fn identity(files: &[BuiltinFile]) -> io::Result<String> {
    let mut hash = Sha256::new();
    for file in files {
        hash.update(format!("{:?} {:o}", file.path, file.mode));
        if !file.source.as_os_str().is_empty() {
            let found = fs::metadata(&file.source)?;
            let time = (found.mtime(), found.mtime_nsec());
            hash.update(format!("{} {} {} {time:?}", found.dev(), found.ino(), found.size()));
        }
    }
    Ok(digest_text(&hash.finalize()))
}

fn image_id(layer: &str, config: &ImageConfig) -> String {
    let mut hash = Sha256::new();
    hash.update(layer);
    hash.update(format!("{config:?}"));
    digest_text(&hash.finalize())
}

fn build(store: &Store, files: &[BuiltinFile], layer: &str) -> io::Result<u64> {
    let work = store.work_directory()?;
    let built = fill(&work, files).and_then(|size| store.place_layer(&work, layer).map(|()| size));
    if built.is_err() {
        remove_tree(&work)?;
    }
    built
}

fn fill(root: &Path, files: &[BuiltinFile]) -> io::Result<u64> {
    fs::set_permissions(root, fs::Permissions::from_mode(0o755))?;
    let mut size = 0;
    for file in files {
        let target = root.join(file.path.strip_prefix("/").unwrap_or(&file.path));
        if file.source.as_os_str().is_empty() {
            fs::create_dir_all(&target)?;
            fs::set_permissions(&target, fs::Permissions::from_mode(file.mode))?;
            continue;
        }
        if let Some(parent) = target.parent() {
            fs::create_dir_all(parent)?;
        }
        size += place(&file.source, &target, file.mode)?;
    }
    Ok(size)
}

/// Links the file if it has the right permissions and owner and stands on the same file system; else copies it.
fn place(source: &Path, target: &Path, mode: u32) -> io::Result<u64> {
    let source = fs::canonicalize(source)?;
    let found = fs::metadata(&source)?;
    let same = found.mode() & 0o7777 == mode && found.uid() == 0 && found.gid() == 0;
    if !same || fs::hard_link(&source, target).is_err() {
        fs::copy(&source, target)?;
        fs::set_permissions(target, fs::Permissions::from_mode(mode))?;
        fs::File::open(target)?.sync_all()?;
    }
    Ok(found.size())
}
