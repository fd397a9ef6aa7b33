//! Volumes, as the conformance list of sig-storage has them.

mod api;
mod directories;
mod files;

use crate::behaviours;
use crate::cluster::Cluster;
use crate::image::import_busybox;
use crate::space::show;

#[test]
fn volumes_are_as_specified() {
    let cluster = Cluster::up();
    import_busybox(&cluster);
    let all = behaviours![
        directories::as_root_on_disk,
        directories::as_a_user_on_disk,
        directories::as_root_in_memory,
        directories::as_a_user_in_memory,
        directories::the_mode_of_the_volume,
        directories::shared_between_containers,
        directories::limits_of_size,
        directories::secret_and_config_map_together,
        directories::fifty_config_maps,
        directories::parts_of_volumes,
        directories::host_paths_and_claims,
        files::config_maps,
        files::secrets,
        files::a_secret_of_the_same_name_elsewhere,
        files::in_several_volumes,
        files::binary_data,
        files::updates,
        files::optional_updates_of_config_maps,
        files::optional_updates_of_secrets,
        files::immutable,
        files::fields,
        files::resources,
        files::labels_and_annotations,
        files::everything_projected,
        api::drivers,
        api::inline_volumes,
        api::csi_nodes,
        api::capacities,
        api::storage_classes,
        api::attributes_classes,
        api::attachments,
        api::volumes_and_claims,
    ];
    show(&cluster, &all);
}
