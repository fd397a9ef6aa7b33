//! What the node does with pods, as the conformance list of sig-node has it.

mod api;
mod containers;
mod environment;
mod images;
mod life;
mod resize;

use serde_json::json;

use crate::behaviours;
use crate::cluster::Cluster;
use crate::image::{busybox_archive, import_busybox, import_busybox_as};
use crate::registry::Registry;
use crate::space::show;

/// An image with an entrypoint and a command of its own.
const ENTRYPOINT: &str = "test.local/entrypoint:1";
/// The busybox image under another name.
const OTHER_NAME: &str = "test.local/other:1";
/// An image that a registry has.
const PULLED: &str = "localhost:5917/pulled:1";
const PULLED_PORT: u16 = 5917;

#[test]
fn pods_run_as_specified() {
    let work = tempfile::tempdir().unwrap();
    let registry = Registry::start_at(work.path(), PULLED_PORT, "");
    registry.push(&busybox_archive(work.path(), "pulled", json!({})), "pulled:1", &[]);
    let plain = format!("registries:\n  '{}':\n    plainHttp: true\n", registry.host());
    let cluster = Cluster::start("up", &[], &plain);
    import_busybox(&cluster);
    import_busybox_as(&cluster, OTHER_NAME, json!({"Cmd": ["sh"]}));
    let entrypoint = json!({"Entrypoint": ["echo", "entrypoint"], "Cmd": ["default", "arguments"]});
    import_busybox_as(&cluster, ENTRYPOINT, entrypoint);
    let all = behaviours![
        resize::a_net_increase,
        resize::a_net_decrease,
        resize::increases_and_a_decrease,
        resize::six_containers,
        resize::equivalents,
        resize::by_replacing,
        resize::restarts_and_the_infeasible,
        life::post_start_exec,
        life::pre_stop_exec,
        life::post_start_http,
        life::pre_stop_http,
        life::other_hooks,
        life::http_liveness_fails,
        life::http_liveness_holds,
        life::tcp_liveness_holds,
        life::exec_liveness_fails,
        life::exec_liveness_holds,
        life::grpc_liveness_holds,
        life::grpc_liveness_fails,
        life::restart_counts_only_grow,
        life::readiness_waits_for_its_delay,
        life::failing_readiness,
        life::startup_probes_and_readiness_gates,
        life::ephemeral_containers,
        life::submitted_and_removed,
        life::updated,
        life::the_deadline_is_updated,
        life::the_class_is_set,
        life::a_collection_is_deleted,
        life::the_status_is_patched,
        life::the_life_of_a_pod_and_its_status,
        life::generations_count_changes,
        life::generations_are_not_chosen,
        life::five_hundred_updates,
        life::commands_and_logs_over_websockets,
        environment::variables_of_config_maps,
        environment::variables_of_secrets,
        environment::variables_of_fields,
        environment::variables_of_resources,
        environment::commands_and_arguments,
        environment::variables_are_expanded,
        environment::a_sub_path_is_expanded,
        environment::a_sub_path_does_not_lead_out,
        environment::a_sub_path_is_not_absolute,
        environment::a_failing_sub_path_is_mended,
        environment::sub_paths_are_written,
        environment::variables_of_services,
        environment::a_pod_knows_its_host,
        containers::exits_and_restart_policies,
        containers::a_last_word_at_another_path,
        containers::a_last_word_from_the_log,
        containers::no_last_word_after_success,
        containers::a_last_word_from_the_file,
        containers::output_goes_to_the_log,
        containers::what_always_fails_has_a_reason_and_can_go,
        containers::the_root_is_writable_or_not,
        containers::host_aliases,
        containers::the_hosts_file_is_managed,
        containers::init_containers_then_the_end,
        containers::init_containers_then_running,
        containers::a_failed_init_container_fails_the_pod,
        containers::a_failing_init_container_is_tried_again,
        containers::users_and_groups,
        containers::unprivileged,
        containers::no_new_privileges,
        containers::sysctls,
        containers::invalid_sysctls,
        api::config_maps,
        api::secrets,
        api::pod_templates,
        api::leases,
        api::runtime_classes,
        api::pods_of_runtime_classes,
        api::nodes,
        api::device_classes,
        api::resource_claims,
        api::resource_claim_templates,
        api::resource_slices,
        images::image_volumes,
        images::an_image_volume_that_is_missing,
        images::reasons_of_images,
        images::one_name_in_two_namespaces,
    ];
    show(&cluster, &all);
    // A taint drives out what the others would still be looking at.
    show(&cluster, &behaviours![api::taints_evict]);
}
