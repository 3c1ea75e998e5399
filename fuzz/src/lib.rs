//! Fuzz targets: whatever reads bytes that come from the network or from a disk, each with its laws.
//!
//! A target takes any bytes, must not panic, and asserts what holds of whatever it understood. It says whether it
//! understood anything; it understands its own seeds, which are made here, of valid messages.
#![forbid(unsafe_code)]

mod collection;
mod epochs;
mod exchange;
mod forged_log;
mod frames;
mod handshake;
mod hint_names;
mod log;
mod membership;
mod resp;
mod rotten_log;
mod samples;
mod tokens;
mod version_sets;

/// One thing that reads bytes.
pub struct Target {
    /// What `QUORATE_FUZZ_TARGET` calls it.
    pub name: &'static str,
    /// Reads the bytes and asserts the laws; says whether they meant anything.
    pub run: fn(&[u8]) -> bool,
    /// Valid bytes to begin with.
    pub seeds: fn() -> Vec<Vec<u8>>,
}

/// Every target.
pub const TARGETS: &[Target] = &[
    Target { name: "collection", run: collection::run, seeds: collection::seeds },
    Target { name: "epochs", run: epochs::run, seeds: epochs::seeds },
    Target { name: "exchange", run: exchange::run, seeds: exchange::seeds },
    Target { name: "forged_log", run: forged_log::run, seeds: forged_log::seeds },
    Target { name: "frames", run: frames::run, seeds: frames::seeds },
    Target { name: "handshake", run: handshake::run, seeds: handshake::seeds },
    Target { name: "hint_names", run: hint_names::run, seeds: hint_names::seeds },
    Target { name: "membership", run: membership::run, seeds: membership::seeds },
    Target { name: "resp", run: resp::run, seeds: resp::seeds },
    Target { name: "rotten_log", run: rotten_log::run, seeds: rotten_log::seeds },
    Target { name: "tokens", run: tokens::run, seeds: tokens::seeds },
    Target { name: "version_sets", run: version_sets::run, seeds: version_sets::seeds },
];
