//! The layout of frames.

use crate::StreamError;

pub const HEAD: usize = 8;
/// The longest control frame that is taken from a peer, in bytes.
pub const CONTROL_MAX: usize = 64 << 10;
/// The most data that is read or written at once.
pub const DATA_MAX: usize = 32 << 10;

pub const SYN_STREAM: u16 = 1;
pub const SYN_REPLY: u16 = 2;
pub const RST_STREAM: u16 = 3;
pub const SETTINGS: u16 = 4;
pub const PING: u16 = 6;
pub const GOAWAY: u16 = 7;
pub const HEADERS: u16 = 8;
pub const WINDOW_UPDATE: u16 = 9;

pub const FLAG_FIN: u8 = 1;
/// The setting that gives the size of new streams' windows.
pub const INITIAL_WINDOW_SIZE: u32 = 7;

const VERSION: u16 = 3;
const ID_MASK: u32 = 0x7fff_ffff;

/// The first eight bytes of a frame.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Head {
    Control { kind: u16, flags: u8, length: usize },
    Data { id: u32, flags: u8, length: usize },
}

impl Head {
    pub fn read(bytes: [u8; HEAD]) -> Result<Self, StreamError> {
        let [a, b, c, d, flags, x, y, z] = bytes;
        let length = u32::from_be_bytes([0, x, y, z]) as usize;
        let id = u32::from_be_bytes([a, b, c, d]);
        if id <= ID_MASK {
            return Ok(Self::Data { id, flags, length });
        }
        if u16::from_be_bytes([a & 0x7f, b]) != VERSION {
            return Err(StreamError::Protocol("a SPDY version other than 3"));
        }
        if length > CONTROL_MAX {
            return Err(StreamError::Protocol("a SPDY control frame that is too long"));
        }
        Ok(Self::Control { kind: u16::from_be_bytes([c, d]), flags, length })
    }
}

/// A number at an offset of a control frame's payload.
pub fn number(payload: &[u8], at: usize) -> Result<u32, StreamError> {
    let bytes = payload.get(at..at + 4).and_then(|bytes| bytes.try_into().ok());
    bytes.map(u32::from_be_bytes).ok_or(StreamError::Protocol("a SPDY control frame that is too short"))
}

/// A stream's number at an offset.
pub fn stream_id(payload: &[u8], at: usize) -> Result<u32, StreamError> {
    number(payload, at).map(|id| id & ID_MASK)
}

/// A whole control frame.
pub fn control(kind: u16, flags: u8, payload: &[u8]) -> Vec<u8> {
    let mut frame = Vec::with_capacity(HEAD + payload.len());
    frame.extend_from_slice(&(0x8000 | VERSION).to_be_bytes());
    frame.extend_from_slice(&kind.to_be_bytes());
    frame.extend_from_slice(&length_with(flags, payload.len()));
    frame.extend_from_slice(payload);
    frame
}

/// The head of a data frame.
pub fn data_head(id: u32, flags: u8, length: usize) -> [u8; HEAD] {
    let mut head = [0; HEAD];
    head[..4].copy_from_slice(&(id & ID_MASK).to_be_bytes());
    head[4..].copy_from_slice(&length_with(flags, length));
    head
}

fn length_with(flags: u8, length: usize) -> [u8; 4] {
    // Callers write at most CONTROL_MAX or DATA_MAX bytes, which fit in 24 bits.
    (u32::from(flags) << 24 | (length as u32 & 0x00ff_ffff)).to_be_bytes()
}
