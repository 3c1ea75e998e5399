//! What the operator reports.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What was last seen and done. Written only when it says something new.
#[derive(JsonSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct KVClusterStatus {
    /// The generation of the spec that this status is about.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// The conditions in one word.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub phase: Option<Phase>,
    /// Pods that exist; for the scale subresource.
    pub nodes: i32,
    /// Nodes that are ready: their pods are, and they serve the committed epoch.
    pub ready_nodes: i32,
    /// The labels of the pods, as a selector; for the scale subresource.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub selector: Option<String>,
    /// The ring.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ring: Option<RingStatus>,
    /// The ring's members and the nodes that wait to become members, by name.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub members: Vec<MemberStatus>,
    /// Ready, Available, Progressing, Degraded and Paused; the reasons are documented in the reference.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Vec<Condition>,
}

/// The conditions in one word.
#[derive(JsonSchema, Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Phase {
    /// The first epoch is not committed yet.
    Creating,
    /// Every node serves.
    Ready,
    /// On the way to what the spec says.
    Progressing,
    /// Serving, but something is wrong.
    Degraded,
    /// Some keys cannot be read or written.
    Unavailable,
    /// The spec asks for what this version cannot do; nothing is changed.
    Refused,
    /// `spec.paused`.
    Paused,
}

/// The ring.
#[derive(JsonSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct RingStatus {
    /// The cluster's identity, which every disk carries.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cluster_id: Option<String>,
    /// The committed epoch; absent before the first.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub epoch: Option<i64>,
    /// Partitions of the ring.
    pub partitions: i32,
    /// Partitions of which a read and a write quorum of owners serves.
    pub partitions_at_quorum: i32,
    /// Partitions of which every owner serves.
    pub partitions_in_full: i32,
    /// The change of the ring that is under way, if any.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub transition: Option<TransitionStatus>,
}

/// A change of the ring, as the members tell it. Absent when nothing is left to do.
#[derive(JsonSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct TransitionStatus {
    /// The oldest epoch that is live on a member.
    pub from_epoch: i64,
    /// The committed epoch.
    pub to_epoch: i64,
    /// What the committed epoch is for: ScaleUp, ScaleDown, Removed, Cancelled, Replaced, DataLossAccepted, Recovered or
    /// FirstEpoch.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Partitions for which an older epoch is live too: the most that a member tells.
    pub partitions_unretired: i32,
    /// Partitions that new owners do not have all data of yet, added up over the members.
    pub partitions_syncing: i32,
    /// Partitions whose data members that lost them still hold, added up over the members.
    pub partitions_leaving: i32,
    /// Members whose data the others wait for, by name.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub waiting_for: Vec<String>,
    /// The partitions for which only the newest epoch is live, of all.
    pub percent: i32,
}

/// A node.
#[derive(JsonSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct MemberStatus {
    /// The pod.
    pub name: String,
    /// The disk; absent until the node has answered.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub node_id: Option<String>,
    /// Its failure domain.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub zone: Option<String>,
    /// How it is doing.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub state: Option<NodeState>,
    /// Its relative share of the ring.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub weight: Option<i64>,
    /// Partitions that it owns.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ownership: Option<i32>,
    /// Bytes of its log, rounded up so that a steady load does not rewrite this status all the time.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub data_bytes: Option<i64>,
    /// Hints that it keeps for others; more than eight are rounded up, by an eighth at most.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hints_owed: Option<i64>,
    /// When it was last found, or made, equal with the other owners of its partitions: the oldest of those times, RFC 3339,
    /// rounded down to the hour. Absent while there is an owner that it was never found equal with.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_full_sync: Option<String>,
    /// Its program's version.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
}

/// How a node is doing.
#[derive(JsonSchema, Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum NodeState {
    /// No pod, or the pod does not run.
    Missing,
    /// The pod is there; the node does not answer yet.
    Unreachable,
    /// Answers; is not a member of the ring yet.
    Waiting,
    /// A member, answering, but not ready.
    NotReady,
    /// A member that serves.
    Serving,
    /// A member that answers and is on its way out.
    Leaving,
    /// Answers with another disk than the one that the ring has in its place.
    UnknownDisk,
}
