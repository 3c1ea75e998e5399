//! What nodes say to each other once the handshake is done.
//!
//! Every data message carries the epoch it was routed by, and the replica refuses another (INV-FENCE):
//! safety never depends on what the coordinator believes.

use bytes::Bytes;
use quorate_core::NodeId;
use quorate_core::antientropy;
use quorate_core::causality::{Context, Expiry, Policy, VersionSet, WriteRefused};
use quorate_core::collection;
use quorate_core::limits::NAME_BYTES_MAX;
use quorate_core::membership;
use quorate_core::quorum::{Consistency, OutOfRange, QuorumKind};
use quorate_core::ring::Epoch;
use quorate_core::transition;
use serde::{Deserialize, Serialize};

/// One message on a connection. The connecting side sends requests and gossip, the accepting side responses.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Frame {
    /// Asks for one response with the same id.
    Request {
        /// Chosen by the asker, unique among its open requests on this connection.
        id: u64,
        /// What is asked.
        request: Request,
    },
    /// Answers a request.
    Response {
        /// The request's.
        id: u64,
        /// The answer.
        response: Response,
    },
    /// Needs no answer; may be lost.
    Gossip {
        /// The number of the sender's epoch, 0 for none: who hears of a newer one fetches it.
        epoch: u64,
        /// How far the sender's log is synced: a disk that later reaches less far went back in time.
        position: u64,
        /// For the failure detector.
        message: membership::Message,
    },
}

/// What a node asks of another.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Request {
    /// To an owner: merge this set into the key and acknowledge when it is durable.
    Replicate {
        /// Routed by.
        epoch: u64,
        /// The sender's count of content messages.
        sent: u64,
        /// Why it is sent.
        cause: Cause,
        /// The key.
        key: Bytes,
        /// The sender's whole set, so that its context tells the truth.
        set: VersionSet,
    },
    /// To a fallback: keep this set for an owner that is away, and acknowledge when it is durable.
    Hint {
        /// Routed by.
        epoch: u64,
        /// The sender's count of content messages.
        sent: u64,
        /// The owner.
        target: NodeId,
        /// The key.
        key: Bytes,
        /// The coordinator's whole set.
        set: VersionSet,
    },
    /// To an owner: the key's set as stored, or its digest.
    Read {
        /// Routed by.
        epoch: u64,
        /// The key.
        key: Bytes,
        /// The set, or only its digest.
        whole: bool,
    },
    /// To an owner that replied to a read with less than others: get the key from these owners.
    Repair {
        /// Routed by.
        epoch: u64,
        /// The key.
        key: Bytes,
        /// Who has what is missing.
        sources: Vec<NodeId>,
    },
    /// To an owner: coordinate this write, since only owners make dots.
    Write {
        /// Routed by.
        epoch: u64,
        /// The key.
        key: Bytes,
        /// The write.
        write: ClientWrite,
        /// After this many milliseconds nobody waits for the answer.
        timeout_ms: u32,
    },
    /// To a co-owner: a step of an exchange.
    Exchange {
        /// Routed by.
        epoch: u64,
        /// The step.
        request: antientropy::Request,
    },
    /// To an owner or a fallback: a step of a collection.
    Collection {
        /// Routed by.
        epoch: u64,
        /// The step.
        request: collection::Request,
    },
    /// How far the node has counted its content messages.
    Mark,
    /// The epochs that are live.
    FetchRing,
    /// How far members are in a change of the ring: what the asker does not know.
    Progress {
        /// How far it knows each.
        known: Vec<transition::Known>,
    },
    /// "I am this start of my disk": remember it durably, unless you know one that is not earlier (INV-AMNESIA).
    Claim {
        /// The asker's newest epoch: another majority must not be asked than the one that newer starts asked.
        epoch: u64,
        /// The start.
        start: u64,
        /// Drawn at this start, so that a copy of the disk is told from the disk.
        nonce: u64,
        /// Where its log ended when the start began.
        position: u64,
    },
}

/// Why a set is sent.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Cause {
    /// A client writes it: it is refused when its stamp cannot be believed.
    Write,
    /// A hint is handed off.
    Handoff,
}

/// What an actor adds to a context in memory, about.
const CONTEXT_ENTRY_BYTES: usize = 48;

/// What a step of a collection takes in memory at most, about.
const COLLECTION_BYTES: usize = collection::KEYS_BYTES_MAX;

/// What a set takes in memory, about: for bounds, not for books.
pub fn set_bytes(set: &VersionSet) -> usize {
    let versions = set
        .versions()
        .iter()
        .map(|version| size_of_val(version) + version.value.as_ref().map_or(0, Bytes::len));
    versions.sum::<usize>() + set.context().len() * CONTEXT_ENTRY_BYTES
}

fn epoch_bytes(epoch: &Epoch) -> usize {
    let replicas = epoch.partitions().get() as usize * usize::from(epoch.replication().factor);
    replicas * size_of::<u16>() + epoch.members().len() * 4 * NAME_BYTES_MAX
}

fn exchange_bytes(request: &antientropy::Request) -> usize {
    use antientropy::Request::{Children, Entries, Fetch, Push, Roots};
    match request {
        Roots { partitions } => size_of_val(partitions.as_slice()),
        Children { prefixes, .. } | Entries { prefixes, .. } => size_of_val(prefixes.as_slice()),
        Fetch { hashes, .. } => size_of_val(hashes.as_slice()),
        Push { items, .. } => items.bytes(),
    }
}

fn exchanged_bytes(reply: &antientropy::Reply) -> usize {
    use antientropy::Reply::{Children, Entries, Fetched, Pushed, Roots};
    match reply {
        Roots { roots } => size_of_val(roots.as_slice()),
        Children { cells } => size_of_val(cells.as_slice()),
        Entries { entries, .. } => size_of_val(entries.as_slice()),
        Fetched(parcel) => parcel.items.bytes(),
        Pushed { .. } => 0,
    }
}

impl Request {
    /// What it takes in memory, about.
    pub fn bytes(&self) -> usize {
        match self {
            Self::Replicate { key, set, .. } | Self::Hint { key, set, .. } => key.len() + set_bytes(set),
            Self::Write { key, write, .. } => {
                let value = write.value.as_ref().map_or(0, Bytes::len);
                key.len() + value + write.context.len() * CONTEXT_ENTRY_BYTES
            }
            Self::Read { key, .. } => key.len(),
            Self::Repair { key, sources, .. } => key.len() + size_of_val(sources.as_slice()),
            Self::Exchange { request, .. } => exchange_bytes(request),
            Self::Collection { .. } => COLLECTION_BYTES,
            Self::Progress { known } => size_of_val(known.as_slice()),
            Self::FetchRing | Self::Mark | Self::Claim { .. } => 0,
        }
    }
}

impl Response {
    /// What it takes in memory, about.
    pub fn bytes(&self) -> usize {
        match self {
            Self::Stored(set) => set_bytes(set),
            Self::Written(written) => written.context.len() * CONTEXT_ENTRY_BYTES,
            Self::Ring(Some(told)) => told.chain.epochs().iter().map(|epoch| epoch_bytes(epoch)).sum(),
            Self::Progress { marks, .. } => marks.iter().map(|(_, marks)| marks.bytes()).sum(),
            Self::Exchanged(reply) => exchanged_bytes(reply),
            Self::Collection(_) => COLLECTION_BYTES,
            Self::Applied
            | Self::Mark(_)
            | Self::Digest(_)
            | Self::Ring(None)
            | Self::Claimed(_)
            | Self::Refused(_) => 0,
        }
    }
}

/// A client's write on its way to an owner.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ClientWrite {
    /// What the client had seen.
    pub context: Context,
    /// The value; none deletes.
    pub value: Option<Bytes>,
    /// When the value ends; none for never.
    pub expires: Option<Expiry>,
    /// What happens to versions that it had not seen.
    pub policy: Policy,
    /// How many replicas must have it.
    pub consistency: Consistency,
}

/// The answer to a request.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Response {
    /// To `Replicate` and `Hint`: durable. To `Repair`: it is repaired.
    Applied,
    /// To `Read`: what is stored, empty for nothing.
    Stored(VersionSet),
    /// To `Read`: the digest of what is stored.
    Digest(u64),
    /// To `Write`: acknowledged by a quorum.
    Written(Written),
    /// To `Exchange`.
    Exchanged(antientropy::Reply),
    /// To `Collection`.
    Collection(collection::Reply),
    /// To `Mark`.
    Mark(collection::Mark),
    /// To `FetchRing`.
    Ring(Option<transition::Told>),
    /// To `Progress`.
    Progress {
        /// The oldest epoch that is live to the one that was asked.
        oldest: u64,
        /// The newest that it holds.
        newest: u64,
        /// What the asker did not know.
        marks: Vec<(NodeId, transition::Marks)>,
    },
    /// To `Claim`: the start that this node now knows; the asker's own when it was taken.
    Claimed(Claimed),
    /// To any: no, and why.
    Refused(Refusal),
}

/// A write that a quorum acknowledged.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Written {
    /// The key's causal past after it.
    pub context: Context,
    /// Concurrent versions after it, tombstones included.
    pub siblings: u32,
    /// What the acknowledgement stands on.
    pub receipt: Receipt,
}

/// What an answer stands on.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Receipt {
    /// The epoch it was served by.
    pub epoch: u64,
    /// Owners that acknowledged or replied until it was given.
    pub replicas: u8,
    /// Fallbacks that keep it for an owner that did not acknowledge, until it was given.
    pub hints: u8,
    /// How many were needed.
    pub needed: u8,
    /// Whether fallbacks counted.
    pub kind: QuorumKind,
}

/// The answer to a claim.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Claimed {
    /// Remembered durably.
    Yes,
    /// Another start is known that is not earlier: the asker's disk went back in time.
    Known {
        /// Which.
        start: u64,
    },
}

/// Why an operation was not done. The same on every protocol.
///
/// All but [`Refusal::Indeterminate`] mean that a write was *not* written, by this node or through it.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error, Serialize, Deserialize)]
pub enum Refusal {
    /// The node has no ring yet.
    #[error("this node has no ring yet: no epoch was pushed to it")]
    NoEpoch,
    /// The node is about to end.
    #[error("this node is stopping: ask another")]
    Stopping,
    /// The asker, or the one asked, is not a member of the ring, or was removed.
    #[error(
        "this node, or the one that it asked, is no active member of the ring's epoch {known}: ask another"
    )]
    NotMember {
        /// The replica's epoch.
        known: u64,
    },
    /// Routed by an epoch that the replica left behind.
    #[error("routed by epoch {routed}, but the ring is at epoch {known}")]
    EpochRetired {
        /// The message's epoch.
        routed: u64,
        /// The replica's epoch.
        known: u64,
    },
    /// A read routed by an epoch that the reads of its partition do not go by any more.
    #[error("routed by epoch {routed}, but reads of the key's partition go by epoch {floor}")]
    ReadsMoved {
        /// The message's epoch.
        routed: u64,
        /// The least that they go by at the replica.
        floor: u64,
    },
    /// Routed by an epoch that the replica has not heard of.
    #[error("routed by epoch {routed}, which this node has not heard of; it is at epoch {known}")]
    EpochUnknown {
        /// The message's epoch.
        routed: u64,
        /// The replica's epoch.
        known: u64,
    },
    /// The key belongs to others.
    #[error("this node does not own the key's partition in epoch {known}")]
    NotOwner {
        /// The replica's epoch.
        known: u64,
    },
    /// The node has not yet made sure that its disk is the newest state of this node.
    #[error("this node is starting: it is making sure with its peers that its disk did not go back in time")]
    Starting,
    /// The message left its sender before something that this node knows.
    #[error("this message is too old: what it carries was collected meanwhile")]
    Stale,
    /// A clock is wrong.
    #[error(
        "the clock of node {node} is {ahead_ms} ms ahead of this node's: its writes are refused until the clocks agree"
    )]
    ClockAhead {
        /// Whose.
        node: NodeId,
        /// By how much.
        ahead_ms: u64,
    },
    /// The request asks for more replicas than there are.
    #[error(transparent)]
    Consistency(OutOfRange),
    /// Hints for this owner have no room.
    #[error("this node keeps as many hints for node {target} as it may")]
    HintsFull {
        /// The owner.
        target: NodeId,
    },
    /// Too much is in progress.
    #[error("too many requests are in progress: try again later, with back-off")]
    Busy,
    /// Free space is below the reserve.
    #[error(
        "the disk has {free_bytes} bytes free and keeps {reserve_bytes} in reserve: writes are refused until there is more space"
    )]
    StorageFull {
        /// What is free.
        free_bytes: u64,
        /// What is kept.
        reserve_bytes: u64,
    },
    /// The disk cannot read or write.
    #[error("the storage failed: {reason}")]
    StorageFailed {
        /// What it said.
        reason: String,
    },
    /// The key cannot take this write.
    #[error(transparent)]
    Write(WriteRefused),
    /// Too few owners can be reached.
    #[error("{reachable} of the {needed} owners that this needs can be reached")]
    Unavailable {
        /// R or W.
        needed: u8,
        /// How many.
        reachable: u8,
    },
    /// Time ran out or a connection broke before enough owners acknowledged.
    #[error(
        "{acknowledged} of {needed} owners acknowledged in time; the others may have it or get it later: read before you write again, or write the same again"
    )]
    Indeterminate {
        /// R or W.
        needed: u8,
        /// How many did.
        acknowledged: u8,
    },
}

#[cfg(test)]
mod tests {
    use bytes::BytesMut;

    use super::*;
    use crate::frame;

    #[test]
    fn the_longest_value_fits_into_a_frame() {
        let mut out = BytesMut::new();
        let write = ClientWrite {
            context: Context::default(),
            value: Some(vec![0; quorate_core::limits::VALUE_BYTES_MAX].into()),
            expires: None,
            policy: Policy::Siblings,
            consistency: Consistency::Configured,
        };
        let key = vec![0; quorate_core::limits::KEY_BYTES_MAX].into();
        let request = Request::Write { epoch: 1, key, write, timeout_ms: 1 };
        frame::encode(&Frame::Request { id: 1, request }, frame::FRAME_BYTES_MAX, &mut out).unwrap();
        let back: Option<Frame> = frame::decode(&mut out, frame::FRAME_BYTES_MAX).unwrap();
        assert!(matches!(back, Some(Frame::Request { id: 1, request: Request::Write { .. } })));
    }
}
