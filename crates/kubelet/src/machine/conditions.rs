//! The pod's conditions: what is true of it, since when, and why not.

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{ContainerStatus, PodCondition};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::ending::Cause;
use super::spec::Kind;
use super::{Machine, Sandbox};

/// The types that are ours; all others belong to somebody else and are kept.
const OWNED: [&str; 8] = [
    "PodReadyToStartContainers",
    "Initialized",
    "Ready",
    "ContainersReady",
    "PodScheduled",
    "PodResizePending",
    "PodResizeInProgress",
    "DisruptionTarget",
];

/// Whether the kubelet writes conditions of this type.
pub fn is_owned(type_: &str) -> bool {
    OWNED.contains(&type_)
}

/// A condition without times.
struct Verdict {
    type_: &'static str,
    holds: bool,
    reason: &'static str,
    message: String,
}

impl Verdict {
    fn yes(type_: &'static str) -> Self {
        Self { type_, holds: true, reason: "", message: String::new() }
    }

    fn no(type_: &'static str, reason: &'static str, message: impl Into<String>) -> Self {
        Self { type_, holds: false, reason, message: message.into() }
    }
}

impl Machine {
    /// All conditions for the status, with those of others as the object has them.
    pub(super) fn conditions(
        &self,
        phase: &str,
        statuses: &[(Kind, ContainerStatus)],
        now: Timestamp,
    ) -> Vec<PodCondition> {
        let ready = self.containers_ready("ContainersReady", phase, statuses);
        let mut verdicts = vec![
            self.ready_to_start(),
            self.initialized_verdict(phase, statuses),
            self.pod_ready(phase, statuses),
            ready,
            Verdict::yes("PodScheduled"),
        ];
        verdicts.extend(self.disruption());
        verdicts.extend(self.resize_verdicts());
        let mut conditions: Vec<_> = verdicts.into_iter().map(|verdict| self.dated(verdict, now)).collect();
        let known = self.pod.status.as_ref().and_then(|status| status.conditions.as_ref());
        let disrupted = conditions.iter().any(|condition| condition.type_ == "DisruptionTarget");
        conditions.extend(
            known
                .into_iter()
                .flatten()
                .filter(|condition| {
                    !is_owned(&condition.type_) || condition.type_ == "DisruptionTarget" && !disrupted
                })
                .cloned(),
        );
        conditions
    }

    fn dated(&self, verdict: Verdict, now: Timestamp) -> PodCondition {
        let status = if verdict.holds { "True" } else { "False" };
        let find = |conditions: &Option<Vec<PodCondition>>| {
            conditions.iter().flatten().find(|condition| condition.type_ == verdict.type_).cloned()
        };
        let before = self
            .published
            .as_ref()
            .and_then(|status| find(&status.conditions))
            .or_else(|| self.pod.status.as_ref().and_then(|status| find(&status.conditions)));
        let since =
            before.filter(|before| before.status == status).and_then(|before| before.last_transition_time);
        PodCondition {
            type_: verdict.type_.to_owned(),
            status: status.to_owned(),
            reason: Some(verdict.reason.to_owned()).filter(|text| !text.is_empty()),
            message: Some(verdict.message).filter(|text| !text.is_empty()),
            last_transition_time: Some(since.unwrap_or(Time(now))),
            last_probe_time: None,
            observed_generation: self.pod.metadata.generation,
        }
    }

    fn ready_to_start(&self) -> Verdict {
        let type_ = "PodReadyToStartContainers";
        if matches!(self.sandbox, Sandbox::Ready(_)) {
            Verdict::yes(type_)
        } else {
            Verdict::no(type_, "", "")
        }
    }

    fn initialized_verdict(&self, phase: &str, statuses: &[(Kind, ContainerStatus)]) -> Verdict {
        let type_ = "Initialized";
        if phase == "Succeeded" {
            return Verdict { reason: "PodCompleted", ..Verdict::yes(type_) };
        }
        let incomplete = |(kind, status): &&(Kind, ContainerStatus)| match kind {
            Kind::Init => !self.slots.iter().any(|slot| slot.name() == status.name && self.init_done(slot)),
            Kind::Sidecar => !self.initialized && status.started != Some(true),
            Kind::Main | Kind::Ephemeral => false,
        };
        let names = names(statuses.iter().filter(incomplete));
        match names.as_str() {
            "" => Verdict::yes(type_),
            names => Verdict::no(
                type_,
                "ContainersNotInitialized",
                format!("containers with incomplete status: [{names}]"),
            ),
        }
    }

    fn containers_ready(
        &self,
        type_: &'static str,
        phase: &str,
        statuses: &[(Kind, ContainerStatus)],
    ) -> Verdict {
        match phase {
            "Succeeded" => return Verdict::no(type_, "PodCompleted", ""),
            "Failed" => return Verdict::no(type_, "PodFailed", ""),
            _ => {}
        }
        let unready = |(kind, status): &&(Kind, ContainerStatus)| {
            matches!(kind, Kind::Main | Kind::Sidecar) && !status.ready
        };
        match names(statuses.iter().filter(unready)).as_str() {
            "" => Verdict::yes(type_),
            names => {
                Verdict::no(type_, "ContainersNotReady", format!("containers with unready status: [{names}]"))
            }
        }
    }

    fn pod_ready(&self, phase: &str, statuses: &[(Kind, ContainerStatus)]) -> Verdict {
        let containers = self.containers_ready("Ready", phase, statuses);
        if !containers.holds {
            return containers;
        }
        let known = self.pod.status.as_ref().and_then(|status| status.conditions.clone()).unwrap_or_default();
        let gates = self.spec().readiness_gates.iter().flatten();
        let unmet: Vec<_> = gates
            .filter_map(|gate| {
                let name = &gate.condition_type;
                match known.iter().find(|condition| condition.type_ == *name) {
                    None => Some(format!(
                        "corresponding condition of pod readiness gate {name:?} does not exist."
                    )),
                    Some(condition) if condition.status == "True" => None,
                    Some(condition) => Some(format!(
                        "the status of pod readiness gate {name:?} is not \"True\", but {}",
                        condition.status
                    )),
                }
            })
            .collect();
        if unmet.is_empty() {
            containers
        } else {
            Verdict::no("Ready", "ReadinessGatesNotReady", unmet.join(", "))
        }
    }

    fn disruption(&self) -> Option<Verdict> {
        match &self.ending.as_ref()?.cause {
            Cause::Evicted(eviction) => Some(Verdict {
                type_: "DisruptionTarget",
                holds: true,
                reason: "TerminationByKubelet",
                message: eviction.message.clone(),
            }),
            _ => None,
        }
    }

    fn resize_verdicts(&self) -> Vec<Verdict> {
        if self.ending.is_some() || !self.resizing() {
            return Vec::new();
        }
        let condition = |type_, reason, message: &str| Verdict {
            type_,
            holds: true,
            reason,
            message: message.to_owned(),
        };
        match (&self.resize.infeasible, &self.resize.error) {
            (Some(message), _) => vec![condition("PodResizePending", "Infeasible", message)],
            (None, Some(message)) => vec![condition("PodResizeInProgress", "Error", message)],
            (None, None) => vec![condition("PodResizeInProgress", "", "")],
        }
    }
}

fn names<'a>(statuses: impl Iterator<Item = &'a (Kind, ContainerStatus)>) -> String {
    statuses.map(|(_, status)| status.name.as_str()).collect::<Vec<_>>().join(" ")
}
