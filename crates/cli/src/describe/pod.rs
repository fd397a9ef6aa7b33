//! Pods and their templates.

use serde_json::Value;

use super::page::{Page, items, or, text, time};

pub fn describe(page: &mut Page, pod: &Value) {
    let (spec, status) = (&pod["spec"], &pod["status"]);
    page.name(pod);
    page.field(0, "Priority", spec["priority"].as_i64().unwrap_or(0).to_string());
    page.optional(0, "Priority Class Name", &spec["priorityClassName"]);
    page.field(0, "Service Account", text(&spec["serviceAccountName"]));
    let node = or(&spec["nodeName"], "<none>");
    page.field(0, "Node", format!("{node}/{}", text(&status["hostIP"])));
    page.field(0, "Start Time", time(&status["startTime"]));
    page.labels(pod);
    match &pod["metadata"]["deletionTimestamp"] {
        Value::Null => page.field(0, "Status", text(&status["phase"])),
        at => page.field(0, "Status", format!("Terminating (since {})", time(at))),
    }
    page.optional(0, "Reason", &status["reason"]);
    page.optional(0, "Message", &status["message"]);
    page.field(0, "IP", text(&status["podIP"]));
    page.line(0, "IPs:");
    items(&status["podIPs"]).for_each(|address| page.field(1, "IP", text(&address["ip"])));
    if let Some(owner) = items(&pod["metadata"]["ownerReferences"]).find(|owner| owner["controller"] == true)
    {
        page.field(0, "Controlled By", format!("{}/{}", text(&owner["kind"]), text(&owner["name"])));
    }
    if spec["initContainers"].is_array() {
        containers(page, 0, "Init Containers", &spec["initContainers"], &status["initContainerStatuses"]);
    }
    containers(page, 0, "Containers", &spec["containers"], &status["containerStatuses"]);
    page.conditions(pod, &[("Type", "type"), ("Status", "status")]);
    volumes(page, 0, &spec["volumes"]);
    page.field(0, "QoS Class", text(&status["qosClass"]));
    page.pairs(0, "Node-Selectors", &spec["nodeSelector"], "=");
    tolerations(page, 0, &spec["tolerations"]);
}

/// A pod template, as controllers have it.
pub fn template(page: &mut Page, level: usize, template: &Value) {
    let spec = &template["spec"];
    page.pairs(level, "Labels", &template["metadata"]["labels"], "=");
    if template["metadata"]["annotations"].is_object() {
        page.pairs(level, "Annotations", &template["metadata"]["annotations"], ": ");
    }
    page.optional(level, "Service Account", &spec["serviceAccountName"]);
    if spec["initContainers"].is_array() {
        containers(page, level, "Init Containers", &spec["initContainers"], &Value::Null);
    }
    containers(page, level, "Containers", &spec["containers"], &Value::Null);
    volumes(page, level, &spec["volumes"]);
    page.pairs(level, "Node-Selectors", &spec["nodeSelector"], "=");
    tolerations(page, level, &spec["tolerations"]);
}

fn containers(page: &mut Page, level: usize, title: &str, list: &Value, statuses: &Value) {
    page.line(level, format!("{title}:"));
    for container in items(list) {
        page.line(level + 1, format!("{}:", text(&container["name"])));
        let status = items(statuses).find(|status| status["name"] == container["name"]);
        one(page, level + 2, container, status);
    }
}

fn one(page: &mut Page, level: usize, container: &Value, status: Option<&Value>) {
    if let Some(status) = status {
        page.field(level, "Container ID", text(&status["containerID"]));
    }
    page.field(level, "Image", text(&container["image"]));
    if let Some(status) = status {
        page.field(level, "Image ID", text(&status["imageID"]));
    }
    ports(page, level, &container["ports"]);
    for (title, field) in [("Command", "command"), ("Args", "args")] {
        if container[field].is_array() {
            page.line(level, format!("{title}:"));
            let words = items(&container[field]).flat_map(|word| word.as_str().unwrap_or_default().lines());
            words.for_each(|line| page.line(level + 1, line));
        }
    }
    if let Some(status) = status {
        state(page, level, "State", &status["state"]);
        if status["lastState"].as_object().is_some_and(|state| !state.is_empty()) {
            state(page, level, "Last State", &status["lastState"]);
        }
        page.field(level, "Ready", if status["ready"] == true { "True" } else { "False" });
        page.field(level, "Restart Count", status["restartCount"].as_u64().unwrap_or(0).to_string());
    }
    for (title, field) in [("Limits", "limits"), ("Requests", "requests")] {
        let amounts = &container["resources"][field];
        if amounts.as_object().is_some_and(|amounts| !amounts.is_empty()) {
            page.line(level, format!("{title}:"));
            for (name, amount) in amounts.as_object().into_iter().flatten() {
                page.field(level + 1, name, text(amount));
            }
        }
    }
    for (title, field) in
        [("Liveness", "livenessProbe"), ("Readiness", "readinessProbe"), ("Startup", "startupProbe")]
    {
        if container[field].is_object() {
            page.field(level, title, probe(&container[field]));
        }
    }
    environment(page, level, container);
    mounts(page, level, &container["volumeMounts"]);
}

fn ports(page: &mut Page, level: usize, ports: &Value) {
    let all: Vec<_> = items(ports).collect();
    let side = |field: &str| {
        let of =
            |port: &&Value| format!("{}/{}", port[field].as_u64().unwrap_or(0), or(&port["protocol"], "TCP"));
        let texts: Vec<_> = all.iter().map(of).collect();
        if texts.is_empty() { "<none>".to_owned() } else { texts.join(", ") }
    };
    let plural = if all.len() > 1 { "s" } else { "" };
    page.field(level, &format!("Port{plural}"), side("containerPort"));
    page.field(level, &format!("Host Port{plural}"), side("hostPort"));
}

fn state(page: &mut Page, level: usize, title: &str, state: &Value) {
    if let Some(running) = state.get("running") {
        page.field(level, title, "Running");
        page.field(level + 1, "Started", time(&running["startedAt"]));
    } else if let Some(ended) = state.get("terminated") {
        page.field(level, title, "Terminated");
        page.optional(level + 1, "Reason", &ended["reason"]);
        page.optional(level + 1, "Message", &ended["message"]);
        page.field(level + 1, "Exit Code", text(&ended["exitCode"]));
        page.optional(level + 1, "Signal", &ended["signal"]);
        page.field(level + 1, "Started", time(&ended["startedAt"]));
        page.field(level + 1, "Finished", time(&ended["finishedAt"]));
    } else {
        page.field(level, title, "Waiting");
        page.optional(level + 1, "Reason", &state["waiting"]["reason"]);
    }
}

fn probe(probe: &Value) -> String {
    let number = |field: &str, usual: u64| probe[field].as_u64().unwrap_or(usual);
    let times = format!(
        "delay={}s timeout={}s period={}s #success={} #failure={}",
        number("initialDelaySeconds", 0),
        number("timeoutSeconds", 1),
        number("periodSeconds", 10),
        number("successThreshold", 1),
        number("failureThreshold", 3),
    );
    let what = if let Some(exec) = probe.get("exec") {
        let words: Vec<_> = items(&exec["command"]).map(text).collect();
        format!("exec [{}]", words.join(" "))
    } else if let Some(get) = probe.get("httpGet") {
        let scheme = or(&get["scheme"], "HTTP").to_lowercase();
        let path = text(&get["path"]);
        format!(
            "http-get {scheme}://{}:{}/{}",
            text(&get["host"]),
            text(&get["port"]),
            path.trim_start_matches('/')
        )
    } else if let Some(tcp) = probe.get("tcpSocket") {
        format!("tcp-socket {}:{}", text(&tcp["host"]), text(&tcp["port"]))
    } else if let Some(grpc) = probe.get("grpc") {
        format!("grpc <pod>:{} {}", text(&grpc["port"]), text(&grpc["service"]))
    } else {
        "unknown".to_owned()
    };
    format!("{what} {times}")
}

fn environment(page: &mut Page, level: usize, container: &Value) {
    for source in items(&container["envFrom"]) {
        for (field, kind) in [("configMapRef", "ConfigMap"), ("secretRef", "Secret")] {
            if source[field].is_object() {
                page.field(
                    level,
                    "Environment Variables from",
                    format!("{} {kind}", text(&source[field]["name"])),
                );
            }
        }
    }
    if container["env"].as_array().is_none_or(Vec::is_empty) {
        page.field(level, "Environment", "<none>");
        return;
    }
    page.line(level, "Environment:");
    for variable in items(&container["env"]) {
        let from = &variable["valueFrom"];
        let value = if from["fieldRef"].is_object() {
            format!(
                " ({}:{})",
                or(&from["fieldRef"]["apiVersion"], "v1"),
                text(&from["fieldRef"]["fieldPath"])
            )
        } else if from["resourceFieldRef"].is_object() {
            format!(" ({})", text(&from["resourceFieldRef"]["resource"]))
        } else if let Some((kind, reference)) =
            [("config map", "configMapKeyRef"), ("secret", "secretKeyRef")]
                .into_iter()
                .find_map(|(kind, field)| Some((kind, from.get(field)?)))
        {
            let (key, name) = (text(&reference["key"]), text(&reference["name"]));
            format!("<set to the key '{key}' in {kind} '{name}'>")
        } else {
            text(&variable["value"])
        };
        page.field(level + 1, &text(&variable["name"]), value.replace(['\n', '\t'], " "));
    }
}

fn mounts(page: &mut Page, level: usize, mounts: &Value) {
    if mounts.as_array().is_none_or(Vec::is_empty) {
        page.field(level, "Mounts", "<none>");
        return;
    }
    page.line(level, "Mounts:");
    for mount in items(mounts) {
        let mut flags = vec![if mount["readOnly"] == true { "ro" } else { "rw" }.to_owned()];
        if let Some(path) = mount["subPath"].as_str() {
            flags.push(format!("path={path:?}"));
        }
        page.line(
            level + 1,
            format!("{} from {} ({})", text(&mount["mountPath"]), text(&mount["name"]), flags.join(",")),
        );
    }
}

fn volumes(page: &mut Page, level: usize, volumes: &Value) {
    if volumes.as_array().is_none_or(Vec::is_empty) {
        page.field(level, "Volumes", "<none>");
        return;
    }
    page.line(level, "Volumes:");
    for volume in items(volumes) {
        page.line(level + 1, format!("{}:", text(&volume["name"])));
        let source = volume.as_object().into_iter().flatten().find(|(field, _)| *field != "name");
        let Some((kind, source)) = source else { continue };
        let mut title = kind.clone();
        if let Some(first) = title.get_mut(..1) {
            first.make_ascii_uppercase();
        }
        page.field(level + 2, "Type", title);
        for (field, value) in source.as_object().into_iter().flatten() {
            if value.is_array() {
                items(value).for_each(|part| projection(page, level + 2, part));
            } else if !value.is_object() {
                page.field(level + 2, field, text(value));
            }
        }
    }
}

fn projection(page: &mut Page, level: usize, source: &Value) {
    for (kind, value) in source.as_object().into_iter().flatten() {
        match value.get("name") {
            Some(name) => page.field(level, kind, text(name)),
            None if value["expirationSeconds"].is_number() => {
                page.field(level, "TokenExpirationSeconds", text(&value["expirationSeconds"]));
            }
            None if kind == "downwardAPI" => page.field(level, "DownwardAPI", "true"),
            None => {}
        }
    }
}

fn tolerations(page: &mut Page, level: usize, tolerations: &Value) {
    let toleration = |toleration: &Value| {
        let mut line = text(&toleration["key"]);
        if let Some(value) = toleration["value"].as_str() {
            line.push_str(&format!("={value}"));
        }
        if let Some(effect) = toleration["effect"].as_str() {
            line.push_str(&format!(":{effect}"));
        }
        if toleration["operator"] == "Exists" && toleration["value"].is_null() {
            line.push_str(if line.is_empty() { "op=Exists" } else { " op=Exists" });
        }
        if let Some(seconds) = toleration["tolerationSeconds"].as_i64() {
            line.push_str(&format!(" for {seconds}s"));
        }
        line
    };
    let lines: Vec<_> = items(tolerations).map(toleration).collect();
    if lines.is_empty() {
        page.field(level, "Tolerations", "<none>");
    }
    for (index, line) in lines.iter().enumerate() {
        page.line(level, format!("{}\t{line}", if index == 0 { "Tolerations:" } else { "" }));
    }
}
