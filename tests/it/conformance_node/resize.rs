//! Resources of running pods are changed in place.

use serde_json::{Value, json};

use crate::space::{IDLE, Space, condition, container, shell, with};

/// Millicores and MiB that a container asks for, and its limits.
#[derive(Clone, Copy)]
struct Amounts {
    cpu: Option<u64>,
    cpu_limit: Option<u64>,
    memory: Option<u64>,
    memory_limit: Option<u64>,
}

fn both(cpu: u64, memory: u64) -> Amounts {
    Amounts { cpu: Some(cpu), cpu_limit: Some(cpu), memory: Some(memory), memory_limit: Some(memory) }
}

fn of(cpu: Option<u64>, cpu_limit: Option<u64>, memory: Option<u64>, memory_limit: Option<u64>) -> Amounts {
    Amounts { cpu, cpu_limit, memory, memory_limit }
}

impl Amounts {
    fn resources(&self) -> Value {
        let list = |cpu: Option<u64>, memory: Option<u64>| {
            let mut list = json!({});
            if let Some(cpu) = cpu {
                list["cpu"] = json!(format!("{cpu}m"));
            }
            if let Some(memory) = memory {
                list["memory"] = json!(format!("{memory}Mi"));
            }
            list
        };
        let mut resources = json!({"requests": list(self.cpu, self.memory)});
        if self.cpu_limit.is_some() || self.memory_limit.is_some() {
            resources["limits"] = list(self.cpu_limit, self.memory_limit);
        }
        resources
    }

    /// What the container reads of its own control groups: shares, quota, memory limit.
    fn in_the_kernel(&self) -> [String; 3] {
        let shares = (self.cpu.or(self.cpu_limit).unwrap_or(0) * 1024 / 1000).max(2);
        let quota = self.cpu_limit.map_or("-1".to_owned(), |cpu| (cpu * 100).max(1000).to_string());
        let memory = self.memory_limit.map(|mebibytes| (mebibytes << 20).to_string());
        [shares.to_string(), quota, memory.unwrap_or_else(|| "9223372036854771712".to_owned())]
    }
}

fn names(count: usize) -> impl Iterator<Item = String> {
    (1..=count).map(|number| format!("c{number}"))
}

fn kernel(space: &Space<'_>, name: &str) -> [String; 3] {
    let script = "if [ -f /sys/fs/cgroup/cgroup.controllers ]; then cat /sys/fs/cgroup/cpu.weight /sys/fs/cgroup/cpu.max \
        /sys/fs/cgroup/memory.max; else cat /sys/fs/cgroup/cpu/cpu.shares /sys/fs/cgroup/cpu/cpu.cfs_quota_us \
        /sys/fs/cgroup/memory/memory.limit_in_bytes; fi";
    let text = space.exec("resized", name, &["sh", "-c", script]);
    let lines: Vec<String> = text.lines().map(str::to_owned).collect();
    lines.try_into().unwrap()
}

fn same(status: &Value, wanted: &Value) -> bool {
    let amount = |value: &Value| value.as_str().map(str::to_owned);
    ["requests", "limits"].iter().all(|list| {
        ["cpu", "memory"].iter().all(|name| {
            let (got, wanted) = (&status["resources"][list][name], &wanted[list][name]);
            amount(got) == amount(wanted)
        })
    })
}

/// Nothing is the same as nothing being there.
fn allocated(status: &Value) -> Value {
    Some(status["allocatedResources"].clone()).filter(|list| !list.is_null()).unwrap_or_else(|| json!({}))
}

fn settled(space: &Space<'_>, wanted: &[Amounts]) -> Value {
    space.until("resized", "resized", |pod| {
        let all = names(wanted.len()).zip(wanted);
        let right = all.into_iter().all(|(name, amounts)| {
            let status = container(pod, &name);
            same(status, &amounts.resources())
                && allocated(status) == amounts.resources()["requests"]
                && status["restartCount"] == 0
        });
        right
            && condition(pod, "PodResizeInProgress").is_empty()
            && condition(pod, "PodResizePending").is_empty()
            && condition(pod, "Ready") == "True"
            && pod["status"]["observedGeneration"] == pod["metadata"]["generation"]
    })
}

fn in_place(space: &Space<'_>, before: &[Amounts], after: &[Amounts]) {
    let list = |amounts: &[Amounts]| -> Vec<Value> {
        names(amounts.len())
            .zip(amounts)
            .map(|(name, amounts)| with(shell(&name, IDLE), json!({"resources": amounts.resources()})))
            .collect()
    };
    space.pod("resized", json!({"containers": list(before)}));
    space.ready("resized");
    settled(space, before);
    let check = |amounts: &[Amounts]| {
        for (name, amounts) in names(amounts.len()).zip(amounts) {
            let found = kernel(space, &name);
            // Version 2 has other files; there the status alone is looked at.
            if !found[1].contains(' ') {
                assert_eq!(found, amounts.in_the_kernel(), "{name}");
            }
        }
    };
    check(before);
    let containers: Vec<_> = names(after.len())
        .zip(after)
        .map(|(name, amounts)| json!({"name": name, "resources": amounts.resources()}))
        .collect();
    let path = space.path("pods/resized/resize");
    let (code, answer) = space.rest.strategic(&path, &json!({"spec": {"containers": containers}}));
    assert_eq!(code, 200, "{answer}");
    settled(space, after);
    check(after);
    // And back again.
    let containers: Vec<_> = names(before.len())
        .zip(before)
        .map(|(name, amounts)| json!({"name": name, "resources": amounts.resources()}))
        .collect();
    if before.iter().zip(after).all(|(b, a)| b.cpu_limit.is_some() == a.cpu_limit.is_some()) {
        let (code, answer) = space.rest.strategic(&path, &json!({"spec": {"containers": containers}}));
        assert_eq!(code, 200, "{answer}");
        settled(space, before);
        check(before);
    }
}

// conformance: [sig-node] Pod InPlace Resize Container guaranteed pods with multiple containers 3 containers - increase cpu & mem on c1, c2, decrease cpu & mem on c3 - net increase [MinimumKubeletVersion:1.34]
pub fn a_net_increase(space: &Space<'_>) {
    let before = [both(20, 50), both(30, 50), both(50, 50)];
    in_place(space, &before, &[both(25, 55), both(35, 55), both(45, 45)]);
}

// conformance: [sig-node] Pod InPlace Resize Container guaranteed pods with multiple containers 3 containers - increase cpu & mem on c1, decrease cpu & mem on c2, c3 - net decrease [MinimumKubeletVersion:1.34]
pub fn a_net_decrease(space: &Space<'_>) {
    let before = [both(20, 50), both(30, 50), both(50, 50)];
    in_place(space, &before, &[both(25, 55), both(20, 40), both(40, 40)]);
}

// conformance: [sig-node] Pod InPlace Resize Container guaranteed pods with multiple containers 3 containers - increase: CPU (c1,c3), memory (c2, c3) ; decrease: CPU (c2) [MinimumKubeletVersion:1.34]
pub fn increases_and_a_decrease(space: &Space<'_>) {
    let before = [both(20, 50), both(30, 50), both(50, 50)];
    in_place(space, &before, &[both(40, 50), both(25, 60), both(60, 60)]);
}

// conformance: [sig-node] Pod InPlace Resize Container burstable pods - extended 6 containers - various operations performed (including adding limits and requests) [MinimumKubeletVersion:1.34]
pub fn six_containers(space: &Space<'_>) {
    let before = [
        both(20, 50),
        of(Some(20), None, Some(50), None),
        of(Some(20), Some(40), Some(50), Some(80)),
        of(Some(20), Some(40), None, None),
        of(None, None, Some(50), Some(80)),
        of(None, None, None, None),
    ];
    let after = [
        of(Some(10), Some(40), Some(40), Some(60)),
        of(Some(30), Some(60), Some(60), Some(90)),
        of(Some(30), Some(50), Some(60), Some(90)),
        of(Some(10), Some(30), Some(50), None),
        of(Some(20), Some(40), Some(40), Some(70)),
        of(Some(20), Some(40), Some(50), Some(80)),
    ];
    in_place(space, &before, &after);
}

// conformance: [sig-node] Pod InPlace Resize Container burstable pods - extended resize with equivalents [MinimumKubeletVersion:1.34]
pub fn equivalents(space: &Space<'_>) {
    let before = [of(Some(2), Some(10), None, None), of(Some(2), Some(10), None, None)];
    in_place(space, &before, &[of(Some(1), Some(5), None, None), of(Some(1), Some(10), None, None)]);
}

// conformance: [sig-node] Pod InPlace Resize Container resize pod via the replace endpoint [MinimumKubeletVersion:1.34]
pub fn by_replacing(space: &Space<'_>) {
    let main = with(shell("c1", IDLE), json!({"resources": both(20, 50).resources()}));
    space.pod("resized", json!({"containers": [main]}));
    space.ready("resized");
    let mut pod = space.get("pods/resized");
    pod["metadata"].as_object_mut().unwrap().remove("resourceVersion");
    pod["spec"]["containers"][0]["resources"] = both(30, 60).resources();
    space.rest.ok("PUT", &space.path("pods/resized/resize"), Some(&pod));
    let pod = settled(space, &[both(30, 60)]);
    assert_eq!(space.get("pods/resized/resize"), pod);
}

/// Beyond the list: a container whose policy asks for it is restarted, and what cannot be is said.
pub fn restarts_and_the_infeasible(space: &Space<'_>) {
    let policy = json!([{"resourceName": "memory", "restartPolicy": "RestartContainer"},
        {"resourceName": "cpu", "restartPolicy": "NotRequired"}]);
    let main =
        with(shell("c1", IDLE), json!({"resources": both(20, 50).resources(), "resizePolicy": policy}));
    space.pod("resized", json!({"restartPolicy": "Always", "containers": [main]}));
    space.ready("resized");
    let resize = |amounts: Amounts| {
        let patch = json!({"spec": {"containers": [{"name": "c1", "resources": amounts.resources()}]}});
        let (code, answer) = space.rest.strategic(&space.path("pods/resized/resize"), &patch);
        assert_eq!(code, 200, "{answer}");
    };
    resize(both(30, 70));
    space.until("resized", "restarted with more", |pod| {
        let status = container(pod, "c1");
        status["restartCount"] == 1
            && same(status, &both(30, 70).resources())
            && condition(pod, "Ready") == "True"
    });
    resize(both(1_000_000, 70));
    space.until("resized", "infeasible", |pod| {
        let all = pod["status"]["conditions"].as_array().unwrap();
        all.iter().any(|c| c["type"] == "PodResizePending" && c["reason"] == "Infeasible")
    });
}
