//! The behaviours of `[sig-apps]`: workload controllers on one, two and five nodes.
//!
//! A test starts one cluster; each behaviour has a namespace of its own in it, and several run at the same time.

mod cron_jobs;
mod daemon_sets;
mod deployments;
mod disruption;
mod indexed_jobs;
mod jobs;
mod replicas;
mod space;
mod stateful_sets;
mod stateful_updates;

use crate::cluster::Cluster;
use crate::image::import_busybox;
use space::Space;

/// Behaviours by name.
macro_rules! workloads {
    ($($name:path),* $(,)?) => {
        [$((stringify!($name), (|inner| $name(&Space::of(inner))) as fn(&crate::space::Space<'_>))),*]
    };
}

// nodes: 1, 2, 5
/// All of them, the slow ones first.
fn on_nodes(count: usize) {
    let cluster = Cluster::with_nodes(count);
    import_busybox(&cluster);
    let all = workloads![
        cron_jobs::concurrent,
        cron_jobs::forbids,
        cron_jobs::replaces,
        cron_jobs::suspended,
        cron_jobs::operations,
        stateful_sets::ordered_scaling,
        stateful_sets::burst_scaling,
        stateful_sets::scale,
        stateful_sets::collection,
        stateful_sets::status,
        stateful_updates::rolling_update_and_back,
        stateful_updates::canary_and_phases,
        stateful_updates::claims_are_bound_and_kept,
        deployments::recreate,
        deployments::rolling_update,
        deployments::rollover,
        deployments::old_replica_sets,
        deployments::scale,
        deployments::lifecycle,
        deployments::status,
        deployments::proportional_scaling,
        replicas::replica_set_serves,
        replicas::replica_set_adopts,
        replicas::replica_set_scale,
        replicas::replica_set_replace_and_patch,
        replicas::replica_set_collection,
        replicas::replica_set_status,
        replicas::replication_controller_serves,
        replicas::replication_controller_adopts,
        replicas::replication_controller_releases,
        replicas::replication_controller_quota,
        replicas::replication_controller_scale,
        replicas::replication_controller_lifecycle,
        daemon_sets::simple,
        daemon_sets::update,
        daemon_sets::failed_pods,
        daemon_sets::rollback,
        daemon_sets::collection,
        daemon_sets::status,
        daemon_sets::controller_revisions,
        disruption::create,
        disruption::observed,
        disruption::status,
        disruption::collection,
        disruption::eviction,
        jobs::local_restarts,
        jobs::adopts_and_releases,
        jobs::deletion,
        jobs::status,
        jobs::lifecycle,
        jobs::fails_early_on_exit_code,
        jobs::ignores_disruption,
        jobs::goes_when_its_time_is_over,
        jobs::is_suspended_and_resumed,
        indexed_jobs::indexes,
        indexed_jobs::retries_per_index,
        indexed_jobs::fail_index,
        indexed_jobs::max_failed_indexes,
        indexed_jobs::success_of_all,
        indexed_jobs::success_of_some_indexes,
        indexed_jobs::success_of_a_count,
        stateful_sets::evicted,
        daemon_sets::complex,
    ];
    crate::space::show(&cluster, &all);
}

#[test]
fn workloads_on_one_node() {
    on_nodes(1);
}

#[test]
fn workloads_on_two_nodes() {
    on_nodes(2);
}

#[test]
fn workloads_on_five_nodes() {
    on_nodes(5);
}
