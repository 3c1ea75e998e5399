//! Everything that happens, as one hash; and as lines for people, when somebody looks.

use std::collections::VecDeque;
use std::fmt::{self, Write as _};
use std::time::Duration;

/// Lines that are kept when they are wanted.
const LINES_MAX: usize = 400_000;
/// Bytes that are hashed at once.
const BUFFER_BYTES: usize = 64 * 1024;

/// What something looks like, cut short: values and contexts are long.
pub(crate) fn shown(it: &impl fmt::Debug, characters_max: usize) -> String {
    let mut short = Short { text: String::new(), characters_max };
    let _ = write!(short, "{it:?}"); // An error says that it is long enough.
    short.text
}

struct Short {
    text: String,
    characters_max: usize,
}

impl fmt::Write for Short {
    fn write_str(&mut self, more: &str) -> fmt::Result {
        self.text.push_str(more);
        if self.text.len() <= self.characters_max {
            return Ok(());
        }
        self.text.push('…');
        Err(fmt::Error)
    }
}

pub(crate) struct Trace {
    hasher: blake3::Hasher,
    buffer: Vec<u8>,
    lines: Option<VecDeque<String>>,
    now: Duration,
}

impl Trace {
    pub(crate) fn new(lines: bool) -> Self {
        let lines = lines.then(VecDeque::new);
        Self { hasher: blake3::Hasher::new(), buffer: Vec::new(), lines, now: Duration::ZERO }
    }

    pub(crate) fn set_now(&mut self, now: Duration) {
        self.now = now;
    }

    /// Adds what happened: what it was, two numbers, and bytes.
    pub(crate) fn add(&mut self, what: u8, one: u64, other: u64, bytes: &[u8]) {
        self.buffer.push(what);
        self.buffer.extend_from_slice(&(self.now.as_nanos() as u64).to_le_bytes());
        self.buffer.extend_from_slice(&one.to_le_bytes());
        self.buffer.extend_from_slice(&other.to_le_bytes());
        if bytes.len() > BUFFER_BYTES {
            self.flush();
            self.hasher.update(bytes);
        } else {
            self.buffer.extend_from_slice(bytes);
        }
        if self.buffer.len() > BUFFER_BYTES {
            self.flush();
        }
    }

    /// Adds a line, if somebody looks.
    pub(crate) fn say(&mut self, line: impl FnOnce() -> String) {
        let Some(lines) = &mut self.lines else { return };
        if lines.len() == LINES_MAX {
            lines.pop_front();
        }
        let mut text = String::new();
        let _ = write!(text, "{:>12.6} {}", self.now.as_secs_f64(), line());
        lines.push_back(text);
    }

    fn flush(&mut self) {
        self.hasher.update(&self.buffer);
        self.buffer.clear();
    }

    pub(crate) fn finish(mut self) -> (String, Vec<String>) {
        self.flush();
        (self.hasher.finalize().to_hex().to_string(), self.lines.unwrap_or_default().into())
    }
}
