//! What a client learns of the server: discovery, version, tables, chunks.

use std::collections::BTreeSet;

use machinery::Status;
use serde_json::{Value, json};

use super::wire::Wire;
use super::world::World;

const AGGREGATED: &str = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList";

/// One resource that must be found in each group.
const KNOWN: [(&str, &str); 19] = [
    ("admissionregistration.k8s.io", "validatingwebhookconfigurations"),
    ("apiextensions.k8s.io", "customresourcedefinitions"),
    ("apiregistration.k8s.io", "apiservices"),
    ("apps", "deployments"),
    ("authentication.k8s.io", "tokenreviews"),
    ("authorization.k8s.io", "selfsubjectaccessreviews"),
    ("autoscaling", "horizontalpodautoscalers"),
    ("batch", "jobs"),
    ("certificates.k8s.io", "certificatesigningrequests"),
    ("coordination.k8s.io", "leases"),
    ("discovery.k8s.io", "endpointslices"),
    ("events.k8s.io", "events"),
    ("flowcontrol.apiserver.k8s.io", "flowschemas"),
    ("networking.k8s.io", "ingresses"),
    ("node.k8s.io", "runtimeclasses"),
    ("policy", "poddisruptionbudgets"),
    ("rbac.authorization.k8s.io", "roles"),
    ("scheduling.k8s.io", "priorityclasses"),
    ("storage.k8s.io", "csinodes"),
];

fn text<'a>(value: &'a Value, field: &str) -> &'a str {
    value[field].as_str().unwrap_or_default()
}

// conformance: [sig-api-machinery] Discovery should validate PreferredVersion for each APIGroup
// conformance: [sig-api-machinery] Discovery should locate the groupVersion and a resource within each APIGroup
async fn discovery(wire: &Wire) {
    let list = wire.get("/apis").await.unwrap();
    let groups = list["groups"].as_array().unwrap();
    for group in groups {
        let name = text(group, "name");
        let preferred = &group["preferredVersion"];
        assert!(text(preferred, "groupVersion").starts_with(&format!("{name}/")), "{group}");
        assert!(group["versions"].as_array().unwrap().contains(preferred), "{group}");
        let own = wire.get(&format!("/apis/{name}")).await.unwrap();
        assert_eq!(&own["preferredVersion"], preferred, "{group}");
    }
    for (name, resource) in KNOWN {
        let group =
            groups.iter().find(|group| group["name"] == name).unwrap_or_else(|| panic!("no group {name}"));
        let version = text(&group["preferredVersion"], "groupVersion");
        let found = wire.get(&format!("/apis/{version}")).await.unwrap();
        assert_eq!(text(&found, "groupVersion"), version);
        assert!(
            found["resources"].as_array().unwrap().iter().any(|one| one["name"] == resource),
            "{resource}"
        );
    }
}

// conformance: [sig-api-machinery] AggregatedDiscovery should support raw aggregated discovery endpoint Accept headers
// conformance: [sig-api-machinery] AggregatedDiscovery should support aggregated discovery interface
async fn aggregated_discovery(wire: &Wire) {
    let mut found = BTreeSet::new();
    for path in ["/api", "/apis"] {
        let (content_type, body) = wire.get_as(path, AGGREGATED).await.unwrap();
        assert_eq!(content_type, AGGREGATED);
        let list: Value = serde_json::from_slice(&body).unwrap();
        assert_eq!(
            (text(&list, "kind"), text(&list, "apiVersion")),
            ("APIGroupDiscoveryList", "apidiscovery.k8s.io/v2")
        );
        for group in list["items"].as_array().unwrap() {
            for version in group["versions"].as_array().unwrap() {
                assert_eq!(version["freshness"], "Current");
                for resource in version["resources"].as_array().unwrap() {
                    assert!(resource["responseKind"]["kind"].is_string() && resource["verbs"].is_array());
                    found.insert(format!(
                        "{}/{}",
                        text(&group["metadata"], "name"),
                        text(resource, "resource")
                    ));
                }
            }
        }
    }
    for (group, resource) in KNOWN.into_iter().chain([("", "pods"), ("", "resourcequotas"), ("", "services")])
    {
        assert!(found.contains(&format!("{group}/{resource}")), "{group}/{resource}");
    }
    // Clients that name several forms get the first that is known; those that do not ask get the old one.
    let several = format!(
        "application/json;g=apidiscovery.k8s.io;v=v9;as=APIGroupDiscoveryList,{AGGREGATED},application/json"
    );
    assert_eq!(wire.get_as("/apis", &several).await.unwrap().0, AGGREGATED);
    assert_eq!(wire.get_as("/apis", "application/json").await.unwrap().0, "application/json");
}

// conformance: [sig-api-machinery] server version should find the server version
async fn version(wire: &Wire) {
    let version = wire.get("/version").await.unwrap();
    for part in ["major", "minor"] {
        assert!(!text(&version, part).is_empty() && text(&version, part).parse::<u32>().is_ok(), "{version}");
    }
}

// conformance: [sig-api-machinery] Servers with support for Table transformation should return a 406 for a backend which does not implement metadata
async fn no_table_of_what_is_computed(wire: &Wire) {
    let headers = [
        (http::header::ACCEPT, "application/json;as=Table;v=v1;g=meta.k8s.io"),
        (http::header::CONTENT_TYPE, "application/json"),
    ];
    let body = json!({"spec": {"nonResourceAttributes": {"path": "/", "verb": "get"}}}).to_string();
    let path = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews";
    let refused = wire.0.fetch(http::Method::POST, path, &headers, body.into()).await.unwrap_err();
    assert_eq!((refused.code, refused.reason.as_str()), (406, "NotAcceptable"));
}

const TEMPLATES: &str = "/api/v1/namespaces/default/podtemplates";
const TOTAL: usize = 40;

async fn templates(wire: &Wire) {
    for index in 0..TOTAL {
        let spec = json!({"containers": [{"name": "test", "image": "test2"}]});
        let body = json!({"metadata": {"name": format!("template-{index:04}")},
            "template": {"metadata": {"labels": {"foo": "bar"}}, "spec": spec}});
        wire.post(TEMPLATES, &body).await.unwrap();
    }
}

/// Reads page after page from a first answer on; checks counts and that the revision stays. Gives the last name.
async fn rest_of_pages(wire: &Wire, first: Value, mut seen: usize, limit: usize) -> Vec<Value> {
    let revision = text(&first["metadata"], "resourceVersion").to_owned();
    let mut page = first;
    let mut all = Vec::new();
    loop {
        let items = page["items"].as_array().unwrap().clone();
        assert!(items.len() <= limit);
        seen += items.len();
        all.extend(items);
        assert_eq!(text(&page["metadata"], "resourceVersion"), revision);
        let token = text(&page["metadata"], "continue").to_owned();
        if token.is_empty() {
            assert_eq!(seen, TOTAL);
            assert!(page["metadata"]["remainingItemCount"].is_null());
            return all;
        }
        assert_eq!(page["metadata"]["remainingItemCount"], TOTAL - seen);
        page = wire.get(&format!("{TEMPLATES}?limit={limit}&continue={token}")).await.unwrap();
    }
}

// conformance: [sig-api-machinery] Servers with support for API chunking should return chunks of results for list calls
async fn chunks(wire: &Wire) {
    for limit in [1, 7, 39, 40, 41] {
        let first = wire.get(&format!("{TEMPLATES}?limit={limit}")).await.unwrap();
        let all = rest_of_pages(wire, first, 0, limit).await;
        let names: Vec<_> = all.iter().map(|item| text(&item["metadata"], "name").to_owned()).collect();
        let expected: Vec<_> = (0..TOTAL).map(|index| format!("template-{index:04}")).collect();
        assert_eq!(names, expected);
    }
    let whole = wire.get(TEMPLATES).await.unwrap();
    assert_eq!(whole["items"].as_array().unwrap().len(), TOTAL);
    assert!(whole["metadata"]["continue"].is_null());
}

// conformance: [sig-api-machinery] Servers with support for API chunking should support continue listing from the last key if the original version has been compacted away, though the list is inconsistent [Slow]
async fn chunks_after_compaction(world: &World) {
    let wire = &world.admin;
    let limit = TOTAL / 10;
    let first = wire.get(&format!("{TEMPLATES}?limit={limit}")).await.unwrap();
    let first_revision = text(&first["metadata"], "resourceVersion");
    let next = format!("{TEMPLATES}?limit={limit}&continue={}", text(&first["metadata"], "continue"));
    wire.get(&next).await.expect("the token is good");
    // Something else happens, then history is forgotten: the templates themselves did not change.
    let other = wire
        .post("/api/v1/namespaces/default/configmaps", &json!({"metadata": {"name": "other"}}))
        .await
        .unwrap();
    let now: u64 = text(&other["metadata"], "resourceVersion").parse().unwrap();
    world.test.server.compact(now).await.unwrap();
    let expired: Status = wire.get(&next).await.unwrap_err();
    assert_eq!((expired.code, expired.reason.as_str()), (410, "Expired"), "{expired}");
    let token = &expired.metadata.continue_token;
    assert!(!token.is_empty());
    let second = wire.get(&format!("{TEMPLATES}?limit={limit}&continue={token}")).await.unwrap();
    assert_ne!(text(&second["metadata"], "resourceVersion"), first_revision);
    assert_eq!(second["items"].as_array().unwrap().len(), limit);
    assert_eq!(second["items"][0]["metadata"]["name"], format!("template-{limit:04}"));
    rest_of_pages(wire, second, limit, limit).await;
}

/// kubectl asks for OpenAPI v2 by a name that Go's parser of media types refuses in an answer.
async fn openapi_has_a_media_type(wire: &Wire) {
    for name in ["spec.v2@v1.0", "spec.v2.v1.0"] {
        let accept = format!("application/com.github.proto-openapi.{name}+protobuf");
        let (content_type, body) = wire.get_as("/openapi/v2", &accept).await.unwrap();
        assert_eq!(content_type, "application/com.github.proto-openapi.spec.v2.v1.0+protobuf");
        assert!(!body.is_empty());
    }
}

#[tokio::test]
async fn what_a_client_learns_of_the_server() {
    let world = World::without_controllers().await;
    discovery(&world.admin).await;
    aggregated_discovery(&world.admin).await;
    version(&world.admin).await;
    openapi_has_a_media_type(&world.admin).await;
    no_table_of_what_is_computed(&world.admin).await;
}

#[tokio::test]
async fn lists_come_in_chunks() {
    let world = World::without_controllers().await;
    templates(&world.admin).await;
    chunks(&world.admin).await;
    chunks_after_compaction(&world).await;
}
