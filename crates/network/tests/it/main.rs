//! The network against the kernel, in network namespaces of the tests' own. Needs root; skips without.

mod announce;
mod overlay;
mod pods;
mod policy;

use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::time::Duration;

use linux::net::namespace;

/// Runs an async test in a network namespace of its own.
fn isolated(work: impl AsyncFnOnce(PathBuf) + Send) {
    if !std::fs::read_to_string("/proc/self/status").unwrap().contains("Uid:\t0\t") {
        eprintln!("skipped: making network namespaces needs root");
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().to_owned();
    namespace::within_new(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(work(path));
    })
    .unwrap();
    forget_namespaces(directory.path());
}

/// Ends the network namespaces that a test made below its directory.
fn forget_namespaces(directory: &Path) {
    for entry in std::fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        match path.is_dir() {
            true => forget_namespaces(&path),
            false if namespace::exists(&path) => namespace::remove(&path).unwrap(),
            false => {}
        }
    }
}

fn inside<T: Send>(netns: &Path, work: impl FnOnce() -> T + Send) -> T {
    namespace::within(std::fs::File::open(netns).unwrap(), work).unwrap()
}

/// Accepts one connection in a namespace, says who came, and returns its address.
fn serve(netns: &Path, address: IpAddr) -> (SocketAddr, std::thread::JoinHandle<()>) {
    let listener = inside(netns, || TcpListener::bind((address, 0)).unwrap());
    let at = listener.local_addr().unwrap();
    let thread = std::thread::spawn(move || {
        let (mut stream, from) = listener.accept().unwrap();
        stream.write_all(from.ip().to_string().as_bytes()).unwrap();
    });
    (at, thread)
}

fn fetch(to: SocketAddr) -> String {
    let mut stream = TcpStream::connect_timeout(&to, Duration::from_secs(5)).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}
