//! Debian's etcd on the same machine, and puts to it: gRPC without TLS, the message written by hand.

use std::net::TcpListener;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use bytes::{BufMut, Bytes, BytesMut};
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http2::{SendRequest, handshake};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpStream;

use crate::Failure;
use crate::cluster::Machine;

const PATIENCE: Duration = Duration::from_secs(20);

/// A running etcd.
pub struct Etcd {
    child: Child,
    port: u16,
    _dir: tempfile::TempDir,
}

impl Etcd {
    /// Starts etcd as it is by default: every put is on disk before it is answered.
    pub async fn start(machine: &Machine) -> Result<Self, Failure> {
        let dir = machine.directory()?;
        let (port, peers) = (free_port()?, free_port()?);
        let (clients, peers) = (format!("http://127.0.0.1:{port}"), format!("http://127.0.0.1:{peers}"));
        let mut command = Command::new("etcd");
        command.arg("--data-dir").arg(dir.path().join("etcd"));
        command.args(["--listen-client-urls", &clients, "--advertise-client-urls", &clients]);
        command.args(["--listen-peer-urls", &peers, "--initial-advertise-peer-urls", &peers]);
        command.args(["--initial-cluster", &format!("default={peers}")]);
        let child = command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .map_err(|error| format!("etcd (Debian's package etcd-server): {error}"))?;
        let etcd = Self { child, port, _dir: dir };
        let start = Instant::now();
        while let Err(failure) = etcd.answers().await {
            if start.elapsed() > PATIENCE {
                return Err(failure);
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        Ok(etcd)
    }

    async fn answers(&self) -> Result<(), Failure> {
        self.client().await?.put(b"ready", b"").await
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// A client with a connection of its own.
    pub async fn client(&self) -> Result<EtcdClient, Failure> {
        let stream = TcpStream::connect(("127.0.0.1", self.port)).await?;
        stream.set_nodelay(true)?;
        let (sender, connection) = handshake(TokioExecutor::new(), TokioIo::new(stream)).await?;
        tokio::spawn(connection);
        Ok(EtcdClient { sender, uri: format!("http://127.0.0.1:{}/etcdserverpb.KV/Put", self.port) })
    }
}

impl Drop for Etcd {
    fn drop(&mut self) {
        if self.child.kill().and_then(|()| self.child.wait()).is_err() {
            eprintln!("bench: etcd could not be stopped");
        }
    }
}

/// One connection to etcd.
pub struct EtcdClient {
    sender: SendRequest<Full<Bytes>>,
    uri: String,
}

impl EtcdClient {
    /// `etcdserverpb.KV/Put`.
    pub async fn put(&self, key: &[u8], value: &[u8]) -> Result<(), Failure> {
        let request = http::Request::post(&self.uri)
            .header("content-type", "application/grpc")
            .header("te", "trailers")
            .body(Full::new(put_request(key, value)))?;
        let answer = self.sender.clone().send_request(request).await?;
        let headers = answer.headers().clone();
        let body = answer.into_body().collect().await?;
        let status = body.trailers().and_then(|trailers| trailers.get("grpc-status"));
        match status.or_else(|| headers.get("grpc-status")) {
            Some(code) if code == "0" => Ok(()),
            other => Err(format!("etcd answered {other:?}").into()),
        }
    }
}

/// A gRPC frame with an `etcdserverpb.PutRequest`: field 1 is the key, field 2 the value.
fn put_request(key: &[u8], value: &[u8]) -> Bytes {
    let mut message = BytesMut::new();
    for (tag, field) in [(0x0a, key), (0x12, value)] {
        message.put_u8(tag);
        let mut length = field.len();
        while length >= 0x80 {
            message.put_u8((length & 0x7f) as u8 | 0x80);
            length >>= 7;
        }
        message.put_u8(length as u8);
        message.put_slice(field);
    }
    let mut frame = BytesMut::with_capacity(message.len() + 5);
    frame.put_u8(0);
    frame.put_u32(u32::try_from(message.len()).unwrap_or(u32::MAX));
    frame.put_slice(&message);
    frame.freeze()
}

fn free_port() -> Result<u16, Failure> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_put_on_the_wire() {
        let frame = put_request(b"k", &[7; 200]);
        assert_eq!(&frame[..11], [0, 0, 0, 0, 206, 0x0a, 1, b'k', 0x12, 0xc8, 0x01]);
        assert_eq!(frame.len(), 5 + 206);
    }
}
