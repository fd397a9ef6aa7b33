//! The byte format of netlink: messages of attributes, written and read.
//!
//! Lengths and types are in the machine's byte order; values are what each protocol says.

/// `NLM_F_REQUEST`
pub const REQUEST: u16 = 0x1;
/// `NLM_F_ACK`
pub const ACK: u16 = 0x4;
/// `NLM_F_DUMP`
pub const DUMP: u16 = 0x300;
/// `NLM_F_REPLACE`
pub const REPLACE: u16 = 0x100;
/// `NLM_F_EXCL`
pub const EXCLUSIVE: u16 = 0x200;
/// `NLM_F_CREATE`
pub const CREATE: u16 = 0x400;
/// `NLM_F_APPEND`
pub const APPEND: u16 = 0x800;

/// `NLMSG_ERROR`
pub(crate) const MESSAGE_ERROR: u16 = 2;
/// `NLMSG_DONE`
pub(crate) const MESSAGE_DONE: u16 = 3;
pub(crate) const HEADER: usize = 16;
const NESTED: u16 = 0x8000;
const TYPE_MASK: u16 = 0x3fff;

/// Writes netlink messages one behind the other.
#[derive(Default)]
pub struct Writer {
    bytes: Vec<u8>,
    /// Where each message begins.
    starts: Vec<usize>,
}

impl Writer {
    pub fn new() -> Self {
        Self::default()
    }

    /// The number of messages so far.
    pub fn messages(&self) -> usize {
        self.starts.len()
    }

    pub fn is_empty(&self) -> bool {
        self.starts.is_empty()
    }

    /// Bytes so far.
    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Appends a message. Its sequence number is set when it is sent.
    pub fn message(&mut self, kind: u16, flags: u16, body: impl FnOnce(&mut Self)) {
        let start = self.bytes.len();
        self.starts.push(start);
        self.bytes.extend_from_slice(&[0; HEADER]);
        body(self);
        let length = (self.bytes.len() - start) as u32;
        self.bytes[start..start + 4].copy_from_slice(&length.to_ne_bytes());
        self.bytes[start + 4..start + 6].copy_from_slice(&kind.to_ne_bytes());
        self.bytes[start + 6..start + 8].copy_from_slice(&(flags | REQUEST).to_ne_bytes());
        self.align();
    }

    /// Appends raw bytes: a fixed header behind the message's own.
    pub fn raw(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
        self.align();
    }

    pub fn attribute(&mut self, kind: u16, value: &[u8]) {
        let length = (value.len() + 4) as u16;
        self.bytes.extend_from_slice(&length.to_ne_bytes());
        self.bytes.extend_from_slice(&kind.to_ne_bytes());
        self.raw(value);
    }

    pub fn nested(&mut self, kind: u16, body: impl FnOnce(&mut Self)) {
        self.open(kind | NESTED, body);
    }

    /// Like [`Writer::nested`] without the flag that old kernels do not know in some places.
    pub fn open(&mut self, kind: u16, body: impl FnOnce(&mut Self)) {
        let start = self.bytes.len();
        self.bytes.extend_from_slice(&[0; 2]);
        self.bytes.extend_from_slice(&kind.to_ne_bytes());
        body(self);
        let length = self.bytes.len() - start;
        debug_assert!(length <= usize::from(u16::MAX), "an attribute holds at most 64 KiB");
        self.bytes[start..start + 2].copy_from_slice(&(length as u16).to_ne_bytes());
    }

    pub fn u8(&mut self, kind: u16, value: u8) {
        self.attribute(kind, &[value]);
    }

    /// In the machine's byte order.
    pub fn u32(&mut self, kind: u16, value: u32) {
        self.attribute(kind, &value.to_ne_bytes());
    }

    /// In network byte order.
    pub fn be32(&mut self, kind: u16, value: u32) {
        self.attribute(kind, &value.to_be_bytes());
    }

    /// In network byte order.
    pub fn be64(&mut self, kind: u16, value: u64) {
        self.attribute(kind, &value.to_be_bytes());
    }

    /// With the terminating zero.
    pub fn text(&mut self, kind: u16, value: &str) {
        let mut bytes = value.as_bytes().to_vec();
        bytes.push(0);
        self.attribute(kind, &bytes);
    }

    fn align(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }

    /// Numbers the messages from `first` on, adds `flags` to the last one, and gives the bytes.
    pub(crate) fn finish(mut self, first: u32, last_flags: u16) -> Vec<u8> {
        for (index, start) in self.starts.iter().enumerate() {
            let sequence = first.wrapping_add(index as u32);
            self.bytes[start + 8..start + 12].copy_from_slice(&sequence.to_ne_bytes());
        }
        if let Some(start) = self.starts.last().copied() {
            let flags = read_u16(&self.bytes[start + 6..]) | last_flags;
            self.bytes[start + 6..start + 8].copy_from_slice(&flags.to_ne_bytes());
        }
        self.bytes
    }
}

/// A message as received.
pub(crate) struct Received<'a> {
    pub kind: u16,
    pub flags: u16,
    pub sequence: u32,
    pub body: &'a [u8],
}

/// Splits a buffer into messages; stops at a malformed one.
pub(crate) fn messages(mut buffer: &[u8]) -> impl Iterator<Item = Received<'_>> {
    std::iter::from_fn(move || {
        if buffer.len() < HEADER {
            return None;
        }
        let length = read_u32(buffer) as usize;
        if length < HEADER || length > buffer.len() {
            return None;
        }
        let received = Received {
            kind: read_u16(&buffer[4..]),
            flags: read_u16(&buffer[6..]),
            sequence: read_u32(&buffer[8..]),
            body: &buffer[HEADER..length],
        };
        buffer = &buffer[length.next_multiple_of(4).min(buffer.len())..];
        Some(received)
    })
}

/// Splits a buffer into attributes (type without flags, value); stops at a malformed one.
pub fn attributes(mut buffer: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        if buffer.len() < 4 {
            return None;
        }
        let length = usize::from(read_u16(buffer));
        if length < 4 || length > buffer.len() {
            return None;
        }
        let found = (read_u16(&buffer[2..]) & TYPE_MASK, &buffer[4..length]);
        buffer = &buffer[length.next_multiple_of(4).min(buffer.len())..];
        Some(found)
    })
}

/// The value of one attribute.
pub fn find(buffer: &[u8], kind: u16) -> Option<&[u8]> {
    attributes(buffer).find(|(found, _)| *found == kind).map(|(_, value)| value)
}

/// A text attribute's value without its terminating zero.
pub fn text(value: &[u8]) -> String {
    let end = value.iter().position(|byte| *byte == 0).unwrap_or(value.len());
    String::from_utf8_lossy(&value[..end]).into_owned()
}

/// The first two bytes in the machine's order; zero when there are fewer.
pub fn read_u16(bytes: &[u8]) -> u16 {
    bytes.first_chunk().map_or(0, |chunk| u16::from_ne_bytes(*chunk))
}

/// The first four bytes in the machine's order; zero when there are fewer.
pub fn read_u32(bytes: &[u8]) -> u32 {
    bytes.first_chunk().map_or(0, |chunk| u32::from_ne_bytes(*chunk))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_can_be_read() {
        let mut writer = Writer::new();
        writer.message(7, ACK, |message| {
            message.raw(&[1, 2, 3, 4]);
            message.text(3, "eth0");
            message.nested(18, |inner| inner.u32(1, 99));
        });
        writer.message(8, 0, |message| message.u8(1, 5));
        let bytes = writer.finish(41, DUMP);
        let all: Vec<_> = messages(&bytes).collect();
        assert_eq!(all.iter().map(|m| (m.kind, m.sequence)).collect::<Vec<_>>(), [(7, 41), (8, 42)]);
        assert_eq!(all[1].flags, REQUEST | DUMP);
        assert_eq!(text(find(&all[0].body[4..], 3).unwrap()), "eth0");
        assert_eq!(read_u32(find(find(&all[0].body[4..], 18).unwrap(), 1).unwrap()), 99);
    }

    #[test]
    fn malformed_bytes_end_the_iteration() {
        assert_eq!(messages(&[255; 40]).count(), 0);
        assert_eq!(attributes(&[3, 0, 1, 0]).count(), 0);
        assert_eq!(attributes(&[200, 0, 1, 0, 1]).count(), 0);
    }
}
