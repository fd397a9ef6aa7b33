//! The configuration file and the flags, merged and checked: [`Settings`].

mod cidrs;
mod file;
mod grace_period;

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use controllers::node_ipam::NodeRanges;
use images::Registries;
use ipnet::IpNet;

use crate::cli::{Common, Failure};
pub use cidrs::Cidrs;
use file::File;
pub use grace_period::GracePeriod;

pub const DATA_DIR: &str = "/var/lib/kobune";

/// Everything that a start needs to know.
#[derive(Clone, Debug)]
pub struct Settings {
    pub data_dir: PathBuf,
    pub kubeconfig: PathBuf,
    pub listen: SocketAddr,
    /// At most one per address family, the primary one first.
    pub cluster_cidrs: Vec<IpNet>,
    pub service_cidrs: Vec<IpNet>,
    /// The shares of `cluster_cidrs` that are this node's: beside the control plane the first ones, on other machines
    /// what the node is assigned when it joins.
    pub pod_cidrs: Vec<IpNet>,
    pub cluster_domain: String,
    pub node_name: String,
    pub node_ip: IpAddr,
    pub node_labels: BTreeMap<String, String>,
    pub registries: Registries,
    pub backend: network::Backend,
    pub join: Join,
    pub load_balancer_pool: Vec<IpNet>,
    /// Names the bridge, the nftables table and the cgroup of this instance.
    pub instance: String,
    pub pod_manifest_path: Option<PathBuf>,
    /// Other nodes are on this machine as well.
    pub shares_machine: bool,
    /// How long a node may be silent before it counts as lost.
    pub node_monitor_grace_period: Duration,
    pub log: Option<String>,
}

/// With which cluster an agent joins.
#[derive(Clone, Debug, Default)]
pub struct Join {
    /// `https://HOST:PORT`.
    pub server: Option<String>,
    pub token: Option<String>,
    /// The file in which the token is.
    pub token_file: Option<PathBuf>,
}

impl Settings {
    /// Reads the file that the flags name, lays the flags over it and checks the whole.
    pub fn load(flags: &Common) -> Result<Self, Failure> {
        let file = match &flags.config {
            Some(path) => File::read(path)?,
            None => File::default(),
        };
        let data_dir = flags.data_dir.clone().or(file.data_dir).unwrap_or_else(|| DATA_DIR.into());
        let data_dir = std::path::absolute(&data_dir).unwrap_or(data_dir);
        let kubeconfig =
            flags.kubeconfig.clone().or(file.kubeconfig).unwrap_or_else(|| data_dir.join("kubeconfig"));
        let cluster_cidrs = ranges(&flags.cluster_cidr, file.cluster_cidr, [10, 42, 0, 0]);
        let settings = Self {
            kubeconfig,
            listen: flags.listen.or(file.listen).unwrap_or_else(|| SocketAddr::from(([0, 0, 0, 0], 6443))),
            pod_cidrs: Vec::new(),
            cluster_cidrs,
            service_cidrs: ranges(&flags.service_cidr, file.service_cidr, [10, 43, 0, 0]),
            cluster_domain: file.cluster_domain.unwrap_or_else(|| "cluster.local".to_owned()),
            node_name: flags.node_name.clone().or(file.node_name).map_or_else(host_name, Ok)?,
            node_ip: flags.node_ip.or(file.node_ip).unwrap_or_else(own_address),
            node_labels: labels(&flags.node_labels, file.node_labels)?,
            registries: file.registries,
            backend: file.backend,
            join: Join { server: file.server, token: file.token, token_file: file.token_file },
            load_balancer_pool: file.load_balancer_pool,
            instance: instance(&data_dir),
            pod_manifest_path: file.pod_manifest_path,
            shares_machine: flags.shares_machine,
            node_monitor_grace_period: grace_period(
                flags.node_monitor_grace_period.or(file.node_monitor_grace_period),
            ),
            log: flags.log.clone().or(file.log),
            data_dir,
        };
        settings.check()?;
        let pod_cidrs = settings.node_ranges().first_parts();
        Ok(Self { pod_cidrs, ..settings })
    }

    fn check(&self) -> Result<(), Failure> {
        if self.data_dir.as_os_str().is_empty() {
            return Err(Failure::usage("the data directory's name is empty; give one with --data-dir DIR"));
        }
        if self.listen.port() == 0 {
            let text =
                format!("listen {}: nobody would find a random port; name one, e.g. 6443", self.listen);
            return Err(Failure::usage(text));
        }
        for (cluster, service) in
            self.cluster_cidrs.iter().flat_map(|c| self.service_cidrs.iter().map(move |s| (c, s)))
        {
            if cluster.contains(service) || service.contains(cluster) {
                let text =
                    format!("clusterCIDR {cluster} and serviceCIDR {service} overlap; choose ranges apart");
                return Err(Failure::usage(text));
            }
        }
        if let Some(cluster) = self.cluster_cidrs.iter().find(|c| c.addr().is_ipv4() && c.prefix_len() > 24) {
            let text = format!("clusterCIDR {cluster} is too small: every node takes a /24 of it");
            return Err(Failure::usage(text));
        }
        resources::names::dns_subdomain(&self.node_name)
            .map_err(|cause| Failure::usage(format!("nodeName {:?}: {cause}", self.node_name)))
    }

    /// How the cluster's ranges are shared out: a /24 or a /64 per node, the first to the node beside the control plane.
    pub fn node_ranges(&self) -> NodeRanges {
        let part = |range: &IpNet| {
            let prefix = if range.addr().is_ipv4() { 24 } else { 64 };
            (*range, range.prefix_len().max(prefix))
        };
        NodeRanges {
            ranges: self.cluster_cidrs.iter().map(part).collect(),
            first: Some(self.node_name.clone()),
        }
    }

    /// The machine's own address in the pods' network: the first of this node's range.
    pub fn gateway(&self) -> IpAddr {
        place_in(self.pod_cidrs[0], 1)
    }

    /// An address of the Service range by its place: 1 is the API server's, 10 the DNS server's.
    pub fn service_address(&self, place: u8) -> IpAddr {
        place_in(self.service_cidrs[0], place)
    }

    /// Where pods reach the API server: a server that listens on the loopback only listens on the gateway as well, and
    /// a machine without a network has no other address.
    pub fn pods_api_address(&self) -> IpAddr {
        let listen = self.listen.ip();
        match if listen.is_unspecified() { self.node_ip } else { listen } {
            address if address.is_loopback() => self.gateway(),
            address => address,
        }
    }

    /// The URL of the API server as clients on this machine use it.
    pub fn local_url(&self) -> String {
        let host =
            if self.listen.ip().is_unspecified() { IpAddr::from([127, 0, 0, 1]) } else { self.listen.ip() };
        format!("https://{}", SocketAddr::new(host, self.listen.port()))
    }
}

fn grace_period(given: Option<GracePeriod>) -> Duration {
    given.unwrap_or_default().0
}

fn place_in(range: IpNet, place: u8) -> IpAddr {
    match range.network() {
        IpAddr::V4(network) => IpAddr::from((u32::from(network) + u32::from(place)).to_be_bytes()),
        IpAddr::V6(network) => IpAddr::from((u128::from(network) + u128::from(place)).to_be_bytes()),
    }
}

/// Flag before file before a /16.
fn ranges(flag: &Option<Cidrs>, file: Option<Cidrs>, network: [u8; 4]) -> Vec<IpNet> {
    let fallback = || vec![IpNet::new(network.into(), 16).expect("16 is a valid prefix length")];
    flag.clone().or(file).map_or_else(fallback, |given| given.0)
}

/// The labels of the file, with those of the flags laid over.
fn labels(flags: &[String], file: BTreeMap<String, String>) -> Result<BTreeMap<String, String>, Failure> {
    let mut labels = file;
    for flag in flags {
        let Some((key, value)) = flag.split_once('=') else {
            return Err(Failure::usage(format!("--node-label {flag:?} is not of the form KEY=VALUE")));
        };
        labels.insert(key.to_owned(), value.to_owned());
    }
    for (key, value) in &labels {
        let wrong = |cause| Failure::usage(format!("node label {key:?}: {cause}"));
        machinery::selector::validate_label_key(key).map_err(wrong)?;
        machinery::selector::validate_label_value(value).map_err(wrong)?;
    }
    Ok(labels)
}

/// The default data directory is the instance `kobune`; any other gets a name of its own, so that several
/// clusters can stand on one machine.
pub fn instance(data_dir: &Path) -> String {
    if data_dir == Path::new(DATA_DIR) {
        return "kobune".to_owned();
    }
    let mut hash = 0x811c_9dc5_u32;
    for byte in data_dir.as_os_str().as_encoded_bytes() {
        hash = (hash ^ u32::from(*byte)).wrapping_mul(0x0100_0193);
    }
    format!("kobune{hash:08x}")
}

fn host_name() -> Result<String, Failure> {
    let name = rustix::system::uname().nodename().to_string_lossy().to_lowercase();
    if name.is_empty() {
        return Err(Failure::usage("this machine has no host name; give one with --node-name"));
    }
    Ok(name)
}

/// The source address of the default route. Connecting a datagram socket sends nothing. A machine without a route
/// is its own and only neighbour.
fn own_address() -> IpAddr {
    let loopback = IpAddr::from([127, 0, 0, 1]);
    let Ok(socket) = std::net::UdpSocket::bind("0.0.0.0:0") else { return loopback };
    let connected = socket.connect("192.0.2.1:9");
    match connected.and_then(|()| socket.local_addr()) {
        Ok(address) if !address.ip().is_unspecified() => address.ip(),
        _ => loopback,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(text: &str) -> Result<Settings, Failure> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("kobune.yaml");
        std::fs::write(&path, text).unwrap();
        Settings::load(&Common { config: Some(path), ..Common::default() })
    }

    #[test]
    fn the_file_says_everything_that_flags_do() {
        let settings = settings(
            "dataDir: /tmp/x\nlisten: 127.0.0.1:7443\nclusterCIDR: 10.9.0.0/16\nserviceCIDR: 10.8.0.0/16\nnodeName: n1\n\
             registries:\n  localhost:5000:\n    plainHttp: true\nbackend: {Type: host-gw}\n",
        )
        .unwrap();
        assert_eq!(settings.pod_cidrs[0].to_string(), "10.9.0.0/24");
        assert_eq!(settings.service_address(10).to_string(), "10.8.0.10");
        assert_eq!(settings.local_url(), "https://127.0.0.1:7443");
        assert!(settings.registries["localhost:5000"].plain_http);
        assert_eq!(settings.backend, network::Backend::HostGw);
        assert_ne!(settings.instance, "kobune");
    }

    #[test]
    fn pods_reach_the_api_where_the_machine_has_an_address() {
        let address = |text: &str| settings(text).unwrap().pods_api_address().to_string();
        assert_eq!(address("nodeIP: 192.0.2.7\n"), "192.0.2.7");
        assert_eq!(address("nodeIP: 192.0.2.7\nlisten: 192.0.2.8:6443\n"), "192.0.2.8");
        assert_eq!(address("nodeIP: 192.0.2.7\nlisten: 127.0.0.1:6443\n"), "10.42.0.1");
        assert_eq!(address("nodeIP: 127.0.0.1\n"), "10.42.0.1");
    }

    #[test]
    fn mistakes_name_the_field_and_the_line() {
        let unknown = settings("nodeName: a\ndataDri: /x\n").unwrap_err().message;
        assert!(unknown.contains("dataDri") && unknown.contains("line 2"), "{unknown}");
        for (text, expected) in [
            ("nodeName: a\nlisten: host\n", "line 2: listen: invalid socket address syntax; write HOST:PORT"),
            (
                "clusterCIDR: 10.0.0.0/40\n",
                "line 1: clusterCIDR: \"10.0.0.0/40\" is not an address range; write ADDRESS/LENGTH",
            ),
            (
                "registries:\n  foo:\n    plainHttp: perhaps\n",
                "line 3: plainHttp: invalid boolean; write true or false",
            ),
            ("nodeName: [a\n", "line 1: nodeName: "),
            ("nodeName: a\nnodeName: b\n", "line 2: nodeName: duplicate mapping key"),
            ("dataDir: ''\n", "--data-dir"),
        ] {
            let found = settings(text).unwrap_err();
            assert!(found.message.contains(expected) && found.code == 2, "{text}: {}", found.message);
        }
        let overlap = settings("clusterCIDR: 10.0.0.0/8\n").unwrap_err().message;
        assert!(overlap.contains("overlap"), "{overlap}");
        assert!(settings("nodeName: A_b\n").unwrap_err().message.contains("nodeName"));
    }
}
