//! How values look in table cells.

use jiff::Timestamp;
use serde_json::Value;

/// The time since `timestamp` in kubectl's short form (`5s`, `3m20s`, `2d`); `<unknown>` when there is none.
pub fn age(now: Timestamp, timestamp: Option<&Value>) -> String {
    let parsed = timestamp.and_then(Value::as_str).and_then(|text| text.parse::<Timestamp>().ok());
    match parsed {
        None => "<unknown>".to_owned(),
        Some(then) => human_duration(now.as_second() - then.as_second()),
    }
}

/// `k8s.io/apimachinery/pkg/util/duration.HumanDuration`.
pub fn human_duration(seconds: i64) -> String {
    let (minutes, hours, days) = (seconds / 60, seconds / 3600, seconds / 86_400);
    let two = |big: i64, unit: &str, small: i64, small_unit: &str| match small {
        0 => format!("{big}{unit}"),
        small => format!("{big}{unit}{small}{small_unit}"),
    };
    match seconds {
        i64::MIN..-1 => "<invalid>".to_owned(),
        -1 => "0s".to_owned(),
        0..120 => format!("{seconds}s"),
        120..600 => two(minutes, "m", seconds % 60, "s"),
        600..10_800 => format!("{minutes}m"),
        10_800..28_800 => two(hours, "h", minutes % 60, "m"),
        28_800..172_800 => format!("{hours}h"),
        172_800..691_200 => two(days, "d", hours % 24, "h"),
        691_200..63_072_000 => format!("{days}d"),
        63_072_000..252_288_000 => two(days / 365, "y", days % 365, "d"),
        _ => format!("{}y", days / 365),
    }
}
