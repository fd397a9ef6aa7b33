//! `Impersonate-User` and its companions: acting as somebody else, if the caller may.

use std::collections::BTreeMap;
use std::sync::Arc;

use auth::user::{ANONYMOUS, AUTHENTICATED_GROUP, UNAUTHENTICATED_GROUP};
use auth::{Attributes, User};
use http::HeaderMap;
use machinery::Status;
use percent_encoding::percent_decode_str;

use crate::core::Core;
use crate::pipeline::Caller;

const EXTRA_PREFIX: &str = "impersonate-extra-";

/// The caller that the request is made as.
pub fn resolve(core: &Core, caller: Caller, headers: &HeaderMap) -> Result<Arc<Caller>, Status> {
    let Some(wanted) = wanted(headers)? else { return Ok(Arc::new(caller)) };
    for attributes in questions(&caller.user, &wanted) {
        core.judge(&attributes)?;
    }
    Ok(Arc::new(Caller { user: complete(wanted), agent: caller.agent }))
}

fn text<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name).and_then(|value| value.to_str().ok()).filter(|text| !text.is_empty())
}

fn wanted(headers: &HeaderMap) -> Result<Option<User>, Status> {
    let groups: Vec<String> = headers
        .get_all("impersonate-group")
        .iter()
        .filter_map(|value| value.to_str().ok().map(str::to_owned))
        .collect();
    let mut extra: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for (name, value) in headers {
        let Some(key) = name.as_str().strip_prefix(EXTRA_PREFIX) else { continue };
        let key = percent_decode_str(key).decode_utf8_lossy().into_owned();
        extra.entry(key).or_default().extend(value.to_str().ok().map(str::to_owned));
    }
    let uid = text(headers, "impersonate-uid").unwrap_or_default().to_owned();
    match text(headers, "impersonate-user") {
        Some(name) => Ok(Some(User { name: name.to_owned(), uid, groups, extra })),
        None if groups.is_empty() && extra.is_empty() && uid.is_empty() => Ok(None),
        None => Err(Status::internal(
            "requested impersonation of groups, extras or a uid without impersonating a user",
        )),
    }
}

/// What the caller must be allowed: `impersonate` on each part.
fn questions(caller: &User, wanted: &User) -> Vec<Attributes> {
    let ask = |group: &str, resource: &str, subresource: &str, namespace: &str, name: &str| Attributes {
        user: caller.clone(),
        verb: "impersonate".to_owned(),
        group: group.to_owned(),
        version: "v1".to_owned(),
        resource: resource.to_owned(),
        subresource: subresource.to_owned(),
        namespace: namespace.to_owned(),
        name: name.to_owned(),
        ..Attributes::default()
    };
    const AUTHENTICATION: &str = "authentication.k8s.io";
    let mut questions = vec![match wanted.service_account_key() {
        Some((namespace, name)) => ask("", "serviceaccounts", "", namespace, name),
        None => ask("", "users", "", "", &wanted.name),
    }];
    questions.extend(wanted.groups.iter().map(|group| ask("", "groups", "", "", group)));
    for (key, values) in &wanted.extra {
        questions.extend(values.iter().map(|value| ask(AUTHENTICATION, "userextras", key, "", value)));
    }
    if !wanted.uid.is_empty() {
        questions.push(ask(AUTHENTICATION, "uids", "", "", &wanted.uid));
    }
    questions
}

/// The groups that the system adds.
fn complete(mut user: User) -> User {
    if let Some((namespace, name)) = user.service_account_key()
        && user.groups.is_empty()
    {
        user.groups = User::service_account(namespace, name, "").groups;
    }
    let marked = user.is_in(AUTHENTICATED_GROUP) || user.is_in(UNAUTHENTICATED_GROUP);
    if user.name == ANONYMOUS && !marked {
        user.groups.push(UNAUTHENTICATED_GROUP.to_owned());
    }
    user.authenticated()
}
