//! nftables: an encoder for transactions, spoken to the kernel without a tool or library between.
//!
//! A [`Batch`] is written message by message and committed as a whole: the kernel applies all of it or nothing, and
//! a refusal tells which message it was. There are no anonymous sets on purpose: naming them takes the kernel time
//! quadratic in their number, while elements of named maps cost nothing to speak of.

mod batch;
mod expression;
mod set;

pub use batch::{
    Batch, Chain, Hook, HookKind, NftError, delete_table, dropping_chains, table_exists, tables,
};
pub use expression::{
    Comparison, ConntrackKey, Direction, Dynamic, Expression, FibResult, MetaKey, NatKind, PayloadBase,
    Register, Reject, Verdict,
};
pub use set::{Element, Set, SetKind, Type, Value, key, set_elements};

/// Which packets a table sees.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// IPv4 and IPv6.
    Inet = 1,
    Ipv4 = 2,
    Ipv6 = 10,
}

/// `NFNL_SUBSYS_NFTABLES`
const SUBSYSTEM: u16 = 10;
/// `NFTA_LIST_ELEM`
const LIST_ELEMENT: u16 = 1;

const fn message_type(number: u16) -> u16 {
    (SUBSYSTEM << 8) | number
}

/// `struct nfgenmsg`
fn header(family: Family) -> [u8; 4] {
    [family as u8, 0, 0, 0]
}
