//! `describe`: an object's fields in readable form, and its events. Pods, nodes, services and what runs pods have
//! pages of their own; every other kind is shown field by field.

mod events;
mod generic;
mod node;
mod page;
mod pod;
mod service;
mod workload;

use env::jiff::Timestamp;
use serde_json::Value;

use crate::arguments::{Files, Selector};
use crate::output::tabs;
use crate::selection::{self, Item};
use crate::session::Session;
use crate::{Error, error};
use page::Page;

/// Describes objects.
#[derive(clap::Args)]
pub struct Describe {
    /// TYPE, TYPE NAME… or TYPE/NAME…
    resources: Vec<String>,
    #[command(flatten)]
    files: Files,
    #[command(flatten)]
    selector: Selector,
    /// Show events too.
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", default_value_t = true, action = clap::ArgAction::Set)]
    show_events: bool,
}

impl Describe {
    pub async fn run(self, session: &Session) -> Result<(), Error> {
        let requests = selection::requests(session, &self.resources, &self.files, &self.selector).await?;
        let (items, errors) = selection::read(session, &requests, &self.selector).await;
        if items.is_empty() && errors.is_empty() {
            session.err.line(format!("No resources found in {} namespace.", session.namespace))?;
        }
        for (index, item) in items.iter().enumerate() {
            if index > 0 {
                session.out.text("\n\n")?;
            }
            let more = More::read(session, item, self.show_events).await?;
            session.out.text(&describe(item, &more, session.env.now()))?;
        }
        error::all(errors)
    }
}

/// What a description shows besides the object.
#[derive(Default)]
struct More {
    /// `None` when they are not to be shown.
    events: Option<Vec<Value>>,
    /// The pods of a node or workload.
    pods: Vec<Value>,
    /// The replica sets of a deployment, or the endpoint slices of a service.
    parts: Vec<Value>,
}

impl More {
    async fn read(session: &Session, item: &Item, events: bool) -> Result<Self, Error> {
        let mut more = Self::default();
        if events {
            more.events = Some(events::read(session, item).await?);
        }
        let Item { kind, name, namespace, object, .. } = item;
        match (kind.group.as_str(), kind.resource.as_str()) {
            ("", "nodes") => {
                more.pods = page::list(session, "pods", "", "", &format!("spec.nodeName={name}")).await?;
            }
            ("", "services") => {
                let label = format!("kubernetes.io/service-name={name}");
                more.parts = page::list(session, "endpointslices", namespace, &label, "").await?;
            }
            ("", "replicationcontrollers") | ("apps", "replicasets" | "deployments") => {
                if let Ok(selector) = crate::expose::selector_of(kind, object) {
                    let label = crate::output::table::labels(&selector);
                    more.pods = page::list(session, "pods", namespace, &label, "").await?;
                    if kind.resource == "deployments" {
                        more.parts = page::list(session, "replicasets", namespace, &label, "").await?;
                    }
                }
            }
            _ => {}
        }
        Ok(more)
    }
}

fn describe(item: &Item, more: &More, now: Timestamp) -> String {
    let mut page = Page::default();
    let object = &item.object;
    match (item.kind.group.as_str(), item.kind.resource.as_str()) {
        ("", "pods") => pod::describe(&mut page, object),
        ("", "nodes") => node::describe(&mut page, object, &more.pods),
        ("", "services") => service::describe(&mut page, object, &more.parts),
        ("apps", "deployments") => workload::deployment(&mut page, object, &more.parts),
        ("", "replicationcontrollers") | ("apps", "replicasets") => {
            workload::replicas(&mut page, object, &more.pods);
        }
        _ => generic::describe(&mut page, object),
    }
    if let Some(events) = &more.events {
        events::describe(&mut page, events, now);
    }
    tabs::align(&page.text, 0, 2)
}

/// The description of a pod template.
pub fn template(template: &Value) -> String {
    let mut page = Page::default();
    pod::template(&mut page, 1, template);
    tabs::align(&page.text, 0, 2)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use expect_test::{Expect, expect};
    use serde_json::{Value, json};

    use super::{More, describe};
    use crate::discovery::Kind;
    use crate::selection::Item;

    fn check(resource: &str, object: Value, more: &More, expected: Expect) {
        let kind = Kind { resource: resource.into(), version: "v1".into(), ..Kind::default() };
        let item = Item::new(Arc::new(kind), object);
        expected.assert_eq(&describe(&item, more, "2026-01-01T00:10:00Z".parse().unwrap()));
    }

    #[test]
    fn a_pod() {
        let object = json!({
            "metadata": {"name": "web", "namespace": "default", "labels": {"run": "web"}},
            "spec": {"nodeName": "n1", "containers": [
                {"name": "web", "image": "nginx", "ports": [{"containerPort": 80, "protocol": "TCP"}],
                 "env": [{"name": "A", "value": "b"}]},
            ]},
            "status": {"phase": "Running", "hostIP": "10.0.0.1", "podIP": "10.1.0.2", "podIPs": [{"ip": "10.1.0.2"}],
                "conditions": [{"type": "Ready", "status": "True"}],
                "containerStatuses": [{"name": "web", "ready": true, "restartCount": 0, "imageID": "sha256:1",
                    "containerID": "kobune://1", "state": {"waiting": {"reason": "ErrImagePull"}}}]},
        });
        let events = json!([{"type": "Normal", "reason": "Pulled", "message": "Done", "source": {"component": "kubelet"},
            "firstTimestamp": "2026-01-01T00:00:00Z", "lastTimestamp": "2026-01-01T00:09:30Z", "count": 3}]);
        let more = More { events: Some(events.as_array().unwrap().clone()), ..More::default() };
        check(
            "pods",
            object,
            &more,
            expect![[r#"
            Name:             web
            Namespace:        default
            Priority:         0
            Service Account:  
            Node:             n1/10.0.0.1
            Start Time:       
            Labels:           run=web
            Annotations:      <none>
            Status:           Running
            IP:               10.1.0.2
            IPs:
              IP:  10.1.0.2
            Containers:
              web:
                Container ID:   kobune://1
                Image:          nginx
                Image ID:       sha256:1
                Port:           80/TCP
                Host Port:      0/TCP
                State:          Waiting
                  Reason:       ErrImagePull
                Ready:          True
                Restart Count:  0
                Environment:
                  A:     b
                Mounts:  <none>
            Conditions:
              Type           Status
              ----           ------
              Ready          True
            Volumes:         <none>
            QoS Class:       
            Node-Selectors:  <none>
            Tolerations:     <none>
            Events:
              Type    Reason  Age                From     Message
              ----    ------  ----               ----     -------
              Normal  Pulled  30s (x3 over 10m)  kubelet  Done
        "#]],
        );
    }

    #[test]
    fn any_other_kind() {
        let object = json!({
            "apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "c", "namespace": "d", "uid": "u"},
            "dataPart": {"someKey": "v", "list": [1, {"x": true}]},
        });
        check(
            "configmaps",
            object,
            &More { events: Some(Vec::new()), ..More::default() },
            expect![[r#"
            Name:         c
            Namespace:    d
            Labels:       <none>
            Annotations:  <none>
            API Version:  v1
            Kind:         ConfigMap
            Metadata:
              UID:  u
            Data Part:
              List:
                1
                X:       true
              Some Key:  v
            Events:      <none>
        "#]],
        );
    }
}
