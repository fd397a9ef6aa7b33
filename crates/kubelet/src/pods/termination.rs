//! A container's last words: its termination message file, or the end of its log after an error.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::Path;

use containers::{ContainerState, ContainerStatus};

use crate::logs::format;
use crate::make::{TERMINATION_FILE, TERMINATION_POLICY};
use crate::text::tail;

const MAX_FILE_BYTES: u64 = 4096;
const MAX_LOG_BYTES: usize = 2048;
const MAX_LOG_LINES: usize = 80;

/// The message of a container that ended; empty for others and when it said nothing.
pub fn message(status: &ContainerStatus) -> String {
    let ContainerState::Exited { exit_code, .. } = status.state else { return String::new() };
    let annotation = |name: &str| status.config.annotations.get(name).map(String::as_str).unwrap_or_default();
    let file = read_end(Path::new(annotation(TERMINATION_FILE)), MAX_FILE_BYTES);
    if !file.is_empty() || exit_code == 0 || annotation(TERMINATION_POLICY) != "FallbackToLogsOnError" {
        return file;
    }
    let log = read_end(&status.log_path, 64 * 1024);
    let lines: Vec<_> = log.lines().filter_map(format::content).collect();
    let last = lines[lines.len().saturating_sub(MAX_LOG_LINES)..].concat();
    tail(&last, MAX_LOG_BYTES).to_owned()
}

fn read_end(path: &Path, max: u64) -> String {
    let mut bytes = Vec::new();
    let read = File::open(path).and_then(|mut file| {
        let length = file.metadata()?.len();
        file.seek(SeekFrom::Start(length.saturating_sub(max)))?;
        file.take(max).read_to_end(&mut bytes)
    });
    match read {
        Ok(_) => String::from_utf8_lossy(&bytes).into_owned(),
        Err(error) => {
            tracing::debug!(path = %path.display(), %error, "no termination message");
            String::new()
        }
    }
}
