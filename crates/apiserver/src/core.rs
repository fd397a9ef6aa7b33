//! What every request needs: the one value behind all doors.

use std::sync::{Arc, OnceLock};

use arc_swap::ArcSwap;
use auth::{Authenticator, Authorizer};
use env::{Env, Shutdown};
use machinery::schema::Schema;
use resources::Table;

use crate::cache::Cache;
use crate::computed::Computations;
use crate::config::{Facts, Tokens};
use crate::connect::Connectors;
use crate::discovery::health::Health;
use crate::fairness::Fairness;
use crate::leases::Leases;
use crate::metrics::Metrics;

/// The shared state of the API server.
pub struct Core {
    pub env: Env,
    pub cache: Arc<Cache>,
    pub table: ArcSwap<Table>,
    pub schema: &'static Schema,
    pub authenticator: Arc<dyn Authenticator>,
    pub authorizer: Arc<dyn Authorizer>,
    /// Set once after the server was built: plugins need a client of it.
    pub admission: OnceLock<Arc<admission::Chain>>,
    pub computations: Computations,
    pub connectors: Connectors,
    pub tokens: Arc<dyn Tokens>,
    pub fairness: Fairness,
    pub leases: Leases,
    pub metrics: Metrics,
    pub health: Health,
    pub facts: Facts,
    /// Ends watches and forwarded connections.
    pub shutdown: Shutdown,
}

impl Core {
    /// Replaces the table: rows of custom resources come and go.
    pub async fn set_table(&self, table: Table) -> Result<(), store::StoreError> {
        self.cache.add_rows(&table).await?;
        self.table.store(Arc::new(table));
        Ok(())
    }
}
