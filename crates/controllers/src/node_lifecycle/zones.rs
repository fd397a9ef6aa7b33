//! How fast lost nodes are given up, by how the rest of their zone does. When most of a zone is silent, the likely
//! reason is the network between it and here and not the nodes, so their pods are better left alone. The states and
//! figures are those of upstream's node controller (`--unhealthy-zone-threshold`, `--large-cluster-size-threshold`,
//! `--node-eviction-rate`, `--secondary-node-eviction-rate`).
//!
//! Two things differ: whoever was given up when the state changes is taken back, as upstream does only when all zones
//! are silent, since nodes are never found to be lost at the same moment; and after a silence of all zones nobody is
//! given up for one more grace period, so that each node has its time to come back.

use std::collections::BTreeMap;
use std::time::Duration;

use k8s_openapi::api::core::v1::Node;
use tokio::time::Instant;

/// From so many unhealthy nodes of a hundred on, and at least [`FEW`], a zone is disrupted.
const THRESHOLD_PERCENT: usize = 55;
const FEW: usize = 3;
/// A disrupted zone with more nodes than this is given up slowly instead of not at all.
const LARGE: usize = 50;
const USUAL: Duration = Duration::from_secs(10);
const SLOW: Duration = Duration::from_secs(100);

/// How often a node of a zone may be given up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pace {
    Stopped,
    Every(Duration),
}

/// Whether a node may be given up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    Now,
    /// Others are before it.
    In(Duration),
    /// Not as long as its zone is as it is.
    Never,
}

/// What is known of the nodes; see the module's documentation.
#[derive(Debug, Default)]
pub struct Zones {
    /// Node → its zone, and whether it is healthy.
    nodes: BTreeMap<String, (String, bool)>,
    zones: BTreeMap<String, Zone>,
    healthy: usize,
    quiet_until: Option<Instant>,
}

#[derive(Debug, Default)]
struct Zone {
    nodes: usize,
    unhealthy: usize,
    /// By what its nodes were judged last.
    told: Option<Pace>,
    /// Who was given up last.
    last: Option<(String, Instant)>,
}

/// `is_dark`: no node of the cluster is healthy.
fn pace(unhealthy: usize, nodes: usize, is_dark: bool) -> Pace {
    // A zone that is gone altogether while others are there has lost its power, not its way to the server.
    let is_disrupted = unhealthy >= FEW && unhealthy < nodes && unhealthy * 100 >= nodes * THRESHOLD_PERCENT;
    match is_disrupted {
        _ if is_dark => Pace::Stopped,
        false => Pace::Every(USUAL),
        true if nodes > LARGE => Pace::Every(SLOW),
        true => Pace::Stopped,
    }
}

/// Region and zone by the node's labels; nodes without them are in one zone together.
pub fn zone_of(node: &Node) -> String {
    let label =
        |name: &str| node.metadata.labels.as_ref().and_then(|all| all.get(name)).map_or("", String::as_str);
    format!("{}/{}", label("topology.kubernetes.io/region"), label("topology.kubernetes.io/zone"))
}

impl Zones {
    /// All nodes as they are when nothing was seen yet: name, zone, whether healthy.
    pub fn of(nodes: impl Iterator<Item = (String, String, bool)>) -> Self {
        let mut zones = Self::default();
        nodes.for_each(|(name, zone, is_healthy)| zones.put(name, zone, is_healthy));
        zones
    }

    /// Takes note of how a node is.
    pub fn hear(&mut self, name: &str, zone: &str, is_healthy: bool, now: Instant, grace: Duration) {
        if self.nodes.get(name).is_some_and(|(old, was)| old == zone && *was == is_healthy) {
            return;
        }
        let was_dark = self.is_dark();
        self.forget(name);
        self.put(name.to_owned(), zone.to_owned(), is_healthy);
        if was_dark && is_healthy {
            self.quiet_until = Some(now + grace);
        }
    }

    pub fn forget(&mut self, name: &str) {
        let Some((zone, is_healthy)) = self.nodes.remove(name) else { return };
        self.healthy -= usize::from(is_healthy);
        let Some(entry) = self.zones.get_mut(&zone) else { return };
        entry.nodes -= 1;
        entry.unhealthy -= usize::from(!is_healthy);
        if entry.nodes == 0 {
            self.zones.remove(&zone);
        }
    }

    /// The unhealthy nodes of zones in which other things hold than when this was asked last.
    pub fn changed(&mut self) -> Vec<String> {
        let is_dark = self.is_dark();
        let mut zones = Vec::new();
        for (name, zone) in &mut self.zones {
            let pace = pace(zone.unhealthy, zone.nodes, is_dark);
            // What nobody was told of yet is as usual.
            if zone.told.replace(pace).unwrap_or(Pace::Every(USUAL)) != pace {
                tracing::info!(
                    zone = name,
                    nodes = zone.nodes,
                    unhealthy = zone.unhealthy,
                    ?pace,
                    "nodes are given up at another pace"
                );
                zones.push(name.clone());
            }
        }
        let concerned = |(zone, is_healthy): &(String, bool)| !is_healthy && zones.contains(zone);
        let nodes = self.nodes.iter().filter(|(_, node)| !zones.is_empty() && concerned(node));
        nodes.map(|(name, _)| name.clone()).collect()
    }

    /// Whether a node that is unhealthy may be given up now; `is_given_up`: whether it was before.
    pub fn judge(&mut self, name: &str, is_given_up: bool, now: Instant) -> Verdict {
        let is_dark = self.is_dark();
        let Some((zone, _)) = self.nodes.get(name) else { return Verdict::Never };
        let Some(zone) = self.zones.get_mut(zone) else { return Verdict::Never };
        let Pace::Every(period) = pace(zone.unhealthy, zone.nodes, is_dark) else { return Verdict::Never };
        if let Some(quiet) = self.quiet_until.filter(|until| *until > now) {
            return Verdict::In(quiet - now);
        }
        if is_given_up {
            return Verdict::Now;
        }
        match &zone.last {
            // The same node again: writing failed.
            Some((last, at)) if *at + period > now && last == name => Verdict::Now,
            Some((_, at)) if *at + period > now => Verdict::In(*at + period - now),
            _ => {
                zone.last = Some((name.to_owned(), now));
                Verdict::Now
            }
        }
    }

    fn put(&mut self, name: String, zone: String, is_healthy: bool) {
        let entry = self.zones.entry(zone.clone()).or_default();
        entry.nodes += 1;
        entry.unhealthy += usize::from(!is_healthy);
        self.healthy += usize::from(is_healthy);
        self.nodes.insert(name, (zone, is_healthy));
    }

    fn is_dark(&self) -> bool {
        self.healthy == 0 && !self.nodes.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GRACE: Duration = Duration::from_secs(40);

    #[test]
    fn the_pace_follows_the_state_of_the_zone() {
        let (usual, slow) = (Pace::Every(USUAL), Pace::Every(SLOW));
        for (unhealthy, nodes, is_dark, wanted) in [
            (0, 1, false, usual),
            (1, 1, true, Pace::Stopped),
            (1, 2, false, usual),
            (2, 2, false, usual),
            (2, 3, false, usual),
            (3, 3, false, usual),
            (2, 4, false, usual),
            (3, 4, false, Pace::Stopped),
            (3, 5, false, Pace::Stopped),
            (4, 5, false, Pace::Stopped),
            (5, 5, false, usual),
            (5, 5, true, Pace::Stopped),
            (3, 6, false, usual),
            (10, 20, false, usual),
            (11, 20, false, Pace::Stopped),
            (27, 50, false, usual),
            (28, 50, false, Pace::Stopped),
            (28, 51, false, usual),
            (29, 51, false, slow),
            (51, 51, false, usual),
            (51, 51, true, Pace::Stopped),
        ] {
            assert_eq!(pace(unhealthy, nodes, is_dark), wanted, "{unhealthy} of {nodes}, {is_dark}");
        }
    }

    /// `a` to `e`; those in capitals are unhealthy; a digit is the zone of those behind it.
    fn zones(text: &str) -> Zones {
        let mut zone = String::new();
        let mut nodes = Vec::new();
        for letter in text.chars() {
            match letter {
                '0'..='9' => zone = letter.to_string(),
                _ => nodes.push((
                    letter.to_ascii_lowercase().to_string(),
                    zone.clone(),
                    letter.is_ascii_lowercase(),
                )),
            }
        }
        Zones::of(nodes.into_iter())
    }

    #[test]
    fn one_node_of_a_zone_at_a_time() {
        let start = Instant::now();
        let after = |seconds| start + Duration::from_secs(seconds);
        let rest = |seconds| Verdict::In(Duration::from_secs(seconds));
        let mut zones = zones("1ABcde2Fgh");
        for (name, is_given_up, at, wanted) in [
            ("a", false, 0, Verdict::Now),
            ("b", false, 0, rest(10)),
            ("a", false, 1, Verdict::Now),
            ("a", true, 4, Verdict::Now),
            ("b", false, 4, rest(6)),
            ("f", false, 4, Verdict::Now),
            ("b", true, 4, Verdict::Now),
            ("b", false, 10, Verdict::Now),
            ("a", false, 11, rest(9)),
            ("x", false, 30, Verdict::Never),
        ] {
            assert_eq!(zones.judge(name, is_given_up, after(at)), wanted, "{name} at {at}");
        }
    }

    #[test]
    fn a_disrupted_zone_is_left_alone_until_enough_return() {
        let now = Instant::now();
        for (text, node, wanted) in [
            ("ABcd", "a", Verdict::Now),
            ("ABCde", "a", Verdict::Never),
            ("ABCDe", "a", Verdict::Never),
            ("ABCDE", "a", Verdict::Never),
            ("A", "a", Verdict::Never),
            ("Ab", "a", Verdict::Now),
            ("1ABC2de", "a", Verdict::Now),
            ("1ABC2DE", "a", Verdict::Never),
            ("1ABCd2Ef", "e", Verdict::Now),
            ("1ABCd2Ef", "a", Verdict::Never),
        ] {
            for is_given_up in [false, true] {
                assert_eq!(zones(text).judge(node, is_given_up, now), wanted, "{text} {node}");
            }
        }
    }

    #[test]
    fn who_is_concerned_is_told_once() {
        let now = Instant::now();
        let mut zones = zones("1ABcde2Fg");
        assert_eq!(zones.changed(), [""; 0]);
        zones.hear("c", "1", false, now, GRACE);
        assert_eq!(zones.changed(), ["a", "b", "c"]);
        assert_eq!(zones.changed(), [""; 0]);
        zones.hear("c", "1", true, now, GRACE);
        assert_eq!(zones.changed(), ["a", "b"]);
        zones.forget("e");
        zones.hear("c", "1", false, now, GRACE);
        assert_eq!(zones.changed(), ["a", "b", "c"]);
        // The last healthy one of its zone goes, and a node moves to another one.
        zones.forget("d");
        assert_eq!(zones.changed(), ["a", "b", "c"]);
        zones.hear("g", "1", true, now, GRACE);
        assert_eq!(zones.changed(), ["a", "b", "c"]);
        zones.hear("g", "1", false, now, GRACE);
        assert_eq!(zones.changed(), ["f"], "in its zone nothing held before");
    }

    #[test]
    fn after_a_silence_of_all_each_has_its_time() {
        let start = Instant::now();
        let after = |seconds| start + Duration::from_secs(seconds);
        let mut zones = zones("AB");
        zones.hear("b", "", true, start, GRACE);
        assert_eq!(zones.judge("a", false, after(1)), Verdict::In(Duration::from_secs(39)));
        assert_eq!(zones.judge("a", true, after(1)), Verdict::In(Duration::from_secs(39)));
        assert_eq!(zones.judge("a", false, after(40)), Verdict::Now);
    }
}
