//! How well this node itself is doing (Lifeguard, section IV-A): a node that hears little doubts itself
//! first, and gives the others more time.

use std::time::Duration;

/// The worst score; intervals are stretched to at most nine times their length.
const SCORE_MAX: u32 = 8;

/// 0 is fine.
#[derive(Default)]
pub(super) struct Health {
    score: u32,
}

impl Health {
    pub(super) fn score(&self) -> u32 {
        self.score
    }

    pub(super) fn better(&mut self) {
        self.score = self.score.saturating_sub(1);
    }

    pub(super) fn worse(&mut self, by: u32) {
        self.score = (self.score + by).min(SCORE_MAX);
    }

    pub(super) fn stretch(&self, interval: Duration) -> Duration {
        interval * (self.score + 1)
    }
}
