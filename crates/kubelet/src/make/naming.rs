//! Names in the pod: hostname, `/etc/hosts`, `/etc/resolv.conf`.

use std::collections::BTreeSet;

use k8s_openapi::api::core::v1::Pod;

/// The cluster's DNS as pods are told.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ClusterDns {
    /// Addresses of the DNS service; empty when there is none.
    pub servers: Vec<String>,
    /// `cluster.local`.
    pub domain: String,
}

/// What a resolver file says.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Resolver {
    pub servers: Vec<String>,
    pub searches: Vec<String>,
    pub options: Vec<String>,
}

impl Resolver {
    /// Reads `resolv.conf`; the last `search` or `domain` wins.
    pub fn parse(text: &str) -> Self {
        let mut resolver = Self::default();
        for line in text.lines() {
            let mut words = line.split_whitespace();
            let keyword = words.next();
            let rest = words.take_while(|word| !word.starts_with(['#', ';'])).map(str::to_owned);
            match keyword {
                Some("nameserver") => resolver.servers.extend(rest.take(1)),
                Some("search" | "domain") => {
                    resolver.searches = rest.filter(|domain| domain != ".").collect()
                }
                Some("options") => resolver.options = rest.collect(),
                _ => {}
            }
        }
        resolver
    }

    /// The file's text.
    pub fn render(&self) -> String {
        let mut text = String::new();
        if !self.searches.is_empty() {
            text += &format!("search {}\n", self.searches.join(" "));
        }
        for server in self.servers.iter().take(3) {
            text += &format!("nameserver {server}\n");
        }
        if !self.options.is_empty() {
            text += &format!("options {}\n", self.options.join(" "));
        }
        text
    }
}

/// The pod's resolver by its policy, from the host's and the cluster's.
pub fn resolver(pod: &Pod, host: &Resolver, cluster: &ClusterDns) -> Resolver {
    let spec = pod.spec.clone().unwrap_or_default();
    let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
    let host_network = spec.host_network == Some(true);
    let in_cluster = match spec.dns_policy.as_deref().unwrap_or("ClusterFirst") {
        "ClusterFirst" => !host_network,
        "ClusterFirstWithHostNet" => true,
        _ => false,
    };
    let mut resolver = match spec.dns_policy.as_deref() {
        Some("None") => Resolver::default(),
        _ if in_cluster && !cluster.servers.is_empty() => cluster_resolver(namespace, host, cluster),
        _ => host.clone(),
    };
    let Some(extra) = &spec.dns_config else { return resolver };
    append_unique(&mut resolver.servers, extra.nameservers.iter().flatten().cloned());
    append_unique(&mut resolver.searches, extra.searches.iter().flatten().cloned());
    for option in extra.options.iter().flatten() {
        let name = option.name.clone().unwrap_or_default();
        resolver.options.retain(|known| known.split(':').next() != Some(&name));
        resolver.options.push(match option.value.as_deref() {
            None | Some("") => name,
            Some(value) => format!("{name}:{value}"),
        });
    }
    resolver
}

fn cluster_resolver(namespace: &str, host: &Resolver, cluster: &ClusterDns) -> Resolver {
    let domain = &cluster.domain;
    let mut searches = vec![format!("{namespace}.svc.{domain}"), format!("svc.{domain}"), domain.clone()];
    append_unique(&mut searches, host.searches.iter().cloned());
    Resolver { servers: cluster.servers.clone(), searches, options: vec!["ndots:5".to_owned()] }
}

fn append_unique(list: &mut Vec<String>, more: impl Iterator<Item = String>) {
    let mut seen: BTreeSet<String> = list.iter().cloned().collect();
    list.extend(more.filter(|item| seen.insert(item.clone())));
}

/// The pod's hostname and, if it has a subdomain, its fully qualified name.
pub fn hostnames(pod: &Pod, cluster_domain: &str, node_hostname: &str) -> (String, Option<String>) {
    let spec = pod.spec.clone().unwrap_or_default();
    if let Some(name) = spec.hostname_override.filter(|name| !name.is_empty()) {
        return (name, None);
    }
    if spec.host_network == Some(true) {
        return (node_hostname.to_owned(), None);
    }
    let meta = &pod.metadata;
    let name =
        spec.hostname.filter(|name| !name.is_empty()).or_else(|| meta.name.clone()).unwrap_or_default();
    let short = name[..name.len().min(63)].trim_end_matches(['-', '.']).to_owned();
    let namespace = meta.namespace.as_deref().unwrap_or_default();
    let full = spec
        .subdomain
        .filter(|subdomain| !subdomain.is_empty())
        .map(|subdomain| format!("{short}.{subdomain}.{namespace}.svc.{cluster_domain}"));
    match (spec.set_hostname_as_fqdn, full) {
        (Some(true), Some(full)) => (full.clone(), Some(full)),
        (_, full) => (short, full),
    }
}

const HOSTS_HEAD: &str = "# Kubernetes-managed hosts file.\n\
    127.0.0.1\tlocalhost\n\
    ::1\tlocalhost ip6-localhost ip6-loopback\n\
    fe00::0\tip6-localnet\n\
    fe00::0\tip6-mcastprefix\n\
    fe00::1\tip6-allnodes\n\
    fe00::2\tip6-allrouters\n";

/// `/etc/hosts` of the pod. With the host's network it is the host's file with the aliases appended.
pub fn hosts_file(
    pod: &Pod,
    pod_ips: &[String],
    names: &(String, Option<String>),
    host_file: &str,
) -> String {
    let spec = pod.spec.clone().unwrap_or_default();
    let mut text = if spec.host_network == Some(true) {
        format!("# Kubernetes-managed hosts file (host network).\n{host_file}")
    } else {
        let mut text = HOSTS_HEAD.to_owned();
        for ip in pod_ips {
            match &names.1 {
                Some(full) => {
                    text += &format!("{ip}\t{full}\t{}\n", full.split('.').next().unwrap_or(&names.0))
                }
                None => text += &format!("{ip}\t{}\n", names.0),
            }
        }
        text
    };
    let aliases = spec.host_aliases.unwrap_or_default();
    if !aliases.is_empty() {
        text += "\n# Entries added by HostAliases.\n";
        for alias in aliases {
            text += &format!("{}\t{}\n", alias.ip, alias.hostnames.unwrap_or_default().join("\t"));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::{Expect, expect};
    use serde_json::{Value, json};

    fn pod(mut spec: Value) -> Pod {
        spec["containers"] = json!([]);
        serde_json::from_value(json!({"metadata": {"name": "web-0", "namespace": "ns"}, "spec": spec}))
            .unwrap()
    }

    fn check_resolver(spec: Value, expect: Expect) {
        let host =
            Resolver::parse("nameserver 192.0.2.1 # x\nsearch corp.example .\noptions ndots:2 rotate\n");
        let cluster = ClusterDns { servers: vec!["10.96.0.10".into()], domain: "cluster.local".into() };
        expect.assert_eq(&resolver(&pod(spec), &host, &cluster).render());
    }

    #[test]
    fn policies() {
        check_resolver(
            json!({}),
            expect![[r#"
            search ns.svc.cluster.local svc.cluster.local cluster.local corp.example
            nameserver 10.96.0.10
            options ndots:5
        "#]],
        );
        let host = expect![[r#"
            search corp.example
            nameserver 192.0.2.1
            options ndots:2 rotate
        "#]];
        check_resolver(
            json!({"dnsPolicy": "Default"}),
            expect![[r#"
            search corp.example
            nameserver 192.0.2.1
            options ndots:2 rotate
        "#]],
        );
        check_resolver(json!({"hostNetwork": true}), host);
        check_resolver(
            json!({"dnsPolicy": "None", "dnsConfig": {"nameservers": ["1.1.1.1"], "searches": ["a.b"],
                "options": [{"name": "ndots", "value": "2"}, {"name": "edns0"}]}}),
            expect![[r#"
                search a.b
                nameserver 1.1.1.1
                options ndots:2 edns0
            "#]],
        );
        check_resolver(
            json!({"hostNetwork": true, "dnsPolicy": "ClusterFirstWithHostNet",
                "dnsConfig": {"options": [{"name": "ndots", "value": "1"}]}}),
            expect![[r#"
                search ns.svc.cluster.local svc.cluster.local cluster.local corp.example
                nameserver 10.96.0.10
                options ndots:1
            "#]],
        );
    }

    #[test]
    fn names() {
        let check = |spec: Value, want: (&str, Option<&str>)| {
            let got = hostnames(&pod(spec), "cluster.local", "node");
            assert_eq!((got.0.as_str(), got.1.as_deref()), want);
        };
        check(json!({}), ("web-0", None));
        check(json!({"hostNetwork": true}), ("node", None));
        check(json!({"hostname": "h", "subdomain": "s"}), ("h", Some("h.s.ns.svc.cluster.local")));
        check(
            json!({"subdomain": "s", "setHostnameAsFQDN": true}),
            ("web-0.s.ns.svc.cluster.local", Some("web-0.s.ns.svc.cluster.local")),
        );
    }

    #[test]
    fn hosts() {
        let spec = json!({"hostAliases": [{"ip": "1.2.3.4", "hostnames": ["a", "b"]}]});
        let names = ("h".to_owned(), Some("h.s.ns.svc.c".to_owned()));
        let text = hosts_file(&pod(spec), &["10.0.0.2".to_owned()], &names, "");
        expect![[r#"
            # Kubernetes-managed hosts file.
            127.0.0.1	localhost
            ::1	localhost ip6-localhost ip6-loopback
            fe00::0	ip6-localnet
            fe00::0	ip6-mcastprefix
            fe00::1	ip6-allnodes
            fe00::2	ip6-allrouters
            10.0.0.2	h.s.ns.svc.c	h

            # Entries added by HostAliases.
            1.2.3.4	a	b
        "#]]
        .assert_eq(&text);
    }
}
