//! What happened to an object.

use env::jiff::Timestamp;
use serde_json::Value;

use super::page::{self, Page, or, text};
use crate::Error;
use crate::duration::age;
use crate::selection::Item;
use crate::session::Session;

/// The events of an object, the oldest first.
pub async fn read(session: &Session, item: &Item) -> Result<Vec<Value>, Error> {
    let mut field = format!("involvedObject.name={},involvedObject.kind={}", item.name, item.kind.kind);
    if !item.namespace.is_empty() {
        field.push_str(&format!(",involvedObject.namespace={}", item.namespace));
    }
    let mut events = page::list(session, "events", &item.namespace, "", &field).await?;
    let uid = &item.object["metadata"]["uid"];
    // A node reports its own events under its name.
    events.retain(|event| {
        let about = &event["involvedObject"]["uid"];
        about == uid || item.kind.resource == "nodes" || about.as_str().is_none_or(str::is_empty)
    });
    events.sort_by_cached_key(last);
    Ok(events)
}

fn last(event: &Value) -> String {
    let series = &event["series"]["lastObservedTime"];
    let times = [series, &event["lastTimestamp"], &event["eventTime"], &event["firstTimestamp"]];
    times.into_iter().find_map(Value::as_str).unwrap_or_default().to_owned()
}

pub fn describe(page: &mut Page, events: &[Value], now: Timestamp) {
    if events.is_empty() {
        page.field(0, "Events", "<none>");
        return;
    }
    page.line(0, "Events:");
    page.line(1, "Type\tReason\tAge\tFrom\tMessage");
    page.line(1, "----\t------\t----\t----\t-------");
    for event in events {
        let count = event["series"]["count"].as_u64().or(event["count"].as_u64()).unwrap_or(1);
        let first = [&event["firstTimestamp"], &event["eventTime"]].into_iter().find(|time| time.is_string());
        let first = age(first.unwrap_or(&Value::Null), now);
        let when = match count {
            0 | 1 => first,
            count => format!("{} (x{count} over {first})", age(&Value::from(last(event)), now)),
        };
        let from = or(&event["source"]["component"], or(&event["reportingComponent"], "<unknown>"));
        let message = text(&event["message"]);
        page.line(
            1,
            format!(
                "{}\t{}\t{when}\t{from}\t{}",
                text(&event["type"]),
                text(&event["reason"]),
                message.trim()
            ),
        );
    }
}
