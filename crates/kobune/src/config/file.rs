//! The configuration file. The fields are the flags, in camel case; `registries` and `backend` have no flag.

use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};

use images::Registries;
use ipnet::IpNet;
use serde::Deserialize;

use crate::cli::Failure;

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct File {
    pub data_dir: Option<PathBuf>,
    pub kubeconfig: Option<PathBuf>,
    pub listen: Option<SocketAddr>,
    #[serde(rename = "clusterCIDR")]
    pub cluster_cidr: Option<IpNet>,
    #[serde(rename = "serviceCIDR")]
    pub service_cidr: Option<IpNet>,
    pub cluster_domain: Option<String>,
    pub node_name: Option<String>,
    #[serde(rename = "nodeIP")]
    pub node_ip: Option<IpAddr>,
    pub registries: Registries,
    /// How packets reach other nodes' pods, as in flannel's `net-conf.json`: `{type: vxlan, directRouting: true}`.
    pub backend: network::Backend,
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
        serde_saphyr::from_str(&text).map_err(|error| Failure::usage(format!("{shown}: {error}")))
    }
}
