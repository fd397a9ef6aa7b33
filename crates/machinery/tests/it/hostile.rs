//! Whatever arrives, the answer is a value or an error: never a panic, never a runaway.

use std::sync::LazyLock;

use machinery::decode::{Limits, check_types, decode_json, decode_value};
use machinery::schema::{Node, builtin};
use machinery::{protobuf, yaml};
use proptest::prelude::*;
use serde_json::{Value, json};

use crate::sample::sample;

const POD: &str = "io.k8s.api.core.v1.Pod";
const CRD: &str = "io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.CustomResourceDefinition";

fn any_json() -> impl Strategy<Value = Value> {
    let name = prop_oneof![
        Just("metadata"),
        Just("spec"),
        Just("containers"),
        Just("env"),
        Just("creationTimestamp"),
        Just("ports"),
        Just("labels"),
        Just("resources"),
        Just("limits"),
        Just("x")
    ];
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        ".{0,6}".prop_map(Value::from)
    ];
    leaf.prop_recursive(6, 40, 5, move |inner| {
        let map = prop::collection::btree_map(name.clone().prop_map(str::to_owned), inner.clone(), 0..5);
        prop_oneof![
            prop::collection::vec(inner, 0..4).prop_map(Value::from),
            map.prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 100, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn random_messages(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        for name in [POD, CRD] {
            if let Ok(value) = protobuf::decode_message(name, &bytes) {
                prop_assert!(value.is_object());
            }
        }
        let _refused_or_read = protobuf::decode(POD, &[b"k8s\0".as_slice(), &bytes].concat());
    }

    #[test]
    fn damaged_messages(at in 0_usize..100_000, byte in any::<u8>(), cut in 0_usize..100_000) {
        static MESSAGES: LazyLock<Vec<(&str, Vec<u8>)>> = LazyLock::new(|| {
            [POD, CRD].iter().map(|name| (*name, protobuf::encode_message(name, &sample(name)).unwrap())).collect()
        });
        for (name, bytes) in MESSAGES.iter() {
            let mut bytes = bytes.clone();
            let (at, cut) = (at % bytes.len(), cut % bytes.len());
            bytes[at] = byte;
            let _refused_or_read = protobuf::decode_message(name, &bytes);
            let _refused_or_read = protobuf::decode_message(name, &bytes[..cut]);
        }
    }

    #[test]
    fn values_of_any_shape(value in any_json()) {
        let mut checked = json!({"metadata": value.clone(), "spec": value});
        if decode_value(builtin(), POD, &mut checked).is_ok() {
            // What fits the type has a protobuf form, and a second look changes nothing.
            prop_assert!(protobuf::encode(POD, &checked).is_ok(), "{}", checked);
            let before = checked.clone();
            prop_assert_eq!(check_types(builtin(), &Node::reference(POD), &mut checked), Ok(vec![]));
            let mut again = before.clone();
            decode_value(builtin(), POD, &mut again).unwrap();
            prop_assert_eq!(again, before);
        }
    }

    #[test]
    fn yaml_of_any_value(value in any_json()) {
        prop_assume!(!value.is_null());
        let text = yaml::from_value(&value);
        let mut expected = value;
        whole(&mut expected);
        prop_assert_eq!(yaml::to_values(&text), Ok(vec![expected]), "{}", text);
    }

    #[test]
    fn random_text(text in "[-a-c:\\[\\]{}&*!|>'\"%@`# \n\t0-9,?~.]{0,60}") {
        let _refused_or_read = yaml::to_values(&text);
        let _refused_or_read = decode_json(text.as_bytes(), &Limits::default());
    }
}

/// Reading YAML makes whole floats integers.
fn whole(value: &mut Value) {
    match value {
        Value::Array(items) => items.iter_mut().for_each(whole),
        Value::Object(fields) => fields.values_mut().for_each(whole),
        Value::Number(number) if number.is_f64() => {
            let float = number.as_f64().unwrap();
            if float.fract() == 0.0 && float.abs() <= 9_007_199_254_740_992.0 {
                *value = Value::from(float as i64);
            }
        }
        _ => {}
    }
}

#[test]
fn deep_nesting_is_refused() {
    let depth = 100_000;
    let json = format!("{}{}", "[".repeat(depth), "]".repeat(depth));
    assert!(decode_json(json.as_bytes(), &Limits::default()).is_err());
    assert!(yaml::to_values(&"- ".repeat(depth)).is_err());
    assert!(yaml::to_values(&json).is_err());
    let mut schema = Vec::new();
    for _ in 0..5000 {
        // `not` is field 28 of JSONSchemaProps.
        let mut outer = vec![0xe2, 0x01];
        let mut length = schema.len();
        while length >= 0x80 {
            outer.push((length & 0x7f) as u8 | 0x80);
            length >>= 7;
        }
        outer.push(length as u8);
        outer.extend_from_slice(&schema);
        schema = outer;
    }
    let name = "io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.JSONSchemaProps";
    let error = protobuf::decode_message(name, &schema).unwrap_err().to_string();
    assert_eq!(error, "malformed protobuf message: the message is nested too deeply");
}

#[test]
fn an_alias_bomb_is_refused() {
    let mut text = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
    for level in 1..12 {
        let below = format!("*a{}, ", level - 1).repeat(10);
        text.push_str(&format!("a{level}: &a{level} [{below}]\n"));
    }
    assert!(yaml::to_values(&text).is_err());
}
