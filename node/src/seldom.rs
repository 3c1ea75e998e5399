//! One cause, one line in a while: what a stranger can make happen must not fill the log.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// How long a cause stays quiet after a line.
const QUIET: Duration = Duration::from_secs(10);

/// Made once for each line of code that logs; metrics count what is not said.
pub(crate) struct Seldom(Mutex<Option<Instant>>);

impl Seldom {
    pub(crate) const fn new() -> Self {
        Self(Mutex::new(None))
    }

    /// Whether to log now.
    pub(crate) fn due(&self) -> bool {
        let mut last = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let due = last.is_none_or(|last| last.elapsed() >= QUIET);
        if due {
            *last = Some(Instant::now());
        }
        due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_is_said_and_the_next_is_not() {
        let seldom = Seldom::new();
        assert!(seldom.due());
        assert!(!seldom.due());
    }
}
