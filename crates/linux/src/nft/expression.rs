//! What a rule is made of: loads into registers, tests, lookups, verdicts, address translation.

use super::Family;
use super::LIST_ELEMENT;
use crate::net::wire::Writer;

const EXPRESSION_NAME: u16 = 1;
const EXPRESSION_DATA: u16 = 2;
const DATA_VALUE: u16 = 1;
const DATA_VERDICT: u16 = 2;
const REGISTER_VERDICT: u32 = 0;
const REGISTER_FIRST_WORD: u32 = 8;

/// One of the sixteen words of four bytes that a packet carries through a chain. Longer values take several.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Register(pub u32);

impl Register {
    fn number(self) -> u32 {
        REGISTER_FIRST_WORD + self.0
    }
}

/// Where a payload offset counts from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PayloadBase {
    Link = 0,
    Network = 1,
    Transport = 2,
}

/// A property of the packet that is not in its bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MetaKey {
    Mark = 3,
    /// 16 bytes, padded with zeroes.
    InputName = 6,
    OutputName = 7,
    /// One byte: 2 for IPv4, 10 for IPv6.
    NetworkProtocol = 15,
    /// One byte: 6 for TCP, …
    TransportProtocol = 16,
}

/// A property of the packet's connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConntrackKey {
    /// A bit set in host order: invalid 1, established 2, related 4, new 8.
    State = 0,
    /// A bit set in host order: source translated 0x10, destination translated 0x20.
    Status = 2,
    SourceIpv4 = 19,
    DestinationIpv4 = 20,
}

/// Which direction of a connection a property is taken from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    Original = 0,
    Reply = 1,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Comparison {
    Equal = 0,
    NotEqual = 1,
    Less = 2,
    LessOrEqual = 3,
    Greater = 4,
    GreaterOrEqual = 5,
}

/// What the routing table is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FibResult {
    OutputInterface = 1,
    /// Four bytes in host order: unicast 1, local 2, broadcast 3, …
    AddressType = 3,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NatKind {
    Source = 0,
    Destination = 1,
}

/// How a packet is turned down.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reject {
    PortUnreachable,
    AdministrativelyProhibited,
    TcpReset,
}

/// What becomes of the packet.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Verdict {
    Accept,
    Drop,
    Return,
    /// Run that chain and come back.
    Jump(String),
    /// Run that chain and do not come back.
    Goto(String),
}

/// One step of a rule. A step that does not match ends the rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Expression {
    Payload {
        base: PayloadBase,
        offset: u32,
        length: u32,
        to: Register,
    },
    Meta {
        key: MetaKey,
        to: Register,
    },
    SetMeta {
        key: MetaKey,
        from: Register,
    },
    Conntrack {
        key: ConntrackKey,
        direction: Option<Direction>,
        to: Register,
    },
    /// About the packet's destination (or source) address.
    Fib {
        source: bool,
        result: FibResult,
        to: Register,
    },
    Load {
        to: Register,
        value: Vec<u8>,
    },
    /// A number below `modulus`, in host order.
    Random {
        modulus: u32,
        to: Register,
    },
    Compare {
        register: Register,
        comparison: Comparison,
        value: Vec<u8>,
    },
    Bitwise {
        from: Register,
        to: Register,
        mask: Vec<u8>,
        xor: Vec<u8>,
    },
    /// Membership in a set.
    Contains {
        set: String,
        key: Register,
        invert: bool,
    },
    /// A map's value.
    Map {
        set: String,
        key: Register,
        to: Register,
    },
    /// A verdict map's verdict.
    VerdictMap {
        set: String,
        key: Register,
    },
    /// Adds (or refreshes) or removes an element as packets pass.
    Dynamic {
        set: String,
        operation: Dynamic,
        key: Register,
        value: Option<Register>,
        timeout_ms: u64,
    },
    Nat {
        kind: NatKind,
        family: Family,
        address: Register,
        port: Option<Register>,
    },
    /// Source translation to the outgoing interface's address, with random ports.
    Masquerade,
    Reject(Reject),
    Verdict(Verdict),
    Counter,
}

/// What a packet does to a set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dynamic {
    Add = 0,
    Update = 1,
    Delete = 2,
}

impl Expression {
    pub(super) fn write(&self, list: &mut Writer) {
        list.nested(LIST_ELEMENT, |element| {
            element.text(EXPRESSION_NAME, self.name());
            element.nested(EXPRESSION_DATA, |data| self.write_data(data));
        });
    }

    fn name(&self) -> &'static str {
        match self {
            Self::Payload { .. } => "payload",
            Self::Meta { .. } | Self::SetMeta { .. } => "meta",
            Self::Conntrack { .. } => "ct",
            Self::Fib { .. } => "fib",
            Self::Load { .. } | Self::Verdict(_) => "immediate",
            Self::Random { .. } => "numgen",
            Self::Compare { .. } => "cmp",
            Self::Bitwise { .. } => "bitwise",
            Self::Contains { .. } | Self::Map { .. } | Self::VerdictMap { .. } => "lookup",
            Self::Dynamic { .. } => "dynset",
            Self::Nat { .. } => "nat",
            Self::Masquerade => "masq",
            Self::Reject(_) => "reject",
            Self::Counter => "counter",
        }
    }

    fn write_data(&self, data: &mut Writer) {
        match self {
            Self::Contains { .. } | Self::Map { .. } | Self::VerdictMap { .. } | Self::Dynamic { .. } => {
                self.write_set_data(data);
            }
            Self::Nat { .. } | Self::Masquerade | Self::Reject(_) | Self::Verdict(_) | Self::Counter => {
                self.write_action_data(data);
            }
            _ => self.write_load_data(data),
        }
    }

    fn write_load_data(&self, data: &mut Writer) {
        match self {
            Self::Payload { base, offset, length, to } => {
                words(data, &[(1, to.number()), (2, *base as u32), (3, *offset), (4, *length)]);
            }
            Self::Meta { key, to } => words(data, &[(1, to.number()), (2, *key as u32)]),
            Self::SetMeta { key, from } => words(data, &[(2, *key as u32), (3, from.number())]),
            Self::Conntrack { key, direction, to } => {
                words(data, &[(1, to.number()), (2, *key as u32)]);
                if let Some(direction) = direction {
                    data.u8(3, *direction as u8);
                }
            }
            Self::Fib { source, result, to } => {
                let flags = if *source { 1 } else { 2 };
                words(data, &[(1, to.number()), (2, *result as u32), (3, flags)]);
            }
            Self::Load { to, value } => {
                data.be32(1, to.number());
                write_value(data, 2, value);
            }
            Self::Random { modulus, to } => {
                words(data, &[(1, to.number()), (2, *modulus), (3, 1), (4, 0)]);
            }
            Self::Compare { register, comparison, value } => {
                words(data, &[(1, register.number()), (2, *comparison as u32)]);
                write_value(data, 3, value);
            }
            Self::Bitwise { from, to, mask, xor } => {
                words(data, &[(1, from.number()), (2, to.number()), (3, mask.len() as u32)]);
                write_value(data, 4, mask);
                write_value(data, 5, xor);
            }
            _ => {}
        }
    }

    fn write_set_data(&self, data: &mut Writer) {
        match self {
            Self::Contains { set, key, invert } => {
                data.text(1, set);
                words(data, &[(2, key.number()), (5, u32::from(*invert))]);
            }
            Self::Map { set, key, to } => {
                data.text(1, set);
                words(data, &[(2, key.number()), (3, to.number())]);
            }
            Self::VerdictMap { set, key } => {
                data.text(1, set);
                words(data, &[(2, key.number()), (3, REGISTER_VERDICT)]);
            }
            Self::Dynamic { set, operation, key, value, timeout_ms } => {
                data.text(1, set);
                words(data, &[(3, *operation as u32), (4, key.number())]);
                if let Some(value) = value {
                    data.be32(5, value.number());
                }
                if *timeout_ms > 0 {
                    data.be64(6, *timeout_ms);
                }
            }
            _ => {}
        }
    }

    fn write_action_data(&self, data: &mut Writer) {
        match self {
            Self::Nat { kind, family, address, port } => {
                words(data, &[(1, *kind as u32), (2, *family as u32), (3, address.number())]);
                if let Some(port) = port {
                    data.be32(5, port.number());
                }
            }
            // NF_NAT_RANGE_PROTO_RANDOM_FULLY
            Self::Masquerade => data.be32(1, 16),
            Self::Reject(Reject::TcpReset) => {
                data.be32(1, 1);
                data.u8(2, 0);
            }
            Self::Reject(reason) => {
                data.be32(1, 2);
                data.u8(2, if *reason == Reject::PortUnreachable { 1 } else { 3 });
            }
            Self::Verdict(verdict) => {
                data.be32(1, REGISTER_VERDICT);
                data.nested(2, |value| write_verdict(value, verdict));
            }
            _ => {}
        }
    }
}

fn words(data: &mut Writer, attributes: &[(u16, u32)]) {
    for (kind, value) in attributes {
        data.be32(*kind, *value);
    }
}

/// An attribute that holds a value.
pub(super) fn write_value(out: &mut Writer, kind: u16, value: &[u8]) {
    out.nested(kind, |data| data.attribute(DATA_VALUE, value));
}

/// The inside of an attribute that holds a verdict.
pub(super) fn write_verdict(out: &mut Writer, verdict: &Verdict) {
    let (code, chain): (i32, _) = match verdict {
        Verdict::Drop => (0, None),
        Verdict::Accept => (1, None),
        Verdict::Jump(chain) => (-3, Some(chain)),
        Verdict::Goto(chain) => (-4, Some(chain)),
        Verdict::Return => (-5, None),
    };
    out.nested(DATA_VERDICT, |data| {
        data.be32(1, code as u32);
        if let Some(chain) = chain {
            data.text(2, chain);
        }
    });
}
