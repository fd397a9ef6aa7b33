//! Images through a real HTTP registry on the loopback address, and from archives. Unpacking needs root.

mod registry;

use std::io::Write;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use env::Env;
use images::{
    BuiltinFile, Credentials, Image, ImageConfig, ImageError, ImageService, Images, Registries,
    RegistryConfig,
};
use serde_json::json;

use registry::{Registry, Response, digest};

fn is_root() -> bool {
    let root = std::fs::read_to_string("/proc/self/status").unwrap().contains("Uid:\t0\t");
    if !root {
        eprintln!("skipped: layers belong to root");
    }
    root
}

fn layer(files: &[(&str, &str)]) -> Vec<u8> {
    let mut archive = tar::Builder::new(Vec::new());
    for (name, content) in files {
        let mut header = tar::Header::new_gnu();
        header.set_size(content.len() as u64);
        header.set_mode(0o644);
        header.set_cksum();
        archive.append_data(&mut header, name, content.as_bytes()).unwrap();
    }
    archive.into_inner().unwrap()
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn noise(length: usize) -> String {
    let mut state = 1u32;
    let next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        char::from(b' ' + (state >> 24) as u8 % 90)
    };
    std::iter::repeat_with(next).take(length).collect()
}

/// Puts an image of two layers into a registry and returns the digest of its index.
fn publish(registry: &Registry, repository: &str) -> String {
    let layers =
        [layer(&[("etc/a", "1"), ("etc/b", "2")]), layer(&[("etc/.wh.a", ""), ("big", &noise(300_000))])];
    let packed = [gzip(&layers[0]), zstd::encode_all(&layers[1][..], 1).unwrap()];
    let config = serde_json::to_vec(&json!({"architecture": "amd64", "os": "linux",
        "config": {"Entrypoint": ["/serve"], "Env": ["A=1"], "User": "nobody", "ExposedPorts": {"80/tcp": {}}},
        "rootfs": {"type": "layers", "diff_ids": layers.iter().map(|l| digest(l)).collect::<Vec<_>>()}})).unwrap();
    let descriptor = |bytes: &[u8]| json!({"digest": registry.blob(repository, bytes), "size": bytes.len()});
    let manifest = json!({"schemaVersion": 2, "config": descriptor(&config),
        "layers": packed.iter().map(|l| descriptor(l)).collect::<Vec<_>>()});
    let manifest_digest = registry.manifest(repository, "unused", &manifest);
    let entry = |architecture: &str, digest: &str| json!({"digest": digest, "size": 1, "platform": {"os": "linux", "architecture": architecture}});
    let other = format!("sha256:{}", "0".repeat(64));
    let index = json!({"schemaVersion": 2, "manifests": [entry("s390x", &other), entry("amd64", &manifest_digest),
        entry("arm64", &manifest_digest)]});
    registry.manifest(repository, "v1", &index)
}

fn plain(hosts: &[&Registry]) -> Registries {
    let config = RegistryConfig { plain_http: true, ..RegistryConfig::default() };
    hosts.iter().map(|registry| (registry.host.clone(), config.clone())).collect()
}

fn open(directory: &Path, registries: Registries) -> Images {
    Images::open(directory, registries, &Env::system()).unwrap()
}

fn login(username: &str, password: &str) -> Credentials {
    Credentials { username: username.into(), password: password.into(), ..Credentials::default() }
}

fn check_content(image: &Image) {
    assert_eq!(image.layers.len(), 2);
    assert_eq!(std::fs::read_to_string(image.layers[0].join("etc/b")).unwrap(), "2");
    assert_eq!(std::fs::read_to_string(image.layers[1].join("big")).unwrap(), noise(300_000));
    assert_eq!(
        (image.config.entrypoint.join(" "), image.config.user.as_str()),
        ("/serve".to_owned(), "nobody")
    );
}

fn names(directory: &Path, what: &str) -> usize {
    std::fs::read_dir(directory.join("images").join(what)).unwrap().count()
}

#[tokio::test]
async fn an_image_is_pulled_once_and_removed_with_its_layers() {
    if !is_root() {
        return;
    }
    let (registry, directory) = (Registry::start().await, tempfile::tempdir().unwrap());
    let index = publish(&registry, "team/web");
    let images = open(directory.path(), plain(&[&registry]));
    let name = format!("{}/team/web:v1", registry.host);
    let mut pulls = tokio::task::JoinSet::new();
    for _ in 0..5 {
        let (images, name) = (images.clone(), name.clone());
        pulls.spawn(async move { images.pull(&name, &[]).await.unwrap() });
    }
    let pulled = pulls.join_all().await;
    assert!(pulled.windows(2).all(|pair| pair[0] == pair[1]));
    check_content(&pulled[0]);
    let layer_requests = registry.blobs_served.load(Ordering::Relaxed) - 5;
    assert_eq!(layer_requests, 2, "each layer was fetched once (and the configuration by every pull)");
    assert_eq!(pulled[0].tags.join(" "), name);
    let by_digest = format!("{}/team/web@{index}", registry.host);
    assert_eq!(pulled[0].digests.join(" "), by_digest);

    drop(images);
    let images = open(directory.path(), plain(&[&registry]));
    let short = &pulled[0].id["sha256:".len()..][..12];
    for known in [&name, &by_digest, &pulled[0].id, short] {
        assert_eq!(images.find(known).await.unwrap().as_ref(), Some(&pulled[0]), "{known}");
    }
    assert_eq!(images.pull(&by_digest, &[]).await.unwrap(), pulled[0]);
    assert_eq!(images.list().await.unwrap().len(), 1);
    images.remove(&name).await.unwrap();
    assert!(matches!(images.remove(&name).await, Err(ImageError::NotFound(_))));
    assert_eq!((images.list().await.unwrap().len(), names(directory.path(), "layers")), (0, 0));
}

#[tokio::test]
async fn tokens_are_asked_for_and_credentials_tried_in_order() {
    if !is_root() {
        return;
    }
    let (registry, directory) = (Registry::start().await, tempfile::tempdir().unwrap());
    publish(&registry, "private/web");
    let host = registry.host.clone();
    registry.rule(move |request| {
        if request.path.starts_with("/token") {
            assert!(
                request.path.contains("scope=repository%3Aprivate%2Fweb%3Apull")
                    && request.path.contains("service=test")
            );
            // user:right
            let right =
                request.headers.get("authorization").is_some_and(|value| value == "Basic dXNlcjpyaWdodA==");
            return Some(if right {
                Response::new(200, r#"{"token":"secret"}"#)
            } else {
                Response::new(401, "")
            });
        }
        let allowed = request.headers.get("authorization").is_some_and(|value| value == "Bearer secret");
        let challenge = format!(
            "Bearer realm=\"http://{host}/token\",service=\"test\",scope=\"repository:private/web:pull\""
        );
        (!allowed).then(|| Response::new(401, "").header("www-authenticate", challenge))
    });
    let images = open(directory.path(), plain(&[&registry]));
    let name = format!("{}/private/web:v1", registry.host);
    for wrong in [&[][..], &[login("user", "wrong")]] {
        let error = images.pull(&name, wrong).await.unwrap_err();
        assert!(matches!(&error, ImageError::Denied { name: denied, .. } if *denied == name), "{error}");
    }
    check_content(&images.pull(&name, &[login("user", "wrong"), login("user", "right")]).await.unwrap());
    let mut configured = plain(&[&registry]);
    let entry = configured.get_mut(&registry.host).unwrap();
    (entry.username, entry.password) = ("user".into(), "right".into());
    let elsewhere = tempfile::tempdir().unwrap();
    check_content(&open(elsewhere.path(), configured).pull(&name, &[]).await.unwrap());
}

#[tokio::test]
async fn basic_authentication() {
    if !is_root() {
        return;
    }
    let (registry, directory) = (Registry::start().await, tempfile::tempdir().unwrap());
    publish(&registry, "web");
    registry.rule(|request| {
        let allowed =
            request.headers.get("authorization").is_some_and(|value| value == "Basic dXNlcjpyaWdodA==");
        (!allowed).then(|| Response::new(401, "").header("www-authenticate", "Basic realm=\"r\""))
    });
    let images = open(directory.path(), plain(&[&registry]));
    let name = format!("{}/web:v1", registry.host);
    assert!(matches!(images.pull(&name, &[]).await, Err(ImageError::Denied { .. })));
    check_content(&images.pull(&name, &[login("user", "right")]).await.unwrap());
}

#[tokio::test]
async fn mirrors_come_first_and_are_not_relied_on() {
    if !is_root() {
        return;
    }
    let (mirror, empty, directory) =
        (Registry::start().await, Registry::start().await, tempfile::tempdir().unwrap());
    publish(&mirror, "library/web");
    let mut registries = plain(&[&mirror]);
    let mirrors = vec![format!("http://{}", empty.host), mirror.host.clone()];
    registries.insert("docker.io".into(), RegistryConfig { mirrors, ..RegistryConfig::default() });
    let images = open(directory.path(), registries);
    let image = images.pull("web:v1", &[login("for", "docker.io only")]).await.unwrap();
    check_content(&image);
    assert_eq!(image.tags, ["docker.io/library/web:v1"]);
    assert!(!empty.log.lock().is_empty());
    assert_eq!(images.find("web:v1").await.unwrap(), Some(image));
}

#[tokio::test]
async fn blobs_are_fetched_from_elsewhere_without_the_registrys_secrets() {
    if !is_root() {
        return;
    }
    let (registry, storage, directory) =
        (Registry::start().await, Registry::start().await, tempfile::tempdir().unwrap());
    publish(&registry, "web");
    publish(&storage, "web");
    let host = storage.host.clone();
    registry.rule(move |request| {
        if !request.headers.contains_key("authorization") {
            return Some(Response::new(401, "").header("www-authenticate", "Basic realm=\"r\""));
        }
        let redirect = || Response::new(307, "").header("location", format!("http://{host}{}", request.path));
        request.path.contains("/blobs/").then(redirect)
    });
    let leaked = Arc::new(AtomicUsize::new(0));
    let seen = leaked.clone();
    storage.rule(move |request| {
        seen.fetch_add(usize::from(request.headers.contains_key("authorization")), Ordering::Relaxed);
        None
    });
    let images = open(directory.path(), plain(&[&registry]));
    check_content(&images.pull(&format!("{}/web:v1", registry.host), &[login("a", "b")]).await.unwrap());
    assert_eq!((leaked.load(Ordering::Relaxed), storage.blobs_served.load(Ordering::Relaxed)), (0, 3));
}

#[tokio::test]
async fn a_broken_connection_is_resumed() {
    if !is_root() {
        return;
    }
    let (registry, directory) = (Registry::start().await, tempfile::tempdir().unwrap());
    publish(&registry, "web");
    let big = zstd::encode_all(&layer(&[("etc/.wh.a", ""), ("big", &noise(300_000))])[..], 1).unwrap();
    let path = format!("/v2/web/blobs/{}", digest(&big));
    let (attempts, ranges) = (AtomicUsize::new(0), Arc::new(parking_lot::Mutex::new(Vec::new())));
    let seen = ranges.clone();
    registry.rule(move |request| {
        if request.path != path {
            return None;
        }
        seen.lock().push(request.headers.get("range").cloned());
        let first = attempts.fetch_add(1, Ordering::Relaxed) == 0;
        first.then(|| Response { cut_at: Some(100_000), ..Response::new(200, big.clone()) })
    });
    let images = open(directory.path(), plain(&[&registry]));
    check_content(&images.pull(&format!("{}/web:v1", registry.host), &[]).await.unwrap());
    let ranges = ranges.lock().clone();
    assert!(ranges.len() == 2 && ranges[1].as_ref().is_some_and(|range| *range != "bytes=0-"), "{ranges:?}");
    assert_eq!(names(directory.path(), "work"), 0);
}

#[tokio::test]
async fn what_is_not_as_promised_is_refused() {
    if !is_root() {
        return;
    }
    let (registry, directory) = (Registry::start().await, tempfile::tempdir().unwrap());
    publish(&registry, "web");
    let small = gzip(&layer(&[("etc/a", "1"), ("etc/b", "2")]));
    let path = format!("/v2/web/blobs/{}", digest(&small));
    let mut other = small.clone();
    other[12] ^= 1;
    registry.rule(move |request| (request.path == path).then(|| Response::new(200, other.clone())));
    let images = open(directory.path(), plain(&[&registry]));
    let error = images.pull(&format!("{}/web:v1", registry.host), &[]).await.unwrap_err();
    assert!(error.to_string().contains("arrived damaged"), "{error}");
    assert!(images.list().await.unwrap().is_empty());
    for (name, expected) in [("web:v2", "not found"), ("none:v1", "not found")] {
        let error = images.pull(&format!("{}/{name}", registry.host), &[]).await.unwrap_err();
        assert!(matches!(error, ImageError::NotFound(_)), "{name} {expected}: {error}");
    }
    let silent = images.pull("127.0.0.1:1/web", &[]).await.unwrap_err();
    assert!(matches!(silent, ImageError::Registry { .. }), "{silent}");
    assert!(matches!(images.pull("Bad Name", &[]).await, Err(ImageError::InvalidName { .. })));
}

#[tokio::test]
async fn another_process_is_seen_and_containers_keep_their_layers() {
    if !is_root() {
        return;
    }
    let (registry, directory) = (Registry::start().await, tempfile::tempdir().unwrap());
    publish(&registry, "web");
    let name = format!("{}/web:v1", registry.host);
    let running = open(directory.path(), plain(&[&registry]));
    let by_hand = open(directory.path(), plain(&[&registry]));
    let image = by_hand.pull(&name, &[]).await.unwrap();
    assert_eq!(running.find(&name).await.unwrap().as_ref(), Some(&image));
    let links = directory.path().join("containers/all/c1/l");
    std::fs::create_dir_all(&links).unwrap();
    std::os::unix::fs::symlink(&image.layers[1], links.join("0")).unwrap();
    by_hand.remove(&name).await.unwrap();
    assert_eq!(running.find(&name).await.unwrap(), None);
    assert_eq!(image.layers.iter().map(|layer| layer.is_dir()).collect::<Vec<_>>(), [false, true]);
    std::fs::create_dir(directory.path().join("images").join("work").join("half")).unwrap();
    std::fs::remove_dir_all(directory.path().join("containers")).unwrap();
    drop((running, by_hand));
    let _clean = open(directory.path(), Registries::new());
    assert_eq!((names(directory.path(), "work"), names(directory.path(), "layers")), (0, 0));
}

fn archive(files: &[(&str, &[u8])]) -> Vec<u8> {
    let mut archive = tar::Builder::new(Vec::new());
    for (name, content) in files {
        let mut header = tar::Header::new_gnu();
        header.set_size(content.len() as u64);
        header.set_mode(0o644);
        header.set_cksum();
        archive.append_data(&mut header, name, *content).unwrap();
    }
    archive.into_inner().unwrap()
}

#[tokio::test]
async fn archives_of_both_kinds_are_imported() {
    if !is_root() {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let images = open(directory.path(), Registries::new());
    let content = layer(&[("hello", "world")]);
    let config =
        serde_json::to_vec(&json!({"config": {"Cmd": ["x"]}, "rootfs": {"diff_ids": [digest(&content)]}}))
            .unwrap();
    let saved = json!([{"Config": "c.json", "RepoTags": ["web:v1"], "Layers": ["l/layer.tar"]}]);
    let saved = archive(&[
        ("c.json", &config),
        ("l/layer.tar", &content),
        ("manifest.json", &serde_json::to_vec(&saved).unwrap()),
    ]);
    let file = directory.path().join("saved.tar");
    std::fs::write(&file, gzip(&saved)).unwrap();
    let imported = images.import(&file, None).await.unwrap();
    assert_eq!((imported.len(), imported[0].tags.join(" ")), (1, "docker.io/library/web:v1".to_owned()));
    assert_eq!(imported[0].id, digest(&config));
    assert_eq!(std::fs::read_to_string(imported[0].layers[0].join("hello")).unwrap(), "world");

    let packed = gzip(&content);
    let blob = |bytes: &[u8]| format!("blobs/sha256/{}", &digest(bytes)[7..]);
    let manifest = serde_json::to_vec(
        &json!({"schemaVersion": 2, "config": {"digest": digest(&config), "size": config.len()},
        "layers": [{"digest": digest(&packed), "size": packed.len()}]}),
    )
    .unwrap();
    let index = serde_json::to_vec(
        &json!({"schemaVersion": 2, "manifests": [{"digest": digest(&manifest), "size": manifest.len(),
        "annotations": {"org.opencontainers.image.ref.name": "v2"}}]}),
    )
    .unwrap();
    let layout = archive(&[
        ("oci-layout", b"{}"),
        ("index.json", &index),
        (&blob(&manifest), &manifest),
        (&blob(&config), &config),
        (&blob(&packed), &packed),
    ]);
    std::fs::write(&file, layout).unwrap();
    let imported = images.import(&file, Some("example.com/web:v2")).await.unwrap();
    assert_eq!(
        imported[0].tags,
        ["docker.io/library/web:v1", "example.com/web:v2"],
        "the same image has both names"
    );
    std::fs::write(&file, archive(&[("x", b"y")])).unwrap();
    assert!(matches!(images.import(&file, None).await, Err(ImageError::Damaged { .. })));
    assert_eq!(names(directory.path(), "work"), 0);
}

#[tokio::test]
async fn built_in_images_follow_their_files() {
    if !is_root() {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let images = open(directory.path(), Registries::new());
    let binary = directory.path().join("binary");
    std::fs::write(&binary, "one").unwrap();
    let files = [
        BuiltinFile { path: "/kobune".into(), source: binary.clone(), mode: 0o755 },
        BuiltinFile { path: "/tmp".into(), source: "".into(), mode: 0o1777 },
    ];
    let config = ImageConfig { entrypoint: vec!["/kobune".into()], ..ImageConfig::default() };
    let name = "kobune.local/web:latest";
    let first = images.ensure_builtin(name, &config, &files).unwrap();
    assert_eq!(images.ensure_builtin(name, &config, &files).unwrap(), first);
    assert_eq!(std::fs::read_to_string(first.layers[0].join("kobune")).unwrap(), "one");
    std::fs::remove_file(&binary).unwrap();
    std::fs::write(&binary, "another").unwrap();
    let second = images.ensure_builtin(name, &config, &files).unwrap();
    assert_ne!(second.id, first.id);
    assert_eq!(std::fs::read_to_string(second.layers[0].join("kobune")).unwrap(), "another");
    assert_eq!(images.find(name).await.unwrap().unwrap().id, second.id);
}

#[tokio::test]
async fn a_private_authority_is_trusted_when_configured() {
    if !is_root() {
        return;
    }
    let signed = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).unwrap();
    let key = rustls::pki_types::PrivateKeyDer::try_from(signed.signing_key.serialize_der()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![signed.cert.der().clone()], key)
        .unwrap();
    let registry = Registry::serve(Some(Arc::new(config).into())).await;
    publish(&registry, "web");
    let directory = tempfile::tempdir().unwrap();
    let name = format!("{}/web:v1", registry.host);
    let unknown = open(directory.path(), Registries::new()).pull(&name, &[]).await.unwrap_err().to_string();
    assert!(unknown.contains("certificate"), "{unknown}");
    let file = directory.path().join("ca.pem");
    std::fs::write(&file, signed.cert.pem()).unwrap();
    let config = RegistryConfig { ca_file: Some(file), ..RegistryConfig::default() };
    let images = open(directory.path(), [(registry.host.clone(), config)].into());
    check_content(&images.pull(&name, &[]).await.unwrap());
}

/// Against the registry and the tool that Debian packages, where they are installed.
#[tokio::test]
async fn debians_registry() {
    let installed = |program: &str| {
        std::env::split_paths(&std::env::var_os("PATH").unwrap()).any(|p| p.join(program).exists())
    };
    if !is_root() || !installed("docker-registry") || !installed("skopeo") {
        eprintln!("skipped: needs root and the packages docker-registry and skopeo");
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let content = layer(&[("hello", "world")]);
    let config =
        serde_json::to_vec(&json!({"architecture": "amd64", "os": "linux", "config": {"Cmd": ["x"]},
        "rootfs": {"type": "layers", "diff_ids": [digest(&content)]}}))
        .unwrap();
    let saved = json!([{"Config": "c.json", "RepoTags": ["web:v1"], "Layers": ["l.tar"]}]);
    let saved = archive(&[
        ("c.json", &config),
        ("l.tar", &content),
        ("manifest.json", &serde_json::to_vec(&saved).unwrap()),
    ]);
    let file = directory.path().join("saved.tar");
    std::fs::write(&file, saved).unwrap();
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let yaml = format!(
        "version: 0.1\nstorage: {{filesystem: {{rootdirectory: {}}}}}\nhttp: {{addr: 127.0.0.1:{port}}}\n",
        directory.path().join("registry").display()
    );
    let settings = directory.path().join("registry.yml");
    std::fs::write(&settings, yaml).unwrap();
    let mut server = tokio::process::Command::new("docker-registry")
        .arg("serve")
        .arg(&settings)
        .stdout(std::process::Stdio::null())
        .stderr(std::process::Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    for _ in 0..500 {
        if tokio::net::TcpStream::connect(("127.0.0.1", port)).await.is_ok() {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    let name = format!("127.0.0.1:{port}/team/web:v1");
    for format in ["v2s2", "oci"] {
        let pushed = tokio::process::Command::new("skopeo")
            .args(["copy", "--insecure-policy", "--dest-tls-verify=false", "--format", format])
            .arg(format!("docker-archive:{}", file.display()))
            .arg(format!("docker://{name}"))
            .output()
            .await
            .unwrap();
        assert!(pushed.status.success(), "{}", String::from_utf8_lossy(&pushed.stderr));
        let plain_http = RegistryConfig { plain_http: true, ..RegistryConfig::default() };
        let registries = [(format!("127.0.0.1:{port}"), plain_http)].into();
        let image = open(&directory.path().join(format), registries).pull(&name, &[]).await.unwrap();
        assert_eq!(std::fs::read_to_string(image.layers[0].join("hello")).unwrap(), "world");
        assert_eq!(image.config.command, ["x"]);
    }
    server.kill().await.unwrap();
}
