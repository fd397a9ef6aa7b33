//! `docs/conformance.md`: each behaviour that makes a cluster conformant, and the tests of ours that show it.
//!
//! A test says what it shows in a comment: `// conformance: [sig-node] Pods should …`. A folder of such tests says in its
//! `mod.rs` on how many nodes it runs: `// nodes: 1, 2, 5`.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::{Path, PathBuf};

use crate::Failure;
use crate::setup::root;

const NAMES: &str = include_str!("../facts/conformance.txt");
const MARK: &str = "// conformance: ";
const NODES: &str = "// nodes: ";

pub fn write() -> Result<(), Failure> {
    std::fs::write(page(), render()?)?;
    Ok(())
}

/// Fails when the page is not what [`write`] would make of the tests.
pub fn check() -> Result<(), Failure> {
    if std::fs::read_to_string(page())? == render()? {
        return Ok(());
    }
    Err("docs/conformance.md is not up to date; run: cargo xtask conformance".into())
}

fn page() -> PathBuf {
    root().join("docs/conformance.md")
}

fn render() -> Result<String, Failure> {
    let shown = marks()?;
    let known: Vec<&str> = NAMES.lines().collect();
    if let Some((unknown, place)) = shown.iter().find(|(name, _)| !known.contains(&name.as_str())) {
        return Err(format!("{}: no such behaviour: {unknown}", place[0]).into());
    }
    let mut page = String::from("# Conformance\n\n");
    let count = known.iter().filter(|name| shown.contains_key(**name)).count();
    writeln!(
        page,
        "{count} of {} behaviours have a test here. Written by `cargo xtask conformance`.\n",
        known.len()
    )?;
    let mut group = "";
    for name in known {
        let (sig, text) = name.split_once(' ').unwrap_or(("", name));
        if sig != group {
            writeln!(page, "\n## {}\n\n| behaviour | test |\n|---|---|", sig.trim_matches(['[', ']']))?;
            group = sig;
        }
        let tests = shown.get(name).map(|places| places.join(", "));
        writeln!(
            page,
            "| {} | {} |",
            text.replace('|', "\\|"),
            tests.unwrap_or_else(|| "not yet".to_owned())
        )?;
    }
    Ok(page)
}

/// Behaviour → tests.
fn marks() -> Result<BTreeMap<String, Vec<String>>, Failure> {
    let mut marks: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for file in rust_files(&root())? {
        let text = std::fs::read_to_string(&file)?;
        let shown = file.strip_prefix(root()).unwrap_or(&file).display().to_string();
        let lines: Vec<&str> = text.lines().collect();
        let nodes = nodes(&file).map(|nodes| format!(" on {nodes} nodes")).unwrap_or_default();
        for (number, line) in lines.iter().enumerate() {
            let Some(name) = line.trim().strip_prefix(MARK) else { continue };
            let function = lines[number..].iter().find_map(|line| function_name(line));
            let function =
                function.ok_or_else(|| format!("{shown}:{}: the mark stands before no test", number + 1))?;
            marks.entry(name.trim().to_owned()).or_default().push(format!("`{shown}` {function}{nodes}"));
        }
    }
    Ok(marks)
}

/// On how many nodes the tests of a file run, if its folder says so.
fn nodes(file: &Path) -> Option<String> {
    let text = std::fs::read_to_string(file.parent()?.join("mod.rs")).ok()?;
    text.lines().find_map(|line| line.strip_prefix(NODES)).map(str::to_owned)
}

fn function_name(line: &str) -> Option<&str> {
    let words = ["pub ", "pub(crate) ", "pub(super) ", "async "];
    let line = words.iter().fold(line.trim(), |line, word| line.strip_prefix(word).unwrap_or(line));
    line.strip_prefix("fn ")?.split(['(', '<']).next()
}

/// All Rust files of the repository, in order.
pub fn rust_files(root: &Path) -> Result<Vec<PathBuf>, Failure> {
    let mut files = Vec::new();
    let mut folders = vec![root.join("crates"), root.join("tests"), root.join("xtask/src")];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder)?.flatten() {
            let path = entry.path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                files.push(path);
            }
        }
    }
    files.sort();
    Ok(files)
}
