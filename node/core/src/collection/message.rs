//! What the participants of a round say. Every message is bounded, and refused as a whole when it is not.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::Mark;
use crate::bounded;
use crate::id::NodeId;
use crate::limits::{KEY_BYTES_MAX, MEMBERS_MAX};
use crate::ring::{Partition, PartitionCount};

/// The most keys of one round.
pub const CANDIDATES_MAX: usize = 256;
/// The most bytes of their names together.
pub const KEYS_BYTES_MAX: usize = 128 * 1024;
/// The most owners and fallbacks of one round.
pub const PARTICIPANTS_MAX: usize = MEMBERS_MAX;

/// Which round: never the same twice, so that a late answer to an earlier one is told apart.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub struct RoundId {
    /// The start of the leader's disk.
    pub start: u64,
    /// Counts the rounds of this start.
    pub number: u64,
}

/// A key that may be forgotten.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Candidate {
    /// The key.
    pub key: Bytes,
    /// Of the set that all must hold.
    pub digest: u64,
}

/// What the leader asks.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Request {
    /// An owner: "Which of these do you hold exactly so?"
    Confirm {
        /// Which round.
        round: RoundId,
        /// Of all keys.
        partition: Partition,
        /// What is to be forgotten.
        #[serde(deserialize_with = "bounded::list::<_, _, CANDIDATES_MAX>")]
        candidates: Vec<Candidate>,
    },
    /// Everybody: "Take nothing more that was sent before these marks. Of which keys do you keep no hint?"
    Fence {
        /// Which round.
        round: RoundId,
        /// Of all keys.
        partition: Partition,
        /// The owners.
        floors: Vec<(NodeId, Mark)>,
        /// Those that all owners confirmed.
        #[serde(deserialize_with = "bounded::list::<_, _, CANDIDATES_MAX>")]
        keys: Vec<Bytes>,
    },
    /// An owner: "Take nothing more that was sent before these marks, and forget these."
    Collect {
        /// Which round.
        round: RoundId,
        /// Of all keys.
        partition: Partition,
        /// The owners and the fallbacks.
        floors: Vec<(NodeId, Mark)>,
        /// Those that everybody cleared.
        #[serde(deserialize_with = "bounded::list::<_, _, CANDIDATES_MAX>")]
        candidates: Vec<Candidate>,
    },
}

/// What a participant answers.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Reply {
    /// To [`Request::Confirm`] and [`Request::Fence`].
    Cleared {
        /// Which round.
        round: RoundId,
        /// To a confirm or to a fence.
        step: Step,
        /// The positions of the keys that may go, ascending.
        clear: Vec<u16>,
        /// How far the participant had counted when it had seen that.
        mark: Mark,
    },
    /// To [`Request::Collect`]: the floors are raised, and what could be forgotten is.
    Collected {
        /// Which round.
        round: RoundId,
        /// How many keys the owner forgot.
        forgotten: u16,
    },
    /// The participant cannot take part now: another epoch, or no room for floors.
    Declined {
        /// Which round.
        round: RoundId,
    },
}

/// The first two steps, which all participants must answer.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[allow(missing_docs)] // See `Request`.
pub enum Step {
    Confirm,
    Fence,
}

/// Why a message is refused. The sender breaks the protocol: worth a line in the log.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[allow(missing_docs)] // The messages are the documentation.
pub enum Refused {
    #[error("a message of a collection holds {count} {what}, more than {most}")]
    TooMany { what: &'static str, count: usize, most: usize },
    #[error("a message of a collection is about partition {partition:?}, of which a key is no part")]
    Stray { partition: Partition },
}

impl Request {
    /// Which round.
    pub fn round(&self) -> RoundId {
        let (Self::Confirm { round, .. } | Self::Fence { round, .. } | Self::Collect { round, .. }) = self;
        *round
    }

    /// What it is about: an owner or a fallback of it is asked.
    pub fn partition(&self) -> Partition {
        let (Self::Confirm { partition, .. }
        | Self::Fence { partition, .. }
        | Self::Collect { partition, .. }) = self;
        *partition
    }

    /// Whether every part is within its bounds.
    pub fn check(&self, partitions: PartitionCount) -> Result<(), Refused> {
        match self {
            Self::Confirm { partition, candidates, .. } => {
                check_keys(names(candidates), *partition, partitions)
            }
            Self::Fence { partition, floors, keys, .. } => {
                at_most("floors", floors.len(), PARTICIPANTS_MAX)?;
                check_keys(keys.iter(), *partition, partitions)
            }
            Self::Collect { partition, floors, candidates, .. } => {
                at_most("floors", floors.len(), PARTICIPANTS_MAX)?;
                check_keys(names(candidates), *partition, partitions)
            }
        }
    }
}

fn names(candidates: &[Candidate]) -> impl ExactSizeIterator<Item = &Bytes> + Clone {
    candidates.iter().map(|candidate| &candidate.key)
}

fn check_keys<'a>(
    keys: impl ExactSizeIterator<Item = &'a Bytes> + Clone,
    partition: Partition,
    partitions: PartitionCount,
) -> Result<(), Refused> {
    at_most("keys", keys.len(), CANDIDATES_MAX)?;
    at_most("bytes of one key", keys.clone().map(Bytes::len).max().unwrap_or(0), KEY_BYTES_MAX)?;
    at_most("bytes of keys", keys.clone().map(Bytes::len).sum(), KEYS_BYTES_MAX)?;
    let mut here = keys.map(|key| partitions.of_key(key) == partition);
    here.all(|here| here).then_some(()).ok_or(Refused::Stray { partition })
}

fn at_most(what: &'static str, count: usize, most: usize) -> Result<(), Refused> {
    if count <= most { Ok(()) } else { Err(Refused::TooMany { what, count, most }) }
}
