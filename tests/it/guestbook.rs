//! GuestBook on three nodes, from its manifests; images with the names that they use are made of Debian's packages.

use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::json;

use crate::cluster::Cluster;
use crate::conformance_network::nodes;
use crate::conformance_network::pods::try_fetch_path;
use crate::image::{add_program, archive, busybox_root};

const PRIMARY: &str = "registry.k8s.io/redis:e2e";
const REPLICA: &str = "gcr.io/google_samples/gb-redisslave:v1";
const FRONT: &str = "gcr.io/google-samples/gb-frontend:v5";

/// The front's contract: a value is stored at the primary and read from a replica.
const SCRIPT: &str = r#"
field() { echo "$QUERY_STRING" | tr '&' '\n' | sed -n "s/^$1=//p" | head -n 1; }
value() { httpd -d "$(field "$1" | tr '+' ' ')"; }
redis() { nc -w 3 "$1" 6379; }
printf 'Content-Type: application/json\r\n\r\n'
key=$(value key)
if [ "$(field cmd)" = set ]; then
  text=$(value value)
  printf '*3\r\n$3\r\nSET\r\n$%d\r\n%s\r\n$%d\r\n%s\r\n*1\r\n$4\r\nQUIT\r\n' ${#key} "$key" ${#text} "$text" |
    redis redis-master | grep -q OK && echo '{"message": "Updated"}'
else
  answer=$(printf '*2\r\n$3\r\nGET\r\n$%d\r\n%s\r\n*1\r\n$4\r\nQUIT\r\n' ${#key} "$key" | redis redis-replica)
  [ -z "$answer" ] || printf '{"data": "%s"}' "$(echo "$answer" | sed -n '/^\$-1/q; 2p' | tr -d '\r')"
fi
"#;

fn redis(work: &Path, name: &str, arguments: &[&str]) -> PathBuf {
    let root = work.join("root");
    busybox_root(&root);
    add_program(&root, "/usr/bin/redis-server");
    let command = [&["redis-server", "--protected-mode", "no", "--save", ""], arguments].concat();
    archive(work, name, &root, json!({"Cmd": command, "Env": ["PATH=/bin:/usr/bin"], "WorkingDir": "/tmp"}))
}

fn front(work: &Path) -> PathBuf {
    let root = work.join("root");
    busybox_root(&root);
    std::fs::create_dir_all(root.join("www")).unwrap();
    std::fs::write(root.join("www/guestbook.php"), SCRIPT).unwrap();
    std::fs::write(root.join("etc/httpd.conf"), "*.php:/bin/sh\n").unwrap();
    let command = ["httpd", "-f", "-p", "80", "-h", "/www", "-c", "/etc/httpd.conf"];
    archive(work, FRONT, &root, json!({"Cmd": command, "Env": ["PATH=/bin"]}))
}

fn import_images(cluster: &Cluster) {
    let folder = || tempfile::tempdir().unwrap();
    let (primary, replica, web) = (folder(), folder(), folder());
    cluster.import(&redis(primary.path(), PRIMARY, &[]));
    cluster.import(&redis(replica.path(), REPLICA, &["--replicaof", "redis-master", "6379"]));
    cluster.import(&front(web.path()));
}

fn store(at: &str, text: &str) -> bool {
    let path = format!("/guestbook.php?cmd=set&key=messages&value={text}");
    try_fetch_path(at, &path).is_ok_and(|answer| answer == r#"{"message": "Updated"}"#)
}

fn read(at: &str) -> String {
    let answer = try_fetch_path(at, "/guestbook.php?cmd=get&key=messages").unwrap_or_default();
    let text = answer.strip_prefix(r#"{"data": ""#).and_then(|rest| rest.strip_suffix(r#""}"#));
    text.unwrap_or_default().to_owned()
}

/// Every one of these places returns the message, several times in a row, so that each replica is asked.
fn until_everywhere(cluster: &Cluster, places: &[String], text: &str) {
    for at in places {
        cluster.until(&format!("{text:?} is at {at}"), |_| (0..6).all(|_| read(at) == text));
    }
}

fn field(cluster: &Cluster, of: &str, path: &str) -> String {
    cluster.kubectl(&["get", of, "-o", &format!("jsonpath={{{path}}}")])
}

// conformance: [sig-cli] Kubectl client Guestbook application should create and stop a working application
#[test]
fn messages_are_stored_and_returned_also_while_a_node_is_lost() {
    let cluster = Cluster::of_nodes(3, "");
    import_images(&cluster);
    let manifests = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().join("examples/guestbook");
    cluster.kubectl(&["apply", "-f", manifests.to_str().unwrap()]);
    let fronts = cluster.wait_for_pods("app=guestbook", 3);
    cluster.wait_for_pods("app=redis", 3);
    let port = field(&cluster, "svc/frontend", ".spec.ports[0].nodePort");
    let nodes = nodes(&cluster);
    let mut places: Vec<String> = fronts.iter().map(|(_, address)| format!("{address}:80")).collect();
    places.extend(nodes.iter().map(|(_, address)| format!("{address}:{port}")));
    cluster.until("the first message is stored", |_| store(&places[3], ",first%20one"));
    until_everywhere(&cluster, &places, ",first one");
    // A value that is stored by one front is returned by every other one.
    for (number, at) in places.iter().take(3).enumerate() {
        let text = format!(",from-{number}");
        assert!(store(at, &text));
        until_everywhere(&cluster, &places, &text);
    }
    cluster.kubectl(&["patch", "svc", "frontend", "-p", r#"{"spec":{"type":"LoadBalancer"}}"#]);
    let balancers: Vec<String> = nodes.iter().map(|(_, address)| format!("{address}:80")).collect();
    until_everywhere(&cluster, &balancers, ",from-2");
    through_the_api(&cluster);
    let lost = lose_a_node(&cluster, &port);
    stop(&cluster, manifests.to_str().unwrap(), &lost);
}

/// A client far away stores and reads.
fn through_the_api(cluster: &Cluster) {
    let ask = |query: &str| {
        let path = format!("/api/v1/namespaces/default/services/frontend/proxy/guestbook.php?{query}");
        String::from_utf8_lossy(&cluster.try_kubectl(&["get", "--raw", &path]).stdout).trim().to_owned()
    };
    cluster.until("a key that nobody wrote is empty", |_| ask("cmd=get&key=nobody") == r#"{"data": ""}"#);
    cluster.until("an entry is added", |_| {
        ask("cmd=set&key=entry&value=TestEntry") == r#"{"message": "Updated"}"#
    });
    cluster.until("it is returned", |_| ask("cmd=get&key=entry") == r#"{"data": "TestEntry"}"#);
}

/// Everything goes, but for pods of which a lost node cannot say that they ended.
fn stop(cluster: &Cluster, manifests: &str, lost: &str) {
    cluster.kubectl(&["delete", "--grace-period=0", "--force", "-f", manifests]);
    let elsewhere = format!("--field-selector=spec.nodeName!={lost}");
    for selector in ["app=guestbook", "app=redis"] {
        cluster.until(&format!("nothing is left of {selector}"), |cluster| {
            let get = ["get", "-l", selector, "-o", "name"];
            cluster.kubectl(&[&get[..], &["deploy,rs,svc"]].concat()).is_empty()
                && cluster.kubectl(&[&get[..], &["pods", &elsewhere]].concat()).is_empty()
        });
    }
}

/// One that has not the primary nor the control plane; its name.
fn lose_a_node(cluster: &Cluster, port: &str) -> String {
    let path = "jsonpath={.items[0].spec.nodeName}";
    let primary = cluster.kubectl(&["get", "pods", "-l", "role=master", "-o", path]);
    let lost = if primary == "node-3" { 1 } else { 2 };
    cluster.kill_node(lost);
    cluster.unplug_node(lost);
    let (name, address) = nodes(cluster).remove(lost);
    cluster.until(&format!("{name} is cut off"), |_| {
        let to = format!("{address}:{port}").parse().unwrap();
        TcpStream::connect_timeout(&to, Duration::from_millis(500)).is_err()
    });
    let left: Vec<String> =
        nodes(cluster).into_iter().filter(|node| node.0 != name).map(|node| node.1).collect();
    for (at, text) in left
        .iter()
        .flat_map(|node| [format!("{node}:{port}"), format!("{node}:80")])
        .zip(["a", "b", "c", "d"])
    {
        cluster.until(&format!("{text:?} is stored by {at}"), |_| store(&at, text));
        let places: Vec<String> = left.iter().map(|node| format!("{node}:{port}")).collect();
        until_everywhere(cluster, &places, text);
    }
    name
}
