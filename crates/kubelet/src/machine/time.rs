//! Arithmetic on timestamps that cannot fail.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

/// `at + by`, at most the end of time.
pub fn after(at: Timestamp, by: Duration) -> Timestamp {
    let by = SignedDuration::try_from(by).unwrap_or(SignedDuration::MAX);
    at.checked_add(by).unwrap_or(Timestamp::MAX)
}

/// The time from `from` to `to`, zero if that is negative.
pub fn between(from: Timestamp, to: Timestamp) -> Duration {
    Duration::try_from(to.duration_since(from)).unwrap_or(Duration::ZERO)
}

/// A duration as Go prints whole seconds: `10s`, `1m20s`, `5m0s`.
pub fn go_seconds(duration: Duration) -> String {
    let seconds = duration.as_secs();
    match (seconds / 3600, seconds / 60 % 60, seconds % 60) {
        (0, 0, s) => format!("{s}s"),
        (0, m, s) => format!("{m}m{s}s"),
        (h, m, s) => format!("{h}h{m}m{s}s"),
    }
}

/// A duration as Go prints it when rounded to milliseconds: `85ms`, `1.5s`, `1m2.25s`.
pub fn go_millis(duration: Duration) -> String {
    let millis = duration.as_millis() as u64;
    if millis == 0 {
        return "0s".to_owned();
    }
    if millis < 1000 {
        return format!("{millis}ms");
    }
    let minutes = millis / 60_000;
    let rest = (millis % 60_000) as f64 / 1000.0;
    if minutes == 0 { format!("{rest}s") } else { format!("{minutes}m{rest}s") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn go_durations() {
        let texts = [0, 10, 80, 300, 3601].map(|s| go_seconds(Duration::from_secs(s)));
        assert_eq!(texts, ["0s", "10s", "1m20s", "5m0s", "1h0m1s"]);
        let texts = [0, 85, 1500, 62_250].map(|ms| go_millis(Duration::from_millis(ms)));
        assert_eq!(texts, ["0s", "85ms", "1.5s", "1m2.25s"]);
    }
}
