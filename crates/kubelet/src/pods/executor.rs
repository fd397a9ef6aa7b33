//! Doing what a pod's machine asks for. Each function does one thing and says how it went; none decides.

use std::sync::Arc;
use std::time::Duration;

use containers::{ContainerId, ContainerState, PodIdentity, RuntimeError, SandboxId};
use images::{Image, ImageError};
use k8s_openapi::api::core::v1::{LifecycleHandler, Pod, ResourceRequirements, Secret};
use tokio::sync::mpsc;

use super::references::Handle;
use super::shared::Shared;
use super::termination;
use crate::hooks;
use crate::machine::spec::Member;
use crate::machine::{Event, ImageFailure, ImageRef, Pulled, StartFailure};
use crate::make::environment::{Lookup, registry_credentials};
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
    /// Held while the pod's volumes are written.
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
        let config = make::sandbox_config(&self.pod, attempt, &self.shared.settings);
        let made = self.shared.runtime.run_sandbox(&config).await;
        self.answer(Event::Sandbox(made.map(Box::new).map_err(|error| chain(&error)))).await;
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

    pub async fn find_image(self, container: String, image: String) {
        let found = self.shared.images.find(&image).await;
        let found = found.map(|found| found.as_ref().map(image_ref)).map_err(image_failure);
        self.answer(Event::ImageFound { container, image, found }).await;
    }

    pub async fn pull_image(self, container: String, image: String) {
        let begun = tokio::time::Instant::now();
        let credentials = self.credentials(&image).await;
        let pulled = self.shared.images.pull(&image, &credentials).await;
        self.shared.pulled.notify_one();
        let took = begun.elapsed();
        let pulled = pulled
            .map(|image| Pulled {
                image: image_ref(&image),
                took,
                took_with_waiting: took,
                size_bytes: image.size_bytes,
            })
            .map_err(image_failure);
        self.answer(Event::ImagePulled { container, image, pulled }).await;
    }

    /// The pull secrets' credentials for the image's registry.
    async fn credentials(&self, image: &str) -> Vec<images::Credentials> {
        let secrets = self.pod.spec.iter().flat_map(|spec| spec.image_pull_secrets.iter().flatten());
        let names: Vec<_> = secrets.map(|secret| secret.name.clone()).collect();
        if names.is_empty() {
            return Vec::new();
        }
        let snapshot = self.references.snapshot().await;
        let mut found = Vec::new();
        for name in names {
            let Ok(Some(object)) = snapshot.secret(&name) else { continue };
            let Ok(secret) = client::typed::<Secret>(&object) else { continue };
            found.extend(registry_credentials(&secret));
        }
        let matching = found.into_iter().filter(|(host, _)| registry_matches(host, image));
        matching.map(|(_, credentials)| credentials).collect()
    }

    /// Makes, creates and starts a container, then runs its postStart hook.
    pub async fn start_container(self, start: Start) {
        let name = start.member.container.name.clone();
        let failed =
            |id, failure, message| Event::StartFailed { container: name.clone(), id, failure, message };
        // The semaphore is never closed.
        let _permit = self.shared.starts.acquire().await;
        let config = match self.config(&start).await {
            Ok(config) => config,
            Err(message) => return self.answer(failed(None, StartFailure::Config, message)).await,
        };
        let runtime = &self.shared.runtime;
        let id = match runtime.create_container(&start.sandbox, &config).await {
            Ok(id) => id,
            Err(error) => return self.answer(failed(None, StartFailure::Create, chain(&error))).await,
        };
        self.answer(Event::Created { container: name.clone(), id: id.clone() }).await;
        if let Err(error) = runtime.start_container(&id).await {
            return self.answer(failed(Some(id), StartFailure::Run, chain(&error))).await;
        }
        drop(_permit);
        self.report_start(&start, name, id).await;
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
        let done = self.shared.runtime.update_resources(&id, &resources).await;
        self.answer(Event::Resized { container, id, result: done.map_err(|error| chain(&error)) }).await;
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

/// The reference that statuses show.
pub fn image_ref(image: &Image) -> ImageRef {
    let reference = image.digests.first().unwrap_or(&image.id).clone();
    ImageRef { id: image.id.clone(), reference }
}

fn image_failure(error: ImageError) -> ImageFailure {
    match error {
        ImageError::InvalidName { cause, .. } => ImageFailure::InvalidName(cause),
        error => ImageFailure::Failed(chain(&error)),
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

/// Whether credentials filed under `host` (`https://index.docker.io/v1/`, `registry.example/team`, `*.example`) are
/// for the registry of `image`.
fn registry_matches(host: &str, image: &str) -> bool {
    let host = host.trim_start_matches("https://").trim_start_matches("http://").trim_end_matches('/');
    let host = host.trim_end_matches("/v1").trim_end_matches("/v2");
    let first = image.split('/').next().unwrap_or_default();
    let explicit = image.contains('/') && (first.contains(['.', ':']) || first == "localhost");
    let full = if explicit { image.to_owned() } else { format!("docker.io/{image}") };
    let host = if matches!(host, "index.docker.io" | "registry-1.docker.io") { "docker.io" } else { host };
    if let Some(domain) = host.strip_prefix("*.") {
        let registry = full.split('/').next().unwrap_or_default();
        return registry.split_once('.').is_some_and(|(_, rest)| rest == domain);
    }
    full == host || full.strip_prefix(host).is_some_and(|rest| rest.starts_with('/'))
}

#[cfg(test)]
mod tests {
    use super::registry_matches;

    #[test]
    fn registries() {
        let cases = [
            ("https://index.docker.io/v1/", "nginx", true),
            ("docker.io", "library/nginx", true),
            ("registry.example", "registry.example/a/b:1", true),
            ("registry.example/a", "registry.example/a/b:1", true),
            ("registry.example/a", "registry.example/b:1", false),
            ("*.example", "r.example/b", true),
            ("*.example", "r.s.example/b", false),
            ("localhost:5000", "localhost:5000/x", true),
            ("other", "nginx", false),
        ];
        for (host, image, want) in cases {
            assert_eq!(registry_matches(host, image), want, "{host} {image}");
        }
    }
}
