//! What goes into a replica and what comes out.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use quorate_core::antientropy::Parcel;
use quorate_core::causality::{Actor, VersionSet};
use quorate_core::collection::Candidate;
use quorate_core::handoff::Delivery;
use quorate_core::membership::{self, MemberView, NodeInfo, Peer};
use quorate_core::quorum::{Consistency, QuorumKind};
use quorate_core::ring::{EpochError, EpochMark, Partition};
use quorate_core::transition;
use quorate_core::{ClusterId, NodeId};
use quorate_storage::{Committed, Page, ReadError, WriteError};
use quorate_wire::peer::{ClientWrite, Frame, Receipt, Refusal, Written};

use crate::claim::KnownStart;
use crate::repair::LoadFor;
use crate::serve::MergeFor;
use crate::sync::PackFor;

/// The time, as this node sees it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Now {
    /// Since any fixed moment; never goes back.
    pub mono: Duration,
    /// The wall clock, in Unix milliseconds; may jump.
    pub unix_ms: u64,
}

/// Who a node is at this start.
#[derive(Clone, Debug)]
pub struct Identity {
    /// The cluster that the disk belongs to.
    pub cluster: ClusterId,
    /// The disk, and the number of this start; the number is on the disk already.
    pub actor: Actor,
    /// Drawn at this start.
    pub nonce: u64,
    /// How it introduces itself; the id is the actor's.
    pub node: NodeInfo,
}

/// What earlier starts put on the disk as documents (see [`Record`]); the default on an empty disk.
#[derive(Clone, Default, Debug)]
pub struct Remembered {
    /// The live epochs, and what was told about them.
    pub ring: Option<transition::Remembered>,
    /// The newest starts of other nodes.
    pub starts: BTreeMap<NodeId, KnownStart>,
}

/// How a replica behaves.
#[derive(Clone, Debug)]
pub struct Config {
    /// How long an operation may take.
    pub request_timeout: Duration,
    /// Whether fallbacks count in a write quorum.
    pub kind: QuorumKind,
    /// How soon a crash shall be noticed.
    pub failure: membership::Config,
    /// Where other nodes may be found, `host:port`.
    pub seeds: Vec<String>,
    /// Client operations, and writes that peers forwarded, that may be in progress.
    pub operations_max: usize,
    /// Bytes that operations in progress may hold.
    pub operation_bytes_max: usize,
    /// Keys that may be under repair after reads.
    pub repairs_max: usize,
    /// Between two looks for differences with each co-owner; zero for never.
    pub anti_entropy_interval: Duration,
    /// Bytes of sets that background repair may move in a second.
    pub transfer_bytes_per_second: u64,
    /// Bytes of hints that are kept for one owner.
    pub hint_bytes_max: u64,
}

impl Config {
    /// The defaults of a node that looks for others at these seeds.
    pub fn new(seeds: Vec<String>) -> Self {
        Self {
            request_timeout: Duration::from_secs(5),
            kind: QuorumKind::Strict,
            failure: membership::Config::new(Duration::from_secs(5)),
            seeds,
            operations_max: 16 * 1024,
            operation_bytes_max: 256 << 20,
            repairs_max: 1024,
            anti_entropy_interval: Duration::from_secs(60),
            transfer_bytes_per_second: 64 << 20,
            hint_bytes_max: 256 << 20,
        }
    }
}

/// What a client asks for.
#[derive(Clone, Debug)]
pub enum ClientRequest {
    /// Write or delete a key.
    Write {
        /// The key.
        key: Bytes,
        /// The write.
        write: ClientWrite,
    },
    /// Read a key.
    Read {
        /// The key.
        key: Bytes,
        /// How many replicas must reply.
        consistency: Consistency,
    },
}

/// What a client is told.
#[derive(Clone, Debug)]
pub enum Answer {
    /// To a write.
    Written(Written),
    /// To a read.
    Found(Found),
    /// To either.
    Refused(Refusal),
}

/// A read that a quorum answered.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Found {
    /// What the replies say together; empty for nothing. Values that have expired are still in it.
    pub set: VersionSet,
    /// What the answer stands on.
    pub receipt: Receipt,
}

/// Who sent a message: the connection proves it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Sender {
    /// The node.
    pub node: NodeId,
    /// The start that it was in when the connection began.
    pub start: u64,
}

/// A small document that must be on the disk before it is acted on. Each kind replaces the one before.
#[derive(Clone, Debug)]
pub enum Record {
    /// The live epochs, and what is told about them.
    Ring(Arc<transition::Remembered>),
    /// The newest start of other nodes.
    Starts(Arc<BTreeMap<NodeId, KnownStart>>),
}

/// What a replica wants done.
#[derive(Debug)]
pub enum Effect {
    /// Send a frame, once, without waiting. A request that was certainly not sent must be told by
    /// [`Replica::unsent`](crate::Replica::unsent). A response goes to the node that asked, over whatever connection there is.
    Send {
        /// To whom.
        to: Peer,
        /// What.
        frame: Frame,
    },
    /// Answer a client.
    Answer {
        /// What [`Replica::client`](crate::Replica::client) was given.
        ticket: u64,
        /// The answer.
        answer: Answer,
    },
    /// Put a document on the disk, durably, and then say [`Completion::kept`]. The next one comes after that.
    Keep {
        /// To be given back.
        ticket: u64,
        /// What.
        record: Record,
    },
    /// Tell whoever pushed an epoch what became of it.
    Adopted {
        /// What [`Replica::adopt`](crate::Replica::adopt) was given.
        ticket: u64,
        /// The epoch that is held now.
        result: Result<EpochMark, AdoptError>,
    },
    /// A node appeared or changed. Connections to one that is down are of no use.
    Changed(MemberView),
    /// This disk went back in time: it must never speak for its node again. Stop, set the disk's content aside,
    /// and begin as a new node.
    Amnesia {
        /// The start that a peer knows.
        known_start: u64,
    },
}

/// Why an epoch was not adopted.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum AdoptError {
    /// It contradicts what is known.
    Epoch(EpochError),
    /// It could not be put on the disk.
    Disk(String),
    /// Another one is being put on the disk.
    Busy,
    /// Epochs between are missing here; the members are asked for them.
    Behind {
        /// The newest that is held; 0 for none.
        known: u64,
    },
    /// As many epochs are live as may be.
    Full {
        /// The oldest of them.
        oldest: u64,
        /// The newest of them.
        newest: u64,
    },
}

/// How far a change of the ring is, as one node sees it.
#[derive(Clone, Debug, Default)]
pub struct RingStatus {
    /// The oldest epoch that is live.
    pub oldest: u64,
    /// The newest epoch.
    pub newest: u64,
    /// Partitions of which an older epoch is live.
    pub unretired: usize,
    /// Partitions that this node gains and has not synced.
    pub syncing: usize,
    /// Partitions that this node lost and holds.
    pub leaving: usize,
    /// Keys of those.
    pub keys_leaving: u64,
    /// Bytes of content that came and went since the newest epoch came.
    pub moved_bytes: u64,
    /// The same, a second.
    pub moved_bytes_per_second: u64,
    /// How long the partitions that it gains will take, about; none when there are none, or none has come yet.
    pub remaining: Option<Duration>,
    /// Members that gain partitions and have not synced all of them.
    pub waiting_for: BTreeSet<NodeId>,
    /// Whether every member says that it holds nothing but what it owns.
    pub settled: bool,
}

/// Hears, on any thread, what the storage has done.
pub type Inbox = Arc<dyn Fn(Completion) + Send + Sync>;

/// Something that was begun is done. To be handed to [`Replica::completed`](crate::Replica::completed).
#[derive(Debug)]
pub struct Completion(pub(crate) Done);

/// The result of a [`Effect::Keep`].
pub type Kept = Result<(), String>;

impl Completion {
    /// A document is on the disk, or could not be put there.
    pub fn kept(ticket: u64, result: Kept) -> Self {
        Self(Done::Kept { ticket, result })
    }
}

#[derive(Debug)]
pub(crate) enum Done {
    /// A local write has its dot, and is not durable yet.
    Prepared { operation: u64, set: VersionSet },
    /// A local write is durable, or never will be.
    Stored { operation: u64, result: Result<Committed, WriteError> },
    /// A merge is durable, or never will be.
    Merged { purpose: MergeFor, result: Result<Committed, WriteError> },
    /// A read that had to wait for the disk.
    Loaded { purpose: LoadFor, result: Result<Option<VersionSet>, ReadError> },
    /// Sets were read for an exchange.
    Packed { purpose: PackFor, parcel: Parcel },
    /// Keys to collect were read.
    Candidates { partition: Partition, candidates: Vec<Candidate> },
    /// Some keys of a partition that is being deleted.
    LeavingRead { partition: Partition, era: u64, page: Page },
    /// Some of the hints that earlier starts have kept.
    HintsRead { page: Page },
    /// A hint that is to be delivered.
    HintRead { delivery: Delivery, resends: u8, sent: u64, result: Result<Option<VersionSet>, ReadError> },
    /// A partition is served again, or could not be.
    Lifted { partition: Partition, lifted: bool },
    /// See [`Completion::kept`].
    Kept { ticket: u64, result: Kept },
}

/// A member as this node sees it.
#[derive(Clone, Debug)]
pub struct MemberStatus {
    /// What the failure detector says.
    pub view: MemberView,
    /// A smoothed round trip, if any was measured.
    pub latency: Option<Duration>,
    /// When all that is shared with it was last found, or made, equal, in Unix milliseconds.
    pub last_full_sync_unix_ms: Option<u64>,
}
