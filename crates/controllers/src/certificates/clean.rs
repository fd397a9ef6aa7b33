//! When a request has had its day, as upstream's csrcleaner has it.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::certificates::v1::CertificateSigningRequest as Request;

use super::is;

/// Of requests that were approved, denied or that failed.
const DECIDED: SignedDuration = SignedDuration::from_hours(1);
/// Of requests that nobody looked at.
const PENDING: SignedDuration = SignedDuration::from_hours(24);

/// How long the request stays; zero when it is to be removed now.
pub fn left(request: &Request, now: Timestamp) -> Duration {
    let conditions = request.status.as_ref().and_then(|status| status.conditions.as_deref());
    let decided = conditions.unwrap_or_default().iter().filter_map(|c| Some(c.last_update_time.as_ref()?.0));
    let decided = decided.max();
    let created = request.metadata.creation_timestamp.as_ref().map_or(now, |time| time.0);
    let is_decided = ["Approved", "Denied", "Failed"].iter().any(|condition| is(request, condition));
    let end = if is_decided { decided.unwrap_or(created) + DECIDED } else { created + PENDING };
    Duration::try_from(end.duration_since(now)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn decided_requests_stay_an_hour_and_others_a_day() {
        let request = |condition: Option<&str>| -> Request {
            let conditions: Vec<_> = condition
                .map(|kind| json!({"type": kind, "status": "True", "lastUpdateTime": "2026-01-01T10:00:00Z"}))
                .into_iter()
                .collect();
            serde_json::from_value(json!({
                "metadata": {"creationTimestamp": "2026-01-01T09:00:00Z"},
                "spec": {"request": "", "signerName": "a/b"},
                "status": {"conditions": conditions},
            }))
            .unwrap()
        };
        let cases = [
            (None, "2026-01-01T09:30:00Z", 23 * 3600 + 1800),
            (None, "2026-01-02T09:00:01Z", 0),
            (Some("Approved"), "2026-01-01T10:59:00Z", 60),
            (Some("Denied"), "2026-01-01T11:00:01Z", 0),
        ];
        for (condition, now, want) in cases {
            let left = left(&request(condition), now.parse().unwrap());
            assert_eq!(left.as_secs(), want, "{condition:?} {now}");
        }
    }
}
