//! One task per pod: takes what happens to it, asks its machine, and sets the executor to work.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use containers::{ContainerId, SandboxStatus};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Pod, PodStatus};
use reconcile::events::Reference;
use tokio::sync::mpsc;
use tokio::task::{AbortHandle, JoinHandle, JoinSet};

use super::executor::{Executor, Start};
use super::observe;
use super::references::PodReferences;
use super::shared::Shared;
use super::status_writer::{self, Mailbox};
use crate::machine::probe::ProbeKind;
use crate::machine::spec::Member;
use crate::machine::time::between;
use crate::machine::{Effect, Event, Machine, Observed, PodEvent};
use crate::probes;

/// How many events may wait for a pod.
pub const INBOX: usize = 64;
/// What a kubelet that just started spreads its first probes over, at most.
const SPREAD: Duration = Duration::from_secs(10);
/// How long a stopping kubelet waits for the API to take the last statuses.
const LAST_WRITES: Duration = Duration::from_secs(1);

/// What others tell a pod's worker.
#[derive(Debug)]
pub enum Signal {
    Event(Event),
    /// A container of the pod ended; how, the runtime knows.
    Ended(ContainerId),
    /// Events of the runtime were missed.
    Relist,
    /// The pod's object changed; the revision tells new from old.
    Object(Arc<Pod>),
}

/// What a worker begins with.
pub struct Beginning {
    pub pod: Arc<Pod>,
    pub sandboxes: Vec<SandboxStatus>,
    pub containers: Vec<Observed>,
    /// Why the node turns the pod away.
    pub rejected: Option<(String, String)>,
}

struct Worker {
    executor: Executor,
    references: PodReferences,
    machine: Machine,
    mailbox: Arc<Mailbox>,
    tasks: JoinSet<()>,
    probes: BTreeMap<(String, ProbeKind), AbortHandle>,
    /// When tokens in volumes must be renewed.
    refresh_at: Option<Timestamp>,
    mounted: bool,
    forgotten: bool,
    adopted: bool,
}

/// Runs a pod until it is gone from this machine and from the API.
pub async fn run(shared: Arc<Shared>, beginning: Beginning, mut inbox: mpsc::Receiver<Signal>) {
    let (answers, mut answered) = mpsc::channel(INBOX);
    let identity = crate::make::identity(&beginning.pod);
    let mailbox = Arc::new(Mailbox::default());
    let known = beginning.pod.status.clone().unwrap_or_default();
    let mut writer =
        tokio::spawn(status_writer::run(shared.client.clone(), identity.clone(), known, mailbox.clone()));
    let references = PodReferences::new(shared.watches.clone(), &beginning.pod);
    let machine = Machine::new(beginning.pod.clone(), shared.facts.clone(), shared.env.now());
    let executor = Executor {
        identity,
        pod: beginning.pod.clone(),
        references: references.handle(),
        pod_ips: Vec::new(),
        answers,
        writing: Arc::default(),
        shared,
    };
    let adopted = !beginning.sandboxes.is_empty();
    let mut worker = Worker {
        executor,
        references,
        machine,
        mailbox,
        tasks: JoinSet::new(),
        probes: BTreeMap::new(),
        refresh_at: None,
        mounted: false,
        forgotten: false,
        adopted,
    };
    worker.begin(beginning);
    worker.live(&mut inbox, &mut answered).await;
    worker.tasks.shutdown().await;
    worker.mailbox.close();
    finish_writing(&mut writer, &mut inbox).await;
}

/// Waits until everything is written; when the kubelet is stopping, only for a moment.
async fn finish_writing(writer: &mut JoinHandle<()>, inbox: &mut mpsc::Receiver<Signal>) {
    let stopping = async {
        while inbox.recv().await.is_some() {}
        tokio::time::sleep(LAST_WRITES).await;
    };
    tokio::select! {
        written = &mut *writer => {
            if let Err(error) = written {
                tracing::error!(%error, "status writer failed");
            }
        }
        () = stopping => writer.abort(),
    }
}

impl Worker {
    fn begin(&mut self, beginning: Beginning) {
        if let Some((reason, message)) = beginning.rejected {
            return self.step(Event::Rejected { reason, message });
        }
        self.step(Event::Listed { sandboxes: beginning.sandboxes, containers: beginning.containers });
        self.adopted = false;
    }

    async fn live(&mut self, inbox: &mut mpsc::Receiver<Signal>, answered: &mut mpsc::Receiver<Event>) {
        let changed = self.references.changed();
        while !self.forgotten {
            let wake = self.machine.next_wake().into_iter().chain(self.refresh_at).min();
            let now = self.executor.shared.env.now();
            let sleep = wake.map(|at| between(now, at));
            tokio::select! {
                Some(event) = answered.recv() => self.step(event),
                signal = inbox.recv() => match signal {
                    Some(signal) => self.heed(signal),
                    None => return,
                },
                () = changed.notified() => self.refresh(Event::ReferencesChanged),
                () = tokio::time::sleep(sleep.unwrap_or_default()), if sleep.is_some() => self.wake(),
                Some(ended) = self.tasks.join_next(), if !self.tasks.is_empty() => {
                    if let Err(error) = ended && error.is_panic() {
                        tracing::error!(%error, "a pod's task failed");
                    }
                }
            }
        }
    }

    fn heed(&mut self, signal: Signal) {
        match signal {
            Signal::Event(event) => self.step(event),
            Signal::Object(pod) => self.object_changed(pod),
            Signal::Ended(id) => {
                let name =
                    self.machine.slots().iter().find(|slot| slot.running().is_some_and(|r| r.id == id));
                // A container that is only just starting is not known by its id yet; its starter looks after it.
                let Some(name) = name.map(|slot| slot.name().to_owned()) else { return self.ended_early(id) };
                let executor = self.executor();
                self.tasks.spawn(async move { executor.report_end(name, id).await });
            }
            Signal::Relist => {
                let executor = self.executor();
                self.tasks.spawn(async move {
                    if let Ok((sandboxes, containers)) =
                        observe::pod(&executor.shared, &executor.identity).await
                    {
                        executor.answer(Event::Listed { sandboxes, containers }).await;
                    }
                });
            }
        }
    }

    fn ended_early(&mut self, id: ContainerId) {
        let executor = self.executor();
        self.tasks.spawn(async move {
            if let Ok(status) = executor.shared.runtime.container(&id).await {
                executor.report_end(status.config.name, id).await;
            }
        });
    }

    fn object_changed(&mut self, pod: Arc<Pod>) {
        self.references.update(&pod);
        self.executor.pod = pod.clone();
        let metadata_changed = {
            let old = self.machine.pod();
            old.metadata.labels != pod.metadata.labels || old.metadata.annotations != pod.metadata.annotations
        };
        self.step(Event::Pod(pod.clone()));
        self.restore_status(&pod);
        if metadata_changed {
            self.refresh_volumes();
        }
    }

    /// Somebody else (the node controller, when it had not heard of this node) said that the pod is not ready: says
    /// what is true again. Its reason, which no kubelet gives, tells that from an echo of an own older write, or a
    /// later transition, where the clocks agree.
    fn restore_status(&self, pod: &Pod) {
        let ready = |status: &PodStatus| {
            let found = status.conditions.iter().flatten().find(|condition| condition.type_ == "Ready");
            found
                .map(|ready| (ready.status.clone(), ready.last_transition_time.clone(), ready.reason.clone()))
        };
        let (Some(theirs), Some(ours)) = (&pod.status, self.machine.published()) else { return };
        if let (Some((their_word, their_time, why)), Some((our_word, our_time, _))) =
            (ready(theirs), ready(ours))
            && their_word != our_word
            && (why.as_deref() == Some("NodeNotReady") || their_time > our_time)
        {
            self.mailbox.seen(Box::new(theirs.clone()));
            self.mailbox.status(Box::new(ours.clone()));
        }
    }

    fn wake(&mut self) {
        let now = self.executor.shared.env.now();
        if self.refresh_at.is_some_and(|at| at <= now) {
            self.refresh_at = None;
            self.refresh_volumes();
        }
        self.step(Event::Wake);
    }

    fn refresh(&mut self, event: Event) {
        self.step(event);
        self.refresh_volumes();
    }

    /// Brings the files of mounted volumes up to date.
    fn refresh_volumes(&mut self) {
        if self.mounted && !self.machine.ended() {
            self.set_up_volumes();
        }
    }

    fn step(&mut self, event: Event) {
        if let Event::Volumes(Ok(())) = &event {
            self.mounted = true;
            self.refresh_at = self.executor.shared.volumes.refresh_at(&self.executor.identity.uid);
        }
        let now = self.executor.shared.env.now();
        for effect in self.machine.step(event, now) {
            self.perform(effect);
        }
    }

    /// The executor with what is known now.
    fn executor(&self) -> Executor {
        Executor {
            pod: self.machine.pod().clone(),
            references: self.references.handle(),
            pod_ips: self.machine.addresses(),
            ..self.executor.clone()
        }
    }

    fn perform(&mut self, effect: Effect) {
        let executor = self.executor();
        match effect {
            Effect::MountVolumes => self.set_up_volumes(),
            Effect::CreateSandbox { attempt } => self.spawn(executor.create_sandbox(attempt)),
            Effect::StopSandbox { id } => self.spawn(executor.stop_sandbox(id)),
            Effect::FindImage { container, image } => self.spawn(executor.find_image(container, image)),
            Effect::PullImage { container, image } => self.spawn(executor.pull_image(container, image)),
            Effect::StartContainer { container, attempt, image, sandbox } => {
                let Some(member) = self.member(&container) else { return };
                let target = self.target(&member);
                self.spawn(executor.start_container(Start { member, attempt, image, sandbox, target }));
            }
            Effect::StopContainer { container, id, grace, pre_stop } => {
                let Some(member) = self.member(&container) else { return };
                self.spawn(executor.stop_container(member, id, grace, pre_stop));
            }
            Effect::UpdateResources { container, id, resources } => {
                self.spawn(executor.update_resources(container, id, *resources));
            }
            Effect::RemoveContainer { id } => self.spawn(executor.remove_container(id)),
            Effect::StartProbe { container, id, kind, started_at } => {
                self.start_probe(container, id, kind, started_at);
            }
            Effect::StopProbes { container, kinds } => self.stop_probes(&container, &kinds),
            Effect::Event(event) => self.record(&event),
            Effect::Status(status) => self.mailbox.status(status),
            Effect::Release => self.release(executor),
            Effect::Remove => self.spawn(executor.remove()),
            Effect::DeleteObject => self.mailbox.delete(),
            Effect::Forget => self.forgotten = true,
        }
    }

    fn spawn(&mut self, work: impl Future<Output = ()> + Send + 'static) {
        self.tasks.spawn(work);
    }

    fn release(&mut self, executor: Executor) {
        self.mounted = false;
        self.refresh_at = None;
        self.spawn(executor.release());
    }

    fn set_up_volumes(&mut self) {
        let executor = self.executor();
        self.tasks.spawn(async move {
            let result = executor.set_up_volumes().await;
            executor.answer(Event::Volumes(result)).await;
        });
    }

    fn member(&self, container: &str) -> Option<Member> {
        self.machine.slots().iter().find(|slot| slot.name() == container).map(|slot| slot.member.clone())
    }

    fn target(&self, member: &Member) -> Option<ContainerId> {
        let target = member.target.as_deref()?;
        let slot = self.machine.slots().iter().find(|slot| slot.name() == target)?;
        slot.running().map(|running| running.id.clone())
    }

    fn start_probe(&mut self, container: String, id: ContainerId, kind: ProbeKind, started_at: Timestamp) {
        let Some(slot) = self.machine.slots().iter().find(|slot| slot.name() == container) else { return };
        let Some(probe) = slot.probe(kind).cloned() else { return };
        let plan = probes::Plan {
            probe,
            container: slot.member.container.clone(),
            id,
            kind,
            started_at,
            pod_ip: self.machine.addresses().into_iter().next().unwrap_or_default(),
        };
        let shared = self.executor.shared.clone();
        let period =
            Duration::from_secs(plan.probe.period_seconds.unwrap_or(10).max(1).unsigned_abs().into());
        let spread = if self.adopted {
            period.min(SPREAD).mul_f64((shared.env.random_u64() % 1000) as f64 / 1000.0)
        } else {
            Duration::ZERO
        };
        let work = probes::run(shared, plan, spread, self.executor.answers.clone());
        let handle = self.tasks.spawn(work);
        if let Some(old) = self.probes.insert((container, kind), handle) {
            old.abort();
        }
    }

    fn stop_probes(&mut self, container: &str, kinds: &[ProbeKind]) {
        for kind in kinds {
            if let Some(task) = self.probes.remove(&(container.to_owned(), *kind)) {
                task.abort();
            }
        }
    }

    fn record(&self, event: &PodEvent) {
        let identity = &self.executor.identity;
        let about = Reference {
            api_version: "v1".to_owned(),
            kind: "Pod".to_owned(),
            namespace: identity.namespace.clone(),
            name: identity.name.clone(),
            uid: identity.uid.clone(),
            resource_version: self.executor.pod.metadata.resource_version.clone().unwrap_or_default(),
            field_path: event.field_path.clone(),
        };
        self.executor.shared.recorder.event(&about, event.warning, &event.reason, event.message.clone());
    }
}
