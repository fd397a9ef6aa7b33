//! Lifecycle hooks: `exec`, `httpGet`, `sleep`.

use std::time::Duration;

use containers::ContainerId;
use k8s_openapi::api::core::v1::{Container, LifecycleHandler};

use crate::pods::executor::chain;
use crate::pods::shared::Shared;
use crate::probes::{http, port_number};
use crate::text::head;

/// Nothing ends a hook but its container's grace period; this bounds what the runtime is told.
const EXEC_LIMIT: Duration = Duration::from_secs(24 * 3600);
const HTTP_LIMIT: Duration = Duration::from_secs(60);

/// Runs a hook to its end.
pub async fn run(
    shared: &Shared,
    hook: &LifecycleHandler,
    container: &Container,
    id: &ContainerId,
    pod_ip: &str,
) -> Result<(), String> {
    if let Some(exec) = &hook.exec {
        let command = exec.command.clone().unwrap_or_default();
        let result =
            shared.runtime.exec_sync(id, &command, EXEC_LIMIT).await.map_err(|error| chain(&error))?;
        if result.exit_code == 0 {
            return Ok(());
        }
        let said = [result.stdout, result.stderr].concat();
        let said = String::from_utf8_lossy(&said).into_owned();
        return Err(format!(
            "Exec lifecycle hook ({command:?}) for Container {:?} failed - error: command '{}' exited with {}: {}, message: {:?}",
            container.name,
            command.join(" "),
            result.exit_code,
            head(&said, 1024),
            head(&said, 1024),
        ));
    }
    if let Some(sleep) = &hook.sleep {
        tokio::time::sleep(Duration::from_secs(sleep.seconds.max(0).unsigned_abs())).await;
        return Ok(());
    }
    if let Some(get) = &hook.http_get {
        let port = port_number(&get.port, container)?;
        let request = http::Request::of(get, port, pod_ip);
        let outcome = http::get(&shared.prober, &request, HTTP_LIMIT).await;
        return match outcome {
            http::Answer::Status { code, .. } if (200..400).contains(&code) => Ok(()),
            http::Answer::Status { code, .. } => {
                Err(format!("HTTP lifecycle hook failed with statuscode: {code}"))
            }
            http::Answer::Failed(cause) => Err(cause),
        };
    }
    Err("invalid handler: only exec, httpGet and sleep hooks can be run".to_owned())
}
