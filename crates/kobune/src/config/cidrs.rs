//! Address ranges as flags and the configuration file write them: one per address family, with a comma between.

use std::str::FromStr;

use ipnet::IpNet;
use serde::Deserialize;

/// One or two ranges, of different families; the first is the primary one.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct Cidrs(pub Vec<IpNet>);

impl FromStr for Cidrs {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let parse = |part: &str| {
            let range: IpNet =
                part.trim().parse().map_err(|_| format!("{part:?} is not an address range"))?;
            Ok::<_, String>(range.trunc())
        };
        let ranges = text.split(',').map(parse).collect::<Result<Vec<_>, _>>()?;
        match ranges.as_slice() {
            [_] => Ok(Self(ranges)),
            [a, b] if a.addr().is_ipv4() != b.addr().is_ipv4() => Ok(Self(ranges)),
            _ => Err(format!("{text:?}: give one range, or one of IPv4 and one of IPv6")),
        }
    }
}

impl TryFrom<String> for Cidrs {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_range_per_family() {
        let parse = |text: &str| text.parse::<Cidrs>().map(|cidrs| cidrs.0.len());
        assert_eq!(parse("10.42.0.0/16"), Ok(1));
        assert_eq!(parse("10.42.0.0/16,fd00::/48"), Ok(2));
        for wrong in ["", "10.42.0.0", "10.1.0.0/16,10.2.0.0/16", "10.1.0.0/16,fd00::/48,fd01::/48"] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
    }
}
