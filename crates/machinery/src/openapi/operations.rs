//! What can be done at a path: independent of the dialect it is written in.

use super::{Row, Subresource, type_of_kind};
use crate::schema::builtin;

/// One HTTP method at one path.
pub(super) struct Operation {
    pub path: String,
    pub method: &'static str,
    /// `list`, `post`, … as `x-kubernetes-action` has it.
    pub action: &'static str,
    pub id: String,
    pub group: String,
    pub version: String,
    pub kind: String,
    /// The types of the request's and of the answer's body.
    pub takes: Option<String>,
    pub gives: Option<String>,
    pub named: bool,
    /// Custom resources have no protobuf form and no strategic merge.
    pub custom: bool,
}

const STATUS: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.Status";
const PATCH: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.Patch";
const DELETE_OPTIONS: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.DeleteOptions";

/// All operations on a resource and its subresources.
pub(super) fn of(row: &Row) -> Vec<Operation> {
    let base = format!("/{}", row.root());
    let collection = match row.namespaced {
        true => format!("{base}/namespaces/{{namespace}}/{}", row.resource),
        false => format!("{base}/{}", row.resource),
    };
    let item = format!("{collection}/{{name}}");
    let mut all: Vec<Operation> =
        row.verbs.iter().filter_map(|verb| on_resource(row, verb, &collection, &item)).collect();
    if row.namespaced && row.verbs.iter().any(|verb| verb == "list") {
        let mut everywhere =
            operation(row, format!("{base}/{}", row.resource), "get", "list", "ForAllNamespaces");
        everywhere.gives = row.list_type();
        all.push(everywhere);
    }
    for subresource in &row.subresources {
        let path = format!("{item}/{}", subresource.name);
        all.extend(subresource.verbs.iter().filter_map(|verb| on_subresource(row, subresource, verb, &path)));
    }
    all
}

fn on_resource(row: &Row, verb: &str, collection: &str, item: &str) -> Option<Operation> {
    let own = || Some(row.type_name.clone());
    let (named, method, action, takes, gives) = match verb {
        "list" => (false, "get", "list", None, row.list_type()),
        "create" => (false, "post", "post", own(), own()),
        "deletecollection" => {
            (false, "delete", "deletecollection", Some(DELETE_OPTIONS.to_owned()), Some(STATUS.to_owned()))
        }
        "get" => (true, "get", "get", None, own()),
        "update" => (true, "put", "put", own(), own()),
        "patch" => (true, "patch", "patch", Some(PATCH.to_owned()), own()),
        "delete" => (true, "delete", "delete", Some(DELETE_OPTIONS.to_owned()), Some(STATUS.to_owned())),
        _ => return None,
    };
    let path = if named { item } else { collection };
    let mut made = operation(row, path.to_owned(), method, action, "");
    (made.named, made.takes, made.gives) = (named, takes, gives);
    Some(made)
}

fn on_subresource(row: &Row, subresource: &Subresource, verb: &str, path: &str) -> Option<Operation> {
    let version = if subresource.version.is_empty() { &row.version } else { &subresource.version };
    let type_name = type_of_kind(&subresource.group, version, &subresource.kind).map(str::to_owned);
    let type_name = type_name.or_else(|| (subresource.kind == row.kind).then(|| row.type_name.clone()));
    let (method, action, takes) = match verb {
        "get" => ("get", "get", None),
        "create" => ("post", "post", type_name.clone()),
        "update" => ("put", "put", type_name.clone()),
        "patch" => ("patch", "patch", Some(PATCH.to_owned())),
        "delete" => ("delete", "delete", None),
        _ => return None,
    };
    let mut made = operation(row, path.to_owned(), method, action, &capitalised(&subresource.name));
    (made.group, made.version, made.kind) =
        (subresource.group.clone(), version.clone(), subresource.kind.clone());
    (made.named, made.takes, made.gives) = (true, takes, type_name);
    Some(made)
}

fn operation(row: &Row, path: String, method: &'static str, action: &'static str, suffix: &str) -> Operation {
    Operation {
        path,
        method,
        action,
        id: id(row, action, suffix),
        group: row.group.clone(),
        version: row.version.clone(),
        kind: row.kind.clone(),
        takes: None,
        gives: None,
        named: false,
        custom: builtin().facts(&row.type_name).is_none(),
    }
}

/// `readAppsV1NamespacedDeploymentScale`.
fn id(row: &Row, action: &str, suffix: &str) -> String {
    let verb = match action {
        "get" => "read",
        "post" => "create",
        "put" => "replace",
        "deletecollection" => "deleteCollection",
        other => other,
    };
    let group = match row.group.split('.').next() {
        None | Some("") => "Core".to_owned(),
        Some(first) => capitalised(first),
    };
    let scope = if row.namespaced && suffix != "ForAllNamespaces" { "Namespaced" } else { "" };
    format!("{verb}{group}{}{scope}{}{suffix}", capitalised(&row.version), row.kind)
}

fn capitalised(word: &str) -> String {
    let mut letters = word.chars();
    letters.next().map(|first| first.to_ascii_uppercase()).into_iter().chain(letters).collect()
}
