//! Container logs in the CRI format: `TIME STREAM P|F LINE`.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use jiff::Timestamp;

/// Longer lines are written in parts, all but the last marked `P`.
pub const MAX_LINE_BYTES: usize = 16 * 1024;

/// A log file that both streams of a container are written to.
pub struct Log {
    path: PathBuf,
    file: File,
    /// Bytes of entries not yet written; empty between calls.
    buffer: Vec<u8>,
}

/// Cuts a stream into lines.
pub struct Lines {
    stream: &'static str,
    partial: Vec<u8>,
}

impl Log {
    /// Opens the file for appending, with its directories.
    pub fn open(path: &Path) -> io::Result<Self> {
        Ok(Self { path: path.to_owned(), file: open(path)?, buffer: Vec::new() })
    }

    /// Goes on in a new file after the old one was renamed.
    pub fn reopen(&mut self) -> io::Result<()> {
        self.file = open(&self.path)?;
        Ok(())
    }

    fn flush(&mut self) {
        // A full disk must not stop the container; what does not fit is lost, as with every log.
        if self.file.write_all(&self.buffer).is_err() {
            self.buffer.clear();
        }
        self.buffer.clear();
        self.buffer.shrink_to(MAX_LINE_BYTES);
    }
}

fn open(path: &Path) -> io::Result<File> {
    use std::os::unix::fs::OpenOptionsExt;
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent)?;
    }
    OpenOptions::new().create(true).append(true).mode(0o640).open(path)
}

impl Lines {
    pub fn new(stream: &'static str) -> Self {
        Self { stream, partial: Vec::new() }
    }

    /// Writes the complete lines of what arrived, and keeps the rest for later.
    pub fn write(&mut self, log: &mut Log, mut bytes: &[u8], now: Timestamp) {
        let time = now.to_string();
        while !bytes.is_empty() {
            let space = MAX_LINE_BYTES - self.partial.len();
            let end = bytes.iter().take(space).position(|byte| *byte == b'\n');
            match end {
                Some(end) => {
                    self.entry(&mut log.buffer, &time, 'F', &bytes[..end]);
                    bytes = &bytes[end + 1..];
                }
                None if bytes.len() >= space && bytes.get(space) == Some(&b'\n') => {
                    self.entry(&mut log.buffer, &time, 'F', &bytes[..space]);
                    bytes = &bytes[space + 1..];
                }
                None if bytes.len() > space => {
                    self.entry(&mut log.buffer, &time, 'P', &bytes[..space]);
                    bytes = &bytes[space..];
                }
                None => {
                    self.partial.extend_from_slice(bytes);
                    bytes = &[];
                }
            }
        }
        log.flush();
    }

    /// Writes what is left when the stream ends: a part, as no line end came, so that readers do not add one.
    pub fn finish(&mut self, log: &mut Log, now: Timestamp) {
        if !self.partial.is_empty() {
            self.entry(&mut log.buffer, &now.to_string(), 'P', &[]);
            log.flush();
        }
    }

    fn entry(&mut self, out: &mut Vec<u8>, time: &str, tag: char, rest: &[u8]) {
        out.extend_from_slice(time.as_bytes());
        out.push(b' ');
        out.extend_from_slice(self.stream.as_bytes());
        out.extend_from_slice(&[b' ', tag as u8, b' ']);
        out.append(&mut self.partial);
        out.extend_from_slice(rest);
        out.push(b'\n');
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(chunks: &[&[u8]], expected: &str) {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a/0.log");
        let mut log = Log::open(&path).unwrap();
        let mut lines = Lines::new("stdout");
        for chunk in chunks {
            lines.write(&mut log, chunk, Timestamp::UNIX_EPOCH);
        }
        lines.finish(&mut log, Timestamp::UNIX_EPOCH);
        let text = fs::read_to_string(&path).unwrap();
        let short: Vec<String> = text
            .lines()
            .map(|line| line.strip_prefix("1970-01-01T00:00:00Z stdout ").expect("the same head").to_owned())
            .map(|line| if line.len() > 20 { format!("{}{}", &line[..3], line.len() - 2) } else { line })
            .collect();
        assert_eq!(short.join("|"), expected);
    }

    #[test]
    fn lines_are_cut_and_joined() {
        check(&[b"a\nb\n"], "F a|F b");
        check(&[b"a", b"b\n\nc"], "F ab|F |P c");
        let long = vec![b'x'; MAX_LINE_BYTES];
        check(&[&long, b"\n"], "F x16384");
        check(&[&[&long[..], b"\n"].concat()], "F x16384");
        check(&[&long, b"y\n"], "P x16384|F y");
        check(&[&long[..10], &long, &long], "P x16384|P x16384|P xxxxxxxxxx");
    }
}
