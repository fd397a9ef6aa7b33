//! The web server of the built-in image `kobune.local/web`: answers every request with the pod's name.
//!
//! Plain threads and blocking sockets: twenty of these run in the demonstration, each a few hundred kilobytes.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, Ipv6Addr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use clap::Args;
use tokio::signal::unix::{SignalKind, signal};

use crate::cli::Failure;

/// How many connections are served at once; more are closed.
const CONNECTIONS_MAX: usize = 64;
const TIMEOUT: Duration = Duration::from_secs(10);
/// The longest request head that is read.
const HEAD_MAX: u64 = 16 << 10;
const STACK: usize = 128 << 10;

/// Serve the pod's name over HTTP.
#[derive(Args)]
pub struct Web {
    /// The port to listen on.
    #[arg(long, default_value_t = 80)]
    port: u16,
}

impl Web {
    pub fn run(self) -> Result<(), Failure> {
        // Of both families, where the kernel has both.
        let listener = TcpListener::bind((Ipv6Addr::UNSPECIFIED, self.port))
            .or_else(|_| TcpListener::bind((Ipv4Addr::UNSPECIFIED, self.port)))
            .map_err(|error| Failure::new(format!("cannot listen on port {}: {error}", self.port)))?;
        let name = rustix::system::uname().nodename().to_string_lossy().into_owned();
        println!("{name} listens on port {}", self.port);
        let accepting =
            std::thread::Builder::new().stack_size(STACK).spawn(move || accept(&listener, &name.into()));
        accepting.map_err(|error| Failure::new(format!("cannot start: {error}")))?;
        // As the first process of its container it would ignore the signal that asks it to end.
        super::up::small_runtime()?.block_on(async {
            let mut terminate = signal(SignalKind::terminate()).map_err(|error| Failure::chain(&error))?;
            terminate.recv().await;
            Ok(())
        })
    }
}

/// Serves connections for ever, a bounded number at once.
fn accept(listener: &TcpListener, name: &Arc<str>) {
    let open = Arc::new(AtomicUsize::new(0));
    for connection in listener.incoming().flatten() {
        if open.fetch_add(1, Ordering::Relaxed) >= CONNECTIONS_MAX {
            open.fetch_sub(1, Ordering::Relaxed);
            continue;
        }
        let (name, open_here) = (name.clone(), open.clone());
        let serve = move || {
            if let Err(error) = serve(&connection, &name) {
                eprintln!("a connection broke: {error}");
            }
            open_here.fetch_sub(1, Ordering::Relaxed);
        };
        if let Err(error) = std::thread::Builder::new().stack_size(STACK).spawn(serve) {
            open.fetch_sub(1, Ordering::Relaxed);
            eprintln!("no thread for a connection: {error}");
        }
    }
}

/// Answers the requests of one connection until the client closes it.
fn serve(connection: &TcpStream, name: &str) -> std::io::Result<()> {
    connection.set_read_timeout(Some(TIMEOUT))?;
    connection.set_write_timeout(Some(TIMEOUT))?;
    let mut reader = BufReader::new(connection);
    while let Some((request, keep_alive)) = read_head(&mut reader)? {
        println!("{request}");
        let connection_header = if keep_alive { "keep-alive" } else { "close" };
        let body = if request.starts_with("HEAD ") { String::new() } else { format!("{name}\n") };
        let length = name.len() + 1;
        write!(
            &*connection,
            "HTTP/1.1 200 OK\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: {length}\r\n\
             Connection: {connection_header}\r\n\r\n{body}"
        )?;
        if !keep_alive {
            break;
        }
    }
    Ok(())
}

/// The request line, and whether the connection stays open; `None` when the client closed it.
fn read_head(reader: &mut impl BufRead) -> std::io::Result<Option<(String, bool)>> {
    let mut head = reader.take(HEAD_MAX);
    let mut request = String::new();
    if head.read_line(&mut request)? == 0 {
        return Ok(None);
    }
    let mut keep_alive = request.contains("HTTP/1.1");
    loop {
        let mut line = String::new();
        if head.read_line(&mut line)? == 0 || line.trim().is_empty() {
            break;
        }
        let line = line.to_ascii_lowercase();
        keep_alive &= !(line.starts_with("connection:") && line.contains("close"));
        // A body is not read, so the connection cannot carry another request behind it.
        keep_alive &= !(line.starts_with("content-length:") && line.trim_end() != "content-length: 0");
        keep_alive &= !line.starts_with("transfer-encoding:");
    }
    Ok(Some((request.trim_end().to_owned(), keep_alive)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn heads_are_read_one_after_the_other() {
        let mut input = &b"GET / HTTP/1.1\r\nHost: x\r\n\r\nGET /2 HTTP/1.1\r\nConnection: close\r\n\r\n"[..];
        assert_eq!(read_head(&mut input).unwrap(), Some(("GET / HTTP/1.1".to_owned(), true)));
        assert_eq!(read_head(&mut input).unwrap(), Some(("GET /2 HTTP/1.1".to_owned(), false)));
        assert_eq!(read_head(&mut input).unwrap(), None);
    }
}
