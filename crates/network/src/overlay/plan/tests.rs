use std::collections::BTreeMap;

use expect_test::{Expect, expect};
use linux::net::route::{PROTOCOL_OVERLAY, PROTOCOL_STATIC};
use linux::net::{Address, Link, Route, RouteKind};

use super::*;
use crate::overlay::Udp;

fn link(index: u32, name: &str, kind: &str) -> Link {
    Link { index, name: name.into(), kind: kind.into(), mtu: 1500, up: true, ..Link::default() }
}

fn machine() -> Machine {
    let route = |to: &str| Route {
        destination: to.parse().unwrap(),
        kind: RouteKind::Link,
        link: 2,
        source: None,
        protocol: PROTOCOL_STATIC,
    };
    Machine {
        base: Observed {
            links: vec![link(1, "lo", ""), link(2, "eth0", ""), link(3, "kobune0", "bridge")],
            addresses: vec![
                Address { link: 2, address: "192.0.2.1/24".parse().unwrap() },
                Address { link: 2, address: "2001:db8::1/64".parse().unwrap() },
            ],
            routes: vec![route("0.0.0.0/0"), route("192.0.2.0/24")],
        },
        ..Machine::default()
    }
}

fn config(backend: Backend, six: bool) -> Config {
    let pick = |four: &str, other: &str| -> Vec<IpNet> {
        [Some(four), six.then_some(other)].into_iter().flatten().map(|range| range.parse().unwrap()).collect()
    };
    let mut node_addresses: Vec<IpAddr> = vec!["192.0.2.1".parse().unwrap()];
    node_addresses.extend(six.then(|| "2001:db8::1".parse::<IpAddr>().unwrap()));
    Config {
        pod_cidrs: pick("10.42.0.0/24", "fd42:0:0:1::/64"),
        cluster_cidrs: pick("10.42.0.0/16", "fd42::/48"),
        node_addresses,
        backend,
        ..Config::default()
    }
}

fn lease(backend: &Backend, ranges: &[&str], public: &[&str]) -> Lease {
    let ranges: Vec<IpNet> = ranges.iter().map(|range| range.parse().unwrap()).collect();
    let public: Vec<IpAddr> = public.iter().map(|address| address.parse().unwrap()).collect();
    Lease::own(backend, &ranges, &public, &[])
}

fn show(config: &Config, leases: &[Lease], machine: &Machine) -> String {
    let names = (1..).map(|number| format!("n{number}"));
    let leases: BTreeMap<String, Lease> = names.zip(leases.iter().cloned()).collect();
    let desired = compile(config, &leases, machine);
    let mut text = String::new();
    for device in &desired.devices {
        let (mtu, at) = (device.mtu, &device.addresses);
        text += &format!("device {} mtu {mtu} {at:?} {:?}\n", device.name, device.tunnel);
    }
    for (device, address, mac) in &desired.neighbours {
        text += &format!("neighbour {device} {address} {mac:x?}\n");
    }
    for (device, mac, to) in &desired.forwardings {
        text += &format!("forwarding {device} {mac:x?} {to}\n");
    }
    for PodRoute { to, gateway, device, source } in &desired.routes {
        text += &format!("route {to} {gateway:?} {device} from {source}\n");
    }
    for (range, peer) in &desired.peers {
        text += &format!("peer {range} {peer}\n");
    }
    for problem in &desired.problems {
        text += &format!("problem: {problem}\n");
    }
    text
}

fn check(config: &Config, leases: &[Lease], expected: Expect) {
    expected.assert_eq(&show(config, leases, &machine()));
}

#[test]
fn vxlan_has_three_entries_per_node_and_one_device() {
    let backend = Backend::default();
    let leases = [
        lease(&backend, &["10.42.1.0/24"], &["192.0.2.2"]),
        lease(&backend, &["10.42.2.0/24"], &["198.51.100.3"]),
    ];
    check(
        &config(backend.clone(), false),
        &leases,
        expect![[r#"
        device flannel.1 mtu 1450 [10.42.0.0/32] Some(([10, 89, 10, 42, 0, 0], Vxlan { id: 1, port: 8472, local: 192.0.2.1, underlay: 2 }))
        neighbour flannel.1 10.42.1.0 [a, 59, a, 2a, 1, 0]
        neighbour flannel.1 10.42.2.0 [a, 59, a, 2a, 2, 0]
        forwarding flannel.1 [a, 59, a, 2a, 1, 0] 192.0.2.2
        forwarding flannel.1 [a, 59, a, 2a, 2, 0] 198.51.100.3
        route 10.42.1.0/24 Some(10.42.1.0) flannel.1 from 10.42.0.1
        route 10.42.2.0/24 Some(10.42.2.0) flannel.1 from 10.42.0.1
    "#]],
    );
    check(&config(backend, false), &[], expect![""]);
}

#[test]
fn direct_routing_is_for_nodes_on_the_same_link() {
    let backend = Backend::Vxlan(Vxlan { direct_routing: true, ..Vxlan::default() });
    let leases = [
        lease(&backend, &["10.42.1.0/24"], &["192.0.2.2"]),
        lease(&backend, &["10.42.2.0/24"], &["198.51.100.3"]),
    ];
    check(
        &config(backend, false),
        &leases,
        expect![[r#"
        device flannel.1 mtu 1450 [10.42.0.0/32] Some(([10, 89, 10, 42, 0, 0], Vxlan { id: 1, port: 8472, local: 192.0.2.1, underlay: 2 }))
        neighbour flannel.1 10.42.2.0 [a, 59, a, 2a, 2, 0]
        forwarding flannel.1 [a, 59, a, 2a, 2, 0] 198.51.100.3
        route 10.42.1.0/24 Some(192.0.2.2) eth0 from 10.42.0.1
        route 10.42.2.0/24 Some(10.42.2.0) flannel.1 from 10.42.0.1
    "#]],
    );
}

#[test]
fn host_gw_says_which_nodes_it_cannot_reach() {
    let backend = Backend::HostGw;
    let leases = [
        lease(&backend, &["10.42.1.0/24"], &["192.0.2.2"]),
        lease(&backend, &["10.42.2.0/24"], &["198.51.100.3"]),
    ];
    check(
        &config(backend, false),
        &leases,
        expect![[r#"
        route 10.42.1.0/24 Some(192.0.2.2) eth0 from 10.42.0.1
        problem: node n2: 198.51.100.3 is not on a link of this node, as the backend host-gw needs it
    "#]],
    );
}

#[test]
fn udp_names_peers() {
    let backend = Backend::Udp(Udp::default());
    let leases = [lease(&backend, &["10.42.1.0/24"], &["198.51.100.3"])];
    check(
        &config(backend, false),
        &leases,
        expect![[r#"
        device flannel0 mtu 1472 [10.42.0.0/32] None
        route 10.42.1.0/24 None flannel0 from 10.42.0.1
        peer 10.42.1.0/24 198.51.100.3:8285
    "#]],
    );
}

#[test]
fn each_family_has_its_own_tunnel_where_both_ends_can() {
    let backend = Backend::default();
    let leases = [
        lease(&backend, &["10.42.1.0/24", "fd42:0:0:2::/64"], &["192.0.2.2", "2001:db8::2"]),
        lease(&backend, &["10.42.2.0/24", "fd42:0:0:3::/64"], &["192.0.2.3"]),
    ];
    check(
        &config(backend, true),
        &leases,
        expect![[r#"
        device flannel.1 mtu 1430 [10.42.0.0/32] Some(([10, 89, 10, 42, 0, 0], Vxlan { id: 1, port: 8472, local: 192.0.2.1, underlay: 2 }))
        device flannel-v6.1 mtu 1430 [fd42:0:0:1::/128] Some(([10, 90, 10, 42, 0, 0], Vxlan { id: 1, port: 8472, local: 2001:db8::1, underlay: 2 }))
        neighbour flannel-v6.1 fd42:0:0:2:: [a, 5a, a, 2a, 1, 0]
        neighbour flannel.1 10.42.1.0 [a, 59, a, 2a, 1, 0]
        neighbour flannel.1 10.42.2.0 [a, 59, a, 2a, 2, 0]
        neighbour flannel.1 fd42:0:0:3:: [a, 59, a, 2a, 2, 0]
        forwarding flannel-v6.1 [a, 5a, a, 2a, 1, 0] 2001:db8::2
        forwarding flannel.1 [a, 59, a, 2a, 1, 0] 192.0.2.2
        forwarding flannel.1 [a, 59, a, 2a, 2, 0] 192.0.2.3
        route 10.42.1.0/24 Some(10.42.1.0) flannel.1 from 10.42.0.1
        route 10.42.2.0/24 Some(10.42.2.0) flannel.1 from 10.42.0.1
        route fd42:0:0:2::/64 Some(fd42:0:0:2::) flannel-v6.1 from fd42:0:0:1::1
        route fd42:0:0:3::/64 Some(fd42:0:0:3::) flannel.1 from fd42:0:0:1::1
    "#]],
    );
}

#[test]
fn nodes_that_cannot_be_are_left_out_with_the_reason() {
    let backend = Backend::default();
    let mut silent = lease(&backend, &["10.42.6.0/24"], &["192.0.2.6"]);
    silent.tunnel_mac = [None, None];
    let leases = [
        lease(&Backend::HostGw, &["10.42.1.0/24"], &["192.0.2.2"]),
        lease(&backend, &["10.42.0.0/25"], &["192.0.2.3"]),
        lease(&backend, &["10.50.0.0/24"], &["192.0.2.4"]),
        lease(&backend, &["10.42.5.0/24"], &["2001:db8::5"]),
        silent,
        lease(&backend, &["10.42.7.0/24"], &["192.0.2.7"]),
        lease(&backend, &["10.42.7.0/24"], &["192.0.2.8"]),
        Lease { backend: String::new(), ..lease(&backend, &["10.42.8.0/24"], &[]) },
    ];
    let mut machine = machine();
    machine.base.routes.push(Route {
        destination: "10.42.7.0/26".parse().unwrap(),
        kind: RouteKind::Gateway("192.0.2.254".parse().unwrap()),
        link: 2,
        source: None,
        protocol: PROTOCOL_STATIC,
    });
    expect![[r#"
        problem: node n1: uses the backend host-gw and this node vxlan
        problem: node n2: its pod range 10.42.0.0/25 overlaps 10.42.0.0/24 of another node
        problem: node n3: its pod range 10.50.0.0/24 is not within the cluster's network
        problem: node n4: has no address of a family that this node has one of
        problem: node n5: says no hardware address of its tunnel
        problem: node n6: its pod range 10.42.7.0/24 overlaps this machine's route 10.42.7.0/26
        problem: node n7: its pod range 10.42.7.0/24 overlaps this machine's route 10.42.7.0/26
    "#]]
    .assert_eq(&show(&config(backend, false), &leases, &machine));
}

/// What the machine would be after the steps.
fn carry_out(machine: &mut Machine, desired: &Desired, config: &Config) {
    for (index, device) in (10..).zip(&desired.devices) {
        let (mac, tunnel) = device.tunnel.unwrap();
        let made = Link {
            mac: Some(mac),
            vxlan: Some(tunnel),
            mtu: device.mtu,
            ..link(index, &device.name, "vxlan")
        };
        machine.base.links.push(made);
        machine.base.addresses.extend(device.addresses.iter().map(|a| Address { link: index, address: *a }));
    }
    let steps = diff_entries(config, desired, machine);
    machine.neighbours.extend(steps.neighbours);
    machine.forwardings.extend(steps.forwardings);
    machine.base.routes.extend(steps.routes);
}

#[test]
fn applying_twice_does_nothing_and_a_moved_node_is_followed() {
    let backend = Backend::default();
    let config = config(backend.clone(), false);
    let leases = |at: &str| -> BTreeMap<String, Lease> {
        [("n1".to_owned(), lease(&backend, &["10.42.1.0/24"], &[at]))].into()
    };
    let mut machine = machine();
    let desired = compile(&config, &leases("192.0.2.2"), &machine);
    assert_eq!(diff_links(&config, &desired, &machine).len(), 2);
    carry_out(&mut machine, &desired, &config);
    assert_eq!(compile(&config, &leases("192.0.2.2"), &machine), desired, "its own routes are no overlap");
    assert_eq!(diff_links(&config, &desired, &machine), []);
    assert!(diff_entries(&config, &desired, &machine).is_empty());

    let moved = compile(&config, &leases("192.0.2.9"), &machine);
    let steps = diff_entries(&config, &moved, &machine);
    assert_eq!((steps.routes.len(), steps.neighbours.len()), (0, 0));
    assert_eq!(steps.forwardings[0].to, "192.0.2.9".parse::<IpAddr>().unwrap());
    assert_eq!(steps.remove_forwardings[0].to, "192.0.2.2".parse::<IpAddr>().unwrap());

    let gone = compile(&config, &BTreeMap::new(), &machine);
    let steps = diff_entries(&config, &gone, &machine);
    let removed = (steps.remove_routes.len(), steps.remove_neighbours.len(), steps.remove_forwardings.len());
    assert_eq!(removed, (1, 1, 1));
    assert_eq!(diff_links(&config, &gone, &machine), [LinkStep::Remove(10)]);
}

#[test]
fn a_device_that_was_changed_is_mended() {
    let backend = Backend::default();
    let config = config(backend.clone(), false);
    let leases = [("n1".to_owned(), lease(&backend, &["10.42.1.0/24"], &["192.0.2.2"]))].into();
    let mut machine = machine();
    let desired = compile(&config, &leases, &machine);
    carry_out(&mut machine, &desired, &config);
    let found = machine.base.links.last_mut().unwrap();
    (found.up, found.mtu) = (false, 1400);
    let steps = diff_links(&config, &desired, &machine);
    assert_eq!(steps, [LinkStep::SetMtu(10, 1450), LinkStep::SetUp(10)]);
    machine.base.links.last_mut().unwrap().mac = Some([0; 6]);
    let steps = diff_links(&config, &desired, &machine);
    assert!(
        matches!(steps[..], [LinkStep::Remove(10), LinkStep::Create { .. }, LinkStep::AddAddress(..)]),
        "{steps:?}"
    );
}

#[test]
fn tools_read_the_ranges_in_a_file() {
    expect![[r#"
        FLANNEL_NETWORK=10.42.0.0/16
        FLANNEL_SUBNET=10.42.0.1/24
        FLANNEL_IPV6_NETWORK=fd42::/48
        FLANNEL_IPV6_SUBNET=fd42:0:0:1::1/64
        FLANNEL_MTU=1430
        FLANNEL_IPMASQ=true
    "#]]
    .assert_eq(&subnet_file(&config(Backend::default(), true), 1430));
    let protocol = PROTOCOL_OVERLAY;
    assert_ne!(protocol, PROTOCOL_STATIC);
}
