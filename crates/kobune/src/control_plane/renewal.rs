//! The control plane's own certificates: issued at a start when they have to be, renewed while it runs.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use auth::pki::{Authority, CurrentIdentity, Identity, Kubeconfig, KubeconfigUser, PkiError, Profile};
use env::Env;
use tokio::runtime::Handle;

use super::pki_dir;
use crate::config::Settings;
use crate::graph::Graph;
use crate::join::rotation;

/// A certificate in a file, and where connections take it from.
pub struct Renewal {
    pub current: Arc<CurrentIdentity>,
    identity: Identity,
    authority: Arc<Authority>,
    dir: PathBuf,
    name: &'static str,
    profile: Profile,
    env: Env,
}

impl Renewal {
    /// Takes the certificate of the file if it still fits.
    pub fn issue(
        authority: Arc<Authority>,
        dir: &Path,
        name: &'static str,
        profile: Profile,
        env: &Env,
    ) -> Result<Self, PkiError> {
        let identity = authority.issue_file(dir, name, &profile, env)?;
        let current = CurrentIdentity::new(&identity)?;
        Ok(Self { current, identity, authority, dir: dir.to_owned(), name, profile, env: env.clone() })
    }

    async fn keep(self) {
        let Self { current, identity, authority, dir, name, profile, env } = self;
        let renew = || {
            let renewed = authority.issue_file(&dir, name, &profile, &env);
            std::future::ready(renewed.and_then(|identity| current.replace(&identity).map(|()| identity)))
        };
        rotation::keep(name, identity, env.clone(), renew).await;
    }
}

/// Writes the administrator's kubeconfig with a certificate that has most of its life before it.
pub fn write_kubeconfig(authority: &Authority, settings: &Settings, env: &Env) -> Result<Identity, PkiError> {
    let admin = authority.issue_file(&pki_dir(settings), "admin", &Profile::admin(), env)?;
    let kubeconfig = Kubeconfig {
        server: &settings.local_url(),
        authority_pem: authority.pem(),
        cluster: "kobune",
        user: "admin",
        credentials: KubeconfigUser::Certificate(&admin),
    };
    kubeconfig.write(&settings.kubeconfig)?;
    Ok(admin)
}

/// Adds the service `certificates`, which renews them and the administrator's.
pub fn register(
    graph: &mut Graph,
    on: &Handle,
    renewals: Vec<Renewal>,
    (authority, settings): (Arc<Authority>, Settings),
    env: &Env,
) {
    let env = env.clone();
    graph.add("certificates", &["api"], on, move |ready, shutdown| async move {
        let admin = write_kubeconfig(&authority, &settings, &env).map_err(|error| error.to_string())?;
        let write = || std::future::ready(write_kubeconfig(&authority, &settings, &env));
        let admin = rotation::keep("admin", admin, env.clone(), write);
        let all = futures::future::join_all(renewals.into_iter().map(Renewal::keep));
        ready.set();
        shutdown.run_until_cancelled(futures::future::join(admin, all)).await;
        Ok(())
    });
}
