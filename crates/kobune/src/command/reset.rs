//! `kobune reset`: no trace stays.

use std::io::{BufRead, ErrorKind, IsTerminal, Write};
use std::path::Path;

use clap::Args;
use env::Env;
use images::Images;

use crate::cli::{Common, Failure};
use crate::config::Settings;
use crate::node::{cgroup_root, network_config, services_config, this_executable};

/// By these a data directory is known.
const OWN: [&str; 5] = ["server", "kubelet", "images", "containers", "nodes"];

/// Remove every trace of an instance: processes, mounts, cgroups, namespaces, links, packet-filter tables and data.
#[derive(Args)]
#[command(after_help = "Examples:\n  kobune reset\n  kobune reset --yes --data-dir /tmp/k")]
pub struct Reset {
    #[command(flatten)]
    common: Common,
    /// Do not ask.
    #[arg(long, short)]
    yes: bool,
}

impl Reset {
    pub fn run(self) -> Result<(), Failure> {
        let settings = Settings::load(&self.common)?;
        if !rustix::process::geteuid().is_root() {
            return Err(Failure::new("this needs root: it removes mounts and networks; try again with sudo"));
        }
        check_own(&settings.data_dir)?;
        if !self.yes && !confirmed(&settings)? {
            return Err(Failure::new("nothing was removed"));
        }
        super::nodes::reset(&settings)?;
        let runtime = super::up::small_runtime()?;
        runtime.block_on(reset(&settings))?;
        println!("removed {}", settings.data_dir.display());
        Ok(())
    }
}

fn confirmed(settings: &Settings) -> Result<bool, Failure> {
    if !std::io::stdin().is_terminal() {
        return Err(Failure::usage(
            "reset asks before it removes anything; give --yes where nobody can answer",
        ));
    }
    print!("Remove all pods, networks and data of {}? [y/N] ", settings.data_dir.display());
    std::io::stdout().flush().map_err(|error| Failure::chain(&error))?;
    let mut answer = String::new();
    std::io::stdin().lock().read_line(&mut answer).map_err(|error| Failure::chain(&error))?;
    Ok(matches!(answer.trim(), "y" | "Y" | "yes"))
}

/// Everything is tried; the first failure is told at the end, and the data stays until all else is gone.
async fn reset(settings: &Settings) -> Result<(), Failure> {
    // Held until the end: a running server would go on writing what is removed here.
    let _held = hold(&crate::control_plane::store_dir(settings))?;
    let env = Env::system();
    let images = Images::open(&settings.data_dir, settings.registries.clone(), &env)
        .map_err(|e| Failure::chain(&e))?;
    let config = containers::Config {
        data_dir: settings.data_dir.clone(),
        cgroup_root: cgroup_root(settings),
        images: std::sync::Arc::new(images),
        network: None,
        helper: this_executable()?,
        env,
    };
    let containers = async {
        let runtime = containers::EmbeddedRuntime::open(config).await?;
        runtime.purge().await
    };
    let containers = containers.await.map_err(|error| Failure::chain(&error));
    let volumes = linux::mount::unmount_inside(&settings.data_dir).map_err(|error| Failure::chain(&error));
    let services = proxy::teardown(&services_config(settings).table).map_err(|error| Failure::chain(&error));
    let network = network::teardown(&network_config(settings)).map_err(|error| Failure::chain(&error));
    containers.and(volumes).and(services).and(network)?;
    remove_kubeconfig(settings);
    remove_data(&settings.data_dir)
}

/// The kubeconfig may be elsewhere; one that has become another cluster's stays.
fn remove_kubeconfig(settings: &Settings) {
    let ca =
        std::fs::read_to_string(crate::control_plane::pki_dir(settings).join("ca.crt")).unwrap_or_default();
    let own = client::Kubeconfig::load(&settings.kubeconfig, None, "kobune")
        .is_ok_and(|found| !ca.is_empty() && found.server.certificate_authority.trim() == ca.trim());
    if own && let Err(error) = std::fs::remove_file(&settings.kubeconfig) {
        eprintln!("kobune: {} stays: {error}", settings.kubeconfig.display());
    }
}

/// Removes all that is in the directory, and the directory unless a disk is mounted there.
fn remove_data(dir: &Path) -> Result<(), Failure> {
    let failed = |path: &Path, error: std::io::Error| {
        Failure::new(format!("cannot remove {}: {error}", path.display()))
    };
    let entries = match std::fs::read_dir(dir) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        found => found.map_err(|error| failed(dir, error))?,
    };
    for entry in entries {
        let entry = entry.map_err(|error| failed(dir, error))?;
        let is_dir = entry.file_type().is_ok_and(|kind| kind.is_dir());
        let path = entry.path();
        let removed = if is_dir { std::fs::remove_dir_all(&path) } else { std::fs::remove_file(&path) };
        removed.map_err(|error| failed(&path, error))?;
    }
    match std::fs::remove_dir(dir) {
        Err(error) if error.kind() != ErrorKind::ResourceBusy => Err(failed(dir, error)),
        _ => Ok(()),
    }
}

/// A directory in which nothing is of this program is somebody else's, and a mistake.
fn check_own(dir: &Path) -> Result<(), Failure> {
    let is_own = OWN.iter().any(|name| dir.join(name).exists());
    let is_empty = std::fs::read_dir(dir).is_ok_and(|mut entries| entries.next().is_none());
    if is_own || is_empty || !dir.exists() {
        return Ok(());
    }
    Err(Failure::usage(format!(
        "{} holds no cluster but something else; choose the right directory with --data-dir",
        dir.display()
    )))
}

/// Takes the store's directory if there is one. A directory that cannot be locked for another reason (a full disk, say)
/// is no reason to keep it.
fn hold(store: &Path) -> Result<Option<store::Directory>, Failure> {
    if !store.exists() {
        return Ok(None);
    }
    match store::Directory::lock(store) {
        Err(error @ store::StoreError::InUse(_)) => Err(Failure::store(&error)),
        Err(_) => Ok(None),
        Ok(held) => Ok(Some(held)),
    }
}
