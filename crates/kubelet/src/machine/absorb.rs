//! Absorbing events: what is known changes; what follows from it is judged elsewhere.

use std::sync::Arc;
use std::time::Duration;

use containers::{ContainerId, SandboxId, SandboxStatus};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;

use super::ending::Cause;
use super::event::{Effect, Event, StartFailure};
use super::probe::{Outcome, ProbeKind, ProbeRecord};
use super::slot::{Exit, Phase, Running, Slot, Waiting};
use super::time::after;
use super::{Machine, Sandbox, Volumes, spec};

/// How long after a stop failed it is tried again.
const STOP_RETRY: Duration = Duration::from_secs(5);
/// How long a container whose configuration cannot be made waits, unless something it refers to changes.
const CONFIG_RETRY: Duration = Duration::from_secs(10);

impl Machine {
    pub(super) fn absorb(&mut self, event: Event, now: Timestamp) {
        match event {
            Event::Pod(pod) => self.absorb_pod(pod),
            Event::ObjectGone => self.object_gone = true,
            Event::Listed { sandboxes, containers } => self.absorb_listing(sandboxes, containers, now),
            Event::Volumes(result) => self.absorb_volumes(result, now),
            Event::ReferencesChanged => self.absorb_references_changed(),
            Event::Sandbox(result) => self.absorb_sandbox(result, now),
            Event::SandboxStopped(id) => self.absorb_sandbox_stopped(&id, now),
            Event::ImageFound { container, image, found } => {
                self.absorb_found(&container, &image, found, now)
            }
            Event::ImagePulled { container, image, pulled } => {
                self.absorb_pulled(&container, &image, pulled, now)
            }
            Event::Created { container, id } => self.absorb_created(&container, &id),
            Event::Started { container, id, started_at, hook } => {
                self.absorb_started(&container, id, started_at, hook)
            }
            Event::StartFailed { container, id, failure, message } => {
                self.absorb_start_failed(&container, id, failure, message, now);
            }
            Event::PostStart { container, id, result } => {
                self.absorb_post_start(&container, &id, result, now)
            }
            Event::PreStopFailed { container, message } => {
                self.slot_event(&container, true, "FailedPreStopHook", &message);
            }
            Event::Exited { container, id, state, message } => {
                self.absorb_exit(&container, &id, &state, &message)
            }
            Event::StopFailed { container, id, message } => {
                self.absorb_stop_failed(&container, &id, &message, now)
            }
            Event::Probed { container, id, kind, outcome } => {
                self.absorb_probe(&container, &id, kind, outcome, now)
            }
            Event::Resized { container, id, result } => self.absorb_resized(&container, &id, result),
            Event::Rejected { reason, message } => {
                self.event(true, reason.clone(), message.clone());
                self.begin_ending(Cause::Rejected { reason, message }, now);
            }
            Event::Evict(eviction) => {
                self.event(true, eviction.reason.clone(), eviction.message.clone());
                self.begin_ending(Cause::Evicted(eviction), now);
            }
            Event::Released(result) => self.absorb_released(result, now),
            Event::Removed(result) => self.absorb_removed(result, now),
            Event::Wake => {}
        }
    }

    fn absorb_pod(&mut self, pod: Arc<Pod>) {
        self.pod = pod;
        for member in spec::members(&self.pod) {
            match self.slots.iter_mut().find(|slot| slot.name() == member.container.name) {
                Some(slot) => slot.member = member,
                None => self.slots.push(Slot::new(member)),
            }
        }
    }

    fn absorb_volumes(&mut self, result: Result<(), Vec<(String, String)>>, now: Timestamp) {
        if self.volumes != Volumes::Mounting {
            return;
        }
        match result {
            Ok(()) => {
                self.volumes = Volumes::Ready;
                self.volumes_retry = Default::default();
            }
            Err(failures) => {
                self.volumes = Volumes::Missing;
                self.volumes_retry.failed(now);
                for (volume, cause) in failures {
                    let message = format!("MountVolume.SetUp failed for volume {volume:?} : {cause}");
                    self.event(true, "FailedMount", message);
                }
            }
        }
    }

    fn absorb_references_changed(&mut self) {
        self.volumes_retry.at = None;
        for slot in &mut self.slots {
            let config =
                slot.waiting.as_ref().is_some_and(|waiting| waiting.reason == StartFailure::Config.reason());
            if config {
                slot.retry_at = None;
            }
        }
    }

    fn absorb_sandbox(&mut self, result: Result<Box<SandboxStatus>, String>, now: Timestamp) {
        match result {
            Ok(sandbox) => {
                self.pod_ips = sandbox.addresses.iter().map(ToString::to_string).collect();
                self.sandbox = Sandbox::Ready(sandbox);
                self.sandbox_retry = Default::default();
            }
            Err(cause) => {
                self.sandbox = Sandbox::None;
                self.sandbox_retry.failed(now);
                self.event(true, "FailedCreatePodSandBox", format!("Failed to create pod sandbox: {cause}"));
            }
        }
    }

    fn absorb_sandbox_stopped(&mut self, id: &SandboxId, now: Timestamp) {
        let stopped = match &self.sandbox {
            Sandbox::Ready(sandbox) if sandbox.id == *id => {
                let id = id.clone();
                if self.ending.is_none() {
                    self.event(
                        false,
                        "SandboxChanged",
                        "Pod sandbox changed, it will be killed and re-created.",
                    );
                }
                self.emit(Effect::StopSandbox { id: id.clone() });
                Sandbox::Stopping(id)
            }
            Sandbox::Stopping(stopping) if stopping == id => Sandbox::Stopped(id.clone()),
            _ => return,
        };
        self.sandbox = stopped;
        if matches!(self.sandbox, Sandbox::Stopped(_)) {
            self.lose_containers_of(id, now);
        }
    }

    /// The runtime kills what runs in a sandbox that it stops; a missing word of an exit is made up for.
    fn lose_containers_of(&mut self, sandbox: &SandboxId, now: Timestamp) {
        for slot in &mut self.slots {
            let Some(running) = slot.running().filter(|running| running.sandbox == *sandbox) else {
                continue;
            };
            let exit = Exit {
                id: running.id.0.clone(),
                sandbox: Some(sandbox.clone()),
                image: running.image.clone(),
                exit_code: 137,
                signal: 0,
                reason: "Error".to_owned(),
                message: String::new(),
                started_at: Some(running.started_at),
                finished_at: Some(now),
                unconditional: false,
            };
            slot.ended(exit);
        }
    }

    fn absorb_created(&mut self, container: &str, _id: &ContainerId) {
        let Some(slot) = self.slot_mut(container) else { return };
        slot.attempt = Some(slot.next_attempt());
        self.slot_event(container, false, "Created", &format!("Created container: {container}"));
    }

    fn absorb_started(&mut self, container: &str, id: ContainerId, started_at: Timestamp, hook: bool) {
        let Some(sandbox) = self.sandbox_id().cloned() else { return };
        let Some(slot) = self.slot_mut(container) else { return };
        let Phase::Starting(image) = &slot.phase else { return };
        let started = id.clone();
        slot.phase = Phase::Running(Box::new(Running {
            id,
            sandbox,
            image: image.clone(),
            image_name: slot.image().to_owned(),
            started_at,
            hook,
            stopping: None,
            startup: ProbeRecord::default(),
            liveness: ProbeRecord::default(),
            readiness: ProbeRecord::default(),
            resources: slot.member.container.resources.clone(),
            resizing: false,
        }));
        slot.waiting = None;
        slot.retry_at = None;
        let early_exit = slot.early_exit.take();
        self.slot_event(container, false, "Started", &format!("Started container {container}"));
        match early_exit {
            Some((ended, state, message)) if ended == started => {
                self.absorb_exit(container, &ended, &state, &message);
            }
            // Nothing, or a late word of the container before.
            Some(_) | None => self.start_probes(container),
        }
    }

    fn absorb_start_failed(
        &mut self,
        container: &str,
        id: Option<ContainerId>,
        failure: StartFailure,
        message: String,
        now: Timestamp,
    ) {
        let sandbox = self.sandbox_id().cloned();
        let Some(slot) = self.slot_mut(container) else { return };
        let Phase::Starting(image) = &slot.phase else { return };
        let image = image.clone();
        slot.phase = Phase::Idle;
        slot.early_exit = None;
        if let StartFailure::VolumeImage { image, failure } = failure {
            slot.volume_image = Some(image.clone());
            return self.absorb_image_failure(container, &image, failure, now);
        }
        if let Some(id) = id {
            slot.ended(Exit {
                id: id.0,
                sandbox,
                image,
                exit_code: 128,
                signal: 0,
                reason: "StartError".to_owned(),
                message: message.clone(),
                started_at: Some(Timestamp::UNIX_EPOCH),
                finished_at: Some(now),
                unconditional: false,
            });
        } else {
            slot.retry_at = Some(after(now, CONFIG_RETRY));
        }
        slot.waiting = Some(Waiting::new(failure.reason(), message.clone()));
        self.slot_event(container, true, "Failed", &format!("Error: {message}"));
    }

    fn absorb_post_start(
        &mut self,
        container: &str,
        id: &ContainerId,
        result: Result<(), String>,
        now: Timestamp,
    ) {
        let Some(running) = self.slot_mut(container).and_then(|slot| slot.running_as(id)) else { return };
        running.hook = false;
        if let Err(message) = result {
            self.slot_event(container, true, "FailedPostStartHook", &message);
            let grace = spec::grace_seconds(&self.pod);
            self.stop_container(container, grace, false, "FailedPostStartHook", now);
        }
    }

    fn absorb_exit(
        &mut self,
        container: &str,
        id: &ContainerId,
        state: &containers::ContainerState,
        message: &str,
    ) {
        let Some(slot) = self.slot_mut(container) else { return };
        if slot.in_flight() {
            slot.early_exit = Some((id.clone(), state.clone(), message.to_owned()));
            return;
        }
        let image = slot.image().to_owned();
        let Some(running) = slot.running_as(id) else { return };
        let Some(exit) = Exit::of(id, &running.sandbox, &running.image, state, message) else { return };
        let unconditional = running.image_name != image || self.resize_restarts(container, id);
        let Some(slot) = self.slot_mut(container) else { return };
        slot.ended(Exit { unconditional, ..exit });
        self.emit(Effect::StopProbes { container: container.to_owned(), kinds: ProbeKind::ALL.to_vec() });
        self.collect_dead(container);
    }

    fn absorb_stop_failed(&mut self, container: &str, id: &ContainerId, message: &str, now: Timestamp) {
        let Some(slot) = self.slot_mut(container) else { return };
        let Some(running) = slot.running_as(id) else { return };
        running.stopping = None;
        slot.retry_at = Some(after(now, STOP_RETRY));
        self.slot_event(container, true, "FailedKillPod", &format!("error killing container: {message}"));
    }

    fn absorb_probe(
        &mut self,
        container: &str,
        id: &ContainerId,
        kind: ProbeKind,
        outcome: Outcome,
        now: Timestamp,
    ) {
        let Some(slot) = self.slot_mut(container) else { return };
        let Some(probe) = slot.probe(kind).cloned() else { return };
        let Some(running) = slot.running_as(id) else { return };
        let success = match &outcome {
            Outcome::Success => true,
            Outcome::Failure(_) => false,
            Outcome::Error(message) => {
                let message =
                    format!("{} probe errored and resulted in unknown state: {message}", kind.title());
                return self.slot_event(container, true, "Unhealthy", &message);
            }
        };
        let was_started = kind == ProbeKind::Startup && running.startup.healthy == Some(true);
        let verdict = running.record(kind).count(success, &probe);
        let stopping = running.stopping.is_some();
        if let Outcome::Failure(message) = &outcome {
            self.slot_event(
                container,
                true,
                "Unhealthy",
                &format!("{} probe failed: {message}", kind.title()),
            );
        }
        match (kind, success) {
            (ProbeKind::Startup, true) if verdict && !was_started => self.start_probes(container),
            (ProbeKind::Startup | ProbeKind::Liveness, false)
                if verdict && !stopping && self.ending.is_none() =>
            {
                self.kill_unhealthy(container, kind, &probe, now);
            }
            _ => {}
        }
    }

    fn kill_unhealthy(
        &mut self,
        container: &str,
        kind: ProbeKind,
        probe: &k8s_openapi::api::core::v1::Probe,
        now: Timestamp,
    ) {
        let grace = probe.termination_grace_period_seconds.unwrap_or_else(|| spec::grace_seconds(&self.pod));
        let word = kind.title().to_lowercase();
        let message = format!("Container {container} failed {word} probe, will be restarted");
        self.emit(Effect::StopProbes {
            container: container.to_owned(),
            kinds: vec![ProbeKind::Startup, ProbeKind::Liveness],
        });
        self.stop_container(container, grace, true, &message, now);
    }

    /// Starts the probes that a running container is due: the startup probe alone first, the others after it.
    pub(super) fn start_probes(&mut self, container: &str) {
        let Some(slot) = self.slot_mut(container) else { return };
        let started = slot.started();
        let Some(running) = slot.running() else { return };
        let (id, started_at) = (running.id.clone(), running.started_at);
        let kinds: &[ProbeKind] =
            if started { &[ProbeKind::Liveness, ProbeKind::Readiness] } else { &[ProbeKind::Startup] };
        let due: Vec<_> = kinds.iter().copied().filter(|kind| slot.probe(*kind).is_some()).collect();
        let container = container.to_owned();
        if started && slot.probe(ProbeKind::Startup).is_some() {
            self.emit(Effect::StopProbes { container: container.clone(), kinds: vec![ProbeKind::Startup] });
        }
        for kind in due {
            self.emit(Effect::StartProbe { container: container.clone(), id: id.clone(), kind, started_at });
        }
    }

    pub(super) fn slot_event(&mut self, container: &str, warning: bool, reason: &'static str, message: &str) {
        let member = self.slots.iter().find(|slot| slot.name() == container).map(|slot| slot.member.clone());
        if let Some(member) = member {
            self.container_event(&member, warning, reason, message);
        }
    }

    /// Keeps the newest dead container of each name (its log may be asked for) and drops the older.
    fn collect_dead(&mut self, container: &str) {
        let Some(slot) = self.slot_mut(container) else { return };
        let keep = slot.dead.len().saturating_sub(1);
        let old: Vec<_> = slot.dead.drain(..keep).collect();
        for id in old {
            self.emit(Effect::RemoveContainer { id });
        }
    }
}
