use expect_test::{Expect, expect};
use machinery::Object;
use serde_json::{Value, json};

use super::*;

fn object(name: &str, labels: Value, rest: Value) -> Object {
    let (namespace, name) = name.split_once('/').unwrap();
    let mut value =
        json!({"metadata": {"name": name, "namespace": namespace, "uid": name, "labels": labels}});
    value.as_object_mut().unwrap().extend(rest.as_object().unwrap().clone());
    Object::from_value(&value, 1).unwrap()
}

/// Two namespaces with three pods; those of `d` are attached here.
fn world(policies: &[(&str, Value)]) -> (World, Attached) {
    let mut world = World::default();
    for (name, team) in [("d", "a"), ("e", "b")] {
        world.namespaces.insert(name.into(), [("team".to_owned(), team.to_owned())].into());
    }
    let pods = [("d/web", "web", "10.42.0.2"), ("d/db", "db", "10.42.0.3"), ("e/web", "web", "10.42.1.2")];
    for (name, app, address) in pods {
        let ports = json!([{"name": "http", "containerPort": 8080}]);
        let rest = json!({"spec": {"nodeName": "here", "containers": [{"ports": ports}]},
            "status": {"podIPs": [{"ip": address}]}});
        let pod = object(name, json!({"app": app}), rest);
        world.pods.insert(pod.key(), Pod::read(&pod).unwrap());
    }
    for (name, spec) in policies {
        let policy = object(name, json!({}), json!({"spec": spec}));
        world.policies.insert(policy.key(), Policy::read(&policy));
    }
    let here = world.pods.iter().filter(|(key, _)| key.namespace == "d");
    let attached = here.map(|(key, pod)| (key.clone(), pod.addresses.clone())).collect();
    (world, attached)
}

/// Chains and rule numbers are shown by the order in which they come.
fn show(desired: &Desired) -> String {
    let mut numbers: Vec<u32> = Vec::new();
    for allow in desired.chains.values().flat_map(|chain| &chain.allows) {
        if !numbers.contains(&allow.rule) {
            numbers.push(allow.rule);
        }
    }
    let rule =
        |number: &u32| numbers.iter().position(|n| n == number).map_or("?".into(), |n| format!("r{n}"));
    let place = |name: &String| desired.chains.keys().position(|key| key == name).unwrap();
    let mut lines = Vec::new();
    for (name, chain) in &desired.chains {
        lines.push(format!("chain {} {:?}", place(name), chain.direction));
        let allows = chain.allows.iter();
        lines.extend(
            allows.map(|allow| format!("  {} {:?} {:?}", rule(&allow.rule), allow.peers, allow.ports)),
        );
    }
    for entry in &desired.entries {
        lines.push(match entry {
            Entry::Isolated { direction, pod, chain } => {
                format!("{direction:?} of {pod}: chain {}", place(chain))
            }
            Entry::Own { .. } => continue,
            Entry::Peer { rule: r, address } => format!("{} peer {address}", rule(r)),
            Entry::Block { rule: r, range } => format!("{} block {range}", rule(r)),
            Entry::Port { rule: r, protocol, from, to } => format!("{} port {protocol} {from}-{to}", rule(r)),
            Entry::Named { rule: r, address, port, .. } => format!("{} named {address} {port}", rule(r)),
        });
    }
    lines.join("\n")
}

fn seen(policies: &[(&str, Value)]) -> String {
    let (world, attached) = world(policies);
    show(&compile(&world, &attached))
}

fn check(policies: &[(&str, Value)], expected: Expect) {
    expected.assert_eq(&seen(policies));
}

fn of_db(rest: Value) -> Value {
    let mut spec = json!({"podSelector": {"matchLabels": {"app": "db"}}});
    spec.as_object_mut().unwrap().extend(rest.as_object().unwrap().clone());
    spec
}

#[test]
fn without_policies_nobody_is_isolated() {
    assert_eq!(seen(&[]), "");
    assert_eq!(seen(&[("e/other", json!({"podSelector": {}}))]), "");
}

#[test]
fn default_deny_has_chains_without_rules() {
    check(
        &[("d/deny", json!({"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}))],
        expect![[r#"
            chain 0 Ingress
            chain 1 Egress
            Ingress of 10.42.0.2: chain 0
            Ingress of 10.42.0.3: chain 0
            Egress of 10.42.0.2: chain 1
            Egress of 10.42.0.3: chain 1"#]],
    );
}

#[test]
fn peers_are_pods_of_the_namespace_or_of_selected_ones() {
    let chain = |peers: &str| format!("chain 0 Ingress\n  r0 Pods Any\nIngress of 10.42.0.3: chain 0{peers}");
    let with = |from: Value| seen(&[("d/p", of_db(json!({"ingress": [{"from": from}]})))]);
    let web = json!({"matchLabels": {"app": "web"}});
    let team = |team: &str| json!({"matchLabels": {"team": team}});
    let (near, far) = ("\nr0 peer 10.42.0.2", "\nr0 peer 10.42.1.2");
    assert_eq!(with(json!([{"podSelector": web}])), chain(near));
    assert_eq!(with(json!([{"namespaceSelector": team("b")}])), chain(far));
    let everywhere = json!([{"namespaceSelector": {}, "podSelector": web}]);
    assert_eq!(with(everywhere), chain(&format!("{near}{far}")));
    assert_eq!(with(json!([{"namespaceSelector": team("a"), "podSelector": web}])), chain(near));
    assert_eq!(with(json!([{"namespaceSelector": team("nobody")}])), chain(""));
    let several = json!([{"podSelector": web}, {"namespaceSelector": team("b")}]);
    assert_eq!(with(several), chain(&format!("{near}{far}")));
    let anybody = "chain 0 Ingress\n  r0 Anybody Any\nIngress of 10.42.0.3: chain 0";
    assert_eq!(seen(&[("d/p", of_db(json!({"ingress": [{}]})))]), anybody);
}

#[test]
fn blocks_and_ports_become_elements() {
    let egress = json!({"policyTypes": ["Egress"], "egress": [{
        "to": [{"ipBlock": {"cidr": "10.0.0.0/30", "except": ["10.0.0.1/32"]}}, {"podSelector": {}}],
        "ports": [{"port": 80}, {"port": 81, "endPort": 90}, {"port": 85}, {"protocol": "UDP", "port": 53}],
    }]});
    check(
        &[("d/p", of_db(egress))],
        expect![[r#"
            chain 0 Egress
              r0 Pods Ranges
              r0 Blocks Ranges
            Egress of 10.42.0.3: chain 0
            r0 peer 10.42.0.2
            r0 peer 10.42.0.3
            r0 block 10.0.0.0/32
            r0 block 10.0.0.2/31
            r0 port 6 80-90
            r0 port 17 53-53"#]],
    );
}

#[test]
fn named_ports_are_those_of_the_pod_that_is_connected_to() {
    check(
        &[("d/p", of_db(json!({"ingress": [{"ports": [{"port": "http"}]}]})))],
        expect![[r#"
            chain 0 Ingress
              r0 Anybody Named
            Ingress of 10.42.0.3: chain 0
            r0 named 10.42.0.3 8080"#]],
    );
    let to = json!([{"namespaceSelector": {"matchLabels": {"team": "b"}}}]);
    let egress = json!({"policyTypes": ["Egress"], "egress": [{"to": to, "ports": [{"port": "http"}]}]});
    check(
        &[("d/p", of_db(egress))],
        expect![[r#"
            chain 0 Egress
              r0 Pods Named
            Egress of 10.42.0.3: chain 0
            r0 peer 10.42.1.2
            r0 named 10.42.1.2 8080"#]],
    );
}

#[test]
fn policies_add_up() {
    let allow =
        json!({"podSelector": {"matchLabels": {"app": "web"}}, "ingress": [{"ports": [{"port": 80}]}]});
    let (world, attached) = world(&[("d/allow", allow), ("d/deny", json!({"podSelector": {}}))]);
    let desired = compile(&world, &attached);
    let lengths: BTreeSet<usize> = desired.chains.values().map(|chain| chain.allows.len()).collect();
    assert_eq!(lengths, [0, 1].into(), "the one that denies takes nothing away");
}

#[test]
fn numbers_stay_when_pods_come_and_go() {
    let policy = of_db(json!({"ingress": [{"from": [{"podSelector": {}}]}]}));
    let (mut world, attached) = world(&[("d/p", policy)]);
    let before = compile(&world, &attached);
    world.pods.remove(&Key::new("d", "web"));
    let after = compile(&world, &attached);
    assert_eq!(before.chains, after.chains);
    let gone: Vec<&Entry> = before.entries.difference(&after.entries).collect();
    assert!(matches!(gone[..], [Entry::Peer { .. }]), "{gone:?}");
}
