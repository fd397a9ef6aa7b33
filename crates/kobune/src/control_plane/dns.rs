//! The Service `kube-dns`, by which pods reach the DNS server of their node.

use std::net::IpAddr;

use client::{Client, Patch};
use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use machinery::Status;
use serde_json::{Value, json};

const NAMESPACE: &str = "kube-system";
const NAME: &str = "kube-dns";

/// Creates the Service at `address` and the slice that names the server's own address, or corrects them.
pub async fn ensure(client: &Client, address: IpAddr, server: IpAddr) -> Result<(), Status> {
    let services = client.namespaced::<Service>(NAMESPACE);
    if services.find(NAME).await?.is_none() {
        services.create(&service(address)).await?;
    }
    let slices = client.namespaced::<EndpointSlice>(NAMESPACE);
    match slices.find(NAME).await? {
        None => slices.create(&slice(server)).await.map(drop),
        Some(present) if present.value()["endpoints"] == slice(server)["endpoints"] => Ok(()),
        Some(_) => slices.patch(NAME, Patch::Merge(slice(server))).await.map(drop),
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
            "ports": [port("dns", "UDP"), port("dns-tcp", "TCP")],
        },
    })
}

fn slice(server: IpAddr) -> Value {
    let port = |name: &str, protocol: &str| json!({"name": name, "port": 53, "protocol": protocol});
    json!({
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {
            "name": NAME,
            "namespace": NAMESPACE,
            "labels": {
                "kubernetes.io/service-name": NAME,
                "endpointslice.kubernetes.io/managed-by": "kobune.local",
            },
        },
        "addressType": if server.is_ipv6() { "IPv6" } else { "IPv4" },
        "ports": [port("dns", "UDP"), port("dns-tcp", "TCP")],
        "endpoints": [{"addresses": [server.to_string()], "conditions": {"ready": true}}],
    })
}
