//! Transactions: tables, chains, rules, sets and elements, written together and committed as one.

use super::expression::Expression;
use super::set::{Element, NEW_ELEMENT, NEW_SET, Set, write_elements};
use super::{Family, SUBSYSTEM, header, message_type};
use crate::net::wire::{self, ACK, APPEND, CREATE, Writer};
use crate::net::{NetlinkError, Socket};

const BATCH_BEGIN: u16 = 0x10;
const BATCH_END: u16 = 0x11;
const NEW_TABLE: u16 = message_type(0);
const GET_TABLE: u16 = message_type(1);
const DELETE_TABLE: u16 = message_type(2);
const NEW_CHAIN: u16 = message_type(3);
const GET_CHAIN: u16 = message_type(4);
const DELETE_CHAIN: u16 = message_type(5);
const NEW_RULE: u16 = message_type(6);
const DELETE_RULE: u16 = message_type(8);
const DELETE_SET: u16 = message_type(11);
const DELETE_ELEMENT: u16 = message_type(14);

/// Where in a packet's way through the kernel a chain begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hook {
    Prerouting = 0,
    Input = 1,
    Forward = 2,
    Output = 3,
    Postrouting = 4,
}

/// What a chain at a hook may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HookKind {
    Filter,
    Nat,
    Route,
}

/// A chain; without a hook it runs only when another one jumps to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chain {
    pub name: String,
    /// Kind, hook and priority (lower runs earlier).
    pub hook: Option<(HookKind, Hook, i32)>,
}

impl Chain {
    pub fn regular(name: impl Into<String>) -> Self {
        Self { name: name.into(), hook: None }
    }

    pub fn base(name: impl Into<String>, kind: HookKind, hook: Hook, priority: i32) -> Self {
        Self { name: name.into(), hook: Some((kind, hook, priority)) }
    }
}

/// Why a transaction was not committed. Nothing of it was applied.
#[derive(Debug, thiserror::Error)]
pub enum NftError {
    #[error("nftables table {table}: {what}")]
    Refused {
        table: String,
        /// The message that was refused: `rule in chain x`, …
        what: String,
        #[source]
        source: NetlinkError,
    },
}

impl NftError {
    pub fn cause(&self) -> &NetlinkError {
        let Self::Refused { source, .. } = self;
        source
    }
}

/// A transaction on one table.
pub struct Batch {
    family: Family,
    table: String,
    writer: Writer,
    descriptions: Vec<(&'static str, String)>,
    next_set_id: u32,
}

impl Batch {
    pub fn new(family: Family, table: &str) -> Self {
        let mut batch = Self {
            family,
            table: table.to_owned(),
            writer: Writer::new(),
            descriptions: Vec::new(),
            next_set_id: 1,
        };
        batch.bracket(BATCH_BEGIN, "transaction");
        batch
    }

    /// Nothing was added yet.
    pub fn is_empty(&self) -> bool {
        self.writer.messages() <= 1
    }

    /// Makes the table unless it is there.
    pub fn add_table(&mut self) {
        self.push(NEW_TABLE, CREATE, "table", "", |message, table| {
            message.text(1, table);
            message.be32(2, 0);
        });
    }

    /// Removes the table with all that is in it; it must be there.
    pub fn delete_table(&mut self) {
        self.push(DELETE_TABLE, 0, "removal of table", "", |message, table| message.text(1, table));
    }

    /// Leaves an empty table, whatever was there.
    pub fn replace_table(&mut self) {
        self.add_table();
        self.delete_table();
        self.add_table();
    }

    pub fn add_chain(&mut self, chain: &Chain) {
        self.push(NEW_CHAIN, CREATE, "chain", &chain.name, |message, table| {
            message.text(1, table);
            message.text(3, &chain.name);
            if let Some((kind, hook, priority)) = chain.hook {
                message.nested(4, |data| {
                    data.be32(1, hook as u32);
                    data.be32(2, priority as u32);
                });
                message.be32(5, 1);
                message.text(7, kind.name());
            }
        });
    }

    /// Removes a chain that has no rules and that nothing refers to.
    pub fn delete_chain(&mut self, name: &str) {
        self.push(DELETE_CHAIN, 0, "removal of chain", name, |message, table| {
            message.text(1, table);
            message.text(3, name);
        });
    }

    /// Appends a rule to a chain.
    pub fn add_rule(&mut self, chain: &str, expressions: &[Expression]) {
        self.push(NEW_RULE, CREATE | APPEND, "rule in chain", chain, |message, table| {
            message.text(1, table);
            message.text(2, chain);
            message.nested(4, |list| expressions.iter().for_each(|expression| expression.write(list)));
        });
    }

    /// Removes all rules of a chain.
    pub fn flush_chain(&mut self, chain: &str) {
        self.push(DELETE_RULE, 0, "flush of chain", chain, |message, table| {
            message.text(1, table);
            message.text(2, chain);
        });
    }

    pub fn add_set(&mut self, set: &Set) {
        let id = self.next_set_id;
        self.next_set_id += 1;
        self.push(NEW_SET, CREATE, "set", &set.name, |message, table| set.write(message, table, id));
    }

    /// Removes a set that no rule refers to.
    pub fn delete_set(&mut self, name: &str) {
        self.push(DELETE_SET, 0, "removal of set", name, |message, table| {
            message.text(1, table);
            message.text(2, name);
        });
    }

    /// Adds elements. A key that is there with another value makes the transaction fail: delete it first.
    pub fn add_elements(&mut self, set: &Set, elements: &[Element]) {
        self.elements(NEW_ELEMENT, CREATE, "elements of set", set, elements);
    }

    /// Removes elements, which must be there.
    pub fn delete_elements(&mut self, set: &Set, elements: &[Element]) {
        self.elements(DELETE_ELEMENT, 0, "removal of elements of set", set, elements);
    }

    fn elements(&mut self, kind: u16, flags: u16, what: &'static str, set: &Set, mut elements: &[Element]) {
        while !elements.is_empty() {
            let mut written = 0;
            self.push(kind, flags, what, &set.name, |message, table| {
                written = write_elements(message, table, set, elements, kind == DELETE_ELEMENT);
            });
            elements = &elements[written..];
        }
    }

    /// Applies everything or nothing.
    pub fn commit(mut self, socket: &mut Socket) -> Result<(), NftError> {
        if self.is_empty() {
            return Ok(());
        }
        self.bracket(BATCH_END, "transaction");
        socket.transaction(std::mem::take(&mut self.writer)).map_err(|source| self.refused(source))
    }

    fn refused(self, source: NetlinkError) -> NftError {
        let what = match &source {
            NetlinkError::Refused { index, .. } => self.descriptions.get(*index),
            NetlinkError::Socket(_) => None,
        };
        let what = what
            .map_or("transaction".to_owned(), |(what, name)| format!("{what} {name}").trim_end().to_owned());
        NftError::Refused { table: self.table, what, source }
    }

    fn push(
        &mut self,
        kind: u16,
        flags: u16,
        what: &'static str,
        name: &str,
        body: impl FnOnce(&mut Writer, &str),
    ) {
        let (family, table) = (self.family, &self.table);
        // Only the message before the end must answer, but which one that is shows only later: an answer is a few
        // bytes, and messages hold hundreds of elements each.
        self.writer.message(kind, flags | ACK, |message| {
            message.raw(&header(family));
            body(message, table);
        });
        self.descriptions.push((what, name.to_owned()));
    }

    fn bracket(&mut self, kind: u16, what: &'static str) {
        let [high, low] = SUBSYSTEM.to_be_bytes();
        self.writer.message(kind, 0, |message| message.raw(&[0, 0, high, low]));
        self.descriptions.push((what, String::new()));
    }
}

impl HookKind {
    fn name(self) -> &'static str {
        match self {
            Self::Filter => "filter",
            Self::Nat => "nat",
            Self::Route => "route",
        }
    }
}

/// The names of the tables of a family.
pub fn tables(socket: &mut Socket, family: Family) -> Result<Vec<String>, NetlinkError> {
    let mut request = Writer::new();
    request.message(GET_TABLE, 0, |message| message.raw(&header(family)));
    let mut names = Vec::new();
    socket.dump(request, |_, body| {
        names.extend(body.get(4..).and_then(|body| wire::find(body, 1)).map(wire::text));
    })?;
    Ok(names)
}

/// Base chains at a hook whose policy is to drop, as table and chain.
pub fn dropping_chains(
    socket: &mut Socket,
    family: Family,
    hook: Hook,
) -> Result<Vec<(String, String)>, NetlinkError> {
    let mut request = Writer::new();
    request.message(GET_CHAIN, 0, |message| message.raw(&header(family)));
    let mut found = Vec::new();
    socket
        .dump(request, |_, body| found.extend(body.get(4..).and_then(|body| dropping_chain(body, hook))))?;
    Ok(found)
}

/// Reads the attributes of a chain: 1 its table, 3 its name, 4 its hook (of which 1 is the number), 5 its policy.
fn dropping_chain(chain: &[u8], hook: Hook) -> Option<(String, String)> {
    const DROP: u32 = 0;
    let number = |value: &[u8]| value.try_into().ok().map(u32::from_be_bytes);
    let at = wire::find(wire::find(chain, 4)?, 1).and_then(number)?;
    let policy = wire::find(chain, 5).and_then(number)?;
    (at == hook as u32 && policy == DROP)
        .then(|| Some((wire::text(wire::find(chain, 1)?), wire::text(wire::find(chain, 3)?))))
        .flatten()
}

/// Whether there is such a table.
pub fn table_exists(socket: &mut Socket, family: Family, table: &str) -> Result<bool, NetlinkError> {
    Ok(tables(socket, family)?.iter().any(|name| name == table))
}

/// Removes a table with all that is in it; no error when it is gone.
pub fn delete_table(socket: &mut Socket, family: Family, table: &str) -> Result<(), NftError> {
    let mut batch = Batch::new(family, table);
    batch.add_table();
    batch.delete_table();
    batch.commit(socket)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::{Protocol, namespace};
    use crate::nft::{Expression, MetaKey, Register, Type, Value, Verdict, key::Fields, set_elements};

    /// Runs in a network namespace of its own; skips without root.
    fn isolated(work: impl FnOnce(&mut Socket) + Send) {
        if !rustix::process::geteuid().is_root() {
            eprintln!("skipped: making network namespaces needs root");
            return;
        }
        namespace::within_new(|| work(&mut Socket::open(Protocol::Netfilter).unwrap())).unwrap();
    }

    fn address(text: &str) -> Vec<u8> {
        Fields::new().ip(text.parse().unwrap()).bytes()
    }

    #[test]
    fn sets_of_all_kinds_hold_what_they_are_given() {
        isolated(|socket| {
            let ranges = Set::members("ranges", &[Type::Ipv4]).with_intervals();
            let pairs = Set::members("pairs", &[Type::Ipv4, Type::Port]).with_intervals();
            let verdicts = Set::verdict_map("verdicts", &[Type::InterfaceName]);
            let many = Set::map("many", &[Type::Mark], &[Type::Mark]);
            let mut batch = Batch::new(Family::Inet, "test");
            batch.replace_table();
            batch.add_chain(&Chain::regular("there"));
            [&ranges, &pairs, &verdicts, &many].iter().for_each(|set| batch.add_set(set));
            let range = |key, end| Element { key, key_end: Some(end), ..Element::default() };
            batch.add_elements(&ranges, &[range(address("10.0.0.0"), address("11.0.0.0"))]);
            let port = |ip: &str, port| Fields::new().ip(ip.parse().unwrap()).port(port).bytes();
            batch.add_elements(&pairs, &[range(port("10.0.0.0", 1), port("10.0.0.255", 99))]);
            let goto = Value::Verdict(Verdict::Goto("there".into()));
            batch.add_elements(&verdicts, &[Element::new(crate::nft::key::interface("eth0"), goto)]);
            let mark = |mark: u32| Fields::new().mark(mark).bytes();
            let elements: Vec<_> =
                (0..5000).map(|n| Element::new(mark(n), Value::Data(mark(n + 1)))).collect();
            batch.add_elements(&many, &elements);
            batch.commit(socket).unwrap();
            let mut count = |set: &str| set_elements(socket, Family::Inet, "test", set).unwrap().len();
            assert_eq!([count("ranges"), count("pairs"), count("verdicts"), count("many")], [2, 1, 1, 5000]);
            let mut batch = Batch::new(Family::Inet, "test");
            batch.delete_elements(&many, &elements[..4000]);
            batch.delete_elements(&ranges, &[range(address("10.0.0.0"), address("11.0.0.0"))]);
            batch.commit(socket).unwrap();
            let mut count = |set: &str| set_elements(socket, Family::Inet, "test", set).unwrap().len();
            assert_eq!([count("ranges"), count("many")], [0, 1000]);
        });
    }

    #[test]
    fn a_refusal_names_its_message_and_leaves_nothing_behind() {
        isolated(|socket| {
            let mut batch = Batch::new(Family::Inet, "test");
            batch.add_table();
            batch.add_chain(&Chain::regular("here"));
            let load = Expression::Meta { key: MetaKey::Mark, to: Register(0) };
            batch.add_rule("here", std::slice::from_ref(&load));
            batch.add_rule("nowhere", &[load]);
            batch.add_chain(&Chain::regular("later"));
            let refused = batch.commit(socket).unwrap_err();
            assert_eq!(refused.to_string(), "nftables table test: rule in chain nowhere");
            assert!(refused.cause().is_missing());
            assert!(!table_exists(socket, Family::Inet, "test").unwrap());
            delete_table(socket, Family::Inet, "test").unwrap();
        });
    }
}
