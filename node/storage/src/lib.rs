//! The log-structured engine of a node: version sets by key, over a disk trait.
//!
//! One log of segments, one committer, an index in memory. The committer takes what waits, reads and merges, writes
//! one group with one sync, points the index to it and answers; so one sync serves every write that arrived during the
//! last one, and a point read is one read of the disk. A thread rewrites segments that hold much that is dead, another
//! prepares the next segment.
//!
//! [`Engine`] is all of that a step at a time, for whoever brings time and a thread: the simulator. [`Store`] is the
//! same engine driven by threads of its own.
//!
//! One idea a file: `engine`, `format` (the bytes), `segment` (files that tile the log, and how rot is told from a torn write),
//! `catalogue` (a start without reading it all), `entry`, `hashes` and `index`, `queue`, `batch`, `helper` (reads beside the committer), `log` (writing, and what happens when that fails), `commit`, `merge`, `spare`,
//! `snapshot`, `recovery`, `lifted` (what rot took and peers gave back). [`disk`] is the disk, and [`disk::simulated`] one that fails on purpose.
//!
//! Memory: about 50 bytes a key, the queue, one group, and a segment while it is merged or recovered.
#![forbid(unsafe_code)]

mod access;
mod batch;
mod catalogue;
mod commit;
pub mod disk;
mod engine;
mod entry;
mod error;
mod format;
mod gentle;
mod hashes;
mod helper;
mod index;
mod lifted;
mod log;
mod merge;
mod options;
mod queue;
mod recovery;
mod segment;
mod shared;
mod snapshot;
mod spare;
mod store;
mod sync;
#[cfg(test)]
mod tests;
mod write;

pub use access::{Access, Page, Scanned, Usage};
pub use disk::{Disk, StdDisk};
pub use engine::{Engine, Step};
pub use error::{OpenError, ReadError, WriteError};
pub use index::PartitionUsage;
pub use options::{Durability, Observer, Options};
pub use recovery::{QuarantinedSegment, Recovery};
pub use shared::State;
pub use snapshot::{MANIFEST, SNAPSHOTS, Snapshot, SnapshotError};
pub use store::Store;
pub use write::{Change, Committed, Done, HINTS, Leftover, Prepared, Write};
