//! The health-check ports of Services with the external traffic policy `Local`: a balancer in front of the nodes asks
//! there whether a node has endpoints.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use machinery::Key;
use parking_lot::Mutex;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;

use crate::compile::Health;

const REQUEST_MAX: usize = 8 * 1024;
const REQUEST_TIMEOUT: Duration = Duration::from_secs(5);
/// Connections of all ports together.
const CONNECTIONS_MAX: usize = 64;

/// A listener for each Service that has a health-check port.
pub(crate) struct Servers {
    running: BTreeMap<u16, Server>,
    slots: Arc<Semaphore>,
}

struct Server {
    shown: Arc<Mutex<(Key, usize)>>,
    task: JoinHandle<()>,
}

impl Default for Servers {
    fn default() -> Self {
        Self { running: BTreeMap::new(), slots: Arc::new(Semaphore::new(CONNECTIONS_MAX)) }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Servers {
    /// Brings the listeners up to date. A port that cannot be had is said so and tried again at the next change.
    pub async fn set(&mut self, wanted: &BTreeMap<Key, Health>) {
        self.running.retain(|port, _| wanted.values().any(|health| health.port == *port));
        for (service, health) in wanted {
            let shown = (service.clone(), health.local_endpoints);
            if let Some(server) = self.running.get(&health.port) {
                *server.shown.lock() = shown;
                continue;
            }
            match listen(health.port).await {
                Ok(listener) => {
                    let shown = Arc::new(Mutex::new(shown));
                    let task = tokio::spawn(serve(listener, shown.clone(), self.slots.clone()));
                    self.running.insert(health.port, Server { shown, task });
                }
                Err(error) => {
                    tracing::warn!(%service, port = health.port, %error, "no health checks for a Service");
                }
            }
        }
    }
}

/// On all addresses; a machine without IPv6 has only those of IPv4.
async fn listen(port: u16) -> std::io::Result<TcpListener> {
    match TcpListener::bind(SocketAddr::from((Ipv6Addr::UNSPECIFIED, port))).await {
        Ok(listener) => Ok(listener),
        Err(_) => TcpListener::bind(SocketAddr::from((Ipv4Addr::UNSPECIFIED, port))).await,
    }
}

async fn serve(listener: TcpListener, shown: Arc<Mutex<(Key, usize)>>, slots: Arc<Semaphore>) {
    while let Ok(slot) = slots.clone().acquire_owned().await {
        let Ok((stream, _)) = listener.accept().await else { continue };
        let answer = answer(&shown.lock());
        tokio::spawn(async move {
            let _slot = slot;
            let exchanged = tokio::time::timeout(REQUEST_TIMEOUT, exchange(stream, &answer)).await;
            if let Ok(Err(error)) = exchanged {
                tracing::debug!(%error, "a health check was cut off");
            }
        });
    }
}

/// Reads a request, which is all the same, and answers it.
async fn exchange(mut stream: TcpStream, answer: &str) -> std::io::Result<()> {
    let mut request = Vec::new();
    let mut buffer = [0; 1024];
    while !request.windows(4).any(|end| end == b"\r\n\r\n") && request.len() < REQUEST_MAX {
        match stream.read(&mut buffer).await? {
            0 => break,
            length => request.extend_from_slice(&buffer[..length]),
        }
    }
    stream.write_all(answer.as_bytes()).await?;
    stream.shutdown().await
}

fn answer((service, local_endpoints): &(Key, usize)) -> String {
    let status = if *local_endpoints > 0 { "200 OK" } else { "503 Service Unavailable" };
    let body = json!({
        "service": {"namespace": service.namespace, "name": service.name},
        "localEndpoints": local_endpoints,
        "serviceProxyHealthy": true,
    })
    .to_string();
    format!(
        "HTTP/1.1 {status}\r\nContent-Type: application/json\r\nX-Content-Type-Options: nosniff\r\n\
         X-Load-Balancing-Endpoint-Weight: {local_endpoints}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
        body.len()
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn ask(port: u16) -> Option<String> {
        let mut stream = TcpStream::connect(("127.0.0.1", port)).await.ok()?;
        stream.write_all(b"GET /healthz HTTP/1.1\r\nHost: node\r\n\r\n").await.ok()?;
        let mut text = String::new();
        stream.read_to_string(&mut text).await.ok()?;
        Some(text)
    }

    #[tokio::test]
    async fn ports_are_served_as_long_as_they_are_wanted() {
        let port = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().port();
        let key = Key::new("d", "web");
        let mut servers = Servers::default();
        for (local_endpoints, status) in [(2, "200 OK"), (0, "503 Service Unavailable")] {
            servers.set(&[(key.clone(), Health { port, local_endpoints })].into()).await;
            let text = ask(port).await.unwrap();
            assert!(text.starts_with(&format!("HTTP/1.1 {status}\r\n")), "{text}");
            assert!(
                text.contains(&format!("X-Load-Balancing-Endpoint-Weight: {local_endpoints}\r\n")),
                "{text}"
            );
            assert!(text.contains(r#""service":{"name":"web","namespace":"d"}"#), "{text}");
        }
        servers.set(&BTreeMap::new()).await;
        tokio::task::yield_now().await;
        assert_eq!(ask(port).await, None);
    }
}
