//! Who may do what: certificates, tokens, and the authorizers.

pub mod seams;
pub mod user;

pub use seams::{
    Attributes, AuthenticationError, Authenticator, Authorizer, Credentials, Decision, NonResourceRule,
    ResourceRule, UserRules, forbidden_detail, websocket_bearer,
};
pub use user::User;
