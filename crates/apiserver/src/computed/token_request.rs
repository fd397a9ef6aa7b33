//! `serviceaccounts/token`: a signed token for a service account, bound to an object if asked.

use std::sync::Arc;

use async_trait::async_trait;
use client::WriteOptions;
use machinery::Status;
use serde_json::Value;

use super::Computation;
use crate::core::Core;
use crate::pipeline::Call;

pub(super) struct TokenRequest;

#[async_trait]
impl Computation for TokenRequest {
    async fn compute(
        &self,
        core: &Arc<Core>,
        call: &Call,
        body: Value,
        _options: &WriteOptions,
    ) -> Result<Value, Status> {
        core.tokens.create(&call.target.namespace, &call.target.name, &body).await
    }
}
