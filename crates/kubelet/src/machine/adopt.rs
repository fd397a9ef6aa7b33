//! Absorbing a listing of the runtime: what runs goes on, what ended counts, restart counts stay.

use containers::{ContainerState as Observation, SandboxStatus};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{ContainerState, ContainerStatus, Pod};

use super::event::{ImageRef, Observed};
use super::probe::{ProbeKind, ProbeRecord};
use super::slot::{Exit, Phase, Slot};
use super::spec::{Kind, Member};
use super::{Machine, Sandbox, Volumes};

/// The container id's prefix in statuses.
pub const ID_PREFIX: &str = "kobune://";

/// A slot with the restart count that the API remembers, in case the runtime's records are gone.
pub(super) fn slot_from_status(member: Member, pod: &Pod) -> Slot {
    let mut slot = Slot::new(member);
    if let Some(status) = api_status(pod, slot.name())
        && (status.restart_count > 0 || status.container_id.as_ref().is_some_and(|id| !id.is_empty()))
    {
        slot.attempt = u32::try_from(status.restart_count).ok();
        let terminated =
            |state: &Option<ContainerState>| state.as_ref().and_then(|state| state.terminated.clone());
        slot.exit = terminated(&status.state).or_else(|| terminated(&status.last_state)).map(|ended| Exit {
            id: ended.container_id.as_deref().unwrap_or_default().trim_start_matches(ID_PREFIX).to_owned(),
            sandbox: None,
            image: ImageRef { id: String::new(), reference: status.image_id.clone() },
            exit_code: ended.exit_code,
            signal: ended.signal.unwrap_or(0),
            reason: ended.reason.clone().unwrap_or_default(),
            message: ended.message.clone().unwrap_or_default(),
            started_at: ended.started_at.as_ref().map(|time| time.0),
            finished_at: ended.finished_at.as_ref().map(|time| time.0),
            unconditional: false,
        });
    }
    slot
}

fn api_status<'a>(pod: &'a Pod, container: &str) -> Option<&'a ContainerStatus> {
    let status = pod.status.as_ref()?;
    let lists =
        [&status.init_container_statuses, &status.container_statuses, &status.ephemeral_container_statuses];
    lists.into_iter().flatten().flatten().find(|status| status.name == container)
}

impl Machine {
    pub(super) fn absorb_listing(
        &mut self,
        sandboxes: Vec<SandboxStatus>,
        containers: Vec<Observed>,
        now: Timestamp,
    ) {
        let newest = sandboxes.into_iter().max_by_key(|sandbox| sandbox.config.attempt);
        if let Some(newest) = newest {
            self.next_sandbox = newest.config.attempt.saturating_add(1);
            self.pod_ips = newest.addresses.iter().map(ToString::to_string).collect();
            self.sandbox =
                if newest.ready { Sandbox::Ready(Box::new(newest)) } else { Sandbox::Stopping(newest.id) };
            if let Sandbox::Stopping(id) = &self.sandbox {
                let id = id.clone();
                self.emit(super::Effect::StopSandbox { id });
            }
        } else if matches!(self.sandbox, Sandbox::Ready(_) | Sandbox::Stopping(_)) {
            self.sandbox = Sandbox::None;
        }
        let names: Vec<_> = self.slots.iter().map(|slot| slot.name().to_owned()).collect();
        for name in names {
            let mut seen: Vec<_> =
                containers.iter().filter(|seen| seen.status.config.name == name).cloned().collect();
            seen.sort_by_key(|seen| (seen.status.config.attempt, seen.status.created_at));
            self.absorb_container(&name, &seen, now);
        }
        self.volumes = Volumes::Missing;
        let main_created = self.slots.iter().any(|slot| {
            slot.member.kind == Kind::Main
                && (slot.running().is_some()
                    || slot.exit.as_ref().is_some_and(|exit| {
                        exit.sandbox.is_some() && exit.sandbox.as_ref() == self.sandbox_id()
                    }))
        });
        self.initialized |= main_created;
    }

    fn absorb_container(&mut self, name: &str, seen: &[Observed], now: Timestamp) {
        let pod = self.pod.clone();
        let Some(slot) = self.slots.iter_mut().find(|slot| slot.name() == name) else { return };
        // Whoever starts it will say how that went.
        if slot.in_flight() {
            return;
        }
        let Some(newest) = seen.last() else {
            if let Phase::Running(lost) = &slot.phase {
                let exit = lost_exit(lost, now);
                slot.ended(exit);
            }
            return;
        };
        slot.attempt = Some(newest.status.config.attempt);
        let mut exits = seen.iter().rev().filter_map(exit_of);
        match &newest.status.state {
            Observation::Running { started_at } => {
                let known = slot.running().is_some_and(|running| running.id == newest.status.id);
                slot.remember(exits.next(), exits.next());
                if !known {
                    slot.adopt(newest, *started_at);
                    settle_probes(slot, &pod);
                    self.start_probes(name);
                }
            }
            Observation::Exited { .. } | Observation::Unknown => {
                slot.phase = Phase::Idle;
                slot.remember(exits.next(), exits.next());
            }
            // Its start was interrupted: it is made anew, under the same count.
            Observation::Created => {
                slot.phase = Phase::Idle;
                slot.attempt = newest.status.config.attempt.checked_sub(1);
                slot.remember(exits.next(), exits.next());
                let id = newest.status.id.clone();
                self.emit(super::Effect::RemoveContainer { id });
            }
        }
        if let Some(slot) = self.slots.iter_mut().find(|slot| slot.name() == name) {
            slot.dead = seen
                .iter()
                .filter(|seen| exit_of(seen).is_some())
                .map(|seen| seen.status.id.clone())
                .collect();
        }
    }
}

/// Probe verdicts survive a restart of the kubelet when the status speaks of the same container.
fn settle_probes(slot: &mut Slot, pod: &Pod) {
    let Some(status) = api_status(pod, slot.name()) else { return };
    let Some(running) = slot.running_mut() else { return };
    let id = status.container_id.as_deref().unwrap_or_default();
    if id.trim_start_matches(ID_PREFIX) != running.id.0 {
        return;
    }
    if status.started == Some(true) {
        *running.record(ProbeKind::Startup) = ProbeRecord::settled(true);
    }
    if status.ready {
        *running.record(ProbeKind::Readiness) = ProbeRecord::settled(true);
    }
}

fn exit_of(seen: &Observed) -> Option<Exit> {
    let image = ImageRef { id: seen.status.config.image_id.clone(), reference: seen.image_reference.clone() };
    Exit::of(&seen.status.id, &seen.status.sandbox, &image, &seen.status.state, &seen.message)
}

fn lost_exit(lost: &super::slot::Running, now: Timestamp) -> Exit {
    Exit {
        id: lost.id.0.clone(),
        sandbox: Some(lost.sandbox.clone()),
        image: lost.image.clone(),
        exit_code: 137,
        signal: 0,
        reason: "ContainerStatusUnknown".to_owned(),
        message: "The container could not be located when the pod was terminated".to_owned(),
        started_at: Some(lost.started_at),
        finished_at: Some(now),
        unconditional: false,
    }
}
