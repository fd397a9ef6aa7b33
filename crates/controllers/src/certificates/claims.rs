//! Names that nodes to come have been given, so that two machines that ask for one name at the same moment do not both
//! become that node. A node that is ready defends its name itself; until then its first key does, for a while.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

/// A machine that was given a name has so long to become ready under it before the name can go to another one.
const WINDOW: Duration = Duration::from_secs(60);

/// Node → the public key that has its name, and since when.
#[derive(Debug, Default)]
pub struct Claims(BTreeMap<String, (Vec<u8>, Timestamp)>);

impl Claims {
    /// Gives the name to a key; false when another one has it.
    pub fn claim(&mut self, name: &str, key: &[u8], now: Timestamp) -> bool {
        let window = SignedDuration::try_from(WINDOW).unwrap_or(SignedDuration::MAX);
        self.0.retain(|_, (_, since)| now.duration_since(*since).abs() < window);
        let (holder, _) = self.0.entry(name.to_owned()).or_insert_with(|| (key.to_owned(), now));
        holder == key
    }

    /// The node is there: its name needs no guard any more.
    pub fn settle(&mut self, name: &str) {
        self.0.remove(name);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_key_has_the_name_for_a_while() {
        let mut claims = Claims::default();
        for (second, name, key, wanted) in [
            (0, "n", b"a", true),
            (0, "n", b"b", false),
            (0, "m", b"b", true),
            (5, "n", b"a", true),
            (59, "n", b"b", false),
            (60, "n", b"b", true),
            (61, "n", b"a", false),
            // A clock that was set back makes nobody wait for ever.
            (-3600, "n", b"a", true),
        ] {
            let now = Timestamp::from_second(1_000_000 + second).unwrap();
            assert_eq!(claims.claim(name, key, now), wanted, "{name} at {second}");
        }
        let now = Timestamp::from_second(1_000_000).unwrap();
        let mut claims = Claims::default();
        assert!(claims.claim("n", b"a", now));
        claims.settle("n");
        assert!(claims.claim("n", b"b", now), "the node was there and is gone");
    }
}
