//! What this machine can do, tried rather than guessed from version numbers.

mod machine;

use std::fs;
use std::os::fd::AsFd;
use std::path::Path;

use crate::cgroup::{Hierarchies, Version};
use crate::mount::{self, Attributes};
use crate::namespace::{self, Kind};

/// One thing that is needed or useful.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Probe {
    pub name: &'static str,
    /// Without it pods cannot run.
    pub required: bool,
    /// What was found, or why it is missing.
    pub outcome: Result<String, String>,
    /// What to do when it is missing.
    pub remedy: &'static str,
}

/// Tries everything. `data_directory` is where layers will lie; it must exist.
pub fn all(data_directory: &Path) -> Vec<Probe> {
    let mut probes = vec![root(), kernel(), cgroups()];
    probes.extend(controllers());
    probes.extend([
        overlay(data_directory),
        mount_attributes(),
        namespaces(),
        seccomp(),
        file_system("mqueue", "the kernel option CONFIG_POSIX_MQUEUE"),
        module("veth", "load the module `veth` (kernel option CONFIG_VETH)"),
        module("bridge", "load the module `bridge` (kernel option CONFIG_BRIDGE)"),
        module("nf_tables", "load the module `nf_tables` (kernel option CONFIG_NF_TABLES)"),
        module("nf_nat", "load the module `nft_chain_nat` (kernel option CONFIG_NF_NAT)"),
    ]);
    probes.extend(machine::all(data_directory));
    probes
}

fn probe(name: &'static str, required: bool, outcome: Result<String, String>, remedy: &'static str) -> Probe {
    Probe { name, required, outcome, remedy }
}

fn root() -> Probe {
    let outcome =
        if crate::facts::is_root() { Ok("yes".into()) } else { Err("running as another user".into()) };
    probe("root", true, outcome, "run as root, e.g. with sudo")
}

fn kernel() -> Probe {
    let outcome = match crate::facts::kernel() {
        Ok((major, minor)) if (major, minor) >= (5, 12) => Ok(format!("{major}.{minor}")),
        Ok((major, minor)) => Err(format!("{major}.{minor}")),
        Err(error) => Err(error.text()),
    };
    probe("kernel 5.12 or newer", true, outcome, "boot a newer kernel")
}

fn cgroups() -> Probe {
    let outcome = Hierarchies::detect().map_err(|error| error.text()).map(|found| match found.version() {
        Version::V2 => "version 2".to_owned(),
        Version::Hybrid => "version 1, with an empty unified hierarchy".to_owned(),
        Version::V1 => "version 1".to_owned(),
    });
    probe("control groups", true, outcome, "mount cgroup2 at /sys/fs/cgroup")
}

fn controllers() -> Vec<Probe> {
    let found = Hierarchies::detect().unwrap_or_default();
    let one = |name: &'static str, title: &'static str| {
        let outcome = if found.has(name) { Ok("yes".into()) } else { Err("not available".into()) };
        probe(
            title,
            true,
            outcome,
            "enable the controller, e.g. with cgroup_enable=… on the kernel's command line",
        )
    };
    vec![one("cpu", "cgroup cpu"), one("memory", "cgroup memory"), one("pids", "cgroup pids")]
}

fn overlay(data_directory: &Path) -> Probe {
    let base = data_directory.join(format!(".probe-{}", std::process::id()));
    let outcome = try_overlay(&base).map(|()| "yes".to_owned());
    let cleaned = fs::remove_dir_all(&base);
    let outcome = match (outcome, cleaned) {
        (Err(error), _) => Err(error),
        (Ok(_), Err(error)) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(format!("remove {}: {error}", base.display()))
        }
        (found, _) => found,
    };
    probe("overlayfs", true, outcome, "load the module `overlay`, or put the data directory on ext4 or xfs")
}

fn try_overlay(base: &Path) -> Result<(), String> {
    for name in ["lower", "upper", "work", "merged"] {
        fs::create_dir_all(base.join(name)).map_err(|error| format!("make a directory: {error}"))?;
    }
    let full = |name: &str| base.join(name).to_string_lossy().into_owned();
    let target = base.join("merged");
    let text = |error: crate::Error| error.text();
    mount::overlay(&[full("lower")], &full("upper"), &full("work"), &target, false).map_err(text)?;
    mount::unmount(&target).map_err(text)
}

fn mount_attributes() -> Probe {
    let tried = mount::clone_tree(Path::new("/"), false).and_then(|tree| {
        let read_only = Attributes { read_only: true, ..Attributes::default() };
        mount::set_attributes(tree.as_fd(), read_only, true)
    });
    let outcome = tried.map(|()| "yes".to_owned()).map_err(|error| error.text());
    probe(
        "open_tree and mount_setattr",
        true,
        outcome,
        "boot a kernel of 5.12 or newer; be root outside a container",
    )
}

fn namespaces() -> Probe {
    let tried = std::thread::spawn(|| {
        namespace::unshare(&[Kind::Network, Kind::Ipc, Kind::Uts, Kind::Pid, Kind::Mount])
    });
    let outcome = match tried.join() {
        Ok(Ok(())) => Ok("network, ipc, uts, pid, mount".to_owned()),
        Ok(Err(error)) => Err(error.text()),
        Err(_) => Err("the attempt panicked".to_owned()),
    };
    probe("namespaces", true, outcome, "be root, outside a container that forbids them")
}

fn seccomp() -> Probe {
    let text = fs::read_to_string("/proc/sys/kernel/seccomp/actions_avail");
    let outcome = text.map(|text| text.trim().to_owned()).map_err(|error| error.to_string());
    probe("seccomp", true, outcome, "use a kernel with CONFIG_SECCOMP_FILTER")
}

fn file_system(name: &'static str, remedy: &'static str) -> Probe {
    let known = fs::read_to_string("/proc/filesystems").unwrap_or_default();
    let found = known.lines().any(|line| line.split_whitespace().last() == Some(name));
    let outcome = if found { Ok("yes".into()) } else { Err("not in /proc/filesystems".into()) };
    probe(name, false, outcome, remedy)
}

/// A module that is loaded, built in, or can be loaded. Whether it works is shown by using it; that is the
/// business of those who do.
fn module(name: &'static str, remedy: &'static str) -> Probe {
    let loaded = Path::new("/sys/module").join(name).exists();
    let release = rustix::system::uname();
    let release = release.release().to_string_lossy().into_owned();
    let listed = ["modules.builtin", "modules.dep"].iter().any(|list| {
        let text = fs::read_to_string(format!("/lib/modules/{release}/{list}")).unwrap_or_default();
        text.lines().any(|line| module_name(line) == name)
    });
    let outcome = match (loaded, listed) {
        (true, _) => Ok("loaded".into()),
        (false, true) => Ok("available".into()),
        (false, false) => Err("neither loaded nor listed in /lib/modules".into()),
    };
    probe(name, false, outcome, remedy)
}

/// `kernel/drivers/net/veth.ko.xz: …` → `veth`.
fn module_name(line: &str) -> String {
    let path = line.split(':').next().unwrap_or_default();
    let file = path.rsplit('/').next().unwrap_or_default();
    file.split(".ko").next().unwrap_or_default().replace('-', "_")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn module_lists_are_read() {
        assert_eq!(
            module_name("kernel/net/bridge/br-netfilter.ko.zst: kernel/net/llc/llc.ko"),
            "br_netfilter"
        );
    }

    #[test]
    fn everything_is_tried_and_nothing_is_left() {
        let directory = tempfile::tempdir().unwrap();
        assert!(all(directory.path()).len() > 10);
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 0);
    }
}
