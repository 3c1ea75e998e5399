//! How much may go out in the background: a token bucket.

use std::time::Duration;

/// Lets so many bytes pass in a second, and a second's worth at once. What is larger passes when the bucket is
/// full, and the next waits the longer.
#[derive(Clone, Debug)]
pub struct Throttle {
    bytes_per_second: u64,
    /// When the bucket is empty up to what has passed: it is full a second later.
    empty_at: Duration,
}

/// The bucket.
const BURST: Duration = Duration::from_secs(1);

impl Throttle {
    /// A full bucket. No rate at all would stop everything for good, so it is at least a byte.
    pub fn new(bytes_per_second: u64) -> Self {
        Self { bytes_per_second: bytes_per_second.max(1), empty_at: Duration::ZERO }
    }

    /// Whether anything may pass now.
    pub fn is_open(&self, now: Duration) -> bool {
        self.opens_at() <= now
    }

    /// From when on something may pass.
    pub fn opens_at(&self) -> Duration {
        self.empty_at
    }

    /// So much passes now.
    pub fn pass(&mut self, bytes: u64, now: Duration) {
        let takes = Duration::from_secs_f64(bytes as f64 / self.bytes_per_second as f64);
        self.empty_at = self.empty_at.max(now.saturating_sub(BURST)).saturating_add(takes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_passes_in_the_long_run_is_the_rate_and_a_burst() {
        let mut throttle = Throttle::new(1000);
        let (mut passed, start) = (0, Duration::from_secs(50));
        for ms in 0..10_000 {
            let now = start + Duration::from_millis(ms);
            while throttle.is_open(now) {
                throttle.pass(70, now);
                passed += 70;
            }
        }
        assert!((11_000..=11_070).contains(&passed), "{passed}");
    }

    #[test]
    fn what_is_larger_than_the_bucket_passes_alone() {
        let mut throttle = Throttle::new(1000);
        let now = Duration::from_secs(9);
        throttle.pass(5000, now);
        assert!(!throttle.is_open(now + Duration::from_millis(3999)));
        assert!(throttle.is_open(now + Duration::from_secs(4)));
    }
}
