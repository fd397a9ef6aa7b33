//! A pod's life as a machine: [`Machine::step`] takes what happened and says what is to be done.
//!
//! It performs nothing, reads no clock and never blocks. Each step first absorbs the event into what is known,
//! then judges the whole pod anew: so a machine that was built from a listing of the runtime goes on exactly
//! where another left off. Invariants: a container is started only in the present sandbox; one effect of a kind
//! is under way per container; after the ending began nothing is started any more.

pub mod backoff;
pub mod event;
pub mod probe;
pub mod slot;
pub mod spec;
pub mod time;

mod absorb;
mod adopt;
mod conditions;
mod decide;
mod ending;
mod images;
mod phase;
mod resize;
mod status;
#[cfg(test)]
mod tests;

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use containers::{SandboxId, SandboxStatus};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Pod, PodSpec, PodStatus};

pub use ending::Cause;
pub use event::{Effect, Event, Eviction, ImageFailure, ImageRef, Observed, PodEvent, Pulled, StartFailure};

use ending::Ending;
use slot::Slot;
use spec::{Member, RestartPolicy};

/// What the machine must know of its node.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct NodeFacts {
    /// The node's addresses, the primary one first.
    pub host_ips: Vec<String>,
    /// What the node can give to pods, for judging resizes.
    pub allocatable_cpu_millis: i64,
    pub allocatable_memory_bytes: i64,
}

/// The sandbox as the machine sees it.
#[derive(Clone, Debug, PartialEq)]
enum Sandbox {
    None,
    Creating,
    Ready(Box<SandboxStatus>),
    /// It died or is being stopped; its containers die with it.
    Stopping(SandboxId),
    Stopped(SandboxId),
}

/// Setting up the volumes.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Volumes {
    Missing,
    Mounting,
    Ready,
}

/// One pod. See the module's documentation.
#[derive(Debug)]
pub struct Machine {
    pod: Arc<Pod>,
    node: NodeFacts,
    volumes: Volumes,
    volumes_retry: Retry,
    sandbox: Sandbox,
    sandbox_retry: Retry,
    /// The attempt of the next sandbox.
    next_sandbox: u32,
    /// Addresses once known; kept after the sandbox is gone, as upstream does.
    pod_ips: Vec<String>,
    slots: Vec<Slot>,
    /// All init containers are done and all sidecars have started, in this sandbox.
    initialized: bool,
    ending: Option<Ending>,
    object_gone: bool,
    start_time: Timestamp,
    /// When the last step was.
    now: Timestamp,
    /// The status that was last asked to be written.
    published: Option<PodStatus>,
    resize: resize::Resize,
    effects: Vec<Effect>,
}

/// A step that failed and is tried again later: upstream's volume manager waits 0.5 s, doubled to about 2 min.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Retry {
    delay: Duration,
    at: Option<Timestamp>,
}

impl Retry {
    const FIRST: Duration = Duration::from_millis(500);
    const MAX: Duration = Duration::from_secs(122);

    fn failed(&mut self, now: Timestamp) {
        self.delay = (self.delay * 2).clamp(Self::FIRST, Self::MAX);
        self.at = Some(time::after(now, self.delay));
    }

    fn due(&self, now: Timestamp) -> bool {
        self.at.is_none_or(|at| at <= now)
    }
}

impl Machine {
    /// A pod of which nothing is known but its object.
    pub fn new(pod: Arc<Pod>, node: NodeFacts, now: Timestamp) -> Self {
        let known = pod.status.as_ref().and_then(|status| status.start_time.as_ref());
        let start_time = known.map_or(now, |time| time.0);
        let slots =
            spec::members(&pod).into_iter().map(|member| adopt::slot_from_status(member, &pod)).collect();
        let mut machine = Self {
            node,
            volumes: Volumes::Missing,
            volumes_retry: Retry::default(),
            sandbox: Sandbox::None,
            sandbox_retry: Retry::default(),
            next_sandbox: 0,
            pod_ips: Vec::new(),
            slots,
            initialized: false,
            ending: None,
            object_gone: false,
            start_time,
            now,
            published: None,
            resize: resize::Resize::default(),
            effects: Vec::new(),
            pod,
        };
        machine.keep_final_phase(now);
        machine
    }

    /// Absorbs the event and says what is to be done now. The time must not run backwards.
    pub fn step(&mut self, event: Event, now: Timestamp) -> Vec<Effect> {
        self.now = now;
        self.absorb(event, now);
        self.decide(now);
        self.publish(now);
        std::mem::take(&mut self.effects)
    }

    /// When to send [`Event::Wake`] unless something else comes first; always later than the last step.
    pub fn next_wake(&self) -> Option<Timestamp> {
        let slots = self.slots.iter().filter_map(|slot| slot.retry_at);
        let retries = match &self.ending {
            None => [self.volumes_retry.at, self.sandbox_retry.at, self.active_deadline()],
            Some(ending) => [ending.retry_at, None, None],
        };
        // What was due at the last step was judged by it, and if it still waits, it waits for something else.
        slots.chain(retries.into_iter().flatten()).filter(|at| *at > self.now).min()
    }

    /// The pod's present object.
    pub fn pod(&self) -> &Arc<Pod> {
        &self.pod
    }

    /// The present sandbox, if it is ready.
    pub fn sandbox(&self) -> Option<&SandboxStatus> {
        match &self.sandbox {
            Sandbox::Ready(sandbox) => Some(sandbox),
            _ => None,
        }
    }

    /// The containers with what is known of them.
    pub fn slots(&self) -> &[Slot] {
        &self.slots
    }

    /// Whether the pod will not run again on this node.
    pub fn ended(&self) -> bool {
        self.ending.is_some()
    }

    fn spec(&self) -> &PodSpec {
        static EMPTY: std::sync::LazyLock<PodSpec> = std::sync::LazyLock::new(PodSpec::default);
        self.pod.spec.as_ref().unwrap_or(&EMPTY)
    }

    fn restart_policy(&self) -> RestartPolicy {
        RestartPolicy::of(self.spec())
    }

    fn sandbox_id(&self) -> Option<&SandboxId> {
        self.sandbox().map(|sandbox| &sandbox.id)
    }

    fn slot_mut(&mut self, name: &str) -> Option<&mut Slot> {
        self.slots.iter_mut().find(|slot| slot.name() == name)
    }

    fn emit(&mut self, effect: Effect) {
        self.effects.push(effect);
    }

    fn event(&mut self, warning: bool, reason: impl Into<Cow<'static, str>>, message: impl Into<String>) {
        let (reason, message) = (reason.into(), message.into());
        self.emit(Effect::Event(PodEvent { warning, reason, message, field_path: String::new() }));
    }

    fn container_event(
        &mut self,
        member: &Member,
        warning: bool,
        reason: &'static str,
        message: impl Into<String>,
    ) {
        let event = PodEvent {
            warning,
            reason: reason.into(),
            message: message.into(),
            field_path: member.field_path(),
        };
        self.emit(Effect::Event(event));
    }
}
