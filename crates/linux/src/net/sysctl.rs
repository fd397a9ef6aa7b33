//! Kernel parameters of the calling thread's network namespace.

use std::io;
use std::path::Path;

/// Writes `/proc/sys/net/KEY` (with `/` between the parts) unless it has the value already.
pub fn set(key: &str, value: &str) -> io::Result<()> {
    let path = Path::new("/proc/sys/net").join(key);
    if std::fs::read_to_string(&path)?.trim() == value {
        return Ok(());
    }
    std::fs::write(path, value)
}

/// Reads `/proc/sys/net/KEY`; `None` when the kernel has no such parameter.
pub fn get(key: &str) -> Option<String> {
    std::fs::read_to_string(Path::new("/proc/sys/net").join(key)).ok().map(|value| value.trim().to_owned())
}
