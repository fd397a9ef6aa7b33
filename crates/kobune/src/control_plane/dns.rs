//! The Service `kube-dns`, by which pods reach the DNS server of their node.

use std::net::IpAddr;

use client::Client;
use k8s_openapi::api::core::v1::Service;
use machinery::Status;
use serde_json::{Value, json};

const NAMESPACE: &str = "kube-system";
const NAME: &str = "kube-dns";

/// Creates the Service at `address`. Its endpoints are a controller's.
pub async fn ensure(client: &Client, address: IpAddr) -> Result<(), Status> {
    let services = client.namespaced::<Service>(NAMESPACE);
    match services.find(NAME).await? {
        None => services.create(&service(address)).await.map(drop),
        Some(_) => Ok(()),
    }
}

fn service(address: IpAddr) -> Value {
    let port = |name: &str, protocol: &str| json!({"name": name, "port": 53, "targetPort": 53, "protocol": protocol});
    json!({
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {
            "name": NAME,
            "namespace": NAMESPACE,
            "labels": {"k8s-app": NAME, "kubernetes.io/cluster-service": "true", "kubernetes.io/name": "KobuneDNS"},
        },
        "spec": {
            "clusterIP": address.to_string(),
            "clusterIPs": [address.to_string()],
            "type": "ClusterIP",
            "internalTrafficPolicy": "Local",
            "ports": [port("dns", "UDP"), port("dns-tcp", "TCP")],
        },
    })
}
