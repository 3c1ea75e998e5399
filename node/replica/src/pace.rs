//! How fast a change of the ring goes, and how long its data will take: an estimate, for people.

use std::time::Duration;

/// What a node had before it when its newest epoch came.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Pace {
    began: Duration,
    gained: usize,
    moved_before: u64,
}

impl Pace {
    /// The newest epoch came: it gains so many partitions, and so many bytes had come and gone before.
    pub(crate) fn begin(now: Duration, gained: usize, moved_before: u64) -> Self {
        Self { began: now, gained, moved_before }
    }

    /// Bytes that came and went since.
    pub(crate) fn moved(&self, bytes: u64) -> u64 {
        bytes.saturating_sub(self.moved_before)
    }

    /// Bytes a second.
    pub(crate) fn rate(&self, now: Duration, bytes: u64) -> u64 {
        let millis = now.saturating_sub(self.began).as_millis().max(1);
        u64::try_from(u128::from(self.moved(bytes)) * 1000 / millis).unwrap_or(u64::MAX)
    }

    /// When the partitions that are left will have come, if they come like those before; none while none has.
    pub(crate) fn remaining(&self, now: Duration, left: usize) -> Option<Duration> {
        let done = self.gained.checked_sub(left).filter(|done| *done > 0)?;
        Some(now.saturating_sub(self.began).mul_f64(left as f64 / done as f64))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn what_is_left_takes_as_long_as_what_was_done() {
        let pace = Pace::begin(10 * SECOND, 30, 1_000);
        assert_eq!(pace.remaining(20 * SECOND, 30), None, "nothing has come yet");
        assert_eq!(pace.remaining(20 * SECOND, 20), Some(20 * SECOND));
        assert_eq!(pace.remaining(40 * SECOND, 0), Some(Duration::ZERO));
        assert_eq!((pace.moved(5_000), pace.rate(12 * SECOND, 5_000)), (4_000, 2_000));
    }

    #[test]
    fn a_clock_that_stands_still_and_partitions_that_come_back_do_no_harm() {
        let pace = Pace::begin(10 * SECOND, 3, 1_000);
        assert_eq!(pace.rate(10 * SECOND, 2_000), 1_000_000);
        assert_eq!(pace.remaining(20 * SECOND, 5), None, "more than there were");
        assert_eq!(pace.moved(0), 0);
    }
}
