//! The pod's phase from its containers' states, as upstream derives it.

use k8s_openapi::api::core::v1::{ContainerState, ContainerStatus};

use super::Machine;
use super::spec::{Kind, RestartPolicy};

#[derive(Default)]
struct Count {
    running: u32,
    waiting: u32,
    stopped: u32,
    succeeded: u32,
    pending_init: u32,
    pending_sidecar: u32,
    failed_init: u32,
}

fn terminated(state: &Option<ContainerState>) -> Option<i32> {
    state.as_ref()?.terminated.as_ref().map(|ended| ended.exit_code)
}

fn runs(status: &ContainerStatus) -> bool {
    status.state.as_ref().is_some_and(|state| state.running.is_some())
}

impl Count {
    fn add(&mut self, kind: Kind, status: &ContainerStatus) {
        let exit = terminated(&status.state).or_else(|| terminated(&status.last_state));
        match kind {
            Kind::Init if runs(status) => self.pending_init += 1,
            Kind::Init => match exit {
                None => self.pending_init += 1,
                Some(0) => {}
                Some(_) => self.failed_init += 1,
            },
            Kind::Sidecar if runs(status) => {
                self.running += 1;
                self.pending_sidecar += u32::from(status.started != Some(true));
            }
            Kind::Sidecar if exit.is_none() => {
                self.pending_sidecar += 1;
                self.waiting += 1;
            }
            Kind::Main if runs(status) => self.running += 1,
            Kind::Main => match exit {
                None => self.waiting += 1,
                Some(code) => {
                    self.stopped += 1;
                    self.succeeded += u32::from(code == 0);
                }
            },
            Kind::Sidecar | Kind::Ephemeral => {}
        }
    }
}

impl Machine {
    /// The phase that the statuses of the containers amount to. `over`: the pod will not run again.
    pub(super) fn phase_of(&self, statuses: &[(Kind, ContainerStatus)], over: bool) -> &'static str {
        let mut count = Count::default();
        for (kind, status) in statuses {
            count.add(*kind, status);
        }
        let policy = self.restart_policy();
        if count.failed_init > 0 && (policy == RestartPolicy::Never || over) {
            return "Failed";
        }
        if count.failed_init > 0 && !self.initialized {
            return "Pending";
        }
        if count.pending_init > 0 || !self.initialized && count.pending_sidecar > 0 {
            return "Pending";
        }
        match count {
            Count { waiting: 1.., .. } => "Pending",
            Count { running: 1.., .. } => "Running",
            Count { stopped: stopped @ 1.., succeeded, .. } => match policy {
                _ if over => {
                    if stopped == succeeded {
                        "Succeeded"
                    } else {
                        "Failed"
                    }
                }
                RestartPolicy::Always => "Running",
                _ if stopped == succeeded => "Succeeded",
                RestartPolicy::Never => "Failed",
                RestartPolicy::OnFailure => "Running",
            },
            _ => "Pending",
        }
    }
}
