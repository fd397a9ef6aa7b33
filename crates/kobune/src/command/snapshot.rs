//! `kobune snapshot`: the cluster's state as one file.

use std::path::PathBuf;

use clap::Subcommand;

use crate::cli::{Common, Failure};
use crate::config::Settings;
use crate::control_plane::store_dir;

/// Save or restore the cluster's state.
#[derive(Subcommand)]
pub enum Snapshot {
    /// Write the state to a file. The server must be stopped: it holds the store.
    Save {
        #[command(flatten)]
        common: Common,
        file: PathBuf,
    },
    /// Make the state of a new data directory from a file. The server must be stopped.
    Restore {
        #[command(flatten)]
        common: Common,
        file: PathBuf,
    },
}

impl Snapshot {
    pub fn run(self) -> Result<(), Failure> {
        match self {
            Self::Save { common, file } => {
                let settings = Settings::load(&common)?;
                let dir = store_dir(&settings);
                let saved = super::up::small_runtime()?.block_on(async {
                    let store = store::open(&dir, store::Options::default())?;
                    store.snapshot(&file).await
                });
                let revision = saved.map_err(|error| Failure::chain(&error))?;
                println!("saved revision {revision} to {}", file.display());
            }
            Self::Restore { common, file } => {
                let settings = Settings::load(&common)?;
                let dir = store_dir(&settings);
                let revision = store::restore(&file, &dir).map_err(|error| Failure::chain(&error))?;
                println!("restored {} at revision {revision}", dir.display());
            }
        }
        Ok(())
    }
}
