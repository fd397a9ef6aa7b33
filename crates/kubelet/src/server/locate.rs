//! Finding the pod and container that a request names, with upstream's words when there is none.

use std::sync::Arc;

use containers::{ContainerState, ContainerStatus, SandboxStatus};
use http::StatusCode;
use k8s_openapi::api::core::v1::Pod;
use machinery::Key;

use super::{Failure, Server};
use crate::pods::executor::chain;

impl Server {
    pub(super) fn find_pod(&self, namespace: &str, name: &str) -> Result<Arc<Pod>, Failure> {
        let object = self.pods.cache().get(&Key::new(namespace, name));
        let object = object.ok_or_else(|| {
            Failure::new(StatusCode::NOT_FOUND, format!("pod {name:?} in namespace {namespace:?} not found"))
        })?;
        client::typed::<Pod>(&object).map_err(|status| Failure::internal(status.to_string()))
    }

    /// All containers of that name, the newest last.
    async fn attempts(&self, pod: &Pod, container: &str) -> Result<Vec<ContainerStatus>, Failure> {
        let uid = pod.metadata.uid.as_deref();
        let all = self.shared.runtime.containers().await.map_err(|error| Failure::internal(chain(&error)))?;
        let mut found: Vec<_> = all
            .into_iter()
            .filter(|status| {
                let owner = status.config.labels.get("io.kubernetes.pod.uid").map(String::as_str);
                status.config.name == container && owner == uid
            })
            .collect();
        found.sort_by_key(|status| (status.config.attempt, status.created_at));
        Ok(found)
    }

    /// The container whose log is wanted.
    pub(super) async fn logged_container(
        &self,
        pod: &Pod,
        name: &str,
        previous: bool,
    ) -> Result<ContainerStatus, Failure> {
        let pod_name = pod.metadata.name.clone().unwrap_or_default();
        let known = crate::machine::spec::members(pod).iter().any(|member| member.container.name == name);
        if !known {
            let message = format!("container {name:?} not found in pod {pod_name:?}");
            return Err(Failure::new(StatusCode::NOT_FOUND, message));
        }
        let mut attempts = self.attempts(pod, name).await?;
        attempts.retain(|status| status.state != ContainerState::Created);
        if previous {
            // While it waits to be restarted, the newest that ended is the previous one.
            let waits = waiting_reason(pod, name).is_some();
            let back = if waits { 1 } else { 2 };
            let before = attempts.len().checked_sub(back).map(|index| attempts.swap_remove(index));
            return before.ok_or_else(|| {
                Failure::bad(format!("previous terminated container {name:?} in pod {pod_name:?} not found"))
            });
        }
        attempts.pop().ok_or_else(|| {
            let reason = waiting_reason(pod, name).unwrap_or_else(|| "ContainerCreating".to_owned());
            Failure::bad(format!("container {name:?} in pod {pod_name:?} is waiting to start: {reason}"))
        })
    }

    /// The running container that a command is to be run in; the pod's first when no name is given.
    pub(super) async fn running_container(&self, pod: &Pod, name: &str) -> Result<ContainerStatus, Failure> {
        let mut attempts = self.attempts(pod, name).await?;
        let running = attempts.pop().filter(|status| matches!(status.state, ContainerState::Running { .. }));
        running.ok_or_else(|| {
            let message = format!("unable to upgrade connection: container not found ({name:?})");
            Failure::new(StatusCode::NOT_FOUND, message)
        })
    }

    /// The pod's sandbox that is ready.
    pub(super) async fn sandbox(&self, pod: &Pod) -> Result<SandboxStatus, Failure> {
        let uid = pod.metadata.uid.clone().unwrap_or_default();
        let all = self.shared.runtime.sandboxes().await.map_err(|error| Failure::internal(chain(&error)))?;
        let found = all.into_iter().find(|sandbox| sandbox.ready && sandbox.config.pod.uid == uid);
        found.ok_or_else(|| {
            let name = pod.metadata.name.as_deref().unwrap_or_default();
            Failure::new(
                StatusCode::NOT_FOUND,
                format!("not running: the sandbox of pod {name:?} is not ready"),
            )
        })
    }
}

fn waiting_reason(pod: &Pod, name: &str) -> Option<String> {
    let status = pod.status.as_ref()?;
    let lists =
        [&status.init_container_statuses, &status.container_statuses, &status.ephemeral_container_statuses];
    let found = lists.into_iter().flatten().flatten().find(|status| status.name == name)?;
    found.state.as_ref()?.waiting.as_ref()?.reason.clone()
}
