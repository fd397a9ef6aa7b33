//! What field selectors can ask about pods. Kubelets and schedulers watch pods by their node, so this is read of every
//! state of every pod: the rest of it is passed over.

use machinery::Object;
use serde::Deserialize;

pub const NAMES: [&str; 9] = [
    "spec.nodeName",
    "spec.restartPolicy",
    "spec.schedulerName",
    "spec.serviceAccountName",
    "spec.hostNetwork",
    "status.phase",
    "status.podIP",
    "status.podIPs",
    "status.nominatedNodeName",
];

#[derive(Default, Deserialize)]
struct Pod {
    spec: Option<Spec>,
    status: Option<Status>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Spec {
    node_name: Option<String>,
    restart_policy: Option<String>,
    scheduler_name: Option<String>,
    service_account_name: Option<String>,
    host_network: Option<bool>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Status {
    phase: Option<String>,
    #[serde(rename = "podIPs")]
    pod_ips: Option<Vec<Address>>,
    nominated_node_name: Option<String>,
}

#[derive(Deserialize)]
struct Address {
    ip: Option<String>,
}

/// The values of [`NAMES`], in their order.
pub fn fields(pod: &Object) -> Vec<(&'static str, String)> {
    let Pod { spec, status } = pod.part().unwrap_or_default();
    let (spec, status) = (spec.unwrap_or_default(), status.unwrap_or_default());
    let ips: Vec<String> =
        status.pod_ips.into_iter().flatten().map(|address| address.ip.unwrap_or_default()).collect();
    let values = [
        spec.node_name.unwrap_or_default(),
        spec.restart_policy.unwrap_or_default(),
        spec.scheduler_name.unwrap_or_default(),
        spec.service_account_name.unwrap_or_default(),
        spec.host_network.unwrap_or_default().to_string(),
        status.phase.unwrap_or_default(),
        ips.first().cloned().unwrap_or_default(),
        ips.join(","),
        status.nominated_node_name.unwrap_or_default(),
    ];
    NAMES.into_iter().zip(values).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn values_are_those_of_the_pod() {
        let pod = json!({"metadata": {"name": "p"},
            "spec": {"nodeName": "n\"1", "restartPolicy": "Always", "schedulerName": "s", "serviceAccountName": "a",
                "hostNetwork": true, "containers": [{"name": "c"}]},
            "status": {"phase": "Running", "podIP": "10.0.0.1", "podIPs": [{"ip": "10.0.0.1"}, {"ip": "fd00::1"}],
                "nominatedNodeName": "n2"}});
        let values: Vec<String> =
            fields(&Object::from_value(&pod, 1).unwrap()).into_iter().map(|(_, v)| v).collect();
        let wanted = ["n\"1", "Always", "s", "a", "true", "Running", "10.0.0.1", "10.0.0.1,fd00::1", "n2"];
        assert_eq!(values, wanted);
        let nulls = json!({"metadata": {}, "spec": {"nodeName": "n", "schedulerName": null}, "status": null});
        assert_eq!(fields(&Object::from_value(&nulls, 1).unwrap())[0].1, "n", "a null is an absent field");
        let bare = fields(&Object::from_value(&json!({"metadata": {}}), 1).unwrap());
        let unset = ["", "", "", "", "false", "", "", "", ""];
        assert_eq!(bare, NAMES.into_iter().zip(unset.map(str::to_owned)).collect::<Vec<_>>());
    }
}
