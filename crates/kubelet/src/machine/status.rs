//! `pod.status`, made anew from what the machine knows.

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{
    ContainerState, ContainerStateRunning, ContainerStateTerminated, ContainerStateWaiting, ContainerStatus,
    HostIP, PodIP, PodStatus, VolumeMountStatus,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::Machine;
use super::adopt::ID_PREFIX;
use super::ending::Cause;
use super::event::Effect;
use super::slot::{Exit, Slot, Waiting};
use super::spec::{Kind, grace_seconds};
use crate::quantity;

impl Machine {
    /// Asks for the status to be written if it is not what was last asked for.
    pub(super) fn publish(&mut self, now: Timestamp) {
        let status = self.status(now);
        if self.published.as_ref() != Some(&status) {
            self.published = Some(status.clone());
            self.emit(Effect::Status(Box::new(status)));
        }
    }

    /// The status that was last asked to be written.
    pub fn published(&self) -> Option<&PodStatus> {
        self.published.as_ref()
    }

    /// The status as it should be in the API.
    pub fn status(&self, now: Timestamp) -> PodStatus {
        if let Some(Cause::Rejected { reason, message }) = self.cause() {
            return self.rejected(reason.clone(), message.clone());
        }
        let statuses: Vec<_> =
            self.slots.iter().map(|slot| (slot.member.kind, self.container_status(slot))).collect();
        let (phase, reason, message) = self.phase_and_reason(&statuses);
        let of = |kinds: &[Kind]| {
            let list: Vec<_> = statuses
                .iter()
                .filter(|(kind, _)| kinds.contains(kind))
                .map(|(_, status)| status.clone())
                .collect();
            Some(list).filter(|list| !list.is_empty())
        };
        let ips = self.addresses();
        PodStatus {
            conditions: Some(self.conditions(&phase, &statuses, now)),
            init_container_statuses: of(&[Kind::Init, Kind::Sidecar]),
            container_statuses: of(&[Kind::Main]),
            ephemeral_container_statuses: of(&[Kind::Ephemeral]),
            phase: Some(phase),
            reason: Some(reason).filter(|text| !text.is_empty()),
            message: Some(message).filter(|text| !text.is_empty()),
            host_ip: self.node.host_ips.first().cloned(),
            host_ips: Some(self.node.host_ips.iter().map(|ip| HostIP { ip: ip.clone() }).collect()),
            pod_ip: ips.first().cloned(),
            pod_ips: Some(ips.into_iter().map(|ip| PodIP { ip }).collect::<Vec<_>>())
                .filter(|ips| !ips.is_empty()),
            qos_class: self.qos_class(),
            start_time: Some(Time(self.start_time)),
            observed_generation: self.pod.metadata.generation,
            ..PodStatus::default()
        }
    }

    fn cause(&self) -> Option<&Cause> {
        self.ending.as_ref().map(|ending| &ending.cause)
    }

    /// A pod that the node turned away has a phase and a reason and nothing else.
    fn rejected(&self, reason: String, message: String) -> PodStatus {
        PodStatus {
            phase: Some("Failed".to_owned()),
            reason: Some(reason),
            message: Some(format!("Pod was rejected: {message}")),
            qos_class: self.qos_class(),
            start_time: Some(Time(self.start_time)),
            observed_generation: self.pod.metadata.generation,
            ..PodStatus::default()
        }
    }

    /// The class never changes, so the one that the API computed stays.
    fn qos_class(&self) -> Option<String> {
        let known = self.pod.status.as_ref().and_then(|status| status.qos_class.clone());
        known.or_else(|| Some(quantity::qos_class(&self.pod).to_owned()))
    }

    /// The pod's addresses: the host's if it shares its network.
    pub fn addresses(&self) -> Vec<String> {
        if self.spec().host_network == Some(true) && self.sandbox().is_some() {
            return self.node.host_ips.clone();
        }
        self.pod_ips.clone()
    }

    fn phase_and_reason(&self, statuses: &[(Kind, ContainerStatus)]) -> (String, String, String) {
        let plain = |phase: &str| (phase.to_owned(), String::new(), String::new());
        let Some(ending) = &self.ending else { return plain(self.phase_of(statuses, false)) };
        if let Cause::Final { phase, reason, message } = &ending.cause {
            return (phase.clone(), reason.clone(), message.clone());
        }
        if !ending.stopped() {
            // Nobody may take the pod for over while something of it still runs.
            let phase = self.phase_of(statuses, false);
            return plain(if matches!(phase, "Succeeded" | "Failed") { "Running" } else { phase });
        }
        let failed =
            |reason: &str, message: &str| ("Failed".to_owned(), reason.to_owned(), message.to_owned());
        match &ending.cause {
            Cause::DeadlineExceeded => {
                failed("DeadlineExceeded", "Pod was active on the node longer than the specified deadline")
            }
            Cause::Evicted(eviction) => failed(&eviction.reason, &eviction.message),
            _ => plain(self.phase_of(statuses, true)),
        }
    }

    fn container_status(&self, slot: &Slot) -> ContainerStatus {
        let running = slot.running();
        let (state, last) = self.states(slot);
        let newest = slot.exit.as_ref();
        let image = running.map(|r| &r.image).or(newest.map(|exit| &exit.image));
        let id = running
            .map(|r| r.id.0.as_str())
            .or(newest.map(|exit| exit.id.as_str()))
            .filter(|id| !id.is_empty());
        let resources = running.map_or(&slot.member.container.resources, |running| &running.resources);
        let has_resources =
            |r: &k8s_openapi::api::core::v1::ResourceRequirements| r.requests.is_some() || r.limits.is_some();
        let ready = match slot.member.kind {
            Kind::Init => self.init_done(slot),
            Kind::Ephemeral => false,
            Kind::Sidecar | Kind::Main => slot.ready(),
        };
        ContainerStatus {
            name: slot.name().to_owned(),
            image: running.map_or(slot.image(), |running| &running.image_name).to_owned(),
            image_id: image.map(|image| image.reference.clone()).unwrap_or_default(),
            container_id: id.map(|id| format!("{ID_PREFIX}{id}")),
            ready,
            started: Some(slot.started()),
            restart_count: i32::try_from(slot.restart_count()).unwrap_or(i32::MAX),
            state: Some(state),
            last_state: Some(last.unwrap_or_default()),
            allocated_resources: resources.as_ref().and_then(|r| r.requests.clone()),
            resources: resources.clone().filter(has_resources),
            volume_mounts: volume_mounts(slot),
            ..ContainerStatus::default()
        }
    }

    /// The present state and the one before.
    fn states(&self, slot: &Slot) -> (ContainerState, Option<ContainerState>) {
        let ended = |exit: &Option<Exit>| exit.as_ref().map(terminated);
        if let Some(running) = slot.running() {
            let running = ContainerStateRunning { started_at: Some(Time(running.started_at)) };
            let state = ContainerState { running: Some(running), ..ContainerState::default() };
            return (state, ended(&slot.exit));
        }
        let over = self.ending.as_ref().is_some_and(|ending| ending.stopped());
        match (&slot.waiting, &slot.exit) {
            (Some(waiting_for), exit) if !over || exit.is_none() => (waiting(waiting_for), ended(&slot.exit)),
            (_, Some(exit)) => (terminated(exit), ended(&slot.previous)),
            (None, None) if over && self.initialized && slot.member.kind == Kind::Main => {
                (unknown_end(), None)
            }
            (_, None) => (waiting(&self.default_waiting(slot)), None),
        }
    }

    fn default_waiting(&self, slot: &Slot) -> Waiting {
        let has_init = self.slots.iter().any(|slot| matches!(slot.member.kind, Kind::Init | Kind::Sidecar));
        let init = has_init && slot.member.kind != Kind::Ephemeral;
        Waiting::new(if init { "PodInitializing" } else { "ContainerCreating" }, "")
    }

    /// The grace period for messages and hooks, in seconds.
    pub fn grace_seconds(&self) -> i64 {
        grace_seconds(&self.pod)
    }
}

fn waiting(waiting: &Waiting) -> ContainerState {
    let waiting = ContainerStateWaiting {
        reason: Some(waiting.reason.clone()),
        message: Some(waiting.message.clone()).filter(|text| !text.is_empty()),
    };
    ContainerState { waiting: Some(waiting), ..ContainerState::default() }
}

fn terminated(exit: &Exit) -> ContainerState {
    let id = Some(&exit.id).filter(|id| !id.is_empty()).map(|id| format!("{ID_PREFIX}{id}"));
    let ended = ContainerStateTerminated {
        container_id: id,
        exit_code: exit.exit_code,
        signal: Some(exit.signal).filter(|signal| *signal != 0),
        reason: Some(exit.reason.clone()).filter(|text| !text.is_empty()),
        message: Some(exit.message.clone()).filter(|text| !text.is_empty()),
        started_at: exit.started_at.map(Time),
        finished_at: exit.finished_at.map(Time),
    };
    ContainerState { terminated: Some(ended), ..ContainerState::default() }
}

fn unknown_end() -> ContainerState {
    let ended = ContainerStateTerminated {
        exit_code: 137,
        reason: Some("ContainerStatusUnknown".to_owned()),
        message: Some("The container could not be located when the pod was terminated".to_owned()),
        ..ContainerStateTerminated::default()
    };
    ContainerState { terminated: Some(ended), ..ContainerState::default() }
}

fn volume_mounts(slot: &Slot) -> Option<Vec<VolumeMountStatus>> {
    let mounts = slot.member.container.volume_mounts.as_ref()?.iter().map(|mount| {
        let read_only = mount.read_only.filter(|read_only| *read_only);
        VolumeMountStatus {
            name: mount.name.clone(),
            mount_path: mount.mount_path.clone(),
            read_only,
            recursive_read_only: mount
                .recursive_read_only
                .clone()
                .or_else(|| read_only.map(|_| "Disabled".to_owned())),
            volume_status: None,
        }
    });
    Some(mounts.collect::<Vec<_>>()).filter(|mounts| !mounts.is_empty())
}
