//! Who holds which address and port.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use machinery::FieldError;
use resources::value::Access;
use serde_json::Value;

use super::{Ranges, owner, plan};

/// Addresses and node ports with their holders.
#[derive(Default)]
pub struct Ledger {
    addresses: BTreeMap<IpAddr, String>,
    ports: BTreeMap<u16, String>,
    /// Holders that the last reading of the store did not show and that are on their way there.
    pending: BTreeSet<String>,
}

/// Why something cannot be had.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    #[error("is already allocated")]
    Taken,
    #[error("range is full")]
    Full,
}

impl Ledger {
    /// Sets the ledger to what `services` hold, keeping the takings of requests that are not stored yet.
    pub fn absorb(&mut self, services: &[Value]) {
        let pending = &self.pending;
        self.addresses.retain(|_, holder| pending.contains(holder));
        self.ports.retain(|_, holder| pending.contains(holder));
        for service in services {
            let holder = owner(service);
            for address in addresses(service) {
                self.addresses.insert(address, holder.clone());
            }
            for port in ports(service) {
                self.ports.insert(port, holder.clone());
            }
        }
    }

    /// Fills what a service needs and takes it; on a refusal nothing is taken.
    pub fn allocate(
        &mut self,
        holder: &str,
        service: &mut Value,
        ranges: &Ranges,
        random: &mut dyn FnMut() -> u64,
    ) -> Result<(), Vec<FieldError>> {
        let mut taken = Taken::default();
        let result =
            plan::fill(service, ranges, &mut Desk { ledger: self, holder, random, taken: &mut taken });
        if result.is_ok() {
            self.pending.insert(holder.to_owned());
        } else {
            taken.addresses.iter().for_each(|address| drop(self.addresses.remove(address)));
            taken.ports.iter().for_each(|port| drop(self.ports.remove(port)));
        }
        result
    }

    /// Gives back what `service` holds and `kept` does not. The holder is on no way any more.
    pub fn release(&mut self, holder: &str, service: &Value, kept: &Value) {
        self.pending.remove(holder);
        let stays: BTreeSet<_> = addresses(kept).collect();
        for address in addresses(service).filter(|address| !stays.contains(address)) {
            if self.addresses.get(&address).is_some_and(|known| known == holder) {
                self.addresses.remove(&address);
            }
        }
        let stays: BTreeSet<_> = ports(kept).collect();
        for port in ports(service).filter(|port| !stays.contains(port)) {
            if self.ports.get(&port).is_some_and(|known| known == holder) {
                self.ports.remove(&port);
            }
        }
    }

    /// Notes that what a request took is stored.
    pub fn settle(&mut self, holder: &str) {
        self.pending.remove(holder);
    }
}

#[derive(Default)]
pub struct Taken {
    addresses: Vec<IpAddr>,
    ports: Vec<u16>,
}

/// Where one request takes things from the ledger.
pub struct Desk<'a> {
    ledger: &'a mut Ledger,
    holder: &'a str,
    random: &'a mut dyn FnMut() -> u64,
    taken: &'a mut Taken,
}

impl Desk<'_> {
    pub fn take_address(&mut self, address: IpAddr) -> Result<(), Refusal> {
        match self.ledger.addresses.get(&address) {
            Some(holder) if holder == self.holder => Ok(()),
            Some(_) => Err(Refusal::Taken),
            None => {
                self.ledger.addresses.insert(address, self.holder.to_owned());
                self.taken.addresses.push(address);
                Ok(())
            }
        }
    }

    pub fn take_port(&mut self, port: u16) -> Result<(), Refusal> {
        match self.ledger.ports.get(&port) {
            Some(holder) if holder == self.holder => Ok(()),
            Some(_) => Err(Refusal::Taken),
            None => {
                self.ledger.ports.insert(port, self.holder.to_owned());
                self.taken.ports.push(port);
                Ok(())
            }
        }
    }

    /// Any free number of `0..count`, by `is_free`: a random one of the upper band first, then of the lower
    /// (KEP-3070), so that numbers that people write down by hand stay free longest.
    pub fn pick(
        &mut self,
        count: u128,
        band: u128,
        is_free: impl Fn(&Ledger, u128) -> bool,
    ) -> Result<u128, Refusal> {
        for (low, high) in [(band, count), (0, band)] {
            let size = high.saturating_sub(low);
            if size == 0 {
                continue;
            }
            let start = u128::from((self.random)()) % size;
            let offsets = (0..size).map(|step| low + (start + step) % size);
            // As many steps as there are holders find a free number, if there is one.
            let most = self.ledger.addresses.len() + self.ledger.ports.len() + 1;
            if let Some(free) = offsets.take(most).find(|offset| is_free(self.ledger, *offset)) {
                return Ok(free);
            }
        }
        Err(Refusal::Full)
    }
}

impl Ledger {
    pub fn has_address(&self, address: &IpAddr) -> bool {
        self.addresses.contains_key(address)
    }

    pub fn has_port(&self, port: u16) -> bool {
        self.ports.contains_key(&port)
    }
}

fn addresses(service: &Value) -> impl Iterator<Item = IpAddr> {
    let own = service.items("/spec/clusterIPs").iter().filter_map(Value::as_str);
    own.filter_map(|text| text.parse().ok())
}

fn ports(service: &Value) -> impl Iterator<Item = u16> {
    let own = service.items("/spec/ports").iter().filter_map(|port| port.int("/nodePort"));
    own.chain(service.int("/spec/healthCheckNodePort"))
        .filter_map(|port| u16::try_from(port).ok())
        .filter(|port| *port != 0)
}
