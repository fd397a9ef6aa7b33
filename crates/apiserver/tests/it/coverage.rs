//! Every row, verb and subresource: who may not is refused, what is missing is not found, a dry run writes nothing.

use std::sync::Arc;

use auth::{Attributes, Authorizer, Decision, User};
use client::{DeleteOptions, ListOptions, Patch, Target, Transport, WatchOptions, WriteOptions};
use machinery::Status;
use resources::Resource;
use serde_json::{Value, json};
use testkit::TestServer;

/// Lets only administrators in.
struct AdministratorsOnly;

impl Authorizer for AdministratorsOnly {
    fn authorize(&self, attributes: &Attributes) -> Decision {
        if attributes.user.is_in("system:masters") {
            Decision::Allow(String::new())
        } else {
            Decision::NoOpinion(String::new())
        }
    }
}

fn target(row: &Resource, name: &str, subresource: &str) -> Target {
    Target {
        group: row.group.clone(),
        version: row.version.clone(),
        resource: row.resource.clone(),
        namespace: if row.is_namespaced() { "default".to_owned() } else { String::new() },
        name: name.to_owned(),
        subresource: subresource.to_owned(),
    }
}

/// Does `verb` and gives what went wrong, if anything.
async fn attempt(
    transport: &Arc<dyn Transport>,
    verb: &str,
    target: &Target,
    body: Value,
    dry_run: bool,
) -> Result<(), Status> {
    let write = WriteOptions { dry_run, ..WriteOptions::default() };
    let mut delete = DeleteOptions::default();
    if dry_run {
        delete.dry_run.push("All".to_owned());
    }
    match verb {
        "get" => transport.get(target, &ListOptions::default()).await.map(drop),
        "list" => transport.list(target, &ListOptions::default()).await.map(drop),
        "watch" => transport.watch(target, &WatchOptions::default()).await.map(drop),
        "create" => transport.create(target, body, &write).await.map(drop),
        "update" => transport.update(target, body, &write).await.map(drop),
        "patch" => transport.patch(target, Patch::Merge(body), &write).await.map(drop),
        "delete" => transport.delete(target, &delete).await.map(drop),
        "deletecollection" => transport.delete_collection(target, &ListOptions::default(), &delete).await,
        other => panic!("unknown verb {other}"),
    }
}

const CONNECTORS: [&str; 5] = ["log", "exec", "attach", "portforward", "proxy"];

/// Every (target, verb) that the in-process door serves. Names are only given where the verb takes one.
fn everything(row: &Resource) -> Vec<(Target, String)> {
    let named = |verb: &str| matches!(verb, "get" | "update" | "patch" | "delete");
    let mut all: Vec<_> = row
        .verbs
        .iter()
        .map(|verb| (target(row, if named(verb) { "missing" } else { "" }, ""), verb.clone()))
        .collect();
    for sub in row.subresources.iter().filter(|sub| !CONNECTORS.contains(&sub.name.as_str())) {
        all.extend(sub.verbs.iter().map(|verb| (target(row, "missing", &sub.name), verb.clone())));
    }
    all
}

#[tokio::test]
async fn who_may_not_is_refused_with_upstreams_words() {
    let test = TestServer::with_authorizer(Arc::new(AdministratorsOnly)).await;
    let jane = test.client_of(User::new("jane", &[])).transport().clone();
    let mut checked = 0;
    for row in test.server.table().rows() {
        for (target, verb) in everything(row) {
            let status = attempt(&jane, &verb, &target, json!({}), false).await.unwrap_err();
            let what = match target.subresource.as_str() {
                "" => row.resource.clone(),
                sub => format!("{}/{sub}", row.resource),
            };
            let own_scope = row.resource == "namespaces" && !target.name.is_empty();
            let scope = match () {
                () if row.is_namespaced() => " in the namespace \"default\"",
                () if own_scope => " in the namespace \"missing\"",
                () => " at the cluster scope",
            };
            let expected =
                format!("User \"jane\" cannot {verb} resource {what:?} in API group {:?}{scope}", row.group);
            assert_eq!((status.code, status.reason.as_str()), (403, "Forbidden"), "{verb} {target:?}");
            assert!(status.message.ends_with(&expected), "{} / {expected}", status.message);
            checked += 1;
        }
    }
    assert!(checked > 400, "only {checked} cases");
}

#[tokio::test]
async fn a_dry_run_writes_nothing_and_bad_bodies_are_invalid_not_broken() {
    let test = TestServer::start().await;
    let admin = test.client().transport().clone();
    for row in test.server.table().rows().iter().filter(|row| row.supports("create") && row.supports("get")) {
        let before = test.store.revision().await.unwrap();
        let body = json!({"metadata": {"name": "probe"}});
        let outcome = attempt(&admin, "create", &target(row, "", ""), body, true).await;
        if let Err(status) = outcome {
            assert_eq!((status.code, status.reason.as_str()), (422, "Invalid"), "{}: {status}", row.resource);
            assert!(!status.details.as_ref().unwrap().causes.is_empty(), "{}", row.resource);
        }
        assert_eq!(test.store.revision().await.unwrap(), before, "{}", row.resource);
        let found = attempt(&admin, "get", &target(row, "probe", ""), json!({}), false).await;
        assert!(found.unwrap_err().is_not_found(), "{}", row.resource);
    }
}

#[tokio::test]
async fn what_is_missing_is_not_found() {
    let test = TestServer::start().await;
    let admin = test.client().transport().clone();
    for row in test.server.table().rows() {
        for (target, verb) in everything(row) {
            let needs_object = !target.name.is_empty() && verb != "create";
            if !needs_object || (verb == "update" && row.strategy.allows_create_on_update()) {
                continue;
            }
            let status = attempt(&admin, &verb, &target, json!({}), false).await.unwrap_err();
            assert_eq!(status.code, 404, "{verb} {target:?}: {status}");
        }
    }
}

#[tokio::test]
async fn every_collection_can_be_listed_and_watched() {
    let test = TestServer::start().await;
    let admin = test.client().transport().clone();
    for row in test.server.table().rows() {
        for verb in ["list", "watch"].into_iter().filter(|verb| row.supports(verb)) {
            attempt(&admin, verb, &target(row, "", ""), json!({}), false).await.unwrap();
        }
    }
}
