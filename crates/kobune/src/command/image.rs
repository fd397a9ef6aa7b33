//! `kobune image`: the images of this machine.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use env::Env;
use images::{Credentials, Image, ImageService, Images};

use crate::cli::{Common, Failure};
use crate::config::Settings;

/// Pull, import, list and remove the images of this machine.
#[derive(Args)]
#[command(
    after_help = "Examples:\n  kobune image pull nginx\n  kobune image import nginx.tar\n  kobune image ls --output json"
)]
pub struct ImageCommand {
    #[command(flatten)]
    common: Common,
    #[command(subcommand)]
    action: Action,
}

#[derive(Subcommand)]
enum Action {
    /// Fetch an image from its registry.
    Pull {
        name: String,
        /// User name for the registry.
        #[arg(long, requires = "password")]
        username: Option<String>,
        /// Password for the registry.
        #[arg(long, env = "KOBUNE_REGISTRY_PASSWORD")]
        password: Option<String>,
    },
    /// Take the images out of an archive (`docker save`, or an OCI layout; plain or gzip).
    Import { file: PathBuf },
    /// List the images.
    Ls {
        /// `json` for scripts.
        #[arg(long, short, value_parser = ["json"])]
        output: Option<String>,
    },
    /// Remove a name, or an image with all its names by its ID.
    Rm { name: String },
}

impl ImageCommand {
    pub fn run(self) -> Result<(), Failure> {
        let settings = Settings::load(&self.common)?;
        let runtime = super::up::small_runtime()?;
        runtime.block_on(async {
            let images = Images::open(&settings.data_dir, settings.registries.clone(), &Env::system())
                .map_err(|error| Failure::chain(&error))?;
            let result = match self.action {
                Action::Pull { name, username, password } => {
                    pull(&images, &name, username.zip(password)).await
                }
                Action::Import { file } => import(&images, &file).await,
                Action::Ls { output } => list(&images, output.is_some()).await,
                Action::Rm { name } => images.remove(&name).await,
            };
            result.map_err(|error| Failure::chain(&error))
        })
    }
}

async fn pull(
    images: &Images,
    name: &str,
    login: Option<(String, String)>,
) -> Result<(), images::ImageError> {
    let credentials: Vec<Credentials> = login
        .map(|(username, password)| Credentials { username, password, identity_token: String::new() })
        .into_iter()
        .collect();
    let image = images.pull(name, &credentials).await?;
    println!("{}", image.id);
    Ok(())
}

async fn import(images: &Images, file: &std::path::Path) -> Result<(), images::ImageError> {
    for image in images.import(file, None).await? {
        if image.tags.is_empty() {
            println!("{}", image.id);
        }
        // Also the names that the same image had before.
        for name in &image.tags {
            println!("{name}");
        }
    }
    Ok(())
}

async fn list(images: &Images, json: bool) -> Result<(), images::ImageError> {
    let all = images.list().await?;
    if json {
        println!("{}", serde_json::to_string_pretty(&all).unwrap_or_default());
        return Ok(());
    }
    println!("{:<56} {:<14} SIZE", "NAME", "IMAGE ID");
    for image in &all {
        for name in names(image) {
            let id = image.id.trim_start_matches("sha256:");
            println!(
                "{name:<56} {:<14} {}",
                &id[..id.len().min(12)],
                indicatif::HumanBytes(image.size_bytes)
            );
        }
    }
    Ok(())
}

fn names(image: &Image) -> Vec<&str> {
    match image.tags.as_slice() {
        [] => vec!["<none>"],
        tags => tags.iter().map(String::as_str).collect(),
    }
}
