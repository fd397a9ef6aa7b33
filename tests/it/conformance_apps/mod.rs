//! The behaviours of `[sig-apps]`: workload controllers on one node.
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

use std::sync::Mutex;

use crate::cluster::Cluster;
use crate::image::import_busybox;
use space::Space;

/// How many behaviours are shown at the same time.
const SIDE_BY_SIDE: usize = 4;

type Behaviour = (&'static str, fn(&Space<'_>));

/// Shows behaviours on one cluster, each in a namespace of that name.
fn show(behaviours: &[Behaviour]) {
    let cluster = Cluster::up();
    import_busybox(&cluster);
    let left = Mutex::new(behaviours.iter());
    let work = || {
        loop {
            let next = left.lock().map(|mut left| left.next().copied());
            let Ok(Some((namespace, behaviour))) = next else { return };
            let start = std::time::Instant::now();
            let space = Space::create(&cluster, namespace);
            behaviour(&space);
            space.remove();
            println!("{namespace}: {:?}", start.elapsed());
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..SIDE_BY_SIDE {
            scope.spawn(work);
        }
    });
}

#[test]
fn replica_sets_and_their_older_kind() {
    show(&[
        ("rs-serve", replicas::replica_set_serves),
        ("rs-adopt", replicas::replica_set_adopts),
        ("rs-scale", replicas::replica_set_scale),
        ("rs-patch", replicas::replica_set_replace_and_patch),
        ("rs-list", replicas::replica_set_collection),
        ("rs-status", replicas::replica_set_status),
        ("rc-serve", replicas::replication_controller_serves),
        ("rc-adopt", replicas::replication_controller_adopts),
        ("rc-release", replicas::replication_controller_releases),
        ("rc-quota", replicas::replication_controller_quota),
        ("rc-scale", replicas::replication_controller_scale),
        ("rc-life", replicas::replication_controller_lifecycle),
    ]);
}

#[test]
fn deployments() {
    show(&[
        ("deploy-recreate", deployments::recreate),
        ("deploy-rolling", deployments::rolling_update),
        ("deploy-rollover", deployments::rollover),
        ("deploy-history", deployments::old_replica_sets),
        ("deploy-scale", deployments::scale),
        ("deploy-life", deployments::lifecycle),
        ("deploy-status", deployments::status),
        ("deploy-share", deployments::proportional_scaling),
    ]);
}

#[test]
fn stateful_sets() {
    show(&[
        ("sts-order", stateful_sets::ordered_scaling),
        ("sts-burst", stateful_sets::burst_scaling),
        ("sts-evicted", stateful_sets::evicted),
        ("sts-scale", stateful_sets::scale),
        ("sts-list", stateful_sets::collection),
        ("sts-status", stateful_sets::status),
        ("sts-update", stateful_updates::rolling_update_and_back),
        ("sts-canary", stateful_updates::canary_and_phases),
        ("sts-claims", stateful_updates::claims_are_bound_and_kept),
    ]);
}

#[test]
fn daemon_sets() {
    show(&[
        ("ds-simple", daemon_sets::simple),
        ("ds-complex", daemon_sets::complex),
        ("ds-update", daemon_sets::update),
        ("ds-failed", daemon_sets::failed_pods),
        ("ds-back", daemon_sets::rollback),
        ("ds-list", daemon_sets::collection),
        ("ds-status", daemon_sets::status),
        ("ds-revisions", daemon_sets::controller_revisions),
    ]);
}

#[test]
fn disruption_budgets() {
    show(&[
        ("pdb-create", disruption::create),
        ("pdb-observe", disruption::observed),
        ("pdb-status", disruption::status),
        ("pdb-list", disruption::collection),
        ("pdb-evict", disruption::eviction),
    ]);
}

#[test]
fn jobs() {
    show(&[
        ("job-retry", jobs::local_restarts),
        ("job-adopt", jobs::adopts_and_releases),
        ("job-delete", jobs::deletion),
        ("job-status", jobs::status),
        ("job-life", jobs::lifecycle),
        ("job-exit", jobs::fails_early_on_exit_code),
        ("job-ignore", jobs::ignores_disruption),
        ("job-ttl", jobs::goes_when_its_time_is_over),
        ("job-suspend", jobs::is_suspended_and_resumed),
    ]);
}

#[test]
fn indexed_jobs() {
    show(&[
        ("job-index", indexed_jobs::indexes),
        ("job-each", indexed_jobs::retries_per_index),
        ("job-failindex", indexed_jobs::fail_index),
        ("job-max", indexed_jobs::max_failed_indexes),
        ("job-success", indexed_jobs::success_of_all),
        ("job-some", indexed_jobs::success_of_some_indexes),
        ("job-count", indexed_jobs::success_of_a_count),
    ]);
}

#[test]
fn cron_jobs() {
    show(&[
        ("cron-allow", cron_jobs::concurrent),
        ("cron-forbid", cron_jobs::forbids),
        ("cron-replace", cron_jobs::replaces),
        ("cron-suspend", cron_jobs::suspended),
        ("cron-api", cron_jobs::operations),
    ]);
}
