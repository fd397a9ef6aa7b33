//! Files that hold keys.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use super::PkiError;

/// Writes a file that only its owner can read; it appears complete or not at all. Creates the directory.
pub fn write_private(path: &Path, contents: &[u8]) -> Result<(), PkiError> {
    write(path, contents, true).map_err(|source| failed(path, source))
}

/// The same for what is made anew when it is lost: does not wait until it would survive a loss of power.
pub fn write_replaceable(path: &Path, contents: &[u8]) -> Result<(), PkiError> {
    write(path, contents, false).map_err(|source| failed(path, source))
}

fn failed(path: &Path, source: io::Error) -> PkiError {
    PkiError::File { what: "writing", path: path.to_owned(), source }
}

fn write(path: &Path, contents: &[u8], durable: bool) -> io::Result<()> {
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    DirBuilder::new().recursive(true).mode(0o700).create(parent)?;
    let draft = draft_name(path);
    // A draft that a crash left behind may have another mode.
    match fs::remove_file(&draft) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&draft)?;
    file.write_all(contents)?;
    if !durable {
        return fs::rename(&draft, path);
    }
    file.sync_all()?;
    fs::rename(&draft, path)?;
    File::open(parent)?.sync_all()
}

fn draft_name(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".new");
    name.into()
}

/// The contents of a file; `None` if there is none.
pub fn read(path: &Path) -> Result<Option<String>, PkiError> {
    match fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(PkiError::File { what: "reading", path: path.to_owned(), source }),
    }
}
