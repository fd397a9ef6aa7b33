//! The gRPC health check (`grpc.health.v1.Health/Check`), one call over HTTP/2 without TLS.

use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpStream;

use super::{address, connect_error};
use crate::machine::probe::Outcome;

const SERVING: u64 = 1;

/// Asks whether `service` (empty: the server as a whole) is serving.
pub async fn probe(host: &str, port: u16, service: &str, limit: Duration) -> Outcome {
    match tokio::time::timeout(limit, check(host, port, service)).await {
        Ok(Ok(())) => Outcome::Success,
        Ok(Err(message)) => Outcome::Failure(message),
        Err(_late) => Outcome::Failure(format!(
            "timeout: failed to connect service {:?} within {}s: context deadline exceeded",
            address(host, port),
            limit.as_secs()
        )),
    }
}

async fn check(host: &str, port: u16, service: &str) -> Result<(), String> {
    let at = address(host, port);
    let stream = TcpStream::connect((host, port))
        .await
        .map_err(|error| format!("dial tcp {at}: {}", connect_error(&error)))?;
    let text = |error: hyper::Error| format!("error: health rpc failed: {error}");
    let handshake = hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await;
    let (mut sender, connection) = handshake.map_err(text)?;
    let request = http::Request::post(format!("http://{at}/grpc.health.v1.Health/Check"))
        .header("content-type", "application/grpc")
        .header("user-agent", "kube-probe/1.36")
        .header("te", "trailers")
        .body(Full::new(Bytes::from(frame(service))))
        .map_err(|error| error.to_string())?;
    let call = async {
        let response = sender.send_request(request).await.map_err(text)?;
        let early = grpc_status(response.headers());
        let body = response.into_body().collect().await.map_err(text)?;
        let status = early.or_else(|| body.trailers().and_then(grpc_status)).unwrap_or(2);
        Ok::<_, String>((status, body.to_bytes()))
    };
    let (status, body) = tokio::select! {
        answer = call => answer?,
        ended = connection => return Err(format!("error: health rpc failed: {ended:?}")),
    };
    match status {
        0 if serving_status(&body) == Some(SERVING) => Ok(()),
        0 => Err(format!("service unhealthy (responded with {})", name_of(serving_status(&body)))),
        12 => Err("error: this server does not implement the grpc health protocol (grpc.health.v1.Health)"
            .to_owned()),
        code => Err(format!("error: health rpc failed with status code {code}")),
    }
}

fn grpc_status(headers: &http::HeaderMap) -> Option<u32> {
    headers.get("grpc-status")?.to_str().ok()?.parse().ok()
}

/// A `HealthCheckRequest` in a gRPC frame: field 1 is the service's name.
fn frame(service: &str) -> Vec<u8> {
    let mut message = Vec::new();
    if !service.is_empty() {
        message.push(0x0a);
        let mut length = service.len();
        while length >= 0x80 {
            message.push((length as u8 & 0x7f) | 0x80);
            length >>= 7;
        }
        message.push(length as u8);
        message.extend_from_slice(service.as_bytes());
    }
    let mut frame = vec![0];
    frame.extend_from_slice(&(message.len() as u32).to_be_bytes());
    frame.extend_from_slice(&message);
    frame
}

/// Field 1 of the `HealthCheckResponse`; absent is 0.
fn serving_status(body: &[u8]) -> Option<u64> {
    let message = body.get(5..)?;
    match message {
        [] => Some(0),
        [0x08, status, ..] => Some(u64::from(*status)),
        _ => None,
    }
}

fn name_of(status: Option<u64>) -> &'static str {
    match status {
        Some(1) => "SERVING",
        Some(2) => "NOT_SERVING",
        Some(3) => "SERVICE_UNKNOWN",
        _ => "UNKNOWN",
    }
}
