//! `kobune reset`: no trace stays.

use std::io::{BufRead, IsTerminal, Write};

use clap::Args;
use env::Env;
use images::Images;

use crate::cli::{Common, Failure};
use crate::config::Settings;
use crate::node::{cgroup_root, network_config, services_config, this_executable};

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
        if !self.yes && !confirmed(&settings)? {
            return Err(Failure::new("nothing was removed"));
        }
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
    let store = crate::control_plane::store_dir(settings);
    if store.exists() {
        // Opening takes the lock: a running server would go on writing what is removed here.
        let opened = store::open(&store, store::Options::default());
        if let Err(store::StoreError::Io { cause, .. }) = &opened
            && cause.contains("another process")
        {
            return Err(Failure::new(format!(
                "a server is running in {}; stop it first",
                settings.data_dir.display()
            )));
        }
    }
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
    let volumes = linux::mount::unmount_below(&settings.data_dir).map_err(|error| Failure::chain(&error));
    let services = proxy::teardown(&services_config(settings).table).map_err(|error| Failure::chain(&error));
    let network = network::teardown(&network_config(settings)).map_err(|error| Failure::chain(&error));
    containers.and(volumes).and(services).and(network)?;
    match std::fs::remove_dir_all(&settings.data_dir) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(Failure::new(format!("cannot remove {}: {error}", settings.data_dir.display())))
        }
        _ => Ok(()),
    }
}
