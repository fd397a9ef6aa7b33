//! Who a process is and what it may do.

use containers::{ContainerConfig, Runtime, Seccomp};

use crate::Test;
use crate::world::{LIMIT, World, exit_of, start_error, words};

pub const TESTS: &[Test] = &[
    ("users", |tokio| tokio.block_on(users())),
    ("capabilities", |tokio| tokio.block_on(capabilities())),
    ("read_only_root", |tokio| tokio.block_on(read_only_root())),
    ("paths", |tokio| tokio.block_on(paths())),
    ("filters", |tokio| tokio.block_on(filters())),
    ("devices", |tokio| tokio.block_on(devices())),
    ("privileged", |tokio| tokio.block_on(privileged())),
    ("sysctls_and_host_namespaces", |tokio| tokio.block_on(sysctls_and_host_namespaces())),
    ("wicked_links", |tokio| tokio.block_on(wicked_links())),
];

async fn check(world: &World, script: &str, change: impl FnOnce(&mut ContainerConfig), expected: &str) {
    let (_, log) = world.run(script, change).await;
    assert_eq!(log, expected, "{script}");
}

async fn users() {
    let world = World::new().await;
    let script = "id -u; id -g; id -G; echo $HOME; echo ok > /dev/stdout";
    check(&world, script, |_| {}, "0\n0\n0\n/root\nok\n").await;
    check(&world, script, |config| config.security.run_as_user = Some(33), "33\n33\n33 44\n/var/www\nok\n")
        .await;
    let change = |config: &mut ContainerConfig| {
        config.security.run_as_user = Some(1000);
        config.security.run_as_group = Some(7);
        config.security.supplemental_groups = vec![5, 6];
    };
    check(&world, script, change, "1000\n7\n7 5 6\n/\nok\n").await;
    let sandbox = world.sandbox().await;
    let id = world
        .container(&sandbox.id, &["sleep", "1000"], |config| config.security.run_as_user = Some(33))
        .await;
    world.runtime.start_container(&id).await.unwrap();
    let result = world.runtime.exec_sync(&id, &words("id -u"), LIMIT).await.unwrap();
    assert_eq!(result.stdout, b"33\n");
    world.end().await;
}

const SETS: &str = "grep -E 'Cap(Eff|Prm|Bnd|Amb)|NoNew' /proc/self/status | tr -d '\\t'";

async fn capabilities() {
    let world = World::new().await;
    let set = |eff: &str, bnd: &str, nnp: u8| {
        format!("CapPrm:{eff}\nCapEff:{eff}\nCapBnd:{bnd}\nCapAmb:0000000000000000\nNoNewPrivs:{nnp}\n")
    };
    let default = "00000000a80425fb";
    check(&world, SETS, |_| {}, &set(default, default, 0)).await;
    let drop_all = |config: &mut ContainerConfig| {
        config.security.drop_capabilities = vec!["ALL".into()];
        config.security.add_capabilities = vec!["NET_BIND_SERVICE".into()];
        config.security.no_new_privileges = true;
    };
    check(&world, SETS, drop_all, &set("0000000000000400", "0000000000000400", 1)).await;
    let user = |config: &mut ContainerConfig| config.security.run_as_user = Some(33);
    check(&world, SETS, user, &set("0000000000000000", default, 0)).await;
    world.end().await;
}

async fn read_only_root() {
    let world = World::new().await;
    let script = "touch /x 2>/dev/null; echo $?; touch /dev/shm/y; echo $?";
    check(&world, script, |config| config.security.read_only_root = true, "1\n0\n").await;
    check(&world, script, |_| {}, "0\n0\n").await;
    world.end().await;
}

async fn paths() {
    let world = World::new().await;
    let script = "cat /proc/timer_list 2>/dev/null | wc -c; ls /sys/firmware | wc -l; \
                  (echo 1 > /proc/sys/kernel/pid_max) 2>&1 | grep -c 'Read-only'; \
                  mkdir /sys/x 2>&1 | grep -c 'Read-only'; ls -d /dev/pts/ptmx /dev/mqueue; \
                  grep -c ' / ' /proc/self/mountinfo; wc -c < /proc/keys";
    let (_, log) = world.run(script, |_| {}).await;
    let lines: Vec<&str> = log.lines().collect();
    assert_eq!(lines[..6], ["0", "0", "1", "1", "/dev/mqueue", "/dev/pts/ptmx"], "{log}");
    let unmasked = |config: &mut ContainerConfig| {
        config.security.masked_paths = Some(vec![]);
        config.security.read_only_paths = Some(vec![]);
    };
    check(&world, "test -w /proc/sys/kernel/shm_rmid_forced && echo yes", unmasked, "yes\n").await;
    // Nothing of the host is in sight.
    let (_, log) = world.run("cat /proc/self/mountinfo", |_| {}).await;
    assert!(!log.contains("/data/run") && !log.contains(" /home "), "{log}");
    world.end().await;
}

async fn filters() {
    let world = World::new().await;
    // With the capability and without a filter these work, so it is the filter that forbids them.
    let script = "unshare -U true 2>/dev/null; echo $?; mount -t tmpfs x /tmp 2>/dev/null; echo $?; \
                  grep Seccomp: /proc/self/status | tr -d '\\t'";
    check(
        &world,
        script,
        |config| config.security.add_capabilities = vec!["SYS_ADMIN".into()],
        "0\n0\nSeccomp:0\n",
    )
    .await;
    let filtered = |config: &mut ContainerConfig| config.security.seccomp = Seccomp::RuntimeDefault;
    check(&world, script, filtered, "1\n1\nSeccomp:2\n").await;
    let profile = world.directory.path().join("profile.json");
    std::fs::write(
        &profile,
        r#"{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":["mkdir","mkdirat","no_such_call"],
            "action":"SCMP_ACT_ERRNO","errnoRet":28}]}"#,
    )
    .unwrap();
    for no_new_privileges in [false, true] {
        let change = |config: &mut ContainerConfig| {
            config.security.seccomp = Seccomp::Localhost(profile.clone());
            config.security.no_new_privileges = no_new_privileges;
        };
        check(
            &world,
            "mkdir /x 2>&1",
            change,
            "mkdir: can't create directory '/x': No space left on device\n",
        )
        .await;
    }
    let sandbox = world.sandbox().await;
    let id = world
        .container(&sandbox.id, &["sleep", "1000"], |config| {
            config.security.seccomp = Seccomp::RuntimeDefault
        })
        .await;
    world.runtime.start_container(&id).await.unwrap();
    let result =
        world.runtime.exec_sync(&id, &words("grep -c Seccomp:.2 /proc/self/status"), LIMIT).await.unwrap();
    assert_eq!(result.stdout, b"1\n");
    world.end().await;
}

async fn devices() {
    let world = World::new().await;
    // Any node can be made, but only those on the list can be used.
    let script = "mknod /tmp/kmsg c 1 11; echo $?; cat /tmp/kmsg >/dev/null 2>&1; echo $?; head -c 3 /dev/zero | wc -c; \
                  echo x > /dev/full 2>/dev/null; echo $?; ls -l /dev/fuse0 2>/dev/null | wc -l";
    check(&world, script, |_| {}, "0\n1\n3\n1\n0\n").await;
    let script = "ls /dev/mine; head -c 2 /dev/mine | wc -c";
    let change = |config: &mut ContainerConfig| {
        config.devices = vec![containers::Device {
            host_path: "/dev/urandom".into(),
            container_path: "/dev/mine".into(),
            permissions: "r".into(),
        }];
    };
    check(&world, script, change, "/dev/mine\n2\n").await;
    world.end().await;
}

async fn privileged() {
    let world = World::new().await;
    let own = linux::capability::own().unwrap();
    let script = format!("{SETS} | grep Eff; mount -t tmpfs x /tmp; echo $?; test -w /sys && echo writable");
    let expected = format!("CapEff:{own:016x}\n0\nwritable\n");
    check(&world, &script, |config| config.security.privileged = true, &expected).await;
    world.end().await;
}

async fn sysctls_and_host_namespaces() {
    let world = World::new().await;
    let sandbox = world
        .sandbox_with(|config| {
            config.sysctls.insert("net.ipv4.tcp_syncookies".into(), "0".into());
            config.sysctls.insert("kernel.shm_rmid_forced".into(), "1".into());
        })
        .await;
    let script = "cat /proc/sys/net/ipv4/tcp_syncookies /proc/sys/kernel/shm_rmid_forced /proc/sys/net/ipv4/ip_unprivileged_port_start";
    let (_, log) = world.run_in(&sandbox.id, script, |_| {}).await;
    assert_eq!(log, "0\n1\n0\n");
    let host = world
        .sandbox_with(|config| {
            (config.host_network, config.host_pid, config.host_ipc) = (true, true, true);
        })
        .await;
    assert_eq!(host.network_namespace, None);
    let (_, log) = world
        .run_in(&host.id, "for ns in net pid ipc uts; do readlink /proc/self/ns/$ns; done", |_| {})
        .await;
    let ours: String = ["net", "pid", "ipc", "uts"]
        .map(|name| std::fs::read_link(format!("/proc/self/ns/{name}")).unwrap().display().to_string() + "\n")
        .concat();
    assert_eq!(log, ours);
    let config = containers::SandboxConfig {
        sysctls: [("kernel.nonsense".to_owned(), "1".to_owned())].into(),
        ..containers::SandboxConfig::default()
    };
    let message = start_error(world.runtime.run_sandbox(&config).await.map(drop));
    assert!(message.contains("kernel.nonsense"), "{message}");
    world.end().await;
}

/// Links in the image do not lead a mount out of the container.
async fn wicked_links() {
    let world = World::new().await;
    let outside = world.directory.path().join("outside");
    std::fs::create_dir_all(&outside).unwrap();
    let layer = world.directory.path().join("layers/high");
    std::os::unix::fs::symlink(&outside, layer.join("out")).unwrap();
    std::os::unix::fs::symlink("/proc/self/fd/3", layer.join("magic")).unwrap();
    let source = world.directory.path().join("volume");
    std::fs::create_dir_all(&source).unwrap();
    let mount = |path: &str| containers::Mount {
        host_path: source.clone(),
        container_path: path.into(),
        ..containers::Mount::default()
    };
    let (status, _) = world.run("true", |config| config.mounts = vec![mount("/out/made")]).await;
    assert_eq!(exit_of(&status).0, 0);
    assert_eq!(std::fs::read_dir(&outside).unwrap().count(), 0);
    let sandbox = world.sandbox().await;
    let id = world.container(&sandbox.id, &["true"], |config| config.mounts = vec![mount("/magic/x")]).await;
    start_error(world.runtime.start_container(&id).await);
    let id = world.container(&sandbox.id, &["true"], |config| config.mounts = vec![mount("/proc/sys")]).await;
    assert!(start_error(world.runtime.start_container(&id).await).contains("inside /proc"));
    world.end().await;
}
