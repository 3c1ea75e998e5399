//! Which keys are asked for.

use rand::rngs::SmallRng;
use rand::{Rng as _, SeedableRng as _};
use rand_distr::{Distribution as _, Zipf};

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Keys {
    /// All alike.
    Uniform,
    /// A few of them most of the time: as YCSB has it, with the exponent 0.99.
    Zipfian,
}

const EXPONENT: f64 = 0.99;

/// Draws keys; the same ones for the same seed.
pub(crate) struct Drawer {
    random: SmallRng,
    keys: u64,
    zipf: Option<Zipf<f64>>,
}

impl Drawer {
    pub(crate) fn new(keys: Keys, count: u64, seed: u64) -> Self {
        let zipf = match keys {
            Keys::Uniform => None,
            Keys::Zipfian => Zipf::new(count as f64, EXPONENT).ok(),
        };
        Self { random: SmallRng::seed_from_u64(seed), keys: count, zipf }
    }

    pub(crate) fn draw(&mut self) -> u64 {
        match &self.zipf {
            None => self.random.random_range(0..self.keys),
            Some(zipf) => (zipf.sample(&mut self.random) as u64).saturating_sub(1).min(self.keys - 1),
        }
    }
}

/// A key of values of one size.
pub(crate) fn key(number: u64, value_bytes: usize) -> String {
    format!("key:{value_bytes}:{number:010}")
}
