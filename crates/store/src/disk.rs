//! The engine of a store on disk: commits go to the log; the database gets them when the log is full and at the end.
//!
//! After a crash the log is replayed into the database before anything else.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use crate::directory::{self, Directory, failed};
use crate::log::{Log, PREFIX};
use crate::sqlite::{self, Sqlite};
use crate::state::{Changes, Entry, LeaseRecord, Loaded};
use crate::writer::Engine;
use crate::{LeaseId, Revision, StoreError, record};

/// How much is written to the log before it goes to the database.
const LOG_ROOM: u64 = 4 << 20;
/// The room of the first commits, so that a store is made quickly.
const LOG_ROOM_FIRST: u64 = 256 << 10;
/// After how many commits all the room is made.
const FIRST_COMMITS: usize = 40;
/// A buffer that grew beyond this is not kept.
const BUFFER_MAX: usize = 1 << 20;
/// After how many deleted rows the free pages are looked at.
const RECLAIM_DELETES: usize = 1000;
/// What a row takes besides key and value, about.
const ROW: u64 = 48;
/// A commit that takes less than this is not worth another thread.
const QUICK: Duration = Duration::from_micros(500);
/// With less room than this the next commit may take longer.
const QUICK_ROOM: usize = 64 << 10;

/// The database's row of a key.
#[derive(Clone, Copy, Debug)]
pub struct Place {
    pub id: i64,
    /// Bytes that it takes, about.
    pub size: u32,
}

/// By key.
pub type Places = HashMap<Arc<str>, Place>;

/// What the log has and the database does not.
#[derive(Debug, Default)]
pub struct Pending {
    pub revision: Revision,
    /// By row; `None` for rows that are to go.
    pub rows: BTreeMap<i64, Option<Entry>>,
    pub granted: BTreeMap<LeaseId, LeaseRecord>,
    pub revoked: BTreeSet<LeaseId>,
}

/// The engine. Dropping it brings the database up to date and then releases the directory.
pub struct Disk {
    log: Log,
    database: Sqlite,
    places: Places,
    next_id: i64,
    /// Bytes that all rows take, about, and how many they may take.
    size: u64,
    quota: u64,
    pending: Pending,
    buffer: Vec<u8>,
    deleted: usize,
    /// Commits since the store was opened.
    commits: usize,
    /// How long a commit takes of late.
    pace: Duration,
    /// Set when the disk may hold something else than was acknowledged: nothing is written any more.
    broken: Option<StoreError>,
    directory: Directory,
}

impl Disk {
    /// Opens the store in `directory`, or creates it. `quota` is in bytes.
    pub fn open(directory: Directory, quota: Option<u64>) -> Result<(Loaded, Self), StoreError> {
        let is_new = !directory.database().exists();
        if is_new {
            // Without a database a log means nothing; with its name it becomes durable when the database gets its own.
            directory::remove(&directory.log())?;
        }
        let (log, records) = open_log(&directory)?;
        if is_new {
            sqlite::create(&directory, &Loaded::empty())?;
        }
        let (loaded, places, database) = Sqlite::open(&directory.database())?;
        let mut disk = Self::new(log, database, directory, quota);
        disk.found(&loaded, places);
        disk.replay(loaded, &records).map(|loaded| (loaded, disk))
    }

    fn new(log: Log, database: Sqlite, directory: Directory, quota: Option<u64>) -> Self {
        Self {
            log,
            database,
            places: Places::new(),
            next_id: 1,
            size: 0,
            quota: quota.unwrap_or(u64::MAX),
            pending: Pending::default(),
            buffer: Vec::new(),
            deleted: 0,
            commits: 0,
            pace: Duration::ZERO,
            broken: None,
            directory,
        }
    }

    fn found(&mut self, loaded: &Loaded, places: Places) {
        self.next_id = places.values().map(|place| place.id + 1).max().unwrap_or(1);
        self.size = places.values().map(|place| u64::from(place.size)).sum();
        self.places = places;
        self.pending.revision = loaded.revision;
    }

    /// Brings the database up to date with the log of a process that was killed, and reads it again.
    fn replay(&mut self, loaded: Loaded, records: &[Vec<u8>]) -> Result<Loaded, StoreError> {
        let explain = |error: &io::Error| sqlite::damaged(&self.directory.log(), &error.to_string());
        let changes: Vec<Changes> = records
            .iter()
            .map(|bytes| record::decode(bytes))
            .collect::<Result<_, _>>()
            .map_err(|error| explain(&error))?;
        // What is not newer than the database was written by it: a crash came between the two.
        for changes in changes.into_iter().filter(|changes| changes.revision >= loaded.revision) {
            self.remember(&changes);
        }
        let loaded = match self.pending.is_empty() {
            true => loaded,
            false => {
                self.database.apply(&self.pending)?;
                self.pending.clear();
                let (loaded, places) = self.database.load(&self.directory.database())?;
                self.found(&loaded, places);
                loaded
            }
        };
        // Also when it is empty: what was cut off is of another generation then.
        self.log.reset(LOG_ROOM).map_err(|error| failed("writing", &self.directory.log(), &error))?;
        Ok(loaded)
    }

    fn check_quota(&self, changes: &Changes) -> Result<(), StoreError> {
        let after = changes.keys.iter().fold(self.size, |size, (key, entry)| {
            let before = self.places.get(key).map_or(0, |place| u64::from(place.size));
            size - before + entry.as_ref().map_or(0, |entry| u64::from(size_of(entry)))
        });
        if after > self.quota && after > self.size {
            return Err(StoreError::Full(format!("{after} bytes would be more than its {}", self.quota)));
        }
        Ok(())
    }

    fn remember(&mut self, changes: &Changes) {
        self.pending.revision = changes.revision;
        for (key, entry) in &changes.keys {
            match entry {
                Some(entry) => self.put(entry),
                None => self.delete(key),
            }
        }
        if let Some(lease) = changes.granted {
            self.pending.granted.insert(lease.id, lease);
        }
        self.pending.revoked.extend(&changes.revoked);
    }

    fn put(&mut self, entry: &Entry) {
        let size = size_of(entry);
        let next = Place { id: self.next_id, size: 0 };
        let place = self.places.entry(entry.pair.key.clone()).or_insert(next);
        if place.id == self.next_id {
            self.next_id += 1;
        }
        self.size = self.size - u64::from(place.size) + u64::from(size);
        place.size = size;
        self.pending.rows.insert(place.id, Some(entry.clone()));
    }

    fn delete(&mut self, key: &str) {
        if let Some(place) = self.places.remove(key) {
            self.size -= u64::from(place.size);
            self.pending.rows.insert(place.id, None);
            self.deleted += 1;
        }
    }

    /// Takes what is in the log into the database, and begins the log again.
    fn checkpoint(&mut self) -> Result<(), StoreError> {
        if !self.pending.is_empty() {
            self.database.apply(&self.pending)?;
            self.pending.clear();
        }
        if !self.log.is_empty() {
            self.log.reset(LOG_ROOM).map_err(|error| failed("writing", &self.directory.log(), &error))?;
        }
        if self.deleted >= RECLAIM_DELETES {
            self.vacuum();
        }
        Ok(())
    }

    fn vacuum(&mut self) {
        self.deleted = 0;
        if let Err(error) = self.database.vacuum() {
            tracing::warn!(%error, "the store could not give back free space");
        }
    }

    fn append(&mut self, changes: &Changes) -> Result<(), StoreError> {
        self.buffer.clear();
        self.buffer.resize(PREFIX, 0);
        let path = self.directory.log();
        let explain = |error: &io::Error| failed("writing", &path, error);
        record::encode(changes, &mut self.buffer).map_err(|error| explain(&error))?;
        if !self.log.fits(self.buffer.len()) {
            self.checkpoint()?;
        }
        self.log.write(&mut self.buffer).map_err(|error| explain(&error))?;
        self.log.flush(self.buffer.len()).map_err(|error| {
            // Nobody knows what is on the disk now, and asking it again would not tell.
            let error = explain(&error);
            self.broken = Some(error.clone());
            error
        })?;
        self.buffer.shrink_to(BUFFER_MAX);
        Ok(())
    }
}

impl Pending {
    fn is_empty(&self) -> bool {
        self.rows.is_empty() && self.granted.is_empty() && self.revoked.is_empty()
    }

    fn clear(&mut self) {
        *self = Self { revision: self.revision, ..Self::default() };
    }
}

impl Engine for Disk {
    fn persist(&mut self, changes: &Changes) -> Result<(), StoreError> {
        if let Some(error) = &self.broken {
            return Err(error.clone());
        }
        let start = Instant::now();
        self.check_quota(changes)?;
        self.append(changes)?;
        self.remember(changes);
        self.commits += 1;
        if self.commits == FIRST_COMMITS
            && let Err(error) = self.log.make_room(LOG_ROOM)
        {
            // It is said when a commit needs it.
            tracing::debug!(%error, "no room was made in the log of the store");
        }
        self.pace = (self.pace * 3 + start.elapsed()) / 4;
        Ok(())
    }

    fn reclaim(&mut self) -> Result<(), StoreError> {
        if self.deleted >= RECLAIM_DELETES { self.checkpoint() } else { Ok(()) }
    }

    fn close(&mut self) -> Result<(), StoreError> {
        if self.broken.is_some() { Ok(()) } else { self.checkpoint() }
    }

    fn is_quick(&self) -> bool {
        self.pace < QUICK && self.log.fits(QUICK_ROOM)
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        if let Err(error) = self.close() {
            tracing::warn!(%error, "the log of the store stays and is read at the next start");
        }
    }
}

fn open_log(directory: &Directory) -> Result<(Log, Vec<Vec<u8>>), StoreError> {
    let path = directory.log();
    match Log::open(&path) {
        Ok(opened) => Ok(opened),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let created = Log::create(&path, LOG_ROOM_FIRST).and_then(|log| directory.sync().map(|()| log));
            created.map(|log| (log, Vec::new())).map_err(|error| failed("writing", &path, &error))
        }
        Err(error) if error.kind() == io::ErrorKind::InvalidData => {
            Err(sqlite::damaged(&path, &error.to_string()))
        }
        Err(error) => Err(failed("reading", &path, &error)),
    }
}

/// Bytes that the row of an entry takes, about.
pub fn size_of(entry: &Entry) -> u32 {
    let size = ROW + entry.pair.key.len() as u64 + entry.pair.value.len() as u64;
    u32::try_from(size).unwrap_or(u32::MAX)
}
