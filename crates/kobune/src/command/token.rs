//! `kobune token`: tokens with which nodes join.

use auth::token::BootstrapToken;
use clap::{Args, Subcommand};
use client::{Client, Http, Kubeconfig};
use env::Env;
use k8s_openapi::api::core::v1::Secret;
use machinery::Status;

use crate::cli::{Common, Failure};
use crate::config::Settings;

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
        #[arg(long, default_value_t = 24)]
        ttl_hours: u32,
    },
    /// List the tokens.
    List,
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
                Action::Create { ttl_hours } => create(&client, ttl_hours).await,
                Action::List => list(&client).await,
                Action::Delete { id } => delete(&client, &id).await,
            };
            result.map_err(Failure::new)
        })
    }
}

/// A client with the administrator's kubeconfig of this machine.
pub fn admin(settings: &Settings) -> Result<Client, Failure> {
    let kubeconfig =
        Kubeconfig::load(&settings.kubeconfig, None, "kobune").map_err(|error| Failure::chain(&error))?;
    let http = Http::new(&kubeconfig.server).map_err(|error| Failure::chain(&error))?;
    Ok(Client::new(std::sync::Arc::new(http)))
}

async fn create(client: &Client, ttl_hours: u32) -> Result<(), Status> {
    let env = Env::system();
    let token = BootstrapToken::random(&env);
    let lifetime = jiff::SignedDuration::from_hours(i64::from(ttl_hours));
    let expiration = env.now().saturating_add(lifetime).map_err(Status::internal)?;
    let secret = token.to_secret(Some(expiration), "made by kobune token create", &[]);
    client.namespaced::<Secret>("kube-system").create(&secret).await?;
    println!("{token}");
    Ok(())
}

async fn list(client: &Client) -> Result<(), Status> {
    let options = client::ListOptions {
        field_selector: "type=bootstrap.kubernetes.io/token".to_owned(),
        ..Default::default()
    };
    let secrets = client.namespaced::<Secret>("kube-system").list(&options).await?;
    println!("{:<8} EXPIRES", "ID");
    for secret in secrets.items {
        let secret = client::typed::<Secret>(&secret)?;
        let data = secret.data.clone().unwrap_or_default();
        let text = |key: &str| data.get(key).map(|bytes| String::from_utf8_lossy(&bytes.0).into_owned());
        let expires = text("expiration").unwrap_or_else(|| "never".to_owned());
        println!("{:<8} {expires}", text("token-id").unwrap_or_default());
    }
    Ok(())
}

async fn delete(client: &Client, id: &str) -> Result<(), Status> {
    let name = format!("bootstrap-token-{id}");
    client.namespaced::<Secret>("kube-system").delete(&name, &client::DeleteOptions::default()).await?;
    println!("deleted {id}");
    Ok(())
}
