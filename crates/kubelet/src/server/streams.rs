//! exec, attach and port-forward: the one place that knows the streaming protocols.

use http::{Request, StatusCode};
use hyper::body::Incoming;

use super::{Answer, Failure, Server};

impl Server {
    pub(super) async fn stream(&self, request: Request<Incoming>) -> Answer {
        let path = request.uri().path();
        Err(Failure::new(StatusCode::NOT_IMPLEMENTED, format!("streaming is not available: {path}")))
    }
}
