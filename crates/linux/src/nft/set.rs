//! Named sets and maps: their types and elements.

use std::net::IpAddr;

use super::expression::{Verdict, write_value, write_verdict};
use super::{Family, LIST_ELEMENT, header, message_type};
use crate::net::wire::{self, Writer};
use crate::net::{NetlinkError, Socket};

pub(super) const NEW_SET: u16 = message_type(9);
pub(super) const NEW_ELEMENT: u16 = message_type(12);
const GET_ELEMENT: u16 = message_type(13);
const FLAG_INTERVAL: u32 = 0x4;
const FLAG_MAP: u32 = 0x8;
const FLAG_TIMEOUT: u32 = 0x10;
const FLAG_DYNAMIC: u32 = 0x20;
const FLAG_CONCATENATED: u32 = 0x80;
const TYPE_VERDICT: u32 = 0xffff_ff00;
/// How `nft` packs the types of a concatenation into one number.
const TYPE_BITS: u32 = 6;
const ELEMENT_KEY: u16 = 1;
const ELEMENT_DATA: u16 = 2;
const ELEMENT_FLAGS: u16 = 3;
const ELEMENT_TIMEOUT: u16 = 4;
const ELEMENT_KEY_END: u16 = 10;
const INTERVAL_END: u32 = 1;
/// What packets add is bounded.
const DYNAMIC_ELEMENTS_MAX: u32 = 65_536;
/// Elements of one message share an attribute of at most 64 KiB; an element takes at most a few hundred bytes.
const ELEMENTS_BYTES_MAX: usize = 48 * 1024;

/// A field of a key or value. In keys of several fields each takes a multiple of four bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Type {
    Ipv4,
    Ipv6,
    /// One byte.
    Protocol,
    /// Two bytes in network order.
    Port,
    /// Four bytes in host order.
    Mark,
    /// Sixteen bytes, padded with zeroes.
    InterfaceName,
}

impl Type {
    /// The number by which `nft` knows the type when it lists the set.
    fn number(self) -> u32 {
        match self {
            Self::Ipv4 => 7,
            Self::Ipv6 => 8,
            Self::Protocol => 12,
            Self::Port => 13,
            Self::Mark => 19,
            Self::InterfaceName => 41,
        }
    }

    fn bytes(self) -> u32 {
        match self {
            Self::Protocol => 1,
            Self::Port => 2,
            Self::Ipv4 | Self::Mark => 4,
            Self::Ipv6 | Self::InterfaceName => 16,
        }
    }
}

fn total(types: &[Type]) -> (u32, u32) {
    let number = types.iter().fold(0, |number: u32, field| (number << TYPE_BITS) | field.number());
    let bytes = match types {
        [single] => single.bytes(),
        several => several.iter().map(|field| field.bytes().next_multiple_of(4)).sum(),
    };
    (number, bytes)
}

/// What a set holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SetKind {
    Members,
    Map(Vec<Type>),
    VerdictMap,
}

/// A named set or map.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Set {
    pub name: String,
    pub key: Vec<Type>,
    pub kind: SetKind,
    /// Keys are ranges.
    pub interval: bool,
    /// Packets add elements, which time out.
    pub dynamic: bool,
}

impl Set {
    pub fn members(name: &str, key: &[Type]) -> Self {
        Self {
            name: name.to_owned(),
            key: key.to_vec(),
            kind: SetKind::Members,
            interval: false,
            dynamic: false,
        }
    }

    pub fn map(name: &str, key: &[Type], value: &[Type]) -> Self {
        Self { kind: SetKind::Map(value.to_vec()), ..Self::members(name, key) }
    }

    pub fn verdict_map(name: &str, key: &[Type]) -> Self {
        Self { kind: SetKind::VerdictMap, ..Self::members(name, key) }
    }

    pub fn with_intervals(self) -> Self {
        Self { interval: true, ..self }
    }

    pub fn filled_by_packets(self) -> Self {
        Self { dynamic: true, ..self }
    }

    fn concatenated_intervals(&self) -> bool {
        self.interval && self.key.len() > 1
    }

    fn flags(&self) -> u32 {
        let mut flags = 0;
        if self.interval {
            flags |= FLAG_INTERVAL;
        }
        if self.concatenated_intervals() {
            flags |= FLAG_CONCATENATED;
        }
        if self.kind != SetKind::Members {
            flags |= FLAG_MAP;
        }
        if self.dynamic {
            flags |= FLAG_DYNAMIC | FLAG_TIMEOUT;
        }
        flags
    }

    pub(super) fn write(&self, message: &mut Writer, table: &str, id: u32) {
        let (key_type, key_bytes) = total(&self.key);
        message.text(1, table);
        message.text(2, &self.name);
        message.be32(3, self.flags());
        message.be32(4, key_type);
        message.be32(5, key_bytes);
        match &self.kind {
            SetKind::Members => {}
            SetKind::VerdictMap => {
                message.be32(6, TYPE_VERDICT);
                message.be32(7, 0);
            }
            SetKind::Map(value) => {
                let (value_type, value_bytes) = total(value);
                message.be32(6, value_type);
                message.be32(7, value_bytes);
            }
        }
        if self.dynamic {
            message.nested(9, |description| description.be32(1, DYNAMIC_ELEMENTS_MAX));
        } else if self.concatenated_intervals() {
            message.nested(9, |description| description.nested(2, |fields| self.write_fields(fields)));
        }
        message.be32(10, id);
    }

    fn write_fields(&self, fields: &mut Writer) {
        for field in &self.key {
            fields.nested(LIST_ELEMENT, |element| element.be32(1, field.bytes().next_multiple_of(4)));
        }
    }
}

/// What a key maps to.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Value {
    #[default]
    None,
    Data(Vec<u8>),
    Verdict(Verdict),
}

/// An element of a set or map, its key made by [`key`].
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Element {
    pub key: Vec<u8>,
    /// In interval sets: the last key of the range. With one field: the first key behind the range, or empty when
    /// the range is open.
    pub key_end: Option<Vec<u8>>,
    pub value: Value,
    /// 0 for ever.
    pub timeout_ms: u64,
}

impl Element {
    pub fn member(key: Vec<u8>) -> Self {
        Self { key, ..Self::default() }
    }

    pub fn new(key: Vec<u8>, value: Value) -> Self {
        Self { key, value, ..Self::default() }
    }

    fn write(&self, list: &mut Writer, set: &Set, delete: bool) {
        let split = set.interval && !set.concatenated_intervals();
        list.nested(LIST_ELEMENT, |element| {
            write_value(element, ELEMENT_KEY, &self.key);
            if let (Some(end), false) = (&self.key_end, split) {
                write_value(element, ELEMENT_KEY_END, end);
            }
            match &self.value {
                _ if delete => {}
                Value::None => {}
                Value::Data(bytes) => write_value(element, ELEMENT_DATA, bytes),
                Value::Verdict(verdict) => element.nested(ELEMENT_DATA, |data| write_verdict(data, verdict)),
            }
            if self.timeout_ms > 0 {
                element.be64(ELEMENT_TIMEOUT, self.timeout_ms);
            }
        });
        if let (Some(end), true) = (&self.key_end, split) {
            list.nested(LIST_ELEMENT, |element| {
                write_value(element, ELEMENT_KEY, end);
                element.be32(ELEMENT_FLAGS, INTERVAL_END);
            });
        }
    }
}

/// Writes as many elements as fit one message and returns how many those were.
pub(super) fn write_elements(
    message: &mut Writer,
    table: &str,
    set: &Set,
    elements: &[Element],
    delete: bool,
) -> usize {
    message.text(1, table);
    message.text(2, &set.name);
    let mut written = 0;
    message.nested(3, |list| {
        let start = list.len();
        for element in elements {
            if list.len() - start > ELEMENTS_BYTES_MAX {
                break;
            }
            element.write(list, set, delete);
            written += 1;
        }
    });
    written
}

/// The keys of a set or map, as the kernel has them; for tests and inspection.
pub fn set_elements(
    socket: &mut Socket,
    family: Family,
    table: &str,
    set: &str,
) -> Result<Vec<Vec<u8>>, NetlinkError> {
    let mut request = Writer::new();
    request.message(GET_ELEMENT, 0, |message| {
        message.raw(&header(family));
        message.text(1, table);
        message.text(2, set);
    });
    let mut keys = Vec::new();
    socket.dump(request, |_, body| {
        let list = body.get(4..).and_then(|body| wire::find(body, 3)).unwrap_or_default();
        let found = wire::attributes(list).filter_map(|(_, element)| {
            let key = wire::find(element, ELEMENT_KEY)?;
            wire::find(key, 1).map(<[u8]>::to_vec)
        });
        keys.extend(found);
    })?;
    Ok(keys)
}

/// Builds keys and values: each field padded to four bytes.
pub mod key {
    use super::IpAddr;

    /// Several fields one behind the other.
    #[derive(Clone, Debug, Default)]
    pub struct Fields(Vec<u8>);

    impl Fields {
        pub fn new() -> Self {
            Self::default()
        }

        pub fn ip(mut self, ip: IpAddr) -> Self {
            self.0.extend(crate::net::address::octets(ip));
            self
        }

        pub fn protocol(mut self, protocol: u8) -> Self {
            self.0.extend([protocol, 0, 0, 0]);
            self
        }

        pub fn port(mut self, port: u16) -> Self {
            self.0.extend(port.to_be_bytes());
            self.0.extend([0, 0]);
            self
        }

        pub fn mark(mut self, mark: u32) -> Self {
            self.0.extend(mark.to_ne_bytes());
            self
        }

        pub fn bytes(self) -> Vec<u8> {
            self.0
        }
    }

    /// An interface name as registers hold it.
    pub fn interface(name: &str) -> Vec<u8> {
        let mut bytes = name.as_bytes().to_vec();
        bytes.resize(16, 0);
        bytes
    }
}
