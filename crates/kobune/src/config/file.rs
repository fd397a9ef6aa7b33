//! The configuration file. The fields are the flags, in camel case; `registries`, `backend` and
//! `loadBalancerPool` have no flag.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};

use images::Registries;
use serde::Deserialize;

use super::{Cidrs, GracePeriod};
use crate::cli::Failure;

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct File {
    pub data_dir: Option<PathBuf>,
    pub kubeconfig: Option<PathBuf>,
    pub listen: Option<SocketAddr>,
    #[serde(rename = "clusterCIDR")]
    pub cluster_cidr: Option<Cidrs>,
    #[serde(rename = "serviceCIDR")]
    pub service_cidr: Option<Cidrs>,
    pub cluster_domain: Option<String>,
    pub node_name: Option<String>,
    #[serde(rename = "nodeIP")]
    pub node_ip: Option<IpAddr>,
    pub node_labels: BTreeMap<String, String>,
    /// Of `kobune agent`: the API server and the token (or its file) to join with.
    pub server: Option<String>,
    pub token: Option<String>,
    pub token_file: Option<PathBuf>,
    pub registries: Registries,
    /// How packets reach other nodes' pods, as in flannel's `net-conf.json`: `{type: vxlan, directRouting: true}`.
    pub backend: network::Backend,
    /// A directory whose manifests are pods of this node.
    pub pod_manifest_path: Option<PathBuf>,
    /// Ranges of which Services of the type `LoadBalancer` get addresses; without, they get the nodes' own.
    pub load_balancer_pool: Vec<ipnet::IpNet>,
    /// How long a node may be silent before it counts as lost: `40s`.
    pub node_monitor_grace_period: Option<GracePeriod>,
    pub log: Option<String>,
}

impl File {
    pub fn read(path: &Path) -> Result<Self, Failure> {
        let shown = path.display();
        let text = std::fs::read_to_string(path)
            .map_err(|error| Failure::usage(format!("cannot read {shown}: {error}")))?;
        if text.trim().is_empty() {
            return Ok(Self::default());
        }
        serde_saphyr::from_str(&text).map_err(|error| mistake(path, &text, &error))
    }
}

/// Where the mistake is and what would be right there. The parser tells the place but not the field, which stands on
/// the same line.
fn mistake(path: &Path, text: &str, error: &serde_saphyr::Error) -> Failure {
    let shown = path.display();
    let full = error.without_snippet().to_string();
    let cause =
        full.rsplit_once(" column ").and_then(|(_, rest)| rest.split_once(": ")).map_or(&*full, |at| at.1);
    // The parser puts the place before the cause or behind it, by the kind of mistake.
    let cause = cause.rsplit_once(" at line ").map_or(cause, |(cause, _)| cause);
    let Some(place) = error.location() else { return Failure::usage(format!("{shown}: {cause}")) };
    let index = usize::try_from(place.line()).unwrap_or(1).saturating_sub(1);
    let line = text.lines().nth(index).unwrap_or_default().trim();
    let field = line.split(':').next().unwrap_or_default().trim_start_matches("- ");
    let expected =
        EXPECTED.iter().find(|(name, _)| *name == field).map(|(_, form)| format!("; write {form}"));
    Failure::usage(format!(
        "{shown}, line {}: {field}: {cause}{}\n    {line}",
        place.line(),
        expected.unwrap_or_default()
    ))
}

/// What a field's value looks like.
const EXPECTED: [(&str, &str); 7] = [
    ("nodeMonitorGracePeriod", "a duration, e.g. 40s or 1m"),
    ("listen", "HOST:PORT with a numeric address, e.g. 0.0.0.0:6443"),
    ("clusterCIDR", "ADDRESS/LENGTH, e.g. 10.42.0.0/16"),
    ("serviceCIDR", "ADDRESS/LENGTH, e.g. 10.43.0.0/16"),
    ("nodeIP", "an address of this machine, e.g. 192.0.2.10"),
    ("plainHttp", "true or false"),
    ("mirrors", "a list of URLs, e.g. [\"https://mirror.example.com\"]"),
];
