//! What happens in a world: drawn from its randomness before it begins.

use std::time::Duration;

use env::Env;

/// Something that goes wrong, or that somebody does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// A node's link is cut, and mended.
    Cut(usize),
    Mend(usize),
    /// What a node sends is late.
    Slow(usize, Duration),
    /// A node is cut off and taken out of the cluster; [`Fault::Mend`] brings it back.
    Vanish(usize),
    /// The server, its controllers and the scheduler stop, and start again on the same store.
    ServerDown,
    ServerUp,
    /// A workload is asked for more or fewer pods.
    Scale(usize, u32),
    /// A workload gets another template.
    RollOut(usize),
    /// One of the pods is deleted.
    DeletePod(usize),
}

/// A fault and when it happens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    pub at: Duration,
    pub fault: Fault,
}

/// A world's nodes and events.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Story {
    pub nodes: usize,
    pub zones: usize,
    /// What the first workload asks for.
    pub replicas: u32,
    /// By how many seconds the nodes' clocks are ahead of the server's.
    pub clocks: Vec<i64>,
    pub events: Vec<Event>,
}

/// How many workloads there are to be scaled and rolled out.
pub const WORKLOADS: usize = 2;

struct Dice<'a>(&'a Env);

impl Dice<'_> {
    fn below(&self, most: usize) -> usize {
        usize::try_from(self.0.random_u64() % most.max(1) as u64).unwrap_or(0)
    }

    fn seconds(&self, from: u64, to: u64) -> Duration {
        Duration::from_secs(from) + Duration::from_millis(self.0.random_u64() % ((to - from) * 1000))
    }
}

impl Story {
    /// Draws a story.
    pub fn of(env: &Env) -> Self {
        let dice = Dice(env);
        let nodes = 4 + dice.below(5);
        let mut events = Vec::new();
        for _ in 0..3 + dice.below(5) {
            let at = dice.seconds(10, 300);
            trouble(&dice, nodes, at, &mut events);
        }
        // Equal times keep the order in which they were drawn.
        events.sort_by_key(|event| event.at);
        let replicas = u32::try_from(3 + dice.below(nodes * 2)).unwrap_or(3);
        let zones = dice.below(4);
        // Most are in time, some an hour off.
        let clocks = (0..nodes).map(|_| [0, 0, 0, 3600, -3600][dice.below(5)]).collect();
        Self { nodes, zones, replicas, clocks, events }
    }
}

fn trouble(dice: &Dice<'_>, nodes: usize, at: Duration, events: &mut Vec<Event>) {
    let mut add = |at: Duration, fault: Fault| events.push(Event { at, fault });
    let node = dice.below(nodes);
    match dice.below(10) {
        0 | 1 => {
            // Short ones go unnoticed, long ones have the pods evicted.
            add(at, Fault::Cut(node));
            add(at + dice.seconds(5, 500), Fault::Mend(node));
        }
        2 => {
            add(at, Fault::Vanish(node));
            add(at + dice.seconds(5, 100), Fault::Mend(node));
        }
        3 => {
            let mut at = at;
            for _ in 0..3 + dice.below(4) {
                add(at, Fault::Cut(node));
                add(at + dice.seconds(2, 60), Fault::Mend(node));
                at += dice.seconds(61, 90);
            }
        }
        4 => {
            add(at, Fault::Slow(node, dice.seconds(1, 50)));
            add(at + dice.seconds(60, 200), Fault::Mend(node));
        }
        5 => {
            let until = at + dice.seconds(50, 400);
            for node in 0..nodes.div_ceil(2) {
                add(at, Fault::Cut(node));
                add(until, Fault::Mend(node));
            }
        }
        6 => {
            add(at, Fault::ServerDown);
            add(at + dice.seconds(1, 120), Fault::ServerUp);
        }
        7 => add(
            at,
            Fault::Scale(dice.below(WORKLOADS), 1 + u32::try_from(dice.below(nodes * 2)).unwrap_or(1)),
        ),
        8 => add(at, Fault::RollOut(dice.below(WORKLOADS))),
        _ => add(at, Fault::DeletePod(dice.below(100))),
    }
}
