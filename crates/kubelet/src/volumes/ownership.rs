//! Giving a volume to the pod's file-system group (`fsGroup`).

use std::fs;
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt, lchown};
use std::path::Path;

/// Gives everything below `root` to `group`, readable and writable by it; new files inherit the group.
/// With `only_on_mismatch` a root that is right already is taken as a sign that all is.
pub fn give_to_group(root: &Path, group: u32, only_on_mismatch: bool) -> io::Result<()> {
    let top = fs::symlink_metadata(root)?;
    if only_on_mismatch && top.gid() == group && top.mode() & 0o2070 == 0o2070 {
        return Ok(());
    }
    let mut pending = vec![root.to_owned()];
    let mut directories = Vec::new();
    while let Some(path) = pending.pop() {
        let meta = fs::symlink_metadata(&path)?;
        if meta.is_symlink() {
            lchown(&path, None, Some(group))?;
            continue;
        }
        if meta.is_dir() {
            for entry in fs::read_dir(&path)? {
                pending.push(entry?.path());
            }
            directories.push(path);
            continue;
        }
        change(&path, &meta, group, 0o660)?;
    }
    // The root comes last, so that its state tells whether all was done.
    for path in directories.iter().rev() {
        let meta = fs::symlink_metadata(path)?;
        change(path, &meta, group, 0o2770)?;
    }
    Ok(())
}

fn change(path: &Path, meta: &fs::Metadata, group: u32, bits: u32) -> io::Result<()> {
    lchown(path, None, Some(group))?;
    fs::set_permissions(path, fs::Permissions::from_mode(meta.mode() & 0o7777 | bits))
}
