//! ConfigMaps and Secrets: data by key, at most 1 MiB of it.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;
use machinery::{FieldError, Object};
use serde_json::Value;

use crate::check::Errors;
use crate::value::{Access, Fill};
use crate::{Context, Strategy, names, row};

const SIZE_MAX: usize = 1024 * 1024;
const IMMUTABLE: &str = "field is immutable when `immutable` is set";
const ACCOUNT_NAME: &str = "kubernetes.io/service-account.name";

pub struct ConfigMaps;

impl Strategy for ConfigMaps {
    fn prepare_create(&self, _context: &Context, _object: &mut Value) {}

    fn validate_create(&self, object: &Value) -> Vec<FieldError> {
        let mut errors = Errors::new();
        let mut size = 0;
        for (key, value) in object.members("/data") {
            is_key(&mut errors, &format!("data[{key}]"), key);
            if object.at("/binaryData").get(key).is_some() {
                let detail = format!("duplicate of key present in {}", "binaryData");
                errors.invalid(format!("data[{key}]"), key, detail);
            }
            size += value.as_str().unwrap_or_default().len();
        }
        for (key, value) in object.members("/binaryData") {
            is_key(&mut errors, &format!("binaryData[{key}]"), key);
            size += decoded_length(value);
        }
        if size > SIZE_MAX {
            errors.push(FieldError::too_long("", SIZE_MAX));
        }
        errors.into_vec()
    }

    fn validate_update(&self, new: &Value, old: &Value) -> Vec<FieldError> {
        let mut errors = Errors::new();
        frozen(&mut errors, new, old, &["data", "binaryData"]);
        errors.extend(self.validate_create(new));
        errors.into_vec()
    }

    fn cells(&self, now: Timestamp, object: &Value) -> Vec<Value> {
        let count = object.members("/data").count() + object.members("/binaryData").count();
        vec![row::name(object), count.to_string().into(), row::created(now, object)]
    }
}

/// An empty key is as wrong as one of wrong letters.
fn is_key(errors: &mut Errors, path: &str, key: &str) {
    if let Err(detail) = names::config_key(key) {
        errors.invalid(path, key, detail);
    }
}

/// What an object marked `immutable` refuses.
fn frozen(errors: &mut Errors, new: &Value, old: &Value, fields: &[&str]) {
    if !old.flag("/immutable") {
        return;
    }
    if !new.flag("/immutable") {
        errors.forbidden("immutable", IMMUTABLE);
    }
    for field in fields {
        let pointer = format!("/{field}");
        if new.at(&pointer) != old.at(&pointer) {
            errors.forbidden(*field, IMMUTABLE);
        }
    }
}

fn decoded_length(value: &Value) -> usize {
    value.as_str().unwrap_or_default().trim_end_matches('=').len() * 3 / 4
}

pub struct Secrets;

/// Types and the keys that they need.
const REQUIRED_KEYS: [(&str, &[&str]); 5] = [
    ("kubernetes.io/dockercfg", &[".dockercfg"]),
    ("kubernetes.io/dockerconfigjson", &[".dockerconfigjson"]),
    ("kubernetes.io/ssh-auth", &["ssh-privatekey"]),
    ("kubernetes.io/tls", &["tls.crt", "tls.key"]),
    ("bootstrap.kubernetes.io/token", &[]),
];

impl Strategy for Secrets {
    fn default(&self, object: &mut Value) {
        object.default_zero("type", "Opaque");
        let Some(Value::Object(texts)) = object.unset("stringData") else { return };
        for (key, value) in texts {
            let encoded = STANDARD.encode(value.as_str().unwrap_or_default());
            object.child("data").set(&key, encoded);
        }
    }

    fn prepare_create(&self, _context: &Context, _object: &mut Value) {}

    fn validate_create(&self, object: &Value) -> Vec<FieldError> {
        let mut errors = Errors::new();
        let mut size = 0;
        for (key, value) in object.members("/data") {
            is_key(&mut errors, &format!("data[{key}]"), key);
            size += decoded_length(value);
        }
        if size > SIZE_MAX {
            errors.push(FieldError::too_long("data", SIZE_MAX));
        }
        keys_of_type(&mut errors, object);
        errors.into_vec()
    }

    fn validate_update(&self, new: &Value, old: &Value) -> Vec<FieldError> {
        let mut errors = Errors::new();
        errors.immutable("type", new.at("/type"), old.at("/type"));
        frozen(&mut errors, new, old, &["data"]);
        errors.extend(self.validate_create(new));
        errors.into_vec()
    }

    fn fields(&self, object: &Object) -> Vec<(&'static str, String)> {
        let object = object.value();
        vec![("type", object.text("/type").to_owned())]
    }

    fn field_names(&self) -> &'static [&'static str] {
        &["type"]
    }

    fn cells(&self, now: Timestamp, object: &Value) -> Vec<Value> {
        let count = object.members("/data").count();
        vec![
            row::name(object),
            row::text(object, "/type", ""),
            count.to_string().into(),
            row::created(now, object),
        ]
    }
}

fn keys_of_type(errors: &mut Errors, object: &Value) {
    let kind = object.text("/type");
    if kind == "kubernetes.io/service-account-token" {
        let account = object.at("/metadata/annotations").get(ACCOUNT_NAME).and_then(Value::as_str);
        if account.is_none_or(str::is_empty) {
            errors.required(format!("metadata.annotations[{ACCOUNT_NAME}]"), "");
        }
    }
    if kind == "kubernetes.io/basic-auth" && !["username", "password"].iter().any(|key| has_key(object, key))
    {
        errors.required("data[username]", "");
        errors.required("data[password]", "");
    }
    let required = REQUIRED_KEYS.iter().find(|(known, _)| *known == kind).map_or(&[][..], |(_, keys)| keys);
    for key in required.iter().filter(|key| !has_key(object, key)) {
        errors.required(format!("data[{key}]"), "");
    }
    for key in required.iter().filter(|key| key.starts_with(".docker") && has_key(object, key)) {
        let decoded =
            STANDARD.decode(object.at("/data")[*key].as_str().unwrap_or_default()).unwrap_or_default();
        if serde_json::from_slice::<Value>(&decoded).is_err() {
            errors.invalid(format!("data[{key}]"), "<secret contents redacted>", "invalid character in JSON");
        }
    }
}

fn has_key(object: &Value, key: &str) -> bool {
    object.at("/data").get(key).is_some()
}

#[cfg(test)]
mod tests {
    use expect_test::expect;
    use serde_json::json;

    use super::*;

    fn texts(errors: Vec<FieldError>) -> String {
        errors.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
    }

    #[test]
    fn plain_text_becomes_data() {
        let mut secret = json!({"stringData": {"a": "b"}, "data": {"a": "eA==", "c": "eA=="}});
        Secrets.default(&mut secret);
        expect![[r#"{"data":{"a":"Yg==","c":"eA=="},"type":"Opaque"}"#]].assert_eq(&secret.to_string());
    }

    #[test]
    fn immutable_objects_stay() {
        let old = json!({"immutable": true, "data": {"a": "1"}});
        let new = json!({"data": {"a": "2"}});
        expect![[r#"
            immutable: Forbidden: field is immutable when `immutable` is set
            data: Forbidden: field is immutable when `immutable` is set"#]]
        .assert_eq(&texts(ConfigMaps.validate_update(&new, &old)));
        assert_eq!(texts(ConfigMaps.validate_update(&old, &old)), "");
    }

    #[test]
    fn keys_are_checked() {
        expect![[r#"data[a/b]: Invalid value: "a/b": a valid config key must consist of alphanumeric characters, '-', '_' or '.' (e.g. 'key.name',  or 'KEY_NAME',  or 'key-name', regex used for validation is '[-._a-zA-Z0-9]+')"#]]
            .assert_eq(&texts(ConfigMaps.validate_create(&json!({"data": {"a/b": ""}}))));
        expect![[r#"
            data[tls.crt]: Required value
            data[tls.key]: Required value"#]]
        .assert_eq(&texts(Secrets.validate_create(&json!({"type": "kubernetes.io/tls"}))));
    }
}
