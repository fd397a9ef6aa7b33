//! The machines of `up --nodes`: network namespaces on a bridge.

use std::fs::File;
use std::net::IpAddr;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::thread::JoinHandle;

use ipnet::IpNet;
use linux::namespace::{Kind, enter};
use linux::net::namespace;
use network::machines::{self, Config};

use super::NODES_MAX;
use crate::cli::Failure;
use crate::config::{DATA_DIR, Settings};
use crate::join::JoinToken;

/// Where the namespaces are kept, below the directory of the nodes.
const RUN: &str = "run";

/// One node's place.
pub struct Machine {
    pub name: String,
    pub address: IpAddr,
    pub data_dir: PathBuf,
    /// The file that holds its network namespace.
    pub network: PathBuf,
    /// The file that holds its mount namespace: volumes, images and containers of one node are no other's.
    pub mounts: PathBuf,
    /// The near end of its link.
    link: String,
}

/// All of them.
pub struct Machines {
    pub all: Vec<Machine>,
    link: Config,
    gateway: IpAddr,
    /// Where their namespaces are kept.
    run: PathBuf,
}

fn failure(error: impl std::error::Error + 'static) -> Failure {
    Failure::chain(&error)
}

impl Machine {
    fn new(settings: &Settings, number: u16, address: IpAddr) -> Self {
        let name = format!("node-{number}");
        let nodes = settings.data_dir.join("nodes");
        Self {
            data_dir: nodes.join(&name),
            network: nodes.join(RUN).join(&name),
            mounts: nodes.join(RUN).join(format!("{name}.mounts")),
            link: link_name(settings, &number.to_string()),
            address,
            name,
        }
    }

    /// Writes the token where only root reads it.
    pub fn write_token(&self, token: &JoinToken) -> Result<PathBuf, Failure> {
        let path = self.data_dir.join("token");
        auth::pki::write_private(&path, token.to_string().as_bytes()).map_err(failure)?;
        Ok(path)
    }

    /// Whether its namespaces are there.
    pub fn is_there(&self) -> bool {
        namespace::exists(&self.network) && namespace::exists(&self.mounts)
    }

    /// Runs `work` on a thread of its own, as that machine as far as network and mounts go.
    pub fn within<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> std::io::Result<JoinHandle<std::io::Result<T>>> {
        let network = File::open(&self.network)?;
        let mounts = File::open(&self.mounts)?;
        let directory = std::env::current_dir()?;
        Ok(std::thread::spawn(move || {
            let entered =
                enter(network.as_fd(), Kind::Network).and_then(|()| enter(mounts.as_fd(), Kind::Mount));
            entered.map_err(std::io::Error::other)?;
            // Paths that users gave are meant from where they are. The thread has a directory of its own now.
            std::env::set_current_dir(&directory)?;
            Ok(work())
        }))
    }
}

/// At most 15 bytes; several instances stand beside one another.
fn link_name(settings: &Settings, end: &str) -> String {
    match settings.data_dir == Path::new(DATA_DIR) {
        true => format!("kobune-n{end}"),
        false => format!("kn{}{end}", settings.instance.trim_start_matches("kobune")),
    }
}

impl Machines {
    /// The places of `count` nodes; nothing is made yet.
    pub fn of(settings: &Settings, range: IpNet, count: u16) -> Result<Self, Failure> {
        if count == 0 || count > NODES_MAX {
            return Err(Failure::usage(format!("--nodes {count}: one machine takes 1 to {NODES_MAX} nodes")));
        }
        // The first address of a network of IPv6 is every router's.
        let mut hosts = range.hosts().filter(|address| *address != range.network());
        let gateway =
            hosts.next().ok_or_else(|| Failure::usage(format!("--nodes-cidr {range} is too small")))?;
        let all: Vec<_> =
            (1..=count).zip(hosts).map(|(number, address)| Machine::new(settings, number, address)).collect();
        if all.len() < usize::from(count) {
            return Err(Failure::usage(format!("--nodes-cidr {range} has no addresses for {count} nodes")));
        }
        let ranges = settings.cluster_cidrs.iter().chain(&settings.service_cidrs);
        if let Some(other) = ranges.into_iter().find(|other| other.contains(&range) || range.contains(*other))
        {
            let text = format!("--nodes-cidr {range} overlaps {other}, which is for pods or Services");
            return Err(Failure::usage(text));
        }
        let table = format!("{}-nodes", settings.instance);
        let run = settings.data_dir.join("nodes").join(RUN);
        Ok(Self { all, link: Config { bridge: link_name(settings, "br"), table, range }, gateway, run })
    }

    /// What an earlier run left in the data directory.
    pub fn left_behind(settings: &Settings) -> Result<Option<Self>, Failure> {
        let Ok(entries) = std::fs::read_dir(settings.data_dir.join("nodes")) else { return Ok(None) };
        let names = entries.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned());
        let number = |name: String| name.strip_prefix("node-").and_then(|number| number.parse().ok());
        let Some(count) = names.filter_map(number).max() else { return Ok(None) };
        Self::of(settings, super::super::up::NODES_CIDR, count).map(Some)
    }

    /// Where the API server is.
    pub fn url(&self, settings: &Settings) -> String {
        let port = settings.listen.port();
        self.all.first().map_or_else(String::new, |first| {
            format!("https://{}", std::net::SocketAddr::new(first.address, port))
        })
    }

    /// Makes bridge, namespaces and links; what is there of an earlier run is used again.
    pub fn prepare(&self, settings: &Settings) -> Result<(), Failure> {
        machines::prepare(&self.link, self.gateway).map_err(failure)?;
        linux::mount::private_directory(&self.run).map_err(failure)?;
        for machine in &self.all {
            std::fs::create_dir_all(&machine.data_dir).map_err(failure)?;
            if !namespace::exists(&machine.network) {
                namespace::create(&machine.network).map_err(failure)?;
            }
            if !namespace::exists(&machine.mounts) {
                linux::namespace::create_mount(&machine.mounts).map_err(failure)?;
            }
            let connected =
                machines::connect(&self.link, self.gateway, &machine.link, &machine.network, machine.address);
            connected.map_err(failure)?;
        }
        let ranges: Vec<IpNet> =
            settings.cluster_cidrs.iter().chain(&settings.service_cidrs).copied().collect();
        machines::route_through(&self.link, &ranges, self.all[0].address).map_err(failure)
    }

    /// Takes it all away; the data stays.
    pub fn remove(&self) -> Result<(), Failure> {
        let links: Vec<String> = self.all.iter().map(|machine| machine.link.clone()).collect();
        let links = machines::teardown(&self.link, &links).map_err(failure);
        for machine in &self.all {
            namespace::remove(&machine.network).map_err(failure)?;
            namespace::remove(&machine.mounts).map_err(failure)?;
        }
        linux::mount::unmount(&self.run).map_err(failure)?;
        links
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::Common;

    #[test]
    fn places_are_apart_and_names_are_short() {
        let common = Common { data_dir: Some("/tmp/k".into()), ..Common::default() };
        let settings = Settings::load(&common).unwrap();
        let machines = Machines::of(&settings, "10.44.0.0/24".parse().unwrap(), 250).unwrap();
        let addresses: std::collections::BTreeSet<_> = machines.all.iter().map(|m| m.address).collect();
        assert_eq!((addresses.len(), machines.all[0].address.to_string()), (250, "10.44.0.2".to_owned()));
        assert!(machines.all.iter().all(|machine| machine.link.len() <= 15));
        assert!(machines.link.bridge.len() <= 15);
        let refused = |range: &str, count| Machines::of(&settings, range.parse().unwrap(), count).is_err();
        assert!(refused("10.44.0.0/24", 0) && refused("10.44.0.0/29", 6) && refused("10.42.3.0/24", 1));
    }
}
