//! `wait`.

use std::time::Duration;

use serde_json::Value;

use crate::arguments::{Files, Selector};
use crate::output::jsonpath::{self, JsonPath};
use crate::selection::{self, Item};
use crate::session::Session;
use crate::watch::{self, Verdict};
use crate::{Error, duration, error, pods};

/// Waits for a condition.
#[derive(clap::Args)]
pub struct Wait {
    /// TYPE NAME… or TYPE/NAME…
    resources: Vec<String>,
    #[command(flatten)]
    files: Files,
    #[command(flatten)]
    selector: Selector,
    #[arg(long)]
    all: bool,
    /// condition=NAME[=VALUE], delete, create, or jsonpath={PATH}[=VALUE].
    #[arg(long = "for", default_value = "", hide_default_value = true)]
    what: String,
    /// How long to wait for each object; 0s looks once, negative waits a week.
    #[arg(long, value_parser = duration::parse, default_value = "30s", allow_negative_numbers = true)]
    timeout: Duration,
}

/// What is waited for.
#[derive(Debug)]
enum Goal {
    Condition { of: String, status: String },
    Delete,
    Create,
    Path { path: JsonPath, value: Option<String> },
}

fn goal(text: &str) -> Result<Goal, Error> {
    if text.eq_ignore_ascii_case("delete") {
        return Ok(Goal::Delete);
    }
    if text.eq_ignore_ascii_case("create") {
        return Ok(Goal::Create);
    }
    if let Some(condition) = text.strip_prefix("condition=") {
        let (of, status) = condition.split_once('=').unwrap_or((condition, "True"));
        return Ok(Goal::Condition { of: of.to_owned(), status: status.trim_matches('"').to_owned() });
    }
    if let Some(rest) = text.strip_prefix("jsonpath=") {
        let rest = rest.trim_matches('\'');
        // The value follows the closing brace: filters contain equals signs too.
        let end = rest.rfind('}').map_or_else(|| rest.find('=').unwrap_or(rest.len()), |at| at + 1);
        let (path, value) = rest.split_at(end);
        let path = JsonPath::relaxed(path).map_err(Error::Usage)?;
        let value = value.strip_prefix('=').map(|value| value.trim_matches(['"', '\'']).to_owned());
        return Ok(Goal::Path { path, value });
    }
    Err(Error::usage(format!("unrecognized condition: {text:?}")))
}

impl Goal {
    fn is_met(&self, object: Option<&Value>, uid: &str) -> bool {
        let Some(object) = object else { return matches!(self, Self::Delete) };
        match self {
            Self::Delete => !uid.is_empty() && object["metadata"]["uid"] != uid,
            Self::Create => true,
            Self::Condition { of, status } => condition(object, of).is_some_and(|found| {
                let observed = found["observedGeneration"].as_i64();
                let generation = object["metadata"]["generation"].as_i64();
                let is_old =
                    observed.zip(generation).is_some_and(|(observed, generation)| observed < generation);
                !is_old && found["status"].as_str().is_some_and(|found| found.eq_ignore_ascii_case(status))
            }),
            Self::Path { path, value } => match (path.values(object).as_slice(), value) {
                ([], _) => false,
                (_, None) => true,
                (found, Some(value)) => found.iter().all(|found| jsonpath::text(found) == *value),
            },
        }
    }
}

fn condition<'a>(object: &'a Value, of: &str) -> Option<&'a Value> {
    pods::condition(object, of).or_else(|| {
        let mut all = object["status"]["conditions"].as_array()?.iter();
        all.find(|condition| condition["type"].as_str().is_some_and(|found| found.eq_ignore_ascii_case(of)))
    })
}

impl Wait {
    pub async fn run(self, session: &Session) -> Result<(), Error> {
        let goal = goal(&self.what)?;
        let items = self.items(session, &goal).await?;
        let mut errors = Vec::new();
        for item in items {
            errors.extend(self.one(session, &goal, &item).await.err());
        }
        error::all(errors)
    }

    async fn items(&self, session: &Session, goal: &Goal) -> Result<Vec<Item>, Error> {
        let requests = selection::requests(session, &self.resources, &self.files, &self.selector).await?;
        if matches!(goal, Goal::Create) {
            let item = |request: selection::Request| Item {
                kind: request.kind,
                namespace: request.namespace,
                name: request.name,
                object: Value::Null,
                source: String::new(),
            };
            let items: Vec<_> = requests.into_iter().map(item).collect();
            return match items.iter().any(|item| item.name.is_empty()) {
                true => Err(Error::usage("--for=create needs the names of the resources")),
                false => Ok(items),
            };
        }
        let (items, errors) =
            selection::present(session, &self.resources, &self.files, &self.selector, self.all).await?;
        let deleting = matches!(goal, Goal::Delete);
        error::all(errors.into_iter().filter(|error| !(deleting && error.is_reason("NotFound"))).collect())?;
        if items.is_empty() && !deleting {
            return Err(Error::usage("no matching resources found"));
        }
        Ok(items)
    }

    async fn one(&self, session: &Session, goal: &Goal, item: &Item) -> Result<(), Error> {
        let uid = item.object["metadata"]["uid"].as_str().unwrap_or_default();
        let waiting = watch::until(session, item, |object| match object {
            object if goal.is_met(object, uid) => Ok(Verdict::Done(())),
            None if !matches!(goal, Goal::Create) => {
                let resource = &item.kind;
                Err(machinery::Status::not_found(&resource.group, &resource.resource, &item.name).into())
            }
            _ if self.timeout.is_zero() => Err(Error::usage("condition not met")),
            _ => Ok(Verdict::More),
        });
        let limit = if self.timeout.is_zero() { Duration::from_secs(30) } else { self.timeout };
        match tokio::time::timeout(limit, waiting).await {
            Ok(result) => result?,
            Err(_) => {
                return Err(Error::usage(format!(
                    "timed out waiting for the condition on {}/{}",
                    item.kind.qualified(),
                    item.name
                )));
            }
        }
        session.out.line(format!("{} condition met", item.label()))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::goal;

    #[test]
    fn goals_are_met() {
        let object = json!({
            "metadata": {"generation": 2, "uid": "u"},
            "status": {"phase": "Running", "conditions": [
                {"type": "Ready", "status": "True"},
                {"type": "Old", "status": "True", "observedGeneration": 1},
            ]},
        });
        let cases = [
            ("condition=Ready", true),
            ("condition=ready", true),
            ("condition=Ready=false", false),
            ("condition=Old", false),
            ("condition=Missing", false),
            ("jsonpath={.status.phase}=Running", true),
            ("jsonpath={.status.phase}=Pending", false),
            ("jsonpath={.status.phase}", true),
            ("jsonpath=.status.phase=Running", true),
            (r#"jsonpath={.status.conditions[?(@.type=="Ready")].status}=True"#, true),
            ("delete", false),
            ("create", true),
        ];
        for (text, met) in cases {
            assert_eq!(goal(text).unwrap().is_met(Some(&object), "u"), met, "{text}");
        }
        assert!(goal("delete").unwrap().is_met(None, "u"));
        assert!(goal("delete").unwrap().is_met(Some(&object), "another"));
        assert!(goal("nonsense").is_err());
    }
}
