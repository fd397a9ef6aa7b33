//! What field selectors can ask about pods. Kubelets and schedulers watch pods by their node, so this is read of every
//! state of every pod: the rest of it is passed over.

use std::borrow::Cow;

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
#[serde(default)]
struct Pod<'a> {
    #[serde(borrow)]
    spec: Spec<'a>,
    #[serde(borrow)]
    status: Status<'a>,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Spec<'a> {
    #[serde(borrow)]
    node_name: Cow<'a, str>,
    #[serde(borrow)]
    restart_policy: Cow<'a, str>,
    #[serde(borrow)]
    scheduler_name: Cow<'a, str>,
    #[serde(borrow)]
    service_account_name: Cow<'a, str>,
    host_network: bool,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Status<'a> {
    #[serde(borrow)]
    phase: Cow<'a, str>,
    #[serde(borrow, rename = "podIPs")]
    pod_ips: Vec<Address<'a>>,
    #[serde(borrow)]
    nominated_node_name: Cow<'a, str>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Address<'a> {
    #[serde(borrow)]
    ip: Cow<'a, str>,
}

/// The values of [`NAMES`], in their order.
pub fn fields(pod: &Object) -> Vec<(&'static str, String)> {
    let Pod { spec, status } = pod.part().unwrap_or_default();
    let ips: Vec<&str> = status.pod_ips.iter().map(|address| &*address.ip).collect();
    let values = [
        spec.node_name.into_owned(),
        spec.restart_policy.into_owned(),
        spec.scheduler_name.into_owned(),
        spec.service_account_name.into_owned(),
        spec.host_network.to_string(),
        status.phase.into_owned(),
        ips.first().copied().unwrap_or_default().to_owned(),
        ips.join(","),
        status.nominated_node_name.into_owned(),
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
        let bare = fields(&Object::from_value(&json!({"metadata": {}}), 1).unwrap());
        let unset = ["", "", "", "", "false", "", "", "", ""];
        assert_eq!(bare, NAMES.into_iter().zip(unset.map(str::to_owned)).collect::<Vec<_>>());
    }
}
