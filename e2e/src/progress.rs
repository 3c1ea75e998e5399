//! What a person sees while waiting: one line a step, with the seconds since the start.
//!
//! It goes to standard error, so that standard output holds answers alone.

use std::time::Instant;

/// A story told line by line.
#[derive(Debug)]
pub struct Progress {
    started: Instant,
}

impl Progress {
    /// Starts the clock.
    pub fn start() -> Self {
        Self { started: Instant::now() }
    }

    /// Says what is being done now.
    pub fn step(&self, what: &str) {
        eprintln!("[{:>4} s] {what}", self.started.elapsed().as_secs());
    }
}
