//! `resource.Quantity`: exact decimal numbers with suffixes. Never a float.
//!
//! Source: `k8s.io/apimachinery/pkg/api/resource`. The finest unit is nano; finer input is rounded up.

use std::cmp::Ordering;
use std::fmt;
use std::ops::{Add, Neg, Sub};
use std::str::FromStr;

const NANO: i128 = 1_000_000_000;
const BINARY: [&str; 6] = ["Ki", "Mi", "Gi", "Ti", "Pi", "Ei"];

/// How a quantity is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Format {
    /// `1e3`
    DecimalExponent,
    /// `1Ki`
    BinarySi,
    /// `1k`, `100m`
    #[default]
    DecimalSi,
}

/// An exact number of nano-units.
#[derive(Clone, Copy, Debug, Default)]
pub struct Quantity {
    nano: i128,
    format: Format,
}

/// The text is not a quantity.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'")]
pub struct QuantityError;

impl Quantity {
    pub const ZERO: Self = Self { nano: 0, format: Format::DecimalSi };

    /// A whole number, written with decimal suffixes.
    pub fn from_units(units: i64) -> Self {
        Self { nano: i128::from(units) * NANO, format: Format::DecimalSi }
    }

    /// Thousandths, as CPU is counted.
    pub fn from_milli(milli: i64) -> Self {
        Self { nano: i128::from(milli) * (NANO / 1000), format: Format::DecimalSi }
    }

    /// Billionths, as rates of CPU are measured.
    pub fn from_nano(nano: i64) -> Self {
        Self { nano: i128::from(nano), format: Format::DecimalSi }
    }

    /// Bytes, written with binary suffixes.
    pub fn from_bytes(bytes: i64) -> Self {
        Self { nano: i128::from(bytes) * NANO, format: Format::BinarySi }
    }

    /// The number of units, rounded up.
    pub fn value(&self) -> i64 {
        saturate(ceil_div(self.nano, NANO))
    }

    /// The number of thousandths, rounded up.
    pub fn milli_value(&self) -> i64 {
        saturate(ceil_div(self.nano, NANO / 1000))
    }

    pub fn is_zero(&self) -> bool {
        self.nano == 0
    }

    pub fn is_negative(&self) -> bool {
        self.nano < 0
    }

    /// Whether the number has no fraction.
    pub fn is_whole(&self) -> bool {
        self.nano % NANO == 0
    }

    fn from_value(value: &serde_json::Value) -> Option<Self> {
        match value {
            serde_json::Value::String(text) => text.parse().ok(),
            serde_json::Value::Number(number) => number.to_string().parse().ok(),
            _ => None,
        }
    }

    /// Reads a JSON string or number; `None` when it is neither or malformed.
    pub fn read(value: &serde_json::Value) -> Option<Self> {
        Self::from_value(value)
    }
}

fn saturate(number: i128) -> i64 {
    i64::try_from(number).unwrap_or(if number < 0 { i64::MIN } else { i64::MAX })
}

fn ceil_div(number: i128, by: i128) -> i128 {
    number.div_euclid(by) + i128::from(number.rem_euclid(by) != 0)
}

impl FromStr for Quantity {
    type Err = QuantityError;

    fn from_str(text: &str) -> Result<Self, QuantityError> {
        let (sign, unsigned) = match text.as_bytes().first() {
            Some(b'-') => (-1, &text[1..]),
            Some(b'+') => (1, &text[1..]),
            _ => (1, text),
        };
        let end = unsigned.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(unsigned.len());
        let (number, suffix) = unsigned.split_at(end);
        let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
        if whole.is_empty() && fraction.is_empty() || fraction.contains('.') {
            return Err(QuantityError);
        }
        let (binary, exponent, format) = scale(suffix)?;
        let fraction = fraction.trim_end_matches('0');
        let digits = format!("{whole}{fraction}");
        let digits = digits.trim_start_matches('0');
        if digits.is_empty() {
            return Ok(Self { nano: 0, format });
        }
        let mantissa: i128 =
            digits.get(..30.min(digits.len())).ok_or(QuantityError)?.parse().map_err(|_| QuantityError)?;
        let dropped = digits.len().saturating_sub(30) as i32;
        let power = exponent + 9 + dropped - fraction.len() as i32;
        Ok(Self { nano: sign * shift(mantissa, binary, power), format })
    }
}

/// `mantissa * 2^binary * 10^power`, capped where upstream caps and rounded up to a whole nano.
fn shift(mantissa: i128, binary: u32, power: i32) -> i128 {
    // Upstream caps at 2^63-1 units.
    const MAX: i128 = i64::MAX as i128 * NANO;
    let Some(mut number) = mantissa.checked_mul(1_i128 << binary) else { return MAX };
    for _ in 0..power.max(0) {
        number = number.saturating_mul(10);
    }
    let mut inexact = false;
    for _ in 0..(-power).clamp(0, 60) {
        inexact |= number % 10 != 0;
        number /= 10;
    }
    (number + i128::from(inexact)).min(MAX)
}

/// Power of two, power of ten and format of a suffix.
fn scale(suffix: &str) -> Result<(u32, i32, Format), QuantityError> {
    if let Some(index) = BINARY.iter().position(|binary| *binary == suffix) {
        return Ok((10 * (index as u32 + 1), 0, Format::BinarySi));
    }
    let power = match suffix {
        "n" => -9,
        "u" => -6,
        "m" => -3,
        "" => 0,
        "k" => 3,
        "M" => 6,
        "G" => 9,
        "T" => 12,
        "P" => 15,
        "E" => 18,
        other => {
            let digits = other.strip_prefix(['e', 'E']).ok_or(QuantityError)?;
            let exponent: i32 = digits.parse().map_err(|_| QuantityError)?;
            return Ok((0, exponent.clamp(-60, 60), Format::DecimalExponent));
        }
    };
    Ok((0, power, Format::DecimalSi))
}

impl fmt::Display for Quantity {
    /// The canonical form: the largest suffix that leaves no fraction.
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.nano == 0 {
            return out.write_str("0");
        }
        if self.format == Format::BinarySi && self.is_whole() && self.nano.abs() >= 1024 * NANO {
            let mut units = self.nano / NANO;
            let mut power = 0;
            while power < BINARY.len() && units % 1024 == 0 {
                units /= 1024;
                power += 1;
            }
            return write!(out, "{units}{}", power.checked_sub(1).map_or("", |index| BINARY[index]));
        }
        let mut number = self.nano;
        let mut power = -9;
        while number % 1000 == 0 && power < 18 {
            number /= 1000;
            power += 3;
        }
        match self.format {
            Format::DecimalExponent if power != 0 => write!(out, "{number}e{power}"),
            Format::DecimalExponent => write!(out, "{number}"),
            _ => {
                let suffixes = ["n", "u", "m", "", "k", "M", "G", "T", "P", "E"];
                write!(out, "{number}{}", suffixes[((power + 9) / 3) as usize])
            }
        }
    }
}

impl PartialEq for Quantity {
    fn eq(&self, other: &Self) -> bool {
        self.nano == other.nano
    }
}

impl Eq for Quantity {}

impl PartialOrd for Quantity {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Quantity {
    fn cmp(&self, other: &Self) -> Ordering {
        self.nano.cmp(&other.nano)
    }
}

impl Add for Quantity {
    type Output = Self;

    /// The sum, written like the left side unless that is zero.
    fn add(self, other: Self) -> Self {
        let format = if self.nano == 0 { other.format } else { self.format };
        Self { nano: self.nano.saturating_add(other.nano), format }
    }
}

impl Neg for Quantity {
    type Output = Self;

    fn neg(self) -> Self {
        Self { nano: -self.nano, ..self }
    }
}

impl Sub for Quantity {
    type Output = Self;

    fn sub(self, other: Self) -> Self {
        self + -other
    }
}

impl std::iter::Sum for Quantity {
    fn sum<I: Iterator<Item = Self>>(quantities: I) -> Self {
        quantities.fold(Self::ZERO, Add::add)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn canonical_forms() {
        for (text, wanted) in [
            ("0", "0"),
            ("1", "1"),
            ("100m", "100m"),
            ("0.1", "100m"),
            ("1.5", "1500m"),
            ("1000m", "1"),
            ("1000", "1k"),
            ("1024", "1024"),
            ("1Ki", "1Ki"),
            ("1024Ki", "1Mi"),
            ("1.5Gi", "1536Mi"),
            ("0.5Ki", "512"),
            ("1e3", "1e3"),
            ("1E3", "1e3"),
            ("12e-3", "12e-3"),
            ("-5", "-5"),
            ("+5", "5"),
            (".5", "500m"),
            ("1.", "1"),
            ("100n", "100n"),
            ("0.1n", "1n"),
            ("10Ei", "9223372036854775807"),
            ("1500M", "1500M"),
            ("0.00", "0"),
            ("123456789012", "123456789012"),
            ("64Mi", "64Mi"),
            ("2000000000000000000000n", "2T"),
        ] {
            assert_eq!(text.parse::<Quantity>().map(|q| q.to_string()), Ok(wanted.to_owned()), "{text}");
        }
    }

    #[test]
    fn nonsense_is_refused() {
        for text in ["", "a", "1x", "1 Ki", "1.2.3", "--1", "1e", "Ki", "1KiB", "."] {
            assert_eq!(text.parse::<Quantity>(), Err(QuantityError), "{text}");
        }
    }

    #[test]
    fn values_round_up() {
        let quantity = |text: &str| text.parse::<Quantity>().unwrap();
        assert_eq!((quantity("1500m").value(), quantity("1500m").milli_value()), (2, 1500));
        assert_eq!(quantity("1n").milli_value(), 1);
        assert_eq!((quantity("-1500m").value(), quantity("1Gi").value()), (-1, 1 << 30));
    }

    #[test]
    fn arithmetic_keeps_the_format() {
        let quantity = |text: &str| text.parse::<Quantity>().unwrap();
        assert_eq!((quantity("1Gi") + quantity("1Mi")).to_string(), "1025Mi");
        assert_eq!((quantity("1") - quantity("250m")).to_string(), "750m");
        assert!(quantity("1k") < quantity("1Ki") && quantity("1000m") == quantity("1"));
    }
}
