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

/// Makes `path` and what is missing above it directories inside `root`; returns the last one (`O_PATH`). With
/// [`Confine::InRoot`], what a dangling link points to is made too, inside.
pub fn create_directories_inside(
    root: BorrowedFd<'_>,
    path: &Path,
    confine: Confine,
    mode: u32,
) -> Result<OwnedFd> {
    create_directories(root, path, confine, mode, 0)
}

/// As many links as the kernel follows.
const MAX_LINKS: usize = 40;

fn create_directories(
    root: BorrowedFd<'_>,
    path: &Path,
    confine: Confine,
    mode: u32,
    links: usize,
) -> Result<OwnedFd> {
    let directory = OFlags::PATH | OFlags::DIRECTORY;
    if let Ok(found) = open_inside_with(root, path, confine, directory) {
        return Ok(found);
    }
    let mut walked = PathBuf::from(".");
    let mut current = root.try_clone_to_owned().context("duplicate a descriptor")?;
    let mut parts = path.components();
    while let Some(part) = parts.next() {
        let Some(name) = name_of(part)? else { continue };
        walked.push(name);
        current = match open_inside_with(root, &walked, confine, directory) {
            Ok(next) => next,
            Err(error) if error.source.kind() == io::ErrorKind::NotFound => {
                if !make_directory(&current, name, mode)? && confine == Confine::InRoot && links < MAX_LINKS {
                    // Something is there, yet it leads nowhere: a link.
                    let target = rustix::fs::readlinkat(&current, name, Vec::new())
                        .with_context(|| format!("read the link {}", walked.display()))?;
                    let rest = leads_to(&walked, &target).join(parts.as_path());
                    return create_directories(root, &rest, confine, mode, links + 1);
                }
                open_inside_with(root, &walked, confine, directory)?
            }
            Err(error) => return Err(error),
        };
    }
    Ok(current)
}

/// Where a link at `link` points, as a path without `..` from the root.
fn leads_to(link: &Path, target: &std::ffi::CStr) -> PathBuf {
    use std::os::unix::ffi::OsStrExt;
    let target = Path::new(OsStr::from_bytes(target.to_bytes()));
    let mut out = PathBuf::new();
    for part in link.parent().unwrap_or(Path::new(".")).join(target).components() {
        match part {
            Component::Normal(name) => out.push(name),
            Component::ParentDir => drop(out.pop()),
            Component::RootDir | Component::CurDir | Component::Prefix(_) => {}
        }
    }
    out
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

/// `false` when something of that name is there already.
fn make_directory(parent: &OwnedFd, name: &OsStr, mode: u32) -> Result<bool> {
    match rustix::fs::mkdirat(parent.as_fd(), name, Mode::from_raw_mode(mode)) {
        Ok(()) => Ok(true),
        Err(rustix::io::Errno::EXIST) => Ok(false),
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

/// Whether the calling process may execute the file; with the reason when not.
pub fn check_executable(path: &Path) -> io::Result<()> {
    if std::fs::metadata(path)?.is_dir() {
        return Err(io::ErrorKind::PermissionDenied.into());
    }
    Ok(rustix::fs::accessat(CWD, path, rustix::fs::Access::EXEC_OK, rustix::fs::AtFlags::EACCESS)?)
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
        // As in images where /var/run points to a /run that is not there.
        symlink("../run", inside.path().join("etc/run")).unwrap();
        create_directories_inside(root.as_fd(), Path::new("/etc/run/secrets"), Confine::InRoot, 0o755)
            .unwrap();
        assert!(inside.path().join("run/secrets").is_dir());
        create_directories_inside(root.as_fd(), Path::new("out/x"), Confine::Beneath, 0o755).unwrap_err();
        assert_eq!(fs::read_dir(outside.path()).unwrap().count(), 0);
    }
}
