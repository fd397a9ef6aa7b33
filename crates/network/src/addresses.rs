//! The pod addresses of this node: handed out in turn, so that one that was just released is used last.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;

/// An IPv6 range is larger than any number of pods; only this many of its addresses are used.
const HOSTS_MAX: u128 = 1 << 16;

/// Why there is no address.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum PoolError {
    #[error("all {hosts} pod addresses of {range} are in use")]
    Exhausted { range: IpNet, hosts: u128 },
    #[error("{address} is used by sandbox {owner}")]
    Taken { address: IpAddr, owner: String },
    #[error("{address} is not a pod address of {range}")]
    Foreign { address: IpAddr, range: IpNet },
}

/// The addresses of one range: the first is the gateway's, the last of IPv4 is broadcast, the others are for pods.
#[derive(Clone, Debug)]
pub struct AddressPool {
    range: IpNet,
    used: BTreeMap<u128, String>,
    /// The offset that is tried next.
    next: u128,
}

impl AddressPool {
    pub fn new(range: IpNet) -> Self {
        Self { range: range.trunc(), used: BTreeMap::new(), next: 2 }
    }

    /// The range that the addresses are from.
    pub fn range(&self) -> IpNet {
        self.range
    }

    /// The first address: the machine's own.
    pub fn gateway(&self) -> IpAddr {
        self.at(1)
    }

    /// The next free address, now `owner`'s.
    pub fn allocate(&mut self, owner: &str) -> Result<IpAddr, PoolError> {
        let end = self.end();
        let start = if self.next >= end { 2 } else { self.next };
        let free = (start..end).chain(2..start).find(|offset| !self.used.contains_key(offset));
        let hosts = end.saturating_sub(2);
        let offset = free.ok_or(PoolError::Exhausted { range: self.range, hosts })?;
        self.used.insert(offset, owner.to_owned());
        self.next = offset + 1;
        Ok(self.at(offset))
    }

    /// Marks an address that `owner` has already.
    pub fn reserve(&mut self, address: IpAddr, owner: &str) -> Result<(), PoolError> {
        let offset = self.offset(address).ok_or(PoolError::Foreign { address, range: self.range })?;
        match self.used.get(&offset) {
            Some(other) if other != owner => Err(PoolError::Taken { address, owner: other.clone() }),
            _ => {
                self.used.insert(offset, owner.to_owned());
                self.next = self.next.max(offset + 1);
                Ok(())
            }
        }
    }

    /// Gives back what `owner` has.
    pub fn release(&mut self, owner: &str) {
        self.used.retain(|_, user| user != owner);
    }

    /// The address of `owner`.
    pub fn of(&self, owner: &str) -> Option<IpAddr> {
        self.used.iter().find(|(_, user)| *user == owner).map(|(offset, _)| self.at(*offset))
    }

    /// One past the last offset for pods.
    fn end(&self) -> u128 {
        let bits = u32::from(self.range.max_prefix_len() - self.range.prefix_len());
        let size = 1u128.checked_shl(bits).unwrap_or(u128::MAX);
        match self.range {
            IpNet::V4(_) => size.saturating_sub(1),
            IpNet::V6(_) => size.min(HOSTS_MAX),
        }
    }

    fn at(&self, offset: u128) -> IpAddr {
        match self.range.network() {
            IpAddr::V4(base) => Ipv4Addr::from(u32::from(base).wrapping_add(offset as u32)).into(),
            IpAddr::V6(base) => Ipv6Addr::from(u128::from(base).wrapping_add(offset)).into(),
        }
    }

    fn offset(&self, address: IpAddr) -> Option<u128> {
        if !self.range.contains(&address) {
            return None;
        }
        let offset = match (self.range.network(), address) {
            (IpAddr::V4(base), IpAddr::V4(address)) => u128::from(u32::from(address) - u32::from(base)),
            (IpAddr::V6(base), IpAddr::V6(address)) => u128::from(address) - u128::from(base),
            _ => return None,
        };
        (2..self.end()).contains(&offset).then_some(offset)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pool(range: &str) -> AddressPool {
        AddressPool::new(range.parse().unwrap())
    }

    #[test]
    fn a_released_address_is_used_last() {
        let mut pool = pool("10.42.0.0/29");
        let given: Vec<_> = ["a", "b", "c"].map(|owner| pool.allocate(owner).unwrap().to_string()).into();
        assert_eq!(given, ["10.42.0.2", "10.42.0.3", "10.42.0.4"]);
        pool.release("a");
        let given: Vec<_> = ["d", "e", "f"].map(|owner| pool.allocate(owner).unwrap().to_string()).into();
        assert_eq!(given, ["10.42.0.5", "10.42.0.6", "10.42.0.2"]);
        let full = pool.allocate("g").unwrap_err().to_string();
        assert_eq!(full, "all 5 pod addresses of 10.42.0.0/29 are in use");
    }

    #[test]
    fn reserved_addresses_are_kept_and_not_followed_by_released_ones() {
        let mut pool = pool("10.42.0.0/24");
        pool.reserve("10.42.0.9".parse().unwrap(), "a").unwrap();
        assert_eq!(pool.of("a"), Some("10.42.0.9".parse().unwrap()));
        assert_eq!(pool.allocate("b").unwrap().to_string(), "10.42.0.10");
        let taken = pool.reserve("10.42.0.9".parse().unwrap(), "c").unwrap_err().to_string();
        assert_eq!(taken, "10.42.0.9 is used by sandbox a");
        for foreign in ["10.42.0.0", "10.42.0.1", "10.42.0.255", "10.43.0.2", "fd00::2"] {
            assert!(pool.reserve(foreign.parse().unwrap(), "d").is_err(), "{foreign}");
        }
    }

    #[test]
    fn the_gateway_is_the_first_address_in_both_families() {
        assert_eq!(pool("10.42.3.0/24").gateway().to_string(), "10.42.3.1");
        let mut six = pool("fd00:42::/64");
        assert_eq!(six.gateway().to_string(), "fd00:42::1");
        assert_eq!(six.allocate("a").unwrap().to_string(), "fd00:42::2");
    }
}
