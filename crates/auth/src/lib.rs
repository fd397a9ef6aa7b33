//! Who may do what: certificates, tokens, and the authorizers.

pub mod authentication;
pub mod node;
pub mod pki;
pub mod policy;
pub mod rbac;
pub mod seams;
pub mod token;
pub mod union;
pub mod user;
pub mod x509;

pub use authentication::Authentication;
pub use node::NodeAuthorizer;
pub use policy::bootstrap_objects;
pub use rbac::Rbac;
pub use seams::{
    AccessReviewer, Attributes, AuthenticationError, Authenticator, Authorizer, Credentials, Decision,
    NonResourceRule, ResourceRule, UserRules, forbidden_detail, websocket_bearer,
};
pub use union::{Masters, Union};
pub use user::User;
pub use x509::X509Authenticator;
