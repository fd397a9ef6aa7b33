//! Prints what the codecs cost: `cargo test --release -p machinery --test it speed -- --ignored --nocapture`.

use std::time::Instant;

use machinery::decode::{Limits, decode_json, decode_value};
use machinery::schema::builtin;
use machinery::{protobuf, yaml};
use serde_json::{Value, json};

const POD: &str = "io.k8s.api.core.v1.Pod";

/// A Pod of about five kilobytes, as deployments make them.
fn pod() -> Value {
    let container = |name: &str| {
        json!({"name": name, "image": "registry.example.com/team/service:v1.2.3", "args": ["--port=8080", "--log=info"],
            "env": (0..10).map(|n| json!({"name": format!("VARIABLE_{n}"), "value": "some value of the variable"})).collect::<Vec<_>>(),
            "ports": [{"containerPort": 8080, "name": "http"}],
            "resources": {"limits": {"cpu": "500m", "memory": "128Mi"}, "requests": {"cpu": "100m", "memory": "64Mi"}},
            "livenessProbe": {"httpGet": {"path": "/healthz", "port": "http"}, "periodSeconds": 10},
            "volumeMounts": (0..4).map(|n| json!({"name": format!("v{n}"), "mountPath": format!("/data/{n}")})).collect::<Vec<_>>()})
    };
    json!({"apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": "web-0", "namespace": "default", "labels": {"app": "web", "tier": "front"},
            "annotations": {"example.com/note": "x".repeat(200)}},
        "spec": {"containers": [container("a"), container("b"), container("c")],
            "volumes": (0..4).map(|n| json!({"name": format!("v{n}"), "emptyDir": {}})).collect::<Vec<_>>()}})
}

fn measure(what: &str, mut run: impl FnMut()) {
    run();
    let best = (0..20).map(|_| {
        let start = Instant::now();
        (0..20).for_each(|_| run());
        start.elapsed() / 20
    });
    println!("{what}: {:?}", best.min().unwrap());
}

#[test]
#[ignore = "measures, proves nothing"]
fn codecs() {
    let start = Instant::now();
    let types = builtin().names().count();
    println!("schema of {types} types: {:?}", start.elapsed());
    let bytes = pod().to_string().into_bytes();
    let start = Instant::now();
    let mut first = pod();
    decode_value(builtin(), POD, &mut first).unwrap();
    println!("first Pod: {:?}; {} bytes", start.elapsed(), bytes.len());
    let limits = Limits::default();
    measure("parse", || drop(decode_json(&bytes, &limits).unwrap()));
    measure("parse, check and default", || {
        let mut value = decode_json(&bytes, &limits).unwrap().value;
        decode_value(builtin(), POD, &mut value).unwrap();
    });
    let encoded = protobuf::encode(POD, &first).unwrap();
    measure("to protobuf", || drop(protobuf::encode(POD, &first).unwrap()));
    measure("from protobuf", || drop(protobuf::decode(POD, &encoded).unwrap()));
    measure("to YAML", || drop(yaml::from_value(&first)));
    let start = Instant::now();
    assert!(builtin().types().count() == types);
    println!("reading all types: {:?}", start.elapsed());
}
