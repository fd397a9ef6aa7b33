//! The database: the live keys, the leases and the revision, in SQLite.
//!
//! It is a copy of the state for the next start, never read in between. What was committed since the last copy is in
//! the log. Rows are found by an id that is kept in memory, so an update touches one row of one tree. Every row has a
//! checksum, as SQLite has none.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use rusqlite::{Connection, ErrorCode, Row, Transaction, params};

use crate::directory::{self, Directory};
use crate::disk::{Pending, Place, Places, size_of};
use crate::state::{Entry, LeaseRecord, Loaded};
use crate::{KeyValue, StoreError};

/// "kobn"; tells our databases from others'.
const APPLICATION: i32 = 0x6b6f_626e;
/// The version of the format; goes up when an older version could not read what a newer one writes. 1: without a log of
/// our own.
const FORMAT: u32 = 2;
const PAGE: u64 = 4096;
/// Free pages are given back when they are at least this many and a quarter of the file.
const RECLAIM_PAGES: u64 = 512;
const SCHEMA: &str = "
    CREATE TABLE meta (id INTEGER PRIMARY KEY CHECK (id = 0), revision INTEGER NOT NULL, next_lease INTEGER NOT NULL) STRICT;
    CREATE TABLE lease (id INTEGER PRIMARY KEY, ttl INTEGER NOT NULL) STRICT;
    CREATE TABLE kv (id INTEGER PRIMARY KEY, key TEXT NOT NULL, create_revision INTEGER NOT NULL,
        mod_revision INTEGER NOT NULL, lease INTEGER, checksum INTEGER NOT NULL, value BLOB NOT NULL) STRICT;
";
const PUT: &str = "INSERT OR REPLACE INTO kv (id, key, create_revision, mod_revision, lease, checksum, value)
    VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)";

/// The open database.
pub struct Sqlite {
    connection: Connection,
}

impl Sqlite {
    /// Opens a database and reads all of it.
    pub fn open(path: &Path) -> Result<(Loaded, Places, Self), StoreError> {
        let explain = |error| explain("opening the store", path, &error);
        let connection = connect(path).map_err(explain)?;
        check_format(&connection, path)?;
        let database = Self { connection };
        let (loaded, places) = database.load(path)?;
        Ok((loaded, places, database))
    }

    /// Reads everything; `path` is for errors.
    pub fn load(&self, path: &Path) -> Result<(Loaded, Places), StoreError> {
        let explain = |error| explain("opening the store", path, &error);
        load(&self.connection).map_err(explain)?.map_err(|detail| damaged(path, &detail))
    }

    /// Takes over all of `pending` or, with an error, nothing of it.
    pub fn apply(&mut self, pending: &Pending) -> Result<(), StoreError> {
        self.write(pending).map_err(|error| {
            explain("writing to the store", Path::new(self.connection.path().unwrap_or("")), &error)
        })
    }

    fn write(&mut self, pending: &Pending) -> rusqlite::Result<()> {
        // A transaction that is dropped is rolled back.
        let transaction = self.connection.transaction()?;
        for (id, entry) in &pending.rows {
            match entry {
                Some(entry) => put_row(&transaction, *id, entry)?,
                None => {
                    transaction.prepare_cached("DELETE FROM kv WHERE id = ?1")?.execute([id])?;
                }
            }
        }
        for lease in pending.granted.values() {
            put_lease(&transaction, *lease)?;
        }
        if let Some(newest) = pending.granted.keys().last() {
            let next = [signed(*newest) + 1];
            transaction.execute("UPDATE meta SET next_lease = MAX(next_lease, ?1)", next)?;
        }
        for lease in &pending.revoked {
            transaction.execute("DELETE FROM lease WHERE id = ?1", [signed(*lease)])?;
        }
        transaction.execute("UPDATE meta SET revision = ?1", [signed(pending.revision)])?;
        transaction.commit()
    }

    /// Gives free pages back to the file system when there are many.
    pub fn vacuum(&mut self) -> Result<(), StoreError> {
        self.give_back().map_err(|error| explain("compacting the store", Path::new(""), &error))
    }

    fn free_pages(&self) -> rusqlite::Result<u64> {
        let count = |pragma| self.connection.pragma_query_value(None, pragma, |row| row.get::<_, i64>(0));
        let (free, all) = (unsigned(count("freelist_count")?), unsigned(count("page_count")?));
        Ok(if free >= RECLAIM_PAGES && free >= all / 4 { free } else { 0 })
    }

    fn give_back(&mut self) -> rusqlite::Result<()> {
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
    connection.close().map_err(|(_, error)| error)
}

fn connect(path: &Path) -> rusqlite::Result<Connection> {
    let connection = Connection::open(path)?;
    connection.pragma_update(None, "locking_mode", "EXCLUSIVE")?;
    // The journal has the old pages of one copy; most pages of a copy are new and need none.
    connection.pragma_update_and_check(None, "journal_mode", "TRUNCATE", |_| Ok(()))?;
    connection.pragma_update(None, "synchronous", "FULL")?;
    connection.pragma_update(None, "cache_size", -1024)?;
    Ok(connection)
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
        Ok(1) => connection.pragma_update(None, "user_version", FORMAT).map_err(explain),
        Ok(found) if found > FORMAT => Err(StoreError::NewerFormat { found, known: FORMAT }),
        _ => Err(damaged(path, "it has no valid format version")),
    }
}

/// Everything in the database, or what is wrong with it.
fn load(connection: &Connection) -> rusqlite::Result<Result<(Loaded, Places), String>> {
    let mut state = connection.query_row("SELECT revision, next_lease FROM meta", [], |row| {
        Ok(Loaded { revision: unsigned(row.get(0)?), next_lease: unsigned(row.get(1)?), ..Loaded::default() })
    })?;
    let mut leases = connection.prepare("SELECT id, ttl FROM lease")?;
    let record = |row: &Row<'_>| {
        Ok(LeaseRecord { id: unsigned(row.get(0)?), ttl: Duration::from_millis(unsigned(row.get(1)?)) })
    };
    state.leases = leases.query_map([], record)?.collect::<rusqlite::Result<_>>()?;
    let mut places = Places::new();
    let mut query = connection
        .prepare("SELECT id, key, create_revision, mod_revision, lease, checksum, value FROM kv")?;
    let mut rows = query.query([])?;
    while let Some(row) = rows.next()? {
        let (id, entry, checksum) = read_row(row)?;
        let key = entry.pair.key.clone();
        if checksum != checksum_of(id, &entry) || entry.pair.mod_revision > state.revision {
            return Ok(Err(format!("the checksum of the key {key} is wrong")));
        }
        if places.insert(key.clone(), Place { id, size: size_of(&entry) }).is_some() {
            return Ok(Err(format!("the key {key} occurs twice")));
        }
        state.entries.push(entry);
    }
    Ok(Ok((state, places)))
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
    transaction.execute("INSERT OR REPLACE INTO lease (id, ttl) VALUES (?1, ?2)", [signed(lease.id), ttl])?;
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

/// Damage, and what to do about it.
pub fn damaged(path: &Path, detail: &str) -> StoreError {
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
