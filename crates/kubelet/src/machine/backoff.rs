//! Back-off as upstream counts it: the first retry is free, then 10 s, doubled to 5 min, forgotten after 10 min.

use std::time::Duration;

use jiff::Timestamp;

use super::time::after;

/// The delay before the second retry.
pub const INITIAL: Duration = Duration::from_secs(10);
/// No delay is longer.
pub const MAX: Duration = Duration::from_secs(300);

/// How long to wait before something that failed is tried again.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct BackOff {
    delay: Duration,
    updated: Option<Timestamp>,
}

impl BackOff {
    /// When what failed at `failed_at` may be tried again; `None`: at once.
    pub fn ready_at(&self, failed_at: Timestamp) -> Option<Timestamp> {
        if self.expired(failed_at) { None } else { Some(after(failed_at, self.delay)) }
    }

    /// Counts a try made at `now` after the failure at `failed_at`.
    pub fn advance(&mut self, failed_at: Timestamp, now: Timestamp) {
        self.delay = if self.expired(failed_at) { INITIAL } else { (self.delay * 2).min(MAX) };
        self.updated = Some(now);
    }

    /// The present delay.
    pub fn delay(&self) -> Duration {
        self.delay
    }

    fn expired(&self, at: Timestamp) -> bool {
        self.updated.is_none_or(|updated| at > after(updated, MAX * 2))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn doubles_to_five_minutes_and_resets_after_ten_quiet_minutes() {
        let mut now = Timestamp::UNIX_EPOCH;
        let mut back_off = BackOff::default();
        let mut delays = Vec::new();
        for _ in 0..8 {
            let at = back_off.ready_at(now).unwrap_or(now);
            delays.push(at.duration_since(now).as_secs());
            back_off.advance(now, at);
            now = at;
        }
        assert_eq!(delays, [0, 10, 20, 40, 80, 160, 300, 300]);
        let late = after(now, Duration::from_secs(601));
        assert_eq!(back_off.ready_at(late), None);
        back_off.advance(late, late);
        assert_eq!(back_off.delay(), INITIAL);
    }
}
