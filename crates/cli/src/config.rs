//! `config`: reading the kubeconfig. Changing it is not offered.

use machinery::yaml;
use serde_json::Value;

use crate::output::{pretty, tabs};
use crate::session::{Sink, kubeconfig_path};
use crate::{Error, Global};

#[derive(clap::Subcommand)]
pub enum Config {
    /// Show the kubeconfig without its secrets.
    View {
        /// Show the secrets too.
        #[arg(long)]
        raw: bool,
        /// Only what the current context needs.
        #[arg(long)]
        minify: bool,
        /// yaml or json.
        #[arg(short, long, default_value = "yaml")]
        output: String,
    },
    /// Show the name of the current context.
    CurrentContext,
    /// List the contexts.
    GetContexts,
}

impl Config {
    pub(crate) fn run(self, global: &Global) -> Result<(), Error> {
        let out = Sink::new(std::io::stdout());
        let path = kubeconfig_path(global)?;
        let text =
            std::fs::read_to_string(&path).map_err(|source| Error::Read { path: path.clone(), source })?;
        let values = yaml::to_values(&text).map_err(|error| {
            Error::usage(format!("error loading config file {:?}: {error}", path.display().to_string()))
        })?;
        let mut config = values.into_iter().next().unwrap_or(Value::Null);
        if let Some(context) = &global.context {
            config["current-context"] = Value::from(context.as_str());
        }
        match self {
            Self::CurrentContext => {
                match config["current-context"].as_str().filter(|name| !name.is_empty()) {
                    Some(name) => out.line(name),
                    None => Err(Error::usage("current-context is not set")),
                }
            }
            Self::GetContexts => out.text(&contexts(&config)),
            Self::View { raw, minify, output } => {
                if minify {
                    minified(&mut config);
                }
                if !raw {
                    redact(&mut config);
                }
                match output.as_str() {
                    "json" => out.text(&pretty(&config)),
                    _ => out.text(&yaml::from_value(&config)),
                }
            }
        }
    }
}

/// Hides keys, certificates and tokens.
fn redact(config: &mut Value) {
    let data = "DATA+OMITTED";
    let hide = |entries: &mut Value, body: &str, fields: &[(&str, &str)]| {
        for entry in entries.as_array_mut().into_iter().flatten() {
            for (field, text) in fields {
                if let Some(value) = entry.get_mut(body).and_then(|body| body.get_mut(field)) {
                    *value = Value::from(*text);
                }
            }
        }
    };
    hide(&mut config["clusters"], "cluster", &[("certificate-authority-data", data)]);
    let user = [
        ("client-certificate-data", data),
        ("client-key-data", data),
        ("token", "REDACTED"),
        ("password", "REDACTED"),
    ];
    hide(&mut config["users"], "user", &user);
}

/// Keeps the current context, its cluster and its user.
fn minified(config: &mut Value) {
    let keep = |entries: &mut Value, name: &Value| {
        if let Some(entries) = entries.as_array_mut() {
            entries.retain(|entry| entry["name"] == *name);
        }
    };
    let current = config["current-context"].clone();
    keep(&mut config["contexts"], &current);
    let context = config["contexts"][0]["context"].clone();
    keep(&mut config["clusters"], &context["cluster"]);
    keep(&mut config["users"], &context["user"]);
}

fn contexts(config: &Value) -> String {
    let mut text = "CURRENT\tNAME\tCLUSTER\tAUTHINFO\tNAMESPACE\n".to_owned();
    for entry in config["contexts"].as_array().into_iter().flatten() {
        let of = |field: &str| entry["context"][field].as_str().unwrap_or_default().to_owned();
        let mark = if entry["name"] == config["current-context"] { "*" } else { "" };
        let name = entry["name"].as_str().unwrap_or_default();
        text = format!("{text}{mark}\t{name}\t{}\t{}\t{}\n", of("cluster"), of("user"), of("namespace"));
    }
    tabs::align(&text, 6, 3)
}

#[cfg(test)]
mod tests {
    use expect_test::expect;
    use serde_json::json;

    #[test]
    fn secrets_are_hidden_and_others_left_out() {
        let mut config = json!({
            "current-context": "a",
            "clusters": [{"name": "c", "cluster": {"server": "https://x", "certificate-authority-data": "AAAA"}}, {"name": "d"}],
            "contexts": [{"name": "a", "context": {"cluster": "c", "user": "u"}}, {"name": "b"}],
            "users": [{"name": "u", "user": {"token": "t", "client-key-data": "k"}}, {"name": "v"}],
        });
        super::minified(&mut config);
        super::redact(&mut config);
        expect![[r#"
            clusters:
            - cluster:
                certificate-authority-data: DATA+OMITTED
                server: https://x
              name: c
            contexts:
            - context:
                cluster: c
                user: u
              name: a
            current-context: a
            users:
            - name: u
              user:
                client-key-data: DATA+OMITTED
                token: REDACTED
        "#]]
        .assert_eq(&machinery::yaml::from_value(&config));
    }
}
