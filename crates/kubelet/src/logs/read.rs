//! Reading a container's log: from where, which lines, and following it while the container runs.
//!
//! Only the newest file is read, as upstream does; when it is rotated while being followed, reading goes on in the
//! new one. Following wakes by inotify.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use env::Shutdown;
use jiff::Timestamp;
use linux::inotify::Watcher;
use tokio::sync::mpsc;

use super::format;

/// No line of a log is longer; the runtime cuts at 16 KiB.
const MAX_LINE: u64 = 256 * 1024;
/// How much is collected before it is sent.
const CHUNK: usize = 32 * 1024;

/// `v1.PodLogOptions`, as far as the kubelet heeds them.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct LogOptions {
    pub follow: bool,
    pub tail_lines: Option<u64>,
    pub since: Option<Timestamp>,
    pub timestamps: bool,
    pub limit_bytes: Option<u64>,
    /// `stdout` or `stderr` alone.
    pub stream: Option<String>,
}

/// Sends the log at `path` in pieces. When following, ends after `ended` is cancelled and everything was read; ends,
/// too, when the receiver is gone.
pub async fn send(path: PathBuf, options: LogOptions, ended: Shutdown, to: mpsc::Sender<io::Result<Bytes>>) {
    if let Err(error) = try_send(&path, options, &ended, &to).await {
        // The receiver may be gone, and then nobody needs to know.
        let _receiver_gone = to.send(Err(error)).await;
    }
}

async fn try_send(
    path: &Path,
    options: LogOptions,
    ended: &Shutdown,
    to: &mpsc::Sender<io::Result<Bytes>>,
) -> io::Result<()> {
    let follow = options.follow;
    let tail_lines = options.tail_lines;
    let watcher = if follow { Some(watch(path)?) } else { None };
    let mut filter = Filter { left: options.limit_bytes, options };
    let mut reader = BufReader::new(File::open(path)?);
    if let Some(lines) = tail_lines {
        let start = tail_start(reader.get_mut(), lines)?;
        reader.seek(SeekFrom::Start(start))?;
    }
    loop {
        // The end is looked at before reading, so that nothing written before it is missed.
        let is_last = !follow || ended.is_cancelled();
        if !copy(&mut reader, &mut filter, to).await? {
            return Ok(());
        }
        if let Some(next) = rotated(path, reader.get_ref())? {
            if !copy(&mut reader, &mut filter, to).await? {
                return Ok(());
            }
            if let Some(watcher) = &watcher {
                watcher.watch(path).map_err(|error| error.source)?;
            }
            reader = BufReader::new(next);
            continue;
        }
        let Some(watcher) = watcher.as_ref().filter(|_| !is_last) else { return Ok(()) };
        tokio::select! {
            changed = watcher.changed() => changed?,
            () = ended.cancelled() => {}
            () = to.closed() => return Ok(()),
        }
    }
}

fn watch(path: &Path) -> io::Result<Watcher> {
    let watcher = Watcher::new().map_err(|error| error.source)?;
    watcher.watch(path).map_err(|error| error.source)?;
    if let Some(directory) = path.parent() {
        watcher.watch(directory).map_err(|error| error.source)?;
    }
    Ok(watcher)
}

/// The file that took the place of the one being read, if there is one.
fn rotated(path: &Path, reading: &File) -> io::Result<Option<File>> {
    match File::open(path) {
        Ok(file) if file.metadata()?.ino() != reading.metadata()?.ino() => Ok(Some(file)),
        Ok(_) => Ok(None),
        // Between the rename and the new file.
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

struct Filter {
    options: LogOptions,
    left: Option<u64>,
}

impl Filter {
    /// Appends what is wanted of a line; false when the limit is reached.
    fn take(&mut self, line: &[u8], out: &mut Vec<u8>) -> bool {
        let Some(record) = format::parse(line) else { return true };
        if self.options.stream.as_ref().is_some_and(|stream| stream != record.stream) {
            return true;
        }
        if let Some(since) = self.options.since
            && record.time.parse::<Timestamp>().is_ok_and(|time| time < since)
        {
            return true;
        }
        let begin = out.len();
        if self.options.timestamps {
            out.extend_from_slice(record.time.as_bytes());
            out.push(b' ');
        }
        out.extend_from_slice(record.content);
        if !record.partial {
            out.push(b'\n');
        }
        let Some(left) = &mut self.left else { return true };
        let length = (out.len() - begin) as u64;
        if length >= *left {
            out.truncate(begin + *left as usize);
            *left = 0;
            return false;
        }
        *left -= length;
        true
    }
}

/// Sends all complete lines that are there. False when nothing more is wanted.
async fn copy(
    reader: &mut BufReader<File>,
    filter: &mut Filter,
    to: &mpsc::Sender<io::Result<Bytes>>,
) -> io::Result<bool> {
    let mut more = true;
    while more {
        let mut out = Vec::new();
        let mut at_end = false;
        while more && out.len() < CHUNK && !at_end {
            match next_line(reader)? {
                Some(line) => more = filter.take(&line, &mut out),
                None => at_end = true,
            }
        }
        if !out.is_empty() && to.send(Ok(Bytes::from(out))).await.is_err() {
            return Ok(false);
        }
        if at_end {
            break;
        }
    }
    Ok(more)
}

/// A line without its end; a line that is still being written is left for later.
fn next_line(reader: &mut BufReader<File>) -> io::Result<Option<Vec<u8>>> {
    let mut line = Vec::new();
    let read = reader.by_ref().take(MAX_LINE).read_until(b'\n', &mut line)?;
    match line.pop() {
        Some(b'\n') => Ok(Some(line)),
        Some(_) if read as u64 == MAX_LINE => Ok(Some(line)),
        Some(_) => {
            reader.seek_relative(-(read as i64))?;
            Ok(None)
        }
        None => Ok(None),
    }
}

/// Where the last `lines` lines begin.
fn tail_start(file: &mut File, lines: u64) -> io::Result<u64> {
    let end = file.metadata()?.len();
    if lines == 0 {
        return Ok(end);
    }
    let mut block = vec![0; CHUNK];
    let (mut at, mut found) = (end, 0);
    while at > 0 {
        let size = at.min(CHUNK as u64);
        at -= size;
        file.seek(SeekFrom::Start(at))?;
        let part = &mut block[..size as usize];
        file.read_exact(part)?;
        for (index, byte) in part.iter().enumerate().rev() {
            // The end of the last line does not separate it from anything.
            if *byte == b'\n' && at + index as u64 + 1 != end {
                found += 1;
                if found == lines {
                    return Ok(at + index as u64 + 1);
                }
            }
        }
    }
    Ok(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    fn line(second: u32, stream: &str, text: &str) -> String {
        format!("2026-11-21T05:00:{second:02}.000000000Z {stream} F {text}\n")
    }

    async fn read(text: &str, options: LogOptions) -> String {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("0.log");
        std::fs::write(&path, text).unwrap();
        let (to, from) = mpsc::channel(4);
        tokio::spawn(send(path, options, Shutdown::new(), to));
        collect(from).await
    }

    async fn collect(mut from: mpsc::Receiver<io::Result<Bytes>>) -> String {
        let mut all = Vec::new();
        while let Some(piece) = from.recv().await {
            all.extend_from_slice(&piece.unwrap());
        }
        String::from_utf8(all).unwrap()
    }

    #[tokio::test]
    async fn selects() {
        let text = [line(1, "stdout", "a"), line(2, "stderr", "b"), line(3, "stdout", "c")].concat();
        let none = LogOptions::default;
        assert_eq!(read(&text, none()).await, "a\nb\nc\n");
        assert_eq!(read(&text, LogOptions { tail_lines: Some(2), ..none() }).await, "b\nc\n");
        assert_eq!(read(&text, LogOptions { tail_lines: Some(9), ..none() }).await, "a\nb\nc\n");
        assert_eq!(read(&text, LogOptions { tail_lines: Some(0), ..none() }).await, "");
        assert_eq!(read(&text, LogOptions { stream: Some("stderr".into()), ..none() }).await, "b\n");
        assert_eq!(read(&text, LogOptions { limit_bytes: Some(3), ..none() }).await, "a\nb");
        let since = "2026-11-21T05:00:02Z".parse().unwrap();
        assert_eq!(read(&text, LogOptions { since: Some(since), ..none() }).await, "b\nc\n");
        assert_eq!(
            read(&text, LogOptions { timestamps: true, tail_lines: Some(1), ..none() }).await,
            "2026-11-21T05:00:03.000000000Z c\n"
        );
    }

    #[tokio::test]
    async fn parts_are_joined_and_unfinished_lines_wait() {
        let text =
            "2026-11-21T05:00:01Z stdout P ab\n2026-11-21T05:00:01Z stdout F cd\n2026-11-21T05:00:01Z std";
        assert_eq!(read(text, LogOptions::default()).await, "abcd\n");
    }

    #[tokio::test]
    async fn follows_through_a_rotation_to_the_end() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("0.log");
        std::fs::write(&path, line(1, "stdout", "a")).unwrap();
        let (to, mut from) = mpsc::channel(4);
        let ended = Shutdown::new();
        let options = LogOptions { follow: true, ..LogOptions::default() };
        tokio::spawn(send(path.clone(), options, ended.clone(), to));
        assert_eq!(from.recv().await.unwrap().unwrap(), "a\n");
        let mut file = File::options().append(true).open(&path).unwrap();
        file.write_all(line(2, "stdout", "b").as_bytes()).unwrap();
        assert_eq!(from.recv().await.unwrap().unwrap(), "b\n");
        std::fs::rename(&path, directory.path().join("0.log.old")).unwrap();
        std::fs::write(&path, line(3, "stdout", "c")).unwrap();
        assert_eq!(from.recv().await.unwrap().unwrap(), "c\n");
        ended.cancel();
        assert!(from.recv().await.is_none());
    }
}
