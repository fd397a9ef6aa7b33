//! From a question about the cluster to its answer: a pure function, after `dns-specification` 1.1.0 of Kubernetes.

use std::net::IpAddr;

use hickory_proto::op::ResponseCode;
use hickory_proto::rr::rdata::{A, AAAA, CNAME, NS, PTR, SOA, SRV, TXT};
use hickory_proto::rr::{Name, RData, Record, RecordType};
use machinery::Key;

use crate::zone::{Endpoint, Port, ServiceRecord, Target, Zone, undashed};

const SCHEMA_VERSION: &str = "1.1.0";
/// Aliases that point at each other end somewhere.
const ALIASES_MAX: usize = 8;

/// What is the same in all answers.
#[derive(Clone, Debug)]
pub struct Settings {
    /// `cluster.local.`, in lower case.
    pub domain: Name,
    pub ttl: u32,
    /// The addresses of the name servers themselves.
    pub servers: Vec<IpAddr>,
}

/// An answer, complete but for what only other name servers know.
#[derive(Debug, PartialEq)]
pub struct Answer {
    pub code: ResponseCode,
    pub answers: Vec<Record>,
    pub authorities: Vec<Record>,
    pub additionals: Vec<Record>,
    /// The last alias leads out of the cluster, to this name.
    pub elsewhere: Option<Name>,
}

impl Answer {
    fn new(code: ResponseCode) -> Self {
        Self { code, answers: Vec::new(), authorities: Vec::new(), additionals: Vec::new(), elsewhere: None }
    }
}

/// Answers a question about the cluster's domain or addresses; `None` when it is about something else.
pub fn answer(zone: &Zone, settings: &Settings, name: &Name, kind: RecordType) -> Option<Answer> {
    if settings.domain.zone_of(name) {
        return Some(Asked { zone, settings, name, kind }.in_domain());
    }
    let address = reverse(name)?;
    let owner = zone.owner(address)?;
    let mut labels: Vec<&str> = owner.endpoint.iter().map(String::as_str).collect();
    labels.extend([owner.service.name.as_str(), &owner.service.namespace, "svc"]);
    let mut answer = Answer::new(ResponseCode::NoError);
    if matches!(kind, RecordType::PTR | RecordType::ANY) {
        let target = join(&labels, &settings.domain)?;
        answer.answers.push(Record::from_rdata(name.clone(), settings.ttl, RData::PTR(PTR(target))));
    }
    Some(answer)
}

/// The address that a name below `in-addr.arpa` or `ip6.arpa` stands for.
fn reverse(name: &Name) -> Option<IpAddr> {
    let network = name.parse_arpa_name().ok()?;
    (network.prefix_len() == network.max_prefix_len()).then(|| network.addr())
}

fn join(labels: &[&str], domain: &Name) -> Option<Name> {
    let relative = Name::from_labels(labels.iter().map(|label| label.as_bytes())).ok()?;
    relative.append_domain(domain).ok()
}

struct Asked<'a> {
    zone: &'a Zone,
    settings: &'a Settings,
    name: &'a Name,
    kind: RecordType,
}

/// What there is under a name.
enum Found<'a> {
    Nothing,
    /// The name exists and has no records of the kind asked for.
    Empty,
    Records(Vec<RData>),
    /// Records that name others, with those others' addresses.
    Services(Vec<(SRV, IpAddr)>),
    Alias(&'a str),
}

impl Asked<'_> {
    fn in_domain(&self) -> Answer {
        let mut answer = self.follow(self.name, 0);
        if answer.answers.is_empty() {
            let apex = self.settings.domain.clone();
            answer.authorities.push(Record::from_rdata(
                apex,
                self.settings.ttl,
                RData::SOA(self.start_of_authority()),
            ));
        }
        answer
    }

    fn follow(&self, name: &Name, depth: usize) -> Answer {
        let mut answer = Answer::new(ResponseCode::NoError);
        let record = |name: &Name, data: RData| Record::from_rdata(name.clone(), self.settings.ttl, data);
        match self.look_up(name) {
            Found::Nothing => answer.code = ResponseCode::NXDomain,
            Found::Empty => {}
            Found::Records(records) => {
                answer.answers = records.into_iter().map(|data| record(name, data)).collect()
            }
            Found::Services(services) => {
                for (service, address) in services {
                    answer.additionals.push(record(&service.target, address_data(address)));
                    answer.answers.push(record(name, RData::SRV(service)));
                }
                answer.additionals.dedup();
            }
            Found::Alias(target) => {
                let Ok(target) = Name::from_ascii(target.trim_end_matches('.')).map(absolute) else {
                    return answer;
                };
                answer.answers.push(record(name, RData::CNAME(CNAME(target.clone()))));
                self.chase(target, depth, &mut answer);
            }
        }
        answer
    }

    /// Goes on with what an alias points at.
    fn chase(&self, target: Name, depth: usize, answer: &mut Answer) {
        if !matches!(self.kind, RecordType::A | RecordType::AAAA) || depth >= ALIASES_MAX {
            return;
        }
        if self.settings.domain.zone_of(&target) {
            let next = self.follow(&target, depth + 1);
            answer.answers.extend(next.answers);
            answer.elsewhere = next.elsewhere;
        } else {
            answer.elsewhere = Some(target);
        }
    }

    fn look_up(&self, name: &Name) -> Found<'_> {
        let count = usize::from(name.num_labels() - self.settings.domain.num_labels());
        let labels: Option<Vec<String>> = name.iter().take(count).map(lower).collect();
        let Some(labels) = labels else { return Found::Nothing };
        let labels: Vec<&str> = labels.iter().map(String::as_str).collect();
        match labels[..] {
            [] => self.apex(),
            ["dns-version"] => {
                self.only(RecordType::TXT, vec![RData::TXT(TXT::new(vec![SCHEMA_VERSION.to_owned()]))])
            }
            ["ns", "dns"] => self.addresses(self.settings.servers.iter().copied()),
            ["svc" | "pod" | "dns"] => Found::Empty,
            [namespace, "svc" | "pod"] => self.namespace(namespace),
            [label, namespace, "pod"] => self.pod(label, namespace),
            [service, namespace, "svc"] => self.service(service, namespace),
            [label, service, namespace, "svc"] => self.endpoint(label, service, namespace),
            [port, protocol, service, namespace, "svc"] => self.port(port, protocol, service, namespace),
            _ => Found::Nothing,
        }
    }

    fn only(&self, kind: RecordType, records: Vec<RData>) -> Found<'_> {
        if self.kind == kind || self.kind == RecordType::ANY { Found::Records(records) } else { Found::Empty }
    }

    fn apex(&self) -> Found<'_> {
        match self.kind {
            RecordType::NS => {
                Found::Records(self.name_server().map(|name| RData::NS(NS(name))).into_iter().collect())
            }
            RecordType::SOA | RecordType::ANY => Found::Records(vec![RData::SOA(self.start_of_authority())]),
            _ => Found::Empty,
        }
    }

    fn name_server(&self) -> Option<Name> {
        join(&["ns", "dns"], &self.settings.domain)
    }

    fn start_of_authority(&self) -> SOA {
        let server = self.name_server().unwrap_or_else(|| self.settings.domain.clone());
        let mailbox =
            join(&["hostmaster"], &self.settings.domain).unwrap_or_else(|| self.settings.domain.clone());
        SOA::new(server, mailbox, 1, 7200, 1800, 86400, self.settings.ttl)
    }

    fn namespace(&self, namespace: &str) -> Found<'_> {
        if self.zone.has_namespace(namespace) { Found::Empty } else { Found::Nothing }
    }

    /// Whether there is such a pod is not looked at, as with CoreDNS' `pods insecure`.
    fn pod(&self, label: &str, namespace: &str) -> Found<'_> {
        match (undashed(label), self.zone.has_namespace(namespace)) {
            (Some(address), true) => self.addresses([address].into_iter()),
            _ => Found::Nothing,
        }
    }

    fn find(&self, service: &str, namespace: &str) -> Option<&ServiceRecord> {
        self.zone.service(&Key::new(namespace, service)).map(|record| &**record)
    }

    fn service(&self, service: &str, namespace: &str) -> Found<'_> {
        let Some(record) = self.find(service, namespace) else { return Found::Nothing };
        match &record.target {
            Target::External(name) => Found::Alias(name),
            Target::Headless if record.endpoints.is_empty() => Found::Nothing,
            _ if self.kind == RecordType::SRV => self.services(record, service, namespace, |_| true),
            Target::Headless => self.addresses(record.endpoints.iter().map(|endpoint| endpoint.address)),
            Target::Cluster(addresses) => self.addresses(addresses.iter().copied()),
        }
    }

    /// A name before a Service's: an endpoint's, or the middle of a port's.
    fn endpoint(&self, label: &str, service: &str, namespace: &str) -> Found<'_> {
        let Some(record) = self.find(service, namespace) else { return Found::Nothing };
        if let Some(protocol) = label.strip_prefix('_') {
            let known = record.ports.iter().any(|port| port.protocol == protocol);
            return if known { Found::Empty } else { Found::Nothing };
        }
        let endpoints: Vec<&Endpoint> =
            record.endpoints.iter().filter(|endpoint| endpoint.label == label).collect();
        match (endpoints.is_empty(), self.kind) {
            (true, _) => Found::Nothing,
            (false, RecordType::SRV) => self.of_endpoints(&endpoints, service, namespace, |_| true),
            (false, _) => self.addresses(endpoints.iter().map(|endpoint| endpoint.address)),
        }
    }

    fn port(&self, port: &str, protocol: &str, service: &str, namespace: &str) -> Found<'_> {
        let (Some(port), Some(protocol)) = (port.strip_prefix('_'), protocol.strip_prefix('_')) else {
            return Found::Nothing;
        };
        let Some(record) = self.find(service, namespace) else { return Found::Nothing };
        self.services(record, service, namespace, |found| found.name == port && found.protocol == protocol)
    }

    /// The ports of a Service: on its own name, or on its endpoints' when it has no address.
    fn services(
        &self,
        record: &ServiceRecord,
        service: &str,
        namespace: &str,
        wanted: impl Fn(&Port) -> bool,
    ) -> Found<'_> {
        match &record.target {
            Target::External(_) => Found::Nothing,
            Target::Headless => {
                let endpoints: Vec<&Endpoint> = record.endpoints.iter().collect();
                self.of_endpoints(&endpoints, service, namespace, wanted)
            }
            Target::Cluster(addresses) => {
                let Some(target) = join(&[service, namespace, "svc"], &self.settings.domain) else {
                    return Found::Nothing;
                };
                let ports: Vec<&Port> = record.ports.iter().filter(|port| wanted(port)).collect();
                let each = ports.iter().flat_map(|port| {
                    addresses.iter().take(1).map(|address| {
                        (SRV::new(0, weight(ports.len()), port.number, target.clone()), *address)
                    })
                });
                self.as_services(each.collect())
            }
        }
    }

    fn of_endpoints(
        &self,
        endpoints: &[&Endpoint],
        service: &str,
        namespace: &str,
        wanted: impl Fn(&Port) -> bool,
    ) -> Found<'_> {
        let found = endpoints.iter().flat_map(|endpoint| {
            let ports = endpoint.ports.iter().filter(|port| wanted(port));
            ports.filter_map(|port| {
                let target = join(&[&endpoint.label, service, namespace, "svc"], &self.settings.domain)?;
                Some((port.number, target, endpoint.address))
            })
        });
        let found: Vec<_> = found.collect();
        let weight = weight(found.len());
        self.as_services(
            found
                .into_iter()
                .map(|(port, target, address)| (SRV::new(0, weight, port, target), address))
                .collect(),
        )
    }

    fn as_services(&self, services: Vec<(SRV, IpAddr)>) -> Found<'_> {
        match (services.is_empty(), self.kind) {
            (true, _) => Found::Nothing,
            (false, RecordType::SRV | RecordType::ANY) => Found::Services(services),
            (false, _) => Found::Empty,
        }
    }

    fn addresses(&self, addresses: impl Iterator<Item = IpAddr>) -> Found<'_> {
        let wanted = addresses.filter(|address| match self.kind {
            RecordType::A => address.is_ipv4(),
            RecordType::AAAA => address.is_ipv6(),
            RecordType::ANY => true,
            _ => false,
        });
        let mut seen = std::collections::BTreeSet::new();
        let records: Vec<RData> = wanted.filter(|address| seen.insert(*address)).map(address_data).collect();
        if records.is_empty() { Found::Empty } else { Found::Records(records) }
    }
}

fn lower(label: &[u8]) -> Option<String> {
    String::from_utf8(label.to_ascii_lowercase()).ok()
}

fn absolute(mut name: Name) -> Name {
    name.set_fqdn(true);
    name
}

fn address_data(address: IpAddr) -> RData {
    match address {
        IpAddr::V4(address) => RData::A(A(address)),
        IpAddr::V6(address) => RData::AAAA(AAAA(address)),
    }
}

/// All are equal; the sum is a hundred, as far as that goes.
fn weight(count: usize) -> u16 {
    (100 / count.max(1)).max(1) as u16
}

#[cfg(test)]
mod tests;
