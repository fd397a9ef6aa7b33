//! Test images out of Debian's packages, as OCI archives.

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::cluster::Cluster;

fn digest(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

fn tar(folder: &Path, archive: &Path) {
    let status = Command::new("tar").arg("-cf").arg(archive).arg("-C").arg(folder).arg(".").status().unwrap();
    assert!(status.success());
}

/// Makes an OCI archive of one layer with the files of `root`; returns its path.
pub fn archive(work: &Path, name: &str, root: &Path, config: Value) -> PathBuf {
    let layout = work.join("layout");
    let blobs = layout.join("blobs/sha256");
    std::fs::create_dir_all(&blobs).unwrap();
    let layer_path = work.join("layer.tar");
    tar(root, &layer_path);
    let layer = std::fs::read(&layer_path).unwrap();
    let store = |bytes: &[u8]| {
        let digest = digest(bytes);
        std::fs::write(blobs.join(&digest), bytes).unwrap();
        (format!("sha256:{digest}"), bytes.len())
    };
    let (layer_digest, layer_size) = store(&layer);
    let image = json!({"architecture": "amd64", "os": "linux", "config": config,
        "rootfs": {"type": "layers", "diff_ids": [layer_digest]}});
    let (config_digest, config_size) = store(image.to_string().as_bytes());
    let manifest = json!({"schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": {"mediaType": "application/vnd.oci.image.config.v1+json", "digest": config_digest, "size": config_size},
        "layers": [{"mediaType": "application/vnd.oci.image.layer.v1.tar", "digest": layer_digest, "size": layer_size}]});
    let (manifest_digest, manifest_size) = store(manifest.to_string().as_bytes());
    let index = json!({"schemaVersion": 2, "manifests": [{
        "mediaType": "application/vnd.oci.image.manifest.v1+json", "digest": manifest_digest, "size": manifest_size,
        "annotations": {"org.opencontainers.image.ref.name": name}}]});
    std::fs::write(layout.join("index.json"), index.to_string()).unwrap();
    std::fs::write(layout.join("oci-layout"), json!({"imageLayoutVersion": "1.0.0"}).to_string()).unwrap();
    let path = work.join("image.tar");
    tar(&layout, &path);
    path
}

/// A root with busybox and its usual commands.
pub fn busybox_root(root: &Path) {
    for folder in ["bin", "tmp", "etc", "root"] {
        std::fs::create_dir_all(root.join(folder)).unwrap();
    }
    std::fs::copy("/bin/busybox", root.join("bin/busybox")).unwrap();
    let list = Command::new("/bin/busybox").arg("--list").output().unwrap();
    for applet in String::from_utf8_lossy(&list.stdout).lines().filter(|applet| *applet != "busybox") {
        std::os::unix::fs::symlink("busybox", root.join("bin").join(applet)).unwrap();
    }
    std::fs::write(
        root.join("etc/passwd"),
        "root:x:0:0:root:/root:/bin/sh\nuser:x:1000:1000::/tmp:/bin/sh\n",
    )
    .unwrap();
    std::fs::write(root.join("etc/group"), "root:x:0:\nuser:x:1000:\nextra:x:2000:user\n").unwrap();
}

/// A program with the libraries that it is linked with.
pub fn add_program(root: &Path, program: &str) {
    let list = Command::new("ldd").arg(program).output().unwrap();
    let list = String::from_utf8_lossy(&list.stdout).into_owned();
    let libraries = list.split_whitespace().filter(|word| word.starts_with('/'));
    for file in libraries.chain([program]) {
        let target = root.join(file.trim_start_matches('/'));
        std::fs::create_dir_all(target.parent().unwrap()).unwrap();
        std::fs::copy(file, target).unwrap();
    }
}

/// Gives the cluster the image `test.local/busybox:1`.
pub fn import_busybox(cluster: &Cluster) {
    import_busybox_as(cluster, "test.local/busybox:1", json!({"Cmd": ["sh"]}));
}

/// Gives the cluster a busybox under a name, started as `config` says.
pub fn import_busybox_as(cluster: &Cluster, name: &str, config: Value) {
    let work = tempfile::tempdir().unwrap();
    let path = busybox_archive(work.path(), name, config);
    let listed = cluster.import(&path);
    assert!(listed.contains(name), "{listed}");
}

/// An archive of busybox, started as `config` says.
pub fn busybox_archive(work: &Path, name: &str, mut config: Value) -> PathBuf {
    let root = work.join("root");
    busybox_root(&root);
    config["Env"] = json!(["PATH=/bin"]);
    archive(work, name, &root, config)
}
