//! A real registry with nginx out of Debian's package.

use std::path::Path;
use std::process::{Child, Command, Stdio};

use serde_json::json;

use crate::cluster::isolate;
use crate::image::{archive, busybox_root};

/// A running registry; it ends when this is dropped.
pub struct Registry {
    child: Child,
    pub port: u16,
}

impl Registry {
    pub fn start(work: &Path) -> Self {
        isolate();
        Self::start_at(work, free_port(), "")
    }

    /// On a port, with more lines in its configuration file.
    pub fn start_at(work: &Path, port: u16, more: &str) -> Self {
        isolate();
        let config = work.join("registry.yml");
        let text = format!(
            "version: 0.1\nstorage: {{filesystem: {{rootdirectory: {}}}}}\nhttp: {{addr: '127.0.0.1:{port}'}}\n{more}",
            work.join("registry").display()
        );
        std::fs::write(&config, text).unwrap();
        let mut command = Command::new("docker-registry");
        let child =
            command.arg("serve").arg(&config).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        Self { child, port }
    }

    /// Where its images are: `localhost:PORT`.
    pub fn host(&self) -> String {
        format!("localhost:{}", self.port)
    }

    /// Puts an archive's image into it, as soon as it answers.
    pub fn push(&self, archive: &Path, name: &str, arguments: &[&str]) {
        let source = format!("oci-archive:{}", archive.display());
        let target = format!("docker://{}/{name}", self.host());
        let pushed = (0..50).any(|_| {
            let mut push = Command::new("skopeo");
            push.args(["copy", "--quiet", "--dest-tls-verify=false"])
                .args(arguments)
                .args([&source, &target]);
            let done = push.stderr(Stdio::null()).status().unwrap().success();
            if !done {
                std::thread::sleep(std::time::Duration::from_millis(200));
            }
            done
        });
        assert!(pushed, "the registry took no image");
    }
}

/// A port that nobody listens on.
pub fn free_port() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

impl Drop for Registry {
    fn drop(&mut self) {
        // It may have ended by itself already.
        let _ended = self.child.kill();
        let _reaped = self.child.wait();
    }
}

/// nginx with the libraries that it is linked with.
fn nginx_root(root: &Path) {
    busybox_root(root);
    let list = Command::new("ldd").arg("/usr/sbin/nginx").output().unwrap();
    let text = String::from_utf8_lossy(&list.stdout).into_owned();
    let libraries = text.split_whitespace().filter(|word| word.starts_with('/'));
    for file in libraries.chain(["/usr/sbin/nginx", "/etc/nginx/mime.types"]) {
        let place = root.join(file.trim_start_matches('/'));
        std::fs::create_dir_all(place.parent().unwrap()).unwrap();
        std::fs::copy(file, place).unwrap();
    }
    for folder in ["var/log/nginx", "var/lib/nginx", "run", "var/www"] {
        std::fs::create_dir_all(root.join(folder)).unwrap();
    }
    std::fs::write(root.join("var/www/index.html"), "nginx answers\n").unwrap();
    let config = "user root; daemon off; error_log stderr; pid /run/nginx.pid;\nevents {}\n\
                  http { access_log off; server { listen 80; root /var/www; } }\n";
    std::fs::write(root.join("etc/nginx/nginx.conf"), config).unwrap();
}

/// A registry with nginx in it, and the image's name.
pub fn with_nginx(work: &Path) -> (Registry, String) {
    let registry = Registry::start(work);
    let root = work.join("root");
    nginx_root(&root);
    let config = json!({"Cmd": ["/usr/sbin/nginx", "-c", "/etc/nginx/nginx.conf"], "Env": ["PATH=/bin:/usr/sbin"],
        "StopSignal": "SIGQUIT"});
    let path = archive(work, "nginx", &root, config);
    registry.push(&path, "nginx:latest", &[]);
    let name = format!("{}/nginx", registry.host());
    (registry, name)
}

/// The configuration of a cluster that may use the registry of [`with_nginx`].
pub fn config(registry: &Registry) -> String {
    format!("registries:\n  '{}':\n    plainHttp: true\n", registry.host())
}
