//! What the control plane publishes for those who join: its authority, its parameters, and who may ask for what.

use std::time::Duration;

use client::{Client, Patch, Target};
use ipnet::IpNet;
use machinery::Status;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::config::{GracePeriod, Settings};

pub const PUBLIC_NAMESPACE: &str = "kube-public";
pub const CLUSTER_INFO: &str = "cluster-info";
pub const CLUSTER_INFO_AUTHORITY: &str = "ca.crt";
pub const NAMESPACE: &str = "kube-system";
pub const PARAMETERS: &str = "kobune-cluster";
const PARAMETERS_KEY: &str = "cluster.json";

const RBAC: &str = "rbac.authorization.k8s.io";

/// What every node has to know of its cluster.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ClusterParameters {
    #[serde(rename = "clusterCIDRs")]
    pub cluster_cidrs: Vec<IpNet>,
    #[serde(rename = "serviceCIDRs")]
    pub service_cidrs: Vec<IpNet>,
    pub cluster_domain: String,
    /// How pods reach those of other nodes.
    pub backend: network::Backend,
    /// The addresses that nodes answer for.
    #[serde(default)]
    pub load_balancer_pool: Vec<IpNet>,
    /// For how long a node counts as alive after each sign of life.
    #[serde(default = "default_grace_seconds")]
    pub node_monitor_grace_seconds: u64,
}

fn default_grace_seconds() -> u64 {
    GracePeriod::default().0.as_secs()
}

impl ClusterParameters {
    pub fn of(settings: &Settings) -> Self {
        Self {
            cluster_cidrs: settings.cluster_cidrs.clone(),
            service_cidrs: settings.service_cidrs.clone(),
            cluster_domain: settings.cluster_domain.clone(),
            node_monitor_grace_seconds: settings.node_monitor_grace_period.as_secs(),
            backend: settings.backend.clone(),
            load_balancer_pool: settings.load_balancer_pool.clone(),
        }
    }

    /// Lays them over a node's own settings.
    pub fn apply(self, settings: &mut Settings) {
        settings.cluster_cidrs = self.cluster_cidrs;
        settings.service_cidrs = self.service_cidrs;
        settings.cluster_domain = self.cluster_domain;
        settings.backend = self.backend;
        settings.load_balancer_pool = self.load_balancer_pool;
        settings.node_monitor_grace_period = Duration::from_secs(self.node_monitor_grace_seconds);
    }

    /// Reads the ConfigMap that [`ensure`] wrote.
    pub async fn read(client: &Client) -> Result<Self, Status> {
        let maps = client.namespaced::<k8s_openapi::api::core::v1::ConfigMap>(NAMESPACE);
        let map = maps.get(PARAMETERS).await?.value();
        let text = map["data"][PARAMETERS_KEY].as_str().unwrap_or_default();
        serde_json::from_str(text)
            .map_err(|error| Status::internal(format!("{NAMESPACE}/{PARAMETERS} cannot be read: {error}")))
    }
}

/// Writes what is missing or differs.
pub async fn ensure(client: &Client, authority: &str, parameters: &ClusterParameters) -> Result<(), Status> {
    let parameters = serde_json::to_string(parameters).map_err(Status::internal)?;
    let maps = [
        config_map(PUBLIC_NAMESPACE, CLUSTER_INFO, json!({CLUSTER_INFO_AUTHORITY: authority})),
        config_map(NAMESPACE, PARAMETERS, json!({PARAMETERS_KEY: parameters})),
    ];
    let objects = maps.into_iter().chain(access()).map(|object| ensure_one(client, object));
    futures::future::try_join_all(objects).await.map(drop)
}

async fn ensure_one(client: &Client, object: Value) -> Result<(), Status> {
    let text = |pointer: &str| object.pointer(pointer).and_then(Value::as_str).unwrap_or_default().to_owned();
    let (resource, group) = match object["kind"].as_str() {
        Some("ConfigMap") => ("configmaps", ""),
        Some("Role") => ("roles", RBAC),
        Some("RoleBinding") => ("rolebindings", RBAC),
        Some("ClusterRole") => ("clusterroles", RBAC),
        _ => ("clusterrolebindings", RBAC),
    };
    let target = Target {
        group: group.to_owned(),
        version: "v1".to_owned(),
        resource: resource.to_owned(),
        namespace: text("/metadata/namespace"),
        ..Target::default()
    };
    let resources = client.target(target);
    match resources.find(&text("/metadata/name")).await? {
        None => resources.create(&object).await.map(drop),
        Some(present) => {
            let present = present.value();
            let is_right = ["data", "rules", "subjects"].iter().all(|field| present[field] == object[field]);
            match is_right {
                true => Ok(()),
                false => resources.patch(&text("/metadata/name"), Patch::Merge(object)).await.map(drop),
            }
        }
    }
}

fn config_map(namespace: &str, name: &str, data: Value) -> Value {
    json!({
        "apiVersion": "v1", "kind": "ConfigMap",
        "metadata": {"name": name, "namespace": namespace}, "data": data,
    })
}

/// Everybody sees the authority's certificate; nodes read the parameters and what their networks are made of;
/// bootstrap tokens and nodes ask for node certificates, which are approved.
fn access() -> Vec<Value> {
    let rule = |group: &str, resources: &[&str], verbs: &[&str]| json!({"apiGroups": [group], "resources": resources, "verbs": verbs});
    let get = |name: &str| json!([{"apiGroups": [""], "resources": ["configmaps"], "resourceNames": [name], "verbs": ["get"]}]);
    let watch = &["get", "list", "watch"];
    let network = json!([
        rule("", &["services", "pods", "nodes", "namespaces", "endpoints"], watch),
        rule("discovery.k8s.io", &["endpointslices"], watch),
        rule("networking.k8s.io", &["networkpolicies"], watch),
        rule("networking.k8s.io", &["servicecidrs"], watch),
    ]);
    let (everybody, nodes, tokens) = (
        &["system:authenticated", "system:unauthenticated"][..],
        &["system:nodes"][..],
        &["system:bootstrappers"][..],
    );
    let csr = "system:certificates.k8s.io:certificatesigningrequests";
    let mut objects = vec![role("ClusterRole", "", "kobune:node-network", network)];
    for (namespace, name, config_map, groups) in [
        (PUBLIC_NAMESPACE, "kobune:cluster-info", CLUSTER_INFO, everybody),
        (NAMESPACE, "kobune:cluster-parameters", PARAMETERS, nodes),
    ] {
        objects.push(role("Role", namespace, name, get(config_map)));
        objects.push(binding("Role", namespace, name, name, groups));
    }
    for (name, to, groups) in [
        ("kobune:node-network", "kobune:node-network", nodes),
        ("kobune:node-bootstrapper", "system:node-bootstrapper", tokens),
        ("kobune:node-client", &format!("{csr}:nodeclient"), tokens),
        ("kobune:node-client-renewal", &format!("{csr}:selfnodeclient"), nodes),
    ] {
        objects.push(binding("ClusterRole", "", name, to, groups));
    }
    objects
}

fn role(kind: &str, namespace: &str, name: &str, rules: Value) -> Value {
    json!({
        "apiVersion": format!("{RBAC}/v1"), "kind": kind, "metadata": metadata(namespace, name), "rules": rules,
    })
}

fn binding(kind: &str, namespace: &str, name: &str, role: &str, groups: &[&str]) -> Value {
    let subject = |group: &&str| json!({"kind": "Group", "apiGroup": RBAC, "name": group});
    json!({
        "apiVersion": format!("{RBAC}/v1"), "kind": format!("{kind}Binding"),
        "metadata": metadata(namespace, name),
        "roleRef": {"apiGroup": RBAC, "kind": kind, "name": role},
        "subjects": groups.iter().map(subject).collect::<Vec<_>>(),
    })
}

fn metadata(namespace: &str, name: &str) -> Value {
    match namespace {
        "" => json!({"name": name}),
        namespace => json!({"name": name, "namespace": namespace}),
    }
}
