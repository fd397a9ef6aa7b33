//! Snapshots: the live state in one file with a checksum, independent of the engine.
//!
//! Layout, integers little-endian: the magic; the revision and the next lease as u64; the leases as a u64 count
//! and pairs of id and milliseconds; the keys as a u64 count and for each the create and mod revision, the lease
//! (0: none), and key and value, each as a u32 length and bytes; the SHA-256 of all before it.

use std::fs::{File, OpenOptions};
use std::io::{self, BufReader, BufWriter, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use sha2::{Digest, Sha256};

use crate::codec::{get_entry, get_u64, invalid, put_entry, put_u64};
use crate::directory::{self, Directory, failed};
use crate::sqlite;
use crate::state::{LeaseRecord, Loaded};
use crate::{Revision, StoreError};

const MAGIC: &[u8; 16] = b"kobune-store-1\r\n";
const CHECKSUM: u64 = 32;
/// Revisions that clients saw after the snapshot was made must not be given out again, so a restored store starts
/// far above them. The distance is the one that etcd's documentation advises.
const REVISION_BUMP: Revision = 1_000_000_000;

/// Writes `state` to `path`.
pub fn write(state: &Loaded, path: &Path) -> Result<Revision, StoreError> {
    let draft = Draft::new(path)?;
    write_to(state, draft.file()).map_err(|error| failed("writing", path, &error))?;
    draft.publish()?;
    Ok(state.revision)
}

/// A file that takes its name when it is complete; dropped before, nothing stays of it.
#[derive(Debug)]
pub struct Draft {
    file: File,
    draft: PathBuf,
    path: PathBuf,
}

impl Draft {
    /// Makes the file beside `path`, readable to its owner only: a snapshot holds every secret.
    pub fn new(path: &Path) -> Result<Self, StoreError> {
        let mut draft = path.as_os_str().to_owned();
        draft.push(".new");
        let draft = PathBuf::from(draft);
        let file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&draft);
        let file = file.map_err(|error| failed("writing", &draft, &error))?;
        Ok(Self { file, draft, path: path.to_owned() })
    }

    pub fn file(&self) -> &File {
        &self.file
    }

    /// For a snapshot that came from elsewhere: gives it its name if it is whole, and tells its revision.
    pub fn publish_checked(self) -> Result<Revision, StoreError> {
        let revision = read(&self.draft)?.revision;
        self.publish()?;
        Ok(revision)
    }

    fn publish(self) -> Result<(), StoreError> {
        directory::publish(&self.draft, &self.path)
    }
}

impl Drop for Draft {
    fn drop(&mut self) {
        if let Err(error) = directory::remove(&self.draft) {
            tracing::warn!(%error, "an unfinished snapshot stays");
        }
    }
}

/// Writes `state` in the layout of a snapshot.
pub fn write_to(state: &Loaded, out: impl Write) -> io::Result<()> {
    let mut out = Hashing { inner: BufWriter::new(out), hash: Sha256::new() };
    out.write_all(MAGIC)?;
    put_u64(&mut out, state.revision)?;
    put_u64(&mut out, state.next_lease)?;
    put_u64(&mut out, state.leases.len() as u64)?;
    for lease in &state.leases {
        put_u64(&mut out, lease.id)?;
        put_u64(&mut out, u64::try_from(lease.ttl.as_millis()).unwrap_or(u64::MAX))?;
    }
    put_u64(&mut out, state.entries.len() as u64)?;
    for entry in &state.entries {
        put_entry(&mut out, entry)?;
    }
    let Hashing { mut inner, hash } = out;
    inner.write_all(&hash.finalize())?;
    inner.flush()
}

/// Makes a data directory out of the snapshot at `path`. `dir` must be empty or absent. Revisions start far above
/// those of the snapshot, and its history is compacted.
pub fn restore(path: &Path, dir: &Path) -> Result<Revision, StoreError> {
    let mut state = read(path)?;
    state.revision += REVISION_BUMP;
    let directory = Directory::lock(dir)?;
    if directory.is_used()? {
        let cause = "it is not empty; restore into a new directory".to_owned();
        return Err(StoreError::Io { what: format!("restoring to {}", dir.display()), cause });
    }
    sqlite::create(&directory, &state)?;
    Ok(state.revision)
}

fn read(path: &Path) -> Result<Loaded, StoreError> {
    let damaged = |detail: &str| {
        let path = path.display();
        StoreError::Damaged(format!("the snapshot {path}: {detail}; use another snapshot"))
    };
    let result = verify(path).and_then(|whole| if whole { read_file(path).map(Some) } else { Ok(None) });
    match result {
        Ok(Some(state)) => Ok(state),
        Ok(None) => Err(damaged("its checksum is wrong")),
        Err(error) if error.kind() == io::ErrorKind::InvalidData => Err(damaged(&error.to_string())),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Err(damaged("it is too short")),
        Err(error) => Err(failed("reading", path, &error)),
    }
}

/// Whether the checksum at the end is right.
fn verify(path: &Path) -> io::Result<bool> {
    let file = File::open(path)?;
    let body = file.metadata()?.len().checked_sub(CHECKSUM).ok_or(io::ErrorKind::UnexpectedEof)?;
    let mut file = BufReader::new(file);
    let mut hash = Sha256::new();
    io::copy(&mut file.by_ref().take(body), &mut hash)?;
    let mut expected = [0; CHECKSUM as usize];
    file.read_exact(&mut expected)?;
    Ok(hash.finalize()[..] == expected)
}

fn read_file(path: &Path) -> io::Result<Loaded> {
    let mut file = BufReader::new(File::open(path)?);
    let mut magic = [0; MAGIC.len()];
    file.read_exact(&mut magic)?;
    if &magic != MAGIC {
        return Err(invalid("it is no snapshot of a format that this version knows"));
    }
    let (revision, next_lease) = (get_u64(&mut file)?, get_u64(&mut file)?);
    let mut state = Loaded { revision, next_lease, ..Loaded::default() };
    for _ in 0..get_u64(&mut file)? {
        let (id, ttl) = (get_u64(&mut file)?, Duration::from_millis(get_u64(&mut file)?));
        state.leases.push(LeaseRecord { id, ttl });
    }
    for _ in 0..get_u64(&mut file)? {
        state.entries.push(get_entry(&mut file)?);
    }
    Ok(state)
}

struct Hashing<W> {
    inner: W,
    hash: Sha256,
}

impl<W: Write> Write for Hashing<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.inner.write(bytes)?;
        self.hash.update(&bytes[..written]);
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}
