//! `kobune snapshot`: the cluster's state as one file.

use std::io::Write as _;
use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use http_body_util::BodyExt as _;
use store::{Draft, StoreError};

use crate::cli::{Common, Failure};
use crate::config::Settings;
use crate::control_plane::store_dir;

/// Where a running server gives its state; see `apiserver::discovery::snapshot`.
const PATH: &str = "/kobune/snapshot";

/// Save or restore the cluster's state.
#[derive(Args)]
#[command(
    after_help = "Examples:\n  kobune snapshot save state.kobune\n  kobune snapshot restore state.kobune --data-dir /var/lib/kobune\n\n\
    A snapshot holds every object, Secrets too. Certificates and keys are not in it: restore into the same data \
    directory, or bring DATA_DIR/server/pki along."
)]
pub struct Snapshot {
    #[command(flatten)]
    common: Common,
    #[command(subcommand)]
    action: Action,
}

#[derive(Subcommand)]
enum Action {
    /// Write the state of this moment to a file, of a running server or of one that is stopped.
    Save {
        file: PathBuf,
        /// `json` for scripts.
        #[arg(long, short, value_parser = ["json"])]
        output: Option<String>,
    },
    /// Make the state out of a file. The server must be stopped and have no state of its own.
    Restore {
        file: PathBuf,
        /// `json` for scripts.
        #[arg(long, short, value_parser = ["json"])]
        output: Option<String>,
    },
}

impl Snapshot {
    pub fn run(self) -> Result<(), Failure> {
        let settings = Settings::load(&self.common)?;
        let (verb, file, revision, output) = match self.action {
            Action::Save { file, output } => {
                let revision = super::up::small_runtime()?.block_on(save(&settings, &file))?;
                ("saved", file, revision, output)
            }
            Action::Restore { file, output } => {
                let revision = restore(&settings, &file)?;
                ("restored", file, revision, output)
            }
        };
        match output {
            Some(_) => {
                println!("{}", serde_json::json!({"action": verb, "file": file, "revision": revision}))
            }
            None => println!("{verb} revision {revision}: {}", file.display()),
        }
        Ok(())
    }
}

/// A store that nobody holds is read here; otherwise its server is asked.
async fn save(settings: &Settings, file: &Path) -> Result<u64, Failure> {
    let dir = store_dir(settings);
    if !dir.exists() {
        let shown = settings.data_dir.display();
        return Err(Failure::new(format!("no cluster is in {shown}; choose the right one with --data-dir")));
    }
    match store::open(&dir, store::Options::default()) {
        Ok(store) => store.snapshot(file).await.map_err(|error| Failure::store(&error)),
        Err(StoreError::InUse(_)) => fetch(settings, file).await,
        Err(error) => Err(Failure::store(&error)),
    }
}

/// Takes the state from the running server and checks that it came whole.
async fn fetch(settings: &Settings, file: &Path) -> Result<u64, Failure> {
    let server = super::token::connection(settings)?;
    let answer =
        server.send(http::Method::GET, PATH, &[], bytes::Bytes::new()).await.map_err(Failure::new)?;
    let mut body = answer.into_body();
    let draft = Draft::new(file).map_err(|error| Failure::store(&error))?;
    while let Some(frame) = body.frame().await {
        let broken = |error| Failure::new(format!("the server broke the snapshot off: {error}"));
        let Ok(piece) = frame.map_err(broken)?.into_data() else { continue };
        let written = draft.file().write_all(&piece);
        written.map_err(|error| Failure::new(format!("cannot write {}: {error}", file.display())))?;
    }
    draft.publish_checked().map_err(|error| Failure::store(&error))
}

fn restore(settings: &Settings, file: &Path) -> Result<u64, Failure> {
    let dir = store_dir(settings);
    let shown = settings.data_dir.display();
    if dir.join("store.db").exists() {
        // Whether somebody holds it decides what is to be done about it.
        return Err(match store::Directory::lock(&dir) {
            Err(error) => Failure::store(&error),
            Ok(_unused) => Failure::new(format!(
                "a cluster is in {shown} already; move {} away first, or restore elsewhere with --data-dir",
                dir.display()
            )),
        });
    }
    store::restore(file, &dir).map_err(|error| Failure::store(&error))
}
