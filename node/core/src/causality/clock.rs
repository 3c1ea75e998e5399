//! The hybrid logical clock that orders versions for last-write-wins.
//!
//! Source: Kulkarni, Demirbas, Madappa, Avva, Leone, "Logical Physical Clocks" (2014).

use serde::{Deserialize, Serialize};

/// How far ahead of the local clock a stamp may be and still be believed, in milliseconds.
pub const CLOCK_AHEAD_MAX_MS: u64 = 60_000;

const LOGICAL_BITS: u32 = 16;
/// In the year 10889.
const UNIX_MS_MAX: u64 = u64::MAX >> LOGICAL_BITS;

/// A point in hybrid time: 48 bits of Unix milliseconds, then 16 bits that count within one.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Debug, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Stamp(u64);

impl Stamp {
    /// The first stamp of a millisecond; of the last one that can be said, for one too far away.
    pub fn at_ms(unix_ms: u64) -> Self {
        Self(unix_ms.min(UNIX_MS_MAX) << LOGICAL_BITS)
    }

    /// The stamp right after this one.
    pub fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }

    /// The wall-clock part, in Unix milliseconds.
    pub fn unix_ms(self) -> u64 {
        self.0 >> LOGICAL_BITS
    }
}

/// A stamp of the future: its clock runs ahead too far to be believed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error(
    "a clock runs {ahead_ms} ms ahead of this node's, more than the {CLOCK_AHEAD_MAX_MS} ms that are believed"
)]
pub struct TooFarAhead {
    /// How far.
    pub ahead_ms: u64,
}

/// Makes stamps that grow even when the wall clock jumps back.
#[derive(Debug, Default)]
pub struct Clock {
    last: Stamp,
}

impl Clock {
    /// A stamp greater than every one made or observed before.
    pub fn tick(&mut self, now_unix_ms: u64) -> Stamp {
        self.last = Stamp::at_ms(now_unix_ms).max(Stamp(self.last.0 + 1));
        self.last
    }

    /// Takes note of another node's stamp, so that what is written next counts as later.
    pub fn observe(&mut self, stamp: Stamp, now_unix_ms: u64) -> Result<(), TooFarAhead> {
        let ahead_ms = stamp.unix_ms().saturating_sub(now_unix_ms);
        if ahead_ms > CLOCK_AHEAD_MAX_MS {
            return Err(TooFarAhead { ahead_ms });
        }
        self.last = self.last.max(stamp);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stamps_grow_when_the_clock_stands_or_jumps_back() {
        let mut clock = Clock::default();
        let stamps = [1000, 1000, 500, 1001].map(|now| clock.tick(now));
        assert!(stamps.is_sorted_by(|a, b| a < b), "{stamps:?}");
        assert_eq!(stamps[3].unix_ms(), 1001);
    }

    #[test]
    fn what_was_observed_counts_as_earlier() {
        let mut clock = Clock::default();
        let other = Stamp::at_ms(30_000);
        clock.observe(other, 1000).unwrap();
        assert!(clock.tick(1000) > other);
    }

    #[test]
    fn a_stamp_too_far_ahead_is_not_believed() {
        let mut clock = Clock::default();
        let error = clock.observe(Stamp::at_ms(1000 + CLOCK_AHEAD_MAX_MS + 1), 1000).unwrap_err();
        assert_eq!(error, TooFarAhead { ahead_ms: CLOCK_AHEAD_MAX_MS + 1 });
        assert_eq!(clock.tick(1000).unix_ms(), 1000);
    }
}
