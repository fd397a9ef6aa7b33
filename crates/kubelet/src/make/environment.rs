//! A container's environment: services, `envFrom`, `env`, in upstream's order and with its expansion.

use std::collections::BTreeMap;
use std::sync::Arc;

use base64::Engine;
use k8s_openapi::api::core::v1::{ConfigMap, Container, EnvFromSource, EnvVar, Pod, Secret, Service};
use machinery::{Object, Status};

use super::expansion::expand;
use super::field::{Surroundings, field_value, resource_value};

/// Finds objects that the pod refers to, in its namespace; `Ok(None)` when there is none.
pub trait Lookup: Sync {
    fn config_map(&self, name: &str) -> Result<Option<Arc<Object>>, Status>;
    fn secret(&self, name: &str) -> Result<Option<Arc<Object>>, Status>;
}

/// A list that keeps the first position of a name and its last value.
#[derive(Default)]
struct Ordered {
    entries: Vec<(String, String)>,
    index: BTreeMap<String, usize>,
}

impl Ordered {
    fn set(&mut self, name: String, value: String) {
        match self.index.get(&name) {
            Some(at) => self.entries[*at].1 = value,
            None => {
                self.index.insert(name.clone(), self.entries.len());
                self.entries.push((name, value));
            }
        }
    }

    fn get(&self, name: &str) -> Option<String> {
        self.index.get(name).map(|at| self.entries[*at].1.clone())
    }
}

/// The whole environment, or upstream's message of what is missing.
pub fn environment(
    pod: &Pod,
    container: &Container,
    services: &[Arc<Service>],
    lookup: &dyn Lookup,
    around: &Surroundings,
) -> Result<Vec<(String, String)>, String> {
    let mut result = Ordered::default();
    for source in container.env_from.iter().flatten() {
        add_source(&mut result, source, lookup)?;
    }
    let service_variables = service_environment(pod, services);
    for variable in container.env.iter().flatten() {
        let value = match &variable.value_from {
            None => expand(variable.value.as_deref().unwrap_or_default(), |name| {
                result.get(name).or_else(|| service_variables.get(name).cloned())
            }),
            Some(_) => match value_from(pod, container, variable, lookup, around)? {
                Some(value) => value,
                None => continue,
            },
        };
        result.set(variable.name.clone(), value);
    }
    for (name, value) in service_variables {
        if result.get(&name).is_none() {
            result.set(name, value);
        }
    }
    Ok(result.entries)
}

fn add_source(result: &mut Ordered, source: &EnvFromSource, lookup: &dyn Lookup) -> Result<(), String> {
    let prefix = source.prefix.as_deref().unwrap_or_default();
    let data = if let Some(from) = &source.config_map_ref {
        config_map_data(lookup, &from.name, from.optional == Some(true))?
    } else if let Some(from) = &source.secret_ref {
        secret_data(lookup, &from.name, from.optional == Some(true))?
    } else {
        BTreeMap::new()
    };
    for (key, value) in data {
        result.set(format!("{prefix}{key}"), String::from_utf8_lossy(&value).into_owned());
    }
    Ok(())
}

/// The keys of a config map with their bytes.
pub fn config_map_data(
    lookup: &dyn Lookup,
    name: &str,
    optional: bool,
) -> Result<BTreeMap<String, Vec<u8>>, String> {
    match lookup.config_map(name).map_err(|status| status.to_string())? {
        None if optional => Ok(BTreeMap::new()),
        None => Err(format!("configmap {name:?} not found")),
        Some(object) => {
            let map: Arc<ConfigMap> = client::typed(&object).map_err(|status| status.to_string())?;
            let text =
                map.data.iter().flatten().map(|(key, value)| (key.clone(), value.clone().into_bytes()));
            let binary = map.binary_data.iter().flatten().map(|(key, value)| (key.clone(), value.0.clone()));
            Ok(text.chain(binary).collect())
        }
    }
}

/// The keys of a secret with their bytes.
pub fn secret_data(
    lookup: &dyn Lookup,
    name: &str,
    optional: bool,
) -> Result<BTreeMap<String, Vec<u8>>, String> {
    match lookup.secret(name).map_err(|status| status.to_string())? {
        None if optional => Ok(BTreeMap::new()),
        None => Err(format!("secret {name:?} not found")),
        Some(object) => {
            let secret: Arc<Secret> = client::typed(&object).map_err(|status| status.to_string())?;
            Ok(secret.data.iter().flatten().map(|(key, value)| (key.clone(), value.0.clone())).collect())
        }
    }
}

fn value_from(
    pod: &Pod,
    container: &Container,
    variable: &EnvVar,
    lookup: &dyn Lookup,
    around: &Surroundings,
) -> Result<Option<String>, String> {
    let Some(from) = &variable.value_from else { return Ok(None) };
    if let Some(field) = &from.field_ref {
        return field_value(pod, &field.field_path, around).map(Some);
    }
    if let Some(resource) = &from.resource_field_ref {
        let named = resource.container_name.as_deref().filter(|name| !name.is_empty());
        let target = named.map_or(Some(container), |name| find_container(pod, name));
        let target = target.ok_or_else(|| format!("container {} not found", named.unwrap_or_default()))?;
        return resource_value(target, resource, around).map(Some);
    }
    let key_of =
        |kind: &str, data: BTreeMap<String, Vec<u8>>, name: &str, key: &str, optional: bool| match data
            .get(key)
        {
            Some(value) => Ok(Some(String::from_utf8_lossy(value).into_owned())),
            None if optional => Ok(None),
            None => {
                let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
                Err(format!("couldn't find key {key} in {kind} {namespace}/{name}"))
            }
        };
    if let Some(from) = &from.config_map_key_ref {
        let optional = from.optional == Some(true);
        return key_of(
            "ConfigMap",
            config_map_data(lookup, &from.name, optional)?,
            &from.name,
            &from.key,
            optional,
        );
    }
    if let Some(from) = &from.secret_key_ref {
        let optional = from.optional == Some(true);
        return key_of("Secret", secret_data(lookup, &from.name, optional)?, &from.name, &from.key, optional);
    }
    Err(format!("the source of environment variable {:?} is not supported", variable.name))
}

/// A container of the pod, init containers included.
pub fn find_container<'a>(pod: &'a Pod, name: &str) -> Option<&'a Container> {
    let spec = pod.spec.as_ref()?;
    spec.containers
        .iter()
        .chain(spec.init_containers.iter().flatten())
        .find(|container| container.name == name)
}

/// `NAME_SERVICE_HOST` and its family: for the pod's namespace if it wants service links, and always for the
/// cluster's own `kubernetes` service.
fn service_environment(pod: &Pod, services: &[Arc<Service>]) -> BTreeMap<String, String> {
    let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
    let links = pod.spec.as_ref().and_then(|spec| spec.enable_service_links).unwrap_or(true);
    let mut chosen: BTreeMap<String, &Service> = BTreeMap::new();
    for service in services {
        let (own, name) =
            (service.metadata.namespace.as_deref(), service.metadata.name.clone().unwrap_or_default());
        let master = own == Some("default") && name == "kubernetes";
        if links && own == Some(namespace) {
            chosen.insert(name, service);
        } else if master {
            chosen.entry(name).or_insert(service);
        }
    }
    let mut variables = BTreeMap::new();
    for (name, service) in chosen {
        add_service(&mut variables, &name, service);
    }
    variables
}

fn add_service(variables: &mut BTreeMap<String, String>, name: &str, service: &Service) {
    let Some(spec) = &service.spec else { return };
    let address = spec.cluster_ip.as_deref().unwrap_or_default();
    let ports = spec.ports.as_deref().unwrap_or_default();
    if address.is_empty() || address == "None" || ports.is_empty() {
        return;
    }
    let prefix = name.to_uppercase().replace('-', "_");
    let host = if address.contains(':') { format!("[{address}]") } else { address.to_owned() };
    variables.insert(format!("{prefix}_SERVICE_HOST"), address.to_owned());
    variables.insert(format!("{prefix}_SERVICE_PORT"), ports[0].port.to_string());
    for (index, port) in ports.iter().enumerate() {
        if let Some(name) = port.name.as_ref().filter(|name| !name.is_empty()) {
            let name = name.to_uppercase().replace('-', "_");
            variables.insert(format!("{prefix}_SERVICE_PORT_{name}"), port.port.to_string());
        }
        let protocol = port.protocol.as_deref().unwrap_or("TCP");
        let url = format!("{}://{host}:{}", protocol.to_lowercase(), port.port);
        if index == 0 {
            variables.insert(format!("{prefix}_PORT"), url.clone());
        }
        let base = format!("{prefix}_PORT_{}_{}", port.port, protocol.to_uppercase());
        variables.insert(base.clone(), url);
        variables.insert(format!("{base}_PROTO"), protocol.to_lowercase());
        variables.insert(format!("{base}_PORT"), port.port.to_string());
        variables.insert(format!("{base}_ADDR"), address.to_owned());
    }
}

/// Decodes the registry credentials of a `kubernetes.io/dockerconfigjson` (or `dockercfg`) secret: host → credentials.
pub fn registry_credentials(secret: &Secret) -> Vec<(String, images::Credentials)> {
    let data = secret.data.as_ref();
    let get = |key: &str| {
        data.and_then(|data| data.get(key)).and_then(|value| serde_json::from_slice(&value.0).ok())
    };
    let wrapped: Option<serde_json::Value> = get(".dockerconfigjson");
    let plain: Option<serde_json::Value> = get(".dockercfg");
    let hosts = wrapped.map(|mut config| config["auths"].take()).or(plain).unwrap_or_default();
    let Some(hosts) = hosts.as_object() else { return Vec::new() };
    hosts.iter().map(|(host, entry)| (host.clone(), credentials_of(entry))).collect()
}

fn credentials_of(entry: &serde_json::Value) -> images::Credentials {
    let text = |key: &str| entry.get(key).and_then(|value| value.as_str()).unwrap_or_default().to_owned();
    let mut credentials = images::Credentials {
        username: text("username"),
        password: text("password"),
        identity_token: text("identitytoken"),
    };
    let decoded = base64::engine::general_purpose::STANDARD.decode(text("auth")).unwrap_or_default();
    if let Ok(pair) = String::from_utf8(decoded)
        && let Some((username, password)) = pair.split_once(':')
    {
        credentials.username = username.to_owned();
        credentials.password = password.trim_end_matches('\0').to_owned();
    }
    credentials
}

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::{Expect, expect};
    use serde_json::json;

    struct Fixture;

    impl Lookup for Fixture {
        fn config_map(&self, name: &str) -> Result<Option<Arc<Object>>, Status> {
            let value = json!({"metadata": {"name": name}, "data": {"k": "v", "x": "1"}});
            Ok((name == "there").then(|| Arc::new(Object::from_value(&value, 1).unwrap())))
        }

        fn secret(&self, name: &str) -> Result<Option<Arc<Object>>, Status> {
            let value = json!({"metadata": {"name": name}, "data": {"p": "c2VjcmV0"}});
            Ok((name == "there").then(|| Arc::new(Object::from_value(&value, 1).unwrap())))
        }
    }

    fn check(container: serde_json::Value, services: serde_json::Value, expect: Expect) {
        let pod: Pod = serde_json::from_value(json!({"metadata": {"name": "p", "namespace": "ns"}})).unwrap();
        let container: Container = serde_json::from_value(container).unwrap();
        let services: Vec<Arc<Service>> = serde_json::from_value(services).unwrap();
        let text = match environment(&pod, &container, &services, &Fixture, &Surroundings::default()) {
            Ok(list) => list.iter().map(|(name, value)| format!("{name}={value}\n")).collect(),
            Err(message) => format!("error: {message}\n"),
        };
        expect.assert_eq(&text);
    }

    #[test]
    fn variables_refer_to_earlier_ones() {
        check(
            json!({"name": "c", "env": [
                {"name": "A", "value": "1"}, {"name": "B", "value": "$(A)$(C)"}, {"name": "C", "value": "3"},
                {"name": "N", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}]}),
            json!([]),
            expect![[r#"
                A=1
                B=1$(C)
                C=3
                N=p
            "#]],
        );
    }

    #[test]
    fn objects() {
        check(
            json!({"name": "c", "envFrom": [{"prefix": "P_", "configMapRef": {"name": "there"}}],
                "env": [{"name": "S", "valueFrom": {"secretKeyRef": {"name": "there", "key": "p"}}},
                        {"name": "O", "valueFrom": {"secretKeyRef": {"name": "no", "key": "p", "optional": true}}}]}),
            json!([]),
            expect![[r#"
                P_k=v
                P_x=1
                S=secret
            "#]],
        );
        let missing = |name: &str, key: &str| json!({"name": "c", "env": [{"name": "S", "valueFrom": {"configMapKeyRef": {"name": name, "key": key}}}]});
        check(
            missing("no", "k"),
            json!([]),
            expect![[r#"
            error: configmap "no" not found
        "#]],
        );
        check(
            missing("there", "no"),
            json!([]),
            expect![[r#"
            error: couldn't find key no in ConfigMap ns/there
        "#]],
        );
    }

    #[test]
    fn services() {
        let service = |namespace: &str, name: &str, address: &str| {
            json!({"metadata": {"namespace": namespace, "name": name},
                "spec": {"clusterIP": address, "ports": [{"name": "https", "port": 443, "protocol": "TCP"}]}})
        };
        check(
            json!({"name": "c"}),
            json!([
                service("ns", "my-db", "10.0.0.9"),
                service("default", "kubernetes", "10.0.0.1"),
                service("ns", "headless", "None"),
                service("other", "x", "10.0.0.3")
            ]),
            expect![[r#"
                KUBERNETES_PORT=tcp://10.0.0.1:443
                KUBERNETES_PORT_443_TCP=tcp://10.0.0.1:443
                KUBERNETES_PORT_443_TCP_ADDR=10.0.0.1
                KUBERNETES_PORT_443_TCP_PORT=443
                KUBERNETES_PORT_443_TCP_PROTO=tcp
                KUBERNETES_SERVICE_HOST=10.0.0.1
                KUBERNETES_SERVICE_PORT=443
                KUBERNETES_SERVICE_PORT_HTTPS=443
                MY_DB_PORT=tcp://10.0.0.9:443
                MY_DB_PORT_443_TCP=tcp://10.0.0.9:443
                MY_DB_PORT_443_TCP_ADDR=10.0.0.9
                MY_DB_PORT_443_TCP_PORT=443
                MY_DB_PORT_443_TCP_PROTO=tcp
                MY_DB_SERVICE_HOST=10.0.0.9
                MY_DB_SERVICE_PORT=443
                MY_DB_SERVICE_PORT_HTTPS=443
            "#]],
        );
    }
}
