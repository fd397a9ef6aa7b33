//! The judgement: what the pod needs now, from everything that is known.

use std::time::Duration;

use jiff::Timestamp;

use super::ending::Cause;
use super::event::Effect;
use super::slot::{Phase, Slot, Stopping, Waiting};
use super::spec::{self, Kind};
use super::time::{after, go_seconds};
use super::{Machine, Sandbox, Volumes};

impl Machine {
    pub(super) fn decide(&mut self, now: Timestamp) {
        self.judge_end(now);
        if self.ending.is_some() {
            return self.decide_ending(now);
        }
        self.decide_volumes(now);
        self.decide_sandbox(now);
        if matches!(self.sandbox, Sandbox::Creating | Sandbox::Ready(_)) {
            self.restart_changed(now);
            self.decide_resize();
            self.restart_resized(now);
            self.ask_for_images(now);
            self.start_ready();
        }
    }

    fn judge_end(&mut self, now: Timestamp) {
        if self.pod.metadata.deletion_timestamp.is_some() || self.object_gone {
            self.begin_ending(Cause::Deleted, now);
        } else if self.ending.is_some() {
        } else if self.active_deadline().is_some_and(|deadline| deadline <= now) {
            let message = "Pod was active on the node longer than the specified deadline";
            self.event(false, "DeadlineExceeded", message);
            self.begin_ending(Cause::DeadlineExceeded, now);
        } else if self.finished() {
            self.begin_ending(Cause::Completed, now);
        }
    }

    pub(super) fn active_deadline(&self) -> Option<Timestamp> {
        let seconds = self.spec().active_deadline_seconds?;
        Some(after(self.start_time, Duration::from_secs(seconds.max(0).unsigned_abs())))
    }

    /// Whether nothing of the pod will run again by itself.
    fn finished(&self) -> bool {
        let policy = self.restart_policy();
        let over = |slot: &Slot| {
            slot.at_rest() && slot.exit.as_ref().is_some_and(|exit| !self.runs_again(slot, exit, policy))
        };
        let of = |kind| self.slots.iter().filter(move |slot| slot.member.kind == kind);
        if of(Kind::Init).any(|slot| over(slot) && slot.exit.as_ref().is_some_and(|exit| exit.exit_code != 0))
        {
            return true;
        }
        of(Kind::Main).next().is_some() && of(Kind::Main).all(over)
    }

    fn runs_again(&self, slot: &Slot, exit: &super::slot::Exit, policy: spec::RestartPolicy) -> bool {
        exit.unconditional || spec::restarts(&slot.member, policy, exit.exit_code)
    }

    fn decide_volumes(&mut self, now: Timestamp) {
        if self.volumes == Volumes::Missing && self.volumes_retry.due(now) {
            self.volumes = Volumes::Mounting;
            self.volumes_retry.at = None;
            self.emit(Effect::MountVolumes);
        }
    }

    fn decide_sandbox(&mut self, now: Timestamp) {
        let wanted = matches!(self.sandbox, Sandbox::None | Sandbox::Stopped(_));
        // What starts in the old sandbox must fail first: its answer would be taken for the new one's.
        let in_flight = self.slots.iter().any(Slot::in_flight);
        if wanted && !in_flight && self.sandbox_retry.due(now) {
            self.sandbox = Sandbox::Creating;
            self.sandbox_retry.at = None;
            self.initialized = false;
            let attempt = self.next_sandbox;
            self.next_sandbox = attempt.saturating_add(1);
            self.emit(Effect::CreateSandbox { attempt });
        }
    }

    /// A running container whose image was changed in the specification is made anew.
    fn restart_changed(&mut self, now: Timestamp) {
        let changed = |slot: &&Slot| {
            slot.member.kind != Kind::Ephemeral
                && slot
                    .running()
                    .is_some_and(|running| running.stopping.is_none() && running.image_name != slot.image())
        };
        let names: Vec<_> = self.slots.iter().filter(changed).map(|slot| slot.name().to_owned()).collect();
        for name in names {
            let message = format!("Container {name} definition changed, will be restarted");
            self.stop_container(&name, spec::grace_seconds(&self.pod), true, &message, now);
        }
    }

    fn ask_for_images(&mut self, now: Timestamp) {
        for index in self.due() {
            if self.slots[index].phase == Phase::Idle && !self.backs_off(index, now) {
                self.ask_for_image(index);
            }
        }
    }

    /// The containers that are to run now: all ephemeral ones, and either the init sequence up to the first that is
    /// not done, or all sidecars and main containers.
    fn due(&mut self) -> Vec<usize> {
        let mut due = Vec::new();
        let mut initialized = true;
        for index in 0..self.slots.len() {
            let slot = &self.slots[index];
            let wanted = match slot.member.kind {
                Kind::Ephemeral => slot.attempt.is_none(),
                Kind::Init => !self.initialized && initialized && !self.init_done(slot),
                Kind::Sidecar => self.initialized || initialized,
                Kind::Main => (self.initialized || initialized) && self.main_wanted(slot),
            };
            let blocks = match slot.member.kind {
                Kind::Init => !self.init_done(slot),
                Kind::Sidecar => !slot.started() || slot.running().is_some_and(|running| running.hook),
                Kind::Main | Kind::Ephemeral => false,
            };
            initialized &= !blocks;
            if wanted {
                due.push(index);
            }
        }
        self.initialized |= initialized;
        due
    }

    fn main_wanted(&self, slot: &Slot) -> bool {
        slot.exit.as_ref().is_none_or(|exit| self.runs_again(slot, exit, self.restart_policy()))
    }

    /// Whether an init container has succeeded in the present sandbox, or in the last one of a pod that ends.
    pub(super) fn init_done(&self, slot: &Slot) -> bool {
        let present = |exit: &super::slot::Exit| {
            self.ending.is_some() || exit.sandbox.is_some() && exit.sandbox.as_ref() == self.sandbox_id()
        };
        self.initialized
            || slot.at_rest() && slot.exit.as_ref().is_some_and(|exit| exit.exit_code == 0 && present(exit))
    }

    /// Whether the container must still wait; says why in its waiting reason.
    fn backs_off(&mut self, index: usize, now: Timestamp) -> bool {
        if self.backs_off_from_image(index, now) {
            return true;
        }
        let slot = &self.slots[index];
        if slot.retry_at.is_some_and(|at| at > now) {
            return true;
        }
        let Some(exit) = slot.exit.as_ref().filter(|exit| !exit.unconditional) else { return false };
        // An init container that succeeded in an older sandbox has nothing to back off from.
        let harmless = slot.member.kind == Kind::Init && exit.exit_code == 0;
        if harmless || slot.restarted_after.as_ref() == Some(&exit.id) {
            return false;
        }
        let (id, ended_at) = (exit.id.clone(), exit.ended_at());
        if let Some(ready_at) = slot.crash.ready_at(ended_at).filter(|at| *at > now) {
            self.back_off_from_crash(index, ready_at);
            return true;
        }
        // Each end counts once, however many tries its successor needs for its image and configuration.
        let slot = &mut self.slots[index];
        slot.crash.advance(ended_at, now);
        slot.restarted_after = Some(id);
        false
    }

    fn back_off_from_crash(&mut self, index: usize, ready_at: Timestamp) {
        let display = spec::display_name(&self.pod);
        let slot = &mut self.slots[index];
        let name = slot.name().to_owned();
        slot.retry_at = Some(ready_at);
        let delay = go_seconds(slot.crash.delay());
        let message = format!("back-off {delay} restarting failed container={name} pod={display}");
        slot.waiting = Some(Waiting::new("CrashLoopBackOff", message));
        let text = format!("Back-off restarting failed container {name} in pod {display}");
        self.slot_event(&name, true, "BackOff", &text);
    }

    /// Starts what has its image, in order: a container waits for those before it, and for their postStart hooks.
    fn start_ready(&mut self) {
        let (Some(sandbox), Volumes::Ready) = (self.sandbox_id().cloned(), &self.volumes) else { return };
        for index in 0..self.slots.len() {
            if matches!(self.slots[index].phase, Phase::ImageReady(_)) && !self.waits_for_earlier(index) {
                self.start(index, &sandbox);
            }
        }
    }

    fn waits_for_earlier(&self, index: usize) -> bool {
        let kind = self.slots[index].member.kind;
        let before = self.slots[..index].iter().filter(|slot| slot.member.kind == kind);
        kind == Kind::Main
            && before.into_iter().any(|slot| match &slot.phase {
                Phase::Idle => false,
                Phase::Running(running) => running.hook,
                Phase::FindingImage | Phase::Pulling | Phase::ImageReady(_) | Phase::Starting(_) => true,
            })
    }

    fn start(&mut self, index: usize, sandbox: &containers::SandboxId) {
        let slot = &mut self.slots[index];
        let Phase::ImageReady(image) = &slot.phase else { return };
        let image = image.clone();
        let effect = Effect::StartContainer {
            container: slot.name().to_owned(),
            attempt: slot.next_attempt(),
            image: image.clone(),
            sandbox: sandbox.clone(),
        };
        slot.phase = Phase::Starting(image);
        self.emit(effect);
    }

    /// Begins to stop a running container, or hastens a stop that is under way.
    pub(super) fn stop_container(
        &mut self,
        container: &str,
        grace_seconds: i64,
        pre_stop: bool,
        message: &str,
        now: Timestamp,
    ) {
        let grace = Duration::from_secs(grace_seconds.max(1).unsigned_abs());
        let Some(running) = self.slot_mut(container).and_then(Slot::running_mut) else { return };
        let deadline = after(now, grace);
        let again = match &running.stopping {
            Some(stopping) if stopping.deadline <= deadline => return,
            Some(_) => true,
            None => false,
        };
        running.stopping = Some(Stopping { deadline });
        let id = running.id.clone();
        if !again {
            self.slot_event(container, false, "Killing", message);
        }
        self.emit(Effect::StopContainer {
            container: container.to_owned(),
            id,
            grace,
            pre_stop: pre_stop && !again,
        });
    }
}
