//! Which strategy belongs to which kind.

use std::sync::Arc;

use crate::core::{
    config, endpoints, event, limits, namespace, node, persistent_volume, persistent_volume_claim, pod,
    pod_template, replication_controller, service, service_account,
};
use crate::{Strategy, apps, autoscaling, batch, misc, networking, policy, rbac, registration, storage};

/// The strategy of a built-in kind; kinds that do not differ share the plain one.
pub fn strategy(group: &str, version: &str, kind: &str) -> Arc<dyn Strategy> {
    match group {
        "" => core_group(kind),
        "apps" | "batch" | "autoscaling" => workloads(kind),
        "events.k8s.io" => Arc::new(event::Events { modern: true }),
        "networking.k8s.io" | "discovery.k8s.io" | "policy" => network(kind),
        "storage.k8s.io" => storage_group(kind),
        "rbac.authorization.k8s.io" => access(kind),
        _ => extension(group, version, kind),
    }
}

fn core_group(kind: &str) -> Arc<dyn Strategy> {
    match kind {
        "ComponentStatus" => Arc::new(misc::ComponentStatuses),
        "ConfigMap" => Arc::new(config::ConfigMaps),
        "Endpoints" => Arc::new(endpoints::EndpointsStrategy),
        "Event" => Arc::new(event::Events { modern: false }),
        "LimitRange" => Arc::new(limits::LimitRanges),
        "Namespace" => Arc::new(namespace::Namespaces),
        "Node" => Arc::new(node::Nodes),
        "PersistentVolume" => Arc::new(persistent_volume::PersistentVolumes),
        "PersistentVolumeClaim" => Arc::new(persistent_volume_claim::PersistentVolumeClaims),
        "Pod" => Arc::new(pod::Pods),
        "PodTemplate" => Arc::new(pod_template::PodTemplates),
        "ReplicationController" => Arc::new(replication_controller::ReplicationControllers),
        "ResourceQuota" => Arc::new(limits::ResourceQuotas),
        "Secret" => Arc::new(config::Secrets),
        "Service" => Arc::new(service::Services),
        "ServiceAccount" => Arc::new(service_account::ServiceAccounts),
        _ => Arc::new(Plain),
    }
}

fn workloads(kind: &str) -> Arc<dyn Strategy> {
    match kind {
        "ControllerRevision" => Arc::new(apps::controller_revision::ControllerRevisions),
        "CronJob" => Arc::new(batch::cron_job::CronJobs),
        "DaemonSet" => Arc::new(apps::daemon_set::DaemonSets),
        "Deployment" => Arc::new(apps::deployment::Deployments),
        "HorizontalPodAutoscaler" => Arc::new(autoscaling::HorizontalPodAutoscalers),
        "Job" => Arc::new(batch::job::Jobs),
        "ReplicaSet" => Arc::new(apps::replica_set::ReplicaSets),
        "StatefulSet" => Arc::new(apps::stateful_set::StatefulSets),
        _ => Arc::new(Plain),
    }
}

fn network(kind: &str) -> Arc<dyn Strategy> {
    match kind {
        "EndpointSlice" => Arc::new(networking::EndpointSlices),
        "IPAddress" => Arc::new(networking::IpAddresses),
        "Ingress" => Arc::new(networking::Ingresses),
        "IngressClass" => Arc::new(networking::IngressClasses),
        "NetworkPolicy" => Arc::new(policy::NetworkPolicies),
        "PodDisruptionBudget" => Arc::new(policy::PodDisruptionBudgets),
        "ServiceCIDR" => Arc::new(networking::ServiceCidrs),
        _ => Arc::new(Plain),
    }
}

fn storage_group(kind: &str) -> Arc<dyn Strategy> {
    match kind {
        "CSIDriver" => Arc::new(storage::CsiDrivers),
        "CSINode" => Arc::new(storage::CsiNodes),
        "CSIStorageCapacity" => Arc::new(storage::CsiStorageCapacities),
        "StorageClass" => Arc::new(storage::StorageClasses),
        "VolumeAttachment" => Arc::new(storage::VolumeAttachments),
        "VolumeAttributesClass" => Arc::new(storage::VolumeAttributesClasses),
        _ => Arc::new(Plain),
    }
}

fn access(kind: &str) -> Arc<dyn Strategy> {
    match kind {
        "ClusterRole" => Arc::new(rbac::Roles { cluster: true }),
        "ClusterRoleBinding" => Arc::new(rbac::Bindings { cluster: true }),
        "Role" => Arc::new(rbac::Roles { cluster: false }),
        "RoleBinding" => Arc::new(rbac::Bindings { cluster: false }),
        _ => Arc::new(Plain),
    }
}

fn extension(group: &str, _version: &str, kind: &str) -> Arc<dyn Strategy> {
    match (group, kind) {
        ("apiregistration.k8s.io", "APIService") => Arc::new(registration::ApiServices),
        ("metrics.k8s.io", _) => Arc::new(misc::Metrics),
        ("apiextensions.k8s.io", "CustomResourceDefinition") => {
            Arc::new(registration::CustomResourceDefinitions)
        }
        (_, "CertificateSigningRequest") => Arc::new(misc::CertificateSigningRequests),
        (_, "FlowSchema") => Arc::new(registration::FlowSchemas),
        (_, "PriorityLevelConfiguration") => Arc::new(registration::PriorityLevels),
        (_, "Lease") => Arc::new(misc::Leases),
        (_, "MutatingAdmissionPolicy") => Arc::new(registration::Policies { counted: "mutations" }),
        (_, "ValidatingAdmissionPolicy") => Arc::new(registration::Policies { counted: "validations" }),
        (_, "MutatingAdmissionPolicyBinding" | "ValidatingAdmissionPolicyBinding") => {
            Arc::new(registration::PolicyBindings)
        }
        (_, "MutatingWebhookConfiguration") => Arc::new(registration::Webhooks { mutating: true }),
        (_, "ValidatingWebhookConfiguration") => Arc::new(registration::Webhooks { mutating: false }),
        (_, "PriorityClass") => Arc::new(misc::PriorityClasses),
        (_, "ResourceClaim") => Arc::new(misc::ResourceClaims),
        (_, "ResourceSlice") => Arc::new(misc::ResourceSlices),
        (_, "DeviceClass" | "ResourceClaimTemplate") => Arc::new(misc::NameAndAge),
        (_, "RuntimeClass") => Arc::new(misc::RuntimeClasses),
        _ => Arc::new(Plain),
    }
}

/// A kind whose objects are only data.
pub struct Plain;

impl Strategy for Plain {}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;
    use serde_json::json;

    use crate::{builtin_table, columns};

    #[test]
    fn every_row_has_a_cell_per_column() {
        let object = json!({"metadata": {"name": "n", "creationTimestamp": "2026-01-01T00:00:00Z"}});
        for row in builtin_table().rows() {
            let cells = row.strategy.cells(Timestamp::UNIX_EPOCH, &object).len();
            assert_eq!(cells, columns(row).len(), "{} {}", row.api_version(), row.kind);
        }
    }

    #[test]
    fn an_empty_object_is_judged_without_panic() {
        for row in builtin_table().rows() {
            let mut object = json!({});
            row.strategy.default(&mut object);
            let once = object.clone();
            row.strategy.default(&mut object);
            assert_eq!(object, once, "defaults of {} settle", row.kind);
            row.strategy.validate_create(&object);
            row.strategy.validate_update(&object, &json!({}));
            object["metadata"] = json!({});
            let stored = machinery::Object::from_value(&object, 1).unwrap();
            assert_eq!(
                row.strategy.fields(&stored).iter().map(|(name, _)| *name).collect::<Vec<_>>(),
                row.strategy.field_names(),
                "{}",
                row.kind
            );
        }
    }
}
