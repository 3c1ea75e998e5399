//! What the admin API says, as JSON in camelCase. Times are Unix milliseconds.

use quorate_core::ring::EpochMark;
use quorate_core::{ClusterId, NodeId};
use serde::{Deserialize, Serialize};

/// Who this node is.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Identity {
    /// The disk.
    pub node_id: NodeId,
    /// The cluster that the disk belongs to.
    pub cluster_id: ClusterId,
    /// For people: the pod's name on Kubernetes.
    pub name: String,
    /// `host:port` where peers and the admin API reach this node.
    pub address: String,
    /// The failure domain that the node was told at its start, if any.
    pub zone: Option<String>,
    /// `host:port` where Redis clients reach this node, if they are served.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub redis_address: Option<String>,
    /// The program's version.
    pub version: String,
    /// Grows with every start of this disk.
    pub start: u64,
}

/// How a node looks to the failure detector of another. Local and temporary: a member is *removed* only by
/// an epoch.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Liveness {
    /// Answers probes.
    Up,
    /// Missed probes; may still refute.
    Suspect,
    /// Did not refute in time.
    Down,
    /// Said goodbye: a graceful stop.
    Left,
}

/// One node, as another sees it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct MemberView {
    /// The disk.
    pub id: NodeId,
    /// For people.
    pub name: String,
    /// `host:port` of its peer and admin listener.
    pub address: String,
    /// Its failure domain.
    pub zone: Option<String>,
    /// What the failure detector says.
    pub liveness: Liveness,
    /// Whether the ring's current epoch names it.
    pub in_ring: bool,
    /// How long it takes to answer, smoothed, in microseconds; absent until it was asked for data.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub latency_micros: Option<u64>,
    /// How far its clock is ahead of the observer's, in milliseconds; absent until it answered a probe of the observer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub clock_skew_ms: Option<i64>,
    /// When all that is shared with it was last found, or made, equal, in Unix milliseconds; absent when never.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_full_sync_unix_ms: Option<u64>,
    /// Hints that the observer keeps for it.
    #[serde(default)]
    pub hints_owed: u64,
    /// What they take, in bytes.
    #[serde(default)]
    pub hint_bytes_owed: u64,
}

impl MemberView {
    /// Whether the observer has talked to it, both ways, and it is up. Up alone may be hearsay: others reach it.
    /// (There is no latency before it is asked for data, which nobody is who is no member yet.)
    pub fn is_reached(&self) -> bool {
        self.liveness == Liveness::Up && self.clock_skew_ms.is_some()
    }
}

/// The members as one node sees them, itself included.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Members {
    /// Whose view this is.
    pub observer: NodeId,
    /// Every node it has heard of.
    pub members: Vec<MemberView>,
}

/// What the storage engine can do now.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum StorageState {
    /// Reads and writes.
    Writable,
    /// Free space is below the reserve: writes are refused, reads go on.
    Full,
    /// The disk failed: writes are refused.
    Failed,
}

/// How this node and, as far as it can see, the ring are doing.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Health {
    /// Whether the ring serves through this node; what `/readyz` answers.
    pub ready: bool,
    /// Why not, in a sentence; absent when ready.
    pub reason: Option<String>,
    /// Partitions of the ring; 0 without an epoch.
    pub partitions: u32,
    /// Partitions of which a read and a write quorum of owners is up, as this node sees them.
    pub partitions_at_quorum: u32,
    /// Partitions of which every owner is up, as this node sees them.
    pub partitions_in_full: u32,
    /// Keys stored here, tombstones included.
    pub keys: u64,
    /// Bytes of the log on this disk.
    pub data_bytes: u64,
    /// Free bytes on this disk.
    pub free_bytes: u64,
    /// What the engine can do.
    pub storage: StorageState,
}

/// A change of the ring, as one node sees it. Settled when `oldest_epoch` is `newest_epoch` and the other counts are 0.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Transition {
    /// The oldest epoch that is live for some partition; 0 without an epoch.
    pub oldest_epoch: u64,
    /// The newest epoch that this node holds; 0 without one.
    pub newest_epoch: u64,
    /// Partitions of the ring for which an older epoch is live too: their writes go to the owners of both.
    pub partitions_unretired: u32,
    /// Partitions that this node gains, and whose data it does not have from enough old owners yet.
    pub partitions_syncing: u32,
    /// Partitions that this node lost, and whose data it holds until every new owner is proven to have it.
    pub partitions_leaving: u32,
    /// Keys that this node still holds of those, and so has to hand over or prove.
    pub keys_leaving: u64,
    /// Hints that this node keeps for others.
    pub hints_owed: u64,
    /// Bytes of content that came and went for the background since the newest epoch was adopted.
    pub moved_bytes: u64,
    /// The same, a second: the mean since then, or since the node started.
    #[serde(default)]
    pub moved_bytes_per_second: u64,
    /// How long the partitions that this node gains will take, if they come like those before; none when there are none, or
    /// none has come yet.
    #[serde(default)]
    pub remaining_seconds: Option<u64>,
    /// Members whose data somebody waits for: they gain partitions and have not synced all of them.
    pub waiting_for: Vec<NodeId>,
}

impl Transition {
    /// Whether nothing of a change of the ring is left to do, as far as this node knows.
    pub fn is_settled(&self) -> bool {
        self.oldest_epoch == self.newest_epoch
            && self.partitions_unretired == 0
            && self.partitions_syncing == 0
            && self.partitions_leaving == 0
    }
}

/// Everything at once, so that an observer needs one request a node.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct NodeStatus {
    /// Who.
    pub identity: Identity,
    /// The epoch it serves by; none before the first.
    pub epoch: Option<EpochMark>,
    /// How.
    pub health: Health,
    /// How far a change of the ring is.
    #[serde(default)]
    pub transition: Transition,
    /// With whom.
    pub members: Members,
}

/// An error, on every endpoint: `{"error": {"code": …, "message": …}}`.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ErrorBody {
    /// The error.
    pub error: ErrorDetail,
}

/// What went wrong.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ErrorDetail {
    /// Stable, for programs: `unauthorized`, `bad_request`, `no_epoch`, `epoch_conflict`, `not_found`,
    /// `busy`, `stopping`, `internal`.
    pub code: String,
    /// For people: what was wrong and what to do instead.
    pub message: String,
}
