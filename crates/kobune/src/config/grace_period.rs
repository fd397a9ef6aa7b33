//! How long a node may be silent, as flags and the configuration file write it.

use std::str::FromStr;
use std::time::Duration;

use env::jiff::SignedDuration;
use serde::Deserialize;

/// A node renews its lease four times in this time, so seconds are the shortest that make sense.
const SHORTEST: Duration = Duration::from_secs(2);
/// No node is missed for longer than a day.
const LONGEST: Duration = Duration::from_secs(24 * 3600);

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct GracePeriod(pub Duration);

impl Default for GracePeriod {
    /// Upstream's.
    fn default() -> Self {
        Self(Duration::from_secs(40))
    }
}

impl FromStr for GracePeriod {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("{text:?} is not a duration from 2s to 24h");
        let duration: SignedDuration = text.parse().map_err(|_| wrong())?;
        let duration = Duration::try_from(duration).map_err(|_| wrong())?;
        if (SHORTEST..=LONGEST).contains(&duration) { Ok(Self(duration)) } else { Err(wrong()) }
    }
}

impl TryFrom<String> for GracePeriod {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grace_periods_are_read() {
        for (text, seconds) in [("40s", 40), ("1m30s", 90), ("2s", 2), ("24h", 86_400)] {
            assert_eq!(text.parse::<GracePeriod>().map(|period| period.0.as_secs()), Ok(seconds), "{text}");
        }
        for wrong in ["", "40", "1s", "-40s", "25h", "soon"] {
            assert!(wrong.parse::<GracePeriod>().is_err(), "{wrong}");
        }
    }
}
