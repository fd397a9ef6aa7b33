//! The end of a pod: containers stop (sidecars last, in reverse), then the sandbox, then volumes and records go.

use std::time::Duration;

use jiff::Timestamp;

use super::event::{Effect, Eviction};
use super::probe::ProbeKind;
use super::slot::{Phase, Slot};
use super::spec::{self, Kind};
use super::time::{after, between};
use super::{Machine, Sandbox};

/// How long after taking something down failed it is tried again.
const CLEANUP_RETRY: Duration = Duration::from_secs(2);

/// Why a pod ends.
#[derive(Clone, Debug, PartialEq)]
pub enum Cause {
    /// The object is being deleted or is gone.
    Deleted,
    /// All containers ended and none is to run again.
    Completed,
    DeadlineExceeded,
    Evicted(Eviction),
    /// The node could not take it.
    Rejected {
        reason: String,
        message: String,
    },
    /// Its status already said so when the machine began.
    Final {
        phase: String,
        reason: String,
        message: String,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Containers,
    Sandbox,
    Releasing,
    Released,
    Removing,
    Done,
}

/// How far the end has come.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Ending {
    pub cause: Cause,
    deadline: Timestamp,
    stage: Stage,
    /// The object is to go, too.
    deleting: bool,
    pub retry_at: Option<Timestamp>,
}

impl Ending {
    /// Nothing of the pod runs any more.
    pub fn stopped(&self) -> bool {
        self.stage > Stage::Containers
    }
}

impl PartialOrd for Stage {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        (*self as u8).partial_cmp(&(*other as u8))
    }
}

impl Machine {
    pub(super) fn keep_final_phase(&mut self, now: Timestamp) {
        let Some(status) = &self.pod.status else { return };
        let text = |field: &Option<String>| field.clone().unwrap_or_default();
        let phase = text(&status.phase);
        if matches!(phase.as_str(), "Succeeded" | "Failed") {
            let cause = Cause::Final { phase, reason: text(&status.reason), message: text(&status.message) };
            self.begin_ending(cause, now);
        }
    }

    pub(super) fn begin_ending(&mut self, cause: Cause, now: Timestamp) {
        let grace = match &cause {
            Cause::Deleted => self.pod.metadata.deletion_grace_period_seconds,
            Cause::Evicted(eviction) => eviction.grace_seconds,
            _ => None,
        };
        let grace = grace.unwrap_or_else(|| spec::grace_seconds(&self.pod)).max(1);
        let deadline = after(now, Duration::from_secs(grace.unsigned_abs()));
        let deleting = cause == Cause::Deleted;
        match &mut self.ending {
            Some(ending) if deleting && !ending.deleting => {
                ending.deleting = true;
                ending.deadline = ending.deadline.min(deadline);
            }
            // The grace period of a deletion may be shortened while it lasts; it counts from now.
            Some(ending) if deleting => ending.deadline = ending.deadline.min(deadline),
            Some(_) => {}
            None => {
                self.ending =
                    Some(Ending { cause, deadline, stage: Stage::Containers, deleting, retry_at: None });
                self.abandon_starts();
            }
        }
    }

    /// What has not begun does not begin, and nothing is restarted for its health.
    fn abandon_starts(&mut self) {
        for slot in &mut self.slots {
            slot.retry_at = None;
            if matches!(slot.phase, Phase::FindingImage | Phase::Pulling | Phase::ImageReady(_)) {
                slot.phase = Phase::Idle;
            }
        }
        let running: Vec<_> = self
            .slots
            .iter()
            .filter(|slot| slot.running().is_some())
            .map(|slot| slot.name().to_owned())
            .collect();
        for container in running {
            self.emit(Effect::StopProbes { container, kinds: vec![ProbeKind::Startup, ProbeKind::Liveness] });
        }
    }

    pub(super) fn decide_ending(&mut self, now: Timestamp) {
        let Some(mut ending) = self.ending.clone() else { return };
        if ending.retry_at.is_some_and(|at| at > now) {
            return;
        }
        ending.retry_at = None;
        loop {
            let before = ending.stage;
            self.advance(&mut ending, now);
            if ending.stage == before {
                break;
            }
        }
        self.ending = Some(ending);
    }

    fn advance(&mut self, ending: &mut Ending, now: Timestamp) {
        match ending.stage {
            Stage::Containers => {
                self.stop_all(ending.deadline, now);
                if self.slots.iter().all(Slot::at_rest) && self.sandbox != Sandbox::Creating {
                    ending.stage = Stage::Sandbox;
                    self.stop_sandbox();
                }
            }
            Stage::Sandbox if matches!(self.sandbox, Sandbox::None | Sandbox::Stopped(_)) => {
                ending.stage = Stage::Releasing;
                self.emit(Effect::Release);
            }
            Stage::Released if ending.deleting => {
                ending.stage = Stage::Removing;
                self.emit(Effect::Remove);
            }
            Stage::Sandbox | Stage::Releasing | Stage::Released | Stage::Removing | Stage::Done => {}
        }
    }

    fn stop_sandbox(&mut self) {
        if let Sandbox::Ready(sandbox) = &self.sandbox {
            let id = sandbox.id.clone();
            self.sandbox = Sandbox::Stopping(id.clone());
            self.emit(Effect::StopSandbox { id });
        }
    }

    fn stop_all(&mut self, deadline: Timestamp, now: Timestamp) {
        let sidecar = |slot: &&Slot| slot.member.kind == Kind::Sidecar;
        let others_left = self.slots.iter().filter(|slot| !sidecar(slot)).any(|slot| !slot.at_rest());
        let due: Vec<_> = if others_left {
            self.slots.iter().filter(|slot| !sidecar(slot)).map(|slot| slot.name().to_owned()).collect()
        } else {
            let last = self.slots.iter().rev().filter(sidecar).find(|slot| !slot.at_rest());
            last.map(|slot| slot.name().to_owned()).into_iter().collect()
        };
        let grace = between(now, deadline).as_secs_f64().ceil() as i64;
        for name in due {
            let waits =
                self.slots.iter().any(|slot| slot.name() == name && slot.retry_at.is_some_and(|at| at > now));
            if !waits {
                self.stop_container(&name, grace, true, &format!("Stopping container {name}"), now);
            }
        }
    }

    pub(super) fn absorb_released(&mut self, result: Result<(), String>, now: Timestamp) {
        let failed = result.is_err();
        if let Some(ending) = self.ending.as_mut().filter(|ending| ending.stage == Stage::Releasing) {
            ending.stage = if failed { Stage::Sandbox } else { Stage::Released };
            ending.retry_at = failed.then(|| after(now, CLEANUP_RETRY));
        }
        if let Err(message) = result {
            self.event(true, "FailedUnMount", message);
        }
    }

    pub(super) fn absorb_removed(&mut self, result: Result<(), String>, now: Timestamp) {
        let failed = result.is_err();
        let Some(ending) = self.ending.as_mut().filter(|ending| ending.stage == Stage::Removing) else {
            return;
        };
        ending.stage = if failed { Stage::Released } else { Stage::Done };
        ending.retry_at = failed.then(|| after(now, CLEANUP_RETRY));
        match result {
            Err(message) => self.event(true, "FailedKillPod", message),
            Ok(()) => {
                if !self.object_gone {
                    // The last status must be written before the object goes.
                    self.publish(now);
                    self.emit(Effect::DeleteObject);
                }
                self.emit(Effect::Forget);
            }
        }
    }
}
