//! What a pod asks for (`PodRequests` upstream, KEP-753, KEP-1287, KEP-2837).

use super::view::{ContainerStatusView, ContainerView, PodView};
use crate::Amounts;

/// The larger of the running containers (with sidecars) and of each step of initialization, or what the pod asks for
/// as a whole, plus the overhead of its runtime class.
///
/// While a resize is under way a container counts with the largest of what it asks for, what it was promised and what
/// it has; one that can never be resized does not count with what it asks for.
pub fn requests(pod: &PodView) -> Amounts {
    let spec = &pod.spec;
    let infeasible = pod.status.conditions.iter().flatten().any(|condition| {
        condition.kind == "PodResizePending" && condition.reason.as_deref() == Some("Infeasible")
    });
    let of = |container: &ContainerView, statuses: &Option<Vec<ContainerStatusView>>| {
        let status = statuses.iter().flatten().find(|status| status.name == container.name);
        container_requests(container, status, infeasible)
    };
    let mut running = Amounts::default();
    for container in spec.containers.iter().flatten() {
        running.add(&of(container, &pod.status.container_statuses));
    }
    let (mut sidecars, mut initializing) = (Amounts::default(), Amounts::default());
    for container in spec.init_containers.iter().flatten() {
        if container.is_sidecar() {
            sidecars.add(&of(container, &pod.status.init_container_statuses));
            initializing.raise(&sidecars);
        } else {
            let mut step = sidecars.clone();
            step.add(&of(container, &None));
            initializing.raise(&step);
        }
    }
    running.add(&sidecars);
    running.raise(&initializing);
    if let Some(whole) = spec.resources.as_ref().and_then(|resources| resources.requests.as_ref()) {
        running.replace(whole);
    }
    running.add(&Amounts::read(spec.overhead.iter().flatten()));
    running
}

fn container_requests(
    container: &ContainerView,
    status: Option<&ContainerStatusView>,
    infeasible: bool,
) -> Amounts {
    let wanted = container.resources.as_ref().and_then(|resources| resources.requests.as_ref());
    let wanted = Amounts::read(wanted.into_iter().flatten());
    let has = status.and_then(|status| status.resources.as_ref()?.requests.as_ref());
    let promised = status.and_then(|status| status.allocated_resources.as_ref());
    if has.is_none() && promised.is_none() {
        return wanted;
    }
    let mut most = Amounts::read(has.into_iter().flatten());
    most.raise(&Amounts::read(promised.into_iter().flatten()));
    if !infeasible {
        most.raise(&wanted);
    }
    most
}
