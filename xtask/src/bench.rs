//! `cargo xtask bench`: builds the program and the crate `bench` for release and runs the latter.

use std::process::Command;

use crate::Failure;
use crate::setup::{install, run, target};
use crate::test::cargo;

/// Whose puts stand beside our creates, and who sends from pod to pod.
const PACKAGES: [(&str, &str); 2] = [("etcd-server", "/usr/bin/etcd"), ("iperf3", "/usr/bin/iperf3")];

pub fn measure(options: &[&str]) -> Result<(), Failure> {
    install(&PACKAGES)?;
    // Together, so that what both depend on is built once and as for `cargo run --release`.
    run(cargo().args(["build", "--release", "--package", "kobune", "--package", "bench"]))?;
    let folder = ["x86_64-unknown-linux-gnu", "aarch64-unknown-linux-gnu"]
        .iter()
        .map(|host| target().join(host).join("release"))
        .find(|folder| folder.join("bench").exists())
        .ok_or("the built programs are not where they should be")?;
    run(Command::new(folder.join("bench"))
        .arg("--program")
        .arg(folder.join("kobune"))
        .arg("--json")
        .arg(target().join("bench.json"))
        .args(options))
}
