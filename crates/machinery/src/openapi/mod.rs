//! OpenAPI documents, made from the schema and a description of what is served.
//!
//! `kubectl` reads them for `explain`, to learn which query parameters a server knows, and to merge what `apply` sends.
//! Documents are written out piece by piece and not kept; whoever serves them decides what to cache. The facts have no
//! descriptions of fields, so neither have the documents.

mod definitions;
mod gnostic;
mod operations;
mod paths;

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{DefaultHasher, Hash, Hasher};

use serde_json::{Value, json};

pub use gnostic::v2_protobuf;

use crate::schema::builtin;
use definitions::Definitions;

/// The media type of [`v2_protobuf`]; the second is what older clients ask for.
pub const V2_PROTOBUF: [&str; 2] = [
    "application/com.github.proto-openapi.spec.v2.v1.0+protobuf",
    "application/com.github.proto-openapi.spec.v2@v1.0+protobuf",
];

/// A resource in one version, as far as the documents speak of it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Row {
    pub group: String,
    pub version: String,
    pub kind: String,
    /// Plural, as in paths.
    pub resource: String,
    pub namespaced: bool,
    pub verbs: Vec<String>,
    pub subresources: Vec<Subresource>,
    /// A built-in type, or a name among [`Api::custom`].
    pub type_name: String,
}

/// A subresource and the kind it takes and gives.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Subresource {
    pub name: String,
    pub group: String,
    /// Empty: the row's own.
    pub version: String,
    pub kind: String,
    pub verbs: Vec<String>,
}

/// Everything that is served.
#[derive(Clone, Copy, Debug)]
pub struct Api<'a> {
    pub rows: &'a [Row],
    /// Schemas of custom resources (OpenAPI v3, as in their definitions) by name, e.g. `com.example.v1.Widget`.
    pub custom: &'a BTreeMap<String, Value>,
    /// The server's version, `v1.36.0`.
    pub version: &'a str,
}

/// The two dialects.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Dialect {
    V2,
    V3,
}

impl Dialect {
    fn reference(self, name: &str) -> Value {
        let place = match self {
            Self::V2 => "#/definitions/",
            Self::V3 => "#/components/schemas/",
        };
        json!({ "$ref": format!("{place}{name}") })
    }
}

impl Row {
    /// `api/v1` or `apis/apps/v1`.
    fn root(&self) -> String {
        root(&self.group, &self.version)
    }

    /// The type of a list of these, if lists can be asked for.
    fn list_type(&self) -> Option<String> {
        self.verbs.iter().any(|verb| verb == "list").then(|| format!("{}List", self.type_name))
    }
}

fn root(group: &str, version: &str) -> String {
    if group.is_empty() { format!("api/{version}") } else { format!("apis/{group}/{version}") }
}

/// `GET /openapi/v3`: where the document of every group and version is.
pub fn v3_index(api: &Api<'_>) -> Vec<u8> {
    let roots: BTreeSet<(String, &str, &str)> =
        api.rows.iter().map(|row| (row.root(), row.group.as_str(), row.version.as_str())).collect();
    let entry = |(root, group, version): &(String, &str, &str)| {
        let url = format!("/openapi/v3/{root}?hash={}", v3_hash(api, group, version));
        (root.clone(), json!({ "serverRelativeURL": url }))
    };
    let paths: serde_json::Map<_, _> = roots.iter().map(entry).collect();
    json!({ "paths": paths }).to_string().into_bytes()
}

/// A hash that changes whenever the document of a group and version changes.
pub fn v3_hash(api: &Api<'_>, group: &str, version: &str) -> String {
    let mut hasher = DefaultHasher::new();
    (env!("CARGO_PKG_VERSION"), api.version).hash(&mut hasher);
    for row in of_version(api, group, version) {
        row.hash(&mut hasher);
        api.custom.get(&row.type_name).map(ToString::to_string).hash(&mut hasher);
    }
    format!("{:016X}", hasher.finish())
}

fn of_version<'a>(api: &Api<'a>, group: &str, version: &str) -> impl Iterator<Item = &'a Row> {
    api.rows.iter().filter(move |row| row.group == group && row.version == version)
}

/// `GET /openapi/v3/apis/GROUP/VERSION`; none when nothing of it is served.
pub fn v3_document(api: &Api<'_>, group: &str, version: &str) -> Option<Vec<u8>> {
    let rows: Vec<&Row> = of_version(api, group, version).collect();
    if rows.is_empty() {
        return None;
    }
    let info = json!({"title": "Kubernetes", "version": api.version});
    let mut out = format!("{{\"openapi\":\"3.0.0\",\"info\":{info},\"paths\":").into_bytes();
    write_map(paths::of(&rows, Dialect::V3), &mut out);
    out.extend_from_slice(b",\"components\":{\"schemas\":");
    write_map(Definitions::of(&rows, api.custom, Dialect::V3), &mut out);
    out.extend_from_slice(b",\"securitySchemes\":");
    out.extend_from_slice(security().to_string().as_bytes());
    out.extend_from_slice(b"}}");
    Some(out)
}

/// `GET /openapi/v2` as JSON: everything in one document.
pub fn v2_document(api: &Api<'_>) -> Vec<u8> {
    let rows: Vec<&Row> = api.rows.iter().collect();
    let info = json!({"title": "Kubernetes", "version": api.version});
    let mut out = format!("{{\"swagger\":\"2.0\",\"info\":{info},\"paths\":").into_bytes();
    write_map(paths::of(&rows, Dialect::V2), &mut out);
    out.extend_from_slice(b",\"definitions\":");
    write_map(Definitions::of(&rows, api.custom, Dialect::V2), &mut out);
    let rest = json!({"securityDefinitions": security(), "security": [{"BearerToken": []}]}).to_string();
    out.push(b',');
    out.extend_from_slice(&rest.as_bytes()[1..]);
    out
}

fn security() -> Value {
    let description = "Bearer Token authentication";
    json!({"BearerToken": {"description": description, "in": "header", "name": "authorization", "type": "apiKey"}})
}

/// Writes an object whose values are made one at a time.
fn write_map(entries: impl Iterator<Item = (String, Value)>, out: &mut Vec<u8>) {
    for (index, (name, value)) in entries.enumerate() {
        out.push(if index == 0 { b'{' } else { b',' });
        out.extend_from_slice(format!("{}:{value}", Value::from(name)).as_bytes());
    }
    if out.last() == Some(&b':') {
        out.push(b'{');
    }
    out.push(b'}');
}

/// The type that describes a kind, for the kinds of subresources.
fn type_of_kind(group: &str, version: &str, kind: &str) -> Option<&'static str> {
    builtin().type_of(group, version, kind)
}

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::{Expect, expect};

    pub(super) fn rows() -> Vec<Row> {
        let owned = |list: &[&str]| list.iter().map(|item| (*item).to_owned()).collect::<Vec<_>>();
        let verbs =
            owned(&["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"]);
        let row = |group: &str, version: &str, kind: &str, resource: &str, namespaced, type_name: &str| Row {
            group: group.to_owned(),
            version: version.to_owned(),
            kind: kind.to_owned(),
            resource: resource.to_owned(),
            namespaced,
            verbs: verbs.clone(),
            subresources: Vec::new(),
            type_name: type_name.to_owned(),
        };
        let mut deployment =
            row("apps", "v1", "Deployment", "deployments", true, "io.k8s.api.apps.v1.Deployment");
        let scale = |name: &str, group: &str, kind: &str| Subresource {
            name: name.to_owned(),
            group: group.to_owned(),
            version: "v1".to_owned(),
            kind: kind.to_owned(),
            verbs: owned(&["get", "patch", "update"]),
        };
        deployment.subresources =
            vec![scale("scale", "autoscaling", "Scale"), scale("status", "apps", "Deployment")];
        vec![
            row("", "v1", "Node", "nodes", false, "io.k8s.api.core.v1.Node"),
            deployment,
            row("example.com", "v1", "Widget", "widgets", true, "com.example.v1.Widget"),
        ]
    }

    pub(super) fn custom() -> BTreeMap<String, Value> {
        let schema = json!({"type": "object", "properties": {"spec": {"type": "object", "nullable": true,
            "properties": {"port": {"x-kubernetes-int-or-string": true, "anyOf": [{"type": "integer"}, {"type": "string"}]}}}}});
        [("com.example.v1.Widget".to_owned(), schema)].into()
    }

    fn check(pointer: &str, document: &[u8], expected: Expect) {
        let document: Value = serde_json::from_slice(document).unwrap();
        expected.assert_eq(&document.pointer(pointer).unwrap_or(&Value::Null).to_string());
    }

    #[test]
    fn v3_has_what_kubectl_looks_for() {
        let (rows, custom) = (rows(), custom());
        let api = Api { rows: &rows, custom: &custom, version: "v1.36.0" };
        let apps = v3_document(&api, "apps", "v1").unwrap();
        let schemas = "/components/schemas/io.k8s.api";
        check(
            &format!("{schemas}.apps.v1.Deployment"),
            &apps,
            expect![[
                r##"{"properties":{"apiVersion":{"type":"string"},"kind":{"type":"string"},"metadata":{"allOf":[{"$ref":"#/components/schemas/io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta"}],"default":{}},"spec":{"allOf":[{"$ref":"#/components/schemas/io.k8s.api.apps.v1.DeploymentSpec"}],"default":{}},"status":{"allOf":[{"$ref":"#/components/schemas/io.k8s.api.apps.v1.DeploymentStatus"}],"default":{}}},"type":"object","x-kubernetes-group-version-kind":[{"group":"apps","kind":"Deployment","version":"v1"}]}"##
            ]],
        );
        check(
            &format!("{schemas}.core.v1.PodSpec/properties/volumes"),
            &apps,
            expect![[
                r##"{"items":{"$ref":"#/components/schemas/io.k8s.api.core.v1.Volume"},"type":"array","x-kubernetes-list-map-keys":["name"],"x-kubernetes-list-type":"map","x-kubernetes-patch-merge-key":"name","x-kubernetes-patch-strategy":"merge,retainKeys"}"##
            ]],
        );
        check(
            "/components/schemas/io.k8s.apimachinery.pkg.util.intstr.IntOrString",
            &apps,
            expect![[r#"{"format":"int-or-string","oneOf":[{"type":"integer"},{"type":"string"}]}"#]],
        );
        let item = "/paths/~1apis~1apps~1v1~1namespaces~1{namespace}~1deployments~1{name}";
        check(
            &format!("{item}/patch"),
            &apps,
            expect![[
                r##"{"operationId":"patchAppsV1NamespacedDeployment","parameters":[{"in":"query","name":"dryRun","schema":{"type":"string","uniqueItems":true}},{"in":"query","name":"fieldManager","schema":{"type":"string","uniqueItems":true}},{"in":"query","name":"fieldValidation","schema":{"type":"string","uniqueItems":true}},{"in":"query","name":"force","schema":{"type":"boolean","uniqueItems":true}},{"in":"query","name":"pretty","schema":{"type":"string","uniqueItems":true}}],"requestBody":{"content":{"application/apply-patch+yaml":{"schema":{"$ref":"#/components/schemas/io.k8s.apimachinery.pkg.apis.meta.v1.Patch"}},"application/json-patch+json":{"schema":{"$ref":"#/components/schemas/io.k8s.apimachinery.pkg.apis.meta.v1.Patch"}},"application/merge-patch+json":{"schema":{"$ref":"#/components/schemas/io.k8s.apimachinery.pkg.apis.meta.v1.Patch"}},"application/strategic-merge-patch+json":{"schema":{"$ref":"#/components/schemas/io.k8s.apimachinery.pkg.apis.meta.v1.Patch"}}},"required":true},"responses":{"200":{"content":{"application/json":{"schema":{"$ref":"#/components/schemas/io.k8s.api.apps.v1.Deployment"}},"application/vnd.kubernetes.protobuf":{"schema":{"$ref":"#/components/schemas/io.k8s.api.apps.v1.Deployment"}},"application/yaml":{"schema":{"$ref":"#/components/schemas/io.k8s.api.apps.v1.Deployment"}}},"description":"OK"},"401":{"description":"Unauthorized"}},"x-kubernetes-action":"patch","x-kubernetes-group-version-kind":{"group":"apps","kind":"Deployment","version":"v1"}}"##
            ]],
        );
        check(
            &format!("{item}~1scale/get"),
            &apps,
            expect![[
                r##"{"operationId":"readAppsV1NamespacedDeploymentScale","parameters":[{"in":"query","name":"pretty","schema":{"type":"string","uniqueItems":true}}],"responses":{"200":{"content":{"application/json":{"schema":{"$ref":"#/components/schemas/io.k8s.api.autoscaling.v1.Scale"}},"application/vnd.kubernetes.protobuf":{"schema":{"$ref":"#/components/schemas/io.k8s.api.autoscaling.v1.Scale"}},"application/yaml":{"schema":{"$ref":"#/components/schemas/io.k8s.api.autoscaling.v1.Scale"}}},"description":"OK"},"401":{"description":"Unauthorized"}},"x-kubernetes-action":"get","x-kubernetes-group-version-kind":{"group":"autoscaling","kind":"Scale","version":"v1"}}"##
            ]],
        );
        let widgets = v3_document(&api, "example.com", "v1").unwrap();
        check(
            "/components/schemas/com.example.v1.Widget",
            &widgets,
            expect![[
                r##"{"properties":{"apiVersion":{"type":"string"},"kind":{"type":"string"},"metadata":{"$ref":"#/components/schemas/io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta"},"spec":{"nullable":true,"properties":{"port":{"anyOf":[{"type":"integer"},{"type":"string"}],"x-kubernetes-int-or-string":true}},"type":"object"}},"type":"object","x-kubernetes-group-version-kind":[{"group":"example.com","kind":"Widget","version":"v1"}]}"##
            ]],
        );
        check(
            "/components/schemas/com.example.v1.WidgetList",
            &widgets,
            expect![[
                r##"{"properties":{"apiVersion":{"type":"string"},"items":{"items":{"$ref":"#/components/schemas/com.example.v1.Widget"},"type":"array"},"kind":{"type":"string"},"metadata":{"$ref":"#/components/schemas/io.k8s.apimachinery.pkg.apis.meta.v1.ListMeta"}},"required":["items"],"type":"object","x-kubernetes-group-version-kind":[{"group":"example.com","kind":"WidgetList","version":"v1"}]}"##
            ]],
        );
        let widget = "/paths/~1apis~1example.com~1v1~1namespaces~1{namespace}~1widgets~1{name}";
        check(
            &format!("{widget}/patch/requestBody"),
            &widgets,
            expect![[
                r##"{"content":{"application/apply-patch+yaml":{"schema":{"$ref":"#/components/schemas/io.k8s.apimachinery.pkg.apis.meta.v1.Patch"}},"application/json-patch+json":{"schema":{"$ref":"#/components/schemas/io.k8s.apimachinery.pkg.apis.meta.v1.Patch"}},"application/merge-patch+json":{"schema":{"$ref":"#/components/schemas/io.k8s.apimachinery.pkg.apis.meta.v1.Patch"}}},"required":true}"##
            ]],
        );
        assert_eq!(v3_document(&api, "apps", "v2"), None);
    }

    #[test]
    fn v2_has_every_definition() {
        let (rows, custom) = (rows(), custom());
        let document = v2_document(&Api { rows: &rows, custom: &custom, version: "v1.36.0" });
        check(
            "/definitions/io.k8s.apimachinery.pkg.api.resource.Quantity",
            &document,
            expect![[r#"{"type":"string"}"#]],
        );
        check(
            "/definitions/io.k8s.api.apps.v1.Deployment/properties/spec",
            &document,
            expect![[r##"{"$ref":"#/definitions/io.k8s.api.apps.v1.DeploymentSpec"}"##]],
        );
        check(
            "/definitions/com.example.v1.Widget",
            &document,
            expect![[
                r##"{"properties":{"apiVersion":{"type":"string"},"kind":{"type":"string"},"metadata":{"$ref":"#/definitions/io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta"},"spec":{"properties":{"port":{"x-kubernetes-int-or-string":true}},"type":"object"}},"type":"object","x-kubernetes-group-version-kind":[{"group":"example.com","kind":"Widget","version":"v1"}]}"##
            ]],
        );
        check(
            "/paths/~1api~1v1~1nodes/get",
            &document,
            expect![[
                r##"{"consumes":["*/*"],"operationId":"listCoreV1Node","parameters":[{"in":"query","name":"allowWatchBookmarks","type":"boolean","uniqueItems":true},{"in":"query","name":"continue","type":"string","uniqueItems":true},{"in":"query","name":"fieldSelector","type":"string","uniqueItems":true},{"in":"query","name":"labelSelector","type":"string","uniqueItems":true},{"in":"query","name":"limit","type":"integer","uniqueItems":true},{"in":"query","name":"pretty","type":"string","uniqueItems":true},{"in":"query","name":"resourceVersion","type":"string","uniqueItems":true},{"in":"query","name":"resourceVersionMatch","type":"string","uniqueItems":true},{"in":"query","name":"sendInitialEvents","type":"boolean","uniqueItems":true},{"in":"query","name":"timeoutSeconds","type":"integer","uniqueItems":true},{"in":"query","name":"watch","type":"boolean","uniqueItems":true}],"produces":["application/json","application/yaml","application/vnd.kubernetes.protobuf"],"responses":{"200":{"description":"OK","schema":{"$ref":"#/definitions/io.k8s.api.core.v1.NodeList"}},"401":{"description":"Unauthorized"}},"x-kubernetes-action":"list","x-kubernetes-group-version-kind":{"group":"","kind":"Node","version":"v1"}}"##
            ]],
        );
        check("/security", &document, expect![[r#"[{"BearerToken":[]}]"#]]);
    }

    #[test]
    fn every_reference_can_be_followed() {
        fn references(value: &Value, found: &mut BTreeSet<String>) {
            match value {
                Value::Object(fields) => {
                    if let Some(Value::String(name)) = fields.get("$ref") {
                        found.insert(name.clone());
                    }
                    fields.values().for_each(|value| references(value, found));
                }
                Value::Array(items) => items.iter().for_each(|value| references(value, found)),
                _ => {}
            }
        }
        let (rows, custom) = (rows(), custom());
        let api = Api { rows: &rows, custom: &custom, version: "v1.36.0" };
        for bytes in [
            v2_document(&api),
            v3_document(&api, "apps", "v1").unwrap(),
            v3_document(&api, "", "v1").unwrap(),
        ] {
            let document: Value = serde_json::from_slice(&bytes).unwrap();
            let mut found = BTreeSet::new();
            references(&document, &mut found);
            assert!(found.len() > 20);
            for name in found {
                assert!(document.pointer(&name[1..]).is_some(), "{name}");
            }
        }
    }

    #[test]
    fn the_index_names_documents_by_hash() {
        let (rows, mut custom) = (rows(), custom());
        let hash = |custom: &BTreeMap<String, Value>, group: &str| {
            v3_hash(&Api { rows: &rows, custom, version: "v1.36.0" }, group, "v1")
        };
        let (widgets, apps) = (hash(&custom, "example.com"), hash(&custom, "apps"));
        custom.insert("com.example.v1.Widget".to_owned(), json!({}));
        assert_ne!(hash(&custom, "example.com"), widgets);
        assert_eq!(hash(&custom, "apps"), apps);
        let index = v3_index(&Api { rows: &rows, custom: &custom, version: "v1.36.0" });
        let index: Value = serde_json::from_slice(&index).unwrap();
        let url = format!("/openapi/v3/apis/apps/v1?hash={apps}");
        assert_eq!(index["paths"]["apis/apps/v1"]["serverRelativeURL"], url.as_str());
        assert!(index["paths"]["api/v1"].is_object());
    }
}
