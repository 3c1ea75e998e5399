//! What can be chosen, and what can be watched.

use std::sync::Arc;
use std::time::Duration;

use quorate_core::ring::PartitionCount;

/// The smallest segment that is begun when the disk has no room for a whole one.
pub(crate) const SEGMENT_BYTES_MIN: u64 = 1024 * 1024;
/// The largest segment: positions in a segment are 32 bits, and a segment is read whole at recovery.
pub(crate) const SEGMENT_BYTES_MAX: u64 = 256 * 1024 * 1024;
/// The largest record. Merging concurrent sets of several replicas can exceed what one write may make.
pub(crate) const RECORD_BYTES_MAX: u64 = 64 * 1024 * 1024 - 1;

/// When a write counts as durable.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Durability {
    /// When it is synced to the disk: it survives a power cut.
    Sync,
    /// When it is handed to the operating system, which is told to sync this often: it survives the death of
    /// the process, and a power cut when it is older than this.
    Interval(Duration),
    /// When it is handed to the operating system: it survives the death of the process.
    Memory,
}

/// How a store behaves.
#[derive(Clone)]
pub struct Options {
    /// When a write is answered.
    pub durability: Durability,
    /// Writes are refused while the disk has less free than this; merging may use it.
    pub free_space_reserve_bytes: u64,
    /// The size of a segment of the log. Up to two are allocated ahead of what is stored, and
    /// while the log is written up to four files of merged ones wait to be used again.
    pub segment_bytes: u32,
    /// How many writes may wait.
    pub queue_writes_max: usize,
    /// How many bytes of writes may wait.
    pub queue_bytes_max: usize,
    /// How many writes one sync may serve.
    pub group_writes_max: usize,
    /// From this size on a group takes no further write.
    pub group_bytes_max: usize,
    /// How many partitions the ring has, if that is known; see [`crate::Access::set_partitions`].
    pub partitions: Option<PartitionCount>,
    /// Is told what happens.
    pub observer: Option<Arc<dyn Observer>>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            durability: Durability::Sync,
            free_space_reserve_bytes: 64 * 1024 * 1024,
            segment_bytes: 32 * 1024 * 1024,
            queue_writes_max: 16 * 1024,
            queue_bytes_max: 64 * 1024 * 1024,
            group_writes_max: 1024,
            group_bytes_max: 4 * 1024 * 1024,
            partitions: None,
            observer: None,
        }
    }
}

/// Is told what the store does, for metrics. Called on the store's threads: must return at once.
#[allow(unused_variables)]
pub trait Observer: Send + Sync {
    /// The log was synced.
    fn synced(&self, took: Duration) {}
    /// A sync or a write of the log failed.
    fn sync_failed(&self) {}
    /// A group was stored.
    fn group(&self, writes: usize, bytes: usize) {}
    /// Segments were rewritten without what was dead in them.
    fn merged(&self, read_bytes: u64, written_bytes: u64) {}
}
