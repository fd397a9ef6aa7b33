//! A commit as a record of the log. Replaying records from any point before the newest that the database has leads to
//! the same state, so nobody has to know how far it came.

use std::io;
use std::time::Duration;

use crate::codec::{get_bytes, get_entry, get_key, get_u64, invalid, put_bytes, put_entry, put_u64};
use crate::state::{Changes, LeaseRecord};

const PUT: &[u8] = b"+";
const DELETE: &[u8] = b"-";

/// Appends what is to survive of `changes`: the events are not part of it.
pub fn encode(changes: &Changes, out: &mut Vec<u8>) -> io::Result<()> {
    put_u64(out, changes.revision)?;
    put_u64(out, u64::from(changes.granted.is_some()))?;
    if let Some(lease) = changes.granted {
        put_u64(out, lease.id)?;
        put_u64(out, u64::try_from(lease.ttl.as_millis()).unwrap_or(u64::MAX))?;
    }
    put_u64(out, changes.revoked.len() as u64)?;
    for lease in &changes.revoked {
        put_u64(out, *lease)?;
    }
    put_u64(out, changes.keys.len() as u64)?;
    for (key, entry) in &changes.keys {
        match entry {
            Some(entry) => {
                put_bytes(out, PUT)?;
                put_entry(out, entry)?;
            }
            None => {
                put_bytes(out, DELETE)?;
                put_bytes(out, key.as_bytes())?;
            }
        }
    }
    Ok(())
}

/// The changes of a record, without their events.
pub fn decode(mut from: &[u8]) -> io::Result<Changes> {
    let from = &mut from;
    let mut changes = Changes { revision: get_u64(from)?, ..Changes::default() };
    if get_u64(from)? == 1 {
        let (id, ttl) = (get_u64(from)?, Duration::from_millis(get_u64(from)?));
        changes.granted = Some(LeaseRecord { id, ttl });
    }
    for _ in 0..get_u64(from)? {
        changes.revoked.push(get_u64(from)?);
    }
    for _ in 0..get_u64(from)? {
        match get_bytes(from)?.as_slice() {
            PUT => {
                let entry = get_entry(from)?;
                changes.keys.insert(entry.pair.key.clone(), Some(entry));
            }
            DELETE => {
                changes.keys.insert(get_key(from)?.into(), None);
            }
            _ => return Err(invalid("a change is of no known sort")),
        }
    }
    if from.is_empty() { Ok(changes) } else { Err(invalid("a record is longer than its changes")) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::KeyValue;
    use crate::state::Entry;

    #[test]
    fn a_record_is_read_as_it_was_written() {
        let pair =
            KeyValue { key: "/a".into(), value: vec![0, 255, 7].into(), create_revision: 3, mod_revision: 9 };
        let keys = [("/a".into(), Some(Entry { pair, lease: Some(4) })), ("/b".into(), None)];
        let cases = [
            Changes { revision: 9, keys: keys.into(), ..Changes::default() },
            Changes {
                revision: 9,
                granted: Some(LeaseRecord { id: 7, ttl: Duration::from_millis(1500) }),
                ..Changes::default()
            },
            Changes { revision: 10, revoked: vec![7, 8], ..Changes::default() },
        ];
        for changes in cases {
            let mut bytes = Vec::new();
            encode(&changes, &mut bytes).unwrap();
            let read = decode(&bytes).unwrap();
            assert_eq!(format!("{read:?}"), format!("{changes:?}"));
            for length in 0..bytes.len() {
                assert!(decode(&bytes[..length]).is_err(), "{length} of {}", bytes.len());
            }
        }
    }
}
