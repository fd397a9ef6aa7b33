//! What the machine remembers of one container.

use containers::{ContainerId, ContainerState, SandboxId};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Probe, ResourceRequirements};

use super::backoff::BackOff;
use super::event::{ImageRef, Observed};
use super::probe::{ProbeKind, ProbeRecord};
use super::spec::Member;

/// One container of the pod: its specification and everything known of it.
#[derive(Clone, Debug)]
pub struct Slot {
    pub member: Member,
    pub phase: Phase,
    /// The attempt of the newest container; `None` before the first was created.
    pub attempt: Option<u32>,
    /// How the newest container that ended did so.
    pub exit: Option<Exit>,
    /// And the one before.
    pub previous: Option<Exit>,
    /// Why it waits, when there is more to say than that it is being created.
    pub waiting: Option<Waiting>,
    /// Not to be tried again before this.
    pub retry_at: Option<Timestamp>,
    pub crash: BackOff,
    pub pull: BackOff,
    /// It is known that the runtime has a dead container of this attempt.
    pub dead: Vec<ContainerId>,
    /// The container whose end its restart was last counted for.
    pub restarted_after: Option<String>,
    /// It ended before the word of its start came.
    pub early_exit: Option<(ContainerId, ContainerState, String)>,
    /// The image of a volume for which its last start failed.
    pub volume_image: Option<String>,
}

/// `status.state.waiting`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Waiting {
    pub reason: String,
    pub message: String,
}

impl Waiting {
    pub fn new(reason: &str, message: impl Into<String>) -> Self {
        Self { reason: reason.to_owned(), message: message.into() }
    }
}

/// What is going on.
#[derive(Clone, Debug, PartialEq)]
pub enum Phase {
    /// Nothing; whether it starts is judged from the rest.
    Idle,
    FindingImage,
    Pulling,
    /// Everything is there; it starts when those before it have started.
    ImageReady(ImageRef),
    Starting(ImageRef),
    Running(Box<Running>),
}

/// A container whose process runs.
#[derive(Clone, Debug, PartialEq)]
pub struct Running {
    pub id: ContainerId,
    pub sandbox: SandboxId,
    pub image: ImageRef,
    /// The image as it was written when the container was made.
    pub image_name: String,
    pub started_at: Timestamp,
    /// The postStart hook still runs.
    pub hook: bool,
    pub stopping: Option<Stopping>,
    pub startup: ProbeRecord,
    pub liveness: ProbeRecord,
    pub readiness: ProbeRecord,
    /// What the kernel was told.
    pub resources: Option<ResourceRequirements>,
    pub resizing: bool,
}

/// A stop is under way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stopping {
    /// When the container is killed at the latest.
    pub deadline: Timestamp,
}

impl Running {
    pub fn record(&mut self, kind: ProbeKind) -> &mut ProbeRecord {
        match kind {
            ProbeKind::Startup => &mut self.startup,
            ProbeKind::Liveness => &mut self.liveness,
            ProbeKind::Readiness => &mut self.readiness,
        }
    }
}

/// How a container ended.
#[derive(Clone, Debug, PartialEq)]
pub struct Exit {
    /// Empty when the container was never seen.
    pub id: String,
    pub sandbox: Option<SandboxId>,
    pub image: ImageRef,
    pub exit_code: i32,
    pub signal: i32,
    pub reason: String,
    pub message: String,
    pub started_at: Option<Timestamp>,
    pub finished_at: Option<Timestamp>,
    /// It was made while the pod was being created anew for a changed definition: restart without back-off.
    pub unconditional: bool,
}

impl Exit {
    /// From the runtime's word; `None` if it does not say that the container ended.
    pub fn of(
        id: &ContainerId,
        sandbox: &SandboxId,
        image: &ImageRef,
        state: &ContainerState,
        message: &str,
    ) -> Option<Self> {
        let blank = Self {
            id: id.0.clone(),
            sandbox: Some(sandbox.clone()),
            image: image.clone(),
            exit_code: 137,
            signal: 0,
            reason: "ContainerStatusUnknown".to_owned(),
            message: "The container could not be located when the pod was terminated".to_owned(),
            started_at: None,
            finished_at: None,
            unconditional: false,
        };
        match state {
            ContainerState::Exited { started_at, finished_at, exit_code, signal, reason, message: own } => {
                Some(Self {
                    exit_code: *exit_code,
                    signal: 0.max(*signal),
                    reason: reason.clone(),
                    message: if message.is_empty() { own.clone() } else { message.to_owned() },
                    started_at: Some(*started_at),
                    finished_at: Some(*finished_at),
                    ..blank
                })
            }
            ContainerState::Unknown => Some(blank),
            ContainerState::Created | ContainerState::Running { .. } => None,
        }
    }

    /// When to count the back-off from.
    pub fn ended_at(&self) -> Timestamp {
        self.finished_at.unwrap_or(Timestamp::UNIX_EPOCH)
    }
}

impl Slot {
    pub fn new(member: Member) -> Self {
        Self {
            member,
            phase: Phase::Idle,
            attempt: None,
            exit: None,
            previous: None,
            waiting: None,
            retry_at: None,
            crash: BackOff::default(),
            pull: BackOff::default(),
            dead: Vec::new(),
            restarted_after: None,
            early_exit: None,
            volume_image: None,
        }
    }

    pub fn name(&self) -> &str {
        &self.member.container.name
    }

    pub fn image(&self) -> &str {
        self.member.container.image.as_deref().unwrap_or_default()
    }

    pub fn running(&self) -> Option<&Running> {
        match &self.phase {
            Phase::Running(running) => Some(running),
            _ => None,
        }
    }

    pub fn running_mut(&mut self) -> Option<&mut Running> {
        match &mut self.phase {
            Phase::Running(running) => Some(running),
            _ => None,
        }
    }

    /// The running container if it is this one.
    pub fn running_as(&mut self, id: &ContainerId) -> Option<&mut Running> {
        self.running_mut().filter(|running| running.id == *id)
    }

    /// The executor works on its start and cannot be called back.
    pub fn in_flight(&self) -> bool {
        matches!(self.phase, Phase::Starting(_))
    }

    /// Nothing runs and nothing is being made.
    pub fn at_rest(&self) -> bool {
        !self.in_flight() && self.running().is_none()
    }

    /// The restart count of the status.
    pub fn restart_count(&self) -> u32 {
        self.attempt.unwrap_or(0)
    }

    /// The attempt of the next container.
    pub fn next_attempt(&self) -> u32 {
        self.attempt.map_or(0, |attempt| attempt.saturating_add(1))
    }

    pub fn probe(&self, kind: ProbeKind) -> Option<&Probe> {
        let container = &self.member.container;
        match kind {
            ProbeKind::Startup => container.startup_probe.as_ref(),
            ProbeKind::Liveness => container.liveness_probe.as_ref(),
            ProbeKind::Readiness => container.readiness_probe.as_ref(),
        }
    }

    /// `status.started`: it runs and its startup probe (if any) has succeeded.
    pub fn started(&self) -> bool {
        self.running().is_some_and(|running| match self.probe(ProbeKind::Startup) {
            None => true,
            Some(_) => running.startup.healthy == Some(true),
        })
    }

    /// `status.ready`.
    pub fn ready(&self) -> bool {
        let probed = |running: &Running| match self.probe(ProbeKind::Readiness) {
            None => true,
            Some(_) => running.readiness.healthy == Some(true),
        };
        self.started() && self.running().is_some_and(probed)
    }

    /// Records how the newest container ended.
    pub fn ended(&mut self, exit: Exit) {
        self.dead.push(ContainerId(exit.id.clone()));
        self.previous = self.exit.replace(exit);
        self.phase = Phase::Idle;
        self.waiting = None;
        self.retry_at = None;
    }

    /// What the runtime knows of earlier ends replaces what the API remembered, if there is any.
    pub fn remember(&mut self, exit: Option<Exit>, previous: Option<Exit>) {
        if exit.is_some() {
            (self.exit, self.previous) = (exit, previous);
        }
    }

    /// The container is observed running.
    pub fn adopt(&mut self, seen: &Observed, started_at: Timestamp) {
        let image =
            ImageRef { id: seen.status.config.image_id.clone(), reference: seen.image_reference.clone() };
        self.phase = Phase::Running(Box::new(Running {
            id: seen.status.id.clone(),
            sandbox: seen.status.sandbox.clone(),
            image,
            image_name: seen.status.config.image.clone(),
            started_at,
            hook: false,
            stopping: None,
            startup: ProbeRecord::default(),
            liveness: ProbeRecord::default(),
            readiness: ProbeRecord::default(),
            resources: self.member.container.resources.clone(),
            resizing: false,
        }));
        self.waiting = None;
    }
}
