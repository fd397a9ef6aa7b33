//! CertificateSigningRequests: those of nodes are approved, approved ones are signed, old ones are removed.
//!
//! The signers are upstream's: `kubernetes.io/kube-apiserver-client`, `kubernetes.io/kube-apiserver-client-kubelet`,
//! `kubernetes.io/kubelet-serving`. Requests for other signers are left to whoever serves them.

mod approve;
mod claims;
mod clean;
mod sign;

use std::sync::Arc;

use auth::Authorizer;
use auth::pki::Authority;
use client::{Cache, Caches, Patch, target_of, typed};
use env::Env;
use jiff::Timestamp;
use k8s_openapi::api::certificates::v1::CertificateSigningRequest as Request;
use k8s_openapi::api::core::v1::Node;
use machinery::{Key, Object};
use parking_lot::Mutex;
use reconcile::plan::named;
use reconcile::{Action, Controller, Input, Plan};
use serde_json::{Value, json};

use approve::Verdict;
use claims::Claims;

/// The controller. Its keys are certificate signing requests.
pub struct Certificates {
    requests: Cache,
    nodes: Cache,
    authority: Arc<Authority>,
    authorizer: Arc<dyn Authorizer>,
    env: Env,
    claims: Arc<Mutex<Claims>>,
}

impl Certificates {
    /// `authority` signs; `authorizer` says whose requests are approved without a person.
    pub fn new(
        caches: &Caches,
        authority: Arc<Authority>,
        authorizer: Arc<dyn Authorizer>,
        env: Env,
    ) -> Self {
        let (requests, nodes) = (caches.of::<Request>(), caches.of::<Node>());
        Self { requests, nodes, authority, authorizer, env, claims: Arc::default() }
    }

    fn judge(&self, object: &Object, request: &Request, now: Timestamp) -> Option<Action> {
        if is(request, "Denied") || is(request, "Failed") {
            return None;
        }
        if is(request, "Approved") {
            let signed = sign::sign(request, &self.authority, &self.env)?;
            return Some(patch(object, "status", signed));
        }
        let node =
            |name: &str| self.nodes.get(&Key::new("", name)).and_then(|node| typed::<Node>(&node).ok());
        let claim = |name: &str, key: &[u8]| self.claims.lock().claim(name, key, now);
        match approve::judge(request, &*self.authorizer, node, claim) {
            Verdict::Approve(message) => {
                Some(patch(object, "approval", decision(request, "Approved", "AutoApproved", message)))
            }
            Verdict::Deny(message) => {
                Some(patch(object, "approval", decision(request, "Denied", "NodeNameTaken", &message)))
            }
            Verdict::Leave => None,
        }
    }
}

impl Controller for Certificates {
    fn name(&self) -> &'static str {
        "certificate-controller"
    }

    fn inputs(&self) -> Vec<Input> {
        // A serving certificate may have to wait for the addresses of its node.
        let (requests, claims) = (self.requests.clone(), self.claims.clone());
        let of_node = move |node: &Object| {
            if typed::<Node>(node).is_ok_and(|node| approve::is_ready(&node)) {
                claims.lock().settle(&node.meta().name);
            }
            let user = format!("system:node:{}", node.meta().name);
            let waits = |object: &Arc<Object>| {
                typed::<Request>(object).is_ok_and(|request| {
                    request.spec.username.as_deref() == Some(&user) && !is(&request, "Approved")
                })
            };
            requests.all().iter().filter(|object| waits(object)).map(|object| object.key()).collect()
        };
        vec![Input::own(self.requests.clone()), Input::new(self.nodes.clone(), of_node)]
    }

    fn plan(&self, key: &Key, now: Timestamp) -> Plan {
        let Some(object) = self.requests.get(key) else { return Plan::nothing() };
        let Ok(request) = typed::<Request>(&object) else { return Plan::nothing() };
        let left = clean::left(&request, now);
        if left.is_zero() {
            let delete = Action::delete(target_of::<Request>(""), &object, None);
            return Plan { actions: vec![delete], ..Plan::nothing() };
        }
        let actions = self.judge(&object, &request, now).into_iter().collect();
        Plan { actions, next: Some(left), ..Plan::nothing() }
    }
}

/// Whether the request has this condition.
fn is(request: &Request, condition: &str) -> bool {
    let conditions = request.status.as_ref().and_then(|status| status.conditions.as_ref());
    conditions.is_some_and(|all| all.iter().any(|c| c.type_ == condition && c.status == "True"))
}

fn patch(object: &Object, subresource: &str, status: Value) -> Action {
    let mut target = named(target_of::<Request>(""), object);
    target.subresource = subresource.to_owned();
    Action::Patch { target, patch: Patch::Merge(json!({"status": status})) }
}

fn decision(request: &Request, kind: &str, reason: &str, message: &str) -> Value {
    let present = request.status.as_ref().and_then(|status| status.conditions.clone()).unwrap_or_default();
    let mut conditions: Vec<Value> = present.iter().map(|condition| json!(condition)).collect();
    conditions.push(json!({"type": kind, "status": "True", "reason": reason, "message": message}));
    json!({"conditions": conditions})
}
