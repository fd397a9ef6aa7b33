//! The runtime interface on the embedded runtime.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::broadcast;

use super::{Container, EmbeddedRuntime, Sandbox};
use crate::{
    ContainerConfig, ContainerId, ContainerStatus, Duplex, ExecResult, Resources, Runtime, RuntimeError,
    RuntimeEvent, SandboxConfig, SandboxId, SandboxStatus, StreamRequest, Streams, Usage,
};

#[async_trait]
impl Runtime for EmbeddedRuntime {
    async fn run_sandbox(&self, config: &SandboxConfig) -> Result<SandboxStatus, RuntimeError> {
        self.inner.run_sandbox(config).await
    }

    async fn stop_sandbox(&self, id: &SandboxId) -> Result<(), RuntimeError> {
        self.inner.stop_sandbox(id).await
    }

    async fn remove_sandbox(&self, id: &SandboxId) -> Result<(), RuntimeError> {
        self.inner.remove_sandbox(id).await
    }

    async fn sandboxes(&self) -> Result<Vec<SandboxStatus>, RuntimeError> {
        let all: Vec<Arc<Sandbox>> = self.inner.tables.lock().sandboxes.values().cloned().collect();
        Ok(all.iter().map(|sandbox| self.inner.sandbox_status(sandbox)).collect())
    }

    async fn create_container(
        &self,
        sandbox: &SandboxId,
        config: &ContainerConfig,
    ) -> Result<ContainerId, RuntimeError> {
        self.inner.create_container(sandbox, config).await
    }

    async fn start_container(&self, id: &ContainerId) -> Result<(), RuntimeError> {
        self.inner.start_container(id).await
    }

    async fn stop_container(&self, id: &ContainerId, grace: Duration) -> Result<(), RuntimeError> {
        self.inner.stop_container(id, grace).await
    }

    async fn remove_container(&self, id: &ContainerId) -> Result<(), RuntimeError> {
        self.inner.remove_container(id).await
    }

    async fn containers(&self) -> Result<Vec<ContainerStatus>, RuntimeError> {
        let all: Vec<Arc<Container>> = self.inner.tables.lock().containers.values().cloned().collect();
        Ok(all.iter().map(|container| self.inner.container_status(container)).collect())
    }

    async fn container(&self, id: &ContainerId) -> Result<ContainerStatus, RuntimeError> {
        let container = self.inner.container(id)?;
        Ok(self.inner.container_status(&container))
    }

    async fn update_sandbox_resources(
        &self,
        id: &SandboxId,
        resources: &Resources,
    ) -> Result<(), RuntimeError> {
        self.inner.update_sandbox_resources(id, resources)
    }

    async fn update_resources(&self, id: &ContainerId, resources: &Resources) -> Result<(), RuntimeError> {
        self.inner.update_resources(id, resources)
    }

    async fn usage(&self, id: &ContainerId) -> Result<Usage, RuntimeError> {
        self.inner.usage(id).await
    }

    async fn total_usage(&self) -> Result<Usage, RuntimeError> {
        self.inner.total_usage().await
    }

    async fn writable_layer_bytes(&self, id: &ContainerId) -> Result<u64, RuntimeError> {
        self.inner.writable_layer_bytes(id).await
    }

    async fn reopen_log(&self, id: &ContainerId) -> Result<(), RuntimeError> {
        self.inner.reopen_log(id).await
    }

    async fn exec_sync(
        &self,
        id: &ContainerId,
        command: &[String],
        timeout: Duration,
    ) -> Result<ExecResult, RuntimeError> {
        self.inner.exec_sync(id, command, timeout).await
    }

    async fn exec(&self, id: &ContainerId, request: &StreamRequest) -> Result<Streams, RuntimeError> {
        self.inner.exec(id, request).await
    }

    async fn attach(&self, id: &ContainerId, request: &StreamRequest) -> Result<Streams, RuntimeError> {
        self.inner.attach(id, request).await
    }

    async fn port_forward(&self, id: &SandboxId, port: u16) -> Result<Box<dyn Duplex>, RuntimeError> {
        self.inner.sandbox(id)?;
        self.inner.port_forward(id, port).await
    }

    fn events(&self) -> broadcast::Receiver<RuntimeEvent> {
        self.inner.events.subscribe()
    }

    fn version(&self) -> (String, String) {
        ("kobune".into(), env!("CARGO_PKG_VERSION").into())
    }
}
