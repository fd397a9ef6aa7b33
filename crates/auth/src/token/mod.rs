//! Bearer tokens: service accounts' and those with which nodes join.

mod authenticator;
mod bootstrap;
mod claims;
mod jwt;
mod legacy;
mod objects;
mod service_account;

pub use authenticator::{TokenAuthenticator, Verified};
pub use bootstrap::{BootstrapAuthenticator, BootstrapToken};
pub use claims::{BoundClaims, Claims, Reference};
pub use jwt::{JwtError, SigningKey};
pub use objects::{LateObjects, Objects};
pub use service_account::{Issued, ServiceAccountTokens, TokenConfig};
