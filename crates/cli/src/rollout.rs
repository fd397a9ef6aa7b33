//! `rollout`, for deployments.

use std::time::Duration;

use serde_json::{Value, json};

use crate::api::with_query;
use crate::expose::selector_of;
use crate::output::table::labels;
use crate::output::tabs;
use crate::selection::{self, Item};
use crate::session::{Session, media};
use crate::watch::{self, Verdict};
use crate::{Error, arguments, duration, pods};

const REVISION: &str = "deployment.kubernetes.io/revision";
const CAUSE: &str = "kubernetes.io/change-cause";
const RESTARTED: &str = "kubectl.kubernetes.io/restartedAt";

#[derive(clap::Subcommand)]
pub enum Rollout {
    /// Follow a rollout to its end.
    Status {
        #[command(flatten)]
        target: Target,
        /// Keep watching until it is done.
        #[arg(short, long, num_args = 0..=1, require_equals = true, default_missing_value = "true", default_value_t = true, action = clap::ArgAction::Set)]
        watch: bool,
        /// Give up after this long; 0s never.
        #[arg(long, value_parser = duration::parse, default_value = "0s")]
        timeout: Duration,
        /// Follow only this revision.
        #[arg(long, default_value_t = 0)]
        revision: u64,
    },
    /// Show earlier revisions.
    History {
        #[command(flatten)]
        target: Target,
        /// Show one revision in detail.
        #[arg(long, default_value_t = 0)]
        revision: u64,
    },
    /// Go back to an earlier revision.
    Undo {
        #[command(flatten)]
        target: Target,
        /// The revision; 0 is the one before.
        #[arg(long, default_value_t = 0)]
        to_revision: u64,
    },
    /// Replace all pods, one after another.
    Restart {
        #[command(flatten)]
        target: Target,
    },
    /// Let changes wait.
    Pause {
        #[command(flatten)]
        target: Target,
    },
    /// Roll out what waited.
    Resume {
        #[command(flatten)]
        target: Target,
    },
}

#[derive(clap::Args)]
pub struct Target {
    /// deployment NAME or deployment/NAME.
    resources: Vec<String>,
}

impl Target {
    async fn find(&self, session: &Session) -> Result<Vec<Item>, Error> {
        let (files, selector) = (arguments::Files::default(), arguments::Selector::default());
        let (items, errors) = selection::present(session, &self.resources, &files, &selector, true).await?;
        crate::error::all(errors)?;
        Ok(items)
    }

    async fn deployments(&self, session: &Session, verb: &str) -> Result<Vec<Item>, Error> {
        let items = self.find(session).await?;
        match items.iter().find(|item| !item.kind.is("apps", "deployments")) {
            Some(other) => Err(Error::usage(format!("{} {verb} is not supported", other.kind.qualified()))),
            None => Ok(items),
        }
    }
}

impl Rollout {
    pub async fn run(self, session: &Session) -> Result<(), Error> {
        match self {
            Self::Status { target, watch, timeout, revision } => {
                for item in target.deployments(session, "rollout status").await? {
                    follow(session, &item, watch, timeout, revision).await?;
                }
            }
            Self::History { target, revision } => {
                for item in target.deployments(session, "history viewing").await? {
                    history(session, &item, revision).await?;
                }
            }
            Self::Undo { target, to_revision } => {
                for item in target.deployments(session, "rolling back").await? {
                    undo(session, &item, to_revision).await?;
                }
            }
            Self::Restart { target } => {
                for item in target.find(session).await? {
                    restart(session, &item).await?;
                }
            }
            Self::Pause { target } => {
                for item in target.deployments(session, "pausing").await? {
                    pause(session, &item, true).await?;
                }
            }
            Self::Resume { target } => {
                for item in target.deployments(session, "resuming").await? {
                    pause(session, &item, false).await?;
                }
            }
        }
        Ok(())
    }
}

/// How far a rollout is: what to print, and whether it is done.
fn status(deployment: &Value, wanted: u64) -> Result<(String, bool), Error> {
    let name = deployment["metadata"]["name"].as_str().unwrap_or_default();
    let number = |field: &str| deployment["status"][field].as_i64().unwrap_or(0);
    if wanted > 0 && revision(deployment) != wanted {
        let text = format!(
            "desired revision ({wanted}) is different from the running revision ({})",
            revision(deployment)
        );
        return Err(Error::usage(text));
    }
    if deployment["metadata"]["generation"].as_i64().unwrap_or(0) > number("observedGeneration") {
        return Ok(("Waiting for deployment spec update to be observed...".to_owned(), false));
    }
    let late = pods::condition(deployment, "Progressing")
        .is_some_and(|condition| condition["reason"] == "ProgressDeadlineExceeded");
    if late {
        return Err(Error::usage(format!("deployment {name:?} exceeded its progress deadline")));
    }
    let desired = deployment["spec"]["replicas"].as_i64().unwrap_or(1);
    let (all, updated, available) =
        (number("replicas"), number("updatedReplicas"), number("availableReplicas"));
    let waiting = format!("Waiting for deployment {name:?} rollout to finish:");
    Ok(if updated < desired {
        (format!("{waiting} {updated} out of {desired} new replicas have been updated..."), false)
    } else if all > updated {
        (format!("{waiting} {} old replicas are pending termination...", all - updated), false)
    } else if available < updated {
        (format!("{waiting} {available} of {updated} updated replicas are available..."), false)
    } else {
        (format!("deployment {name:?} successfully rolled out"), true)
    })
}

async fn follow(
    session: &Session,
    item: &Item,
    watch: bool,
    timeout: Duration,
    wanted: u64,
) -> Result<(), Error> {
    let mut last = String::new();
    let following = watch::until(session, item, |object| {
        let object = object.ok_or_else(|| Error::usage("object has been deleted"))?;
        let (text, done) = status(object, wanted)?;
        if text != last {
            session.out.line(&text)?;
            last = text;
        }
        Ok(if done || !watch { Verdict::Done(()) } else { Verdict::More })
    });
    if timeout.is_zero() {
        return following.await;
    }
    match tokio::time::timeout(timeout, following).await {
        Ok(result) => result,
        Err(_) => Err(Error::usage("timed out waiting for the condition")),
    }
}

fn revision(object: &Value) -> u64 {
    let text = object["metadata"]["annotations"][REVISION].as_str();
    text.and_then(|text| text.parse().ok()).unwrap_or(0)
}

/// The replica sets of a deployment by revision, oldest first.
async fn revisions(session: &Session, item: &Item) -> Result<Vec<Value>, Error> {
    let kind = session.kind("replicasets.apps").await?;
    let selector = labels(&selector_of(&item.kind, &item.object)?);
    let path = with_query(&kind.path(&item.namespace, "", ""), &[("labelSelector", &selector)]);
    let uid = &item.object["metadata"]["uid"];
    let owned = |set: &Value| {
        let owners = set["metadata"]["ownerReferences"].as_array();
        owners.is_some_and(|owners| owners.iter().any(|owner| &owner["uid"] == uid))
    };
    let mut sets: Vec<_> =
        selection::list_items(&kind, &session.get(&path).await?).into_iter().filter(owned).collect();
    sets.sort_by_key(revision);
    Ok(sets)
}

async fn history(session: &Session, item: &Item, wanted: u64) -> Result<(), Error> {
    let sets = revisions(session, item).await?;
    if wanted > 0 {
        let set = sets.iter().find(|set| revision(set) == wanted);
        let set = set.ok_or_else(|| Error::usage("unable to find the specified revision"))?;
        session.out.line(format!("{} with revision #{wanted}", item.label()))?;
        let template = crate::describe::template(&set["spec"]["template"]);
        return session.out.text(&format!("Pod Template:\n{template}"));
    }
    let mut text = "REVISION\tCHANGE-CAUSE\n".to_owned();
    for set in &sets {
        let cause = set["metadata"]["annotations"][CAUSE].as_str().unwrap_or("<none>");
        text = format!("{text}{}\t{cause}\n", revision(set));
    }
    session.out.line(format!("{} \n{}", item.label(), tabs::align(&text, 0, 2)))
}

/// The template of a replica set without what the deployment's controller added.
fn template_of(set: &Value) -> Value {
    let mut template = set["spec"]["template"].clone();
    if let Some(labels) = template["metadata"]["labels"].as_object_mut() {
        labels.remove("pod-template-hash");
    }
    template
}

async fn undo(session: &Session, item: &Item, wanted: u64) -> Result<(), Error> {
    if item.object["spec"]["paused"] == true {
        return Err(Error::usage(format!(
            "you cannot rollback a paused deployment; resume it first with 'kubectl rollout resume {}' and try again",
            item.label()
        )));
    }
    let sets = revisions(session, item).await?;
    let target = match wanted {
        0 => sets.iter().rev().nth(1),
        wanted => sets.iter().find(|set| revision(set) == wanted),
    };
    let Some(target) = target else {
        return Err(match wanted {
            0 => Error::usage(format!("no rollout history found for deployment {:?}", item.name)),
            wanted => Error::usage(format!("unable to find specified revision {wanted} in history")),
        });
    };
    let template = template_of(target);
    if template == item.object["spec"]["template"] {
        let reached = revision(target);
        return session.out.line(format!(
            "{} skipped rollback (current template already matches revision {reached})",
            item.label()
        ));
    }
    let patch = json!([{"op": "replace", "path": "/spec/template", "value": template}]);
    session.patch(&item.path(""), media::JSON_PATCH, &patch).await?;
    session.out.line(format!("{} rolled back", item.label()))
}

async fn restart(session: &Session, item: &Item) -> Result<(), Error> {
    if item.object["spec"]["paused"] == true {
        return Err(Error::usage(format!(
            "can't restart paused deployment (run rollout resume first): {}",
            item.name
        )));
    }
    if !item.object["spec"]["template"].is_object()
        || item.kind.group != "apps"
        || item.kind.resource == "replicasets"
    {
        return Err(Error::usage(format!("{} restarting is not supported", item.kind.qualified())));
    }
    let now = session.env.now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
    let patch = json!({"spec": {"template": {"metadata": {"annotations": {(RESTARTED): now}}}}});
    let path = with_query(&item.path(""), &[("fieldManager", "kubectl-rollout")]);
    session.patch(&path, media::STRATEGIC, &patch).await?;
    session.out.line(format!("{} restarted", item.label()))
}

async fn pause(session: &Session, item: &Item, paused: bool) -> Result<(), Error> {
    let now = item.object["spec"]["paused"] == true;
    let verb = if paused { "paused" } else { "resumed" };
    if now == paused {
        let text = if paused { "already paused" } else { "is not paused" };
        return Err(Error::usage(format!("{} {:?} {text}", item.kind.qualified(), item.name)));
    }
    let patch = json!({"spec": {"paused": if paused { Value::from(true) } else { Value::Null }}});
    session.patch(&item.path(""), media::MERGE, &patch).await?;
    session.out.line(format!("{} {verb}", item.label()))
}

#[cfg(test)]
mod tests {
    use expect_test::{Expect, expect};
    use serde_json::{Value, json};

    use super::status;

    fn check(generation: u64, reported: Value, expected: Expect) {
        let deployment = json!({
            "metadata": {"name": "web", "generation": generation}, "spec": {"replicas": 3}, "status": reported,
        });
        let text = match status(&deployment, 0) {
            Ok((text, done)) => format!("{text} {done}"),
            Err(error) => error.to_string(),
        };
        expected.assert_eq(&text);
    }

    #[test]
    fn every_stage_has_its_sentence() {
        check(
            2,
            json!({"observedGeneration": 1}),
            expect!["Waiting for deployment spec update to be observed... false"],
        );
        check(
            1,
            json!({"observedGeneration": 1, "updatedReplicas": 1}),
            expect![[
                r#"Waiting for deployment "web" rollout to finish: 1 out of 3 new replicas have been updated... false"#
            ]],
        );
        check(
            1,
            json!({"observedGeneration": 1, "updatedReplicas": 3, "replicas": 4}),
            expect![[
                r#"Waiting for deployment "web" rollout to finish: 1 old replicas are pending termination... false"#
            ]],
        );
        check(
            1,
            json!({"observedGeneration": 1, "updatedReplicas": 3, "replicas": 3, "availableReplicas": 2}),
            expect![[
                r#"Waiting for deployment "web" rollout to finish: 2 of 3 updated replicas are available... false"#
            ]],
        );
        check(
            1,
            json!({"observedGeneration": 1, "updatedReplicas": 3, "replicas": 3, "availableReplicas": 3}),
            expect![[r#"deployment "web" successfully rolled out true"#]],
        );
        let late = json!([{"type": "Progressing", "reason": "ProgressDeadlineExceeded"}]);
        check(
            1,
            json!({"observedGeneration": 1, "conditions": late}),
            expect![[r#"error: deployment "web" exceeded its progress deadline"#]],
        );
    }
}
