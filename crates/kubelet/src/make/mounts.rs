//! A container's mounts: volumes and their parts, and the files that the kubelet manages itself.

use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use containers::{Mount, Propagation};
use k8s_openapi::api::core::v1::{Container, VolumeMount};

use super::Ingredients;
use super::expansion::expand;
use super::naming::{self, Resolver};
use crate::volumes::{fs_group, subpath};

/// Mounts, and where the termination message will be.
pub struct Made {
    pub mounts: Vec<Mount>,
    pub termination_file: PathBuf,
}

/// Where the container writes its last words.
pub fn termination_path(container: &Container) -> &str {
    container
        .termination_message_path
        .as_deref()
        .filter(|path| !path.is_empty())
        .unwrap_or("/dev/termination-log")
}

/// Makes all mounts. `variables` expands `subPathExpr`.
pub fn mounts(from: &Ingredients<'_>, variables: &dyn Fn(&str) -> Option<String>) -> Result<Made, String> {
    let container: &Container = &from.member.container;
    let uid = from.pod.metadata.uid.as_deref().unwrap_or_default();
    let mut mounts = Vec::new();
    for (index, mount) in container.volume_mounts.iter().flatten().enumerate() {
        mounts.push(volume_mount(from, uid, container, index, mount, variables)?);
    }
    let directory = from.volumes.pod_directory(uid);
    let failed = |error: io::Error| format!("failed to write the pod's files: {error}");
    let files = managed_files(from, &directory).map_err(failed)?;
    for (inside, host_path) in files {
        let taken = mounts.iter().any(|mount| mount.container_path == Path::new(inside));
        if !taken {
            mounts.push(Mount { host_path, container_path: PathBuf::from(inside), ..Mount::default() });
        }
    }
    let termination_file = directory.join("containers").join(&container.name).join(from.attempt.to_string());
    make_termination_file(&termination_file).map_err(failed)?;
    mounts.push(Mount {
        host_path: termination_file.clone(),
        container_path: PathBuf::from(termination_path(container)),
        ..Mount::default()
    });
    Ok(Made { mounts, termination_file })
}

fn volume_mount(
    from: &Ingredients<'_>,
    uid: &str,
    container: &Container,
    index: usize,
    mount: &VolumeMount,
    variables: &dyn Fn(&str) -> Option<String>,
) -> Result<Mount, String> {
    let place = from.volumes.place(uid, &mount.name);
    let place = place.ok_or_else(|| {
        format!("cannot find volume {:?} to mount into container {:?}", mount.name, container.name)
    })?;
    let host_path = match sub_path(mount, variables)? {
        None => place,
        Some(sub_path) => {
            subpath::validate(&sub_path)?;
            let parts = from.volumes.pod_directory(uid).join("volume-subpaths");
            let bound = parts.join(&mount.name).join(&container.name).join(index.to_string());
            subpath::prepare(&place, &sub_path, &bound, fs_group(from.pod))?
        }
    };
    let volumes = from.pod.spec.iter().flat_map(|spec| spec.volumes.iter().flatten());
    let of_image = volumes.into_iter().any(|volume| volume.name == mount.name && volume.image.is_some());
    let read_only = of_image || mount.read_only == Some(true);
    let mut container_path = PathBuf::from("/");
    container_path.push(&mount.mount_path);
    Ok(Mount {
        host_path,
        container_path,
        read_only,
        recursive_read_only: read_only
            && matches!(mount.recursive_read_only.as_deref(), Some("Enabled" | "IfPossible")),
        propagation: match mount.mount_propagation.as_deref() {
            Some("HostToContainer") => Propagation::HostToContainer,
            Some("Bidirectional") => Propagation::Bidirectional,
            _ => Propagation::Private,
        },
    })
}

fn sub_path(
    mount: &VolumeMount,
    variables: &dyn Fn(&str) -> Option<String>,
) -> Result<Option<String>, String> {
    if let Some(expression) = mount.sub_path_expr.as_deref().filter(|text| !text.is_empty()) {
        let missing = std::cell::RefCell::new(None);
        let text = expand(expression, |name| {
            let value = variables(name);
            if value.is_none() {
                missing.replace(Some(name.to_owned()));
            }
            value
        });
        return match missing.into_inner() {
            Some(name) => Err(format!("failed to expand subPath: missing value for {name:?}")),
            None => Ok(Some(text)),
        };
    }
    Ok(mount.sub_path.clone().filter(|text| !text.is_empty()))
}

/// Writes `/etc/hosts`, `/etc/hostname` and `/etc/resolv.conf` of the pod.
fn managed_files(from: &Ingredients<'_>, directory: &Path) -> io::Result<Vec<(&'static str, PathBuf)>> {
    let pod = from.pod;
    let names = naming::hostnames(pod, &from.node.dns.domain, &from.node.hostname);
    let host_network = pod.spec.as_ref().is_some_and(|spec| spec.host_network == Some(true));
    let read = |path: &Path| fs::read_to_string(path).unwrap_or_default();
    let host_file = if host_network { read(Path::new("/etc/hosts")) } else { String::new() };
    let hosts = naming::hosts_file(pod, &from.around.pod_ips, &names, &host_file);
    let host_resolver = Resolver::parse(&read(&from.node.resolver_file));
    let resolver = naming::resolver(pod, &host_resolver, &from.node.dns).render();
    fs::create_dir_all(directory)?;
    let mut files = vec![("/etc/hosts", "etc-hosts", hosts), ("/etc/resolv.conf", "resolv.conf", resolver)];
    if !host_network {
        files.push(("/etc/hostname", "hostname", format!("{}\n", names.0)));
    }
    let mut written = Vec::new();
    for (inside, name, text) in files {
        let path = directory.join(name);
        write_if_changed(&path, &text)?;
        written.push((inside, path));
    }
    Ok(written)
}

/// In place, because running containers have the file itself mounted.
fn write_if_changed(path: &Path, text: &str) -> io::Result<()> {
    if fs::read_to_string(path).is_ok_and(|known| known == text) {
        return Ok(());
    }
    fs::write(path, text)?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o644))
}

/// The container's user, whoever that is, must be able to write it.
fn make_termination_file(path: &Path) -> io::Result<()> {
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent)?;
    }
    fs::write(path, "")?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o666))
}
