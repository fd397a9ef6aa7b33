//! How much the peer allows us to send, for peers that keep to windows at all.

use std::collections::BTreeMap;

/// The window of a stream and of the connection at the start, in bytes.
const INITIAL: i64 = 64 << 10;
/// Windows never grow beyond this.
const WINDOW_MAX: i64 = i32::MAX as i64;

/// What is left of the windows. Counted from the start, so that they are right when the peer turns out to care.
#[derive(Debug)]
pub struct Windows {
    kept: bool,
    initial: i64,
    connection: i64,
    streams: BTreeMap<u32, i64>,
}

impl Default for Windows {
    fn default() -> Self {
        Self { kept: false, initial: INITIAL, connection: INITIAL, streams: BTreeMap::new() }
    }
}

impl Windows {
    /// Whether the peer keeps to windows.
    pub fn are_kept(&self) -> bool {
        self.kept
    }

    /// Takes up to `wanted` bytes off a stream's window; 0 when it is used up.
    pub fn take(&mut self, id: u32, wanted: usize) -> usize {
        let stream = self.streams.entry(id).or_insert(self.initial);
        let mut granted = i64::try_from(wanted).unwrap_or(WINDOW_MAX);
        if self.kept {
            granted = granted.min(*stream).min(self.connection).max(0);
        }
        *stream = stream.saturating_sub(granted);
        self.connection = self.connection.saturating_sub(granted);
        granted as usize
    }

    /// The peer allows more, for a stream or (0) for the connection.
    pub fn grant(&mut self, id: u32, delta: u32) {
        self.kept = true;
        let window = match id {
            0 => &mut self.connection,
            id => match self.streams.get_mut(&id) {
                Some(stream) => stream,
                None => return,
            },
        };
        *window = (*window + i64::from(delta)).min(WINDOW_MAX);
    }

    /// The peer sets the size at which windows of streams begin.
    pub fn begin_at(&mut self, size: u32) {
        self.kept = true;
        let change = i64::from(size) - self.initial;
        self.initial += change;
        for stream in self.streams.values_mut() {
            *stream += change;
        }
    }

    /// A stream has begun, or is over.
    pub fn open(&mut self, id: u32) {
        self.streams.insert(id, self.initial);
    }

    pub fn close(&mut self, id: u32) {
        self.streams.remove(&id);
    }
}
