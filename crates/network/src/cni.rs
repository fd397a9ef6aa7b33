//! Somebody else's network by CNI plugins (specification 1.0), where a machine is configured for one.
//!
//! The first configuration of `/etc/cni/net.d` counts, as with other runtimes. Plugins are programs: they are told
//! what to do by their environment and standard input and answer on standard output.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use async_trait::async_trait;
use containers::{PodIdentity, RuntimeError, SandboxId, SandboxNetwork};
use ipnet::IpNet;
use linux::net::{Protocol, Socket, namespace};
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt;
use tokio::process::Command;

use crate::NetworkError;
use crate::kernel::{doing, io};

const INTERFACE: &str = "eth0";
const VERSION: &str = "1.0.0";

/// A chain of plugins that connects pods.
#[derive(Clone, Debug)]
pub struct Cni {
    name: String,
    version: String,
    plugins: Vec<Value>,
    /// Where the plugins are.
    programs: PathBuf,
    /// Where results are kept: plugins are told them when a pod is disconnected.
    results: PathBuf,
}

impl Cni {
    /// Reads the first configuration in a directory; `None` when there is none. Fails when it names a plugin that is
    /// not among the programs.
    pub fn find(
        configurations: &Path,
        programs: &Path,
        results: &Path,
    ) -> Result<Option<Self>, NetworkError> {
        let Ok(entries) = std::fs::read_dir(configurations) else { return Ok(None) };
        if !programs.is_dir() {
            return Ok(None);
        }
        let files = entries.filter_map(|entry| Some(entry.ok()?.path()));
        let is_configuration = |path: &PathBuf| {
            path.extension()
                .is_some_and(|kind| ["conflist", "conf", "json"].iter().any(|known| kind == *known))
        };
        let files: BTreeSet<PathBuf> = files.filter(is_configuration).collect();
        let Some(path) = files.first() else { return Ok(None) };
        let shown = path.display();
        let text = std::fs::read_to_string(path).map_err(io(format!("cannot read {shown}")))?;
        let cni = Self::read(&text, programs, results);
        cni.map(Some).map_err(|cause| NetworkError::Config(format!("{shown}: {cause}")))
    }

    fn read(text: &str, programs: &Path, results: &Path) -> Result<Self, String> {
        let configuration: Value = serde_json::from_str(text).map_err(|error| error.to_string())?;
        let plugins = match configuration["plugins"].as_array() {
            Some(plugins) => plugins.clone(),
            None => vec![configuration.clone()],
        };
        for plugin in &plugins {
            let kind = plugin["type"].as_str().ok_or("a plugin has no type")?;
            if kind.contains('/') || !programs.join(kind).is_file() {
                return Err(format!("there is no plugin {kind:?} in {}", programs.display()));
            }
        }
        if plugins.is_empty() {
            return Err("there are no plugins".to_owned());
        }
        let text = |field: &str| configuration[field].as_str().map(str::to_owned);
        Ok(Self {
            name: text("name").ok_or("the network has no name")?,
            version: text("cniVersion").unwrap_or_else(|| VERSION.to_owned()),
            plugins,
            programs: programs.to_owned(),
            results: results.to_owned(),
        })
    }

    /// The network's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    fn record(&self, id: &SandboxId) -> PathBuf {
        self.results.join(format!("{}.json", id.0))
    }

    async fn add(
        &self,
        id: &SandboxId,
        pod: &PodIdentity,
        netns: &Path,
    ) -> Result<Vec<IpAddr>, NetworkError> {
        let file = std::fs::File::open(netns).map_err(io(format!("cannot open {}", netns.display())))?;
        let raised = namespace::within(&file, raise_loopback);
        raised.map_err(io("cannot enter the pod's network".to_owned()))??;
        let mut result = Value::Null;
        for plugin in &self.plugins {
            result = self.call("ADD", plugin, &result, id, pod, netns).await?;
        }
        let record = json!({"pod": pod, "netns": netns, "result": result});
        let kept = std::fs::create_dir_all(&self.results)
            .and_then(|()| std::fs::write(self.record(id), record.to_string()));
        kept.map_err(io(format!("cannot keep the network of {}", id.0)))?;
        Ok(addresses(&result))
    }

    async fn remove(&self, id: &SandboxId) -> Result<(), NetworkError> {
        let Ok(text) = std::fs::read_to_string(self.record(id)) else { return Ok(()) };
        let record: Value = serde_json::from_str(&text).unwrap_or_default();
        let pod: PodIdentity = serde_json::from_value(record["pod"].clone()).unwrap_or_default();
        let netns = PathBuf::from(record["netns"].as_str().unwrap_or_default());
        for plugin in self.plugins.iter().rev() {
            self.call("DEL", plugin, &record["result"], id, &pod, &netns).await?;
        }
        std::fs::remove_file(self.record(id)).map_err(io(format!("cannot forget the network of {}", id.0)))
    }

    async fn call(
        &self,
        command: &str,
        plugin: &Value,
        previous: &Value,
        id: &SandboxId,
        pod: &PodIdentity,
        netns: &Path,
    ) -> Result<Value, NetworkError> {
        let kind = plugin["type"].as_str().unwrap_or_default();
        let mut configuration = plugin.clone();
        configuration["name"] = json!(self.name);
        configuration["cniVersion"] = json!(self.version);
        if !previous.is_null() {
            configuration["prevResult"] = previous.clone();
        }
        let arguments = format!(
            "IgnoreUnknown=1;K8S_POD_NAMESPACE={};K8S_POD_NAME={};K8S_POD_INFRA_CONTAINER_ID={};K8S_POD_UID={}",
            pod.namespace, pod.name, id.0, pod.uid
        );
        let mut program = Command::new(self.programs.join(kind));
        program.env("CNI_COMMAND", command).env("CNI_CONTAINERID", &id.0).env("CNI_IFNAME", INTERFACE);
        program.env("CNI_NETNS", netns).env("CNI_PATH", &self.programs).env("CNI_ARGS", arguments);
        let answered = exchange(program, configuration.to_string()).await;
        let (succeeded, answer) = answered.map_err(io(format!("CNI plugin {kind}, {command}")))?;
        if succeeded {
            return Ok(answer);
        }
        let text = |field: &str| answer[field].as_str().unwrap_or_default().to_owned();
        Err(NetworkError::Config(format!(
            "CNI plugin {kind}, {command}: {} {}",
            text("msg"),
            text("details")
        )))
    }
}

/// Runs a plugin: whether it succeeded, and what it answered.
async fn exchange(mut program: Command, configuration: String) -> std::io::Result<(bool, Value)> {
    let piped = program.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).kill_on_drop(true);
    let mut child = piped.spawn()?;
    if let Some(mut input) = child.stdin.take() {
        input.write_all(configuration.as_bytes()).await?;
    }
    let output = child.wait_with_output().await?;
    let answer = serde_json::from_slice(&output.stdout).unwrap_or_default();
    Ok((output.status.success(), answer))
}

fn raise_loopback() -> Result<(), NetworkError> {
    let raise = || {
        let mut socket = Socket::open(Protocol::Route)?;
        match socket.link("lo")? {
            Some(loopback) => socket.set_up(loopback.index),
            None => Ok(()),
        }
    };
    raise().map_err(doing("cannot raise the pod's loopback"))
}

fn addresses(result: &Value) -> Vec<IpAddr> {
    let ips = result["ips"].as_array().into_iter().flatten();
    ips.filter_map(|ip| ip["address"].as_str()?.parse::<IpNet>().ok()).map(|network| network.addr()).collect()
}

fn failed(what: String) -> impl FnOnce(NetworkError) -> RuntimeError {
    move |error| RuntimeError::Other { what, cause: error.to_string() }
}

#[async_trait]
impl SandboxNetwork for Cni {
    async fn attach(
        &self,
        id: &SandboxId,
        pod: &PodIdentity,
        netns: &Path,
    ) -> Result<Vec<IpAddr>, RuntimeError> {
        if let Ok(text) = std::fs::read_to_string(self.record(id)) {
            let record: Value = serde_json::from_str(&text).unwrap_or_default();
            return Ok(addresses(&record["result"]));
        }
        let what = format!("network of pod {}/{}", pod.namespace, pod.name);
        self.add(id, pod, netns).await.map_err(failed(what))
    }

    async fn detach(&self, id: &SandboxId, _netns: &Path) -> Result<(), RuntimeError> {
        self.remove(id).await.map_err(failed(format!("network of sandbox {}", id.0)))
    }

    async fn adopt(&self, alive: &[(SandboxId, PathBuf, Vec<IpAddr>)]) -> Result<(), RuntimeError> {
        let Ok(entries) = std::fs::read_dir(&self.results) else { return Ok(()) };
        let kept = entries.filter_map(|entry| entry.ok()?.path().file_stem()?.to_str().map(str::to_owned));
        for id in kept.filter(|id| !alive.iter().any(|(alive, ..)| alive.0 == *id)).map(SandboxId) {
            if let Err(error) = self.remove(&id).await {
                tracing::warn!(sandbox = id.0, %error, "the network of a pod that is gone stays");
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    /// Notes what it was called with and answers as a plugin does.
    const PLUGIN: &str = r#"#!/bin/sh
input=$(cat)
echo "$CNI_COMMAND $CNI_IFNAME $CNI_ARGS $input" >> "$(dirname "$0")/log"
if [ "$CNI_COMMAND" = ADD ]; then
  echo '{"cniVersion":"1.0.0","ips":[{"address":"10.9.0.7/24"},{"address":"fd00:9::7/64"}]}'
fi
"#;
    const BROKEN: &str =
        "#!/bin/sh\ncat > /dev/null\necho '{\"code\":7,\"msg\":\"no\",\"details\":\"way\"}'\nexit 1\n";

    fn install(directory: &Path, name: &str, script: &str) {
        std::fs::write(directory.join(name), script).unwrap();
        std::fs::set_permissions(directory.join(name), PermissionsExt::from_mode(0o755)).unwrap();
    }

    fn pod() -> PodIdentity {
        PodIdentity { namespace: "d".into(), name: "web".into(), uid: "u".into() }
    }

    #[tokio::test]
    async fn a_chain_is_called_in_order_and_backwards_with_what_it_said() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path();
        install(path, "first", PLUGIN);
        install(path, "second", PLUGIN);
        let list =
            r#"{"cniVersion":"1.0.0","name":"net","plugins":[{"type":"first","a":1},{"type":"second"}]}"#;
        std::fs::write(path.join("10-net.conflist"), list).unwrap();
        let cni = Cni::find(path, path, &path.join("results")).unwrap().unwrap();
        let (id, netns) = (SandboxId("ab".into()), Path::new("/proc/self/ns/net"));
        let result = cni.call("ADD", &cni.plugins[0], &Value::Null, &id, &pod(), netns).await.unwrap();
        assert_eq!(addresses(&result), ["10.9.0.7".parse::<IpAddr>().unwrap(), "fd00:9::7".parse().unwrap()]);
        std::fs::create_dir_all(path.join("results")).unwrap();
        let record = json!({"pod": pod(), "netns": netns, "result": result});
        std::fs::write(cni.record(&id), record.to_string()).unwrap();
        assert_eq!(cni.attach(&id, &pod(), netns).await.unwrap().len(), 2, "a second time nothing is called");
        cni.adopt(&[]).await.unwrap();
        let log = std::fs::read_to_string(path.join("log")).unwrap();
        let lines: Vec<&str> = log.lines().collect();
        assert_eq!(lines.len(), 3, "{log}");
        assert!(
            lines[0].starts_with("ADD eth0 IgnoreUnknown=1;K8S_POD_NAMESPACE=d;K8S_POD_NAME=web;"),
            "{log}"
        );
        assert!(lines[0].contains(r#""a":1"#) && lines[0].contains(r#""name":"net""#), "{log}");
        assert!(lines[1].starts_with("DEL") && lines[1].contains(r#""type":"second""#), "{log}");
        assert!(lines[2].contains(r#""type":"first""#) && lines[2].contains("prevResult"), "{log}");
        assert!(!cni.record(&id).exists());
    }

    #[tokio::test]
    async fn what_is_missing_or_refused_is_said() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path();
        assert!(Cni::find(path, path, path).unwrap().is_none());
        let single = r#"{"name":"net","type":"broken"}"#;
        std::fs::write(path.join("20-net.conf"), single).unwrap();
        let missing = Cni::find(path, path, path).unwrap_err().to_string();
        assert!(missing.contains("20-net.conf: there is no plugin \"broken\""), "{missing}");
        install(path, "broken", BROKEN);
        let cni = Cni::find(path, path, path).unwrap().unwrap();
        let called =
            cni.call("ADD", &cni.plugins[0], &Value::Null, &SandboxId("a".into()), &pod(), path).await;
        assert!(called.unwrap_err().to_string().ends_with("CNI plugin broken, ADD: no way"));
    }
}
