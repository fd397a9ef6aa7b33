//! Durability by SQLite: the live keys, the leases and the revision, in WAL mode with an fsync per commit.
//!
//! The database is a copy of the state for the next start, never read in between. Rows are found by an id that
//! is kept in memory, so an update touches one row of one tree. Every row has a checksum, as SQLite has none.

use std::collections::HashMap;
use std::io::Read;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use rusqlite::{Connection, ErrorCode, Row, Transaction, params};

use crate::directory::{self, Directory};
use crate::state::{Changes, Entry, LeaseRecord, Loaded};
use crate::writer::Engine;
use crate::{KeyValue, Revision, StoreError};

/// "kobn"; tells our databases from others'.
const APPLICATION: i32 = 0x6b6f_626e;
/// The version of the format; goes up when an older version could not read what a newer one writes.
const FORMAT: u32 = 1;
const PAGE: u64 = 4096;
/// Free pages are given back when they are at least this many and a quarter of the file.
const RECLAIM_PAGES: u64 = 512;
/// After how many deleted rows the free pages are looked at.
const RECLAIM_DELETES: usize = 1000;

/// The log's pages after which it is copied into the database and begun again.
const LOG_PAGES: u64 = 1000;
/// The log's length that is made in advance, with room for a group of commits: one that makes the file longer costs a
/// write of the file system's journal besides its own.
const LOG_ROOM: u64 = (LOG_PAGES + 256) * (PAGE + 24);
/// The room of the first commits, so that a store is opened quickly.
const LOG_ROOM_FIRST: u64 = 512 << 10;
/// After how many commits all the room is made.
const FIRST_COMMITS: usize = 40;

const SCHEMA: &str = "
    CREATE TABLE meta (id INTEGER PRIMARY KEY CHECK (id = 0), revision INTEGER NOT NULL, next_lease INTEGER NOT NULL) STRICT;
    CREATE TABLE lease (id INTEGER PRIMARY KEY, ttl INTEGER NOT NULL) STRICT;
    CREATE TABLE kv (id INTEGER PRIMARY KEY, key TEXT NOT NULL, create_revision INTEGER NOT NULL,
        mod_revision INTEGER NOT NULL, lease INTEGER, checksum INTEGER NOT NULL, value BLOB NOT NULL) STRICT;
";
const PUT: &str = "INSERT OR REPLACE INTO kv (id, key, create_revision, mod_revision, lease, checksum, value)
    VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)";

/// The engine. Dropping it closes the database and then releases the directory.
pub struct Sqlite {
    connection: Connection,
    ids: HashMap<Arc<str>, i64>,
    next_id: i64,
    /// The revision on disk.
    revision: Revision,
    deleted: usize,
    /// Commits since the store was opened.
    commits: usize,
    /// Set when the disk may hold something else than was acknowledged: nothing is written any more.
    broken: Option<StoreError>,
    directory: Directory,
}

impl Sqlite {
    /// Opens the database in `directory`, or creates it.
    pub fn open(directory: Directory, quota: Option<u64>) -> Result<(Loaded, Self), StoreError> {
        let path = directory.database();
        if !path.exists() {
            create(&directory, &Loaded::empty())?;
        }
        let explain = |error| explain("opening the store", &path, &error);
        let connection = connect(&path).map_err(explain)?;
        check_format(&connection, &path)?;
        if let Some(quota) = quota {
            connection
                .pragma_update(None, "max_page_count", signed((quota / PAGE).max(1)))
                .map_err(explain)?;
        }
        let (loaded, ids) = load(&connection).map_err(explain)?.map_err(|detail| damaged(&path, &detail))?;
        let next_id = ids.values().max().map_or(1, |id| id + 1);
        let revision = loaded.revision;
        make_room(&directory, LOG_ROOM_FIRST);
        let engine =
            Self { connection, ids, next_id, revision, deleted: 0, commits: 0, broken: None, directory };
        Ok((loaded, engine))
    }

    fn write(&mut self, changes: &Changes) -> rusqlite::Result<()> {
        let transaction = self.connection.transaction()?;
        put_rows(&transaction, changes, &self.ids, self.next_id)?;
        if let Some(lease) = changes.granted {
            put_lease(&transaction, lease)?;
            transaction.execute("UPDATE meta SET next_lease = ?1", [signed(lease.id) + 1])?;
        }
        for lease in &changes.revoked {
            transaction.execute("DELETE FROM lease WHERE id = ?1", [signed(*lease)])?;
        }
        let mut revision = transaction.prepare_cached("UPDATE meta SET revision = ?1")?;
        revision.execute([signed(changes.revision)])?;
        drop(revision);
        transaction.commit()
    }

    fn remember(&mut self, changes: &Changes) {
        self.revision = changes.revision;
        for (key, entry) in &changes.keys {
            if entry.is_none() {
                self.deleted += usize::from(self.ids.remove(key).is_some());
            } else if !self.ids.contains_key(key) {
                self.ids.insert(key.clone(), self.next_id);
                self.next_id += 1;
            }
        }
    }

    /// After a failed write: makes sure that the disk is where it was before, or stops writing for good.
    fn recover(&mut self, error: &rusqlite::Error) -> StoreError {
        let error = explain("writing to the store", Path::new(self.connection.path().unwrap_or("")), error);
        if !self.connection.is_autocommit()
            && let Err(cause) = self.connection.execute_batch("ROLLBACK")
        {
            tracing::error!(%cause, "the store could not roll back");
        }
        let found = self.connection.query_row("SELECT revision FROM meta", [], |row| row.get::<_, i64>(0));
        if !self.connection.is_autocommit() || found.map(unsigned) != Ok(self.revision) {
            self.broken = Some(error.clone());
        }
        error
    }

    fn free_pages(&self) -> rusqlite::Result<u64> {
        let count = |pragma| self.connection.pragma_query_value(None, pragma, |row| row.get::<_, i64>(0));
        let (free, all) = (unsigned(count("freelist_count")?), unsigned(count("page_count")?));
        Ok(if free >= RECLAIM_PAGES && free >= all / 4 { free } else { 0 })
    }

    fn vacuum(&mut self) -> rusqlite::Result<()> {
        self.deleted = 0;
        let free = self.free_pages()?;
        if free == 0 {
            return Ok(());
        }
        let mut step = self.connection.prepare(&format!("PRAGMA incremental_vacuum({free})"))?;
        let mut rows = step.query([])?;
        while rows.next()?.is_some() {}
        Ok(())
    }
}

impl Engine for Sqlite {
    fn persist(&mut self, changes: &Changes) -> Result<(), StoreError> {
        if let Some(error) = &self.broken {
            return Err(error.clone());
        }
        self.write(changes).map_err(|error| self.recover(&error))?;
        self.remember(changes);
        self.commits += 1;
        if self.commits == FIRST_COMMITS {
            make_room(&self.directory, LOG_ROOM);
        }
        if self.deleted >= RECLAIM_DELETES
            && let Err(error) = self.vacuum()
        {
            tracing::warn!(%error, "the store could not give back free space");
        }
        Ok(())
    }

    fn reclaim(&mut self) -> Result<(), StoreError> {
        self.vacuum().map_err(|error| explain("compacting the store", Path::new(""), &error))
    }
}

/// Makes a database that holds `state`; it takes its name when it is complete.
pub fn create(directory: &Directory, state: &Loaded) -> Result<(), StoreError> {
    let draft = directory.draft();
    directory::remove(&draft)?;
    write_new(&draft, state).map_err(|error| explain("creating the store", &draft, &error))?;
    directory::publish(&draft, &directory.database())
}

fn write_new(path: &Path, state: &Loaded) -> rusqlite::Result<()> {
    let mut connection = Connection::open(path)?;
    // What is not complete is not used, and `publish` makes all of it durable at once.
    connection.execute_batch(&format!(
        "PRAGMA synchronous = OFF; PRAGMA page_size = {PAGE}; PRAGMA auto_vacuum = INCREMENTAL;
         PRAGMA journal_mode = OFF; PRAGMA application_id = {APPLICATION}; PRAGMA user_version = {FORMAT};"
    ))?;
    let transaction = connection.transaction()?;
    transaction.execute_batch(SCHEMA)?;
    let numbers = [0, signed(state.revision), signed(state.next_lease)];
    transaction.execute("INSERT INTO meta (id, revision, next_lease) VALUES (?1, ?2, ?3)", numbers)?;
    for lease in &state.leases {
        put_lease(&transaction, *lease)?;
    }
    for (entry, id) in state.entries.iter().zip(1..) {
        put_row(&transaction, id, entry)?;
    }
    transaction.commit()?;
    connection.pragma_update_and_check(None, "journal_mode", "WAL", |_| Ok(()))?;
    connection.close().map_err(|(_, error)| error)
}

fn connect(path: &Path) -> rusqlite::Result<Connection> {
    let connection = Connection::open(path)?;
    // Exclusive before WAL: then the index of the log is kept on the heap and no third file is needed.
    connection.pragma_update(None, "locking_mode", "EXCLUSIVE")?;
    connection.pragma_update_and_check(None, "journal_mode", "WAL", |_| Ok(()))?;
    connection.pragma_update(None, "synchronous", "FULL")?;
    connection.pragma_update(None, "cache_size", -1024)?;
    connection.pragma_update(None, "wal_autocheckpoint", signed(LOG_PAGES))?;
    connection.pragma_update(None, "journal_size_limit", 8 << 20)?;
    Ok(connection)
}

/// Makes the log at least `length` bytes long. What is appended is behind all that SQLite has written, and no valid
/// page. That there is no room is said when a commit needs it.
fn make_room(directory: &Directory, length: u64) {
    let append = || -> std::io::Result<()> {
        let mut log = std::fs::OpenOptions::new().append(true).open(directory.log())?;
        let missing = length.saturating_sub(log.metadata()?.len());
        std::io::copy(&mut std::io::repeat(0).take(missing), &mut log).map(drop)
    };
    if let Err(error) = append() {
        tracing::debug!(%error, "no room was made in the log of the store");
    }
}

fn check_format(connection: &Connection, path: &Path) -> Result<(), StoreError> {
    let explain = |error| explain("opening the store", path, &error);
    let pragma =
        |name| connection.pragma_query_value(None, name, |row| row.get::<_, i32>(0)).map_err(explain);
    if pragma("application_id")? != APPLICATION {
        return Err(damaged(path, "it is not a store"));
    }
    match u32::try_from(pragma("user_version")?) {
        Ok(FORMAT) => Ok(()),
        Ok(found) if found > FORMAT => Err(StoreError::NewerFormat { found, known: FORMAT }),
        _ => Err(damaged(path, "it has no valid format version")),
    }
}

type Ids = HashMap<Arc<str>, i64>;

/// Everything in the database, or what is wrong with it.
fn load(connection: &Connection) -> rusqlite::Result<Result<(Loaded, Ids), String>> {
    let mut state = connection.query_row("SELECT revision, next_lease FROM meta", [], |row| {
        Ok(Loaded { revision: unsigned(row.get(0)?), next_lease: unsigned(row.get(1)?), ..Loaded::default() })
    })?;
    let mut leases = connection.prepare("SELECT id, ttl FROM lease")?;
    let record = |row: &Row<'_>| {
        Ok(LeaseRecord { id: unsigned(row.get(0)?), ttl: Duration::from_millis(unsigned(row.get(1)?)) })
    };
    state.leases = leases.query_map([], record)?.collect::<rusqlite::Result<_>>()?;
    let mut ids = HashMap::new();
    let mut query = connection
        .prepare("SELECT id, key, create_revision, mod_revision, lease, checksum, value FROM kv")?;
    let mut rows = query.query([])?;
    while let Some(row) = rows.next()? {
        let (id, entry, checksum) = read_row(row)?;
        let key = entry.pair.key.clone();
        if checksum != checksum_of(id, &entry) || entry.pair.mod_revision > state.revision {
            return Ok(Err(format!("the checksum of the key {key} is wrong")));
        }
        if ids.insert(key.clone(), id).is_some() {
            return Ok(Err(format!("the key {key} occurs twice")));
        }
        state.entries.push(entry);
    }
    Ok(Ok((state, ids)))
}

fn read_row(row: &Row<'_>) -> rusqlite::Result<(i64, Entry, i64)> {
    let pair = KeyValue {
        key: Arc::from(row.get_ref(1)?.as_str()?),
        value: Bytes::copy_from_slice(row.get_ref(6)?.as_blob()?),
        create_revision: unsigned(row.get(2)?),
        mod_revision: unsigned(row.get(3)?),
    };
    Ok((row.get(0)?, Entry { pair, lease: row.get::<_, Option<i64>>(4)?.map(unsigned) }, row.get(5)?))
}

fn put_rows(
    transaction: &Transaction<'_>,
    changes: &Changes,
    ids: &Ids,
    mut next_id: i64,
) -> rusqlite::Result<()> {
    for (key, entry) in &changes.keys {
        let known = ids.get(key).copied();
        match (entry, known) {
            (Some(entry), Some(id)) => put_row(transaction, id, entry)?,
            (Some(entry), None) => {
                put_row(transaction, next_id, entry)?;
                next_id += 1;
            }
            (None, Some(id)) => {
                transaction.prepare_cached("DELETE FROM kv WHERE id = ?1")?.execute([id])?;
            }
            (None, None) => {}
        }
    }
    Ok(())
}

fn put_row(transaction: &Transaction<'_>, id: i64, entry: &Entry) -> rusqlite::Result<()> {
    let pair = &entry.pair;
    transaction.prepare_cached(PUT)?.execute(params![
        id,
        &*pair.key,
        signed(pair.create_revision),
        signed(pair.mod_revision),
        entry.lease.map(signed),
        checksum_of(id, entry),
        &pair.value[..],
    ])?;
    Ok(())
}

fn put_lease(transaction: &Transaction<'_>, lease: LeaseRecord) -> rusqlite::Result<()> {
    let ttl = i64::try_from(lease.ttl.as_millis()).unwrap_or(i64::MAX);
    transaction.execute("INSERT INTO lease (id, ttl) VALUES (?1, ?2)", [signed(lease.id), ttl])?;
    Ok(())
}

fn checksum_of(id: i64, entry: &Entry) -> i64 {
    let mut hasher = crc32fast::Hasher::new();
    for number in
        [unsigned(id), entry.pair.create_revision, entry.pair.mod_revision, entry.lease.unwrap_or(0)]
    {
        hasher.update(&number.to_le_bytes());
    }
    hasher.update(entry.pair.key.as_bytes());
    hasher.update(&entry.pair.value);
    i64::from(hasher.finalize())
}

/// SQLite's integers are signed; revisions and leases never come near the sign.
fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

fn unsigned(number: i64) -> u64 {
    u64::try_from(number).unwrap_or(0)
}

fn damaged(path: &Path, detail: &str) -> StoreError {
    StoreError::Damaged(format!(
        "{}: {detail}; move the data directory away and restore it from a snapshot",
        path.display()
    ))
}

fn explain(what: &str, path: &Path, error: &rusqlite::Error) -> StoreError {
    match error.sqlite_error_code() {
        Some(ErrorCode::DiskFull) => StoreError::Full(format!("{what} {}: {error}", path.display())),
        Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => damaged(path, &error.to_string()),
        None => damaged(path, &error.to_string()),
        // A missing table is damage, too, and has no better code.
        Some(ErrorCode::Unknown) => damaged(path, &error.to_string()),
        Some(_) => StoreError::Io { what: format!("{what} {}", path.display()), cause: error.to_string() },
    }
}
