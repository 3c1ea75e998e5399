//! When a value stops being one.
//!
//! A moment that is chosen once, where the write is taken, and that travels with the version: every replica
//! stores the same, and no digest depends on the time. A replica shows it until its own clock has reached it.

use serde::{Deserialize, Serialize};

/// The last moment that can be said: the end of the year 9999. What would live longer is kept until then, so
/// that no reader meets a date that it cannot write down.
const EXPIRY_MAX_UNIX_MS: u64 = 253_402_300_799_999;

/// A moment, in Unix milliseconds.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(from = "u64", into = "u64")]
pub struct Expiry(u64);

impl Expiry {
    /// At this moment, or at the end of the year 9999.
    pub fn at_ms(unix_ms: u64) -> Self {
        Self(unix_ms.min(EXPIRY_MAX_UNIX_MS))
    }

    /// So many milliseconds from now, or at the end of the year 9999.
    pub fn after_ms(now_unix_ms: u64, ttl_ms: u64) -> Self {
        Self::at_ms(now_unix_ms.saturating_add(ttl_ms))
    }

    /// In Unix milliseconds.
    pub fn unix_ms(self) -> u64 {
        self.0
    }

    /// Whether the moment has come.
    pub fn has_come(self, now_unix_ms: u64) -> bool {
        self.0 <= now_unix_ms
    }
}

impl From<u64> for Expiry {
    fn from(unix_ms: u64) -> Self {
        Self::at_ms(unix_ms)
    }
}

impl From<Expiry> for u64 {
    fn from(expiry: Expiry) -> Self {
        expiry.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_moment_comes_and_stays() {
        let expiry = Expiry::after_ms(1000, 500);
        assert_eq!([1499, 1500, 1501].map(|now| expiry.has_come(now)), [false, true, true]);
    }

    #[test]
    fn an_absurd_moment_is_the_last_one_whatever_way_it_comes() {
        let last = Expiry::at_ms(EXPIRY_MAX_UNIX_MS);
        assert_eq!(Expiry::after_ms(u64::MAX - 1, u64::MAX), last);
        let bytes = postcard::to_stdvec(&u64::MAX).unwrap();
        assert_eq!(postcard::from_bytes::<Expiry>(&bytes), Ok(last));
        assert!(!last.has_come(EXPIRY_MAX_UNIX_MS - 1));
    }
}
