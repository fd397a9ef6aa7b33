//! What the machine hears ([`Event`]) and what it asks for ([`Effect`]).
//!
//! Both are closed. Every effect that takes time is answered by exactly one event; until then the machine
//! remembers that it is under way and does not ask again.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use containers::{ContainerId, ContainerState, ContainerStatus, SandboxId, SandboxStatus};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Pod, PodStatus, ResourceRequirements};

use super::probe::{Outcome, ProbeKind};

/// An image that is on this machine.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ImageRef {
    /// The runtime's name for it, `sha256:…`.
    pub id: String,
    /// What `status.containerStatuses[].imageID` shows: a name with digest, or the id.
    pub reference: String,
}

/// A pull that succeeded.
#[derive(Clone, Debug, PartialEq)]
pub struct Pulled {
    pub image: ImageRef,
    pub took: Duration,
    /// With the time spent waiting for other pulls.
    pub took_with_waiting: Duration,
    pub size_bytes: u64,
}

/// Why an image is not to be had, as the machine tells apart.
#[derive(Clone, Debug, PartialEq)]
pub enum ImageFailure {
    /// The name cannot be parsed.
    InvalidName(String),
    /// Everything that may pass: missing, denied, unreachable.
    Failed(String),
}

/// Which part of starting a container failed; [`StartFailure::reason`] is the waiting reason.
#[derive(Clone, Debug, PartialEq)]
pub enum StartFailure {
    /// The image of a volume is not to be had.
    VolumeImage { image: String, failure: ImageFailure },
    /// The configuration refers to what is missing or contradicts itself.
    Config,
    /// The runtime refused to create it.
    Create,
    /// It was created and its process could not be started.
    Run,
}

impl StartFailure {
    /// The upstream waiting reason.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::VolumeImage { failure: ImageFailure::InvalidName(_), .. } => "InvalidImageName",
            Self::VolumeImage { .. } => "ErrImagePull",
            Self::Config => "CreateContainerConfigError",
            Self::Create => "CreateContainerError",
            Self::Run => "RunContainerError",
        }
    }
}

/// A container of this pod as the runtime sees it, with its termination message.
#[derive(Clone, Debug, PartialEq)]
pub struct Observed {
    pub status: ContainerStatus,
    /// What was read from the termination message file or the log; empty while running.
    pub message: String,
    /// The image reference for the status; the image's id if unknown.
    pub image_reference: String,
}

/// Why the kubelet itself ends a pod.
#[derive(Clone, Debug, PartialEq)]
pub struct Eviction {
    /// `Evicted`, `Terminated`, …
    pub reason: String,
    pub message: String,
    /// Overrides the pod's own grace period.
    pub grace_seconds: Option<i64>,
}

/// Something the machine learns.
#[derive(Clone, Debug)]
pub enum Event {
    /// The pod's object changed (or is seen for the first time).
    Pod(Arc<Pod>),
    /// The pod's object is gone from the API.
    ObjectGone,
    /// Everything the runtime has for this pod; absorbed once at the start and after a gap in its events.
    Listed { sandboxes: Vec<SandboxStatus>, containers: Vec<Observed> },
    /// Volumes are set up, or why not.
    Volumes(Result<(), Vec<(String, String)>>),
    /// An object that this pod refers to changed: what failed for want of it may be tried again now.
    ReferencesChanged,
    /// The answer to [`Effect::CreateSandbox`].
    Sandbox(Result<Box<SandboxStatus>, String>),
    /// The sandbox's pause process is gone, or [`Effect::StopSandbox`] is done.
    SandboxStopped(SandboxId),
    /// The answer to [`Effect::FindImage`].
    ImageFound { container: String, image: String, found: Result<Option<ImageRef>, ImageFailure> },
    /// The answer to [`Effect::PullImage`].
    ImagePulled { container: String, image: String, pulled: Result<Pulled, ImageFailure> },
    /// The container exists but does not run yet.
    Created { container: String, id: ContainerId },
    /// The answer to [`Effect::StartContainer`]. `hook`: its postStart hook runs now.
    Started { container: String, id: ContainerId, started_at: Timestamp, hook: bool },
    /// The other answer to [`Effect::StartContainer`].
    StartFailed { container: String, id: Option<ContainerId>, failure: StartFailure, message: String },
    /// The postStart hook ended.
    PostStart { container: String, id: ContainerId, result: Result<(), String> },
    /// The preStop hook failed; the container is stopped all the same.
    PreStopFailed { container: String, message: String },
    /// A container ended; `message` is its termination message.
    Exited { container: String, id: ContainerId, state: ContainerState, message: String },
    /// Stopping failed and the container may still run.
    StopFailed { container: String, id: ContainerId, message: String },
    /// One probe was made.
    Probed { container: String, id: ContainerId, kind: ProbeKind, outcome: Outcome },
    /// The answer to [`Effect::UpdateResources`].
    Resized { container: String, id: ContainerId, result: Result<(), String> },
    /// The node cannot take the pod.
    Rejected { reason: String, message: String },
    /// The node must get rid of the pod.
    Evict(Eviction),
    /// The answer to [`Effect::Release`].
    Released(Result<(), String>),
    /// The answer to [`Effect::Remove`].
    Removed(Result<(), String>),
    /// A time the machine asked for has come.
    Wake,
}

/// One line for `kubectl describe`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PodEvent {
    pub warning: bool,
    pub reason: Cow<'static, str>,
    pub message: String,
    /// `spec.containers{NAME}`; empty for the pod itself.
    pub field_path: String,
}

/// Something to be done by the executor.
#[derive(Clone, Debug, PartialEq)]
pub enum Effect {
    /// Set up all volumes; answered by [`Event::Volumes`].
    MountVolumes,
    CreateSandbox {
        attempt: u32,
    },
    /// Answered by [`Event::SandboxStopped`].
    StopSandbox {
        id: SandboxId,
    },
    FindImage {
        container: String,
        image: String,
    },
    PullImage {
        container: String,
        image: String,
    },
    /// Make the configuration, create, start, run the postStart hook.
    StartContainer {
        container: String,
        attempt: u32,
        image: ImageRef,
        sandbox: SandboxId,
    },
    /// Run the preStop hook (if asked), stop within `grace`; answered by [`Event::Exited`].
    StopContainer {
        container: String,
        id: ContainerId,
        grace: Duration,
        pre_stop: bool,
    },
    UpdateResources {
        container: String,
        id: ContainerId,
        resources: Box<ResourceRequirements>,
    },
    /// A dead container that nobody will ask for again.
    RemoveContainer {
        id: ContainerId,
    },
    /// Probe from now on, first after the initial delay.
    StartProbe {
        container: String,
        id: ContainerId,
        kind: ProbeKind,
        started_at: Timestamp,
    },
    /// End all probes of the given kinds.
    StopProbes {
        container: String,
        kinds: Vec<ProbeKind>,
    },
    Event(PodEvent),
    /// The status changed.
    Status(Box<PodStatus>),
    /// Nothing of the pod runs any more: take down its volumes. Logs and records stay.
    Release,
    /// Take everything of the pod off this machine, logs too.
    Remove,
    /// Delete the object with grace 0 if it is still this one.
    DeleteObject,
    /// The machine has nothing to do any more and can be dropped.
    Forget,
}
