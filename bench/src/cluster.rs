//! A cluster of one node, made from nothing and removed again.

use std::fs::File;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use client::{Client, Http, Kubeconfig, Target, WatchEvent, WatchOptions};
use futures::StreamExt;
use http::Method;
use serde_json::Value;

use crate::Failure;

/// How long anything may take that is waited for.
const PATIENCE: Duration = Duration::from_secs(120);
const USER_AGENT: &str = "bench";

/// Where clusters are made, and of which program.
pub struct Machine {
    program: PathBuf,
    keep: Option<PathBuf>,
    _copy: tempfile::TempDir,
}

impl Machine {
    /// Takes a copy of the program, whose name tells its processes from those of others.
    pub fn new(program: &Path, keep: Option<PathBuf>) -> Result<Self, Failure> {
        let copy = tempfile::Builder::new().prefix("kobune-bench-").tempdir()?;
        let name = format!("kobune-bench-{}", std::process::id());
        let to = copy.path().join(name);
        std::fs::copy(program, &to).map_err(|error| format!("{}: {error}", program.display()))?;
        Ok(Self { program: to, keep, _copy: copy })
    }

    /// A directory whose file system is a real disk's, as far as this machine has one.
    pub fn directory(&self) -> Result<tempfile::TempDir, Failure> {
        let mut builder = tempfile::Builder::new();
        builder.prefix("kobune-bench-").disable_cleanup(self.keep.is_some());
        Ok(match &self.keep {
            Some(dir) => builder.tempdir_in(dir)?,
            None => builder.tempdir()?,
        })
    }

    /// Starts a cluster with an empty data directory; waits for nothing.
    pub fn launch(&self) -> Result<Cluster, Failure> {
        self.launch_with(&[])
    }

    /// The same with more flags.
    pub fn launch_with(&self, flags: &[&str]) -> Result<Cluster, Failure> {
        let dir = self.directory()?;
        let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        let log = File::create(dir.path().join("log"))?;
        let mut command = Command::new(&self.program);
        command.arg("up").arg("--data-dir").arg(dir.path().join("data"));
        command.args(["--listen", &format!("127.0.0.1:{port}"), "--node-name", "bench"]).args(flags);
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        let started = Instant::now();
        let child = command.spawn()?;
        Ok(Cluster { program: self.program.clone(), child, dir, started })
    }

    /// Starts a cluster and waits until its node is ready.
    pub async fn ready(&self) -> Result<Cluster, Failure> {
        let cluster = self.launch()?;
        cluster.api_ready().await?;
        cluster.node_ready().await?;
        Ok(cluster)
    }
}

/// A running cluster; it is stopped and removed when this is dropped.
pub struct Cluster {
    program: PathBuf,
    child: Child,
    dir: tempfile::TempDir,
    pub started: Instant,
}

impl Cluster {
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    pub fn program(&self) -> &Path {
        &self.program
    }

    /// The cluster's data directory.
    pub fn data(&self) -> PathBuf {
        self.dir.path().join("data")
    }

    /// A client with a connection of its own.
    pub fn http(&self) -> Result<Http, Failure> {
        let kubeconfig = Kubeconfig::load(&self.data().join("kubeconfig"), None, USER_AGENT)?;
        Ok(Http::new(&kubeconfig.server)?)
    }

    /// Clients with a connection each.
    pub fn https(&self, count: usize) -> Result<Vec<Http>, Failure> {
        (0..count).map(|_| self.http()).collect()
    }

    /// The same, connected: shaking hands is not what is measured.
    pub async fn connected(&self, count: usize) -> Result<Vec<Http>, Failure> {
        let clients = self.https(count)?;
        for client in &clients {
            let answer = client.fetch(Method::GET, "/version", &[], Bytes::new()).await;
            answer.map_err(|status| status.to_string())?;
        }
        Ok(clients)
    }

    pub fn client(&self) -> Result<Client, Failure> {
        Ok(Client::new(Arc::new(self.http()?)))
    }

    fn patient(&self, what: &str, since: Instant) -> Result<(), Failure> {
        if since.elapsed() < PATIENCE {
            return Ok(());
        }
        let log = std::fs::read_to_string(self.dir.path().join("log")).unwrap_or_default();
        Err(format!("not within {PATIENCE:?}: {what}\n{log}").into())
    }

    /// Waits until `/readyz` says so.
    pub async fn api_ready(&self) -> Result<(), Failure> {
        let start = Instant::now();
        loop {
            let ready = match self.http() {
                Ok(http) => http.fetch(Method::GET, "/readyz", &[], Bytes::new()).await.is_ok(),
                Err(_no_kubeconfig_yet) => false,
            };
            if ready {
                return Ok(());
            }
            self.patient("the API is ready", start)?;
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }

    pub async fn node_ready(&self) -> Result<(), Failure> {
        let is_ready = |node: &Value| has_condition(node, "Ready");
        self.until(&target("", "v1", "nodes", ""), "", is_ready).await
    }

    /// Watches a collection until one of its objects is as asked. A watch that fails is begun again.
    pub async fn until(
        &self,
        target: &Target,
        fields: &str,
        is_so: impl Fn(&Value) -> bool,
    ) -> Result<(), Failure> {
        let start = Instant::now();
        let client = self.client()?;
        loop {
            let options = WatchOptions { field_selector: fields.to_owned(), ..WatchOptions::default() };
            let collection = client.target(target.clone());
            if let Ok(watching) = tokio::time::timeout(PATIENCE, collection.watch(&options)).await?
                && tokio::time::timeout(PATIENCE, seen(watching, &is_so)).await?
            {
                return Ok(());
            }
            self.patient(&format!("{} {fields}", target.resource), start)?;
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
}

async fn seen(mut watch: client::WatchStream, is_so: &impl Fn(&Value) -> bool) -> bool {
    while let Some(Ok(event)) = watch.next().await {
        if let WatchEvent::Added(object) | WatchEvent::Modified(object) = event
            && is_so(&object.value())
        {
            return true;
        }
    }
    false
}

/// Whether an object's condition is true.
pub fn has_condition(object: &Value, kind: &str) -> bool {
    let conditions = object["status"]["conditions"].as_array();
    conditions.is_some_and(|all| all.iter().any(|one| one["type"] == kind && one["status"] == "True"))
}

/// A collection.
pub fn target(group: &str, version: &str, resource: &str, namespace: &str) -> Target {
    Target {
        group: group.to_owned(),
        version: version.to_owned(),
        resource: resource.to_owned(),
        namespace: namespace.to_owned(),
        ..Target::default()
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        // An end by interrupt removes pods and links; `reset` takes care of whatever else there may be.
        let interrupted = Command::new("kill").args(["-INT", &self.child.id().to_string()]).status();
        if !interrupted.is_ok_and(|status| status.success()) || self.child.wait().is_err() {
            eprintln!("bench: the program could not be stopped");
        }
        let mut reset = Command::new(&self.program);
        reset.args(["reset", "--yes", "--data-dir"]).arg(self.data());
        if let Err(error) = reset.stdout(Stdio::null()).stderr(Stdio::null()).status() {
            eprintln!("bench: kobune reset: {error}");
        }
    }
}
