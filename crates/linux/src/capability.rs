//! Capabilities by name, and giving them up.

use rustix::thread::{CapabilitySet, CapabilitySets};

use crate::{Context, Result};

/// All capabilities, in the kernel's order: the index is the number.
pub const NAMES: [&str; 41] = [
    "CHOWN",
    "DAC_OVERRIDE",
    "DAC_READ_SEARCH",
    "FOWNER",
    "FSETID",
    "KILL",
    "SETGID",
    "SETUID",
    "SETPCAP",
    "LINUX_IMMUTABLE",
    "NET_BIND_SERVICE",
    "NET_BROADCAST",
    "NET_ADMIN",
    "NET_RAW",
    "IPC_LOCK",
    "IPC_OWNER",
    "SYS_MODULE",
    "SYS_RAWIO",
    "SYS_CHROOT",
    "SYS_PTRACE",
    "SYS_PACCT",
    "SYS_ADMIN",
    "SYS_BOOT",
    "SYS_NICE",
    "SYS_RESOURCE",
    "SYS_TIME",
    "SYS_TTY_CONFIG",
    "MKNOD",
    "LEASE",
    "AUDIT_WRITE",
    "AUDIT_CONTROL",
    "SETFCAP",
    "MAC_OVERRIDE",
    "MAC_ADMIN",
    "SYSLOG",
    "WAKE_ALARM",
    "BLOCK_SUSPEND",
    "AUDIT_READ",
    "PERFMON",
    "BPF",
    "CHECKPOINT_RESTORE",
];

/// The bit of a capability named with or without `CAP_`, in any case.
pub fn bit(name: &str) -> Option<u64> {
    let upper = name.to_ascii_uppercase();
    let bare = upper.strip_prefix("CAP_").unwrap_or(&upper);
    NAMES.iter().position(|known| *known == bare).map(|at| 1 << at)
}

/// Every capability there is.
pub const ALL: u64 = (1 << NAMES.len()) - 1;

/// What the calling thread may do at most.
pub fn own() -> Result<u64> {
    let sets = rustix::thread::capabilities(None).context("read the capabilities")?;
    Ok(sets.permitted.bits())
}

/// Forbids the calling thread and its children ever to gain anything outside `keep`.
pub fn bound(keep: u64) -> Result<()> {
    for number in 0..64 {
        let one = CapabilitySet::from_bits_retain(1 << number);
        match rustix::thread::capability_is_in_bounding_set(one) {
            Ok(true) if keep & (1 << number) == 0 => {
                rustix::thread::remove_capability_from_bounding_set(one)
                    .with_context(|| format!("give up capability {number}"))?;
            }
            Ok(_) => {}
            // The kernel knows no higher number.
            Err(_) => return Ok(()),
        }
    }
    Ok(())
}

/// Lets the permitted capabilities survive the next change of user.
pub fn keep_over_change_of_user() -> Result<()> {
    rustix::thread::set_keep_capabilities(true).context("keep the capabilities")
}

/// Sets what the calling thread has now; nothing is inherited by programs without file capabilities unless root.
pub fn set(effective_and_permitted: u64) -> Result<()> {
    let wanted = CapabilitySet::from_bits_retain(effective_and_permitted);
    rustix::thread::clear_ambient_capability_set().context("clear the ambient capabilities")?;
    let sets = CapabilitySets { effective: wanted, permitted: wanted, inheritable: CapabilitySet::empty() };
    rustix::thread::set_capabilities(None, sets).context("set the capabilities")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_map_to_the_kernels_numbers() {
        assert_eq!(bit("CAP_SYS_ADMIN"), Some(1 << 21));
        assert_eq!(bit("net_raw"), Some(1 << 13));
        assert_eq!(bit("CHECKPOINT_RESTORE"), Some(1 << 40));
        assert_eq!(bit("FLY"), None);
    }
}
