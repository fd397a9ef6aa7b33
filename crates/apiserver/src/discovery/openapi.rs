//! `/openapi/v2` and `/openapi/v3`.

use http::Response;
use machinery::Status;

use crate::core::Core;
use crate::http::body::Body;
use crate::http::service::Incoming;

pub(super) fn v2(_core: &Core, _request: &Incoming) -> Result<Response<Body>, Status> {
    Err(Status::no_such_path())
}

pub(super) fn index(_core: &Core) -> Result<Response<Body>, Status> {
    Err(Status::no_such_path())
}

pub(super) fn v3(_core: &Core, _request: &Incoming, _rest: &[&str]) -> Result<Response<Body>, Status> {
    Err(Status::no_such_path())
}
