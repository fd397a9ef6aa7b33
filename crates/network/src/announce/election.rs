//! Who answers for an address: the holder of its Lease, as `client-go` elects leaders.
//!
//! No clocks are compared: a Lease has run out when it was not renewed for its duration since it was seen to change.
//! While the API cannot be reached nobody can take over, so the holder keeps the address. A holder whose process dies
//! loses it: the kernel removes what is not renewed.

use std::net::IpAddr;
use std::time::Duration;

use client::{Client, Resources};
use env::{Env, Shutdown};
use k8s_openapi::api::coordination::v1::Lease;
use machinery::Status;
use serde_json::{Value, json};
use tokio::time::Instant;

use super::Holder;
use crate::NetworkError;

const NAMESPACE: &str = "kube-system";
/// How long a holder that is not heard of keeps an address.
const DURATION: Duration = Duration::from_secs(6);
/// How often a holder is heard of, and others look.
const RENEWAL: Duration = Duration::from_secs(2);
/// How long an answer is waited for.
const PATIENCE: Duration = Duration::from_secs(2);

/// The election for one address.
pub struct Election {
    leases: Resources,
    env: Env,
    node: String,
    address: IpAddr,
    /// The Lease as it was last seen to change, and when.
    seen: Option<(Value, Instant)>,
}

/// What to do about a Lease.
#[derive(Debug, PartialEq)]
enum Step {
    /// It is ours, or may be.
    Take,
    Wait,
}

impl Election {
    pub fn new(client: &Client, env: Env, node: &str, address: IpAddr) -> Self {
        let leases = client.namespaced::<Lease>(NAMESPACE);
        Self { leases, env, node: node.to_owned(), address, seen: None }
    }

    /// Takes part until `stop`, and has the address on an interface while the Lease is held.
    pub async fn run(mut self, holder: Holder, stop: Shutdown) {
        let mut holds = false;
        loop {
            // A server that hangs must not keep the holder from renewing the address.
            let attempt = tokio::time::timeout(PATIENCE, self.attempt()).await;
            let held = match attempt
                .unwrap_or_else(|_| Err(Status::timeout("the API server does not answer", 0)))
            {
                Ok(held) => held,
                Err(status) => {
                    tracing::debug!(address = %self.address, %status, "the address's Lease is out of reach");
                    // The holder could not renew it either.
                    self.seen = None;
                    holds
                }
            };
            match (holds, held) {
                (false, true) => self.tell(true, holder.take(self.address, DURATION)),
                (true, true) => self.complain(holder.keep(self.address, DURATION).map(drop)),
                (true, false) => self.tell(false, holder.leave(self.address)),
                (false, false) => {}
            }
            holds = held;
            tokio::select! {
                () = stop.cancelled() => break,
                () = tokio::time::sleep(RENEWAL) => {}
            }
        }
        if holds {
            self.tell(false, holder.leave(self.address));
            if let Err(status) = self.release().await {
                tracing::debug!(%status, "the address's Lease runs out by itself");
            }
        }
    }

    fn tell(&self, here: bool, done: Result<(), NetworkError>) {
        if done.is_ok() {
            tracing::info!(address = %self.address, here, "load balancer address");
        }
        self.complain(done);
    }

    fn complain(&self, done: Result<(), NetworkError>) {
        if let Err(error) = done {
            let cause = &error as &dyn std::error::Error;
            tracing::warn!(address = %self.address, error = cause, "load balancer address");
        }
    }

    fn name(&self) -> String {
        format!("load-balancer-{}", self.address.to_string().replace(['.', ':'], "-"))
    }

    /// Renews the Lease or takes it when it is free; whether it is ours now.
    async fn attempt(&mut self) -> Result<bool, Status> {
        let Some(stored) = self.leases.find(&self.name()).await? else {
            let created = self.leases.create(&self.body(Value::Null)).await;
            return match created {
                Ok(_) => Ok(true),
                Err(status) if status.is_already_exists() => Ok(false),
                Err(status) => Err(status),
            };
        };
        let lease = stored.value();
        let now = Instant::now();
        if self.seen.as_ref().is_none_or(|(spec, _)| *spec != lease["spec"]) {
            self.seen = Some((lease["spec"].clone(), now));
        }
        let age = self.seen.as_ref().map_or(Duration::ZERO, |(_, at)| now - *at);
        if judge(&lease["spec"], &self.node, age) == Step::Wait {
            return Ok(false);
        }
        let body = self.body(lease);
        match self.leases.update(&self.name(), &body).await {
            Ok(_) => {
                self.seen = Some((body["spec"].clone(), now));
                Ok(true)
            }
            // Another node's, or one of ours of which the answer was lost.
            Err(status) if status.is_conflict() => {
                let stored = self.leases.find(&self.name()).await?;
                Ok(stored.is_some_and(|lease| lease.value()["spec"]["holderIdentity"] == self.node.as_str()))
            }
            Err(status) => Err(status),
        }
    }

    /// The Lease as this node holds it; the revision of what was read guards it.
    fn body(&self, old: Value) -> Value {
        let now = self.env.now().strftime("%Y-%m-%dT%H:%M:%S%.6fZ").to_string();
        let mine = old["spec"]["holderIdentity"] == self.node.as_str();
        let acquired = if mine { old["spec"]["acquireTime"].clone() } else { json!(now) };
        let mut body = match old {
            Value::Null => json!({"apiVersion": "coordination.k8s.io/v1", "kind": "Lease",
                "metadata": {"name": self.name(), "namespace": NAMESPACE}}),
            old => old,
        };
        body["spec"] = json!({"holderIdentity": self.node, "leaseDurationSeconds": DURATION.as_secs(),
            "acquireTime": acquired, "renewTime": now});
        body
    }

    async fn release(&self) -> Result<(), Status> {
        let Some(stored) = self.leases.find(&self.name()).await? else { return Ok(()) };
        let mut lease = stored.value();
        if lease["spec"]["holderIdentity"] != self.node.as_str() {
            return Ok(());
        }
        lease["spec"]["holderIdentity"] = json!("");
        self.leases.update(&self.name(), &lease).await.map(drop)
    }
}

fn judge(spec: &Value, node: &str, age: Duration) -> Step {
    let holder = spec["holderIdentity"].as_str().unwrap_or_default();
    let duration = spec["leaseDurationSeconds"].as_u64().map_or(DURATION, Duration::from_secs);
    if holder.is_empty() || holder == node || age > duration { Step::Take } else { Step::Wait }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lease_is_taken_when_free_own_or_run_out() {
        let spec = |holder: &str| json!({"holderIdentity": holder, "leaseDurationSeconds": 6});
        for (holder, age, step) in
            [("", 0, Step::Take), ("me", 3, Step::Take), ("other", 6, Step::Wait), ("other", 7, Step::Take)]
        {
            assert_eq!(judge(&spec(holder), "me", Duration::from_secs(age)), step, "{holder} {age}");
        }
        assert_eq!(judge(&json!({}), "me", Duration::ZERO), Step::Take);
    }
}
