//! The data directory: who holds it, and files that appear complete or not at all.

use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use crate::StoreError;

const LOCK: &str = "lock";
const DATABASE: &str = "store.db";

/// A data directory held by this process.
#[derive(Debug)]
pub struct Directory {
    path: PathBuf,
    /// The lock lasts as long as the file is open.
    _lock: File,
}

impl Directory {
    /// Creates the directory if need be and takes it for this process alone.
    pub fn lock(path: &Path) -> Result<Self, StoreError> {
        let create = DirBuilder::new().recursive(true).mode(0o700).create(path);
        create.map_err(|error| failed("creating the data directory", path, &error))?;
        let file = path.join(LOCK);
        let lock = OpenOptions::new().create(true).truncate(false).write(true).mode(0o600).open(&file);
        let lock = lock.map_err(|error| failed("opening", &file, &error))?;
        match lock.try_lock() {
            Ok(()) => Ok(Self { path: path.to_owned(), _lock: lock }),
            Err(TryLockError::WouldBlock) => Err(StoreError::InUse(path.display().to_string())),
            Err(TryLockError::Error(error)) => Err(failed("locking", &file, &error)),
        }
    }

    pub fn database(&self) -> PathBuf {
        self.path.join(DATABASE)
    }

    /// The log of commits.
    pub fn log(&self) -> PathBuf {
        self.path.join("store.log")
    }

    /// Makes the names of files durable.
    pub fn sync(&self) -> io::Result<()> {
        File::open(&self.path)?.sync_all()
    }

    /// Where a new database is made before it takes its name.
    pub fn draft(&self) -> PathBuf {
        self.path.join("store.db.new")
    }

    /// Whether something besides the lock is in the directory.
    pub fn is_used(&self) -> Result<bool, StoreError> {
        let list = || -> io::Result<bool> {
            for entry in fs::read_dir(&self.path)? {
                if entry?.file_name() != LOCK {
                    return Ok(true);
                }
            }
            Ok(false)
        };
        list().map_err(|error| failed("reading the data directory", &self.path, &error))
    }
}

/// Removes a file if it is there.
pub fn remove(path: &Path) -> Result<(), StoreError> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(failed("removing", path, &error)),
        _ => Ok(()),
    }
}

/// Gives a complete file its name, durably.
pub fn publish(draft: &Path, path: &Path) -> Result<(), StoreError> {
    let rename = || -> io::Result<()> {
        File::open(draft)?.sync_all()?;
        fs::rename(draft, path)?;
        let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
        File::open(parent.unwrap_or(Path::new(".")))?.sync_all()
    };
    rename().map_err(|error| failed("writing", path, &error))
}

/// An error of the file system, told apart by whether space is left.
pub fn failed(what: &str, path: &Path, error: &io::Error) -> StoreError {
    let what = format!("{what} {}", path.display());
    match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
            StoreError::Full(format!("{what}: {error}"))
        }
        _ => StoreError::Io { what, cause: error.to_string() },
    }
}
