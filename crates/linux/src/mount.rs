//! Mounts: trees cloned and attached by file descriptor, file systems by name, overlays, propagation.
//!
//! Binding goes through `open_tree` and `move_mount` (Linux 5.2) and `mount_setattr` (5.12): the source is looked up
//! once, the copy is adjusted while nobody can see it, and the target is a descriptor that cannot be swapped.

use std::ffi::CString;
use std::fs;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::CWD;
use rustix::mount::{MountFlags, MountPropagationFlags, MoveMountFlags, OpenTreeFlags, UnmountFlags};

use crate::{Context, Error, Result};

/// How a mount passes on and receives the mounts made below it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Propagation {
    Private,
    Slave,
    Shared,
}

/// What is changed on a mount; everything else stays.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Attributes {
    pub read_only: bool,
    pub no_suid: bool,
    pub no_exec: bool,
    pub no_dev: bool,
    pub propagation: Option<Propagation>,
}

/// One line of `/proc/thread-self/mountinfo`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MountInfo {
    pub root: PathBuf,
    pub mount_point: PathBuf,
    pub options: String,
    pub file_system: String,
    pub source: String,
    pub super_options: String,
    /// `shared:N`, `master:N`, …
    pub tags: String,
}

#[repr(C)]
#[derive(Default)]
struct MountAttr {
    set: u64,
    clear: u64,
    propagation: u64,
    user_namespace: u64,
}

/// Copies the mount at `path` (with all below it when `recursive`) into a tree that nobody sees yet.
pub fn clone_tree(path: &Path, recursive: bool) -> Result<OwnedFd> {
    let mut flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    if recursive {
        flags |= OpenTreeFlags::AT_RECURSIVE;
    }
    rustix::mount::open_tree(CWD, path, flags)
        .with_context(|| format!("clone the mount at {}", path.display()))
}

/// Changes the attributes of `tree`, and of everything below it when `recursive`.
pub fn set_attributes(tree: BorrowedFd<'_>, attributes: Attributes, recursive: bool) -> Result<()> {
    let mut change = MountAttr::default();
    for (wanted, bit) in [
        (attributes.read_only, libc::MOUNT_ATTR_RDONLY),
        (attributes.no_suid, libc::MOUNT_ATTR_NOSUID),
        (attributes.no_dev, libc::MOUNT_ATTR_NODEV),
        (attributes.no_exec, libc::MOUNT_ATTR_NOEXEC),
    ] {
        if wanted {
            change.set |= bit;
        }
    }
    change.propagation = match attributes.propagation {
        None => 0,
        Some(Propagation::Private) => libc::MS_PRIVATE,
        Some(Propagation::Slave) => libc::MS_SLAVE,
        Some(Propagation::Shared) => libc::MS_SHARED,
    };
    let flags = libc::AT_EMPTY_PATH | if recursive { libc::AT_RECURSIVE } else { 0 };
    // SAFETY: the pointers are to a live string and a live structure of the size given.
    let answer = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            tree.as_raw_fd(),
            c"".as_ptr(),
            flags,
            &raw const change,
            size_of::<MountAttr>(),
        )
    };
    if answer == 0 { Ok(()) } else { Err(Error::new("change mount attributes", io::Error::last_os_error())) }
}

/// Puts a cloned or new tree where `target` points.
pub fn attach(tree: BorrowedFd<'_>, target: BorrowedFd<'_>) -> Result<()> {
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
    rustix::mount::move_mount(tree, "", target, "", flags).context("attach the mount")
}

/// Makes a file system of `kind` as a tree that nobody sees yet. Options are `key` or `key=value`.
pub fn new_file_system(
    kind: &str,
    source: &str,
    options: &[&str],
    attributes: Attributes,
) -> Result<OwnedFd> {
    use rustix::mount as api;
    let what = || format!("make a {kind} file system");
    let context = api::fsopen(kind, api::FsOpenFlags::FSOPEN_CLOEXEC).with_context(what)?;
    api::fsconfig_set_string(&context, "source", source).with_context(what)?;
    for option in options {
        match option.split_once('=') {
            Some((key, value)) => api::fsconfig_set_string(&context, key, value),
            None => api::fsconfig_set_flag(&context, *option),
        }
        .with_context(|| format!("make a {kind} file system with {option}"))?;
    }
    api::fsconfig_create(&context).with_context(what)?;
    let mut flags = api::MountAttrFlags::empty();
    flags.set(api::MountAttrFlags::MOUNT_ATTR_RDONLY, attributes.read_only);
    flags.set(api::MountAttrFlags::MOUNT_ATTR_NOSUID, attributes.no_suid);
    flags.set(api::MountAttrFlags::MOUNT_ATTR_NODEV, attributes.no_dev);
    flags.set(api::MountAttrFlags::MOUNT_ATTR_NOEXEC, attributes.no_exec);
    let tree = api::fsmount(context.as_fd(), api::FsMountFlags::FSMOUNT_CLOEXEC, flags).with_context(what)?;
    if attributes.propagation.is_some() {
        let only = Attributes { propagation: attributes.propagation, ..Attributes::default() };
        set_attributes(tree.as_fd(), only, false)?;
    }
    Ok(tree)
}

/// Mounts a file system of `kind` at `target`.
pub fn mount(
    kind: &str,
    source: &str,
    target: &Path,
    options: &[&str],
    attributes: Attributes,
) -> Result<()> {
    let tree = new_file_system(kind, source, options, attributes)?;
    let target = crate::path::open_path(target)?;
    attach(tree.as_fd(), target.as_fd())
}

/// Binds `source` to `target`, both existing.
pub fn bind(source: &Path, target: &Path, recursive: bool, attributes: Attributes) -> Result<()> {
    let tree = clone_tree(source, recursive)?;
    if attributes != Attributes::default() {
        set_attributes(tree.as_fd(), attributes, recursive)?;
    }
    let target = crate::path::open_path(target)?;
    attach(tree.as_fd(), target.as_fd())
}

/// Mounts an overlay at `target`. All names are relative to the current directory, which keeps the option
/// string, at most a page, free of long paths and of characters that would need escaping. `lower` has the
/// highest layer first.
pub fn overlay(lower: &[String], upper: &str, work: &str, target: &Path, read_only: bool) -> Result<()> {
    let options = format!("lowerdir={},upperdir={upper},workdir={work}", lower.join(":"));
    let data = CString::new(options).map_err(io::Error::other).context("overlay options")?;
    let flags = if read_only { MountFlags::RDONLY } else { MountFlags::empty() };
    rustix::mount::mount("overlay", target, "overlay", flags, data.as_c_str())
        .with_context(|| format!("mount an overlay of {} layers at {}", lower.len(), target.display()))
}

/// Mounts directories over each other at `target`, the first on top, to be read only.
pub fn overlay_read_only(lower: &[&Path], target: &Path) -> Result<()> {
    let attributes = Attributes { read_only: true, no_exec: true, ..Attributes::default() };
    if let [only] = lower {
        return bind(only, target, false, attributes);
    }
    let names: Vec<_> = lower.iter().map(|path| path.to_string_lossy()).collect();
    if let Some(name) = names.iter().find(|name| name.contains([':', ',', '\\'])) {
        let cause = io::Error::other("overlayfs takes no colon, comma or backslash in a name");
        return Err(crate::Error::new(format!("lay {name} over others"), cause));
    }
    let data = CString::new(format!("lowerdir={}", names.join(":")));
    let data = data.map_err(io::Error::other).context("overlay options")?;
    let flags = MountFlags::RDONLY | MountFlags::NOEXEC;
    rustix::mount::mount("overlay", target, "overlay", flags, data.as_c_str())
        .with_context(|| format!("mount {} layers over each other at {}", lower.len(), target.display()))
}

/// Makes a directory of which nothing that is mounted in it shows in other mount namespaces. It is a mount itself.
pub fn private_directory(directory: &Path) -> Result<()> {
    fs::create_dir_all(directory).with_context(|| format!("make {}", directory.display()))?;
    if !list()?.iter().any(|mount| mount.mount_point == directory) {
        bind(directory, directory, false, Attributes::default())?;
    }
    // A mount in a shared one becomes shared when it is attached, whatever it was before.
    set_propagation(directory, Propagation::Private, false)
}

/// Changes how mounts at `target` and below are passed on.
pub fn set_propagation(target: &Path, propagation: Propagation, recursive: bool) -> Result<()> {
    let mut flags = match propagation {
        Propagation::Private => MountPropagationFlags::PRIVATE,
        Propagation::Slave => MountPropagationFlags::DOWNSTREAM,
        Propagation::Shared => MountPropagationFlags::SHARED,
    };
    if recursive {
        flags |= MountPropagationFlags::REC;
    }
    rustix::mount::mount_change(target, flags)
        .with_context(|| format!("make the mounts at {} {propagation:?}", target.display()))
}

/// Makes the mount at `target` read-only; it must be a mount point.
pub fn remount_read_only(target: &Path, recursive: bool) -> Result<()> {
    let fd = crate::path::open_path(target)?;
    set_attributes(fd.as_fd(), Attributes { read_only: true, ..Attributes::default() }, recursive)
}

/// Takes the mount at `target` away at once; whoever still uses it keeps it. It is no error when there is none.
pub fn unmount(target: &Path) -> Result<()> {
    match rustix::mount::unmount(target, UnmountFlags::DETACH | UnmountFlags::NOFOLLOW) {
        Ok(()) | Err(rustix::io::Errno::INVAL | rustix::io::Errno::NOENT) => Ok(()),
        Err(error) => Err(error).with_context(|| format!("unmount {}", target.display())),
    }
}

/// Unmounts everything at `directory` and below, deepest first, in this mount namespace.
pub fn unmount_below(directory: &Path) -> Result<()> {
    for mount in list()?.iter().rev().filter(|mount| mount.mount_point.starts_with(directory)) {
        unmount(&mount.mount_point)?;
    }
    Ok(())
}

/// As [`unmount_below`], but a file system that is mounted at `directory` itself stays: it is somebody's disk.
/// `directory` may be reached through symbolic links.
pub fn unmount_inside(directory: &Path) -> Result<()> {
    let directory = match fs::canonicalize(directory) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        found => found.with_context(|| format!("find {}", directory.display()))?,
    };
    let is_inside =
        |mount: &&MountInfo| mount.mount_point.starts_with(&directory) && mount.mount_point != directory;
    for mount in list()?.iter().rev().filter(is_inside) {
        unmount(&mount.mount_point)?;
    }
    Ok(())
}

/// Makes the current directory of the mount namespace its root and lets go of the old one.
pub fn pivot_root_here() -> Result<()> {
    // Stacking the old root on the new one needs no directory for it inside the new root.
    rustix::process::pivot_root(".", ".").context("pivot the root")?;
    rustix::mount::unmount(".", UnmountFlags::DETACH).context("let go of the old root")?;
    rustix::process::chdir("/").context("enter the new root")
}

/// The mounts that this thread sees, oldest first.
pub fn list() -> Result<Vec<MountInfo>> {
    let text =
        fs::read_to_string("/proc/thread-self/mountinfo").context("read /proc/thread-self/mountinfo")?;
    Ok(text.lines().filter_map(parse).collect())
}

fn parse(line: &str) -> Option<MountInfo> {
    let (left, right) = line.split_once(" - ")?;
    let mut left = left.split(' ').skip(3);
    let (root, mount_point, options) = (left.next()?, left.next()?, left.next()?);
    let tags = left.collect::<Vec<_>>().join(" ");
    let mut right = right.split(' ');
    let (file_system, source) = (right.next()?, right.next()?);
    Some(MountInfo {
        root: unescape(root).into(),
        mount_point: unescape(mount_point).into(),
        options: options.into(),
        file_system: file_system.into(),
        source: unescape(source),
        super_options: right.next().unwrap_or_default().into(),
        tags,
    })
}

/// The kernel writes blanks, tabs, newlines and backslashes as three octal digits.
fn unescape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('\\') {
        out.push_str(&rest[..at]);
        match rest.get(at + 1..at + 4).and_then(|digits| u8::from_str_radix(digits, 8).ok()) {
            Some(byte) => {
                out.push(char::from(byte));
                rest = &rest[at + 4..];
            }
            None => {
                out.push('\\');
                rest = &rest[at + 1..];
            }
        }
    }
    out + rest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mountinfo_is_read_with_escapes_and_optional_tags() {
        let line =
            r"36 35 98:0 /mnt1 /mnt\0402 rw,noatime master:1 shared:2 - ext3 /dev/root rw,errors=continue";
        let mount = parse(line).expect("a valid line");
        assert_eq!(mount.mount_point, Path::new("/mnt 2"));
        assert_eq!((mount.tags.as_str(), mount.file_system.as_str()), ("master:1 shared:2", "ext3"));
        assert_eq!(parse("36 35 98:0 / / rw - tmpfs none").map(|mount| mount.tags), Some(String::new()));
        assert_eq!(parse("nonsense"), None);
    }
}
