//! The pod's specification as the machine reads it: one list of containers of four kinds.

use std::sync::Arc;

use k8s_openapi::api::core::v1::{Container, EphemeralContainer, Pod, PodSpec};

/// What part a container plays in its pod's life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// Runs to its end before the next begins.
    Init,
    /// An init container with `restartPolicy: Always`: runs along until the pod ends.
    Sidecar,
    Main,
    /// Added by a debugger; never restarted.
    Ephemeral,
}

/// A container's specification and part.
#[derive(Clone, Debug)]
pub struct Member {
    pub kind: Kind,
    pub container: Arc<Container>,
    /// For ephemeral containers: whose process namespace they join.
    pub target: Option<String>,
}

impl Member {
    /// `spec.containers{NAME}` and the like, as events refer to it.
    pub fn field_path(&self) -> String {
        let list = match self.kind {
            Kind::Init | Kind::Sidecar => "initContainers",
            Kind::Main => "containers",
            Kind::Ephemeral => "ephemeralContainers",
        };
        format!("spec.{list}{{{}}}", self.container.name)
    }
}

/// All containers: init and sidecars in order, then main, then ephemeral.
pub fn members(pod: &Pod) -> Vec<Member> {
    let Some(spec) = &pod.spec else { return Vec::new() };
    let init = spec.init_containers.iter().flatten().map(|container| {
        let sidecar = container.restart_policy.as_deref() == Some("Always");
        let kind = if sidecar { Kind::Sidecar } else { Kind::Init };
        Member { kind, container: Arc::new(container.clone()), target: None }
    });
    let main = spec.containers.iter().map(|container| Member {
        kind: Kind::Main,
        container: Arc::new(container.clone()),
        target: None,
    });
    let ephemeral = spec.ephemeral_containers.iter().flatten().map(|container| Member {
        kind: Kind::Ephemeral,
        container: Arc::new(plain(container)),
        target: container.target_container_name.clone().filter(|name| !name.is_empty()),
    });
    init.chain(main).chain(ephemeral).collect()
}

/// An ephemeral container has the fields of a container and a target.
fn plain(container: &EphemeralContainer) -> Container {
    let container = container.clone();
    Container {
        args: container.args,
        command: container.command,
        env: container.env,
        env_from: container.env_from,
        image: container.image,
        image_pull_policy: container.image_pull_policy,
        name: container.name,
        security_context: container.security_context,
        stdin: container.stdin,
        stdin_once: container.stdin_once,
        termination_message_path: container.termination_message_path,
        termination_message_policy: container.termination_message_policy,
        tty: container.tty,
        volume_devices: container.volume_devices,
        volume_mounts: container.volume_mounts,
        working_dir: container.working_dir,
        ..Container::default()
    }
}

/// When a container that ended is started again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RestartPolicy {
    Always,
    OnFailure,
    Never,
}

impl RestartPolicy {
    fn parse(text: Option<&str>) -> Option<Self> {
        match text {
            Some("Always") => Some(Self::Always),
            Some("OnFailure") => Some(Self::OnFailure),
            Some("Never") => Some(Self::Never),
            _ => None,
        }
    }

    /// The pod's policy.
    pub fn of(spec: &PodSpec) -> Self {
        Self::parse(spec.restart_policy.as_deref()).unwrap_or(Self::Always)
    }
}

/// Whether a container that ended with `exit_code` is to run again. Container-level rules and policies
/// (KEP-5307) come before the pod's policy.
pub fn restarts(member: &Member, pod_policy: RestartPolicy, exit_code: i32) -> bool {
    if member.kind == Kind::Ephemeral {
        return false;
    }
    let rules = member.container.restart_policy_rules.iter().flatten();
    for rule in rules {
        let Some(codes) = &rule.exit_codes else { continue };
        let listed = codes.values.iter().flatten().any(|code| *code == exit_code);
        if listed == (codes.operator == "In") {
            return rule.action == "Restart";
        }
    }
    match RestartPolicy::parse(member.container.restart_policy.as_deref()).unwrap_or(pod_policy) {
        RestartPolicy::Always if member.kind == Kind::Init => exit_code != 0,
        RestartPolicy::Always => true,
        RestartPolicy::OnFailure => exit_code != 0,
        RestartPolicy::Never => false,
    }
}

/// The grace period that the pod asks for, in seconds.
pub fn grace_seconds(pod: &Pod) -> i64 {
    pod.spec.as_ref().and_then(|spec| spec.termination_grace_period_seconds).unwrap_or(30)
}

/// `NAME_NAMESPACE(UID)`, as upstream's messages name a pod.
pub fn display_name(pod: &Pod) -> String {
    let meta = &pod.metadata;
    let text = |field: &Option<String>| field.clone().unwrap_or_default();
    format!("{}_{}({})", text(&meta.name), text(&meta.namespace), text(&meta.uid))
}
