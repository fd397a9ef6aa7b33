//! Certificates are renewed two thirds into their lives, while everything runs.

use std::future::Future;
use std::time::Duration;

use auth::pki::Identity;
use env::Env;

/// Renewal is looked at this often at least, so that a clock that was set does not make it late.
const LOOK: Duration = Duration::from_secs(3600);
const RETRY: Duration = Duration::from_secs(60);

/// For ever: when `identity` is due, `renew` obtains another, stores it and sees to it that new connections show it.
pub async fn keep<F, E>(what: &'static str, mut identity: Identity, env: Env, mut renew: impl FnMut() -> F)
where
    F: Future<Output = Result<Identity, E>>,
    E: std::fmt::Display,
{
    loop {
        let left = identity.due().map(|due| due.duration_since(env.now()));
        let left = left.and_then(|left| Duration::try_from(left).ok()).unwrap_or_default();
        if !left.is_zero() {
            tokio::time::sleep(left.min(LOOK)).await;
            continue;
        }
        match renew().await {
            Ok(renewed) => {
                tracing::info!(what, "certificate renewed");
                identity = renewed;
            }
            Err(error) => {
                tracing::warn!(what, %error, "certificate not renewed");
                tokio::time::sleep(RETRY).await;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use auth::pki::{Authority, Profile};

    use super::*;

    /// A year goes by in which two thirds are waited for; the first renewal fails and is tried again.
    #[tokio::test(start_paused = true)]
    async fn a_certificate_is_renewed_long_before_its_end() {
        let env = Env::seeded(1, "2026-01-01T00:00:00Z".parse().unwrap());
        let authority = Authority::ephemeral("ca", &env).unwrap();
        let issue = || authority.issue(&Profile::node("n"), &env).map_err(|error| error.to_string());
        let (tries, renewed) = (Cell::new(0), Cell::new(None));
        let renew = || {
            tries.set(tries.get() + 1);
            let outcome = match tries.get() {
                1 => Err("the server is away".to_owned()),
                2 => {
                    renewed.set(Some(env.now()));
                    issue()
                }
                _ => issue(),
            };
            std::future::ready(outcome)
        };
        let kept = keep("test", issue().unwrap(), env.clone(), renew);
        let days = Duration::from_secs(400 * 24 * 3600);
        assert!(tokio::time::timeout(days, kept).await.is_err(), "it never ends");
        let days =
            renewed.get().unwrap().duration_since("2026-01-01T00:00:00Z".parse().unwrap()).as_hours() / 24;
        assert_eq!((tries.get(), days), (2, 243));
    }
}
