//! The time as one node sees it.

use std::time::Duration;

use quorate_replica::Now;

/// The wall clock when a simulation begins: a moment in 2026, in Unix milliseconds.
pub(crate) const UNIX_MS_AT_START: u64 = 1_790_000_000_000;
/// How far a wall clock is ever wrong.
pub(crate) const OFFSET_MS_MAX: i64 = 60_000;

const PARTS: u64 = 1_000_000;

/// A clock that is wrong and runs too fast or too slow.
#[derive(Clone, Debug)]
pub(crate) struct Clock {
    /// How much too fast it runs, in parts per million.
    drift: i64,
    offset_ms: i64,
}

impl Clock {
    pub(crate) fn new(drift: i64) -> Self {
        Self { drift, offset_ms: 0 }
    }

    /// The wall clock jumps, to this far from the truth.
    pub(crate) fn set_offset_ms(&mut self, offset_ms: i64) {
        self.offset_ms = offset_ms.clamp(-OFFSET_MS_MAX, OFFSET_MS_MAX);
    }

    fn rate(&self) -> u128 {
        (PARTS as i64 + self.drift) as u128
    }

    /// What it shows.
    pub(crate) fn at(&self, truth: Duration) -> Now {
        let mono = Duration::from_nanos((truth.as_nanos() * self.rate() / u128::from(PARTS)) as u64);
        let unix_ms = (UNIX_MS_AT_START + mono.as_millis() as u64).saturating_add_signed(self.offset_ms);
        Now { mono, unix_ms }
    }

    /// When it will show this.
    pub(crate) fn truth_of(&self, mono: Duration) -> Duration {
        Duration::from_nanos((mono.as_nanos() * u128::from(PARTS)).div_ceil(self.rate()) as u64)
    }
}

/// The wall clock that is right.
pub(crate) fn unix_ms(truth: Duration) -> u64 {
    UNIX_MS_AT_START + truth.as_millis() as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_moment_is_found_again() {
        for drift in [-300, 0, 1, 300] {
            let clock = Clock::new(drift);
            for nanos in [0, 1, 999_999_937, 60_000_000_001] {
                let mono = Duration::from_nanos(nanos);
                let truth = clock.truth_of(mono);
                assert!(clock.at(truth).mono >= mono, "{drift} {nanos}");
                assert!(clock.at(truth.saturating_sub(Duration::from_nanos(2))).mono <= mono);
            }
        }
    }

    #[test]
    fn it_is_never_wrong_by_more_than_a_minute() {
        let mut clock = Clock::new(0);
        clock.set_offset_ms(-90_000);
        assert_eq!(clock.at(Duration::ZERO).unix_ms, UNIX_MS_AT_START - 60_000);
    }
}
