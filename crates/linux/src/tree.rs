//! A directory tree that is written with names from an untrusted archive.
//!
//! Every path is resolved beneath the tree's root, as if it were the root of the file system: `..` and symbolic
//! links cannot lead out (`openat2` with `RESOLVE_IN_ROOT`). The last component is never followed.

use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};

use rustix::fs::{
    AtFlags, Dev, FileType, Gid, Mode, OFlags, ResolveFlags, Timespec, Timestamps, Uid, XattrFlags,
};
use rustix::io::Errno;

/// Whom a file belongs to, what it allows, and when it changed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Metadata {
    pub uid: u32,
    pub gid: u32,
    /// Permission bits with set-uid, set-gid and sticky.
    pub mode: u32,
    /// Seconds since 1970.
    pub modified: u64,
}

/// A special file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Special {
    Fifo,
    Character { major: u32, minor: u32 },
    Block { major: u32, minor: u32 },
}

/// A tree being written.
pub struct Tree {
    root: OwnedFd,
    /// The directory that was used last: archives keep neighbours together.
    recent: Option<(PathBuf, OwnedFd)>,
}

impl Tree {
    /// The tree whose root is an existing directory.
    pub fn open(root: &Path) -> io::Result<Self> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        Ok(Self { root: rustix::fs::open(root, flags, Mode::empty())?, recent: None })
    }

    /// Makes a directory, or keeps the one that is there.
    pub fn directory(&mut self, path: &Path, metadata: &Metadata) -> io::Result<()> {
        let Some((parent, name)) = self.locate(path)? else {
            // The root itself.
            return set_metadata(&self.root, OsStr::new("."), metadata);
        };
        match rustix::fs::mkdirat(parent, name, Mode::RWXU) {
            Err(Errno::EXIST) if !is_directory(parent, name)? => {
                rustix::fs::unlinkat(parent, name, AtFlags::empty())?;
                rustix::fs::mkdirat(parent, name, Mode::RWXU)?;
            }
            Err(Errno::EXIST) | Ok(()) => {}
            Err(error) => return Err(error.into()),
        }
        set_metadata(parent, name, metadata)
    }

    /// Makes an empty regular file in place of what is there, for writing.
    pub fn file(&mut self, path: &Path) -> io::Result<File> {
        let (parent, name) = self.vacant(path)?;
        let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        let file = rustix::fs::openat(parent, name, flags, Mode::RUSR | Mode::WUSR)?;
        Ok(File::from(file))
    }

    /// Makes a symbolic link; its target is not looked at.
    pub fn symlink(&mut self, path: &Path, target: &Path) -> io::Result<()> {
        let (parent, name) = self.vacant(path)?;
        Ok(rustix::fs::symlinkat(target, parent, name)?)
    }

    /// Makes another name for a file of the tree.
    pub fn hard_link(&mut self, path: &Path, target: &Path) -> io::Result<()> {
        let (target_parent, target_name) = self.locate(target)?.ok_or_else(|| invalid(target))?;
        let target_parent = target_parent.try_clone_to_owned()?;
        let target_name = target_name.to_owned();
        let (parent, name) = self.locate(path)?.ok_or_else(|| invalid(path))?;
        let link = || rustix::fs::linkat(&target_parent, &target_name, parent, name, AtFlags::empty());
        match link() {
            Err(Errno::EXIST) if same_file(&target_parent, &target_name, parent, name)? => Ok(()),
            Err(Errno::EXIST) => {
                rustix::fs::unlinkat(parent, name, AtFlags::empty())?;
                Ok(link()?)
            }
            other => Ok(other?),
        }
    }

    /// Makes a device or a named pipe.
    pub fn special(&mut self, path: &Path, special: Special) -> io::Result<()> {
        let (kind, device): (FileType, Dev) = match special {
            Special::Fifo => (FileType::Fifo, 0),
            Special::Character { major, minor } => {
                (FileType::CharacterDevice, rustix::fs::makedev(major, minor))
            }
            Special::Block { major, minor } => (FileType::BlockDevice, rustix::fs::makedev(major, minor)),
        };
        let (parent, name) = self.vacant(path)?;
        Ok(rustix::fs::mknodat(parent, name, kind, Mode::RUSR | Mode::WUSR, device)?)
    }

    /// Removes a file or link; no error when there is none.
    pub fn remove(&mut self, path: &Path) -> io::Result<()> {
        self.vacant(path).map(|_| ())
    }

    /// Sets owner, permissions (not of symbolic links, which have none) and time.
    pub fn set_metadata(&mut self, path: &Path, metadata: &Metadata) -> io::Result<()> {
        match self.locate(path)? {
            Some((parent, name)) => set_metadata(parent, name, metadata),
            None => set_metadata(&self.root, OsStr::new("."), metadata),
        }
    }

    /// Sets an extended attribute of a file, directory or link.
    pub fn set_attribute(&mut self, path: &Path, name: &str, value: &[u8]) -> io::Result<()> {
        let at = match self.locate(path)? {
            Some((parent, file)) => proc_path(parent, file),
            None => proc_path(self.root.as_fd(), OsStr::new(".")),
        };
        Ok(rustix::fs::lsetxattr(at, name, value, XattrFlags::empty())?)
    }

    /// The parent directory with nothing of that name in it.
    fn vacant<'a>(&'a mut self, path: &'a Path) -> io::Result<(rustix::fd::BorrowedFd<'a>, &'a OsStr)> {
        let (parent, name) = self.locate(path)?.ok_or_else(|| invalid(path))?;
        match rustix::fs::unlinkat(parent, name, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => Ok((parent, name)),
            Err(Errno::ISDIR) => {
                std::fs::remove_dir_all(proc_path(parent, name))?;
                Ok((parent, name))
            }
            Err(error) => Err(error.into()),
        }
    }

    /// The open parent directory (made when missing) and the last component; `None` for the root.
    fn locate<'a>(
        &'a mut self,
        path: &'a Path,
    ) -> io::Result<Option<(rustix::fd::BorrowedFd<'a>, &'a OsStr)>> {
        let Some(name) = last_component(path)? else { return Ok(None) };
        let parent: PathBuf = normal_components(path.parent().unwrap_or(Path::new("")));
        if parent.as_os_str().is_empty() {
            return Ok(Some((self.root.as_fd(), name)));
        }
        if self.recent.as_ref().is_none_or(|(recent, _)| *recent != parent) {
            let opened = self.open_directory(&parent)?;
            self.recent = Some((parent, opened));
        }
        Ok(self.recent.as_ref().map(|(_, fd)| (fd.as_fd(), name)))
    }

    fn open_directory(&self, path: &Path) -> io::Result<OwnedFd> {
        let open = || {
            let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
            let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
            rustix::fs::openat2(&self.root, path, flags, Mode::empty(), resolve)
        };
        match open() {
            Err(Errno::NOENT) => {
                let name = last_component(path)?.ok_or_else(|| invalid(path))?;
                let above = normal_components(path.parent().unwrap_or(Path::new("")));
                let parent = match above.as_os_str().is_empty() {
                    true => self.root.try_clone()?,
                    false => self.open_directory(&above)?,
                };
                let mode = Mode::RWXU | Mode::RGRP | Mode::XGRP | Mode::ROTH | Mode::XOTH;
                rustix::fs::mkdirat(&parent, name, mode)?;
                Ok(open()?)
            }
            other => Ok(other?),
        }
    }
}

/// Refuses names that lead upwards: no honest archive has them.
fn last_component(path: &Path) -> io::Result<Option<&OsStr>> {
    let mut last = None;
    for component in path.components() {
        match component {
            Component::Normal(name) if !name.as_bytes().contains(&0) => last = Some(name),
            Component::CurDir | Component::RootDir => {}
            _ => return Err(invalid(path)),
        }
    }
    Ok(last)
}

fn normal_components(path: &Path) -> PathBuf {
    path.components().filter(|component| matches!(component, Component::Normal(_))).collect()
}

fn invalid(path: &Path) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("path {:?} leads out of the tree", path.display()))
}

fn is_directory(parent: impl AsFd, name: &OsStr) -> io::Result<bool> {
    let found = rustix::fs::statat(parent, name, AtFlags::SYMLINK_NOFOLLOW)?;
    Ok(FileType::from_raw_mode(found.st_mode) == FileType::Directory)
}

fn same_file(a: impl AsFd, a_name: &OsStr, b: impl AsFd, b_name: &OsStr) -> io::Result<bool> {
    let a = rustix::fs::statat(a, a_name, AtFlags::SYMLINK_NOFOLLOW)?;
    let b = rustix::fs::statat(b, b_name, AtFlags::SYMLINK_NOFOLLOW)?;
    Ok((a.st_dev, a.st_ino) == (b.st_dev, b.st_ino))
}

/// A path to a file in an open directory, for calls that take no directory.
fn proc_path(parent: impl AsFd, name: &OsStr) -> PathBuf {
    use std::os::fd::AsRawFd;
    Path::new("/proc/self/fd").join(parent.as_fd().as_raw_fd().to_string()).join(name)
}

fn set_metadata(parent: impl AsFd, name: &OsStr, metadata: &Metadata) -> io::Result<()> {
    let parent = parent.as_fd();
    let (uid, gid) = (Uid::from_raw(metadata.uid), Gid::from_raw(metadata.gid));
    rustix::fs::chownat(parent, name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)?;
    let found = rustix::fs::statat(parent, name, AtFlags::SYMLINK_NOFOLLOW)?;
    if FileType::from_raw_mode(found.st_mode) != FileType::Symlink {
        // A change of owner clears set-uid, so this comes second.
        rustix::fs::chmodat(parent, name, Mode::from_raw_mode(metadata.mode & 0o7777), AtFlags::empty())?;
    }
    set_time(parent, name, metadata.modified)
}

fn set_time(parent: impl AsFd, name: &OsStr, seconds: u64) -> io::Result<()> {
    let time = Timespec { tv_sec: i64::try_from(seconds).unwrap_or(i64::MAX), tv_nsec: 0 };
    let times = Timestamps { last_access: time, last_modification: time };
    Ok(rustix::fs::utimensat(parent, name, &times, AtFlags::SYMLINK_NOFOLLOW)?)
}

/// Writes everything of the file system that holds `path` to the disk.
pub fn sync_file_system(path: &Path) -> io::Result<()> {
    let file = File::open(path)?;
    Ok(rustix::fs::syncfs(&file)?)
}
