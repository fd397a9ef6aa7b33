//! `kobune token`: tokens with which nodes join.

use clap::{Args, Subcommand};
use client::{Client, Http, Kubeconfig};
use env::Env;
use k8s_openapi::api::core::v1::Secret;
use machinery::Status;
use serde_json::json;

use crate::cli::{Common, Failure};
use crate::config::Settings;
use crate::join::JoinToken;

/// Show or make tokens with which nodes join.
#[derive(Args)]
#[command(
    after_help = "Examples:\n  kobune token create\n  kobune token create --ttl-hours 1\n  kobune token list"
)]
pub struct Token {
    #[command(flatten)]
    common: Common,
    #[command(subcommand)]
    action: Action,
}

#[derive(Subcommand)]
enum Action {
    /// Make a token and print it.
    Create {
        /// How long it may be used.
        #[arg(long, default_value_t = 24, value_parser = clap::value_parser!(u32).range(1..))]
        ttl_hours: u32,
        /// What it is for.
        #[arg(long, default_value = "made by kobune token create")]
        description: String,
        /// `json` for scripts.
        #[arg(long, short, value_parser = ["json"])]
        output: Option<String>,
    },
    /// List the tokens, without their secrets.
    List {
        /// `json` for scripts.
        #[arg(long, short, value_parser = ["json"])]
        output: Option<String>,
    },
    /// Delete a token by its ID (what stands before the dot).
    Delete { id: String },
}

impl Token {
    pub fn run(self) -> Result<(), Failure> {
        let settings = Settings::load(&self.common)?;
        let runtime = super::up::small_runtime()?;
        runtime.block_on(async {
            let client = admin(&settings)?;
            let result = match self.action {
                Action::Create { ttl_hours, description, output } => {
                    return create(&settings, ttl_hours, &description, output.is_some()).await;
                }
                Action::List { output } => list(&client, output.is_some()).await,
                Action::Delete { id } => delete(&client, &id).await,
            };
            result.map_err(Failure::new)
        })
    }
}

/// A client with the administrator's kubeconfig of this machine.
pub fn admin(settings: &Settings) -> Result<Client, Failure> {
    Ok(Client::new(std::sync::Arc::new(connection(settings)?)))
}

/// The connection below [`admin`]; opened at the first request.
pub fn connection(settings: &Settings) -> Result<Http, Failure> {
    Http::new(&kubeconfig(settings)?.server).map_err(|error| Failure::chain(&error))
}

fn kubeconfig(settings: &Settings) -> Result<Kubeconfig, Failure> {
    let path = &settings.kubeconfig;
    if !path.exists() {
        return Err(Failure::new(format!(
            "{} is not there; `kobune up` or `kobune server` writes it (--data-dir and --kubeconfig say where)",
            path.display()
        )));
    }
    Kubeconfig::load(path, None, "kobune").map_err(|error| Failure::chain(&error))
}

async fn create(
    settings: &Settings,
    ttl_hours: u32,
    description: &str,
    as_json: bool,
) -> Result<(), Failure> {
    let kubeconfig = kubeconfig(settings)?;
    let authority = &kubeconfig.server.certificate_authority;
    let client = admin(settings)?;
    let lifetime = jiff::SignedDuration::from_hours(i64::from(ttl_hours));
    let made = JoinToken::create(&client, authority, &Env::system(), lifetime, description).await;
    let (token, expiration) = made.map_err(Failure::new)?;
    match as_json {
        true => println!("{}", json!({"token": token.to_string(), "expires": expiration.to_string()})),
        false => println!("{token}"),
    }
    Ok(())
}

async fn list(client: &Client, as_json: bool) -> Result<(), Status> {
    let options = client::ListOptions {
        field_selector: "type=bootstrap.kubernetes.io/token".to_owned(),
        ..Default::default()
    };
    let secrets = client.namespaced::<Secret>("kube-system").list(&options).await?;
    let mut rows = Vec::new();
    for secret in secrets.items {
        let data = client::typed::<Secret>(&secret)?.data.clone().unwrap_or_default();
        let text = |key: &str| data.get(key).map(|bytes| String::from_utf8_lossy(&bytes.0).into_owned());
        let expires = text("expiration").unwrap_or_else(|| "never".to_owned());
        rows.push((text("token-id").unwrap_or_default(), expires, text("description").unwrap_or_default()));
    }
    if as_json {
        let row =
            |(id, expires, description)| json!({"id": id, "expires": expires, "description": description});
        println!("{}", serde_json::Value::from_iter(rows.into_iter().map(row)));
        return Ok(());
    }
    println!("{:<8} {:<22} DESCRIPTION", "ID", "EXPIRES");
    for (id, expires, description) in rows {
        println!("{id:<8} {expires:<22} {description}");
    }
    Ok(())
}

async fn delete(client: &Client, id: &str) -> Result<(), Status> {
    let name = format!("bootstrap-token-{id}");
    client.namespaced::<Secret>("kube-system").delete(&name, &client::DeleteOptions::default()).await?;
    println!("deleted {id}");
    Ok(())
}
