//! ServiceAllocator: gives Services their addresses and node ports.
//!
//! What is taken is kept in memory, read from the Services when first needed and again whenever something seems to be
//! taken that a caller asks for. A request's takings are given back when it does not come to be stored.

mod ledger;
mod plan;

use std::ops::RangeInclusive;
use std::sync::{Mutex, MutexGuard};

use async_trait::async_trait;
use env::Env;
use ipnet::IpNet;
use machinery::Status;
use resources::core::service::keep_allocated;
use resources::value::Access;
use serde_json::Value;
use tokio::sync::OnceCell;

use crate::lookup::Lookup;
use crate::{Attributes, Operation, Plugin};
use ledger::Ledger;

/// What can be given out.
#[derive(Clone, Debug)]
pub struct Ranges {
    /// One range per address family, the primary one first.
    pub addresses: Vec<IpNet>,
    pub node_ports: RangeInclusive<u16>,
}

pub struct ServiceAllocator {
    lookup: Lookup,
    env: Env,
    ranges: Ranges,
    ledger: Mutex<Ledger>,
    loaded: OnceCell<()>,
}

impl ServiceAllocator {
    pub fn new(lookup: Lookup, env: Env, ranges: Ranges) -> Self {
        Self { lookup, env, ranges, ledger: Mutex::default(), loaded: OnceCell::new() }
    }

    fn ledger(&self) -> MutexGuard<'_, Ledger> {
        self.ledger.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    /// Learns what stored Services hold. What requests on their way have taken stays.
    async fn load(&self) -> Result<(), Status> {
        let services = self.lookup.list("", "services", "").await?;
        self.ledger().absorb(&services);
        Ok(())
    }

    fn allocate(&self, service: &mut Value) -> Result<(), Vec<machinery::FieldError>> {
        let owner = owner(service);
        let mut random = || self.env.random_u64();
        self.ledger().allocate(&owner, service, &self.ranges, &mut random)
    }
}

/// Who holds an address: this very object, not another of its name.
fn owner(service: &Value) -> String {
    match service.text("/metadata/uid") {
        "" => format!("{}/{}", service.text("/metadata/namespace"), service.text("/metadata/name")),
        uid => uid.to_owned(),
    }
}

#[async_trait]
impl Plugin for ServiceAllocator {
    fn name(&self) -> &'static str {
        "ServiceAllocator"
    }

    fn handles(&self, attributes: &Attributes<'_>) -> bool {
        attributes.operation != Operation::Connect && attributes.is("", "services")
    }

    async fn mutate(&self, attributes: &mut Attributes<'_>) -> Result<(), Status> {
        if attributes.operation == Operation::Delete {
            return Ok(());
        }
        self.loaded.get_or_try_init(|| self.load()).await?;
        let old = attributes.old.cloned();
        let Some(service) = attributes.object.as_deref_mut() else { return Ok(()) };
        if let Some(old) = &old {
            keep_allocated(service, old);
        }
        let asked = service.clone();
        let Err(first) = self.allocate(service) else { return Ok(()) };
        // Perhaps the holder is gone: look again before refusing.
        self.load().await?;
        *service = asked;
        if self.allocate(service).is_ok() {
            return Ok(());
        }
        let name = service.text("/metadata/name").to_owned();
        Err(Status::invalid("", "Service", &name, &first))
    }

    fn finish(&self, attributes: &Attributes<'_>, committed: bool) {
        let (new, old) = (attributes.new_object(), attributes.old_object());
        let mut ledger = self.ledger();
        match (attributes.operation, committed) {
            (Operation::Delete, true) if old.items("/metadata/finalizers").is_empty() => {
                ledger.release(&owner(old), old, &Value::Null);
            }
            (Operation::Create | Operation::Update, false) => ledger.release(&owner(new), new, old),
            (Operation::Update, true) => {
                let gone =
                    new.has("/metadata/deletionTimestamp") && new.items("/metadata/finalizers").is_empty();
                let kept = if gone { &Value::Null } else { new };
                ledger.release(&owner(new), old, kept);
            }
            (Operation::Create, true) => ledger.settle(&owner(new)),
            _ => {}
        }
    }
}
