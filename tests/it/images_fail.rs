//! Images that are not to be had: what the pod and its events say.

use std::path::Path;

use serde_json::{Value, json};

use crate::cluster::Cluster;
use crate::image::busybox_archive;
use crate::registry::{Registry, free_port};
use crate::space::{IDLE, Rest, Space, container, with};

fn run(space: &Space<'_>, name: &str, image: &str, more: Value) {
    let main = json!({"name": "main", "image": image, "command": ["sh", "-c", IDLE]});
    space.pod(name, with(json!({"containers": [main]}), more));
}

/// First the error itself is the reason, then that it is waited; the message tells why all the time.
fn says(space: &Space<'_>, pod: &str, image: &str, cause: &str) {
    for reason in ["ErrImagePull", "ImagePullBackOff"] {
        let waiting = |pod: &Value| container(pod, "main")["state"]["waiting"].clone();
        let pod = space.until(pod, reason, |pod| waiting(pod)["reason"] == reason);
        let message = waiting(&pod)["message"].as_str().unwrap_or_default().to_lowercase();
        assert!(message.contains(cause), "{cause:?} is not in {message:?}");
        assert_eq!(pod["status"]["phase"], "Pending");
    }
    let failed = space.wait("its events", || Some(space.events(pod, "Failed")).filter(|all| all.len() >= 3));
    let pulled = failed.iter().find(|text| text.starts_with(&format!("Failed to pull image \"{image}\": ")));
    let pulled = pulled.unwrap_or_else(|| panic!("{failed:?}")).to_lowercase();
    assert!(pulled.contains(cause), "{pulled}");
    for text in ["Error: ErrImagePull", "Error: ImagePullBackOff"] {
        assert!(failed.iter().any(|one| one == text), "{failed:?}");
    }
    let waits = space.events(pod, "BackOff");
    assert_eq!(waits, [format!("Back-off pulling image \"{image}\"")]);
}

fn guarded(work: &Path) -> Registry {
    let file = work.join("htpasswd");
    // `password` as bcrypt.
    let line = "user:$2y$05$c4WoMPo3SXsafkva.HHa6uyvdTqVqeGuuv76QmS.t1ryNDtvJiOyS\n";
    std::fs::write(&file, line).unwrap();
    Registry::start_at(
        work,
        free_port(),
        &format!("auth: {{htpasswd: {{realm: test, path: {}}}}}\n", file.display()),
    )
}

fn secret(space: &Space<'_>, name: &str, host: &str, password: &str) {
    let config = json!({"auths": {host: {"username": "user", "password": password}}});
    let body = json!({"metadata": {"name": name}, "type": "kubernetes.io/dockerconfigjson",
        "stringData": {".dockerconfigjson": config.to_string()}});
    space.create("secrets", &body);
}

#[test]
fn images_that_are_not_to_be_had_are_explained() {
    let work = tempfile::tempdir().unwrap();
    let (open_dir, guarded_dir) = (work.path().join("open"), work.path().join("guarded"));
    for directory in [&open_dir, &guarded_dir] {
        std::fs::create_dir(directory).unwrap();
    }
    let open = Registry::start(&open_dir);
    let guarded = guarded(&guarded_dir);
    let archive = busybox_archive(&open_dir, "busybox", json!({"Cmd": ["sh"]}));
    open.push(&archive, "busybox:1", &[]);
    guarded.push(&archive, "busybox:1", &["--dest-creds", "user:password"]);
    let config = format!(
        "registries:\n  '{}': {{plainHttp: true}}\n  '{}': {{plainHttp: true}}\n",
        open.host(),
        guarded.host()
    );
    let cluster = Cluster::start("up", &[], &config);
    let rest = Rest::of(&cluster);
    let space = Space::new(&cluster, &rest, "images");
    let down = format!("localhost:{}/busybox:1", free_port());
    let missing = format!("{}/none:1", open.host());
    let tag = format!("{}/busybox:none", open.host());
    let closed = format!("{}/busybox:1", guarded.host());
    secret(&space, "right", &guarded.host(), "password");
    secret(&space, "wrong", &guarded.host(), "mistaken");
    let secrets = |name: &str| json!({"imagePullSecrets": [{"name": name}]});
    run(&space, "down", &down, json!({}));
    run(&space, "missing", &missing, json!({}));
    run(&space, "tag", &tag, json!({}));
    run(&space, "anonymous", &closed, json!({}));
    run(&space, "wrong", &closed, secrets("wrong"));
    std::thread::scope(|scope| {
        for (pod, image, cause) in [
            ("down", &down, "connection refused"),
            ("missing", &missing, "not found"),
            ("tag", &tag, "not found"),
            ("anonymous", &closed, "unauthorized"),
            ("wrong", &closed, "unauthorized"),
        ] {
            let space = &space;
            scope.spawn(move || says(space, pod, image, cause));
        }
    });
    run(&space, "right", &closed, secrets("right"));
    space.ready("right");
    assert_eq!(space.events("right", "Pulling"), [format!("Pulling image \"{closed}\"")]);
    // When the registry has it after all, the pod that waited for it runs.
    open.push(&archive, "none:1", &[]);
    space.ready("missing");
}
