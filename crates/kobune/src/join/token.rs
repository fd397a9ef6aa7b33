//! What a machine needs to join: a bootstrap token, and the hash by which it knows the cluster's authority.

use std::fmt;
use std::str::FromStr;

use auth::token::BootstrapToken;

const HASH_PREFIX: &str = "sha256:";
const HASH_LENGTH: usize = 64;

/// `ID.SECRET.HASH`: a bootstrap token and the SHA-256 of the authority's public key in hexadecimal.
#[derive(Clone, PartialEq, Eq)]
pub struct JoinToken {
    pub bootstrap: BootstrapToken,
    /// `sha256:…`, as `auth::pki::public_key_hash` gives it.
    pub authority_hash: String,
}

impl fmt::Display for JoinToken {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}.{}", self.bootstrap, self.authority_hash.trim_start_matches(HASH_PREFIX))
    }
}

impl FromStr for JoinToken {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        const WRONG: &str =
            "a token has the form ID.SECRET.HASH; `kobune token create` on the server prints one";
        let (bootstrap, hash) = text.trim().rsplit_once('.').ok_or(WRONG)?;
        let is_hash = hash.len() == HASH_LENGTH && hash.bytes().all(|byte| byte.is_ascii_hexdigit());
        if !is_hash {
            return Err(WRONG);
        }
        let bootstrap = bootstrap.parse().map_err(|_| WRONG)?;
        Ok(Self { bootstrap, authority_hash: format!("{HASH_PREFIX}{}", hash.to_lowercase()) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_are_read_as_they_are_printed() {
        let text = format!("abcdef.0123456789abcdef.{}", "0f".repeat(32));
        let token: JoinToken = text.parse().unwrap();
        assert_eq!(token.authority_hash, format!("sha256:{}", "0f".repeat(32)));
        assert_eq!(token.to_string(), text);
        for wrong in ["", "abcdef.0123456789abcdef", "abcdef.short.00", &format!("{text}0")] {
            assert!(wrong.parse::<JoinToken>().is_err(), "{wrong}");
        }
    }
}
