//! ServiceAccounts.

use jiff::Timestamp;
use serde_json::Value;

use crate::{Context, Strategy, row};

pub struct ServiceAccounts;

impl Strategy for ServiceAccounts {
    fn prepare_create(&self, _context: &Context, _object: &mut Value) {}

    fn cells(&self, now: Timestamp, object: &Value) -> Vec<Value> {
        vec![row::name(object), row::created(now, object)]
    }
}
