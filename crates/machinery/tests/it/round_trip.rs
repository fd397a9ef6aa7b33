use machinery::decode::{Limits, check_types, decode_json, decode_value};
use machinery::schema::{Node, Schema, builtin};
use machinery::{protobuf, yaml};
use serde_json::{Value, json};

use crate::sample::sample;

/// The types of kinds, and those that only protobuf describes.
fn kinds() -> Vec<(&'static str, Value)> {
    let schema: &'static Schema = builtin();
    let mut all = Vec::new();
    for name in schema.names() {
        let Some(kind) = schema.kinds(name).next() else { continue };
        let mut value = sample(name);
        if value.get("apiVersion").is_some() {
            value["apiVersion"] = json!(kind.api_version());
            value["kind"] = json!(kind.kind);
        }
        all.push((name, value));
    }
    assert!(all.len() > 140, "{}", all.len());
    all
}

/// Kinds that upstream has no protobuf form of.
fn is_json_only(name: &str) -> bool {
    name.ends_with("version.Info")
}

/// Compares, and shows the first place that differs instead of all.
fn same(left: &Value, right: &Value, place: &str) {
    match (left, right) {
        (Value::Object(a), Value::Object(b)) => {
            for name in a.keys().chain(b.keys()) {
                same(&left[name], &right[name], &format!("{place}.{name}"));
            }
        }
        (Value::Array(a), Value::Array(b)) if a.len() == b.len() => {
            a.iter().zip(b).for_each(|(a, b)| same(a, b, &format!("{place}[]")));
        }
        _ => assert_eq!(left, right, "{place}"),
    }
}

#[test]
fn samples_fit_their_types() {
    for (name, value) in kinds() {
        let mut checked = value.clone();
        let unknown = check_types(builtin(), &Node::reference(name), &mut checked)
            .unwrap_or_else(|e| panic!("{name}: {e}"));
        assert_eq!(unknown, Vec::<String>::new(), "{name}");
        assert_eq!(checked, value, "{name}");
    }
}

#[test]
fn protobuf_gives_back_every_field_of_every_kind() {
    for (name, value) in kinds().into_iter().filter(|(name, _)| !is_json_only(name)) {
        let bytes = protobuf::encode(name, &value).unwrap_or_else(|e| panic!("{name}: {e}"));
        let back = protobuf::decode(name, &bytes).unwrap_or_else(|e| panic!("{name}: {e}"));
        same(&back, &value, name);
    }
}

#[test]
fn yaml_and_json_give_back_every_field_of_every_kind() {
    for (name, value) in kinds() {
        let text = yaml::from_value(&value);
        assert_eq!(
            yaml::to_values(&text).unwrap_or_else(|e| panic!("{name}: {e}\n{text}")),
            std::slice::from_ref(&value),
            "{name}"
        );
        let decoded = decode_json(value.to_string().as_bytes(), &Limits::default()).unwrap();
        assert_eq!((decoded.value, decoded.duplicate_fields.len()), (value, 0), "{name}");
    }
}

#[test]
fn an_object_is_the_same_by_json_and_by_protobuf() {
    let pod = "io.k8s.api.core.v1.Pod";
    let mut by_json = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "a", "creationTimestamp": null},
        "spec": {"hostNetwork": false, "volumes": [{"name": "v", "emptyDir": {}}], "containers": [
            {"name": "c", "image": "", "args": [], "env": [{"name": "e", "value": ""}],
             "ports": [{"containerPort": 80}], "livenessProbe": {"tcpSocket": {"port": 80}, "periodSeconds": 0}}]}});
    decode_value(builtin(), pod, &mut by_json).unwrap();
    let bytes = protobuf::encode(pod, &by_json).unwrap();
    let mut by_protobuf = protobuf::decode(pod, &bytes).unwrap();
    decode_value(builtin(), pod, &mut by_protobuf).unwrap();
    assert_eq!(by_protobuf, by_json);
    expect_test::expect![[r#"
        apiVersion: v1
        kind: Pod
        metadata:
          name: a
        spec:
          containers:
          - env:
            - name: e
            livenessProbe:
              tcpSocket:
                port: 80
            name: c
            ports:
            - containerPort: 80
              protocol: TCP
            resources: {}
          volumes:
          - emptyDir: {}
            name: v
        status: {}
    "#]]
    .assert_eq(&yaml::from_value(&by_json));
}

/// Written by hand after the wire format, with the field numbers of upstream's `generated.proto`.
#[test]
fn the_bytes_are_those_of_the_wire_format() {
    let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "a",
        "creationTimestamp": "1970-01-01T00:00:01Z", "labels": {"k": "v"}}, "spec": {}, "status": {"phase": "P"}});
    let metadata = b"\x0a\x01a\x42\x04\x08\x01\x10\x00\x5a\x06\x0a\x01k\x12\x01v";
    let mut raw = vec![0x0a, metadata.len() as u8];
    raw.extend_from_slice(metadata);
    raw.extend_from_slice(b"\x12\x00\x1a\x03\x0a\x01P");
    let mut expected = b"k8s\0\x0a\x0f\x0a\x02v1\x12\x09Namespace\x12".to_vec();
    expected.push(raw.len() as u8);
    expected.extend_from_slice(&raw);
    expected.extend_from_slice(b"\x1a\x00\x22\x00");
    assert_eq!(protobuf::encode("io.k8s.api.core.v1.Namespace", &namespace).unwrap(), expected);
}

#[test]
fn lists_and_watch_events_are_made_of_encoded_items() {
    let item = json!({"metadata": {"name": "a"}, "data": {"k": "v"}});
    let raw = protobuf::encode_message("io.k8s.api.core.v1.ConfigMap", &item).unwrap();
    let list = protobuf::encode_list(
        "v1",
        "ConfigMapList",
        &json!({"resourceVersion": "7"}),
        [raw.as_slice(), &raw],
    )
    .unwrap();
    let back = protobuf::decode("io.k8s.api.core.v1.ConfigMapList", &list).unwrap();
    let expected = json!({"apiVersion": "v1", "kind": "ConfigMapList", "metadata": {"resourceVersion": "7"}, "items": [item, item]});
    assert_eq!(back, expected);

    let object = protobuf::wrap("v1", "ConfigMap", &raw);
    let frame = protobuf::watch_frame("ADDED", &object);
    let (length, event) = frame.split_first_chunk().unwrap();
    assert_eq!(u32::from_be_bytes(*length) as usize, event.len());
    let event = protobuf::decode_message("io.k8s.apimachinery.pkg.apis.meta.v1.WatchEvent", event).unwrap();
    assert_eq!(event["type"], "ADDED");
    assert_eq!(event["object"]["kind"], "ConfigMap");
    assert_eq!(event["object"]["data"], item["data"]);
}

#[test]
fn what_has_no_protobuf_form_is_refused() {
    assert!(protobuf::encode("io.example.Widget", &json!({})).is_err());
    let error = protobuf::encode("io.k8s.api.core.v1.ConfigMap", &json!({"data": {"a": 1}})).unwrap_err();
    assert_eq!(error.to_string(), "the field \"data\" does not fit its protobuf type");
}
