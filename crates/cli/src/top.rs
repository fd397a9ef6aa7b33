//! `top`: what nodes and pods use, as `metrics.k8s.io` tells it.

use std::collections::BTreeMap;

use clap::{Args, Subcommand, ValueEnum};
use machinery::quantity::Quantity;
use serde_json::Value;

use crate::Error;
use crate::api::with_query;
use crate::output::table::{Column, Options, Printer, Row, Table};
use crate::session::Session;

const API: &str = "/apis/metrics.k8s.io/v1beta1";

/// Shows what is used.
#[derive(Subcommand)]
pub enum Top {
    /// Processor and memory of nodes.
    #[command(alias = "nodes", alias = "no")]
    Node(TopNode),
    /// Processor and memory of pods.
    #[command(alias = "pods", alias = "po")]
    Pod(TopPod),
}

#[derive(Args)]
struct Shared {
    /// Only this one.
    name: Option<String>,
    /// Only those with these labels.
    #[arg(short = 'l', long = "selector", default_value = "", hide_default_value = true)]
    label: String,
    /// The greatest first.
    #[arg(long)]
    sort_by: Option<Sort>,
    #[arg(long)]
    no_headers: bool,
}

#[derive(Clone, Copy, ValueEnum)]
enum Sort {
    Cpu,
    Memory,
}

#[derive(Args)]
pub struct TopNode {
    #[command(flatten)]
    shared: Shared,
    /// Percentages of what the node has instead of what it has for pods.
    #[arg(long)]
    show_capacity: bool,
}

#[derive(Args)]
pub struct TopPod {
    #[command(flatten)]
    shared: Shared,
    /// Only objects with these fields.
    #[arg(long, default_value = "", hide_default_value = true)]
    field_selector: String,
    /// In all namespaces.
    #[arg(short = 'A', long)]
    all_namespaces: bool,
    /// A line for each container.
    #[arg(long)]
    containers: bool,
    /// A last line with the sum.
    #[arg(long)]
    sum: bool,
}

/// Thousandths of a processor, and bytes.
#[derive(Clone, Copy, Default)]
struct Amount {
    milli: i64,
    bytes: i64,
}

impl Amount {
    fn read(value: &Value) -> Self {
        let quantity = |name: &str| Quantity::read(value.get(name)?);
        Self {
            milli: quantity("cpu").map_or(0, |cpu| cpu.milli_value()),
            bytes: quantity("memory").map_or(0, |memory| memory.value()),
        }
    }

    fn sum(amounts: impl Iterator<Item = Self>) -> Self {
        amounts.fold(Self::default(), |sum, one| Self {
            milli: sum.milli.saturating_add(one.milli),
            bytes: sum.bytes.saturating_add(one.bytes),
        })
    }

    fn cells(self) -> [String; 2] {
        [format!("{}m", self.milli), format!("{}Mi", self.bytes >> 20)]
    }

    /// The greater comes first.
    fn order(self, sort: Sort) -> std::cmp::Reverse<i64> {
        std::cmp::Reverse(match sort {
            Sort::Cpu => self.milli,
            Sort::Memory => self.bytes,
        })
    }
}

impl Top {
    pub async fn run(self, session: &Session) -> Result<(), Error> {
        match self {
            Self::Node(command) => command.run(session).await,
            Self::Pod(command) => command.run(session).await,
        }
    }
}

impl Shared {
    /// The metrics that are asked for, in order.
    async fn read(&self, session: &Session, path: &str, fields: &str) -> Result<Vec<Value>, Error> {
        if let Some(name) = &self.name {
            if !self.label.is_empty() || !fields.is_empty() {
                return Err(Error::usage("only one of NAME or selector can be provided"));
            }
            return Ok(vec![session.get(&format!("{path}/{name}")).await?]);
        }
        let path = with_query(path, &[("labelSelector", &self.label), ("fieldSelector", fields)]);
        let mut items = session.get(&path).await?["items"].as_array().cloned().unwrap_or_default();
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        items.sort_by_key(|item| (text(&item["metadata"]["namespace"]), text(&item["metadata"]["name"])));
        if let Some(sort) = self.sort_by {
            items.sort_by_key(|item| used(item).order(sort));
        }
        Ok(items)
    }

    fn print(&self, session: &Session, columns: &[&str], rows: Vec<Vec<String>>) -> Result<(), Error> {
        let column = |name: &&str| Column { name: (*name).to_owned(), priority: 0 };
        let table = Table {
            columns: columns.iter().map(column).collect(),
            rows: rows.into_iter().map(|cells| Row { cells, object: Value::Null }).collect(),
        };
        let options = Options { no_headers: self.no_headers, ..Options::default() };
        session.out.text(&Printer::new(options).print(&table))
    }
}

/// What a node uses, or a pod's containers together.
fn used(item: &Value) -> Amount {
    match item["containers"].as_array() {
        Some(containers) => Amount::sum(containers.iter().map(|container| Amount::read(&container["usage"]))),
        None => Amount::read(&item["usage"]),
    }
}

impl TopNode {
    async fn run(self, session: &Session) -> Result<(), Error> {
        let metrics = self.shared.read(session, &format!("{API}/nodes"), "").await?;
        let field = if self.show_capacity { "capacity" } else { "allocatable" };
        let nodes = self.nodes(session).await?;
        let has = |node: &Value| Amount::read(&node["status"][field]);
        let name = |item: &Value| item["metadata"]["name"].as_str().unwrap_or_default().to_owned();
        let mut available: BTreeMap<String, Amount> =
            nodes.iter().map(|node| (name(node), has(node))).collect();
        let mut rows = Vec::new();
        for item in &metrics {
            let (amount, all) = (used(item), available.remove(&name(item)).unwrap_or_default());
            let [cpu, memory] = amount.cells();
            let (of_cpu, of_memory) = (percent(amount.milli, all.milli), percent(amount.bytes, all.bytes));
            rows.push(vec![name(item), cpu, of_cpu, memory, of_memory]);
        }
        // Nodes that are there but did not say.
        let silent = available.into_keys().map(|name| {
            std::iter::once(name).chain(std::iter::repeat_n("<unknown>".to_owned(), 4)).collect::<Vec<_>>()
        });
        rows.extend(silent);
        let columns = ["NAME", "CPU(cores)", "CPU(%)", "MEMORY(bytes)", "MEMORY(%)"];
        self.shared.print(session, &columns, rows)
    }

    async fn nodes(&self, session: &Session) -> Result<Vec<Value>, Error> {
        match &self.shared.name {
            Some(name) => Ok(vec![session.get(&format!("/api/v1/nodes/{name}")).await?]),
            None => {
                let path = with_query("/api/v1/nodes", &[("labelSelector", &self.shared.label)]);
                Ok(session.get(&path).await?["items"].as_array().cloned().unwrap_or_default())
            }
        }
    }
}

fn percent(part: i64, whole: i64) -> String {
    if whole <= 0 {
        "<unknown>".to_owned()
    } else {
        format!("{}%", i128::from(part) * 100 / i128::from(whole))
    }
}

impl TopPod {
    async fn run(self, session: &Session) -> Result<(), Error> {
        let path = match self.all_namespaces {
            true => format!("{API}/pods"),
            false => format!("{API}/namespaces/{}/pods", session.namespace),
        };
        let items = self.shared.read(session, &path, &self.field_selector).await?;
        if items.is_empty() {
            let text = match self.all_namespaces {
                true => "No resources found".to_owned(),
                false => format!("No resources found in {} namespace.", session.namespace),
            };
            return session.err.line(text);
        }
        let mut rows: Vec<_> = items.iter().flat_map(|item| self.rows(item)).collect();
        if self.sum {
            rows.push(self.sum_row(Amount::sum(items.iter().map(used))));
        }
        self.shared.print(session, &self.columns(), rows)
    }

    fn columns(&self) -> Vec<&'static str> {
        let mut columns = if self.all_namespaces { vec!["NAMESPACE"] } else { Vec::new() };
        columns.extend(if self.containers { &["POD", "NAME"][..] } else { &["NAME"] });
        columns.extend(["CPU(cores)", "MEMORY(bytes)"]);
        columns
    }

    fn rows(&self, item: &Value) -> Vec<Vec<String>> {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let mut head =
            if self.all_namespaces { vec![text(&item["metadata"]["namespace"])] } else { Vec::new() };
        head.push(text(&item["metadata"]["name"]));
        let row = |names: Vec<String>, amount: Amount| names.into_iter().chain(amount.cells()).collect();
        if !self.containers {
            return vec![row(head, used(item))];
        }
        let containers = item["containers"].as_array().into_iter().flatten();
        let line = |container: &Value| {
            row([head.clone(), vec![text(&container["name"])]].concat(), Amount::read(&container["usage"]))
        };
        containers.map(line).collect()
    }

    fn sum_row(&self, amount: Amount) -> Vec<String> {
        let names = self.columns().len() - 2;
        let empty = std::iter::repeat_n(String::new(), names);
        empty.chain(amount.cells()).collect()
    }
}
