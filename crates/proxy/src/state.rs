//! What everybody asks for, and what changes when somebody asks for something else.
//!
//! Two Services may claim one external address and port. The one whose name comes first has it; the other gets it
//! when the first one goes.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};

use machinery::Key;

use crate::compile::{Entry, Frontend, Protocol};

/// Who asks.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Owner {
    Service(Key),
    Pod(Key),
}

/// What only one owner can have: all entries of a site are of the same owner.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Site {
    Frontend(Frontend),
    Local(IpAddr),
}

fn site(entry: &Entry) -> Site {
    match entry {
        Entry::Frontend { at, .. }
        | Entry::Endpoint { at, .. }
        | Entry::Member { at, .. }
        | Entry::Refused { at, .. }
        | Entry::Guarded { at }
        | Entry::Allowed { at, .. } => Site::Frontend(*at),
        Entry::Local { pod } => Site::Local(*pod),
    }
}

/// Whether two entries have the same key in the same map, so that both cannot be. Such are side by side in order.
fn same_key(one: &Entry, other: &Entry) -> bool {
    match (one, other) {
        (Entry::Frontend { at: one, .. }, Entry::Frontend { at: other, .. })
        | (Entry::Refused { at: one, .. }, Entry::Refused { at: other, .. }) => one == other,
        (Entry::Endpoint { at: one, index: first, .. }, Entry::Endpoint { at: other, index: second, .. }) => {
            (one, first) == (other, second)
        }
        _ => one == other,
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

    /// Leaves out what several updates added and took away again: the packet filter never had it, or still has it.
    pub fn settle(&mut self) {
        let removed = std::mem::take(&mut self.remove);
        let mut removed: BTreeMap<Entry, usize> =
            removed.into_iter().fold(BTreeMap::new(), |mut all, entry| {
                *all.entry(entry).or_default() += 1;
                all
            });
        self.add.retain(|entry| match removed.get_mut(entry) {
            Some(count) if *count > 0 => {
                *count -= 1;
                false
            }
            _ => true,
        });
        self.remove = removed.into_iter().filter(|(_, count)| *count > 0).map(|(entry, _)| entry).collect();
    }

    /// Adds what is in only one of two states of the same sites.
    fn differ(&mut self, mut before: Vec<Entry>, mut after: Vec<Entry>) {
        before.sort_unstable();
        after.sort_unstable();
        let gone = before.iter().filter(|entry| after.binary_search(entry).is_err());
        self.remove.extend(gone);
        let new = after.iter().filter(|entry| before.binary_search(entry).is_err());
        self.add.extend(new);
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
    /// In order, and each once.
    owned: BTreeMap<Owner, Box<[Entry]>>,
    /// Who has a site. Ten thousand Services have as many, and next to none is contested.
    holders: BTreeMap<Site, Owner>,
    /// Who else would like to have it.
    waiting: BTreeMap<Site, BTreeSet<Owner>>,
}

impl State {
    /// Replaces what `owner` asks for, and adds to `changes` what that makes different.
    pub fn update(&mut self, owner: &Owner, entries: BTreeSet<Entry>, changes: &mut Changes) {
        let mut new: Vec<Entry> = entries.into_iter().collect();
        // An address that is named twice, say as the Service's and as an external one.
        new.dedup_by(|second, first| same_key(first, second));
        let new = new.into_boxed_slice();
        let old = self.owned.get(owner).cloned().unwrap_or_default();
        if new == old {
            return;
        }
        let sites: BTreeSet<Site> = old.iter().chain(&new).map(site).collect();
        // What the sites hold before and after; those that stay another's change nothing.
        let mut before: Vec<Entry> = Vec::new();
        let mut after: Vec<Entry> = Vec::new();
        for at in &sites {
            let holder = self.holders.get(at);
            if holder != Some(owner) {
                before.extend(holder.into_iter().flat_map(|holder| self.at(holder, *at)));
            }
        }
        let held = |state: &Self, entry: &Entry| state.holders.get(&site(entry)) == Some(owner);
        before.extend(old.iter().filter(|entry| held(self, entry)));
        let wanted: BTreeSet<Site> = new.iter().map(site).collect();
        sites.iter().for_each(|at| self.claim(owner, *at, wanted.contains(at)));
        after.extend(new.iter().filter(|entry| held(self, entry)));
        match new.is_empty() {
            true => self.owned.remove(owner),
            false => self.owned.insert(owner.clone(), new),
        };
        for at in &sites {
            let holder = self.holders.get(at).filter(|holder| *holder != owner);
            after.extend(holder.into_iter().flat_map(|holder| self.at(holder, *at)));
        }
        changes.differ(before, after);
    }

    /// The entries of one owner at one site.
    fn at(&self, owner: &Owner, at: Site) -> impl Iterator<Item = Entry> {
        let entries = self.owned.get(owner).into_iter().flatten();
        entries.filter(move |entry| site(entry) == at).copied()
    }

    /// Enters or takes back a claim; the first owner of those who claim a site has it.
    fn claim(&mut self, owner: &Owner, at: Site, claims: bool) {
        let mut all = self.waiting.remove(&at).unwrap_or_default();
        all.extend(self.holders.remove(&at));
        match claims {
            true => all.insert(owner.clone()),
            false => all.remove(owner),
        };
        if let Some(first) = all.pop_first() {
            self.holders.insert(at, first);
        }
        if !all.is_empty() {
            self.waiting.insert(at, all);
        }
    }

    /// All entries that count.
    pub fn entries(&self) -> Vec<Entry> {
        let all =
            self.owned.iter().flat_map(|(owner, entries)| entries.iter().map(move |entry| (owner, entry)));
        all.filter(|(owner, entry)| self.holders.get(&site(entry)) == Some(owner))
            .map(|(_, entry)| *entry)
            .collect()
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
    fn an_address_that_is_named_twice_is_one_key() {
        let at = Frontend {
            scope: Scope::Address,
            address: "10.96.0.1".parse().unwrap(),
            protocol: Protocol::Tcp,
            port: 53,
        };
        let to = |count| Entry::Frontend { at, to: Dispatch::Spread { count, affinity_seconds: 0 } };
        let endpoint = |index, to: &str| Entry::Endpoint { at, index, endpoint: to.parse().unwrap() };
        let twice = [
            to(1),
            to(2),
            endpoint(0, "10.42.0.3:1"),
            endpoint(0, "10.42.0.2:1"),
            endpoint(1, "10.42.0.3:1"),
        ];
        let mut changes = Changes::default();
        State::default().update(&owner("a"), twice.into(), &mut changes);
        assert_eq!(changes.add, [to(1), endpoint(0, "10.42.0.2:1"), endpoint(1, "10.42.0.3:1")]);
    }

    #[test]
    fn a_contested_frontend_is_one_owners_altogether() {
        let at = |to: &str| entries("10.96.0.1", Protocol::Tcp, &[to]);
        let two = entries("10.96.0.1", Protocol::Tcp, &["10.42.0.8:1", "10.42.0.9:1"]);
        let mut state = State::default();
        let mut changes = Changes::default();
        for (name, wanted) in [("b", two), ("a", at("10.42.0.3:1")), ("c", at("10.42.0.4:1"))] {
            state.update(&owner(name), wanted, &mut changes);
        }
        assert_eq!(
            state.entries(),
            Vec::from_iter(at("10.42.0.3:1")),
            "nothing of b's second endpoint is left"
        );
        assert_eq!((changes.remove.len(), changes.add.len()), (3, 5));
        changes.settle();
        let nothing_else = Changes { remove: Vec::new(), add: Vec::from_iter(at("10.42.0.3:1")) };
        assert_eq!(changes, nothing_else, "b's never were in the packet filter");
        state.update(&owner("a"), BTreeSet::new(), &mut Changes::default());
        state.update(&owner("b"), BTreeSet::new(), &mut Changes::default());
        assert_eq!(state.entries(), Vec::from_iter(at("10.42.0.4:1")));
        state.update(&owner("c"), BTreeSet::new(), &mut Changes::default());
        assert!(state.holders.is_empty() && state.waiting.is_empty() && state.owned.is_empty());
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
