//! The container's view of the file system, built in its own mount namespace; it goes when the container goes, and
//! nothing of it is ever seen on the host.

use std::fs;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use linux::cgroup::{Cgroup, DeviceRule, Version};
use linux::device::{self, Node};
use linux::mount::{self, Attributes, Propagation};
use linux::path::Confine;
use linux::{Context, Error, Result};

use crate::spec::ContainerSpec;
use crate::{Mount, defaults};

/// Mount sources opened while the host's file system is still in sight.
pub struct Sources {
    mounts: Vec<(OwnedFd, bool)>,
    shm: OwnedFd,
    /// Name below `/sys/fs/cgroup` → the container's own group; version 1 only.
    cgroups: Vec<(String, OwnedFd)>,
    /// Devices as they are on the host: path in the container, node.
    devices: Vec<(PathBuf, Node)>,
}

/// Opens everything that comes from the host.
pub fn open_sources(spec: &ContainerSpec, cgroup: &Cgroup) -> Result<Sources> {
    let mounts = spec.mounts.iter().map(open_mount).collect::<Result<_>>()?;
    let shm = mount::clone_tree(&spec.shm, false)?;
    let private = Attributes { propagation: Some(Propagation::Private), ..Attributes::default() };
    mount::set_attributes(shm.as_fd(), private, false)?;
    let mut cgroups = Vec::new();
    if cgroup.hierarchies().version() != Version::V2 {
        // A unified hierarchy without controllers would only make programs believe that this is version 2.
        let unified = cgroup.unified();
        for directory in cgroup.directories().into_iter().filter(|path| Some(path) != unified.as_ref()) {
            cgroups.push(open_cgroup(&directory, cgroup, spec.privileged)?);
        }
    }
    Ok(Sources { mounts, shm, cgroups, devices: devices(spec)? })
}

fn open_mount(mount: &Mount) -> Result<(OwnedFd, bool)> {
    if let Err(error) = fs::metadata(&mount.host_path) {
        if error.kind() != io::ErrorKind::NotFound {
            return Err(Error::new(format!("look at {}", mount.host_path.display()), error));
        }
        // As containerd does: what is to be mounted and is missing becomes a directory.
        fs::create_dir_all(&mount.host_path)
            .with_context(|| format!("make {}", mount.host_path.display()))?;
    }
    let is_directory = mount.host_path.is_dir();
    let tree = mount::clone_tree(&mount.host_path, true)?;
    let propagation = match mount.propagation {
        crate::Propagation::Private => Propagation::Private,
        crate::Propagation::HostToContainer => Propagation::Slave,
        crate::Propagation::Bidirectional => Propagation::Shared,
    };
    let spread = Attributes { propagation: Some(propagation), ..Attributes::default() };
    mount::set_attributes(tree.as_fd(), spread, true)?;
    if mount.read_only {
        let read_only = Attributes { read_only: true, ..Attributes::default() };
        mount::set_attributes(tree.as_fd(), read_only, mount.recursive_read_only)?;
    }
    Ok((tree, is_directory))
}

fn open_cgroup(directory: &Path, cgroup: &Cgroup, writable: bool) -> Result<(String, OwnedFd)> {
    let depth = cgroup.path().components().count();
    let base = directory.ancestors().nth(depth).and_then(Path::file_name).unwrap_or_default();
    let tree = mount::clone_tree(directory, false)?;
    let attributes = Attributes {
        read_only: !writable,
        no_suid: true,
        no_exec: true,
        no_dev: true,
        propagation: Some(Propagation::Private),
    };
    mount::set_attributes(tree.as_fd(), attributes, false)?;
    Ok((base.to_string_lossy().into_owned(), tree))
}

/// Builds everything and makes it this process's root.
pub fn enter(spec: &ContainerSpec, sources: Sources, version: Version) -> Result<()> {
    linux::namespace::unshare(&[linux::namespace::Kind::Mount])?;
    mount::set_propagation(Path::new("/"), Propagation::Slave, true)?;
    std::env::set_current_dir(&spec.directory)
        .with_context(|| format!("enter {}", spec.directory.display()))?;
    // Links with short names stand for the layers; the highest comes first.
    let lower: Vec<String> = (0..spec.layers.len()).rev().map(|at| format!("l/{at}")).collect();
    mount::overlay(&lower, "u", "w", Path::new("r"), false)?;
    std::env::set_current_dir("r").context("enter the root file system")?;
    mount::pivot_root_here()?;
    let root = linux::path::open_root(Path::new("/"))?;
    let root = root.as_fd();
    let own_dev = !spec.mounts.iter().any(|mount| mount.container_path == Path::new("/dev"));
    mount_kernel(root, spec, sources.cgroups, version)?;
    if own_dev {
        mount_dev(root, sources.shm, &sources.devices)?;
    }
    for (mount, (tree, is_directory)) in spec.mounts.iter().zip(sources.mounts) {
        mount_one(root, mount, &tree, is_directory)?;
    }
    prepare_working_directory(root, spec)
}

/// Steps after the terminal is there: paths are hidden, the root may become read-only.
pub fn close(spec: &ContainerSpec) -> Result<()> {
    for path in &spec.read_only_paths {
        make_read_only(path)?;
    }
    for path in &spec.masked_paths {
        mask(path)?;
    }
    if spec.read_only_root { mount::remount_read_only(Path::new("/"), false) } else { Ok(()) }
}

fn safe(read_only: bool) -> Attributes {
    Attributes { read_only, no_suid: true, no_exec: true, no_dev: true, propagation: None }
}

fn mount_kernel(
    root: BorrowedFd<'_>,
    spec: &ContainerSpec,
    cgroups: Vec<(String, OwnedFd)>,
    version: Version,
) -> Result<()> {
    let taken = |path: &str| spec.mounts.iter().any(|mount| mount.container_path == Path::new(path));
    if !taken("/proc") {
        place(root, "/proc", &mount::new_file_system("proc", "proc", &[], safe(false))?)?;
    }
    if !taken("/sys") {
        place(root, "/sys", &mount::new_file_system("sysfs", "sysfs", &[], safe(!spec.privileged))?)?;
    }
    if taken("/sys") || taken("/sys/fs/cgroup") {
        return Ok(());
    }
    if version == Version::V2 {
        let tree = mount::new_file_system("cgroup2", "cgroup", &[], safe(!spec.privileged))?;
        return place(root, "/sys/fs/cgroup", &tree);
    }
    let tmpfs = mount::new_file_system("tmpfs", "tmpfs", &["mode=755", "size=64k"], safe(false))?;
    place(root, "/sys/fs/cgroup", &tmpfs)?;
    for (name, tree) in cgroups {
        place(root, &format!("/sys/fs/cgroup/{name}"), &tree)?;
    }
    mount::remount_read_only(Path::new("/sys/fs/cgroup"), false)
}

fn place(root: BorrowedFd<'_>, path: &str, tree: &OwnedFd) -> Result<()> {
    let target = linux::path::create_directories_inside(root, Path::new(path), Confine::InRoot, 0o755)?;
    mount::attach(tree.as_fd(), target.as_fd()).with(path)
}

/// Adds a path to an error.
trait At {
    fn with(self, path: impl AsRef<Path>) -> Self;
}

impl<T> At for Result<T> {
    fn with(self, path: impl AsRef<Path>) -> Self {
        self.map_err(|error| {
            Error::new(format!("{} at {}", error.what, path.as_ref().display()), error.source)
        })
    }
}

fn mount_dev(root: BorrowedFd<'_>, shm: OwnedFd, devices: &[(PathBuf, Node)]) -> Result<()> {
    let no_suid = Attributes { no_suid: true, ..Attributes::default() };
    let tmpfs = mount::new_file_system("tmpfs", "tmpfs", &["mode=755", "size=65536k"], no_suid)?;
    place(root, "/dev", &tmpfs)?;
    let options = ["ptmxmode=0666", "mode=0620", "gid=5"];
    let no_suid_no_exec = Attributes { no_exec: true, ..no_suid };
    place(root, "/dev/pts", &mount::new_file_system("devpts", "devpts", &options, no_suid_no_exec)?)?;
    place(root, "/dev/shm", &shm)?;
    place(root, "/dev/mqueue", &mount::new_file_system("mqueue", "mqueue", &[], safe(false))?)?;
    for (name, major, minor) in defaults::DEVICES {
        let node = Node { is_block: false, major, minor, mode: 0o666 };
        device::make(&Path::new("/dev").join(name), &node)?;
    }
    for (path, node) in devices {
        let parent = path.parent().unwrap_or(Path::new("/dev"));
        linux::path::create_directories_inside(root, parent, Confine::InRoot, 0o755)?;
        device::make(path, node)?;
    }
    for (name, target) in defaults::DEVICE_LINKS {
        let path = Path::new("/dev").join(name);
        symlink(target, &path).with_context(|| format!("make the link {}", path.display()))?;
    }
    Ok(())
}

/// The devices that are asked for, and all of the host's for a privileged container.
fn devices(spec: &ContainerSpec) -> Result<Vec<(PathBuf, Node)>> {
    let mut found = Vec::new();
    if spec.privileged {
        collect_devices(Path::new("/dev"), &mut found);
    }
    for device in &spec.devices {
        let node = device::read(&device.host_path)
            .with_context(|| format!("look at the device {}", device.host_path.display()))?;
        let Some(node) = node else {
            let cause = io::Error::other("not a device node");
            return Err(Error::new(format!("use {}", device.host_path.display()), cause));
        };
        found.push((device.container_path.clone(), node));
    }
    Ok(found)
}

fn collect_devices(directory: &Path, found: &mut Vec<(PathBuf, Node)>) {
    // Directories that every container gets of its own, and the host's console.
    const OWN: [&str; 7] = ["pts", "shm", "mqueue", "fd", "console", "ptmx", "tty"];
    for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
        let path = entry.path();
        let top = directory == Path::new("/dev");
        if top && OWN.iter().any(|name| entry.file_name() == *name) {
            continue;
        }
        match entry.file_type() {
            Ok(kind) if kind.is_dir() => collect_devices(&path, found),
            Ok(kind) if !kind.is_symlink() => {
                // What vanishes while it is looked at is not there.
                if let Ok(Some(node)) = device::read(&path) {
                    found.push((path, node));
                }
            }
            _ => {}
        }
    }
}

/// The rules for the container's cgroup.
pub fn device_rules(spec: &ContainerSpec) -> Result<Vec<DeviceRule>> {
    if spec.privileged {
        return Ok(vec![DeviceRule::all()]);
    }
    let rule = |kind, major, minor, access: &str| DeviceRule { kind, major, minor, access: access.into() };
    // Making any node is allowed, using it is not; so it is with every OCI runtime.
    let mut rules = vec![rule('c', None, None, "m"), rule('b', None, None, "m")];
    for (_, major, minor) in defaults::DEVICES {
        rules.push(rule('c', Some(major), Some(minor), "rwm"));
    }
    // /dev/ptmx, and the terminals of devpts.
    rules.extend([rule('c', Some(5), Some(2), "rwm"), rule('c', Some(136), None, "rwm")]);
    for device in &spec.devices {
        let found = device::read(&device.host_path)
            .with_context(|| format!("look at the device {}", device.host_path.display()))?;
        if let Some(node) = found {
            let kind = if node.is_block { 'b' } else { 'c' };
            let access = if device.permissions.is_empty() { "rwm" } else { &device.permissions };
            rules.push(rule(kind, Some(node.major), Some(node.minor), access));
        }
    }
    Ok(rules)
}

fn mount_one(root: BorrowedFd<'_>, mount: &Mount, tree: &OwnedFd, is_directory: bool) -> Result<()> {
    let path = &mount.container_path;
    if path != Path::new("/proc") && path.starts_with("/proc") {
        let cause = io::Error::other("it is inside /proc");
        return Err(Error::new(format!("{} cannot be mounted", path.display()), cause));
    }
    let target = if is_directory {
        linux::path::create_directories_inside(root, path, Confine::InRoot, 0o755)?
    } else {
        linux::path::create_file_inside(root, path, Confine::InRoot)?
    };
    mount::attach(tree.as_fd(), target.as_fd()).with(path)
}

fn prepare_working_directory(root: BorrowedFd<'_>, spec: &ContainerSpec) -> Result<()> {
    let clean: PathBuf = spec.working_directory.components().collect();
    linux::path::create_directories_inside(root, &clean, Confine::InRoot, 0o755).map(drop)
}

/// Shows the terminal as `/dev/console`.
pub fn bind_console(terminal: BorrowedFd<'_>) -> Result<()> {
    let root = linux::path::open_root(Path::new("/"))?;
    let target = linux::path::create_file_inside(root.as_fd(), Path::new("/dev/console"), Confine::InRoot)?;
    let tree = mount::clone_tree(&linux::path::descriptor_path(terminal), false)?;
    mount::attach(tree.as_fd(), target.as_fd()).with("/dev/console")
}

fn make_read_only(path: &Path) -> Result<()> {
    if !path.exists() {
        return Ok(());
    }
    let read_only = Attributes { read_only: true, ..Attributes::default() };
    mount::bind(path, path, true, read_only).with(path)
}

fn mask(path: &Path) -> Result<()> {
    match fs::metadata(path) {
        Err(_) => Ok(()),
        Ok(metadata) if metadata.is_dir() => {
            let empty = mount::new_file_system("tmpfs", "tmpfs", &["size=4k"], safe(true))?;
            let target = linux::path::open_path(path)?;
            mount::attach(empty.as_fd(), target.as_fd()).with(path)
        }
        Ok(_) => mount::bind(Path::new("/dev/null"), path, false, Attributes::default()).with(path),
    }
}
