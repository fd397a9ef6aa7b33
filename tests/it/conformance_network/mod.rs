//! `[sig-network]`: clusters of one, two and five nodes, whose pods ask each other by address, Service and name.

mod backends;
mod balancers;
mod dns;
mod endpoints;
mod nodes;
mod objects;
pub mod pods;
mod services;
mod types;

use std::fs::File;
use std::net::{SocketAddr, UdpSocket};
use std::time::Duration;

use linux::net::{Protocol, Socket, namespace};
use serde_json::{Value, json};

use crate::cluster::Cluster;
use crate::image::import_busybox;

/// A pod that answers on port 8080 with its name, and waits in between.
const SERVER: &str =
    "hostname > /tmp/hostname; httpd -p 8080 -h /tmp; trap 'exit 0' TERM; while true; do sleep 0.2; done";
const IDLE: &str = "trap 'exit 0' TERM; while true; do sleep 0.2; done";

/// The cluster with three servers of the Deployment `backend` and the pod `asker`.
pub struct Lab {
    pub cluster: Cluster,
    /// Names and addresses.
    pub backends: Vec<(String, String)>,
    /// Names and addresses.
    pub nodes: Vec<(String, String)>,
}

pub fn container(script: &str) -> Value {
    json!({"name": "main", "image": "test.local/busybox:1", "imagePullPolicy": "Never",
        "command": ["sh", "-c", script], "ports": [{"name": "http", "containerPort": 8080}]})
}

pub fn pod(name: &str, labels: Value, extra: Value, script: &str) -> Value {
    let mut spec = json!({"terminationGracePeriodSeconds": 1, "containers": [container(script)]});
    spec.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
    json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "labels": labels}, "spec": spec})
}

pub fn service(name: &str, spec: Value) -> Value {
    json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": name, "labels": {"test": name}}, "spec": spec})
}

/// The spec of a Service in front of the backends.
pub fn front(extra: Value) -> Value {
    let mut spec = json!({"selector": {"app": "backend"}, "ports": [{"port": 80, "targetPort": 8080}]});
    spec.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
    spec
}

impl Lab {
    /// On so many nodes; every one has a backend.
    pub fn new(nodes: usize) -> Self {
        Self::on(Cluster::with_nodes(nodes))
    }

    pub fn on(cluster: Cluster) -> Self {
        import_busybox(&cluster);
        let nodes = nodes(&cluster);
        let count = nodes.len().max(3);
        let spread = json!([{"maxSkew": 1, "topologyKey": "kubernetes.io/hostname", "whenUnsatisfiable": "DoNotSchedule",
            "labelSelector": {"matchLabels": {"app": "backend"}}}]);
        let deployment = json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "backend"},
            "spec": {"replicas": count, "selector": {"matchLabels": {"app": "backend"}}, "template": {
                "metadata": {"labels": {"app": "backend"}},
                "spec": {"terminationGracePeriodSeconds": 1, "topologySpreadConstraints": spread,
                    "containers": [container(SERVER)]}}}});
        cluster.feed(&["create"], &deployment.to_string());
        cluster.feed(&["create"], &pod("asker", json!({"app": "asker"}), json!({}), IDLE).to_string());
        cluster.kubectl(&["wait", "--for=condition=Ready", "pod/asker", "--timeout=90s"]);
        let backends = cluster.wait_for_pods("app=backend", count);
        Self { cluster, backends, nodes }
    }

    pub fn create(&self, object: &Value) {
        self.cluster.feed(&["create"], &object.to_string());
    }

    pub fn field(&self, of: &str, path: &str) -> String {
        self.cluster.kubectl(&["get", of, "-o", &format!("jsonpath={{{path}}}")])
    }

    pub fn delete(&self, what: &[&str]) {
        self.cluster.kubectl(&[&["delete"], what, &["--wait=false"]].concat());
    }

    /// What a script prints in the pod `asker`, also when it fails.
    pub fn ask(&self, script: &str) -> String {
        self.ask_in("asker", script)
    }

    pub fn ask_in(&self, pod: &str, script: &str) -> String {
        let output = self.cluster.try_kubectl(&["exec", pod, "--", "sh", "-c", script]);
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    }

    /// The name of the server that answers at an address or name, as `asker` sees it; empty when none does.
    pub fn who(&self, at: &str) -> String {
        self.ask(&format!("wget -q -O - http://{at}/hostname"))
    }

    pub fn until(&self, what: &str, is_so: impl Fn(&Self) -> bool) {
        self.cluster.until(what, |_| is_so(self));
    }

    /// Waits until every backend, and nobody else, answers there.
    pub fn until_all_answer(&self, at: &str) {
        self.until_all_answer_to("asker", at);
    }

    pub fn until_all_answer_to(&self, pod: &str, at: &str) {
        let script =
            format!("for i in $(seq 1 40); do timeout 5 wget -q -O - http://{at}/hostname; done | sort -u");
        let mut names: Vec<&str> = self.backends.iter().map(|(name, _)| name.as_str()).collect();
        names.sort_unstable();
        self.until(&format!("all answer {pod} at {at}"), |lab| {
            lab.ask_in(pod, &script).lines().eq(names.iter().copied())
        });
    }

    /// Runs something in the network of the pod with that address.
    pub fn inside<T: Send>(&self, address: &str, work: impl FnOnce() -> T + Send) -> T {
        let address: std::net::IpAddr = address.parse().unwrap();
        let has = |network: &File| {
            let found = namespace::within(network, || {
                let found = Socket::open(Protocol::Route).unwrap().addresses().unwrap();
                found.iter().any(|found| found.address.addr() == address)
            });
            found.unwrap_or(false)
        };
        let network = self.cluster.pod_networks().into_iter().find(has);
        let network = network.unwrap_or_else(|| panic!("no pod's network has {address}"));
        namespace::within(network, work).unwrap()
    }

    /// Does something in the network of every node, told its name.
    pub fn on_nodes(&self, work: impl Fn(&str) + Sync) {
        for (number, (name, _)) in self.nodes.iter().enumerate() {
            self.cluster.on_node(number, || work(name));
        }
    }

    /// Where a Service of the name is to be asked: by address, by name, and by node port when it has one.
    pub fn places(&self, name: &str) -> Vec<String> {
        let port = self.field(&format!("svc/{name}"), ".spec.ports[0].nodePort");
        let mut places = vec![self.field(&format!("svc/{name}"), ".spec.clusterIP"), name.to_owned()];
        let ports = self.nodes.iter().filter(|_| !port.is_empty());
        places.extend(ports.map(|(_, address)| format!("{address}:{port}")));
        places
    }

    /// Lets the pod with that address answer datagrams with a text.
    pub fn serve_udp(&self, address: &str, port: u16, answer: &str) {
        let socket = self.inside(address, || UdpSocket::bind(("0.0.0.0", port)).unwrap());
        let answer = answer.to_owned();
        std::thread::spawn(move || {
            let mut buffer = [0; 512];
            while let Ok((_, from)) = socket.recv_from(&mut buffer) {
                socket.send_to(answer.as_bytes(), from).unwrap();
            }
        });
    }
}

/// Names and addresses of the nodes, in order.
pub fn nodes(cluster: &Cluster) -> Vec<(String, String)> {
    let path = "jsonpath={range .items[*]}{.metadata.name} {.status.addresses[?(@.type=='InternalIP')].address}{'\\n'}{end}";
    let text = cluster.kubectl(&["get", "nodes", "--sort-by=.metadata.name", "-o", path]);
    let pairs = text.lines().filter_map(|line| line.split_once(' '));
    pairs.map(|(name, address)| (name.to_owned(), address.to_owned())).collect()
}

/// The answer to a datagram, from where this is called; empty when there is none.
pub fn ask_udp(to: SocketAddr) -> String {
    let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(1))).unwrap();
    let mut buffer = [0; 512];
    let answered = socket.send_to(b"hostname", to).and_then(|_| socket.recv(&mut buffer));
    answered.map(|length| String::from_utf8_lossy(&buffer[..length]).into_owned()).unwrap_or_default()
}

// nodes: 1, 2, 5
fn on_nodes(count: usize) {
    let lab = Lab::new(count);
    let start = std::time::Instant::now();
    let done = |what: &str| println!("{what}: {:.1} s", start.elapsed().as_secs_f64());
    nodes::check(&lab);
    done("nodes");
    pods::check(&lab);
    done("pods");
    dns::check(&lab);
    done("dns");
    services::check(&lab);
    done("services");
    types::check(&lab);
    done("types");
    endpoints::check(&lab);
    done("endpoints");
    objects::check(&lab);
    done("objects");
}

#[test]
fn the_network_of_one_node() {
    on_nodes(1);
}

#[test]
fn the_network_of_two_nodes() {
    on_nodes(2);
}

#[test]
fn the_network_of_five_nodes() {
    on_nodes(5);
}
