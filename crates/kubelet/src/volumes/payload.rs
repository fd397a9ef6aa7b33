//! The files of config map, secret, downward API and projected volumes, as values.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{
    DownwardAPIVolumeFile, KeyToPath, Pod, ProjectedVolumeSource, ServiceAccountTokenProjection, Volume,
};

use crate::make::environment::{Lookup, config_map_data, find_container, secret_data};
use crate::make::field::{Surroundings, field_value, resource_value};

const DEFAULT_MODE: u32 = 0o644;

/// One file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct File {
    pub bytes: Vec<u8>,
    pub mode: u32,
}

/// Relative path → file.
pub type Payload = BTreeMap<String, File>;

/// What payloads are made of.
pub struct Sources<'a> {
    pub pod: &'a Pod,
    pub lookup: &'a dyn Lookup,
    pub around: &'a Surroundings,
    /// Tokens by audience, seconds and path, requested beforehand.
    pub tokens: &'a BTreeMap<TokenKey, String>,
}

/// Identifies a projected token within a pod.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct TokenKey {
    pub audience: String,
    pub expiration_seconds: i64,
}

impl TokenKey {
    pub fn of(projection: &ServiceAccountTokenProjection) -> Self {
        Self {
            audience: projection.audience.clone().unwrap_or_default(),
            expiration_seconds: projection.expiration_seconds.unwrap_or(3600),
        }
    }
}

/// The tokens that a pod's volumes want.
pub fn wanted_tokens(pod: &Pod) -> Vec<TokenKey> {
    let volumes = pod.spec.iter().flat_map(|spec| spec.volumes.iter().flatten());
    let sources =
        volumes.filter_map(|volume| volume.projected.as_ref()).flat_map(|p| p.sources.iter().flatten());
    let mut keys: Vec<_> =
        sources.filter_map(|s| s.service_account_token.as_ref()).map(TokenKey::of).collect();
    keys.sort();
    keys.dedup();
    keys
}

/// The files of a volume that has files from the API; `None` for other kinds of volumes.
pub fn payload(volume: &Volume, from: &Sources<'_>) -> Option<Result<Payload, String>> {
    if let Some(source) = &volume.config_map {
        let mode = mode(source.default_mode);
        Some(config_map(from, &source.name, source.items.as_deref(), source.optional, mode))
    } else if let Some(source) = &volume.secret {
        let name = source.secret_name.as_deref().unwrap_or_default();
        Some(secret(from, name, source.items.as_deref(), source.optional, mode(source.default_mode)))
    } else if let Some(source) = &volume.downward_api {
        Some(downward(from, source.items.as_deref().unwrap_or_default(), mode(source.default_mode)))
    } else {
        volume.projected.as_ref().map(|source| projected(from, source))
    }
}

fn mode(mode: Option<i32>) -> u32 {
    mode.map_or(DEFAULT_MODE, |mode| mode as u32 & 0o777)
}

fn config_map(
    from: &Sources<'_>,
    name: &str,
    items: Option<&[KeyToPath]>,
    optional: Option<bool>,
    mode: u32,
) -> Result<Payload, String> {
    let optional = optional == Some(true);
    let data = config_map_data(from.lookup, name, optional)?;
    pick(data, items, optional, mode, "configmap references non-existent config key")
}

fn secret(
    from: &Sources<'_>,
    name: &str,
    items: Option<&[KeyToPath]>,
    optional: Option<bool>,
    mode: u32,
) -> Result<Payload, String> {
    let optional = optional == Some(true);
    let data = secret_data(from.lookup, name, optional)?;
    pick(data, items, optional, mode, "references non-existent secret key")
}

fn pick(
    mut data: BTreeMap<String, Vec<u8>>,
    items: Option<&[KeyToPath]>,
    optional: bool,
    default_mode: u32,
    missing: &str,
) -> Result<Payload, String> {
    let Some(items) = items.filter(|items| !items.is_empty()) else {
        return Ok(data.into_iter().map(|(key, bytes)| (key, File { bytes, mode: default_mode })).collect());
    };
    let mut payload = Payload::new();
    for item in items {
        let file_mode = item.mode.map_or(default_mode, |mode| mode as u32 & 0o777);
        match data.get_mut(&item.key) {
            Some(bytes) => {
                payload.insert(item.path.clone(), File { bytes: bytes.clone(), mode: file_mode });
            }
            None if optional => {}
            None => return Err(format!("{missing}: {}", item.key)),
        }
    }
    Ok(payload)
}

fn downward(
    from: &Sources<'_>,
    items: &[DownwardAPIVolumeFile],
    default_mode: u32,
) -> Result<Payload, String> {
    let mut payload = Payload::new();
    for item in items {
        let text = if let Some(field) = &item.field_ref {
            field_value(from.pod, &field.field_path, from.around)?
        } else if let Some(resource) = &item.resource_field_ref {
            let name = resource.container_name.as_deref().unwrap_or_default();
            let container =
                find_container(from.pod, name).ok_or_else(|| format!("container {name} not found"))?;
            resource_value(container, resource, from.around)?
        } else {
            String::new()
        };
        let file_mode = item.mode.map_or(default_mode, |mode| mode as u32 & 0o777);
        payload.insert(item.path.clone(), File { bytes: text.into_bytes(), mode: file_mode });
    }
    Ok(payload)
}

fn projected(from: &Sources<'_>, source: &ProjectedVolumeSource) -> Result<Payload, String> {
    let mode = mode(source.default_mode);
    let mut payload = Payload::new();
    for part in source.sources.iter().flatten() {
        let files = if let Some(part) = &part.config_map {
            config_map(from, &part.name, part.items.as_deref(), part.optional, mode)?
        } else if let Some(part) = &part.secret {
            secret(from, &part.name, part.items.as_deref(), part.optional, mode)?
        } else if let Some(part) = &part.downward_api {
            downward(from, part.items.as_deref().unwrap_or_default(), mode)?
        } else if let Some(part) = &part.service_account_token {
            token(from, part, mode)?
        } else {
            return Err("clusterTrustBundle and podCertificate projections are not supported".to_owned());
        };
        payload.extend(files);
    }
    Ok(payload)
}

fn token(from: &Sources<'_>, part: &ServiceAccountTokenProjection, mode: u32) -> Result<Payload, String> {
    let context = from.pod.spec.as_ref().and_then(|spec| spec.security_context.as_ref());
    let grouped = context.is_some_and(|context| context.fs_group.is_some());
    let value = from.tokens.get(&TokenKey::of(part)).ok_or("the service account token was not issued")?;
    let mode = if grouped { 0o600 } else { mode };
    Ok(Payload::from([(part.path.clone(), File { bytes: value.clone().into_bytes(), mode })]))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use expect_test::{Expect, expect};
    use machinery::{Object, Status};
    use serde_json::{Value, json};

    struct Fixture;

    impl Lookup for Fixture {
        fn config_map(&self, name: &str) -> Result<Option<Arc<Object>>, Status> {
            let value = json!({"metadata": {"name": name}, "data": {"a": "1"}, "binaryData": {"b": "AAE="}});
            Ok((name == "there").then(|| Arc::new(Object::from_value(&value, 1).unwrap())))
        }

        fn secret(&self, name: &str) -> Result<Option<Arc<Object>>, Status> {
            let value = json!({"metadata": {"name": name}, "data": {"p": "c2VjcmV0"}});
            Ok((name == "there").then(|| Arc::new(Object::from_value(&value, 1).unwrap())))
        }
    }

    fn check(volume: Value, expect: Expect) {
        let pod: Pod =
            serde_json::from_value(json!({"metadata": {"name": "p", "labels": {"k": "v"}}})).unwrap();
        let mut volume = volume;
        volume["name"] = json!("v");
        let volume: Volume = serde_json::from_value(volume).unwrap();
        let key = TokenKey { audience: "vault".into(), expiration_seconds: 600 };
        let from = Sources {
            pod: &pod,
            lookup: &Fixture,
            around: &Surroundings::default(),
            tokens: &BTreeMap::from([(key, "JWT".to_owned())]),
        };
        let text = match payload(&volume, &from).unwrap() {
            Ok(files) => files
                .iter()
                .map(|(path, file)| {
                    format!("{path} {:o} {:?}\n", file.mode, String::from_utf8_lossy(&file.bytes))
                })
                .collect(),
            Err(message) => format!("error: {message}\n"),
        };
        expect.assert_eq(&text);
    }

    #[test]
    fn kinds() {
        check(
            json!({"configMap": {"name": "there"}}),
            expect![[r#"
            a 644 "1"
            b 644 "\0\u{1}"
        "#]],
        );
        check(
            json!({"configMap": {"name": "there", "defaultMode": 256, "items": [{"key": "a", "path": "x/y", "mode": 511}]}}),
            expect![[r#"
                x/y 777 "1"
            "#]],
        );
        check(
            json!({"configMap": {"name": "no"}}),
            expect![[r#"
            error: configmap "no" not found
        "#]],
        );
        check(json!({"configMap": {"name": "no", "optional": true}}), expect![""]);
        check(
            json!({"secret": {"secretName": "there", "items": [{"key": "no", "path": "x"}]}}),
            expect![[r#"
            error: references non-existent secret key: no
        "#]],
        );
        check(
            json!({"projected": {"defaultMode": 288, "sources": [
                {"serviceAccountToken": {"path": "token", "audience": "vault", "expirationSeconds": 600}},
                {"configMap": {"name": "there", "items": [{"key": "a", "path": "ca.crt"}]}},
                {"downwardAPI": {"items": [{"path": "l", "fieldRef": {"fieldPath": "metadata.labels"}}]}}]}}),
            expect![[r#"
                ca.crt 440 "1"
                l 440 "k=\"v\""
                token 440 "JWT"
            "#]],
        );
    }
}
