//! The hybrid logical clock that orders versions for last-write-wins.
//!
//! It follows the stamps of others up to [`CLOCK_AHEAD_MAX_MS`] ahead of the node's own time, and never shows more
//! than that itself. So the stamps of a node whose own time is right are at most twice that far ahead of anybody
//! whose time is off by less: a stamp beyond [`STAMP_AHEAD_MAX_MS`] proves a clock wrong, and a new write that
//! bears it is refused. What was written already is taken all the same, or replicas would never be equal again.
//!
//! Source: Kulkarni, Demirbas, Madappa, Avva, Leone, "Logical Physical Clocks" (2014).

use serde::{Deserialize, Serialize};

use super::{Actor, VersionSet};
use crate::planted::{self, Bug};

/// How far ahead of the local clock a stamp may be and still be followed, in milliseconds.
pub const CLOCK_AHEAD_MAX_MS: u64 = 60_000;
/// How far ahead of the local clock the stamp of a new write may be, in milliseconds.
pub const STAMP_AHEAD_MAX_MS: u64 = 2 * CLOCK_AHEAD_MAX_MS;

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

    /// How far it is ahead of a time, in milliseconds; 0 when it is not.
    pub fn ahead_of_ms(self, unix_ms: u64) -> u64 {
        self.unix_ms().saturating_sub(unix_ms)
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

/// A new write that is stamped further ahead than any clock that is right shows.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error(
    "a write of node {} is stamped {ahead_ms} ms ahead of this node's clock, more than the {STAMP_AHEAD_MAX_MS} ms that \
     clocks which are right can differ by: set the clocks of both",
    .actor.node
)]
pub struct StampAhead {
    /// Who made the stamp.
    pub actor: Actor,
    /// How far.
    pub ahead_ms: u64,
}

/// Makes stamps that grow even when the wall clock jumps back, unless it was too wrong before to be believed.
#[derive(Debug, Default)]
pub struct Clock {
    last: Stamp,
}

impl Clock {
    /// A stamp greater than every one made or observed before. But once the time has jumped back so far that
    /// nobody would believe that, a new beginning: others go by their time, and ours is right at last.
    pub fn tick(&mut self, now_unix_ms: u64) -> Stamp {
        let now = Stamp::at_ms(now_unix_ms);
        let next = self.last.next();
        let believed = next.ahead_of_ms(now_unix_ms) <= CLOCK_AHEAD_MAX_MS;
        let believed = believed && !planted::is(Bug::CompareByWallClock);
        self.last = if believed { next.max(now) } else { now };
        self.last
    }

    /// Takes note of another node's stamp, so that what is written next counts as later.
    pub fn observe(&mut self, stamp: Stamp, now_unix_ms: u64) -> Result<(), TooFarAhead> {
        let ahead_ms = stamp.ahead_of_ms(now_unix_ms);
        if ahead_ms > CLOCK_AHEAD_MAX_MS {
            return Err(TooFarAhead { ahead_ms });
        }
        self.last = self.last.max(stamp);
        Ok(())
    }

    /// Takes note of all stamps of a set, also when one of them is too far ahead.
    pub fn observe_all(&mut self, set: &VersionSet, now_unix_ms: u64) -> Result<(), TooFarAhead> {
        let observed = set.versions().iter().map(|version| self.observe(version.stamp, now_unix_ms));
        observed.fold(Ok(()), Result::and)
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
        clock.observe(Stamp::at_ms(1000 + CLOCK_AHEAD_MAX_MS), 1000).unwrap();
        let mut clock = Clock::default();
        let error = clock.observe(Stamp::at_ms(1000 + CLOCK_AHEAD_MAX_MS + 1), 1000).unwrap_err();
        assert_eq!(error, TooFarAhead { ahead_ms: CLOCK_AHEAD_MAX_MS + 1 });
        assert_eq!(clock.tick(1000).unix_ms(), 1000);
    }

    #[test]
    fn a_clock_that_was_set_right_is_believed_again() {
        let mut clock = Clock::default();
        clock.tick(10_000_000);
        let back = 10_000_000 - CLOCK_AHEAD_MAX_MS;
        assert_eq!(clock.tick(back).unix_ms(), 10_000_000, "a small jump back is hidden");
        assert_eq!(clock.tick(back - 1).unix_ms(), back - 1, "a large one is not");
        assert_eq!(clock.tick(back - 1), Stamp::at_ms(back - 1).next());
    }

    #[test]
    fn the_last_stamp_is_the_last() {
        let mut clock = Clock { last: Stamp(u64::MAX) };
        assert_eq!(clock.tick(UNIX_MS_MAX), Stamp(u64::MAX));
        assert_eq!(clock.tick(5).unix_ms(), 5);
    }
}
