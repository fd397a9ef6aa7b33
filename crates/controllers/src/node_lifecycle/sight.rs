//! What the controller itself has seen of a node, by its own clock. A node's clock may be hours off: the times that it
//! writes are compared with one another, to see that it has said something new, and never with the time here.

use std::time::Duration;

use jiff::Timestamp;
use tokio::time::Instant;

/// The times that a node last wrote, or that were written of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Said {
    pub created: Option<Timestamp>,
    /// Of its lease.
    pub renewed: Option<Timestamp>,
    /// The heartbeat of its condition `Ready`.
    pub reported: Option<Timestamp>,
}

/// See the module's documentation.
#[derive(Clone, Copy, Debug)]
pub struct Sight {
    said: Said,
    /// When that was new.
    at: Instant,
    was_ready: bool,
    /// Whether pods that were ready when the node was lost may not have been told so yet.
    owes: bool,
}

impl Sight {
    /// The first look: whatever the node says is new, and it counts as ready until now.
    pub fn first(said: Said, now: Instant) -> Self {
        Self { said, at: now, was_ready: true, owes: false }
    }

    /// Takes note of what the node says now; for how long it has said nothing new.
    pub fn hear(&mut self, said: Said, now: Instant) -> Duration {
        if self.said != said {
            (self.said, self.at) = (said, now);
        }
        now.saturating_duration_since(self.at)
    }

    /// Takes note of whether the node is ready, and of whether pods on it say that they are; whether those are to be
    /// contradicted. That is so once after each loss of the node, until none says so: what a kubelet says that came
    /// back before its node is ready again stands.
    pub fn contradicts(&mut self, is_ready: bool, has_ready_pods: bool) -> bool {
        self.owes = !is_ready && has_ready_pods && (self.was_ready || self.owes);
        self.was_ready = is_ready;
        self.owes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Said {
        Said { renewed: Some(Timestamp::from_second(second).unwrap()), ..Said::default() }
    }

    #[test]
    fn silence_is_counted_here_whatever_the_node_s_clock_says() {
        let start = Instant::now();
        let after = |seconds| start + Duration::from_secs(seconds);
        // In time, an hour ahead, an hour behind, and a clock that is set back and forth.
        for clock in [[0, 10, 20], [3600, 3610, 3620], [-3600, -3590, -3580], [0, 3600, -3600]] {
            let mut sight = Sight::first(at(clock[0]), start);
            assert_eq!(sight.hear(at(clock[0]), after(9)).as_secs(), 9);
            assert_eq!(sight.hear(at(clock[1]), after(10)).as_secs(), 0);
            assert_eq!(sight.hear(at(clock[2]), after(20)).as_secs(), 0);
            assert_eq!(sight.hear(at(clock[2]), after(59)).as_secs(), 39);
            assert_eq!(sight.hear(at(clock[2]), after(60)).as_secs(), 40);
        }
    }

    #[test]
    fn pods_are_contradicted_once_per_loss() {
        let mut sight = Sight::first(Said::default(), Instant::now());
        for (step, is_ready, has_ready_pods, wanted) in [
            ("a healthy node", true, true, false),
            ("it is lost", false, true, true),
            ("writing failed, so again", false, true, true),
            ("it worked", false, false, false),
            ("its kubelet is back before it is ready", false, true, false),
            ("it is ready", true, true, false),
            ("it is lost again", false, true, true),
            ("it is back before that was written", true, true, false),
            ("lost without ready pods", false, false, false),
            ("a pod says that it is ready", false, true, false),
        ] {
            assert_eq!(sight.contradicts(is_ready, has_ready_pods), wanted, "{step}");
        }
        let mut first = Sight::first(Said::default(), Instant::now());
        assert!(first.contradicts(false, true), "a node that was lost while nobody looked");
    }
}
