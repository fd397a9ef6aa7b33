//! `cargo xtask test`.

use std::process::Command;

use crate::Failure;
use crate::setup::{clients as clients_dir, packages, real_clients, root, run, target};

/// The cargo that runs this program, as if it were called by hand.
pub fn cargo() -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(root());
    // What `cargo run` tells this program would make build scripts that watch it run anew.
    for (name, _) in std::env::vars_os() {
        let text = name.to_string_lossy();
        if text.starts_with("CARGO_PKG_") || text.starts_with("CARGO_MANIFEST_") {
            command.env_remove(&name);
        }
    }
    command
}

/// Everything.
pub fn all() -> Result<(), Failure> {
    packages()?;
    real_clients()?;
    run_unit()?;
    run_clients()
}

/// The tests beside the code and of each crate.
pub fn unit() -> Result<(), Failure> {
    packages()?;
    run_unit()
}

/// The tests with real clients against the built program.
pub fn clients() -> Result<(), Failure> {
    packages()?;
    real_clients()?;
    run_clients()
}

fn run_unit() -> Result<(), Failure> {
    run(cargo().args(["test", "--workspace", "--exclude", "acceptance"]))
}

fn run_clients() -> Result<(), Failure> {
    run(cargo().args(["build", "--package", "kobune"]))?;
    let binary = ["x86_64-unknown-linux-gnu", "aarch64-unknown-linux-gnu"]
        .iter()
        .map(|host| target().join(host).join("debug/kobune"))
        .find(|path| path.exists())
        .ok_or("the built program is not where it should be")?;
    run(cargo()
        .args(["test", "--package", "acceptance", "--", "--test-threads", "3"])
        .env("KOBUNE_BINARY", binary)
        .env("KOBUNE_TEST_CLIENTS", clients_dir()))
}
