//! `IntOrString`: a number, or a percentage of something.

use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

/// The number, or that share of `total`. A text that is no percentage counts as none.
pub fn resolve(value: &IntOrString, total: i32, round_up: bool) -> i32 {
    match value {
        IntOrString::Int(number) => *number,
        IntOrString::String(text) => {
            let percent: i64 = text.trim_end_matches('%').parse().unwrap_or(0);
            let product = percent * i64::from(total);
            let rounded = if round_up { (product + 99).div_euclid(100) } else { product.div_euclid(100) };
            i32::try_from(rounded).unwrap_or(i32::MAX)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_shares() {
        let percent = |text: &str| IntOrString::String(text.to_owned());
        for (value, total, up, wanted) in [
            (IntOrString::Int(3), 10, true, 3),
            (percent("25%"), 10, true, 3),
            (percent("25%"), 10, false, 2),
            (percent("100%"), 7, false, 7),
            (percent("0%"), 7, true, 0),
            (percent("34%"), 3, true, 2),
            (percent("x"), 3, true, 0),
        ] {
            assert_eq!(resolve(&value, total, up), wanted, "{value:?} of {total}");
        }
    }
}
