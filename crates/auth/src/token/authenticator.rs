//! The seam of token authenticators.

use async_trait::async_trait;

use crate::{AuthenticationError, User};

/// Whose token it is, and for which of the asked audiences it is good.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verified {
    pub user: User,
    pub audiences: Vec<String>,
}

/// Knows one sort of bearer token.
#[async_trait]
pub trait TokenAuthenticator: Send + Sync {
    /// `None`: not this sort of token. A token must be good for one of `audiences`.
    async fn verify(
        &self,
        token: &str,
        audiences: &[String],
    ) -> Result<Option<Verified>, AuthenticationError>;
}
