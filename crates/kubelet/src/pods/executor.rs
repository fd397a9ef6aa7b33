//! Doing what a pod's machine asks for. Each function does one thing and says how it went; none decides.

use std::sync::Arc;
use std::time::Duration;

use containers::{ContainerId, ContainerState, PodIdentity, RuntimeError, SandboxId, SandboxStatus};
use k8s_openapi::api::core::v1::{LifecycleHandler, Pod, ResourceRequirements};
use k8s_openapi::api::node::v1::RuntimeClass;
use tokio::sync::mpsc;

use super::references::Handle;
use super::shared::Shared;
use super::termination;
use crate::hooks;
use crate::machine::spec::Member;
use crate::machine::{Event, ImageRef, StartFailure};
use crate::make::{self, Ingredients, resources};
use crate::volumes::Inputs;

/// How long to wait before a sandbox that would not stop is stopped again.
const STOP_RETRY: Duration = Duration::from_secs(2);
/// A container always gets this long between its preStop hook and being killed.
const MIN_GRACE: Duration = Duration::from_secs(2);

/// One pod's view for one effect: its object and addresses as they were when the effect was asked for.
#[derive(Clone)]
pub struct Executor {
    pub shared: Arc<Shared>,
    pub identity: PodIdentity,
    pub pod: Arc<Pod>,
    pub references: Handle,
    pub pod_ips: Vec<String>,
    pub answers: mpsc::Sender<Event>,
    /// Held while the pod's volumes or its limits are written.
    pub writing: Arc<tokio::sync::Mutex<()>>,
}

/// What [`Executor::start_container`] needs besides.
pub struct Start {
    pub member: Member,
    pub attempt: u32,
    pub image: ImageRef,
    pub sandbox: SandboxId,
    pub target: Option<ContainerId>,
}

impl Executor {
    /// Answers the machine; it is no error if the pod's worker has ended.
    pub async fn answer(&self, event: Event) {
        let _worker_gone = self.answers.send(event).await;
    }

    pub async fn create_sandbox(self, attempt: u32) {
        if let Err(cause) = self.check_runtime_class().await {
            return self.answer(Event::Sandbox(Err(cause))).await;
        }
        let config = make::sandbox_config(&self.pod, attempt, &self.shared.settings);
        let made = self.shared.runtime.run_sandbox(&config).await;
        self.answer(Event::Sandbox(made.map(Box::new).map_err(|error| chain(&error)))).await;
        if attempt > 0
            && let Err(error) = self.remove_older_sandboxes(attempt).await
        {
            tracing::debug!(pod = %self.identity.name, %error, "dead sandboxes not removed");
        }
    }

    /// Removes dead sandboxes from before an attempt in which no container is left, for instance because this program
    /// was killed before it made one. Those with containers stay: the containers' logs and exit codes are of interest.
    async fn remove_older_sandboxes(&self, attempt: u32) -> Result<(), RuntimeError> {
        let runtime = &self.shared.runtime;
        let containers = runtime.containers().await?;
        let is_old = |sandbox: &SandboxStatus| {
            sandbox.config.pod.uid == self.identity.uid
                && sandbox.config.attempt < attempt
                && !sandbox.ready
                && !containers.iter().any(|container| container.sandbox == sandbox.id)
        };
        for sandbox in runtime.sandboxes().await?.into_iter().filter(is_old) {
            // Half of it may have come up.
            runtime.stop_sandbox(&sandbox.id).await?;
            runtime.remove_sandbox(&sandbox.id).await?;
        }
        Ok(())
    }

    /// There is one runtime here, which is meant by a class whose handler is empty or its name.
    async fn check_runtime_class(&self) -> Result<(), String> {
        let class = self.pod.spec.as_ref().and_then(|spec| spec.runtime_class_name.as_deref());
        let Some(class) = class.filter(|class| !class.is_empty()) else { return Ok(()) };
        let object = self.shared.client.cluster::<RuntimeClass>().get(class).await;
        let object = object.map_err(|status| status.to_string())?;
        let class: Arc<RuntimeClass> = client::typed(&object).map_err(|status| status.to_string())?;
        let own = self.shared.runtime.version().0;
        if class.handler.is_empty() || class.handler == own {
            return Ok(());
        }
        Err(format!("no runtime for {:?} is configured", class.handler))
    }

    pub async fn stop_sandbox(self, id: SandboxId) {
        loop {
            match self.shared.runtime.stop_sandbox(&id).await {
                Ok(()) | Err(RuntimeError::NoSandbox(_)) => break,
                Err(error) => tracing::warn!(pod = %self.identity.name, %error, "sandbox not stopped"),
            }
            tokio::time::sleep(STOP_RETRY).await;
        }
        self.answer(Event::SandboxStopped(id)).await;
    }

    /// Makes, creates and starts a container, then runs its postStart hook.
    pub async fn start_container(self, start: Start) {
        let name = start.member.container.name.clone();
        let failed =
            |id, failure, message| Event::StartFailed { container: name.clone(), id, failure, message };
        // The semaphore is never closed.
        let _permit = self.shared.starts.acquire().await;
        if let Err(failure) = self.volume_images(&start.member).await {
            return self.answer(failed(None, failure, String::new())).await;
        }
        let config = match self.config(&start).await {
            Ok(config) => config,
            Err(message) => return self.answer(failed(None, StartFailure::Config, message)).await,
        };
        let runtime = &self.shared.runtime;
        if let Err(error) = self.fit_changed_pod().await {
            return self.answer(failed(None, StartFailure::Create, chain(&error))).await;
        }
        let id = match runtime.create_container(&start.sandbox, &config).await {
            Ok(id) => id,
            Err(error) => return self.answer(failed(None, StartFailure::Create, chain(&error))).await,
        };
        self.answer(Event::Created { container: name.clone(), id: id.clone() }).await;
        if let Err(error) = runtime.start_container(&id).await {
            return self.answer(failed(Some(id), StartFailure::Run, chain(&error))).await;
        }
        drop(_permit);
        if let Err(error) = self.fit_changed_pod().await {
            tracing::warn!(pod = %self.identity.name, %error, "the pod keeps its wider limits");
        }
        self.report_start(&start, name, id).await;
    }

    /// A container that is made anew after a resize needs its pod to be wide enough. A pod of the first generation has
    /// the limits that it was made with.
    async fn fit_changed_pod(&self) -> Result<(), RuntimeError> {
        if self.pod.metadata.generation.unwrap_or(1) <= 1 {
            return Ok(());
        }
        let _alone = self.writing.lock().await;
        self.fit_pod().await
    }

    async fn report_start(&self, start: &Start, container: String, id: ContainerId) {
        let status = self.shared.runtime.container(&id).await.ok();
        let started_at = match status.as_ref().map(|status| &status.state) {
            Some(ContainerState::Running { started_at } | ContainerState::Exited { started_at, .. }) => {
                *started_at
            }
            _ => self.shared.env.now(),
        };
        let lifecycle = start.member.container.lifecycle.as_ref();
        let hook = lifecycle.and_then(|lifecycle| lifecycle.post_start.clone());
        let started =
            Event::Started { container: container.clone(), id: id.clone(), started_at, hook: hook.is_some() };
        self.answer(started).await;
        if matches!(
            status.map(|status| status.state),
            Some(ContainerState::Exited { .. } | ContainerState::Unknown)
        ) {
            return self.report_end(container, id).await;
        }
        if let Some(hook) = hook {
            let result = self.run_hook(&hook, &start.member, &id, "PostStartHook").await;
            self.answer(Event::PostStart { container, id, result }).await;
        }
    }

    async fn run_hook(
        &self,
        hook: &LifecycleHandler,
        member: &Member,
        id: &ContainerId,
        what: &str,
    ) -> Result<(), String> {
        let address = self.pod_ips.first().cloned().unwrap_or_default();
        let done = hooks::run(&self.shared, hook, &member.container, id, &address).await;
        done.map_err(|cause| format!("{what} failed: {cause}"))
    }

    async fn config(&self, start: &Start) -> Result<containers::ContainerConfig, String> {
        let image = self.shared.images.find(&start.image.id).await.map_err(|error| chain(&error))?;
        let image = image.ok_or_else(|| format!("image {} is gone", start.image.id))?;
        let snapshot = self.references.snapshot().await;
        let services = self.shared.services_for(&self.identity.namespace).await;
        let around = self.shared.surroundings(self.pod_ips.clone());
        make::container_config(&Ingredients {
            pod: &self.pod,
            member: &start.member,
            attempt: start.attempt,
            image: &image,
            services: &services,
            lookup: &snapshot,
            around: &around,
            node: &self.shared.settings,
            volumes: &self.shared.volumes,
            target: start.target.clone(),
        })
    }

    /// Runs the preStop hook if asked, then stops; both share the grace period.
    pub async fn stop_container(self, member: Member, id: ContainerId, grace: Duration, pre_stop: bool) {
        let container = member.container.name.clone();
        let lifecycle = member.container.lifecycle.as_ref();
        let hook = lifecycle.and_then(|lifecycle| lifecycle.pre_stop.clone()).filter(|_| pre_stop);
        let mut left = grace;
        if let Some(hook) = hook {
            let begun = tokio::time::Instant::now();
            let ran = tokio::time::timeout(grace, self.run_hook(&hook, &member, &id, "PreStopHook")).await;
            if let Ok(Err(message)) = ran {
                self.answer(Event::PreStopFailed { container: container.clone(), message }).await;
            }
            left = grace.saturating_sub(begun.elapsed()).max(MIN_GRACE.min(grace));
        }
        match self.shared.runtime.stop_container(&id, left).await {
            Ok(()) | Err(RuntimeError::NoContainer(_) | RuntimeError::NotRunning(_)) => {
                self.report_end(container, id).await;
            }
            Err(error) => self.answer(Event::StopFailed { container, id, message: chain(&error) }).await,
        }
    }

    /// Tells the machine how a container ended, if it did.
    pub async fn report_end(&self, container: String, id: ContainerId) {
        let event = match self.shared.runtime.container(&id).await {
            Ok(status) => {
                let message = termination::message(&status);
                Event::Exited { container, id, state: status.state, message }
            }
            Err(RuntimeError::NoContainer(_)) => {
                Event::Exited { container, id, state: ContainerState::Unknown, message: String::new() }
            }
            Err(error) => Event::StopFailed { container, id, message: chain(&error) },
        };
        self.answer(event).await;
    }

    pub async fn update_resources(self, container: String, id: ContainerId, wanted: ResourceRequirements) {
        let settings = &self.shared.settings;
        let capacity = settings.memory_capacity_bytes;
        let resources = resources::container(&self.pod, Some(&wanted), capacity, settings.pids_limit);
        let _alone = self.writing.lock().await;
        // The pod must be wide enough before, and is made as narrow as it may be after.
        let done = async {
            self.fit_pod().await?;
            self.shared.runtime.update_resources(&id, &resources).await?;
            self.fit_pod().await
        };
        let result = done.await.map_err(|error| chain(&error));
        self.answer(Event::Resized { container, id, result }).await;
    }

    /// Gives the pod as a whole the limits that its specification and what runs of it now ask for.
    async fn fit_pod(&self) -> Result<(), RuntimeError> {
        let runtime = &self.shared.runtime;
        let sandboxes = runtime.sandboxes().await?;
        let own = |sandbox: &&containers::SandboxStatus| {
            sandbox.ready && sandbox.config.pod.uid == self.identity.uid
        };
        let Some(sandbox) = sandboxes.iter().find(own) else { return Ok(()) };
        let containers = runtime.containers().await?;
        let running: Vec<_> = containers
            .into_iter()
            .filter(|c| c.sandbox == sandbox.id && matches!(c.state, ContainerState::Running { .. }))
            .map(|container| container.config.resources)
            .collect();
        let resources = resources::pod_around(&self.pod, &running, self.shared.settings.pids_limit);
        runtime.update_sandbox_resources(&sandbox.id, &resources).await
    }

    pub async fn remove_container(self, id: ContainerId) {
        if let Err(error) = self.shared.runtime.remove_container(&id).await {
            tracing::debug!(pod = %self.identity.name, %error, "dead container not removed");
        }
    }

    /// Sets up volumes, or brings their files up to date.
    pub async fn set_up_volumes(&self) -> Result<(), crate::volumes::Failures> {
        let _alone = self.writing.lock().await;
        let snapshot = self.references.snapshot().await;
        let around = self.shared.surroundings(self.pod_ips.clone());
        let inputs = Inputs { pod: &self.pod, lookup: &snapshot, around: &around };
        self.shared.volumes.set_up(&inputs).await
    }

    pub async fn release(self) {
        let result = self.shared.volumes.tear_down(&self.identity.uid).map_err(|error| error.to_string());
        self.answer(Event::Released(result)).await;
    }

    pub async fn remove(self) {
        let result = remove_all(&self.shared, &self.identity).await;
        self.answer(Event::Removed(result)).await;
    }
}

/// Takes containers, sandboxes, files and logs of a pod off this machine. Nothing of it may run any more.
pub async fn remove_all(shared: &Shared, pod: &PodIdentity) -> Result<(), String> {
    let runtime = &shared.runtime;
    let text = |error: RuntimeError| chain(&error);
    let sandboxes: Vec<_> = runtime
        .sandboxes()
        .await
        .map_err(text)?
        .into_iter()
        .filter(|s| s.config.pod.uid == pod.uid)
        .collect();
    let containers = runtime.containers().await.map_err(text)?;
    for container in containers.iter().filter(|c| sandboxes.iter().any(|sandbox| sandbox.id == c.sandbox)) {
        match runtime.remove_container(&container.id).await {
            Err(error) if !matches!(error, RuntimeError::NoContainer(_)) => return Err(chain(&error)),
            _ => {}
        }
    }
    for sandbox in sandboxes {
        match runtime.remove_sandbox(&sandbox.id).await {
            Err(error) if !matches!(error, RuntimeError::NoSandbox(_)) => return Err(chain(&error)),
            _ => {}
        }
    }
    shared.volumes.remove_pod(&pod.uid).map_err(|error| error.to_string())?;
    let logs = make::log_directory(&shared.settings, pod);
    match tokio::fs::remove_dir_all(&logs).await {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(format!("{}: {error}", logs.display()))
        }
        _ => Ok(()),
    }
}

/// An error with its causes on one line.
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        text += &format!(": {inner}");
        cause = inner.source();
    }
    text
}
