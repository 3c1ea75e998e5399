//! The work: which keys are written, and with what.

use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use quorate_core::NodeId;
use quorate_core::causality::{Actor, Context, Event, Policy, Stamp};
use quorate_core::ring::{Partition, PartitionCount};

/// With its dot, stamp and context this makes a record of about 200 bytes.
const VALUE_BYTES: usize = 128;
const PARTITIONS: u32 = 256;

/// About what a record takes: its header, the key and the set.
pub(crate) const RECORD_BYTES: usize = 230;

/// The disk that all of this happens on.
pub(crate) const NODE: NodeId = NodeId::from_u128(0x1234_5678_9abc_def0_1234_5678_9abc_def0);

/// An actor that was never used in this process.
pub(crate) fn new_actor() -> Actor {
    static STARTS: AtomicU64 = AtomicU64::new(1);
    Actor { node: NODE, start: STARTS.fetch_add(1, Ordering::Relaxed) }
}

/// The key of a number, and where it belongs.
pub(crate) fn key(number: u64) -> (Partition, Bytes) {
    let key = Bytes::from(format!("key-{number:012}"));
    (partitions().of_key(&key), key)
}

pub(crate) fn partitions() -> PartitionCount {
    PartitionCount::try_from(PARTITIONS).unwrap_or_else(|_| unreachable!("a power of two"))
}

/// A write of one value over what was there. The value looks random: an engine that compresses gains nothing by it.
pub(crate) fn event(number: u64) -> Event {
    let mut dice = Dice::seeded(number);
    let value: Vec<u8> = (0..VALUE_BYTES / 8).flat_map(|_| dice.throw().to_le_bytes()).collect();
    Event {
        context: Context::default(),
        stamp: Stamp::at_ms(1_700_000_000_000 + number / 1000),
        value: Some(value.into()),
        policy: Policy::LastWriteWins,
        expires: None,
    }
}

/// Numbers that look random, the same in every run (the generator is `SplitMix64`, Steele and others 2014).
pub(crate) struct Dice(u64);

impl Dice {
    pub(crate) fn seeded(seed: u64) -> Self {
        Self(seed)
    }

    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        self.throw() % bound
    }

    fn throw(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ self.0 >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ mixed >> 31
    }
}
