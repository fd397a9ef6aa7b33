//! Device nodes.

use std::fs;
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;

use rustix::fs::{CWD, FileType, Mode};

use crate::{Context, Result};

/// A character or block device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Node {
    pub is_block: bool,
    pub major: u32,
    pub minor: u32,
    /// Permission bits.
    pub mode: u32,
}

/// What is at `path`, following links; `None` when it is no device.
pub fn read(path: &Path) -> io::Result<Option<Node>> {
    let metadata = fs::metadata(path)?;
    let kind = metadata.file_type();
    let (major, minor) = (rustix::fs::major(metadata.rdev()), rustix::fs::minor(metadata.rdev()));
    let node = Node { is_block: kind.is_block_device(), major, minor, mode: metadata.mode() & 0o777 };
    Ok((kind.is_block_device() || kind.is_char_device()).then_some(node))
}

/// Makes a node with exactly these permissions; one that is there already stays the device that it is.
pub fn make(path: &Path, node: &Node) -> Result<()> {
    let kind = if node.is_block { FileType::BlockDevice } else { FileType::CharacterDevice };
    let mode = Mode::from_raw_mode(node.mode);
    let what = || format!("make the device {}", path.display());
    match rustix::fs::mknodat(CWD, path, kind, mode, rustix::fs::makedev(node.major, node.minor)) {
        Ok(()) | Err(rustix::io::Errno::EXIST) => {}
        Err(error) => return Err(error).with_context(what),
    }
    // The mask of this process must not show in the node.
    rustix::fs::chmod(path, mode).with_context(what)
}
