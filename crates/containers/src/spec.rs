//! From what the pod and the image ask for to what a monitor does: a pure function and its result.

use std::path::{Path, PathBuf};

use images::Image;
use serde::{Deserialize, Serialize};

use crate::defaults;
use crate::users::UserRequest;
use crate::{ContainerConfig, Device, Mount, Resources, SandboxConfig, Seccomp};

/// Everything that a monitor needs to know to start a container.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ContainerSpec {
    pub id: String,
    /// Where its writable layer and its state lie.
    pub directory: PathBuf,
    /// Lowest first.
    pub layers: Vec<PathBuf>,
    pub arguments: Vec<String>,
    /// `NAME=value`.
    pub environment: Vec<String>,
    pub working_directory: PathBuf,
    pub user: UserRequest,
    /// Bits, as the kernel numbers them.
    pub capabilities: u64,
    pub privileged: bool,
    pub no_new_privileges: bool,
    pub read_only_root: bool,
    pub filter: Filter,
    pub masked_paths: Vec<PathBuf>,
    pub read_only_paths: Vec<PathBuf>,
    pub mounts: Vec<Mount>,
    pub devices: Vec<Device>,
    /// From the hierarchies' mount points.
    pub cgroup: String,
    pub resources: Resources,
    pub processes: Processes,
    /// The pod's shared memory directory on the host.
    pub shm: PathBuf,
    pub log_path: Option<PathBuf>,
    pub stdin: bool,
    pub stdin_once: bool,
    pub tty: bool,
    pub stop_signal: i32,
}

/// The system-call filter.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Filter {
    None,
    RuntimeDefault,
    Profile(linux::seccomp::Profile),
}

/// Which process namespace the container runs in.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Processes {
    Own,
    Pod,
    Host,
    /// That of another container of the pod.
    Of(String),
}

/// What a monitor needs to know to set up its pod.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SandboxSpec {
    pub id: String,
    pub socket: PathBuf,
    /// Where the new network namespace is bound; `None` for the host's.
    pub network_namespace: Option<PathBuf>,
    pub own_ipc: bool,
    /// Set in a new host-name namespace; `None` with the host's network.
    pub hostname: Option<String>,
    pub sysctls: Vec<(String, String)>,
    /// Whether a pause process holds a process namespace that the containers share.
    pub shared_processes: bool,
    /// Where the pod's shared memory is mounted; `None` with the host's IPC.
    pub shm: Option<PathBuf>,
    /// The cgroups of the monitor itself and of the pause process.
    pub monitor_cgroup: String,
    pub pause_cgroup: String,
}

/// What the function below cannot find out itself.
pub struct Surroundings<'a> {
    pub id: &'a str,
    pub directory: &'a Path,
    pub cgroup: String,
    pub shm: PathBuf,
    pub log_directory: &'a Path,
    /// The text of the profile file that the configuration names.
    pub seccomp_file: Option<String>,
    /// The capabilities that this process could give away.
    pub available_capabilities: u64,
}

/// Puts a container's configuration, its image's and its sandbox's together.
pub fn container(
    config: &ContainerConfig,
    image: &Image,
    sandbox: &SandboxConfig,
    around: Surroundings<'_>,
) -> Result<ContainerSpec, String> {
    let security = &config.security;
    let capabilities = capabilities(config)? & around.available_capabilities;
    let list = |chosen: &Option<Vec<PathBuf>>, default: &[&str]| match (security.privileged, chosen) {
        (true, _) => Vec::new(),
        (false, Some(paths)) => paths.clone(),
        (false, None) => default.iter().map(PathBuf::from).collect(),
    };
    let directory = [&config.working_directory, &image.config.working_directory];
    let directory = directory.into_iter().find(|path| !path.is_empty()).map_or("/", String::as_str);
    Ok(ContainerSpec {
        id: around.id.to_owned(),
        directory: around.directory.to_owned(),
        layers: image.layers.clone(),
        arguments: arguments(config, image)?,
        environment: environment(config, image, sandbox),
        working_directory: Path::new("/").join(directory),
        user: UserRequest {
            image_user: image.config.user.clone(),
            user_id: security.run_as_user,
            group_id: security.run_as_group,
            supplemental_groups: security.supplemental_groups.clone(),
            strict: security.strict_supplemental_groups,
        },
        capabilities,
        privileged: security.privileged,
        no_new_privileges: security.no_new_privileges,
        read_only_root: security.read_only_root,
        filter: filter(config, &around, capabilities)?,
        masked_paths: list(&security.masked_paths, &defaults::MASKED_PATHS),
        read_only_paths: list(&security.read_only_paths, &defaults::READ_ONLY_PATHS),
        mounts: mounts(config),
        devices: config.devices.clone(),
        cgroup: around.cgroup,
        resources: config.resources.clone(),
        processes: processes(config, sandbox),
        shm: around.shm,
        log_path: (!config.log_path.as_os_str().is_empty())
            .then(|| around.log_directory.join(&config.log_path)),
        stdin: config.stdin,
        stdin_once: config.stdin_once,
        tty: config.tty,
        stop_signal: linux::process::signal_number(&image.config.stop_signal)
            .unwrap_or(linux::process::TERMINATE),
    })
}

fn arguments(config: &ContainerConfig, image: &Image) -> Result<Vec<String>, String> {
    let mut all = Vec::new();
    if config.command.is_empty() {
        all.extend(image.config.entrypoint.iter().cloned());
        let rest = if config.args.is_empty() { &image.config.command } else { &config.args };
        all.extend(rest.iter().cloned());
    } else {
        all.extend(config.command.iter().chain(&config.args).cloned());
    }
    if all.is_empty() { Err("no command specified".into()) } else { Ok(all) }
}

fn environment(config: &ContainerConfig, image: &Image, sandbox: &SandboxConfig) -> Vec<String> {
    let mut all: Vec<String> = vec![format!("PATH={}", defaults::PATH)];
    if config.tty {
        all.push("TERM=xterm".into());
    }
    if !sandbox.hostname.is_empty() {
        all.push(format!("HOSTNAME={}", sandbox.hostname));
    }
    let pod = config.environment.iter().map(|(name, value)| format!("{name}={value}"));
    for entry in image.config.environment.iter().cloned().chain(pod) {
        let name_end = entry.find('=').map_or(entry.len(), |at| at + 1);
        match all.iter_mut().find(|known| known.starts_with(&entry[..name_end])) {
            Some(known) => *known = entry,
            None => all.push(entry),
        }
    }
    all
}

fn capabilities(config: &ContainerConfig) -> Result<u64, String> {
    let security = &config.security;
    if security.privileged {
        return Ok(linux::capability::ALL);
    }
    let bits = |name: &str| match name {
        "ALL" | "all" => Ok(linux::capability::ALL),
        name => linux::capability::bit(name).ok_or_else(|| format!("unknown capability {name:?}")),
    };
    let is_all = |names: &[String]| names.iter().any(|name| name.eq_ignore_ascii_case("ALL"));
    let mut set = 0;
    if is_all(&security.add_capabilities) {
        set = linux::capability::ALL;
    } else if !is_all(&security.drop_capabilities) {
        for name in defaults::CAPABILITIES {
            set |= bits(name)?;
        }
    }
    for name in security.drop_capabilities.iter().filter(|name| !name.eq_ignore_ascii_case("ALL")) {
        set &= !bits(name)?;
    }
    for name in security.add_capabilities.iter().filter(|name| !name.eq_ignore_ascii_case("ALL")) {
        set |= bits(name)?;
    }
    Ok(set)
}

fn filter(config: &ContainerConfig, around: &Surroundings<'_>, capabilities: u64) -> Result<Filter, String> {
    match (&config.security.seccomp, config.security.privileged) {
        (_, true) | (Seccomp::Unconfined, _) => Ok(Filter::None),
        (Seccomp::RuntimeDefault, _) => Ok(Filter::RuntimeDefault),
        (Seccomp::Localhost(path), _) => {
            let text = around.seccomp_file.as_deref().unwrap_or_default();
            let profile = crate::seccomp::parse(text, capabilities)
                .map_err(|error| format!("seccomp profile {}: {error}", path.display()))?;
            Ok(Filter::Profile(profile))
        }
    }
}

/// Shorter targets first, so that nothing is hidden by what is mounted above it.
fn mounts(config: &ContainerConfig) -> Vec<Mount> {
    let mut all = config.mounts.clone();
    all.sort_by_key(|mount| mount.container_path.components().count());
    all
}

fn processes(config: &ContainerConfig, sandbox: &SandboxConfig) -> Processes {
    match &config.security.target_container {
        Some(target) => Processes::Of(target.0.clone()),
        None if sandbox.host_pid => Processes::Host,
        None if sandbox.share_process_namespace => Processes::Pod,
        None => Processes::Own,
    }
}

/// The kernel's limits from the contract's.
pub fn limits(resources: &Resources) -> linux::cgroup::Limits {
    linux::cgroup::Limits {
        cpu_shares: resources.cpu_shares,
        cpu_quota_us: resources.cpu_quota_us,
        cpu_period_us: resources.cpu_period_us,
        memory_bytes: resources.memory_limit_bytes,
        pids: resources.pids_limit,
        oom_group: true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn build(config: ContainerConfig, image: images::ImageConfig) -> Result<ContainerSpec, String> {
        let image = Image { config: image, ..Image::default() };
        let sandbox = SandboxConfig { hostname: "web-0".into(), ..SandboxConfig::default() };
        let around = Surroundings {
            id: "c1",
            directory: Path::new("/state/c1"),
            cgroup: "/kobune/pod1/c1".into(),
            shm: "/run/shm".into(),
            log_directory: Path::new("/log"),
            seccomp_file: None,
            available_capabilities: linux::capability::ALL,
        };
        container(&config, &image, &sandbox, around)
    }

    fn strings(words: &str) -> Vec<String> {
        words.split_whitespace().map(str::to_owned).collect()
    }

    #[test]
    fn command_and_arguments_follow_kubernetes() {
        let image =
            images::ImageConfig { entrypoint: strings("e"), command: strings("c d"), ..Default::default() };
        for (command, args, expected) in
            [("", "", "e c d"), ("", "x", "e x"), ("r", "", "r"), ("r", "x y", "r x y")]
        {
            let config =
                ContainerConfig { command: strings(command), args: strings(args), ..Default::default() };
            assert_eq!(build(config, image.clone()).unwrap().arguments, strings(expected));
        }
        let none = build(ContainerConfig::default(), Default::default());
        assert_eq!(none.unwrap_err(), "no command specified");
    }

    #[test]
    fn later_variables_win_in_place() {
        let image = images::ImageConfig {
            command: strings("c"),
            environment: strings("PATH=/bin A=1 AB=2"),
            ..Default::default()
        };
        let config = ContainerConfig {
            environment: vec![("A".into(), "3".into()), ("HOSTNAME".into(), "me".into())],
            ..Default::default()
        };
        let spec = build(config, image).unwrap();
        assert_eq!(spec.environment, strings("PATH=/bin HOSTNAME=me A=3 AB=2"));
    }

    #[test]
    fn capabilities_are_added_and_dropped() {
        let set = |add: &str, drop: &str| {
            let mut config = ContainerConfig { command: strings("c"), ..Default::default() };
            config.security.add_capabilities = strings(add);
            config.security.drop_capabilities = strings(drop);
            build(config, Default::default()).map(|spec| spec.capabilities)
        };
        let bit = |name: &str| linux::capability::bit(name).unwrap();
        assert_eq!(set("", "").unwrap().count_ones(), 14);
        assert_eq!(set("NET_ADMIN", "ALL"), Ok(bit("NET_ADMIN")));
        assert_eq!(set("ALL", "SYS_ADMIN"), Ok(linux::capability::ALL & !bit("SYS_ADMIN")));
        assert_eq!(set("", "CHOWN").unwrap().count_ones(), 13);
        assert!(set("FLY", "").unwrap_err().contains("FLY"));
    }
}
