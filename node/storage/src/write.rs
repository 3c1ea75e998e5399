//! A write on its way to the log, and what becomes of it.

use bytes::Bytes;
use quorate_core::causality::{Context, Event, VersionSet};
use quorate_core::limits::{KEY_BYTES_MAX, PARTITIONS_MAX};
use quorate_core::ring::Partition;

use crate::error::WriteError;

/// The partition of hints: one more than a ring can have. Its keys may be longer than others, because they name
/// the node that a hint is for and the partition that it belongs to; it has no tree.
pub const HINTS: Partition = Partition(PARTITIONS_MAX as u16);
/// How much longer the key of a hint may be.
const HINT_KEY_BYTES_MORE: usize = 32;

/// The longest key of a partition.
pub(crate) fn key_bytes_max(partition: Partition) -> usize {
    KEY_BYTES_MAX + if partition == HINTS { HINT_KEY_BYTES_MORE } else { 0 }
}

/// An upper bound of what one version adds to an encoded set, without its value.
const VERSION_BYTES_MAX: usize = 64;
/// An upper bound of what one actor adds to an encoded context.
const CONTEXT_ENTRY_BYTES_MAX: usize = 40;
/// An upper bound of the fixed part of an encoded set.
const SET_BYTES_MAX: usize = 32;

/// Sees the set that a write makes.
pub type Prepared = Box<dyn FnOnce(&VersionSet) + Send>;

/// Hears what became of a write.
pub type Done = Box<dyn FnOnce(Result<Committed, WriteError>) + Send>;

/// One write of one key.
pub struct Write {
    /// Where the key belongs.
    pub partition: Partition,
    /// The key.
    pub key: Bytes,
    /// What to do.
    pub change: Change,
    /// Called on the committer's thread as soon as the new set is known, before it is durable: a coordinator can
    /// send it to peers meanwhile. Not called when the write is refused, nor when nothing is left of the key.
    pub prepared: Option<Prepared>,
    /// Called once: when the write is durable as the options say, or will never be.
    pub done: Done,
}

/// What to do with a key.
#[derive(Clone, Debug)]
pub enum Change {
    /// Take a client's write; the committer makes its dot.
    Event(Event),
    /// Join with a peer's set.
    Merge(VersionSet),
    /// Remove the key, as if it had never been there, if its set still has this digest: everybody has the tombstone.
    Forget {
        /// Of the set that may go.
        digest: u64,
    },
}

/// What becomes of the keys of which a lost segment may have held a newer record, and that no peer gave since.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Leftover {
    /// They are not there: peers who would know have no such keys.
    Drop,
    /// They are what they were before the loss: nobody knows better.
    Keep,
}

/// The write is durable as the options say.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Committed {
    /// Whether the stored set is another one than before.
    pub changed: bool,
    /// How many versions it has.
    pub siblings: usize,
}

impl Change {
    /// An upper bound of the bytes that this adds to a stored set.
    pub(crate) fn bytes_max(&self) -> usize {
        match self {
            Change::Event(event) => {
                let value = event.value.as_ref().map_or(0, Bytes::len);
                SET_BYTES_MAX
                    + VERSION_BYTES_MAX
                    + CONTEXT_ENTRY_BYTES_MAX
                    + value
                    + context_bytes_max(&event.context)
            }
            Change::Merge(set) => set_bytes_max(set),
            Change::Forget { .. } => 0,
        }
    }
}

/// An upper bound of an encoded set.
pub(crate) fn set_bytes_max(set: &VersionSet) -> usize {
    let values: usize = set.values().map(|(_, value)| value.len()).sum();
    SET_BYTES_MAX + values + set.versions().len() * VERSION_BYTES_MAX + context_bytes_max(set.context())
}

fn context_bytes_max(context: &Context) -> usize {
    context.len() * CONTEXT_ENTRY_BYTES_MAX
}
