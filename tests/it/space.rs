//! Many behaviours on one cluster: each has a namespace of its own and runs on a thread of its own.
//!
//! Requests go through `kubectl proxy`, so that a test needs no process per request.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::{Child, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::cluster::{Cluster, PATIENCE};

pub const BUSYBOX: &str = "test.local/busybox:1";
/// How many behaviours are looked at at the same time.
const WORKERS: usize = 16;

/// Plain HTTP to the API through `kubectl proxy`.
pub struct Rest {
    child: Child,
    address: SocketAddr,
}

/// An answer's code and body; text that is no JSON is a string.
pub type Answer = (u16, Value);

impl Rest {
    pub fn of(cluster: &Cluster) -> Self {
        let mut command = cluster.command("1.36", "kubectl");
        command.args(["proxy", "--port=0", "--disable-filter=true"]);
        let mut child =
            command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let address = line.trim().rsplit(' ').next().and_then(|text| text.parse().ok());
        Self { child, address: address.unwrap_or_else(|| panic!("kubectl proxy says {line:?}")) }
    }

    /// One request. A patch's content type follows from the body: a list is a JSON patch, a map a merge patch.
    pub fn call(&self, method: &str, path: &str, body: Option<&Value>) -> Answer {
        let kind = match (method, body) {
            ("PATCH", Some(Value::Array(_))) => "application/json-patch+json",
            ("PATCH", _) => "application/merge-patch+json",
            _ => "application/json",
        };
        let (code, text) = self.exchange(method, path, kind, body.map(Value::to_string).unwrap_or_default());
        (code, serde_json::from_str(&text).unwrap_or(Value::String(text)))
    }

    fn exchange(&self, method: &str, path: &str, kind: &str, body: String) -> (u16, String) {
        let mut stream = TcpStream::connect(self.address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        // HTTP/1.0, so that the end of the answer is the end of the connection.
        write!(
            stream,
            "{method} {path} HTTP/1.0\r\nHost: localhost\r\nAccept: application/json, */*\r\nContent-Type: {kind}\r\n\
             Content-Length: {}\r\n\r\n{body}",
            body.len()
        )
        .unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).unwrap();
        let answer = String::from_utf8_lossy(&answer).into_owned();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
        let code = head.split(' ').nth(1).and_then(|code| code.parse().ok());
        (code.unwrap_or_else(|| panic!("{method} {path}: {answer:?}")), body.to_owned())
    }

    /// A request that must succeed; the object.
    pub fn ok(&self, method: &str, path: &str, body: Option<&Value>) -> Value {
        let (code, value) = self.call(method, path, body);
        assert!((200..300).contains(&code), "{method} {path}: {code} {value}");
        value
    }

    pub fn get(&self, path: &str) -> Value {
        self.ok("GET", path, None)
    }

    /// A strategic merge patch.
    pub fn strategic(&self, path: &str, patch: &Value) -> Answer {
        let kind = "application/strategic-merge-patch+json";
        let (code, text) = self.exchange("PATCH", path, kind, patch.to_string());
        (code, serde_json::from_str(&text).unwrap_or(Value::String(text)))
    }

    /// The events of a watch that ends by itself.
    pub fn lines(&self, path: &str) -> Vec<Value> {
        let (code, text) = self.exchange("GET", path, "", String::new());
        assert_eq!(code, 200, "{text}");
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    /// What a server sends over a WebSocket until it closes it (or nothing comes for a while): its messages.
    pub fn websocket(&self, path: &str, protocol: &str) -> Vec<Vec<u8>> {
        let mut stream = TcpStream::connect(self.address).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(3))).unwrap();
        write!(
            stream,
            "GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\
             Sec-WebSocket-Protocol: {protocol}\r\n\r\n"
        )
        .unwrap();
        let mut reader = BufReader::new(stream);
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            assert!(reader.read_line(&mut head).unwrap() > 0, "{head}");
        }
        assert!(head.starts_with("HTTP/1.1 101") && head.contains(protocol), "{head}");
        std::iter::from_fn(|| message(&mut reader)).collect()
    }
}

/// One unmasked message; none at the end.
fn message(reader: &mut impl Read) -> Option<Vec<u8>> {
    let mut head = [0; 2];
    reader.read_exact(&mut head).ok()?;
    let length = match head[1] & 0x7f {
        126 => {
            let mut length = [0; 2];
            reader.read_exact(&mut length).ok()?;
            usize::from(u16::from_be_bytes(length))
        }
        127 => panic!("a message too long for a test"),
        length => usize::from(length),
    };
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    // Opcode 8 closes.
    (head[0] & 0x0f != 8).then_some(body)
}

impl Drop for Rest {
    fn drop(&mut self) {
        // It may have ended by itself already.
        let _ended = self.child.kill();
        let _reaped = self.child.wait();
    }
}

/// A behaviour's own namespace.
pub struct Space<'a> {
    pub cluster: &'a Cluster,
    pub rest: &'a Rest,
    pub name: String,
}

/// A container that runs a shell script.
pub fn shell(name: &str, script: &str) -> Value {
    json!({"name": name, "image": BUSYBOX, "imagePullPolicy": "IfNotPresent", "command": ["sh", "-c", script]})
}

/// `target` with the fields of `more`.
pub fn with(mut target: Value, more: Value) -> Value {
    for (key, value) in more.as_object().unwrap() {
        target[key] = value.clone();
    }
    target
}

/// A script that ends as soon as it is told to.
pub const IDLE: &str = "trap 'exit 0' TERM; while true; do sleep 0.2; done";

pub fn condition<'a>(object: &'a Value, type_: &str) -> &'a str {
    let all = object["status"]["conditions"].as_array();
    let found = all.into_iter().flatten().find(|condition| condition["type"] == type_);
    found.and_then(|condition| condition["status"].as_str()).unwrap_or("")
}

/// The status of a container of any kind.
pub fn container<'a>(pod: &'a Value, name: &str) -> &'a Value {
    let lists = ["containerStatuses", "initContainerStatuses", "ephemeralContainerStatuses"];
    let all = lists.iter().filter_map(|list| pod["status"][list].as_array()).flatten();
    all.into_iter().find(|status| status["name"] == name).unwrap_or(&Value::Null)
}

impl<'a> Space<'a> {
    pub fn new(cluster: &'a Cluster, rest: &'a Rest, name: &str) -> Self {
        let name = name.replace('_', "-").chars().take(50).collect::<String>();
        let name = name.trim_end_matches('-').to_owned();
        let body = json!({"metadata": {"name": name}});
        rest.ok("POST", "/api/v1/namespaces", Some(&body));
        let space = Self { cluster, rest, name };
        space.wait("its service account", || {
            let path = space.path("serviceaccounts/default");
            (space.rest.call("GET", &path, None).0 == 200).then_some(())
        });
        space
    }

    /// `pods/x` → `/api/v1/namespaces/NS/pods/x`; `apps/v1:deployments` → `/apis/apps/v1/namespaces/NS/deployments`.
    pub fn path(&self, resource: &str) -> String {
        match resource.split_once(':') {
            Some((version, rest)) => format!("/apis/{version}/namespaces/{}/{rest}", self.name),
            None => format!("/api/v1/namespaces/{}/{resource}", self.name),
        }
    }

    pub fn create(&self, resource: &str, body: &Value) -> Value {
        self.rest.ok("POST", &self.path(resource), Some(body))
    }

    pub fn get(&self, resource: &str) -> Value {
        self.rest.get(&self.path(resource))
    }

    pub fn patch(&self, resource: &str, body: &Value) -> Value {
        self.rest.ok("PATCH", &self.path(resource), Some(body))
    }

    pub fn delete(&self, resource: &str) -> Value {
        self.rest.ok("DELETE", &self.path(resource), None)
    }

    /// Asks until there is an answer.
    pub fn wait<T>(&self, what: &str, mut answer: impl FnMut() -> Option<T>) -> T {
        let start = Instant::now();
        loop {
            if let Some(answer) = answer() {
                return answer;
            }
            assert!(start.elapsed() < PATIENCE, "{}: not within {PATIENCE:?}: {what}", self.name);
            std::thread::sleep(Duration::from_millis(200));
        }
    }

    /// Creates a pod of these fields of its specification; it is not restarted and ends quickly unless they say so.
    pub fn pod(&self, name: &str, spec: Value) -> Value {
        self.pod_with(name, json!({}), spec)
    }

    pub fn pod_with(&self, name: &str, metadata: Value, spec: Value) -> Value {
        let base = json!({"restartPolicy": "Never", "terminationGracePeriodSeconds": 1});
        let body = json!({"metadata": with(metadata, json!({"name": name})), "spec": with(base, spec)});
        self.create("pods", &body)
    }

    /// Waits until the pod is as asked.
    pub fn until(&self, pod: &str, what: &str, is_so: impl Fn(&Value) -> bool) -> Value {
        let last = std::cell::RefCell::new(Value::Null);
        let found = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            self.wait(&format!("pod {pod} {what}"), || {
                let (code, object) = self.rest.call("GET", &self.path(&format!("pods/{pod}")), None);
                last.replace(object.clone());
                (code == 200 && is_so(&object)).then_some(object)
            })
        }));
        found.unwrap_or_else(|_| panic!("{}: pod {pod} not {what}: {}", self.name, last.borrow()["status"]))
    }

    pub fn running(&self, pod: &str) -> Value {
        self.until(pod, "running", |pod| pod["status"]["phase"] == "Running")
    }

    pub fn ready(&self, pod: &str) -> Value {
        self.until(pod, "ready", |pod| condition(pod, "Ready") == "True")
    }

    /// Waits until the pod succeeded.
    pub fn succeeded(&self, pod: &str) -> Value {
        let is_over = |pod: &Value| matches!(pod["status"]["phase"].as_str(), Some("Succeeded" | "Failed"));
        let ended = self.until(pod, "over", is_over);
        let phase = &ended["status"]["phase"];
        assert_eq!(phase, "Succeeded", "{}: {}\n{}", self.name, ended["status"], self.logs(pod, ""));
        ended
    }

    /// The log of a container (of the only one if it is not named).
    pub fn logs(&self, pod: &str, container: &str) -> String {
        let query = if container.is_empty() { String::new() } else { format!("?container={container}") };
        let path = self.path(&format!("pods/{pod}/log{query}"));
        let (code, text) = self.rest.exchange("GET", &path, "", String::new());
        if code == 200 { text } else { format!("<no log: {code} {text}>") }
    }

    /// Runs a pod of one script to its successful end; what it printed.
    pub fn output(&self, name: &str, spec: Value) -> String {
        self.pod(name, spec);
        self.succeeded(name);
        self.logs(name, "")
    }

    /// Runs a command in a container; what it printed.
    pub fn exec(&self, pod: &str, container: &str, command: &[&str]) -> String {
        let space = format!("--namespace={}", self.name);
        let container = format!("--container={container}");
        self.cluster.kubectl(&[&["exec", &space, pod, &container, "--"], command].concat())
    }

    /// Waits until the container's log has all of `wanted`.
    pub fn logged(&self, pod: &str, container: &str, wanted: &[&str]) -> String {
        let last = std::cell::RefCell::new(String::new());
        let start = Instant::now();
        loop {
            last.replace(self.logs(pod, container));
            if wanted.iter().all(|text| last.borrow().contains(text)) {
                return last.into_inner();
            }
            assert!(start.elapsed() < PATIENCE, "{}: no {wanted:?} in {}", self.name, last.borrow());
            std::thread::sleep(Duration::from_millis(300));
        }
    }

    /// Messages of the pod's events with this reason.
    pub fn events(&self, pod: &str, reason: &str) -> Vec<String> {
        let list = self.get(&format!("events?fieldSelector=involvedObject.name={pod},reason={reason}"));
        let items = list["items"].as_array().unwrap().iter();
        items.map(|event| event["message"].as_str().unwrap_or_default().to_owned()).collect()
    }
}

/// A behaviour's name and the function that shows it.
pub type Behaviour = (&'static str, fn(&Space<'_>));

/// Names functions by themselves.
#[macro_export]
macro_rules! behaviours {
    ($($(#[$meta:meta])* $name:path),* $(,)?) => { [$((stringify!($name), $name as fn(&$crate::space::Space<'_>))),*] };
}

/// Looks at all behaviours, many at a time, and fails with everything that was wrong.
pub fn show(cluster: &Cluster, behaviours: &[Behaviour]) {
    let rest = Rest::of(cluster);
    let only = std::env::var("KOBUNE_BEHAVIOUR").unwrap_or_default();
    let chosen: Vec<_> = behaviours.iter().filter(|(name, _)| name.contains(&only)).collect();
    let next = AtomicUsize::new(0);
    let failed = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..WORKERS {
            scope.spawn(|| {
                while let Some((name, behaviour)) = chosen.get(next.fetch_add(1, Ordering::Relaxed)) {
                    if let Err(message) = attempt(cluster, &rest, name, *behaviour) {
                        let mut failed = failed.lock().unwrap_or_else(PoisonError::into_inner);
                        failed.push(format!("{name}: {message}"));
                    }
                }
            });
        }
    });
    let failed = failed.into_inner().unwrap();
    assert!(failed.is_empty(), "{} of {} failed:\n\n{}", failed.len(), chosen.len(), failed.join("\n\n"));
}

fn attempt(cluster: &Cluster, rest: &Rest, name: &str, behaviour: fn(&Space<'_>)) -> Result<(), String> {
    let start = Instant::now();
    let label = name.replace(' ', "").replace("::", "-");
    let done = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        let space = Space::new(cluster, rest, &label);
        behaviour(&space);
        // Its pods make room for others.
        rest.ok("DELETE", &format!("/api/v1/namespaces/{}", space.name), None);
    }));
    println!("{label}: {:.1} s", start.elapsed().as_secs_f64());
    done.map_err(|panic| {
        let text = panic.downcast_ref::<String>().cloned();
        text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned())).unwrap_or_default()
    })
}
