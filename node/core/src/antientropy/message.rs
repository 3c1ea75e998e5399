//! What the two sides of an exchange say. Every message is bounded, and refused as a whole when it is not.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::{FANOUT, Parcel, Prefix};
use crate::bounded;
use crate::causality::VersionSet;
use crate::limits::{KEY_BYTES_MAX, PARTITIONS_MAX};
use crate::ring::{Partition, PartitionCount};

/// The most that the sets and keys of one message take, as [`Item::bytes`] counts; a single item may be larger.
pub const CONTENT_BYTES_MAX: usize = 256 * 1024;
/// The most sets in one message.
pub const ITEMS_MAX: usize = 4096;
/// The most places that one message asks about: the cells below them take at most 168 KiB.
pub const PREFIXES_MAX: usize = 1024;
/// The most entries in one answer: at most 168 KiB.
pub const ENTRIES_MAX: usize = 8192;
/// The most hashes that one message asks the sets of.
pub const HASHES_MAX: usize = 4096;

/// A key's hash and the digest of what a replica holds under it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
pub struct Entry {
    /// Of the key.
    pub key_hash: u64,
    /// Of its version set; see [`super::combined`].
    pub digest: u64,
}

/// A key and all that a replica holds of it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Item {
    /// The key.
    pub key: Bytes,
    /// The replica's whole set, so that its context tells the truth.
    pub set: VersionSet,
}

/// Items of one partition on their way.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Items {
    /// The sender's count of content messages, drawn *before* the sets were read: so what is counted after a
    /// moment knows all that the sender held at that moment (INV-NOZOMBIE, [`crate::collection`]).
    pub sent: u64,
    /// The keys and their sets.
    #[serde(deserialize_with = "bounded::list::<_, _, ITEMS_MAX>")]
    pub items: Vec<Item>,
}

/// What the initiator asks.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Request {
    /// "What are your roots?"
    Roots {
        /// Each of them owned by both.
        partitions: Vec<Partition>,
    },
    /// "What are the cells below these?"
    Children {
        /// Where.
        partition: Partition,
        /// In the order of their hashes.
        prefixes: Vec<Prefix>,
    },
    /// "What entries have you below these?"
    Entries {
        /// Where.
        partition: Partition,
        /// In the order of their hashes.
        prefixes: Vec<Prefix>,
        /// Only of hashes from here on.
        from: u64,
    },
    /// "Give me all that you hold of these."
    Fetch {
        /// Where.
        partition: Partition,
        /// Ascending.
        hashes: Vec<u64>,
        /// Of the first of them, only keys greater than this.
        after: Option<Bytes>,
    },
    /// "Merge these."
    Push {
        /// Where.
        partition: Partition,
        /// What.
        items: Items,
    },
}

/// What a responder shows of a partition.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Shown {
    /// All that it holds, by its root.
    All(u64),
    /// Not all: it heals from a loss.
    Part,
    /// Nothing: it does not own it.
    Nothing,
}

/// What the responder answers: to each request its own.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Reply {
    /// In the order of the request.
    Roots {
        /// One each.
        roots: Vec<Shown>,
    },
    /// In the order of the request; none where the responder keeps no finer cells.
    Children {
        /// One each.
        #[serde(deserialize_with = "bounded::list::<_, _, PREFIXES_MAX>")]
        cells: Vec<Option<[u64; FANOUT]>>,
    },
    /// All entries below the prefixes from the request's `from` up to `through`.
    Entries {
        /// Ascending.
        entries: Vec<Entry>,
        /// `u64::MAX` when these are all.
        through: u64,
    },
    /// The sets, in the order of their hashes, as many as fit.
    Fetched(Parcel),
    /// The items are merged.
    Pushed {
        /// Whether each is durable; not when the responder refused any.
        stored: bool,
    },
}

/// Why a message is refused. The sender breaks the protocol: worth a line in the log and the end of the
/// exchange.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[allow(missing_docs)] // The messages are the documentation.
pub enum Refused {
    #[error("a message of an exchange holds {count} {what}, more than {most}")]
    TooMany { what: &'static str, count: usize, most: usize },
    #[error("a message of an exchange holds a key of {bytes} bytes; the longest may have {KEY_BYTES_MAX}")]
    Key { bytes: usize },
    #[error("a message of an exchange names a place that no tree has")]
    Place,
    #[error("a message of an exchange is about partition {partition:?}, of which {what} is no part")]
    Stray { partition: Partition, what: &'static str },
    #[error("the answer is not one to what was asked: {why}")]
    Answer { why: &'static str },
}

impl Item {
    /// What it takes in a message, about: for bounds, not for books.
    pub fn bytes(&self) -> usize {
        const VERSION_BYTES: usize = 48;
        const ACTOR_BYTES: usize = 28;
        let values: usize = self.set.values().map(|(_, value)| value.len()).sum();
        self.key.len()
            + values
            + self.set.versions().len() * VERSION_BYTES
            + self.set.context().len() * ACTOR_BYTES
    }
}

impl Items {
    /// What they take in a message, about.
    pub fn bytes(&self) -> usize {
        self.items.iter().map(Item::bytes).sum()
    }

    fn check(&self, partition: Partition, partitions: PartitionCount) -> Result<(), Refused> {
        at_most("items", self.items.len(), ITEMS_MAX)?;
        if self.items.len() > 1 {
            at_most("bytes", self.bytes(), CONTENT_BYTES_MAX)?;
        }
        for Item { key, .. } in &self.items {
            if key.len() > KEY_BYTES_MAX {
                return Err(Refused::Key { bytes: key.len() });
            }
            if partitions.of_key(key) != partition {
                return Err(Refused::Stray { partition, what: "a key" });
            }
        }
        Ok(())
    }
}

impl Request {
    /// The partitions that it is about: the responder must own them.
    pub fn partitions(&self) -> &[Partition] {
        match self {
            Self::Roots { partitions } => partitions,
            Self::Children { partition, .. }
            | Self::Entries { partition, .. }
            | Self::Fetch { partition, .. }
            | Self::Push { partition, .. } => std::slice::from_ref(partition),
        }
    }

    /// Whether every part is within its bounds.
    pub fn check(&self, partitions: PartitionCount) -> Result<(), Refused> {
        at_most("partitions", self.partitions().len(), PARTITIONS_MAX as usize)?;
        if let Some(&partition) = self.partitions().iter().find(|p| u32::from(p.0) >= partitions.get()) {
            return Err(Refused::Stray { partition, what: "this ring" });
        }
        match self {
            Self::Roots { .. } => Ok(()),
            Self::Children { prefixes, .. } | Self::Entries { prefixes, .. } => {
                at_most("prefixes", prefixes.len(), PREFIXES_MAX)?;
                prefixes.iter().all(|prefix| prefix.is_valid()).then_some(()).ok_or(Refused::Place)
            }
            Self::Fetch { partition, hashes, after } => {
                at_most("hashes", hashes.len(), HASHES_MAX)?;
                at_most("bytes of a key", after.as_ref().map_or(0, Bytes::len), KEY_BYTES_MAX)?;
                let here = |hash: &u64| partitions.of_hash(*hash) == *partition;
                let stray = Refused::Stray { partition: *partition, what: "a hash" };
                hashes.iter().all(here).then_some(()).ok_or(stray)
            }
            Self::Push { partition, items } => items.check(*partition, partitions),
        }
    }
}

impl Reply {
    /// Whether every part is within its bounds, for an answer about a partition.
    pub(super) fn check(&self, partition: Partition, partitions: PartitionCount) -> Result<(), Refused> {
        match self {
            Self::Roots { roots } => at_most("roots", roots.len(), PARTITIONS_MAX as usize),
            Self::Children { cells } => at_most("cells", cells.len(), PREFIXES_MAX),
            Self::Entries { entries, .. } => {
                at_most("entries", entries.len(), ENTRIES_MAX)?;
                let here = |entry: &Entry| partitions.of_hash(entry.key_hash) == partition;
                let stray = Refused::Stray { partition, what: "an entry" };
                entries.iter().all(here).then_some(()).ok_or(stray)
            }
            Self::Fetched(parcel) => parcel.items.check(partition, partitions),
            Self::Pushed { .. } => Ok(()),
        }
    }
}

fn at_most(what: &'static str, count: usize, most: usize) -> Result<(), Refused> {
    if count <= most { Ok(()) } else { Err(Refused::TooMany { what, count, most }) }
}
