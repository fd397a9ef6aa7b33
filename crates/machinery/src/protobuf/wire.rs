//! The wire format: variable-length integers and length-delimited pieces.

use super::ProtobufError;

type Read<T> = Result<T, ProtobufError>;

/// Appends an integer in base 128.
pub fn varint(mut number: u64, out: &mut Vec<u8>) {
    while number >= 0x80 {
        out.push(number.to_le_bytes()[0] | 0x80);
        number >>= 7;
    }
    out.push(number.to_le_bytes()[0]);
}

fn key(number: u32, kind: u64, out: &mut Vec<u8>) {
    varint(u64::from(number) << 3 | kind, out);
}

/// Appends an integer field; negative numbers take ten bytes.
pub fn integer(number: u32, value: i64, out: &mut Vec<u8>) {
    key(number, 0, out);
    varint(value.cast_unsigned(), out);
}

/// Appends a floating point field.
pub fn double(number: u32, value: f64, out: &mut Vec<u8>) {
    key(number, 1, out);
    out.extend_from_slice(&value.to_le_bytes());
}

/// Appends a length-delimited field.
pub fn bytes(number: u32, value: &[u8], out: &mut Vec<u8>) {
    key(number, 2, out);
    varint(value.len() as u64, out);
    out.extend_from_slice(value);
}

/// Appends a length-delimited field that `write` makes in place; its length is put before it afterwards.
pub fn nested<E>(
    number: u32,
    out: &mut Vec<u8>,
    write: impl FnOnce(&mut Vec<u8>) -> Result<(), E>,
) -> Result<(), E> {
    key(number, 2, out);
    let start = out.len();
    write(out)?;
    let end = out.len();
    varint((end - start) as u64, out);
    let prefix = out.len() - end;
    out[start..].rotate_right(prefix);
    Ok(())
}

/// The value of one field.
#[derive(Clone, Copy, Debug)]
pub enum Piece<'a> {
    Integer(u64),
    Fixed64(u64),
    /// No field of Kubernetes is of this kind; it is passed over.
    Fixed32,
    Bytes(&'a [u8]),
}

impl<'a> Piece<'a> {
    pub fn bytes(self) -> Read<&'a [u8]> {
        match self {
            Piece::Bytes(bytes) => Ok(bytes),
            _ => Err(ProtobufError::Malformed("a field has the wrong wire type")),
        }
    }

    pub fn text(self) -> Read<&'a str> {
        std::str::from_utf8(self.bytes()?).map_err(|_| ProtobufError::Malformed("a string is not UTF-8"))
    }

    pub fn integer(self) -> Read<i64> {
        match self {
            Piece::Integer(number) => Ok(number.cast_signed()),
            _ => Err(ProtobufError::Malformed("a field has the wrong wire type")),
        }
    }
}

/// The fields of a message, in the order they were written.
pub struct Pieces<'a> {
    rest: &'a [u8],
}

impl<'a> Pieces<'a> {
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    /// An integer that stands without a key, as in packed lists.
    pub fn bare_integer(&mut self) -> Read<Option<u64>> {
        if self.rest.is_empty() { Ok(None) } else { self.varint().map(Some) }
    }

    /// Eight bytes that stand without a key.
    pub fn bare_fixed64(&mut self) -> Read<Option<u64>> {
        if self.rest.is_empty() {
            Ok(None)
        } else {
            self.fixed().map(|bytes| Some(u64::from_le_bytes(bytes)))
        }
    }

    fn varint(&mut self) -> Read<u64> {
        let mut number = 0_u64;
        for (index, byte) in self.rest.iter().take(10).enumerate() {
            number |= u64::from(byte & 0x7f) << (7 * index);
            if byte & 0x80 == 0 {
                self.rest = &self.rest[index + 1..];
                return Ok(number);
            }
        }
        Err(ProtobufError::Malformed("an integer has no end"))
    }

    fn take(&mut self, count: u64) -> Read<&'a [u8]> {
        let taken = usize::try_from(count).ok().and_then(|count| self.rest.split_at_checked(count));
        let (taken, rest) = taken.ok_or(ProtobufError::Malformed("the message ends too early"))?;
        self.rest = rest;
        Ok(taken)
    }

    fn fixed<const N: usize>(&mut self) -> Read<[u8; N]> {
        let (taken, rest) =
            self.rest.split_first_chunk().ok_or(ProtobufError::Malformed("the message ends too early"))?;
        self.rest = rest;
        Ok(*taken)
    }

    fn piece(&mut self) -> Read<(u32, Piece<'a>)> {
        let key = self.varint()?;
        let number =
            u32::try_from(key >> 3).map_err(|_| ProtobufError::Malformed("a field number is too large"))?;
        let piece = match key & 7 {
            0 => Piece::Integer(self.varint()?),
            1 => Piece::Fixed64(u64::from_le_bytes(self.fixed()?)),
            2 => {
                let length = self.varint()?;
                Piece::Bytes(self.take(length)?)
            }
            5 => {
                self.take(4)?;
                Piece::Fixed32
            }
            _ => return Err(ProtobufError::Malformed("a field has an unknown wire type")),
        };
        Ok((number, piece))
    }
}

impl<'a> Iterator for Pieces<'a> {
    type Item = Read<(u32, Piece<'a>)>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        let piece = self.piece();
        if piece.is_err() {
            self.rest = &[];
        }
        Some(piece)
    }
}
