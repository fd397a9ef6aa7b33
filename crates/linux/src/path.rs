//! Paths inside a directory that somebody else controls: symbolic links never lead out of it.

use std::ffi::OsStr;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Component, Path, PathBuf};

use rustix::fs::{CWD, Mode, OFlags, ResolveFlags};

use crate::{Context, Result};

/// What happens at a symbolic link that points outside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Confine {
    /// The directory is taken as the root: `/etc` and `..` stay inside, as after a `chroot`.
    InRoot,
    /// Leaving the directory, also through an absolute link, is an error (`EXDEV`).
    Beneath,
}

/// Opens `path` only to point at it (`O_PATH`), following links.
pub fn open_path(path: &Path) -> Result<OwnedFd> {
    rustix::fs::open(path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())
        .with_context(|| format!("open {}", path.display()))
}

/// Opens a directory to be used with the functions here.
pub fn open_root(path: &Path) -> Result<OwnedFd> {
    rustix::fs::open(path, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
        .with_context(|| format!("open the directory {}", path.display()))
}

/// Opens `path` inside `root` only to point at it. Links into `/proc` that leave the file system are refused.
pub fn open_inside(root: BorrowedFd<'_>, path: &Path, confine: Confine) -> Result<OwnedFd> {
    open_inside_with(root, path, confine, OFlags::PATH)
}

/// As [`open_inside`], with flags for reading, creating, ….
pub fn open_inside_with(
    root: BorrowedFd<'_>,
    path: &Path,
    confine: Confine,
    flags: OFlags,
) -> Result<OwnedFd> {
    let how = ResolveFlags::NO_MAGICLINKS
        | match confine {
            Confine::InRoot => ResolveFlags::IN_ROOT,
            Confine::Beneath => ResolveFlags::BENEATH,
        };
    let mode = if flags.contains(OFlags::CREATE) { Mode::from_raw_mode(0o644) } else { Mode::empty() };
    // A rename elsewhere in the tree makes the kernel give up a lookup with `..` in it; it asks to be called again.
    let mut tries = 0;
    loop {
        match rustix::fs::openat2(root, path, flags | OFlags::CLOEXEC, mode, how) {
            Err(rustix::io::Errno::AGAIN) if tries < 64 => tries += 1,
            answer => return answer.with_context(|| format!("open {} inside its directory", path.display())),
        }
    }
}

/// Makes `path` and what is missing above it directories inside `root`; returns the last one (`O_PATH`).
pub fn create_directories_inside(
    root: BorrowedFd<'_>,
    path: &Path,
    confine: Confine,
    mode: u32,
) -> Result<OwnedFd> {
    if let Ok(found) = open_inside_with(root, path, confine, OFlags::PATH | OFlags::DIRECTORY) {
        return Ok(found);
    }
    let mut walked = PathBuf::from(".");
    let mut current = root.try_clone_to_owned().context("duplicate a descriptor")?;
    for part in path.components() {
        let Some(name) = name_of(part)? else { continue };
        walked.push(name);
        current = match open_inside_with(root, &walked, confine, OFlags::PATH | OFlags::DIRECTORY) {
            Ok(next) => next,
            Err(error) if error.source.kind() == io::ErrorKind::NotFound => {
                make_directory(&current, name, mode)?;
                open_inside_with(root, &walked, confine, OFlags::PATH | OFlags::DIRECTORY)?
            }
            Err(error) => return Err(error),
        };
    }
    Ok(current)
}

/// Makes an empty file at `path` inside `root` unless something is there, with its directories; returns it (`O_PATH`).
pub fn create_file_inside(root: BorrowedFd<'_>, path: &Path, confine: Confine) -> Result<OwnedFd> {
    if let Ok(found) = open_inside(root, path, confine) {
        return Ok(found);
    }
    let parent = path.parent().unwrap_or(Path::new("."));
    create_directories_inside(root, parent, confine, 0o755)?;
    open_inside_with(root, path, confine, OFlags::CREATE | OFlags::WRONLY)?;
    open_inside(root, path, confine)
}

/// The path by which an open descriptor can be used where only paths are taken.
pub fn descriptor_path(fd: BorrowedFd<'_>) -> PathBuf {
    use std::os::fd::AsRawFd;
    PathBuf::from(format!("/proc/self/fd/{}", fd.as_raw_fd()))
}

fn make_directory(parent: &OwnedFd, name: &OsStr, mode: u32) -> Result<()> {
    match rustix::fs::mkdirat(parent.as_fd(), name, Mode::from_raw_mode(mode)) {
        Ok(()) | Err(rustix::io::Errno::EXIST) => Ok(()),
        Err(error) => Err(error).with_context(|| format!("make the directory {}", name.to_string_lossy())),
    }
}

fn name_of(part: Component<'_>) -> Result<Option<&OsStr>> {
    match part {
        Component::Normal(name) => Ok(Some(name)),
        Component::RootDir | Component::CurDir => Ok(None),
        Component::ParentDir | Component::Prefix(_) => {
            Err(io::Error::from(io::ErrorKind::InvalidInput)).context("a path to create must not contain ..")
        }
    }
}

/// Opens a file of the host by its full path for reading.
pub fn open_for_reading(path: &Path) -> Result<OwnedFd> {
    rustix::fs::openat(CWD, path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
        .with_context(|| format!("open {}", path.display()))
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn links_do_not_lead_out() {
        let outside = tempfile::tempdir().unwrap();
        let inside = tempfile::tempdir().unwrap();
        symlink(outside.path(), inside.path().join("out")).unwrap();
        symlink("/etc", inside.path().join("etc-link")).unwrap();
        let root = open_root(inside.path()).unwrap();
        let error = open_inside(root.as_fd(), Path::new("out"), Confine::Beneath).unwrap_err();
        assert_eq!(error.source.raw_os_error(), Some(libc::EXDEV));
        // Taken as the root, the link's target is looked for inside and is not there.
        assert!(open_inside(root.as_fd(), Path::new("etc-link"), Confine::InRoot).is_err());
        create_directories_inside(root.as_fd(), Path::new("/etc/a/b"), Confine::InRoot, 0o755).unwrap();
        create_file_inside(root.as_fd(), Path::new("/etc-link/a/c/file"), Confine::InRoot).unwrap();
        assert!(inside.path().join("etc/a/c/file").is_file());
        assert_eq!(fs::read_dir(outside.path()).unwrap().count(), 0);
    }
}
