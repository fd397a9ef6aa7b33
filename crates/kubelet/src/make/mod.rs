//! Making what the runtime is told from a pod's specification and what surrounds it.

pub mod environment;
pub mod expansion;
pub mod field;
pub mod mounts;
pub mod naming;
pub mod resources;
pub mod security;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use containers::{ContainerConfig, ContainerId, PodIdentity, SandboxConfig};
use images::Image;
use k8s_openapi::api::core::v1::{Container, Pod, Service};

use crate::machine::spec::{Member, grace_seconds};
use crate::volumes::Volumes;
use environment::{Lookup, environment};
use expansion::expand;
use field::Surroundings;
use naming::ClusterDns;

/// Container annotations by which a later kubelet finds what it needs to judge an end.
pub const TERMINATION_PATH: &str = "io.kubernetes.container.terminationMessagePath";
pub const TERMINATION_POLICY: &str = "io.kubernetes.container.terminationMessagePolicy";
/// Where the termination message is on the host.
pub const TERMINATION_FILE: &str = "kobune.io/termination-message-file";
/// Sandbox annotation: the pod's grace period in seconds, for pods that are gone from the API.
pub const GRACE_SECONDS: &str = "io.kubernetes.pod.terminationGracePeriod";

/// What does not change from pod to pod.
#[derive(Clone, Debug, Default)]
pub struct NodeSettings {
    pub hostname: String,
    pub dns: ClusterDns,
    /// The host's resolver file, read anew for each pod.
    pub resolver_file: PathBuf,
    /// Where pod logs are: `/var/log/pods`.
    pub log_root: PathBuf,
    /// Where seccomp profiles are looked for.
    pub seccomp_root: PathBuf,
    /// Processes per pod; 0 for no limit.
    pub pids_limit: i64,
    pub memory_capacity_bytes: i64,
}

/// Namespace, name and uid.
pub fn identity(pod: &Pod) -> PodIdentity {
    let meta = &pod.metadata;
    PodIdentity {
        namespace: meta.namespace.clone().unwrap_or_default(),
        name: meta.name.clone().unwrap_or_default(),
        uid: meta.uid.clone().unwrap_or_default(),
    }
}

/// `/var/log/pods/NAMESPACE_NAME_UID`.
pub fn log_directory(node: &NodeSettings, pod: &PodIdentity) -> PathBuf {
    node.log_root.join(format!("{}_{}_{}", pod.namespace, pod.name, pod.uid))
}

fn pod_labels(pod: &PodIdentity) -> BTreeMap<String, String> {
    BTreeMap::from([
        ("io.kubernetes.pod.name".to_owned(), pod.name.clone()),
        ("io.kubernetes.pod.namespace".to_owned(), pod.namespace.clone()),
        ("io.kubernetes.pod.uid".to_owned(), pod.uid.clone()),
    ])
}

/// The sandbox of a pod.
pub fn sandbox_config(pod: &Pod, attempt: u32, node: &NodeSettings) -> SandboxConfig {
    let identity = identity(pod);
    let spec = pod.spec.clone().unwrap_or_default();
    let mut labels = pod.metadata.labels.clone().unwrap_or_default();
    labels.extend(pod_labels(&identity));
    let mut annotations = pod.metadata.annotations.clone().unwrap_or_default();
    annotations.insert(GRACE_SECONDS.to_owned(), grace_seconds(pod).to_string());
    let sysctls = spec.security_context.iter().flat_map(|context| context.sysctls.iter().flatten());
    SandboxConfig {
        attempt,
        hostname: naming::hostnames(pod, &node.dns.domain, &node.hostname).0,
        log_directory: log_directory(node, &identity),
        labels,
        annotations,
        host_network: spec.host_network == Some(true),
        host_pid: spec.host_pid == Some(true),
        host_ipc: spec.host_ipc == Some(true),
        share_process_namespace: spec.share_process_namespace == Some(true),
        cgroup_parent: resources::cgroup_parent(pod),
        sysctls: sysctls.map(|sysctl| (sysctl.name.clone(), sysctl.value.clone())).collect(),
        resources: resources::pod(pod, node.pids_limit),
        pod: identity,
    }
}

/// Everything that a container is made of.
pub struct Ingredients<'a> {
    pub pod: &'a Pod,
    pub member: &'a Member,
    pub attempt: u32,
    pub image: &'a Image,
    pub services: &'a [Arc<Service>],
    pub lookup: &'a dyn Lookup,
    pub around: &'a Surroundings,
    pub node: &'a NodeSettings,
    pub volumes: &'a Volumes,
    /// For ephemeral containers: the container whose processes they see.
    pub target: Option<ContainerId>,
}

/// The container's configuration. `Err` is the message of `CreateContainerConfigError`.
pub fn container_config(from: &Ingredients<'_>) -> Result<ContainerConfig, String> {
    let container: &Container = &from.member.container;
    let variables = environment(from.pod, container, from.services, from.lookup, from.around)?;
    let find =
        |name: &str| variables.iter().rev().find(|(known, _)| known == name).map(|(_, value)| value.clone());
    let expanded =
        |list: &Option<Vec<String>>| list.iter().flatten().map(|text| expand(text, find)).collect();
    let mut security = security::security(from.pod, container, from.image, &from.node.seccomp_root)?;
    security.target_container = from.target.clone();
    let made = mounts::mounts(from, &find)?;
    let identity = identity(from.pod);
    let mut labels = pod_labels(&identity);
    labels.insert("io.kubernetes.container.name".to_owned(), container.name.clone());
    let policy = container.termination_message_policy.as_deref().unwrap_or("File");
    let annotations = BTreeMap::from([
        ("io.kubernetes.container.restartCount".to_owned(), from.attempt.to_string()),
        (TERMINATION_PATH.to_owned(), mounts::termination_path(container).to_owned()),
        (TERMINATION_POLICY.to_owned(), policy.to_owned()),
        (TERMINATION_FILE.to_owned(), made.termination_file.to_string_lossy().into_owned()),
    ]);
    let resources = resources::container(
        from.pod,
        container.resources.as_ref(),
        from.node.memory_capacity_bytes,
        from.node.pids_limit,
    );
    Ok(ContainerConfig {
        name: container.name.clone(),
        attempt: from.attempt,
        image_id: from.image.id.clone(),
        image: container.image.clone().unwrap_or_default(),
        command: expanded(&container.command),
        args: expanded(&container.args),
        working_directory: container.working_dir.clone().unwrap_or_default(),
        mounts: made.mounts,
        devices: Vec::new(),
        labels,
        annotations,
        log_path: PathBuf::from(&container.name).join(format!("{}.log", from.attempt)),
        stdin: container.stdin == Some(true),
        stdin_once: container.stdin_once == Some(true),
        tty: container.tty == Some(true),
        resources,
        security,
        environment: variables,
    })
}
