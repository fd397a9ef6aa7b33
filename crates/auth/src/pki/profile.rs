//! What certificates say about their holders.

use std::net::IpAddr;
use std::time::Duration;

use crate::user::{MASTERS_GROUP, NODES_GROUP};

const YEAR: Duration = Duration::from_secs(365 * 24 * 3600);

/// What a certificate may be used for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    Server,
    Client,
}

/// The contents of a certificate to be issued.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Profile {
    /// The user's name of a client.
    pub common_name: String,
    /// The user's groups of a client.
    pub organizations: Vec<String>,
    /// DNS names and IP addresses of a server.
    pub names: Vec<String>,
    pub purpose: Purpose,
    pub lifetime: Duration,
}

impl Profile {
    /// A client's certificate; valid for a year.
    pub fn client(common_name: impl Into<String>, organizations: &[&str]) -> Self {
        Self {
            common_name: common_name.into(),
            organizations: organizations.iter().map(|&name| name.to_owned()).collect(),
            names: Vec::new(),
            purpose: Purpose::Client,
            lifetime: YEAR,
        }
    }

    /// A server's certificate; valid for a year.
    pub fn server(common_name: impl Into<String>, names: Vec<String>) -> Self {
        Self { names, purpose: Purpose::Server, ..Self::client(common_name, &[]) }
    }

    /// The API server; see [`apiserver_names`].
    pub fn apiserver(names: Vec<String>) -> Self {
        Self::server("kube-apiserver", names)
    }

    /// The administrator in the kubeconfig file.
    pub fn admin() -> Self {
        Self::client("kubernetes-admin", &[MASTERS_GROUP])
    }

    /// The API server as a client of kubelets.
    pub fn kubelet_client() -> Self {
        Self::client("kube-apiserver-kubelet-client", &[MASTERS_GROUP])
    }

    /// The API server as a client of aggregated API servers.
    pub fn front_proxy_client() -> Self {
        Self::client("front-proxy-client", &[])
    }

    /// The kubelet of a node as a client.
    pub fn node(name: &str) -> Self {
        Self::client(format!("system:node:{name}"), &[NODES_GROUP])
    }

    /// The kubelet of a node as a server.
    pub fn kubelet_serving(node: &str, addresses: &[IpAddr]) -> Self {
        let names =
            std::iter::once(node.to_owned()).chain(addresses.iter().map(ToString::to_string)).collect();
        Self {
            organizations: vec![NODES_GROUP.to_owned()],
            ..Self::server(format!("system:node:{node}"), names)
        }
    }
}

/// The names under which the API server is reached: from this machine, from the network and from pods.
/// `service_addresses` are the first addresses of the Service networks.
pub fn apiserver_names(service_addresses: &[IpAddr], cluster_domain: &str, own: &[String]) -> Vec<String> {
    let mut names: Vec<String> = ["localhost", "127.0.0.1", "::1", "kubernetes", "kubernetes.default"]
        .map(str::to_owned)
        .into_iter()
        .chain(["kubernetes.default.svc".to_owned(), format!("kubernetes.default.svc.{cluster_domain}")])
        .chain(service_addresses.iter().map(ToString::to_string))
        .collect();
    for name in own {
        if !names.contains(name) {
            names.push(name.clone());
        }
    }
    names
}
