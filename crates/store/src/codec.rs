//! Integers, bytes and entries as they stand in snapshots and in the log; integers are little-endian.

use std::io::{self, Read, Write};

use crate::KeyValue;
use crate::state::Entry;

/// Longer keys or values than this are damage.
const LENGTH_MAX: u32 = 256 << 20;

pub fn invalid(text: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, text)
}

pub fn put_u64(out: &mut impl Write, number: u64) -> io::Result<()> {
    out.write_all(&number.to_le_bytes())
}

pub fn put_bytes(out: &mut impl Write, bytes: &[u8]) -> io::Result<()> {
    let length = u32::try_from(bytes.len()).map_err(|_| invalid("a value is longer than 4 GiB"))?;
    out.write_all(&length.to_le_bytes())?;
    out.write_all(bytes)
}

/// The create and mod revision, the lease (0: none), and key and value, each as a u32 length and bytes.
pub fn put_entry(out: &mut impl Write, entry: &Entry) -> io::Result<()> {
    put_u64(out, entry.pair.create_revision)?;
    put_u64(out, entry.pair.mod_revision)?;
    put_u64(out, entry.lease.unwrap_or(0))?;
    put_bytes(out, entry.pair.key.as_bytes())?;
    put_bytes(out, &entry.pair.value)
}

pub fn get_u64(from: &mut impl Read) -> io::Result<u64> {
    let mut bytes = [0; 8];
    from.read_exact(&mut bytes)?;
    Ok(u64::from_le_bytes(bytes))
}

pub fn get_bytes(from: &mut impl Read) -> io::Result<Vec<u8>> {
    let mut length = [0; 4];
    from.read_exact(&mut length)?;
    let length = u32::from_le_bytes(length);
    if length > LENGTH_MAX {
        return Err(invalid("a length is out of bounds"));
    }
    let mut bytes = vec![0; length as usize];
    from.read_exact(&mut bytes)?;
    Ok(bytes)
}

pub fn get_key(from: &mut impl Read) -> io::Result<String> {
    String::from_utf8(get_bytes(from)?).map_err(|_| invalid("a key is not UTF-8"))
}

pub fn get_entry(from: &mut impl Read) -> io::Result<Entry> {
    let (create_revision, mod_revision, lease) = (get_u64(from)?, get_u64(from)?, get_u64(from)?);
    let key = get_key(from)?.into();
    let value = get_bytes(from)?.into();
    let pair = KeyValue { key, value, create_revision, mod_revision };
    Ok(Entry { pair, lease: (lease != 0).then_some(lease) })
}
