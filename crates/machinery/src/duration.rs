//! Durations as Go writes them: `1h2m3.5s`, `250ms`.

const SECOND: i64 = 1_000_000_000;
/// The longer names first, so that `ms` is not read as minutes.
const UNITS: [(&str, i64); 7] = [
    ("ns", 1),
    ("us", 1000),
    ("µs", 1000),
    ("ms", 1_000_000),
    ("s", SECOND),
    ("m", 60 * SECOND),
    ("h", 3600 * SECOND),
];

/// Nanoseconds of a text.
pub fn parse(text: &str) -> Option<i64> {
    let (sign, mut rest) = text.strip_prefix('-').map_or((1, text), |rest| (-1, rest));
    if rest == "0" {
        return Some(0);
    }
    let mut total = 0i64;
    let mut parts = 0;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let (number, after) = rest.split_at(digits);
        let (unit, scale) = UNITS.iter().find(|(unit, _)| after.starts_with(unit))?;
        total = total.checked_add(scaled(number, *scale)?)?;
        rest = &after[unit.len()..];
        parts += 1;
    }
    (parts > 0).then_some(sign * total)
}

/// A decimal number of units.
fn scaled(number: &str, scale: i64) -> Option<i64> {
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    let mut total = whole.parse::<i64>().ok()?.checked_mul(scale)?;
    let mut place = scale;
    for digit in fraction.chars() {
        place /= 10;
        total = total.checked_add(i64::from(digit.to_digit(10)?) * place)?;
    }
    Some(total)
}

/// The text of nanoseconds.
pub fn format(nanoseconds: i64) -> String {
    let (sign, left) = (if nanoseconds < 0 { "-" } else { "" }, nanoseconds.unsigned_abs());
    let second = SECOND.unsigned_abs();
    let small = [(1_000_000, "ms"), (1000, "µs"), (1, "ns")];
    if left == 0 {
        return "0s".to_owned();
    }
    if left < second {
        let (scale, unit) = small.into_iter().find(|(scale, _)| left >= *scale).unwrap_or((1, "ns"));
        return format!("{sign}{}{unit}", decimal(left, scale));
    }
    let (hours, minutes) = (left / (3600 * second), left / (60 * second) % 60);
    let seconds = decimal(left % (60 * second), second);
    match (hours, minutes) {
        (0, 0) => format!("{sign}{seconds}s"),
        (0, minutes) => format!("{sign}{minutes}m{seconds}s"),
        (hours, minutes) => format!("{sign}{hours}h{minutes}m{seconds}s"),
    }
}

fn decimal(number: u64, scale: u64) -> String {
    let width = scale.ilog10() as usize;
    let fraction = format!("{:0width$}", number % scale);
    let fraction = if width == 0 { "" } else { fraction.trim_end_matches('0') };
    let point = if fraction.is_empty() { "" } else { "." };
    format!("{}{point}{fraction}", number / scale)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_gos() {
        for (text, nanoseconds) in [
            ("0s", 0),
            ("15s", 15 * SECOND),
            ("14.997s", 14_997_000_000),
            ("1m0s", 60 * SECOND),
            ("1h0m0.5s", 3600 * SECOND + SECOND / 2),
            ("250ms", 250_000_000),
            ("1.5µs", 1500),
            ("-2s", -2 * SECOND),
        ] {
            assert_eq!(parse(text), Some(nanoseconds), "{text}");
            assert_eq!(format(nanoseconds), text);
        }
        assert_eq!(parse("1h30m"), Some(5400 * SECOND));
        for text in ["", "s", "5", "1x", "1.2.3s", "99999999999h"] {
            assert_eq!(parse(text), None, "{text}");
        }
    }
}
