//! The configuration file and the flags, merged and checked: [`Settings`].

mod file;

use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};

use images::Registries;
use ipnet::IpNet;

use crate::cli::{Common, Failure};
use file::File;

pub const DATA_DIR: &str = "/var/lib/kobune";

/// Everything that a start needs to know.
#[derive(Clone, Debug)]
pub struct Settings {
    pub data_dir: PathBuf,
    pub kubeconfig: PathBuf,
    pub listen: SocketAddr,
    pub cluster_cidr: IpNet,
    pub service_cidr: IpNet,
    pub cluster_domain: String,
    pub node_name: String,
    pub node_ip: IpAddr,
    pub registries: Registries,
    pub backend: network::Backend,
    /// Names the bridge, the nftables table and the cgroup of this instance.
    pub instance: String,
    pub log: Option<String>,
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
        let settings = Self {
            kubeconfig,
            listen: flags.listen.or(file.listen).unwrap_or_else(|| SocketAddr::from(([0, 0, 0, 0], 6443))),
            cluster_cidr: flags.cluster_cidr.or(file.cluster_cidr).unwrap_or_else(|| cidr([10, 42, 0, 0])),
            service_cidr: flags.service_cidr.or(file.service_cidr).unwrap_or_else(|| cidr([10, 43, 0, 0])),
            cluster_domain: file.cluster_domain.unwrap_or_else(|| "cluster.local".to_owned()),
            node_name: flags.node_name.clone().or(file.node_name).map_or_else(host_name, Ok)?,
            node_ip: flags.node_ip.or(file.node_ip).unwrap_or_else(own_address),
            registries: file.registries,
            backend: file.backend,
            instance: instance(&data_dir),
            log: flags.log.clone().or(file.log),
            data_dir,
        };
        settings.check()?;
        Ok(settings)
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
        let (cluster, service) = (self.cluster_cidr, self.service_cidr);
        if cluster.contains(&service) || service.contains(&cluster) {
            let text =
                format!("clusterCIDR {cluster} and serviceCIDR {service} overlap; choose ranges apart");
            return Err(Failure::usage(text));
        }
        if cluster.prefix_len() > 24 && cluster.addr().is_ipv4() {
            let text = format!("clusterCIDR {cluster} is too small: every node takes a /24 of it");
            return Err(Failure::usage(text));
        }
        resources::names::dns_subdomain(&self.node_name)
            .map_err(|cause| Failure::usage(format!("nodeName {:?}: {cause}", self.node_name)))
    }

    /// The range of this node's pods: the first /24 of the cluster's range.
    pub fn pod_cidr(&self) -> IpNet {
        let prefix = if self.cluster_cidr.addr().is_ipv4() { 24 } else { 64 };
        let prefix = prefix.max(self.cluster_cidr.prefix_len());
        IpNet::new(self.cluster_cidr.network(), prefix)
            .expect("a prefix that is no shorter than the range's is valid")
    }

    /// The machine's own address in the pods' network: the first of this node's range.
    pub fn gateway(&self) -> IpAddr {
        place_in(self.pod_cidr(), 1)
    }

    /// An address of the Service range by its place: 1 is the API server's, 10 the DNS server's.
    pub fn service_address(&self, place: u8) -> IpAddr {
        place_in(self.service_cidr, place)
    }

    /// Where pods reach the API server: a server that listens on the loopback only listens on the gateway as well.
    pub fn pods_api_address(&self) -> IpAddr {
        match self.listen.ip() {
            address if address.is_unspecified() => self.node_ip,
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

fn place_in(range: IpNet, place: u8) -> IpAddr {
    match range.network() {
        IpAddr::V4(network) => IpAddr::from((u32::from(network) + u32::from(place)).to_be_bytes()),
        IpAddr::V6(network) => IpAddr::from((u128::from(network) + u128::from(place)).to_be_bytes()),
    }
}

fn cidr(network: [u8; 4]) -> IpNet {
    IpNet::new(network.into(), 16).expect("16 is a valid prefix length")
}

/// The default data directory is the instance `kobune`; any other gets a name of its own, so that several
/// clusters can stand on one machine.
fn instance(data_dir: &Path) -> String {
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
        assert_eq!(settings.pod_cidr().to_string(), "10.9.0.0/24");
        assert_eq!(settings.service_address(10).to_string(), "10.8.0.10");
        assert_eq!(settings.local_url(), "https://127.0.0.1:7443");
        assert!(settings.registries["localhost:5000"].plain_http);
        assert_eq!(settings.backend, network::Backend::HostGw);
        assert_ne!(settings.instance, "kobune");
    }

    #[test]
    fn mistakes_name_the_field_and_the_line() {
        let unknown = settings("nodeName: a\ndataDri: /x\n").unwrap_err().message;
        assert!(unknown.contains("dataDri") && unknown.contains("line 2"), "{unknown}");
        for (text, expected) in [
            ("nodeName: a\nlisten: host\n", "line 2: listen: invalid socket address syntax; write HOST:PORT"),
            (
                "clusterCIDR: 10.0.0.0/40\n",
                "line 1: clusterCIDR: invalid IP address syntax; write ADDRESS/LENGTH",
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
