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

/// kubectl's `<none>` for what has no value.
pub fn none_if_empty(text: &str) -> String {
    if text.is_empty() { "<none>".to_owned() } else { text.to_owned() }
}

/// A value, or another one in its place when there is none.
pub fn or<'a>(text: &'a str, instead: &'a str) -> &'a str {
    if text.is_empty() { instead } else { text }
}

/// Labels or a selector as `a=b,c=d`; `<none>` when empty.
pub fn labels(labels: &Value) -> String {
    let pairs = labels.as_object().into_iter().flatten();
    let texts: Vec<_> =
        pairs.map(|(key, value)| format!("{key}={}", value.as_str().unwrap_or_default())).collect();
    none_if_empty(&texts.join(","))
}

/// A `metav1.LabelSelector` as text; `<none>` when it selects everything or is malformed.
pub fn selector(selector: &Value) -> String {
    let parsed = machinery::selector::LabelSelector::from_value(selector);
    none_if_empty(&parsed.map(|selector| selector.to_string()).unwrap_or_default())
}

/// `IntOrString` or number as text.
pub fn plain(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

/// Names and images of a pod spec's containers, separated by commas.
pub fn containers(spec: &Value) -> [Value; 2] {
    let list = spec.get("containers").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    ["name", "image"].map(|field| {
        let texts: Vec<_> =
            list.iter().map(|c| c.get(field).and_then(Value::as_str).unwrap_or_default()).collect();
        Value::String(texts.join(","))
    })
}
