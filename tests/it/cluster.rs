//! A cluster under test.

use std::fs::File;
use std::io::Write;
use std::net::{TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

/// How long anything may take that a test waits for.
pub const PATIENCE: Duration = Duration::from_secs(90);

/// A running `kobune`; it is interrupted and must clean up when this is dropped.
pub struct Cluster {
    child: Option<Child>,
    pub dir: tempfile::TempDir,
    pub port: u16,
    command: &'static str,
    extra: Vec<String>,
    /// The program, where it is not the one under test itself but a copy.
    pub program: PathBuf,
    data: PathBuf,
}

pub fn binary() -> PathBuf {
    let path = std::env::var_os("KOBUNE_BINARY").map(PathBuf::from);
    path.expect("KOBUNE_BINARY names the program to test; `cargo xtask test` sets it")
}

fn clients() -> PathBuf {
    let path = std::env::var_os("KOBUNE_TEST_CLIENTS").map(PathBuf::from);
    path.expect("KOBUNE_TEST_CLIENTS names the folder of kubectl and helm; `cargo xtask test` sets it")
}

/// The folder in which the Python client library is.
pub fn python_path() -> PathBuf {
    clients().join("python")
}

/// The folder in which the JavaScript client library is.
pub fn node_path() -> PathBuf {
    clients().join("node")
}

impl Cluster {
    /// `kobune up`, ready to be used.
    pub fn up() -> Self {
        Self::start("up", &[], "")
    }

    /// `kobune COMMAND` with more flags and a configuration file, on a machine of its own as far as the network goes.
    pub fn start(command: &'static str, extra: &[&str], config: &str) -> Self {
        let mut cluster = Self::prepare(command, extra, config);
        cluster.launch();
        cluster
    }

    /// As [`Cluster::start`], but nothing runs before [`Cluster::launch`].
    pub fn prepare(command: &'static str, extra: &[&str], config: &str) -> Self {
        isolate();
        let dir = tempfile::Builder::new().prefix("kobune-").tempdir().unwrap();
        std::fs::write(dir.path().join("config.yaml"), config).unwrap();
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let extra = extra.iter().map(|flag| (*flag).to_owned()).collect();
        let data = dir.path().join("data");
        Self { child: None, dir, port, command, extra, program: binary(), data }
    }

    /// Has the data directory elsewhere. Nothing may have been launched yet.
    pub fn place(&mut self, data: &Path) {
        self.data = data.to_owned();
    }

    /// Starts the program (again) on the same data and waits for the node.
    pub fn launch(&mut self) {
        self.spawn();
        self.until("the node is ready", |cluster| {
            let nodes = cluster.try_kubectl(&["get", "nodes", "--no-headers"]);
            nodes.status.success() && String::from_utf8_lossy(&nodes.stdout).contains(" Ready")
        });
    }

    /// Starts the program (again) on the same data.
    pub fn spawn(&mut self) {
        let log = std::fs::File::options().create(true).append(true).open(self.log_path()).unwrap();
        let mut command = Command::new(&self.program);
        command.arg(self.command);
        command.arg("--config").arg(self.dir.path().join("config.yaml"));
        command.arg("--data-dir").arg(self.data()).args(["--listen", &format!("127.0.0.1:{}", self.port)]);
        command.args(&self.extra).stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log);
        self.child = Some(command.spawn().unwrap());
    }

    pub fn data(&self) -> PathBuf {
        self.data.clone()
    }

    /// `kobune up --nodes COUNT` with a configuration file, when all nodes are ready.
    pub fn of_nodes(count: usize, config: &str) -> Self {
        let cluster = Self::start("up", &["--nodes", &count.to_string()], config);
        cluster.until(&format!("{count} nodes are ready"), |cluster| {
            let nodes = cluster.try_kubectl(&["get", "nodes", "--no-headers"]);
            String::from_utf8_lossy(&nodes.stdout).matches(" Ready").count() == count
        });
        cluster
    }

    /// So many nodes without any configuration; one is `kobune up`.
    pub fn with_nodes(count: usize) -> Self {
        if count == 1 { Self::up() } else { Self::of_nodes(count, "") }
    }

    /// The data directories of the nodes: one, or those of `up --nodes` in the order of the nodes.
    pub fn node_data(&self) -> Vec<PathBuf> {
        let nodes = (1..).map(|number| self.data.join(format!("nodes/node-{number}")));
        let nodes: Vec<PathBuf> = nodes.take_while(|path| path.exists()).collect();
        if nodes.is_empty() { vec![self.data()] } else { nodes }
    }

    /// The networks of all pods. A node of `up --nodes` has mounts of its own, in which the files are.
    pub fn pod_networks(&self) -> Vec<File> {
        let mounts = |number| File::open(self.data.join(format!("nodes/run/node-{number}.mounts"))).ok();
        let nodes = self.node_data().into_iter().zip(1..);
        nodes.flat_map(|(data, number)| networks(data, mounts(number))).collect()
    }

    /// Does something in the network of a node of `up --nodes`, counted from 0; that of `up` is this thread's own.
    pub fn on_node<T: Send>(&self, node: usize, work: impl FnOnce() -> T + Send) -> T {
        match std::fs::File::open(self.data.join(format!("nodes/run/node-{}", node + 1))) {
            Ok(namespace) => linux::net::namespace::within(namespace, work).unwrap(),
            Err(_) => work(),
        }
    }

    /// `kill -9` for the process of a node of `up --nodes`, counted from 0. Its pods go on.
    pub fn kill_node(&self, node: usize) {
        self.signal_node(node, "-KILL");
    }

    /// Sends a signal to the process of a node of `up --nodes`, counted from 0.
    pub fn signal_node(&self, node: usize, signal: &str) {
        let name = format!("node-{}", node + 1);
        let data = self.data.join("nodes").join(&name);
        let is_it = |pid: &u32| {
            let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            let words: Vec<&[u8]> = line.split(|byte| *byte == 0).collect();
            words.contains(&data.as_os_str().as_encoded_bytes()) && words.contains(&name.as_bytes())
        };
        let processes = std::fs::read_dir("/proc").unwrap().flatten();
        let pid = processes.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).find(is_it);
        let pid = pid.unwrap_or_else(|| panic!("no process is {name}"));
        assert!(Command::new("kill").args([signal, &pid.to_string()]).status().unwrap().success());
    }

    /// Takes a node of `up --nodes` off the bridge, counted from 0: as if its machine had lost power.
    pub fn unplug_node(&self, node: usize) {
        self.on_node(node, || {
            assert!(Command::new("ip").args(["link", "set", "eth0", "down"]).status().unwrap().success());
        });
    }

    /// Gives an archive's images to every node.
    pub fn import(&self, archive: &Path) -> String {
        let mut listed = String::new();
        for data in self.node_data() {
            let mut command = Command::new(binary());
            command.args(["image", "import"]).arg(archive).arg("--data-dir").arg(data);
            listed = self.succeed(&mut command);
        }
        listed
    }

    /// The process of the program.
    pub fn pid(&self) -> u32 {
        self.child.as_ref().unwrap().id()
    }

    pub fn kubeconfig(&self) -> PathBuf {
        self.data().join("kubeconfig")
    }

    fn log_path(&self) -> PathBuf {
        self.dir.path().join("log")
    }

    /// What the program printed.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.log_path()).unwrap_or_default()
    }

    /// Waits until something is so; fails with the program's log.
    pub fn until(&self, what: &str, mut is_so: impl FnMut(&Self) -> bool) {
        let start = Instant::now();
        while !is_so(self) {
            assert!(start.elapsed() < PATIENCE, "not within {PATIENCE:?}: {what}\n{}", self.log());
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    pub fn command(&self, version: &str, program: &str) -> Command {
        let path = clients().join(version).join(program).join(program);
        let mut command = Command::new(path);
        command.env("KUBECONFIG", self.kubeconfig()).env("HOME", self.dir.path());
        command
    }

    pub fn try_kubectl(&self, arguments: &[&str]) -> Output {
        self.command("1.36", "kubectl").args(arguments).stdin(Stdio::null()).output().unwrap()
    }

    /// Runs kubectl 1.36, which must succeed; returns what it printed.
    pub fn kubectl(&self, arguments: &[&str]) -> String {
        self.succeed(self.command("1.36", "kubectl").args(arguments).stdin(Stdio::null()))
    }

    /// Runs a kubectl that must fail; returns its errors.
    pub fn kubectl_fails(&self, arguments: &[&str]) -> String {
        let output = self.try_kubectl(arguments);
        assert!(!output.status.success(), "kubectl {arguments:?} succeeded");
        String::from_utf8_lossy(&output.stderr).into_owned()
    }

    pub fn succeed(&self, command: &mut Command) -> String {
        let output = command.output().unwrap();
        let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert!(output.status.success(), "{command:?}: {}\n{out}\n{err}\n{}", output.status, self.log());
        out.into_owned()
    }

    /// `kubectl apply -f -` (or another verb) of a manifest.
    pub fn feed(&self, arguments: &[&str], manifest: &str) -> String {
        self.feed_to("1.36", arguments, manifest)
    }

    /// As [`Cluster::feed`], with a version of kubectl.
    pub fn feed_to(&self, version: &str, arguments: &[&str], manifest: &str) -> String {
        let mut command = self.command(version, "kubectl");
        command.args(arguments).args(["-f", "-"]);
        let mut child =
            command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        child.stdin.take().unwrap().write_all(manifest.as_bytes()).unwrap();
        let output = child.wait_with_output().unwrap();
        let err = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{arguments:?}: {err}\n{manifest}\n{}", self.log());
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    pub fn json(&self, arguments: &[&str]) -> Value {
        let text = self.kubectl(&[arguments, &["-o", "json"]].concat());
        serde_json::from_str(&text).unwrap()
    }

    /// Names and addresses of the ready pods of a selector.
    pub fn ready_pods(&self, selector: &str) -> Vec<(String, String)> {
        let list = self.json(&["get", "pods", "-l", selector]);
        let is_ready = |pod: &&Value| {
            let conditions = pod["status"]["conditions"].as_array();
            pod["metadata"]["deletionTimestamp"].is_null()
                && conditions
                    .is_some_and(|all| all.iter().any(|c| c["type"] == "Ready" && c["status"] == "True"))
        };
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let pods = list["items"].as_array().unwrap().iter().filter(is_ready);
        pods.map(|pod| (text(&pod["metadata"]["name"]), text(&pod["status"]["podIP"]))).collect()
    }

    /// Waits until as many pods are ready; fails with what the API says of them.
    pub fn wait_for_pods(&self, selector: &str, count: usize) -> Vec<(String, String)> {
        let start = Instant::now();
        loop {
            let pods = self.ready_pods(selector);
            if pods.len() == count {
                return pods;
            }
            if start.elapsed() > PATIENCE {
                let all = self.kubectl(&["describe", "pods", "-l", selector]);
                panic!(
                    "not within {PATIENCE:?}: {count} pods of {selector} are ready\n{all}\n{}",
                    self.log()
                );
            }
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    /// `kobune ARGUMENTS` with this cluster's data directory.
    pub fn kobune(&self, arguments: &[&str]) -> String {
        let mut command = Command::new(binary());
        command.args(arguments).arg("--data-dir").arg(self.data());
        self.succeed(&mut command)
    }

    /// A client of the `kube` crate. Must be called inside a tokio runtime.
    pub async fn kube(&self) -> kube::Client {
        // Only the first call counts; the others find what it set.
        let _set_before = rustls::crypto::ring::default_provider().install_default();
        let kubeconfig = kube::config::Kubeconfig::read_from(self.kubeconfig()).unwrap();
        let options = kube::config::KubeConfigOptions::default();
        let config = kube::Config::from_custom_kubeconfig(kubeconfig, &options).await.unwrap();
        kube::Client::try_from(config).unwrap()
    }

    /// `kill -9`.
    pub fn kill(&mut self) {
        let mut child = self.child.take().unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
    }

    /// Interrupts the program and waits for its end; returns its exit code.
    pub fn interrupt(&mut self) -> Option<i32> {
        let mut child = self.child.take()?;
        let pid = child.id().to_string();
        Command::new("kill").args(["-INT", &pid]).status().unwrap();
        let start = Instant::now();
        loop {
            if let Some(status) = child.try_wait().unwrap() {
                return status.code();
            }
            if start.elapsed() > PATIENCE {
                child.kill().unwrap();
                child.wait().unwrap();
                return None;
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}

thread_local! {
    static ISOLATED: std::cell::Cell<bool> = const { std::cell::Cell::new(false) };
}

/// Gives the calling thread, and every process and thread it starts from now on, a network of its own (once): loopback
/// and one interface with an address and a default route, like a plain machine has. So tests do not see one another.
pub fn isolate() {
    if ISOLATED.replace(true) {
        return;
    }
    linux::namespace::unshare(&[linux::namespace::Kind::Network]).unwrap();
    linux::namespace::loopback_up().unwrap();
    for line in [
        "link add eth0 type veth peer name uplink",
        "address add 10.1.1.140/24 dev eth0",
        "link set uplink up",
        "link set eth0 up",
        "route add default via 10.1.1.1",
    ] {
        assert!(Command::new("ip").args(line.split(' ')).status().unwrap().success(), "ip {line}");
    }
}

/// The networks of the pods in a data directory, as a mount namespace shows it.
fn networks(data: PathBuf, mounts: Option<File>) -> Vec<File> {
    let looking = std::thread::spawn(move || {
        if let Some(mounts) = mounts {
            linux::namespace::enter(mounts.as_fd(), linux::namespace::Kind::Mount).unwrap();
        }
        let pods = std::fs::read_dir(data.join("run")).unwrap();
        // A pod that just ended has taken its file with it.
        pods.filter_map(|pod| File::open(pod.unwrap().path().join("net")).ok()).collect()
    });
    looking.join().unwrap()
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("{}", self.log());
        }
        self.interrupt();
        // Whatever a failed test left behind must not trouble the next one.
        let mut reset = Command::new(binary());
        reset
            .args(["reset", "--yes", "--data-dir"])
            .arg(self.data())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        reset.status().unwrap();
    }
}

/// One HTTP GET; the body.
pub fn fetch(address: &str) -> std::io::Result<String> {
    use std::io::Read;
    let target = address.parse().map_err(std::io::Error::other)?;
    let mut stream = TcpStream::connect_timeout(&target, Duration::from_secs(5))?;
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    write!(stream, "GET / HTTP/1.0\r\nHost: test\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer.split_once("\r\n\r\n").map_or("", |(_, body)| body).trim().to_owned())
}
