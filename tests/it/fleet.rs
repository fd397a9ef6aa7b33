//! Several machines on one wire: `kobune server` on the first, `kobune agent` on the others.
//!
//! A machine is a network namespace with an address; the test stands beside them with an address of its own. Faults are
//! made where real ones happen: on a machine's link, in its packet filter, to its process.

use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::cluster::{Cluster, PATIENCE, binary, fetch};

/// The namespaces of one process's fleets.
static FLEETS: AtomicUsize = AtomicUsize::new(0);

/// See the module's documentation.
pub struct Fleet {
    pub machines: Vec<Machine>,
    /// The same cluster for clients.
    pub cluster: Cluster,
    token: PathBuf,
}

/// One machine; its program may run or not.
pub struct Machine {
    pub name: String,
    pub address: String,
    namespace: String,
    /// The near end of its link.
    link: String,
    data: PathBuf,
    log: PathBuf,
    child: Option<Child>,
}

fn run(line: &str) {
    let mut words = line.split(' ');
    let output = Command::new(words.next().unwrap()).args(words).output().unwrap();
    assert!(output.status.success(), "{line}: {}", String::from_utf8_lossy(&output.stderr));
}

impl Machine {
    fn new(fleet: usize, number: usize, cluster: &Cluster) -> Self {
        let name = format!("m{number}");
        let data = match number {
            1 => cluster.data(),
            _ => cluster.dir.path().join(&name),
        };
        let machine = Self {
            namespace: format!("kobune-test-{}-{fleet}-{number}", std::process::id()),
            link: format!("f{number}"),
            address: address(number),
            log: cluster.dir.path().join(format!("log-{name}")),
            data,
            name,
            child: None,
        };
        machine.connect();
        machine
    }

    fn connect(&self) {
        let Self { namespace, link, address, .. } = self;
        run(&format!("ip netns add {namespace}"));
        run(&format!("ip link add {link} type veth peer name eth0 netns {namespace}"));
        run(&format!("ip link set {link} master lan up"));
        self.ip("link set lo up");
        self.ip("link set eth0 up");
        self.ip(&format!("address add {address}/24 dev eth0"));
        self.ip("route add default via 10.45.0.1");
    }

    /// `ip ARGUMENTS` on the machine.
    pub fn ip(&self, arguments: &str) {
        run(&format!("ip -n {} {arguments}", self.namespace));
    }

    /// A program on the machine.
    pub fn command(&self, program: &str, arguments: &[&str]) -> Command {
        let mut command = Command::new("nsenter");
        command.arg(format!("--net=/run/netns/{}", self.namespace)).arg(program).args(arguments);
        command.stdin(Stdio::null());
        command
    }

    /// Starts `kobune ARGUMENTS` on the machine.
    pub fn start(&mut self, arguments: &[&str]) {
        let log = std::fs::File::options().create(true).append(true).open(&self.log).unwrap();
        let program = binary();
        let mut command = self.command(program.to_str().unwrap(), arguments);
        command.arg("--data-dir").arg(&self.data).args([
            "--node-name",
            &self.name,
            "--node-ip",
            &self.address,
        ]);
        command.stdout(log.try_clone().unwrap()).stderr(log);
        self.child = Some(command.spawn().unwrap());
    }

    /// `kill -9`, as far as the program goes; its pods are none of its processes.
    pub fn kill(&mut self) {
        let mut child = self.child.take().unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
    }

    fn interrupt(&mut self) {
        let Some(mut child) = self.child.take() else { return };
        let pid = child.id().to_string();
        Command::new("kill").args(["-INT", &pid]).status().unwrap();
        let start = Instant::now();
        while child.try_wait().unwrap().is_none() {
            if start.elapsed() > PATIENCE {
                child.kill().unwrap();
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    pub fn is_running(&mut self) -> bool {
        self.child.as_mut().is_some_and(|child| child.try_wait().unwrap().is_none())
    }

    /// Takes the machine off the wire.
    pub fn cut(&self) {
        run(&format!("ip link set {} down", self.link));
    }

    pub fn mend(&self) {
        run(&format!("ip link set {} up", self.link));
    }

    /// Loses so many of a hundred packets in each direction.
    pub fn lose(&self, percent: u32) {
        let rules = format!(
            "table inet faults {{
               chain in {{ type filter hook prerouting priority -400; iifname eth0 numgen random mod 100 < {percent} drop; }}
               chain out {{ type filter hook postrouting priority 400; oifname eth0 numgen random mod 100 < {percent} drop; }}
             }}"
        );
        let output = self.command("nft", &[&rules]).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }

    pub fn lose_no_more(&self) {
        assert!(self.command("nft", &["delete table inet faults"]).status().unwrap().success());
    }

    /// One HTTP GET from the machine; the body.
    pub fn fetch(&self, address: &str) -> Option<String> {
        let namespace = std::fs::File::open(format!("/run/netns/{}", self.namespace)).unwrap();
        let target = format!("{address}:80");
        linux::net::namespace::within(&namespace, move || fetch(&target)).unwrap().ok()
    }

    /// Whether processes of a pod run on the machines: they share their cgroups' tree.
    pub fn runs(uid: &str) -> bool {
        let name = format!("*pod{uid}");
        let found =
            Command::new("find").args(["/sys/fs/cgroup", "-maxdepth", "5", "-name", &name]).output().unwrap();
        !found.stdout.is_empty()
    }

    pub fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    fn clear(&mut self) {
        self.interrupt();
        let program = binary();
        let mut reset = self.command(program.to_str().unwrap(), &["reset", "--yes", "--data-dir"]);
        reset.arg(&self.data).stdout(Stdio::null()).stderr(Stdio::null());
        reset.status().unwrap();
        Command::new("ip").args(["netns", "delete", &self.namespace]).status().unwrap();
    }
}

fn address(number: usize) -> String {
    format!("10.45.0.{}", 10 + number)
}

impl Fleet {
    /// A server and so many agents less one, ready; a node counts as lost after `grace`.
    pub fn of(count: usize, grace: &str) -> Self {
        let mut fleet = Self::with_idle(count, grace);
        (1..count).for_each(|machine| fleet.start_agent(machine));
        fleet.until("the nodes are ready", |fleet| {
            (1..=count).all(|number| fleet.ready(&format!("m{number}")))
        });
        fleet
    }

    /// As [`Fleet::of`], but nothing runs on the machines besides the server.
    pub fn with_idle(count: usize, grace: &str) -> Self {
        // Nothing is launched here, but it has a place, and the way to use the clients.
        let cluster = Cluster::prepare("server", &[], "");
        let number = FLEETS.fetch_add(1, Ordering::Relaxed);
        for line in
            ["ip link add lan type bridge", "ip address add 10.45.0.1/24 dev lan", "ip link set lan up"]
        {
            run(line);
        }
        let machines = (1..=count).map(|machine| Machine::new(number, machine, &cluster)).collect();
        let token = cluster.dir.path().join("token");
        let mut fleet = Self { machines, cluster, token };
        fleet.start_server(grace);
        fleet.until("the server is ready", |fleet| fleet.ready("m1"));
        let token = fleet.cluster.kobune(&["token", "create"]);
        std::fs::write(&fleet.token, token.trim()).unwrap();
        fleet
    }

    pub fn start_server(&mut self, grace: &str) {
        let listen = format!("{}:6443", self.machines[0].address);
        self.machines[0].start(&["server", "--listen", &listen, "--node-monitor-grace-period", grace]);
    }

    /// Starts the agent on a machine, by its index.
    pub fn start_agent(&mut self, index: usize) {
        let token = self.token.clone();
        let url = self.url();
        self.machines[index].start(&["agent", "--server", &url, "--token-file", token.to_str().unwrap()]);
    }

    /// Runs an agent that must fail on a machine, under a name; what it says.
    pub fn agent_fails(&self, index: usize, name: &str, token: &str) -> String {
        let data = self.cluster.dir.path().join(format!("stranger-{name}"));
        let (program, url) = (binary(), self.url());
        let arguments = ["agent", "--server", &url, "--token", token, "--node-name", name];
        let mut command = self.machines[index].command(program.to_str().unwrap(), &arguments);
        let output: Output = command.arg("--data-dir").arg(&data).output().unwrap();
        assert!(output.status.code().is_some_and(|code| code > 0), "{output:?}");
        String::from_utf8_lossy(&output.stderr).into_owned()
    }

    pub fn token(&self) -> String {
        std::fs::read_to_string(&self.token).unwrap()
    }

    fn url(&self) -> String {
        format!("https://{}:6443", address(1))
    }

    pub fn node(&self, name: &str) -> Value {
        self.find(&["get", "node", name])
    }

    /// What kubectl finds; nothing when it fails.
    pub fn find(&self, arguments: &[&str]) -> Value {
        let output = self.cluster.try_kubectl(&[arguments, &["-o", "json", "--request-timeout=5s"]].concat());
        serde_json::from_slice(&output.stdout).unwrap_or_default()
    }

    pub fn ready(&self, node: &str) -> bool {
        condition(&self.node(node), "Ready")["status"] == "True"
    }

    /// The pods of a selector.
    pub fn pods(&self, selector: &str) -> Vec<Value> {
        self.find(&["get", "pods", "-l", selector])["items"].as_array().cloned().unwrap_or_default()
    }

    pub fn ready_pods(&self, selector: &str) -> Vec<Value> {
        let mut pods = self.pods(selector);
        pods.retain(|pod| {
            pod["metadata"]["deletionTimestamp"].is_null() && condition(pod, "Ready")["status"] == "True"
        });
        pods
    }

    /// Waits until something is so; fails with the logs.
    pub fn until(&self, what: &str, is_so: impl FnMut(&Self) -> bool) {
        self.within(PATIENCE, what, is_so);
    }

    pub fn within(&self, patience: Duration, what: &str, mut is_so: impl FnMut(&Self) -> bool) {
        let start = Instant::now();
        while !is_so(self) {
            if start.elapsed() > patience {
                let state = self.cluster.try_kubectl(&["get", "nodes,pods,events", "-A", "-o", "wide"]);
                panic!("not within {patience:?}: {what}\n{}", String::from_utf8_lossy(&state.stdout));
            }
            std::thread::sleep(Duration::from_millis(100));
        }
    }
}

impl Drop for Fleet {
    fn drop(&mut self) {
        if std::thread::panicking() {
            for machine in &self.machines {
                eprintln!("{}:\n{}", machine.name, machine.log());
            }
        }
        // The server last: agents say good-bye to it.
        self.machines.iter_mut().rev().for_each(Machine::clear);
    }
}

pub fn condition(object: &Value, kind: &str) -> Value {
    let all = object["status"]["conditions"].as_array();
    let found = all.into_iter().flatten().find(|condition| condition["type"] == kind);
    found.cloned().unwrap_or_default()
}

pub fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}
