//! The log: what was acknowledged is durable here before it is in the database.
//!
//! One file whose blocks exist before they are used, so that a commit is one write and one flush and the file system
//! has nothing of its own to write down. Records follow each other from the first block behind the header; each has a
//! checksum over the log's generation, so that what an earlier generation left behind is no record. The first place
//! without a valid record is the end: a commit that was not acknowledged may be cut off there.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;

use crate::codec::invalid;

const MAGIC: &[u8; 16] = b"kobune-log-1\r\n\0\0";
/// The header has a block of its own.
const HEADER: u64 = 4096;
/// Length and checksum before each record.
pub const PREFIX: usize = 8;

/// The open log.
#[derive(Debug)]
pub struct Log {
    file: File,
    generation: u64,
    /// Where the next record goes.
    end: u64,
    /// The length of the file.
    room: u64,
}

impl Log {
    /// Makes an empty log with `room` bytes. Its name must be made durable by the caller.
    pub fn create(path: &Path, room: u64) -> io::Result<Self> {
        let mut options = OpenOptions::new();
        let file = options.read(true).write(true).create(true).truncate(true).mode(0o600).open(path)?;
        let mut log = Self { file, generation: 1, end: HEADER, room: 0 };
        log.write_header()?;
        log.make_room(room)?;
        log.file.sync_all()?;
        Ok(log)
    }

    /// Opens a log and reads its records.
    pub fn open(path: &Path) -> io::Result<(Self, Vec<Vec<u8>>)> {
        let file = OpenOptions::new().read(true).write(true).open(path)?;
        let bytes = std::fs::read(path)?;
        let generation = generation(&bytes)?;
        let (records, end) = records(&bytes, generation)?;
        let records = records.into_iter().map(<[u8]>::to_vec).collect();
        Ok((Self { file, generation, end, room: bytes.len() as u64 }, records))
    }

    /// Whether a record of so many bytes (with its prefix) fits into blocks that exist.
    pub fn fits(&self, length: usize) -> bool {
        self.end + length as u64 <= self.room
    }

    /// Whether there is no record.
    pub fn is_empty(&self) -> bool {
        self.end == HEADER
    }

    /// Writes a record, whose first [`PREFIX`] bytes are filled in. It is durable after [`Log::flush`]; one that was
    /// not flushed is written over by the next.
    pub fn write(&mut self, record: &mut [u8]) -> io::Result<()> {
        let length = u32::try_from(record.len() - PREFIX).map_err(|_| invalid("a record is too long"))?;
        let checksum = checksum(self.generation, &record[PREFIX..]);
        record[..4].copy_from_slice(&length.to_le_bytes());
        record[4..PREFIX].copy_from_slice(&checksum.to_le_bytes());
        self.file.write_all_at(record, self.end)
    }

    /// Makes the record of `length` bytes durable that was written last.
    pub fn flush(&mut self, length: usize) -> io::Result<()> {
        self.file.sync_data()?;
        self.end += length as u64;
        self.room = self.room.max(self.end);
        Ok(())
    }

    /// Begins a new generation: all records are in the database. A longer file than `room` is cut.
    pub fn reset(&mut self, room: u64) -> io::Result<()> {
        self.generation += 1;
        if let Err(error) = self.write_header().and_then(|()| self.file.sync_data()) {
            // The old header may be there or the new one; records of the old generation are still right.
            self.generation -= 1;
            return Err(error);
        }
        self.end = HEADER;
        if self.room > room {
            self.file.set_len(room)?;
            self.room = room;
        }
        Ok(())
    }

    /// Makes the file at least `length` bytes long, with blocks that were written once.
    pub fn make_room(&mut self, length: u64) -> io::Result<()> {
        static ZEROS: [u8; 64 << 10] = [0; 64 << 10];
        let mut at = self.file.metadata()?.len();
        while at < length {
            let piece = usize::try_from(length - at).unwrap_or(usize::MAX).min(ZEROS.len());
            self.file.write_all_at(&ZEROS[..piece], at)?;
            at += piece as u64;
        }
        self.room = at;
        Ok(())
    }

    fn write_header(&self) -> io::Result<()> {
        let mut header = [0; 28];
        header[..16].copy_from_slice(MAGIC);
        header[16..24].copy_from_slice(&self.generation.to_le_bytes());
        let checksum = checksum(self.generation, MAGIC);
        header[24..].copy_from_slice(&checksum.to_le_bytes());
        self.file.write_all_at(&header, 0)
    }
}

fn checksum(generation: u64, bytes: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&generation.to_le_bytes());
    hasher.update(&(bytes.len() as u64).to_le_bytes());
    hasher.update(bytes);
    hasher.finalize()
}

fn generation(bytes: &[u8]) -> io::Result<u64> {
    let header = bytes.get(..28).ok_or_else(|| invalid("the log is too short"))?;
    let number = header[16..24].try_into().map_or(0, u64::from_le_bytes);
    let is_sound = &header[..16] == MAGIC && header[24..] == checksum(number, MAGIC).to_le_bytes();
    if is_sound { Ok(number) } else { Err(invalid("the log's header is wrong")) }
}

/// The records and where the next one goes.
fn records(bytes: &[u8], generation: u64) -> io::Result<(Vec<&[u8]>, u64)> {
    let (mut found, mut at) = (Vec::new(), HEADER as usize);
    while let Some(record) = record(bytes, generation, at) {
        found.push(record);
        at += PREFIX + record.len();
    }
    // A record is written only after the one before it was durable.
    let behind = length(bytes, at).and_then(|length| record(bytes, generation, at + PREFIX + length));
    if behind.is_some() { Err(invalid("a record of the log is wrong")) } else { Ok((found, at as u64)) }
}

fn length(bytes: &[u8], at: usize) -> Option<usize> {
    let length = bytes.get(at..at.checked_add(4)?)?.try_into().ok().map(u32::from_le_bytes)?;
    usize::try_from(length).ok().filter(|length| *length > 0)
}

fn record(bytes: &[u8], generation: u64, at: usize) -> Option<&[u8]> {
    let length = length(bytes, at)?;
    let expected = bytes.get(at + 4..at + PREFIX)?;
    let record = bytes.get(at + PREFIX..(at + PREFIX).checked_add(length)?)?;
    (checksum(generation, record).to_le_bytes() == expected).then_some(record)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROOM: u64 = 64 << 10;

    fn append(log: &mut Log, text: &str) {
        let mut record = [&[0; PREFIX], text.as_bytes()].concat();
        log.write(&mut record).unwrap();
        log.flush(record.len()).unwrap();
    }

    fn read(path: &Path) -> Result<Vec<String>, String> {
        let (_, records) = Log::open(path).map_err(|error| error.to_string())?;
        Ok(records.into_iter().map(|record| String::from_utf8(record).unwrap()).collect())
    }

    #[test]
    fn records_are_read_until_the_generation_ends() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        let mut log = Log::create(&path, ROOM).unwrap();
        assert_eq!(read(&path).unwrap(), Vec::<String>::new());
        for text in ["one", "two", "three"] {
            append(&mut log, text);
        }
        assert_eq!(read(&path).unwrap(), ["one", "two", "three"]);
        drop(log);
        let (mut log, _) = Log::open(&path).unwrap();
        append(&mut log, "four");
        assert_eq!(read(&path).unwrap(), ["one", "two", "three", "four"]);
        log.reset(ROOM).unwrap();
        assert_eq!(read(&path).unwrap(), Vec::<String>::new());
        // As long as the first of the old generation: what follows is of that one and no record.
        append(&mut log, "new");
        assert_eq!(read(&path).unwrap(), ["new"]);
        assert_eq!(std::fs::metadata(&path).unwrap().len(), ROOM);
    }

    #[test]
    fn a_record_that_is_cut_off_anywhere_is_none_and_the_next_takes_its_place() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        let mut log = Log::create(&path, ROOM).unwrap();
        append(&mut log, "kept");
        let start = log.end as usize;
        append(&mut log, "a record that never was acknowledged");
        let whole = std::fs::read(&path).unwrap();
        for cut in start..log.end as usize {
            let mut bytes = whole.clone();
            bytes[cut..].fill(0);
            std::fs::write(&path, &bytes).unwrap();
            let (mut log, records) = Log::open(&path).unwrap();
            assert_eq!((records.len(), log.end as usize), (1, start), "cut at {cut}");
            append(&mut log, "next");
            assert_eq!(read(&path).unwrap(), ["kept", "next"], "cut at {cut}");
        }
    }

    #[test]
    fn damage_before_the_end_is_told_from_an_end() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        let mut log = Log::create(&path, ROOM).unwrap();
        append(&mut log, "one");
        let second = log.end as usize + PREFIX;
        append(&mut log, "two");
        append(&mut log, "three");
        let sound = std::fs::read(&path).unwrap();
        for at in [second, 3, 17] {
            let mut bytes = sound.clone();
            bytes[at] ^= 1;
            std::fs::write(&path, &bytes).unwrap();
            assert!(read(&path).is_err(), "a bit of byte {at}");
        }
    }

    #[test]
    fn a_record_may_be_longer_than_the_room() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        let mut log = Log::create(&path, ROOM).unwrap();
        let long = "x".repeat(ROOM as usize);
        assert!(!log.fits(long.len()));
        append(&mut log, &long);
        assert_eq!(read(&path).unwrap(), [long]);
        log.reset(ROOM).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().len(), ROOM);
    }
}
