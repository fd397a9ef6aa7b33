//! `version`, `api-resources`, `cluster-info`.

use serde_json::{Value, json};

use crate::Error;
use crate::discovery::Kind;
use crate::output::{pretty, tabs};
use crate::selection::list_items;
use crate::session::Session;

/// Shows the versions.
#[derive(clap::Args)]
pub struct Version {
    /// Only this program's.
    #[arg(long)]
    pub client: bool,
    /// yaml or json.
    #[arg(short, long, default_value = "", hide_default_value = true)]
    output: String,
}

impl Version {
    pub async fn run(self, session: &Session) -> Result<(), Error> {
        let client = format!("v{}", env!("CARGO_PKG_VERSION"));
        let server = if self.client { Value::Null } else { session.get("/version").await? };
        let mut all = json!({"clientVersion": {"gitVersion": client}});
        if !self.client {
            all["serverVersion"] = server.clone();
        }
        match self.output.as_str() {
            "json" => session.out.text(&pretty(&all)),
            "yaml" => session.out.text(&machinery::yaml::from_value(&all)),
            "" => {
                session.out.line(format!("Client Version: {client} (kobune)"))?;
                match server["gitVersion"].as_str() {
                    Some(version) => session.out.line(format!("Server Version: {version}")),
                    None => Ok(()),
                }
            }
            other => Err(Error::usage(format!("--output must be 'yaml' or 'json', not {other:?}"))),
        }
    }
}

/// Lists the kinds of the server.
#[derive(clap::Args)]
pub struct ApiResources {
    /// Only of this group.
    #[arg(long)]
    api_group: Option<String>,
    /// Only namespaced (true) or not (false).
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    namespaced: Option<bool>,
    /// Only what has all of these verbs.
    #[arg(long, value_delimiter = ',')]
    verbs: Vec<String>,
    /// Only of this category.
    #[arg(long, value_delimiter = ',')]
    categories: Vec<String>,
    /// wide or name.
    #[arg(short, long, default_value = "", hide_default_value = true)]
    output: String,
    #[arg(long)]
    no_headers: bool,
}

impl ApiResources {
    pub async fn run(self, session: &Session) -> Result<(), Error> {
        let mut shown: Vec<&Kind> = Vec::new();
        for kind in &session.discovery().await?.kinds {
            // Of several versions the first is the preferred one.
            let known = shown.iter().any(|other| other.is(&kind.group, &kind.resource));
            if !known && !kind.verbs.is_empty() && self.wants(kind) {
                shown.push(kind);
            }
        }
        shown.sort_by(|left, right| (&left.group, &left.resource).cmp(&(&right.group, &right.resource)));
        if self.output == "name" {
            let names: String = shown.iter().map(|kind| format!("{}\n", kind.qualified())).collect();
            return session.out.text(&names);
        }
        let wide = self.output == "wide";
        let mut text = String::new();
        if !self.no_headers {
            text.push_str("NAME\tSHORTNAMES\tAPIVERSION\tNAMESPACED\tKIND");
            text.push_str(if wide { "\tVERBS\tCATEGORIES\n" } else { "\n" });
        }
        for kind in shown {
            let short = kind.short_names.join(",");
            text.push_str(&format!(
                "{}\t{short}\t{}\t{}\t{}",
                kind.resource,
                kind.api_version(),
                kind.namespaced,
                kind.kind
            ));
            if wide {
                text.push_str(&format!("\t{}\t{}", kind.verbs.join(","), kind.categories.join(",")));
            }
            text.push('\n');
        }
        session.out.text(&tabs::align(&text, 6, 3))
    }

    fn wants(&self, kind: &Kind) -> bool {
        self.api_group.as_ref().is_none_or(|group| *group == kind.group)
            && self.namespaced.is_none_or(|namespaced| namespaced == kind.namespaced)
            && self.verbs.iter().all(|verb| kind.verbs.contains(verb))
            && self.categories.iter().all(|category| kind.categories.contains(category))
    }
}

/// Says where the control plane and its services are.
pub async fn cluster_info(session: &Session) -> Result<(), Error> {
    session.get("/version").await?;
    session.out.line(format!("Kubernetes control plane is running at {}", session.server))?;
    let kind = session.kind("services").await?;
    let path = kind.path("kube-system", "", "") + "?labelSelector=kubernetes.io%2Fcluster-service%3Dtrue";
    for service in list_items(&kind, &session.get(&path).await?) {
        let metadata = &service["metadata"];
        let name = metadata["name"].as_str().unwrap_or_default();
        let title = metadata["labels"]["kubernetes.io/name"].as_str().unwrap_or(name);
        let port = service["spec"]["ports"][0]["name"].as_str().map(|port| format!(":{port}"));
        session.out.line(format!(
            "{title} is running at {}/api/v1/namespaces/kube-system/services/{name}{}/proxy",
            session.server,
            port.unwrap_or_default()
        ))?;
    }
    Ok(())
}
