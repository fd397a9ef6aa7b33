//! Kubeconfig files with everything embedded.

use std::path::Path;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use super::files::write_replaceable;
use super::{Identity, PkiError};

/// How the user of a kubeconfig proves who it is.
#[derive(Clone, Copy)]
pub enum KubeconfigUser<'a> {
    Certificate(&'a Identity),
    Token(&'a str),
}

/// One cluster, one user, one context.
#[derive(Clone, Copy)]
pub struct Kubeconfig<'a> {
    /// `https://HOST:PORT`.
    pub server: &'a str,
    pub authority_pem: &'a str,
    pub cluster: &'a str,
    pub user: &'a str,
    pub credentials: KubeconfigUser<'a>,
}

impl Kubeconfig<'_> {
    /// The file as YAML. Strings are written as JSON, which YAML understands.
    pub fn to_yaml(&self) -> String {
        let quote = |text: &str| serde_json::Value::from(text).to_string();
        let (cluster, user) = (quote(self.cluster), quote(self.user));
        let context = quote(&format!("{}@{}", self.user, self.cluster));
        let credentials = match self.credentials {
            KubeconfigUser::Token(token) => format!("    token: {}\n", quote(token)),
            KubeconfigUser::Certificate(identity) => format!(
                "    client-certificate-data: {}\n    client-key-data: {}\n",
                STANDARD.encode(&identity.certificate_pem),
                STANDARD.encode(&identity.key_pem)
            ),
        };
        format!(
            "apiVersion: v1\nkind: Config\nclusters:\n- name: {cluster}\n  cluster:\n    server: {}\n    \
             certificate-authority-data: {}\nusers:\n- name: {user}\n  user:\n{credentials}contexts:\n- name: \
             {context}\n  context:\n    cluster: {cluster}\n    user: {user}\ncurrent-context: {context}\n",
            quote(self.server),
            STANDARD.encode(self.authority_pem),
        )
    }

    /// Writes the file, readable only by its owner.
    pub fn write(&self, path: &Path) -> Result<(), PkiError> {
        write_replaceable(path, self.to_yaml().as_bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_has_one_of_each() {
        let config = Kubeconfig {
            server: "https://10.0.0.1:6443",
            authority_pem: "PEM",
            cluster: "kobune",
            user: "admin",
            credentials: KubeconfigUser::Token("secret"),
        };
        let expected = expect_test::expect![[r#"
            apiVersion: v1
            kind: Config
            clusters:
            - name: "kobune"
              cluster:
                server: "https://10.0.0.1:6443"
                certificate-authority-data: UEVN
            users:
            - name: "admin"
              user:
                token: "secret"
            contexts:
            - name: "admin@kobune"
              context:
                cluster: "kobune"
                user: "admin"
            current-context: "admin@kobune"
        "#]];
        expected.assert_eq(&config.to_yaml());
    }
}
