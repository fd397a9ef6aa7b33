//! `tokenreviews` and `selfsubjectreviews`: who somebody is.

use std::sync::Arc;

use async_trait::async_trait;
use auth::User;
use client::WriteOptions;
use machinery::Status;
use serde_json::{Value, json};

use super::{Computation, text};
use crate::core::Core;
use crate::pipeline::{Call, meta};

pub(super) struct TokenReview;

#[async_trait]
impl Computation for TokenReview {
    async fn compute(
        &self,
        core: &Arc<Core>,
        _call: &Call,
        body: Value,
        _options: &WriteOptions,
    ) -> Result<Value, Status> {
        if text(&body, "/spec/token").is_empty() {
            return Err(Status::bad_request("token is required for TokenReview in authentication"));
        }
        Ok(core.tokens.review(&body).await)
    }
}

pub(super) struct SelfSubjectReview;

#[async_trait]
impl Computation for SelfSubjectReview {
    async fn compute(
        &self,
        core: &Arc<Core>,
        call: &Call,
        mut body: Value,
        _options: &WriteOptions,
    ) -> Result<Value, Status> {
        let user: &User = &call.caller.user;
        body["metadata"] = json!({"creationTimestamp": meta::time(core.env.now())});
        body["status"] = json!({"userInfo": user});
        Ok(body)
    }
}
