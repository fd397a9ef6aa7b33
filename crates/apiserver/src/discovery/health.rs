//! `/livez`, `/readyz`, `/healthz`: named checks, one by one or together.

use std::sync::Arc;

use http::{HeaderValue, Response};
use machinery::Status;
use parking_lot::RwLock;

use crate::core::Core;
use crate::http::body::{Body, response};
use crate::request::Query;

/// A check; the error says what is wrong.
pub type Check = Arc<dyn Fn() -> Result<(), String> + Send + Sync>;

/// The checks of the process, by name in the order of registration.
#[derive(Default)]
pub struct Health {
    checks: RwLock<Vec<(String, Check, bool)>>,
}

impl Health {
    /// Adds a check. `liveness`: a failure means that the process should be restarted; others only mean "not ready".
    pub fn add(&self, name: &str, liveness: bool, check: Check) {
        self.checks.write().push((name.to_owned(), check, liveness));
    }

    fn of(&self, endpoint: &str) -> Vec<(String, Check)> {
        let checks = self.checks.read();
        let wanted = checks.iter().filter(|(_, _, liveness)| *liveness || endpoint == "readyz");
        wanted.map(|(name, check, _)| (name.clone(), check.clone())).collect()
    }
}

/// Answers `/livez`, `/livez/NAME` and the like.
pub(super) fn answer(
    core: &Core,
    endpoint: &str,
    rest: &[&str],
    query: &Query,
) -> Result<Response<Body>, Status> {
    let mut checks = core.health.of(endpoint);
    let excluded: Vec<&str> = query.all("exclude").collect();
    if let [first, ..] = rest {
        let name = rest.join("/");
        checks.retain(|(own, _)| *own == name);
        if checks.is_empty() {
            tracing::debug!(check = first, "an unknown health check was asked for");
            return Err(Status::no_such_path());
        }
    }
    let mut report = String::new();
    let mut failed = false;
    for (name, check) in &checks {
        if excluded.contains(&name.as_str()) {
            report += &format!("[+]{name} excluded: ok\n");
            continue;
        }
        match check() {
            Ok(()) => report += &format!("[+]{name} ok\n"),
            Err(reason) => {
                tracing::warn!(check = name, reason, "a health check failed");
                report += &format!("[-]{name} failed: reason withheld\n");
                failed = true;
            }
        }
    }
    let text = match (failed, query.has("verbose") && rest.is_empty()) {
        (true, _) => format!("{report}{endpoint} check failed\n"),
        (false, true) => format!("{report}{endpoint} check passed\n"),
        (false, false) => "ok".to_owned(),
    };
    let mut answer = response(if failed { 500 } else { 200 }, "text/plain; charset=utf-8", text);
    answer.headers_mut().insert("x-content-type-options", HeaderValue::from_static("nosniff"));
    Ok(answer)
}
