use expect_test::{Expect, expect};
use serde_json::json;

use super::*;
use crate::zone::compile;

fn zone() -> Zone {
    let mut zone = Zone::default();
    let mut add = |name: &str, spec: serde_json::Value, slice: serde_json::Value| {
        let service =
            serde_json::from_value(json!({"metadata": {"name": name, "namespace": "d"}, "spec": spec}))
                .unwrap();
        let mut slice = slice;
        slice["metadata"] = json!({"name": name});
        slice["addressType"] = json!("IPv4");
        let slice = serde_json::from_value(slice).unwrap();
        zone.set_service(&Key::new("d", name), compile(&service, &[&slice]));
    };
    let ports = json!([{"name": "http", "port": 80}, {"name": "dns", "port": 53, "protocol": "UDP"}]);
    let pods = json!([{"addresses": ["10.42.0.6"], "hostname": "Db-1"}, {"addresses": ["10.42.0.5"]},
        {"addresses": ["10.42.0.7"], "conditions": {"ready": false}}]);
    let slice = json!({"endpoints": pods, "ports": [{"name": "http", "port": 8080}]});
    add(
        "web",
        json!({"clusterIP": "10.96.0.7", "clusterIPs": ["10.96.0.7", "fd00:96::7"], "ports": ports}),
        slice.clone(),
    );
    add("db", json!({"clusterIP": "None", "ports": ports}), slice);
    let nothing = json!({"endpoints": []});
    add("empty", json!({"clusterIP": "None"}), nothing.clone());
    add("out", json!({"type": "ExternalName", "externalName": "example.com"}), nothing.clone());
    add(
        "alias",
        json!({"type": "ExternalName", "externalName": "web.d.svc.cluster.local."}),
        nothing.clone(),
    );
    add("loop", json!({"type": "ExternalName", "externalName": "loop.d.svc.cluster.local"}), nothing);
    zone.set_namespace("d", true);
    zone
}

fn check(questions: &[(&str, RecordType)], expected: Expect) {
    let settings = Settings {
        domain: Name::from_ascii("cluster.local.").unwrap(),
        ttl: 5,
        servers: vec!["10.96.0.10".parse().unwrap()],
    };
    let (zone, mut text) = (zone(), String::new());
    for (name, kind) in questions {
        text += &format!("{name} {kind}:");
        match answer(&zone, &settings, &Name::from_ascii(name).unwrap(), *kind) {
            None => text += " not ours\n",
            Some(answer) => {
                text += &format!(" {:?}", answer.code);
                text += &answer.elsewhere.map(|name| format!(", then ask for {name}")).unwrap_or_default();
                text += if answer.authorities.is_empty() { "\n" } else { ", SOA\n" };
                let records = answer.answers.iter().map(|r| format!("  {} {}\n", r.name, r.data));
                let additional = answer.additionals.iter().map(|r| format!("  ({} {})\n", r.name, r.data));
                text.extend(records.chain(additional));
            }
        }
    }
    expected.assert_eq(&text);
}

#[test]
fn services_have_their_addresses() {
    check(
        &[
            ("web.d.svc.cluster.local.", RecordType::A),
            ("WEB.d.svc.Cluster.Local.", RecordType::AAAA),
            ("web.d.svc.cluster.local.", RecordType::MX),
            ("web.d.svc.cluster.local.", RecordType::SRV),
            ("_dns._udp.web.d.svc.cluster.local.", RecordType::SRV),
            ("_dns._tcp.web.d.svc.cluster.local.", RecordType::SRV),
            ("_udp.web.d.svc.cluster.local.", RecordType::SRV),
        ],
        expect![[r#"
            web.d.svc.cluster.local. A: NoError
              web.d.svc.cluster.local. 10.96.0.7
            WEB.d.svc.Cluster.Local. AAAA: NoError
              WEB.d.svc.Cluster.Local. fd00:96::7
            web.d.svc.cluster.local. MX: NoError, SOA
            web.d.svc.cluster.local. SRV: NoError
              web.d.svc.cluster.local. 0 50 80 web.d.svc.cluster.local.
              web.d.svc.cluster.local. 0 50 53 web.d.svc.cluster.local.
              (web.d.svc.cluster.local. 10.96.0.7)
            _dns._udp.web.d.svc.cluster.local. SRV: NoError
              _dns._udp.web.d.svc.cluster.local. 0 100 53 web.d.svc.cluster.local.
              (web.d.svc.cluster.local. 10.96.0.7)
            _dns._tcp.web.d.svc.cluster.local. SRV: NXDomain, SOA
            _udp.web.d.svc.cluster.local. SRV: NoError, SOA
        "#]],
    );
}

#[test]
fn headless_services_have_their_ready_endpoints() {
    check(
        &[
            ("db.d.svc.cluster.local.", RecordType::A),
            ("db.d.svc.cluster.local.", RecordType::AAAA),
            ("db-1.db.d.svc.cluster.local.", RecordType::A),
            ("10-42-0-5.db.d.svc.cluster.local.", RecordType::A),
            ("10-42-0-7.db.d.svc.cluster.local.", RecordType::A),
            ("_http._tcp.db.d.svc.cluster.local.", RecordType::SRV),
            ("empty.d.svc.cluster.local.", RecordType::A),
        ],
        expect![[r#"
            db.d.svc.cluster.local. A: NoError
              db.d.svc.cluster.local. 10.42.0.5
              db.d.svc.cluster.local. 10.42.0.6
            db.d.svc.cluster.local. AAAA: NoError, SOA
            db-1.db.d.svc.cluster.local. A: NoError
              db-1.db.d.svc.cluster.local. 10.42.0.6
            10-42-0-5.db.d.svc.cluster.local. A: NoError
              10-42-0-5.db.d.svc.cluster.local. 10.42.0.5
            10-42-0-7.db.d.svc.cluster.local. A: NXDomain, SOA
            _http._tcp.db.d.svc.cluster.local. SRV: NoError
              _http._tcp.db.d.svc.cluster.local. 0 50 8080 10-42-0-5.db.d.svc.cluster.local.
              _http._tcp.db.d.svc.cluster.local. 0 50 8080 db-1.db.d.svc.cluster.local.
              (10-42-0-5.db.d.svc.cluster.local. 10.42.0.5)
              (db-1.db.d.svc.cluster.local. 10.42.0.6)
            empty.d.svc.cluster.local. A: NXDomain, SOA
        "#]],
    );
}

#[test]
fn aliases_lead_in_and_out() {
    check(
        &[
            ("out.d.svc.cluster.local.", RecordType::A),
            ("out.d.svc.cluster.local.", RecordType::CNAME),
            ("alias.d.svc.cluster.local.", RecordType::A),
            ("loop.d.svc.cluster.local.", RecordType::TXT),
        ],
        expect![[r#"
            out.d.svc.cluster.local. A: NoError, then ask for example.com.
              out.d.svc.cluster.local. example.com.
            out.d.svc.cluster.local. CNAME: NoError
              out.d.svc.cluster.local. example.com.
            alias.d.svc.cluster.local. A: NoError
              alias.d.svc.cluster.local. web.d.svc.cluster.local.
              web.d.svc.cluster.local. 10.96.0.7
            loop.d.svc.cluster.local. TXT: NoError
              loop.d.svc.cluster.local. loop.d.svc.cluster.local.
        "#]],
    );
}

#[test]
fn pods_addresses_and_the_domain_itself() {
    check(
        &[
            ("10-42-0-9.d.pod.cluster.local.", RecordType::A),
            ("10-42-0-9.none.pod.cluster.local.", RecordType::A),
            ("nonsense.d.pod.cluster.local.", RecordType::A),
            ("7.0.96.10.in-addr.arpa.", RecordType::PTR),
            ("6.0.42.10.in-addr.arpa.", RecordType::PTR),
            ("9.9.9.9.in-addr.arpa.", RecordType::PTR),
            ("0.96.10.in-addr.arpa.", RecordType::PTR),
            ("dns-version.cluster.local.", RecordType::TXT),
            ("cluster.local.", RecordType::NS),
            ("cluster.local.", RecordType::SOA),
            ("ns.dns.cluster.local.", RecordType::A),
        ],
        expect![[r#"
            10-42-0-9.d.pod.cluster.local. A: NoError
              10-42-0-9.d.pod.cluster.local. 10.42.0.9
            10-42-0-9.none.pod.cluster.local. A: NXDomain, SOA
            nonsense.d.pod.cluster.local. A: NXDomain, SOA
            7.0.96.10.in-addr.arpa. PTR: NoError
              7.0.96.10.in-addr.arpa. web.d.svc.cluster.local.
            6.0.42.10.in-addr.arpa. PTR: NoError
              6.0.42.10.in-addr.arpa. db-1.db.d.svc.cluster.local.
            9.9.9.9.in-addr.arpa. PTR: not ours
            0.96.10.in-addr.arpa. PTR: not ours
            dns-version.cluster.local. TXT: NoError
              dns-version.cluster.local. 1.1.0
            cluster.local. NS: NoError
              cluster.local. ns.dns.cluster.local.
            cluster.local. SOA: NoError
              cluster.local. ns.dns.cluster.local. hostmaster.cluster.local. 1 7200 1800 86400 5
            ns.dns.cluster.local. A: NoError
              ns.dns.cluster.local. 10.96.0.10
        "#]],
    );
}

#[test]
fn what_is_not_there_is_denied_at_once() {
    check(
        &[
            ("example.com.d.svc.cluster.local.", RecordType::A),
            ("none.d.svc.cluster.local.", RecordType::A),
            ("d.svc.cluster.local.", RecordType::A),
            ("none.svc.cluster.local.", RecordType::A),
            ("svc.cluster.local.", RecordType::A),
            ("example.com.cluster.local.", RecordType::A),
            ("example.com.", RecordType::A),
            ("notcluster.local.", RecordType::A),
        ],
        expect![[r#"
            example.com.d.svc.cluster.local. A: NXDomain, SOA
            none.d.svc.cluster.local. A: NXDomain, SOA
            d.svc.cluster.local. A: NoError, SOA
            none.svc.cluster.local. A: NXDomain, SOA
            svc.cluster.local. A: NoError, SOA
            example.com.cluster.local. A: NXDomain, SOA
            example.com. A: not ours
            notcluster.local. A: not ours
        "#]],
    );
}

#[test]
fn a_service_that_goes_takes_its_names_along() {
    let mut zone = zone();
    zone.set_service(&Key::new("d", "web"), None);
    assert_eq!(zone.owner("10.96.0.7".parse().unwrap()), None);
    let left = zone.owner("10.42.0.6".parse().unwrap()).unwrap();
    assert_eq!(left.service, Key::new("d", "db"), "the endpoint's other Service keeps its name");
}
