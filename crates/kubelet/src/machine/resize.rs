//! Changing the resources of running containers in place (KEP-1287).

use containers::ContainerId;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::ResourceRequirements;

use super::Machine;
use super::event::Effect;
use super::slot::Slot;
use super::spec;
use crate::quantity;

/// What is known about the pod's resize as a whole, for its conditions.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Resize {
    /// The node can never give this much.
    pub infeasible: Option<String>,
    /// The runtime refused.
    pub error: Option<String>,
}

/// Requests and limits without claims, the part that can change.
fn amounts(resources: &Option<ResourceRequirements>) -> (Amounts<'_>, Amounts<'_>) {
    let resources = resources.as_ref();
    (resources.and_then(|r| r.requests.as_ref()), resources.and_then(|r| r.limits.as_ref()))
}

type Amounts<'a> =
    Option<&'a std::collections::BTreeMap<String, k8s_openapi::apimachinery::pkg::api::resource::Quantity>>;

fn differs(slot: &Slot) -> bool {
    slot.running()
        .is_some_and(|running| amounts(&running.resources) != amounts(&slot.member.container.resources))
}

/// Whether a change of this resource asks for a restart.
fn needs_restart(slot: &Slot) -> bool {
    let Some(running) = slot.running() else { return false };
    let amount = |resources: &Option<ResourceRequirements>, name: &str| {
        let (requests, limits) = amounts(resources);
        (requests.and_then(|map| map.get(name).cloned()), limits.and_then(|map| map.get(name).cloned()))
    };
    slot.member.container.resize_policy.iter().flatten().any(|policy| {
        policy.restart_policy == "RestartContainer"
            && amount(&running.resources, &policy.resource_name)
                != amount(&slot.member.container.resources, &policy.resource_name)
    })
}

impl Machine {
    /// A resize has been asked for and is not yet applied.
    pub(super) fn resizing(&self) -> bool {
        self.slots.iter().any(differs)
    }

    pub(super) fn decide_resize(&mut self) {
        if !self.resizing() {
            self.resize = Resize::default();
            return;
        }
        self.resize.infeasible = self.infeasible();
        if self.resize.infeasible.is_some() {
            return;
        }
        for index in 0..self.slots.len() {
            let slot = &self.slots[index];
            let idle = slot.running().is_some_and(|running| !running.resizing && running.stopping.is_none());
            if idle && differs(slot) && !needs_restart(slot) {
                self.update_resources(index);
            }
        }
    }

    fn update_resources(&mut self, index: usize) {
        let slot = &mut self.slots[index];
        let resources = slot.member.container.resources.clone().unwrap_or_default();
        let container = slot.name().to_owned();
        let Some(running) = slot.running_mut() else { return };
        running.resizing = true;
        let id = running.id.clone();
        self.emit(Effect::UpdateResources { container, id, resources: Box::new(resources) });
    }

    /// Upstream's message when the pod alone asks for more than the node has.
    fn infeasible(&self) -> Option<String> {
        let (cpu, memory) = quantity::pod_requests(&self.pod);
        if cpu > self.node.allocatable_cpu_millis && self.node.allocatable_cpu_millis > 0 {
            let capacity = self.node.allocatable_cpu_millis;
            return Some(format!(
                "Node didn't have enough capacity: cpu, requested: {cpu}, capacity: {capacity}"
            ));
        }
        if memory > self.node.allocatable_memory_bytes && self.node.allocatable_memory_bytes > 0 {
            let capacity = self.node.allocatable_memory_bytes;
            return Some(format!(
                "Node didn't have enough capacity: memory, requested: {memory}, capacity: {capacity}"
            ));
        }
        None
    }

    /// Whether the container that just ended was stopped for a resize that wants a restart.
    pub(super) fn resize_restarts(&self, container: &str, id: &ContainerId) -> bool {
        self.slots.iter().any(|slot| {
            slot.name() == container
                && slot.running().is_some_and(|running| running.id == *id && running.stopping.is_some())
                && needs_restart(slot)
        })
    }

    /// Stops containers whose resize policy asks for a restart.
    pub(super) fn restart_resized(&mut self, now: Timestamp) {
        if self.resize.infeasible.is_some() {
            return;
        }
        let due = |slot: &&Slot| {
            differs(slot)
                && needs_restart(slot)
                && slot.running().is_some_and(|running| running.stopping.is_none())
        };
        let names: Vec<_> = self.slots.iter().filter(due).map(|slot| slot.name().to_owned()).collect();
        for name in names {
            let message = format!("Container {name} resize requires restart");
            self.stop_container(&name, spec::grace_seconds(&self.pod), true, &message, now);
        }
    }

    pub(super) fn absorb_resized(&mut self, container: &str, id: &ContainerId, result: Result<(), String>) {
        let Some(slot) = self.slot_mut(container) else { return };
        let wanted = slot.member.container.resources.clone();
        let Some(running) = slot.running_as(id) else { return };
        running.resizing = false;
        // A refusal stands until the specification changes again; asking in a loop would not help.
        running.resources = wanted;
        self.resize.error = result.err();
        match self.resize.error.clone() {
            None => self.slot_event(container, false, "ResizeCompleted", "Pod resize completed"),
            Some(message) => self.slot_event(container, true, "ResizeError", &message),
        }
    }
}
