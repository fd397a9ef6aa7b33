//! From what a user names to a pod and a container.

use serde_json::Value;

use crate::Error;
use crate::api::with_query;
use crate::expose::selector_of;
use crate::output::table::labels;
use crate::selection::{self, Item};
use crate::session::Session;

const DEFAULT_CONTAINER: &str = "kubectl.kubernetes.io/default-container";

/// The pods of an object: itself, or those that its selector matches.
pub async fn of(session: &Session, item: Item) -> Result<Vec<Item>, Error> {
    if item.kind.is("", "pods") {
        return Ok(vec![item]);
    }
    let selector = selector_of(&item.kind, &item.object)
        .map_err(|_| Error::usage(format!("cannot find the pods of {}", item.label())))?;
    let kind = session.kind("pods").await?;
    let path = with_query(&kind.path(&item.namespace, "", ""), &[("labelSelector", &labels(&selector))]);
    let list = session.get(&path).await?;
    let mut pods = selection::list_items(&kind, &list);
    pods.sort_by_key(|pod| (!is_ready(pod), pod["status"]["phase"] != "Running"));
    Ok(pods.into_iter().map(|pod| Item::new(kind.clone(), pod)).collect())
}

/// The pod that `POD`, `pod/POD` or `TYPE/NAME` means; of several the readiest.
pub async fn one(session: &Session, argument: &str) -> Result<Item, Error> {
    let item = selection::one(session, argument, "pods").await?;
    let label = item.label();
    let first = of(session, item).await?.into_iter().next();
    first.ok_or_else(|| Error::usage(format!("no pods found for {label}")))
}

pub fn is_ready(pod: &Value) -> bool {
    condition(pod, "Ready").is_some_and(|condition| condition["status"] == "True")
}

/// A condition of an object's status.
pub fn condition<'a>(object: &'a Value, of: &str) -> Option<&'a Value> {
    object["status"]["conditions"].as_array()?.iter().find(|condition| condition["type"] == of)
}

/// The names of a pod's containers.
pub fn containers(pod: &Value, with_init: bool) -> Vec<String> {
    let names = |field: &str| {
        let list = pod["spec"][field].as_array().cloned().unwrap_or_default();
        list.iter().filter_map(|container| container["name"].as_str().map(str::to_owned)).collect::<Vec<_>>()
    };
    let mut all = if with_init { names("initContainers") } else { Vec::new() };
    all.extend(names("containers"));
    if with_init {
        all.extend(names("ephemeralContainers"));
    }
    all
}

/// The container that is meant when none is named; says so if there was a choice.
pub fn default_container(session: &Session, pod: &Value, named: Option<&str>) -> Result<String, Error> {
    if let Some(name) = named {
        let known = containers(pod, true).iter().any(|container| container == name);
        let pod = pod["metadata"]["name"].as_str().unwrap_or_default();
        return match known {
            true => Ok(name.to_owned()),
            false => Err(Error::usage(format!("container {name} is not valid for pod {pod}"))),
        };
    }
    let annotated = pod["metadata"]["annotations"][DEFAULT_CONTAINER].as_str();
    let names = containers(pod, false);
    if let Some(name) = annotated.filter(|name| names.iter().any(|other| other == name)) {
        return Ok(name.to_owned());
    }
    let first = names.first().cloned().unwrap_or_default();
    if names.len() > 1 {
        let all = containers(pod, true).join(", ");
        session.err.line(format!("Defaulted container {first:?} out of: {all}"))?;
    }
    Ok(first)
}
