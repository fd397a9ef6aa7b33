//! `cargo xtask lint`: formatting, clippy, and the absences that ARCHITECTURE.md states.

use std::path::Path;
use std::process::Command;

use crate::Failure;
use crate::conformance::rust_files;
use crate::setup::{root, run};

/// Crates that judge: no clock, randomness, `async` or I/O.
const PURE: [&str; 2] = ["machinery", "resources"];

pub fn lint() -> Result<(), Failure> {
    run(Command::new("cargo").args(["fmt", "--all", "--check"]).current_dir(root()))?;
    crate::conformance::check()?;
    let faults = faults()?;
    if !faults.is_empty() {
        return Err(faults.join("\n").into());
    }
    let clippy = ["clippy", "--workspace", "--all-targets", "--quiet", "--", "--deny", "warnings"];
    run(Command::new("cargo").args(clippy).current_dir(root()))
}

fn faults() -> Result<Vec<String>, Failure> {
    let root = root();
    let mut faults = Vec::new();
    for file in rust_files(&root)? {
        let shown = file.strip_prefix(&root).unwrap_or(&file).to_owned();
        let text = std::fs::read_to_string(&file)?;
        faults.extend(faults_of(&shown, &text));
    }
    for entry in std::fs::read_dir(root.join("crates"))?.flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let manifest = std::fs::read_to_string(entry.path().join("Cargo.toml"))?;
        let (normal, _) = manifest.split_once("[dev-dependencies]").unwrap_or((&manifest, ""));
        let uses_store = normal.lines().any(|line| line.starts_with("store.") || line.starts_with("store ="));
        if uses_store && !["apiserver", "kobune", "testkit"].contains(&name.as_str()) {
            faults.push(format!("crates/{name}: only the API server depends on the store"));
        }
    }
    Ok(faults)
}

fn faults_of(path: &Path, text: &str) -> Vec<String> {
    let shown = path.display().to_string();
    // What follows the tests' module is not shipped.
    let code = text.split("#[cfg(test)]").next().unwrap_or(text);
    let is_test = shown.starts_with("tests/")
        || shown.contains("/tests/")
        || shown.ends_with("tests.rs")
        || shown.starts_with("xtask");
    let krate = shown.strip_prefix("crates/").and_then(|rest| rest.split('/').next()).unwrap_or_default();
    let plans = shown.ends_with("/plan.rs");
    let mut faults = Vec::new();
    for (number, line) in code.lines().enumerate() {
        let line = line.trim();
        if line.starts_with("//") || is_test {
            continue;
        }
        let mut fault = |what: &str| faults.push(format!("{shown}:{}: {what}", number + 1));
        if krate != "linux" && line.contains("unsafe {") {
            fault("only `linux` has unsafe code");
        }
        if (PURE.contains(&krate) || plans) && (line.contains("async fn") || line.contains("std::fs")) {
            fault("judgement does no I/O and is not async");
        }
        if krate != "env" && (line.contains("SystemTime::now()") || line.contains("Timestamp::now()")) {
            fault("the clock is read in `env` only");
        }
        if line.contains("todo!(") || line.contains("unimplemented!(") {
            fault("nothing is left to be done later");
        }
    }
    faults
}
