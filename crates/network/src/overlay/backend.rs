//! How packets reach the pods of other nodes: the configuration, as flannel spells it.

use serde::{Deserialize, Serialize};

const VNI: u32 = 1;
const VNI_MAX: u32 = (1 << 24) - 1;
const VXLAN_PORT: u16 = 8472;
const UDP_PORT: u16 = 8285;
/// Ethernet 14, VXLAN 8, UDP 8, IPv4 20.
const VXLAN_OVERHEAD: u32 = 50;
/// UDP 8, IPv4 20.
const UDP_OVERHEAD: u32 = 28;
/// An IPv6 header is longer than one of IPv4.
const IPV6_EXTRA: u32 = 20;

/// How packets reach the pods of other nodes.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(try_from = "Raw", into = "Raw")]
pub enum Backend {
    /// In VXLAN frames (RFC 7348): works wherever nodes reach each other by UDP.
    Vxlan(Vxlan),
    /// By routes through the other nodes, which must be on the same link.
    HostGw,
    /// In UDP datagrams that this process carries: slow, for where neither of the others works.
    Udp(Udp),
    /// Somebody else makes the routes.
    Alloc,
}

/// The `vxlan` backend's settings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Vxlan {
    /// The network's identifier.
    pub vni: u32,
    /// UDP.
    pub port: u16,
    /// Nodes on the same link are reached by routes, as with `host-gw`.
    pub direct_routing: bool,
}

/// The `udp` backend's settings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Udp {
    pub port: u16,
}

impl Default for Vxlan {
    fn default() -> Self {
        Self { vni: VNI, port: VXLAN_PORT, direct_routing: false }
    }
}

impl Default for Udp {
    fn default() -> Self {
        Self { port: UDP_PORT }
    }
}

impl Default for Backend {
    fn default() -> Self {
        Self::Vxlan(Vxlan::default())
    }
}

impl Backend {
    /// Its name in configurations and on Nodes.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Vxlan(_) => "vxlan",
            Self::HostGw => "host-gw",
            Self::Udp(_) => "udp",
            Self::Alloc => "alloc",
        }
    }

    /// Bytes that it adds to a packet.
    pub fn overhead(&self, ipv6: bool) -> u32 {
        let extra = if ipv6 { IPV6_EXTRA } else { 0 };
        match self {
            Self::Vxlan(_) => VXLAN_OVERHEAD + extra,
            Self::Udp(_) => UDP_OVERHEAD + extra,
            Self::HostGw | Self::Alloc => 0,
        }
    }

    /// The names of the devices that it may make; `prefix` is `flannel` where tools look for them.
    pub(crate) fn devices(&self, prefix: &str) -> Vec<String> {
        match self {
            Self::Vxlan(vxlan) => [true, false].map(|ipv4| vxlan.device(prefix, ipv4)).into(),
            Self::Udp(_) => vec![tun_device(prefix)],
            Self::HostGw | Self::Alloc => Vec::new(),
        }
    }
}

/// The `udp` backend's device.
pub(crate) fn tun_device(prefix: &str) -> String {
    format!("{prefix}0")
}

impl Vxlan {
    /// The device of one family of tunnels.
    pub(crate) fn device(&self, prefix: &str, ipv4: bool) -> String {
        format!("{prefix}{}.{}", if ipv4 { "" } else { "-v6" }, self.vni)
    }
}

#[derive(Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct Raw {
    #[serde(alias = "Type")]
    r#type: String,
    #[serde(alias = "VNI")]
    #[serde(skip_serializing_if = "Option::is_none")]
    vni: Option<u32>,
    #[serde(alias = "Port")]
    #[serde(skip_serializing_if = "Option::is_none")]
    port: Option<u16>,
    #[serde(alias = "DirectRouting")]
    #[serde(skip_serializing_if = "Option::is_none")]
    direct_routing: Option<bool>,
}

impl From<Backend> for Raw {
    fn from(backend: Backend) -> Self {
        let mut raw = Self { r#type: backend.name().to_owned(), ..Self::default() };
        match backend {
            Backend::Vxlan(Vxlan { vni, port, direct_routing }) => {
                (raw.vni, raw.port, raw.direct_routing) = (Some(vni), Some(port), Some(direct_routing));
            }
            Backend::Udp(Udp { port }) => raw.port = Some(port),
            Backend::HostGw | Backend::Alloc => {}
        }
        raw
    }
}

impl TryFrom<Raw> for Backend {
    type Error = String;

    fn try_from(raw: Raw) -> Result<Self, String> {
        let name = raw.r#type.to_lowercase();
        let (vxlan, udp) = (name == "vxlan", name == "udp");
        let misplaced = [
            ("vni", raw.vni.is_some() && !vxlan),
            ("directRouting", raw.direct_routing.is_some() && !vxlan),
            ("port", raw.port.is_some() && !vxlan && !udp),
        ];
        if let Some((field, _)) = misplaced.iter().find(|(_, misplaced)| *misplaced) {
            return Err(format!("backend {name} has no setting {field}"));
        }
        match name.as_str() {
            "vxlan" => {
                let vni = raw.vni.unwrap_or(VNI);
                if vni == 0 || vni > VNI_MAX {
                    return Err(format!("vni {vni} is not between 1 and {VNI_MAX}"));
                }
                let port = raw.port.unwrap_or(VXLAN_PORT);
                let direct_routing = raw.direct_routing.unwrap_or(false);
                Ok(Self::Vxlan(Vxlan { vni, port, direct_routing }))
            }
            "host-gw" => Ok(Self::HostGw),
            "udp" => Ok(Self::Udp(Udp { port: raw.port.unwrap_or(UDP_PORT) })),
            "alloc" => Ok(Self::Alloc),
            "wireguard" | "ipip" | "ipsec" | "extension" | "tencent-vpc" => Err(format!(
                "backend {name} is not part of this version; choose vxlan, host-gw, udp or alloc"
            )),
            _ => Err(format!("there is no backend {name:?}; choose vxlan, host-gw, udp or alloc")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn configurations_are_read_as_flannel_spells_them() {
        let read = |text: &str| serde_json::from_str::<Backend>(text).map_err(|error| error.to_string());
        assert_eq!(read(r#"{"Type":"vxlan"}"#), Ok(Backend::default()));
        let direct = Vxlan { vni: 7, port: 4789, direct_routing: true };
        let full = r#"{"Type":"VXLAN","VNI":7,"Port":4789,"DirectRouting":true}"#;
        assert_eq!(read(full), Ok(Backend::Vxlan(direct)));
        let camel = r#"{"type":"vxlan","vni":7,"port":4789,"directRouting":true}"#;
        assert_eq!(read(camel), Ok(Backend::Vxlan(direct)));
        assert_eq!(read(r#"{"Type":"host-gw"}"#), Ok(Backend::HostGw));
        assert_eq!(read(r#"{"type":"udp"}"#), Ok(Backend::Udp(Udp { port: 8285 })));
        for (wrong, words) in [
            (r#"{"Type":"wireguard"}"#, "is not part of this version; choose vxlan"),
            (r#"{"Type":"vxlna"}"#, "there is no backend \"vxlna\""),
            (r#"{"Type":"host-gw","VNI":3}"#, "backend host-gw has no setting vni"),
            (r#"{"Type":"vxlan","VNI":0}"#, "vni 0 is not between 1 and 16777215"),
            (r#"{"Type":"vxlan","Mtu":0}"#, "unknown field"),
        ] {
            let error = read(wrong).unwrap_err();
            assert!(error.contains(words), "{wrong}: {error}");
        }
    }
}
