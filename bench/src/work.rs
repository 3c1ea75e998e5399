//! The work: which keys are written, and with what.

use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use quorate_core::NodeId;
use quorate_core::causality::{Actor, Context, Event, Policy, Stamp};
use quorate_core::ring::{Partition, PartitionCount};

/// With its dot, stamp and context this makes a record of about 200 bytes.
const VALUE_BYTES: usize = 128;
const PARTITIONS: u32 = 256;

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

/// A write of one value over what was there.
pub(crate) fn event(number: u64) -> Event {
    Event {
        context: Context::default(),
        stamp: Stamp::at_ms(1_700_000_000_000 + number / 1000),
        value: Some(Bytes::from(vec![number as u8; VALUE_BYTES])),
        policy: Policy::LastWriteWins,
        expires: None,
    }
}

/// Numbers that look random, the same in every run (the generator is Knuth's MMIX).
pub(crate) struct Dice(u64);

impl Dice {
    pub(crate) fn new() -> Self {
        Self(1)
    }

    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 16) % bound
    }
}
