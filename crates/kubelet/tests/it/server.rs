//! The kubelet's server over loopback, with a certificate that nobody checks and a bearer token that one user has.

use std::sync::Arc;

use async_trait::async_trait;
use auth::{Attributes, AuthenticationError, Authenticator, Authorizer, Credentials, Decision, User};
use kubelet::ServerConfig;
use kubelet::probes::{Counts, Prober, http, tls};
use std::time::Duration;

use super::*;

struct Doors;

#[async_trait]
impl Authenticator for Doors {
    async fn authenticate(&self, credentials: &Credentials<'_>) -> Result<Option<User>, AuthenticationError> {
        match credentials.bearer {
            Some("admin") => Ok(Some(User::new("admin", &[]))),
            Some(_) => Err(AuthenticationError("wrong token".into())),
            None => Ok(None),
        }
    }
}

impl Authorizer for Doors {
    fn authorize(&self, attributes: &Attributes) -> Decision {
        if attributes.user.name == "admin" && attributes.resource == "nodes" && attributes.name == "n1" {
            Decision::Allow(String::new())
        } else {
            Decision::NoOpinion(String::new())
        }
    }
}

struct Served {
    node: Node,
    port: u16,
}

impl Served {
    async fn new() -> Self {
        Self::configured(|_| {}).await
    }

    async fn configured(adjust: impl FnOnce(&mut kubelet::Config)) -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let doors = Arc::new(Doors);
        let tls = server_tls();
        let server = ServerConfig { listener, tls, authenticator: doors.clone(), authorizer: doors };
        let root = tempfile::tempdir().unwrap();
        let node = Node::configured(Api::new(), Machine::new(), root, Some(server), adjust).await;
        Self { node, port }
    }

    async fn get(&self, path: &str, token: &str) -> (u16, String) {
        let prober = Prober { tls: tls::trusting().unwrap(), counts: Counts::default() };
        let request = http::Request {
            https: true,
            host: "127.0.0.1".into(),
            port: self.port,
            path: path.into(),
            headers: vec![(
                "authorization".into(),
                if token.is_empty() { String::new() } else { format!("Bearer {token}") },
            )],
        };
        match http::get(&prober, &request, Duration::from_secs(5)).await {
            http::Answer::Status { code, body } => (code, String::from_utf8(body).unwrap()),
            http::Answer::Failed(cause) => panic!("{cause}"),
        }
    }
}

fn server_tls() -> Arc<rustls::ServerConfig> {
    let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    let key = rustls_pki_types::PrivateKeyDer::Pkcs8(made.signing_key.serialize_der().into());
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![made.cert.der().clone()], key)
        .unwrap();
    Arc::new(config)
}

#[tokio::test]
async fn only_who_may_gets_in() {
    let served = Served::new().await;
    assert_eq!(served.get("/healthz", "admin").await, (200, "ok".into()));
    assert_eq!(served.get("/pods", "wrong").await, (401, "Unauthorized\n".into()));
    let (code, text) = served.get("/pods", "").await;
    assert_eq!(code, 403);
    assert_eq!(
        text,
        "Forbidden (user=system:anonymous, verb=get, resource=nodes, subresource(s)=[pods proxy])\n"
    );
    assert_eq!(served.get("/nothing", "admin").await.0, 404);
}

#[tokio::test]
async fn a_node_among_several_of_a_machine_tells_of_its_own_share() {
    let value = |page: &str, family: &str| -> f64 {
        let line = page.lines().find_map(|line| line.strip_prefix(family)?.strip_prefix(' '));
        line.unwrap().split(' ').next().unwrap().parse().unwrap()
    };
    let served = Served::configured(|config| config.shares_machine = true).await;
    let (_, page) = served.get("/metrics/resource", "admin").await;
    let (cpu, memory) = linux::facts::own_usage().unwrap();
    // The pods have used seven seconds and a mebibyte; this process goes on using.
    let used = value(&page, "node_cpu_usage_seconds_total");
    assert!((7.0..=7.0 + cpu as f64 / 1e9).contains(&used), "{used}");
    let held = value(&page, "node_memory_working_set_bytes") as u64;
    assert!(held > 1 << 20 && held < 2 * memory + (1 << 20), "{held} of {memory}");
    let (_, summary) = served.get("/stats/summary", "admin").await;
    let summary: Value = serde_json::from_str(&summary).unwrap();
    assert!(summary["node"]["cpu"]["usageCoreNanoSeconds"].as_u64().unwrap() >= 7_000_000_000);
}

#[tokio::test]
async fn logs_and_numbers() {
    let served = Served::new().await;
    served.node.pod("web", simple());
    served.node.ready("web").await;
    assert_eq!(served.get("/containerLogs/default/web/a", "admin").await, (200, "hello\n".into()));
    assert_eq!(
        served.get("/containerLogs/default/web/b", "admin").await,
        (404, "container \"b\" not found in pod \"web\"\n".into())
    );
    assert_eq!(
        served.get("/containerLogs/default/web/a?previous=true", "admin").await,
        (400, "previous terminated container \"a\" in pod \"web\" not found\n".into())
    );
    assert_eq!(served.get("/containerLogs/default/no/a", "admin").await.0, 404);
    let (_, summary) = served.get("/stats/summary", "admin").await;
    let summary: Value = serde_json::from_str(&summary).unwrap();
    assert_eq!(summary["pods"][0]["podRef"]["name"], "web");
    assert_eq!(summary["pods"][0]["containers"][0]["memory"]["workingSetBytes"], 4096);
    assert_eq!(summary["pods"][0]["containers"][0]["rootfs"]["usedBytes"], 512);
    let looked =
        || served.node.machine.calls.lock().iter().filter(|call| *call == "look at the layer").count();
    let looks = looked();
    let (_, metrics) = served.get("/metrics/resource", "admin").await;
    assert_eq!(looked(), looks, "no file is looked at for processor time and memory");
    assert!(
        metrics.contains(
            "container_cpu_usage_seconds_total{container=\"a\",namespace=\"default\",pod=\"web\"} 1.5 "
        ),
        "{metrics}"
    );
    for family in
        ["node_cpu_usage_seconds_total ", "container_start_time_seconds{", "pod_memory_working_set_bytes{"]
    {
        assert!(metrics.contains(&format!("\n{family}")), "{family}: {metrics}");
    }
    assert_eq!(
        served.get("/exec/default/web/a?command=x&output=1", "admin").await.0,
        400,
        "an upgrade is required"
    );
}
