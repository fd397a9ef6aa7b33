//! Nodes.

use machinery::quantity::Quantity;
use serde_json::Value;

use super::page::{Page, items, text, time};

pub fn describe(page: &mut Page, node: &Value, pods: &[Value]) {
    let (spec, status) = (&node["spec"], &node["status"]);
    page.name(node);
    page.field(0, "Roles", roles(node));
    page.labels(node);
    page.field(0, "CreationTimestamp", time(&node["metadata"]["creationTimestamp"]));
    taints(page, &spec["taints"]);
    page.field(0, "Unschedulable", (spec["unschedulable"] == true).to_string());
    page.conditions(
        node,
        &[
            ("Type", "type"),
            ("Status", "status"),
            ("LastHeartbeatTime", "lastHeartbeatTime"),
            ("LastTransitionTime", "lastTransitionTime"),
            ("Reason", "reason"),
            ("Message", "message"),
        ],
    );
    page.line(0, "Addresses:");
    items(&status["addresses"]).for_each(|at| page.field(1, &text(&at["type"]), text(&at["address"])));
    for (title, field) in [("Capacity", "capacity"), ("Allocatable", "allocatable")] {
        page.line(0, format!("{title}:"));
        for (name, amount) in status[field].as_object().into_iter().flatten() {
            page.field(1, name, text(amount));
        }
    }
    system(page, &status["nodeInfo"]);
    page.optional(0, "PodCIDR", &spec["podCIDR"]);
    page.optional(0, "ProviderID", &spec["providerID"]);
    running(page, pods, &status["allocatable"]);
}

fn roles(node: &Value) -> String {
    let labels = node["metadata"]["labels"].as_object();
    let roles: Vec<_> = labels
        .into_iter()
        .flatten()
        .filter_map(|(label, _)| label.strip_prefix("node-role.kubernetes.io/"))
        .collect();
    if roles.is_empty() { "<none>".to_owned() } else { roles.join(",") }
}

fn taints(page: &mut Page, taints: &Value) {
    let taint = |taint: &Value| match taint["value"].as_str().unwrap_or_default() {
        "" => format!("{}:{}", text(&taint["key"]), text(&taint["effect"])),
        value => format!("{}={value}:{}", text(&taint["key"]), text(&taint["effect"])),
    };
    let lines: Vec<_> = items(taints).map(taint).collect();
    if lines.is_empty() {
        page.field(0, "Taints", "<none>");
    }
    for (index, line) in lines.iter().enumerate() {
        page.line(0, format!("{}\t{line}", if index == 0 { "Taints:" } else { "" }));
    }
}

fn system(page: &mut Page, info: &Value) {
    page.line(0, "System Info:");
    let fields = [
        ("Machine ID", "machineID"),
        ("System UUID", "systemUUID"),
        ("Boot ID", "bootID"),
        ("Kernel Version", "kernelVersion"),
        ("OS Image", "osImage"),
        ("Operating System", "operatingSystem"),
        ("Architecture", "architecture"),
        ("Container Runtime Version", "containerRuntimeVersion"),
        ("Kubelet Version", "kubeletVersion"),
    ];
    for (title, field) in fields {
        page.field(1, title, text(&info[field]));
    }
}

fn number(quantity: &Quantity) -> f64 {
    quantity.milli_value() as f64 / 1000.0
}

/// The requests of all containers of a pod for a resource.
fn requested(pod: &Value, resource: &str) -> f64 {
    let of = |container: &Value| {
        let amount = container["resources"]["requests"][resource].as_str();
        amount.and_then(|amount| amount.parse::<Quantity>().ok()).map_or(0.0, |amount| number(&amount))
    };
    items(&pod["spec"]["containers"]).map(of).sum()
}

fn running(page: &mut Page, pods: &[Value], allocatable: &Value) {
    let live: Vec<_> = pods
        .iter()
        .filter(|pod| !matches!(pod["status"]["phase"].as_str(), Some("Succeeded" | "Failed")))
        .collect();
    page.line(0, format!("Non-terminated Pods:\t({} in total)", live.len()));
    page.line(1, "Namespace\tName\tCPU Requests\tMemory Requests");
    page.line(1, "---------\t----\t------------\t---------------");
    for pod in &live {
        page.line(
            1,
            format!(
                "{}\t{}\t{}m\t{}Mi",
                text(&pod["metadata"]["namespace"]),
                text(&pod["metadata"]["name"]),
                (requested(pod, "cpu") * 1000.0).round(),
                (requested(pod, "memory") / 1_048_576.0).round(),
            ),
        );
    }
    page.line(0, "Allocated resources:");
    page.line(1, "Resource\tRequests");
    page.line(1, "--------\t--------");
    for (resource, scale, unit) in [("cpu", 1000.0, "m"), ("memory", 1.0 / 1_048_576.0, "Mi")] {
        let sum: f64 = live.iter().map(|pod| requested(pod, resource)).sum();
        let all = allocatable[resource].as_str().and_then(|amount| amount.parse::<Quantity>().ok());
        let share = all.map(|all| number(&all)).filter(|all| *all > 0.0).map_or(0.0, |all| sum / all * 100.0);
        page.line(1, format!("{resource}\t{}{unit} ({}%)", (sum * scale).round(), share.floor()));
    }
}
