//! What everybody asks for, and what changes when somebody asks for something else.
//!
//! Two Services may claim one external address and port. The one whose name comes first has it; the other gets it
//! when the first one goes.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};

use ipnet::IpNet;
use machinery::Key;

use crate::compile::{Entry, Frontend, Protocol};

/// Who asks.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Owner {
    Service(Key),
    Pod(Key),
}

/// The key of an entry: two entries of one slot cannot both be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Slot {
    Frontend(Frontend),
    Endpoint(Frontend, u32),
    Member(Frontend, SocketAddr),
    Refused(Frontend),
    Local(IpAddr),
    Guarded(Frontend),
    Allowed(Frontend, IpNet),
}

fn slot(entry: &Entry) -> Slot {
    match entry {
        Entry::Frontend { at, .. } => Slot::Frontend(*at),
        Entry::Endpoint { at, index, .. } => Slot::Endpoint(*at, *index),
        Entry::Member { at, endpoint } => Slot::Member(*at, *endpoint),
        Entry::Refused { at, .. } => Slot::Refused(*at),
        Entry::Local { pod } => Slot::Local(*pod),
        Entry::Guarded { at } => Slot::Guarded(*at),
        Entry::Allowed { at, clients } => Slot::Allowed(*at, *clients),
    }
}

/// A difference: removals come first.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Changes {
    pub remove: Vec<Entry>,
    pub add: Vec<Entry>,
}

impl Changes {
    pub fn is_empty(&self) -> bool {
        self.remove.is_empty() && self.add.is_empty()
    }

    /// Flows of UDP that go to an endpoint which is gone, or past a frontend that was not there: they would never
    /// notice by themselves.
    pub fn stale_flows(&self) -> BTreeSet<StaleFlow> {
        let pairs = |entries: &[Entry]| -> BTreeSet<(Frontend, SocketAddr)> {
            let udp = entries.iter().filter_map(|entry| match entry {
                Entry::Endpoint { at, endpoint, .. } if at.protocol == Protocol::Udp => {
                    Some((*at, *endpoint))
                }
                _ => None,
            });
            udp.collect()
        };
        let frontends = |entries: &[Entry]| -> BTreeSet<Frontend> {
            let udp = entries.iter().filter_map(|entry| match entry {
                Entry::Frontend { at, .. } if at.protocol == Protocol::Udp => Some(*at),
                _ => None,
            });
            udp.collect()
        };
        let gone = &pairs(&self.remove) - &pairs(&self.add);
        let new = &frontends(&self.add) - &frontends(&self.remove);
        let gone = gone.into_iter().map(|(at, endpoint)| StaleFlow { at, endpoint: Some(endpoint) });
        gone.chain(new.into_iter().map(|at| StaleFlow { at, endpoint: None })).collect()
    }
}

/// Connections to forget.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct StaleFlow {
    pub at: Frontend,
    /// Those that went to this endpoint; `None` for those that were not translated.
    pub endpoint: Option<SocketAddr>,
}

/// Everybody's entries.
#[derive(Debug, Default)]
pub(crate) struct State {
    owned: BTreeMap<Owner, BTreeSet<Entry>>,
    claims: BTreeMap<Slot, BTreeMap<Owner, Entry>>,
}

impl State {
    /// Replaces what `owner` asks for, and adds to `changes` what that makes different.
    pub fn update(&mut self, owner: &Owner, entries: BTreeSet<Entry>, changes: &mut Changes) {
        let old = self.owned.remove(owner).unwrap_or_default();
        let slots: BTreeSet<Slot> = old.symmetric_difference(&entries).map(slot).collect();
        let wanted: BTreeMap<Slot, Entry> = entries.iter().map(|entry| (slot(entry), *entry)).collect();
        for slot in slots {
            let claims = self.claims.entry(slot).or_default();
            let before = claims.values().next().copied();
            match wanted.get(&slot) {
                Some(entry) => claims.insert(owner.clone(), *entry),
                None => claims.remove(owner),
            };
            let after = claims.values().next().copied();
            if claims.is_empty() {
                self.claims.remove(&slot);
            }
            if before != after {
                changes.remove.extend(before);
                changes.add.extend(after);
            }
        }
        if !entries.is_empty() {
            self.owned.insert(owner.clone(), entries);
        }
    }

    /// All entries that count.
    pub fn entries(&self) -> Vec<Entry> {
        self.claims.values().filter_map(|claims| claims.values().next()).copied().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compile::{Dispatch, Scope};
    use expect_test::{Expect, expect};

    fn entries(address: &str, protocol: Protocol, endpoints: &[&str]) -> BTreeSet<Entry> {
        let at = Frontend { scope: Scope::Address, address: address.parse().unwrap(), protocol, port: 53 };
        let to = Dispatch::Spread { count: endpoints.len() as u32, affinity_seconds: 0 };
        let numbered = (0..).zip(endpoints);
        let endpoints =
            numbered.map(|(index, e)| Entry::Endpoint { at, index, endpoint: e.parse().unwrap() });
        endpoints.chain((!endpoints_is_empty(to)).then_some(Entry::Frontend { at, to })).collect()
    }

    fn endpoints_is_empty(to: Dispatch) -> bool {
        to == Dispatch::Spread { count: 0, affinity_seconds: 0 }
    }

    fn owner(name: &str) -> Owner {
        Owner::Service(Key::new("d", name))
    }

    fn check(steps: &[(&str, BTreeSet<Entry>)], expected: Expect) {
        let mut state = State::default();
        let mut text = String::new();
        for (name, entries) in steps {
            let mut changes = Changes::default();
            state.update(&owner(name), entries.clone(), &mut changes);
            text += &format!("{name}:\n");
            changes.remove.iter().for_each(|entry| text += &format!("  - {entry}\n"));
            changes.add.iter().for_each(|entry| text += &format!("  + {entry}\n"));
            changes
                .stale_flows()
                .iter()
                .for_each(|flow| text += &format!("  stale {} {:?}\n", flow.at, flow.endpoint));
        }
        expected.assert_eq(&text);
    }

    #[test]
    fn only_differences_are_changes() {
        let two = entries("10.96.0.1", Protocol::Tcp, &["10.42.0.2:53", "10.42.0.3:53"]);
        let three = entries("10.96.0.1", Protocol::Tcp, &["10.42.0.2:53", "10.42.0.3:53", "10.42.0.4:53"]);
        check(
            &[("a", two.clone()), ("a", two), ("a", three)],
            expect![[r#"
            a:
              + Address 10.96.0.1:53 Tcp: one of 2
              + Address 10.96.0.1:53 Tcp #0: 10.42.0.2:53
              + Address 10.96.0.1:53 Tcp #1: 10.42.0.3:53
            a:
            a:
              - Address 10.96.0.1:53 Tcp: one of 2
              + Address 10.96.0.1:53 Tcp: one of 3
              + Address 10.96.0.1:53 Tcp #2: 10.42.0.4:53
        "#]],
        );
    }

    #[test]
    fn the_first_claim_counts_and_the_next_one_follows() {
        let claim = |endpoint: &str| entries("10.96.0.1", Protocol::Tcp, &[endpoint]);
        check(
            &[
                ("b", claim("10.42.0.2:1")),
                ("a", claim("10.42.0.3:1")),
                ("b", BTreeSet::new()),
                ("a", BTreeSet::new()),
            ],
            expect![[r#"
                b:
                  + Address 10.96.0.1:53 Tcp: one of 1
                  + Address 10.96.0.1:53 Tcp #0: 10.42.0.2:1
                a:
                  - Address 10.96.0.1:53 Tcp #0: 10.42.0.2:1
                  + Address 10.96.0.1:53 Tcp #0: 10.42.0.3:1
                b:
                a:
                  - Address 10.96.0.1:53 Tcp: one of 1
                  - Address 10.96.0.1:53 Tcp #0: 10.42.0.3:1
            "#]],
        );
    }

    #[test]
    fn udp_flows_to_endpoints_that_are_gone_are_stale() {
        let udp = |endpoints: &[&str]| entries("10.96.0.1", Protocol::Udp, endpoints);
        check(
            &[("a", udp(&["10.42.0.2:1", "10.42.0.3:1"])), ("a", udp(&["10.42.0.3:1"])), ("a", udp(&[]))],
            expect![[r#"
            a:
              + Address 10.96.0.1:53 Udp: one of 2
              + Address 10.96.0.1:53 Udp #0: 10.42.0.2:1
              + Address 10.96.0.1:53 Udp #1: 10.42.0.3:1
              stale Address 10.96.0.1:53 Udp None
            a:
              - Address 10.96.0.1:53 Udp: one of 2
              - Address 10.96.0.1:53 Udp #0: 10.42.0.2:1
              - Address 10.96.0.1:53 Udp #1: 10.42.0.3:1
              + Address 10.96.0.1:53 Udp: one of 1
              + Address 10.96.0.1:53 Udp #0: 10.42.0.3:1
              stale Address 10.96.0.1:53 Udp Some(10.42.0.2:1)
            a:
              - Address 10.96.0.1:53 Udp: one of 1
              - Address 10.96.0.1:53 Udp #0: 10.42.0.3:1
              stale Address 10.96.0.1:53 Udp Some(10.42.0.3:1)
        "#]],
        );
    }
}
