//! `expose`: a service for something that has pods.

use serde_json::{Value, json};

use crate::Error;
use crate::api::with_query;
use crate::arguments::{DryRun, Files, Selector};
use crate::create::{self, Output};
use crate::discovery::Kind;
use crate::selection::{self, Item};
use crate::session::Session;

/// Makes a service.
#[derive(clap::Args)]
pub struct Expose {
    /// TYPE NAME or TYPE/NAME.
    resources: Vec<String>,
    #[command(flatten)]
    files: Files,
    /// The service's name; the object's own if not given.
    #[arg(long)]
    name: Option<String>,
    /// The port of the service; the container's if not given.
    #[arg(long)]
    port: Option<u16>,
    /// The port of the pods: a number or a name.
    #[arg(long)]
    target_port: Option<String>,
    /// TCP, UDP or SCTP.
    #[arg(long, default_value = "TCP")]
    protocol: String,
    /// ClusterIP, NodePort, LoadBalancer or ExternalName.
    #[arg(long = "type")]
    of: Option<String>,
    /// Labels that select the pods, if not the object's own: a=b,c=d.
    #[arg(long, default_value = "", hide_default_value = true)]
    selector: String,
    /// Labels for the service: a=b,c=d.
    #[arg(short, long, default_value = "", hide_default_value = true)]
    labels: String,
    #[arg(long)]
    cluster_ip: Option<String>,
    #[arg(long)]
    external_ip: Option<String>,
    #[arg(long)]
    session_affinity: Option<String>,
    #[command(flatten)]
    output: Output,
}

impl Expose {
    pub async fn run(self, session: &Session) -> Result<(), Error> {
        let (items, errors) =
            selection::present(session, &self.resources, &self.files, &Selector::default(), false).await?;
        crate::error::all(errors)?;
        for item in items {
            let service = self.service(&item.kind, &item.object)?;
            let item = create::place(session, service).await?;
            expose(session, item, &self.output).await?;
        }
        Ok(())
    }

    /// The service for an object.
    fn service(&self, kind: &Kind, object: &Value) -> Result<Value, Error> {
        let selector = match self.selector.as_str() {
            "" => selector_of(kind, object)?,
            text => pairs(text)?,
        };
        let labels = match self.labels.as_str() {
            "" => object["metadata"]["labels"].clone(),
            text => pairs(text)?,
        };
        let name = self.name.as_deref().or(object["metadata"]["name"].as_str()).unwrap_or_default();
        let mut metadata = json!({"name": name});
        if labels.is_object() {
            metadata["labels"] = labels;
        }
        let mut spec = json!({"selector": selector, "ports": self.ports(kind, object)?});
        let optional = [
            ("type", &self.of),
            ("clusterIP", &self.cluster_ip),
            ("sessionAffinity", &self.session_affinity),
        ];
        for (field, value) in optional.into_iter().filter_map(|(field, value)| Some((field, value.as_ref()?)))
        {
            spec[field] = Value::from(value.as_str());
        }
        if let Some(address) = &self.external_ip {
            spec["externalIPs"] = json!([address]);
        }
        Ok(json!({"apiVersion": "v1", "kind": "Service", "metadata": metadata, "spec": spec}))
    }

    fn ports(&self, kind: &Kind, object: &Value) -> Result<Vec<Value>, Error> {
        let found: Vec<(u64, String)> = match self.port {
            Some(port) => vec![(u64::from(port), self.protocol.clone())],
            None => ports_of(kind, object, &self.protocol),
        };
        if found.is_empty() {
            return Err(Error::usage(
                "couldn't find port via --port flag or introspection\nSee 'kobune kubectl expose -h' for help and examples",
            ));
        }
        let several = found.len() > 1;
        let port = |(index, (port, protocol)): (usize, (u64, String))| {
            let target = match &self.target_port {
                None => Value::from(port),
                Some(text) => text.parse::<u16>().map_or_else(|_| Value::from(text.as_str()), Value::from),
            };
            let mut entry = json!({"port": port, "protocol": protocol, "targetPort": target});
            if several {
                entry["name"] = Value::from(format!("port-{}", index + 1));
            }
            entry
        };
        Ok(found.into_iter().enumerate().map(port).collect())
    }
}

async fn expose(session: &Session, item: Item, output: &Output) -> Result<(), Error> {
    let label = item.label();
    let stored = match output.writing.dry_run {
        DryRun::Client => item.object,
        _ => {
            let path = with_query(&item.collection(), &output.writing.parameters("kubectl-expose"));
            session.post(&path, &item.object).await?
        }
    };
    let message = format!("{label} exposed{}", output.writing.dry_run.suffix());
    output.printing.object(session, stored, &message)
}

/// `a=b,c=d` as an object.
pub fn pairs(text: &str) -> Result<Value, Error> {
    let pair = |text: &str| match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), Value::from(value))),
        _ => Err(Error::usage(format!("unexpected label spec: {text}"))),
    };
    text.split(',').map(pair).collect::<Result<_, _>>().map(Value::Object)
}

/// The labels by which an object finds its pods.
pub fn selector_of(kind: &Kind, object: &Value) -> Result<Value, Error> {
    let selector = match (kind.group.as_str(), kind.resource.as_str()) {
        ("", "services" | "replicationcontrollers") => &object["spec"]["selector"],
        ("", "pods") => &object["metadata"]["labels"],
        ("apps" | "batch", _) => &object["spec"]["selector"]["matchLabels"],
        _ => return Err(Error::usage(format!("cannot expose a {}", kind.label()))),
    };
    match selector.as_object() {
        Some(labels) if !labels.is_empty() => Ok(selector.clone()),
        _ => Err(Error::usage(format!(
            "couldn't retrieve selectors via --selector flag or introspection: the {} has no labels and cannot be \
             exposed",
            kind.kind.to_lowercase()
        ))),
    }
}

fn ports_of(kind: &Kind, object: &Value, protocol: &str) -> Vec<(u64, String)> {
    let of = |port: &Value, field: &str| {
        Some((port[field].as_u64()?, port["protocol"].as_str().unwrap_or(protocol).to_owned()))
    };
    let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
    if kind.is("", "services") {
        return list(&object["spec"]["ports"]).iter().filter_map(|port| of(port, "port")).collect();
    }
    let pod = if kind.is("", "pods") { &object["spec"] } else { &object["spec"]["template"]["spec"] };
    let containers = list(&pod["containers"]);
    containers
        .iter()
        .flat_map(|container| list(&container["ports"]))
        .filter_map(|port| of(&port, "containerPort"))
        .collect()
}
