use serde_json::json;

use super::*;
use crate::shared::testing::object;

fn endpoints(subsets: Value) -> Arc<Object> {
    object(
        &json!({"apiVersion": "v1", "kind": "Endpoints", "metadata": {"name": "s", "namespace": "n", "uid": "e",
        "labels": {"a": "b"}, "annotations": {OWN_ANNOTATIONS[0]: "{}", "mine": "1"}}, "subsets": subsets}),
    )
}

fn planned(source: Option<&Arc<Object>>, stored: &[Arc<Object>]) -> Vec<Action> {
    let view = source.map(|source| typed::<Endpoints>(source).unwrap());
    plan(source.zip(view.as_ref()).map(|(object, view)| (&**object, &**view)), stored)
}

#[test]
fn slices_follow_the_endpoints() {
    let source = endpoints(json!([{"addresses": [{"ip": "10.1.2.3", "nodeName": "x"}, {"ip": "fd00::1"}],
        "notReadyAddresses": [{"ip": "10.1.2.4"}], "ports": [{"name": "web", "port": 80}]}]));
    let actions = planned(Some(&source), &[]);
    let [Action::Create { body: four, .. }, Action::Create { body: six, .. }] = actions.as_slice() else {
        panic!("{actions:?}")
    };
    assert_eq!(
        four["endpoints"],
        json!([{"addresses": ["10.1.2.3"], "conditions": {"ready": true}, "nodeName": "x"},
            {"addresses": ["10.1.2.4"], "conditions": {"ready": false}}])
    );
    assert_eq!(four["ports"], json!([{"name": "web", "port": 80, "protocol": "TCP"}]));
    assert_eq!(six["addressType"], "IPv6");
    assert_eq!(four["metadata"]["annotations"], json!({"mine": "1"}));
    assert_eq!(four["metadata"]["labels"][SERVICE_NAME], "s");
    let mut stored = four.clone();
    stored["metadata"]["name"] = json!("s-1");
    let stored = object(&stored);
    let changed = endpoints(json!([{"addresses": [{"ip": "10.1.2.9"}], "ports": [{"port": 80}]}]));
    let actions = planned(Some(&changed), std::slice::from_ref(&stored));
    let [Action::Update { body, .. }] = actions.as_slice() else { panic!("{actions:?}") };
    assert_eq!(body["endpoints"][0]["addresses"][0], "10.1.2.9");
    let unchanged = planned(Some(&changed), &[object(body)]);
    assert!(unchanged.is_empty(), "{unchanged:?}");
    assert!(matches!(planned(None, &[stored]).as_slice(), [Action::Delete { .. }]));
    assert!(planned(Some(&endpoints(json!([]))), &[]).is_empty());
}
