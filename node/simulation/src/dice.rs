//! Random numbers from a seed: the same ones on every machine.

use std::time::Duration;

/// Splitmix64 (Steele, Lea, Flood, 2014).
#[derive(Clone, Debug)]
pub(crate) struct Dice(u64);

impl Dice {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub(crate) fn roll(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// Dice of their own for a part that may be left out without disturbing the rest.
    pub(crate) fn fork(&mut self) -> Self {
        Self(self.roll())
    }

    /// `0..count`; `count` is not zero.
    pub(crate) fn below(&mut self, count: u64) -> u64 {
        self.roll() % count
    }

    /// Both ends included.
    pub(crate) fn between(&mut self, least: u64, most: u64) -> u64 {
        least + self.below(most - least + 1)
    }

    pub(crate) fn chance(&mut self, per_mille: u64) -> bool {
        self.below(1000) < per_mille
    }

    pub(crate) fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.below(from.len() as u64) as usize]
    }

    /// Uniform, to the microsecond.
    pub(crate) fn time(&mut self, least: Duration, most: Duration) -> Duration {
        Duration::from_micros(self.between(least.as_micros() as u64, most.as_micros() as u64))
    }

    /// Mostly near the mean, seldom up to eight times as long.
    pub(crate) fn about(&mut self, mean: Duration) -> Duration {
        let mut factor = self.between(50, 150);
        while factor < 800 && self.chance(100) {
            factor *= 2;
        }
        Duration::from_nanos((mean.as_nanos() as u64).saturating_mul(factor.min(800)) / 100)
    }
}
