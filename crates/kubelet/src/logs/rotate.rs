//! Keeping logs short: a file that has grown beyond its limit is renamed, older ones are compressed or removed.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use containers::ContainerState;
use flate2::Compression;
use flate2::write::GzEncoder;
use jiff::Timestamp;

use crate::pods::executor::chain;
use crate::pods::shared::Shared;

/// How large a log may grow, in bytes, and how many files are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    pub max_bytes: u64,
    pub max_files: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { max_bytes: 10 << 20, max_files: 5 }
    }
}

/// Rotates the logs of all running containers that have grown too large.
pub async fn rotate_all(shared: &Shared, limits: Limits) {
    let Ok(containers) = shared.runtime.containers().await else { return };
    for container in containers {
        let running = matches!(container.state, ContainerState::Running { .. });
        let large = fs::metadata(&container.log_path).is_ok_and(|meta| meta.len() > limits.max_bytes);
        if !running || !large {
            continue;
        }
        let (path, now) = (container.log_path.clone(), shared.env.now());
        let done = tokio::task::spawn_blocking(move || rotate(&path, limits, now)).await;
        match done {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::warn!(path = %container.log_path.display(), %error, "log not rotated"),
            Err(error) => tracing::error!(%error, "log rotation failed"),
        }
        if let Err(error) = shared.runtime.reopen_log(&container.id).await {
            tracing::warn!(path = %container.log_path.display(), error = chain(&error), "log not opened again");
        }
    }
}

/// Renames the log to `LOG.TIMESTAMP`, compresses the one before it, removes the oldest.
pub fn rotate(path: &Path, limits: Limits, now: Timestamp) -> io::Result<()> {
    let mut old = rotated_files(path)?;
    // The log itself and the one about to be renamed count, too.
    while old.len() + 2 > limits.max_files.max(2) {
        fs::remove_file(old.remove(0))?;
    }
    for plain in old.iter().filter(|path| path.extension().is_none_or(|extension| extension != "gz")) {
        compress(plain)?;
    }
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".{}", now.strftime("%Y%m%d-%H%M%S")));
    fs::rename(path, PathBuf::from(name))
}

/// Rotated files of a log, the oldest first.
fn rotated_files(path: &Path) -> io::Result<Vec<PathBuf>> {
    let (Some(directory), Some(name)) = (path.parent(), path.file_name()) else { return Ok(Vec::new()) };
    let prefix = format!("{}.", name.to_string_lossy());
    let mut found = Vec::new();
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        if entry.file_name().to_string_lossy().starts_with(&prefix) {
            found.push(entry.path());
        }
    }
    found.sort();
    Ok(found)
}

fn compress(path: &Path) -> io::Result<()> {
    let mut name = path.as_os_str().to_owned();
    name.push(".gz");
    let mut encoder = GzEncoder::new(fs::File::create(PathBuf::from(name))?, Compression::default());
    io::copy(&mut fs::File::open(path)?, &mut encoder)?;
    encoder.finish()?;
    fs::remove_file(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keeps_so_many_files() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("0.log");
        for second in 0..6 {
            fs::write(&path, format!("{second}")).unwrap();
            let now = Timestamp::from_second(second).unwrap();
            rotate(&path, Limits { max_bytes: 0, max_files: 3 }, now).unwrap();
        }
        fs::write(&path, "new").unwrap();
        let mut left: Vec<_> = fs::read_dir(directory.path())
            .unwrap()
            .map(|e| e.unwrap().file_name().into_string().unwrap())
            .collect();
        left.sort();
        assert_eq!(left, ["0.log", "0.log.19700101-000004.gz", "0.log.19700101-000005"]);
    }
}
