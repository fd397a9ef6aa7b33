//! Scripts: events go in, effects and the status come out, as text.

mod lifecycle;
mod phases;
mod restarts;
mod termination;

use std::sync::Arc;

use containers::{
    ContainerConfig, ContainerId, ContainerState, ContainerStatus, SandboxConfig, SandboxId, SandboxStatus,
};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::Pod;
use serde_json::{Value, json};

use super::probe::{Outcome, ProbeKind};
use super::*;

/// A pod under test with its clock and a transcript.
pub struct Script {
    pub machine: Machine,
    pub now: Timestamp,
    pub log: String,
    pub value: Value,
    events: bool,
}

/// A pod with this specification.
pub fn pod_value(spec: Value) -> Value {
    json!({"metadata": {"name": "web", "namespace": "ns", "uid": "u1", "generation": 1}, "spec": spec})
}

pub fn typed(value: &Value) -> Arc<Pod> {
    Arc::new(serde_json::from_value(value.clone()).unwrap())
}

pub fn start_of_time() -> Timestamp {
    Timestamp::from_second(1_000_000).unwrap()
}

impl Script {
    pub fn new(spec: Value) -> Self {
        Self::of(pod_value(spec))
    }

    pub fn of(value: Value) -> Self {
        let now = start_of_time();
        let node = NodeFacts { host_ips: vec!["192.0.2.1".into()], ..NodeFacts::default() };
        let machine = Machine::new(typed(&value), node, now);
        Self { machine, now, log: String::new(), value, events: false }
    }

    /// With events in the transcript.
    pub fn with_events(mut self) -> Self {
        self.events = true;
        self
    }

    pub fn step(&mut self, event: Event) -> Vec<Effect> {
        let effects = self.machine.step(event, self.now);
        for effect in &effects {
            self.note(effect);
        }
        effects
    }

    pub fn listed(&mut self) -> Vec<Effect> {
        self.step(Event::Listed { sandboxes: Vec::new(), containers: Vec::new() })
    }

    pub fn after(&mut self, seconds: i64) -> &mut Self {
        self.now += SignedDuration::from_secs(seconds);
        self.log += &format!("-- +{seconds}s\n");
        self
    }

    /// Lets time pass until the machine wants to be woken, and wakes it; returns how long that was.
    pub fn sleep(&mut self) -> i64 {
        let at = self.machine.next_wake().expect("the machine wants to be woken");
        let seconds = at.duration_since(self.now).as_secs();
        self.now = at.max(self.now);
        self.log += &format!("-- +{seconds}s\n");
        self.step(Event::Wake);
        seconds
    }

    fn note(&mut self, effect: &Effect) {
        let line = match effect {
            Effect::Status(_) => return,
            Effect::Event(event) if self.events => {
                let kind = if event.warning { "Warning" } else { "Normal" };
                format!("event {kind} {} {}", event.reason, event.message)
            }
            Effect::Event(_) => return,
            Effect::MountVolumes => "mount".to_owned(),
            Effect::CreateSandbox { attempt } => format!("sandbox {attempt}"),
            Effect::StopSandbox { id } => format!("stop sandbox {}", id.0),
            Effect::FindImage { container, image } => format!("find {image} for {container}"),
            Effect::PullImage { container, image } => format!("pull {image} for {container}"),
            Effect::StartContainer { container, attempt, sandbox, .. } => {
                format!("start {container}/{attempt} in {}", sandbox.0)
            }
            Effect::StopContainer { container, grace, pre_stop, .. } => {
                format!("stop {container} {}s{}", grace.as_secs(), if *pre_stop { " after hook" } else { "" })
            }
            Effect::UpdateResources { container, .. } => format!("resize {container}"),
            Effect::RemoveContainer { id } => format!("remove {}", id.0),
            Effect::StartProbe { container, kind, .. } => format!("probe {container} {kind:?}"),
            Effect::StopProbes { container, kinds } => format!("unprobe {container} {kinds:?}"),
            Effect::Release => "release".to_owned(),
            Effect::Remove => "remove all".to_owned(),
            Effect::DeleteObject => "delete object".to_owned(),
            Effect::Forget => "forget".to_owned(),
        };
        self.log += &line;
        self.log.push('\n');
    }

    pub fn volumes(&mut self) {
        self.step(Event::Volumes(Ok(())));
    }

    pub fn sandbox(&mut self, attempt: u32) {
        self.step(Event::Sandbox(Ok(Box::new(sandbox(attempt)))));
    }

    /// Volumes and sandbox are there.
    pub fn prepared(&mut self) {
        self.listed();
        self.volumes();
        self.sandbox(0);
    }

    pub fn image(&mut self, container: &str) {
        let found = Ok(Some(image()));
        self.step(Event::ImageFound { container: container.into(), image: "img".into(), found });
    }

    /// The answers to a start that goes well.
    pub fn started(&mut self, container: &str, id: &str) {
        self.step(Event::Created { container: container.into(), id: ContainerId(id.into()) });
        let hook = false;
        let started_at = self.now;
        self.step(Event::Started {
            container: container.into(),
            id: ContainerId(id.into()),
            started_at,
            hook,
        });
    }

    /// From wanting an image to running.
    pub fn runs(&mut self, container: &str, id: &str) {
        self.image(container);
        self.started(container, id);
    }

    pub fn exits(&mut self, container: &str, id: &str, exit_code: i32) {
        let state = exited(self.now, exit_code);
        self.step(Event::Exited {
            container: container.into(),
            id: ContainerId(id.into()),
            state,
            message: String::new(),
        });
    }

    pub fn probed(&mut self, container: &str, id: &str, kind: ProbeKind, success: bool) {
        let outcome = if success { Outcome::Success } else { Outcome::Failure("no".into()) };
        self.step(Event::Probed { container: container.into(), id: ContainerId(id.into()), kind, outcome });
    }

    /// The object is being deleted with a grace period.
    pub fn delete(&mut self, grace_seconds: i64) -> Vec<Effect> {
        self.value["metadata"]["deletionTimestamp"] = json!("1970-01-12T13:46:40Z");
        self.value["metadata"]["deletionGracePeriodSeconds"] = json!(grace_seconds);
        let pod = typed(&self.value);
        self.step(Event::Pod(pod))
    }

    /// The rest of an end, once all containers have stopped.
    pub fn cleaned(&mut self, sandbox: &str) {
        self.step(Event::SandboxStopped(SandboxId(sandbox.into())));
        self.step(Event::Released(Ok(())));
    }

    pub fn status(&self) -> PodStatus {
        self.machine.status(self.now)
    }

    /// Phase, and of each container its state in few words.
    pub fn summary(&self) -> String {
        let status = self.status();
        let mut text = status.phase.clone().unwrap_or_default();
        if let Some(reason) = &status.reason {
            text += &format!(" ({reason})");
        }
        let lists = [
            &status.init_container_statuses,
            &status.container_statuses,
            &status.ephemeral_container_statuses,
        ];
        for container in lists.into_iter().flatten().flatten() {
            let state = container.state.clone().unwrap_or_default();
            let shown = if let Some(waiting) = state.waiting {
                waiting.reason.unwrap_or_default()
            } else if let Some(ended) = state.terminated {
                format!("{}:{}", ended.reason.unwrap_or_default(), ended.exit_code)
            } else {
                "running".to_owned()
            };
            let ready = if container.ready { "+" } else { "" };
            text += &format!(" {}={shown}{ready}/{}", container.name, container.restart_count);
        }
        text
    }

    pub fn condition(&self, type_: &str) -> String {
        let conditions = self.status().conditions.unwrap_or_default();
        let found =
            conditions.into_iter().find(|condition| condition.type_ == type_).expect("the condition exists");
        let detail = [found.reason, found.message].into_iter().flatten().collect::<Vec<_>>().join(": ");
        format!("{} {detail}", found.status).trim_end().to_owned()
    }

    /// Takes the transcript so far.
    pub fn transcript(&mut self) -> String {
        std::mem::take(&mut self.log)
    }
}

pub fn image() -> ImageRef {
    ImageRef { id: "sha256:1".into(), reference: "docker.io/library/img@sha256:2".into() }
}

pub fn sandbox(attempt: u32) -> SandboxStatus {
    SandboxStatus {
        id: SandboxId(format!("s{attempt}")),
        config: SandboxConfig { attempt, ..SandboxConfig::default() },
        ready: true,
        created_at: start_of_time(),
        addresses: vec!["10.0.0.2".parse().unwrap()],
        network_namespace: None,
    }
}

pub fn exited(at: Timestamp, exit_code: i32) -> ContainerState {
    ContainerState::Exited {
        started_at: at,
        finished_at: at,
        exit_code,
        signal: 0,
        reason: if exit_code == 0 { "Completed" } else { "Error" }.into(),
        message: String::new(),
    }
}

pub fn observed(name: &str, id: &str, attempt: u32, sandbox: &str, state: ContainerState) -> Observed {
    Observed {
        status: ContainerStatus {
            id: ContainerId(id.into()),
            sandbox: SandboxId(sandbox.into()),
            config: ContainerConfig {
                name: name.into(),
                attempt,
                image: "img".into(),
                image_id: "sha256:1".into(),
                ..ContainerConfig::default()
            },
            state,
            created_at: start_of_time(),
            log_path: std::path::PathBuf::new(),
            pid: None,
        },
        message: String::new(),
        image_reference: "docker.io/library/img@sha256:2".into(),
    }
}

/// A container of this name.
pub fn c(name: &str) -> Value {
    json!({"name": name, "image": "img"})
}
