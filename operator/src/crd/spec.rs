//! What a person asks for. Every default is in the schema, so that the stored object says what holds.
//!
//! The schema is the design's, whole. What this version cannot do yet (another replication mode, UDP) is off by default
//! and refused by the status when asked for, never silently ignored: see `validate.rs`.
#![allow(unreachable_pub)] // KubeSchema's derive repeats each struct, `pub` and all, inside a function.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Affinity, Toleration, TopologySpreadConstraint};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::rules::{
    between, bytes_between, duration_between, foreign_keys, is_duration, object_name, port, rule,
};
use super::status::KVClusterStatus;

/// A replicated key-value store: a ring of nodes that the operator starts and keeps whole.
#[derive(CustomResource, KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[kube(
    group = "quorate.dev",
    version = "v1alpha1",
    kind = "KVCluster",
    plural = "kvclusters",
    shortname = "kvc",
    category = "all",
    namespaced,
    status = "KVClusterStatus",
    derive = "PartialEq",
    doc = "A replicated key-value store: a ring of nodes that the operator starts and keeps whole.",
    scale(
        spec_replicas_path = ".spec.nodes",
        status_replicas_path = ".status.nodes",
        label_selector_path = ".status.selector"
    ),
    printcolumn(name = "Nodes", type_ = "integer", json_path = ".spec.nodes"),
    printcolumn(name = "Ready", type_ = "integer", json_path = ".status.readyNodes"),
    printcolumn(name = "Phase", type_ = "string", json_path = ".status.phase"),
    printcolumn(name = "Epoch", type_ = "integer", json_path = ".status.ring.epoch"),
    printcolumn(name = "Progress", type_ = "integer", json_path = ".status.ring.transition.percent"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    validation = rule(
        "self.metadata.name.size() <= 40",
        "metadata.name is too long: write at most 40 characters, so that the names of pods and Services made of it fit"
    ),
    validation = rule(
        "self.metadata.name.matches('^[a-z]([-a-z0-9]*[a-z0-9])?$')",
        "metadata.name must begin with a letter and have only lower-case letters, digits and '-', such as demo-1: \
         it becomes the name of a Service"
    )
)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = rule(
        "self.nodes >= self.replication.factor",
        "nodes must be at least replication.factor, since each copy needs a node of its own: write more nodes, or a lower \
         factor"
    ),
    validation = rule(
        "self.nodes <= self.ring.partitions",
        "nodes must be at most ring.partitions, or some nodes would own nothing: write fewer nodes, or more partitions"
    )
)]
pub struct KVClusterSpec {
    /// Storage nodes. `kubectl scale` and autoscalers change this field. New nodes join together; when it is lowered,
    /// the highest numbers hand over what they have, and go then.
    #[serde(default = "default::nodes")]
    #[x_kube(validation = between("nodes", 1, 1000, "an odd number of at least 3 survives failures best"))]
    pub nodes: i32,
    /// The image of the nodes; the operator's own default where absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image: Option<ImageSpec>,
    /// The hash space.
    #[serde(default)]
    pub ring: RingSpec,
    /// Copies and quorums.
    #[serde(default)]
    pub replication: ReplicationSpec,
    /// What an acknowledgement promises.
    #[serde(default = "default::durability")]
    pub durability: Durability,
    /// The volume of each node.
    #[serde(default)]
    pub storage: StorageSpec,
    /// Failure domains.
    #[serde(default)]
    pub zones: ZonesSpec,
    /// When a node counts as failed, for now or for good.
    #[serde(default)]
    pub failure: FailureSpec,
    /// Background repair.
    #[serde(default)]
    pub sync: SyncSpec,
    /// What clients speak.
    #[serde(default)]
    pub protocols: ProtocolsSpec,
    /// Who may read and write what. Where absent, whoever reaches the ports may do everything.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub users: Option<UsersSpec>,
    /// CPU and memory of each node, as in a pod.
    #[serde(default)]
    pub resources: ResourcesSpec,
    /// Passed through to the pods.
    #[serde(default)]
    pub pod: PodSpec,
    /// Reconcile nothing, keep reporting.
    #[serde(default)]
    pub paused: bool,
}

impl Default for KVClusterSpec {
    fn default() -> Self {
        Self {
            nodes: default::nodes(),
            image: None,
            ring: RingSpec::default(),
            replication: ReplicationSpec::default(),
            durability: default::durability(),
            storage: StorageSpec::default(),
            zones: ZonesSpec::default(),
            failure: FailureSpec::default(),
            sync: SyncSpec::default(),
            protocols: ProtocolsSpec::default(),
            users: None,
            resources: ResourcesSpec::default(),
            pod: PodSpec::default(),
            paused: false,
        }
    }
}

/// A container image.
#[derive(KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = rule(
    "has(self.tag) || has(self.digest)",
    "image has neither tag nor digest: write the tag of a release, such as tag: 0.1.0, or a digest, so that all nodes \
     run the same program"
))]
pub struct ImageSpec {
    /// Registry and name, without tag or digest.
    #[schemars(length(max = 255))]
    #[x_kube(validation = rule(
        "self.matches('^([A-Za-z0-9.-]+(:[0-9]+)?/)?[a-z0-9]+(([.]|_|__|-+|/)[a-z0-9]+)*$')",
        "image.repository must be a name without tag or digest, such as registry.example.com/quorate/node: write the tag \
         into image.tag and the digest into image.digest"
    ))]
    pub repository: String,
    /// The tag.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 256))]
    #[x_kube(validation = rule(
        "self.matches('^[A-Za-z0-9_][A-Za-z0-9._-]{0,127}$')",
        "image.tag must be letters, digits, '_', '.' and '-', at most 128 characters, such as 0.1.0"
    ))]
    pub tag: Option<String>,
    /// The digest; where given, it decides and the tag is for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 256))]
    #[x_kube(validation = rule(
        "self.matches('^sha256:[a-f0-9]{64}$')",
        "image.digest must be sha256: and 64 hexadecimal digits, as printed by `docker images --digests`"
    ))]
    pub digest: Option<String>,
    /// When the kubelet pulls.
    #[serde(default)]
    pub pull_policy: PullPolicy,
    /// Secrets with registry credentials, in the cluster's namespace.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    pub pull_secrets: Vec<PullSecret>,
}

/// When the kubelet pulls the image.
#[derive(JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum PullPolicy {
    /// At every start.
    Always,
    /// When the machine does not have it.
    #[default]
    IfNotPresent,
    /// Never: it must be there.
    Never,
}

/// Names a Secret.
#[derive(KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PullSecret {
    /// The Secret's name.
    #[schemars(length(max = 253))]
    #[x_kube(validation = object_name("image.pullSecrets[].name"))]
    pub name: String,
}

/// The hash space.
#[derive(KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RingSpec {
    /// Equal slices of the hash space, each owned by `replication.factor` nodes. Fixed for the life of the ring.
    #[serde(default = "default::partitions")]
    #[x_kube(
        validation = rule(
            "self in [8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096]",
            "ring.partitions must be a power of two from 8 to 4096: write 256 for up to some dozens of nodes, and more for \
             more"
        ),
        validation = rule(
            "self == oldSelf",
            "ring.partitions is fixed for the life of the ring: write the old number again, or make a new cluster"
        )
    )]
    pub partitions: i32,
}

impl Default for RingSpec {
    fn default() -> Self {
        Self { partitions: default::partitions() }
    }
}

/// Copies and quorums: N, R and W.
#[derive(KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = rule(
        "self.readQuorum >= 1 && self.readQuorum <= self.factor",
        "replication.readQuorum must be a number from 1 to replication.factor: each replica answers once"
    ),
    validation = rule(
        "self.writeQuorum >= 1 && self.writeQuorum <= self.factor",
        "replication.writeQuorum must be a number from 1 to replication.factor: each replica acknowledges once"
    ),
    validation = rule(
        "self.quorum != 'Strict' || self.readQuorum + self.writeQuorum > self.factor",
        "strict quorums need readQuorum + writeQuorum > factor, so that every read meets every acknowledged write: write a \
         majority for both (2 of factor 3, 3 of factor 5), or raise one of them"
    ),
    validation = rule(
        "self.mode != 'Primary' || self.quorum == 'Strict'",
        "mode Primary orders all writes of a partition, which a sloppy quorum would undo: write quorum: Strict, or mode: \
         Leaderless"
    )
)]
pub struct ReplicationSpec {
    /// N: copies of each key. Fixed in v1alpha1.
    #[serde(default = "default::factor")]
    #[x_kube(
        validation = between("replication.factor", 1, 9, "3 survives the loss of one node without a pause"),
        validation = rule(
            "self == oldSelf",
            "replication.factor cannot change in v1alpha1: write the old number again, or make a new cluster"
        )
    )]
    pub factor: i32,
    /// R: replies that decide a read. This version cannot change it once the first epoch is committed.
    #[serde(default = "default::read_quorum")]
    pub read_quorum: i32,
    /// W: acknowledgements that decide a write. This version cannot change it once the first epoch is committed.
    #[serde(default = "default::write_quorum")]
    pub write_quorum: i32,
    /// Who counts.
    #[serde(default = "default::quorum")]
    pub quorum: Quorum,
    /// Who orders writes. This version knows Leaderless.
    #[serde(default = "default::mode")]
    pub mode: Mode,
    /// What becomes of concurrent writes.
    #[serde(default = "default::conflicts")]
    pub conflicts: Conflicts,
}

impl Default for ReplicationSpec {
    fn default() -> Self {
        Self {
            factor: default::factor(),
            read_quorum: default::read_quorum(),
            write_quorum: default::write_quorum(),
            quorum: default::quorum(),
            mode: default::mode(),
            conflicts: default::conflicts(),
        }
    }
}

/// Whose answers count.
#[derive(JsonSchema, Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Quorum {
    /// Owners alone.
    Strict,
    /// Also a fallback that keeps a hint for an owner that is down.
    Sloppy,
}

/// Who orders writes.
#[derive(JsonSchema, Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Mode {
    /// Nobody: any owner takes a write, and causality is tracked.
    Leaderless,
    /// One primary a partition. Not in this version.
    Primary,
}

/// What becomes of concurrent writes.
#[derive(JsonSchema, Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Conflicts {
    /// Readers get all of them, with a context to merge by.
    Siblings,
    /// The newest by hybrid logical clock stays; the others are lost.
    LastWriteWins,
}

/// What an acknowledgement promises.
#[derive(JsonSchema, Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Durability {
    /// On disk.
    Sync,
    /// On disk within a short interval.
    Interval,
    /// In memory.
    Memory,
}

/// The volume of each node.
#[derive(KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = rule(
    "has(self.className) == has(oldSelf.className) && (!has(self.className) || self.className == oldSelf.className)",
    "storage.className cannot change, because the volumes are made already: write the old name again, or make a new \
     cluster"
))]
pub struct StorageSpec {
    /// Size of each volume. It may only grow, where the StorageClass allows it; nothing is restarted for it.
    #[serde(default = "default::size")]
    #[schemars(length(max = 32))]
    #[x_kube(
        validation = bytes_between("storage.size", "256Mi", "64Ti"),
        validation = rule(
            "!isQuantity(self) || !isQuantity(oldSelf) || quantity(self).compareTo(quantity(oldSelf)) >= 0",
            "storage.size may only grow, since a volume cannot shrink: write the old size or more"
        )
    )]
    pub size: String,
    /// The StorageClass; the machine's default where absent. Cannot change.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 253))]
    #[x_kube(validation = object_name("storage.className"))]
    pub class_name: Option<String>,
    /// What becomes of the volumes when the KVCluster is deleted. Retain also keeps the ring's ConfigMap, so that a
    /// KVCluster of the same name finds its data again.
    #[serde(default = "default::on_delete")]
    pub on_delete: VolumePolicy,
    /// What becomes of the volumes of nodes that a smaller `nodes` removes, once others have what was on them.
    #[serde(default = "default::on_scale_down")]
    pub on_scale_down: VolumePolicy,
}

impl Default for StorageSpec {
    fn default() -> Self {
        Self {
            size: default::size(),
            class_name: None,
            on_delete: default::on_delete(),
            on_scale_down: default::on_scale_down(),
        }
    }
}

/// What becomes of a volume.
#[derive(JsonSchema, Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum VolumePolicy {
    /// It stays.
    Retain,
    /// It is deleted, and the data with it.
    Delete,
}

/// Failure domains.
#[derive(KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ZonesSpec {
    /// The label of a machine that names its zone.
    #[serde(default = "default::topology_key")]
    #[schemars(length(max = 316))]
    #[x_kube(validation = rule(
        "self.matches('^([a-z0-9]([-a-z0-9.]*[a-z0-9])?/)?[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?$')",
        "zones.topologyKey must be the key of a label, such as topology.kubernetes.io/zone"
    ))]
    pub topology_key: String,
    /// Whether pods spread over zones. The ring puts copies into distinct zones unless this is Disabled.
    #[serde(default = "default::spread")]
    pub spread: Spread,
}

impl Default for ZonesSpec {
    fn default() -> Self {
        Self { topology_key: default::topology_key(), spread: default::spread() }
    }
}

/// Whether pods spread over zones.
#[derive(JsonSchema, Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Spread {
    /// Zones are not looked at.
    Disabled,
    /// As well as possible.
    Preferred,
    /// A pod that would make it uneven waits.
    Required,
}

/// When a node counts as failed.
#[derive(KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = rule(
    &format!(
        "!{} || !{} || duration(self.permanentAfter) > duration(self.detectAfter)",
        is_duration("self.detectAfter"),
        is_duration("self.permanentAfter")
    ),
    "failure.permanentAfter must be longer than failure.detectAfter: an outage is rarely for good; write 15m or more"
))]
pub struct FailureSpec {
    /// How long a node may be silent before its peers call it down.
    #[serde(default = "default::detect_after")]
    #[schemars(length(max = 16))]
    #[x_kube(validation = duration_between("failure.detectAfter", "1s", "5m"))]
    pub detect_after: String,
    /// How long a node must be down before it counts as lost for good.
    #[serde(default = "default::permanent_after")]
    #[schemars(length(max = 16))]
    #[x_kube(validation = duration_between("failure.permanentAfter", "1m", "168h"))]
    pub permanent_after: String,
    /// Replace nodes that are lost for good, by new ones with empty disks.
    #[serde(default = "default::auto_replace")]
    pub auto_replace: bool,
}

impl Default for FailureSpec {
    fn default() -> Self {
        Self {
            detect_after: default::detect_after(),
            permanent_after: default::permanent_after(),
            auto_replace: default::auto_replace(),
        }
    }
}

/// Background repair.
#[derive(KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SyncSpec {
    /// How often replicas are compared.
    #[serde(default = "default::anti_entropy_interval")]
    #[schemars(length(max = 16))]
    #[x_kube(validation = duration_between("sync.antiEntropyInterval", "1s", "24h"))]
    pub anti_entropy_interval: String,
    /// Bytes a second that a node spends on repair and moving data.
    #[serde(default = "default::transfer_rate")]
    #[schemars(length(max = 32))]
    #[x_kube(validation = bytes_between("sync.transferRate", "1Mi", "64Gi"))]
    pub transfer_rate: String,
}

impl Default for SyncSpec {
    fn default() -> Self {
        Self {
            anti_entropy_interval: default::anti_entropy_interval(),
            transfer_rate: default::transfer_rate(),
        }
    }
}

/// What clients speak.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[x_kube(validation = rule(
    "self.http.port != self.resp.port && self.http.port != self.udp.port && self.resp.port != self.udp.port",
    "protocols has one port twice: write a port of its own for each of http, resp and udp, such as 7001, 7002 and 7003"
))]
pub struct ProtocolsSpec {
    /// HTTP with raw bodies and JSON.
    #[serde(default)]
    pub http: HttpSpec,
    /// TCP, for Redis clients. Off by default, as in the version that did not have it.
    #[serde(default)]
    pub resp: RespSpec,
    /// UDP, for memcached clients. Not in this version, therefore off by default.
    #[serde(default)]
    pub udp: UdpSpec,
}

/// The HTTP listener.
#[derive(KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct HttpSpec {
    /// Its port.
    #[serde(default = "default::http_port")]
    #[x_kube(validation = port("protocols.http.port"))]
    pub port: i32,
}

impl Default for HttpSpec {
    fn default() -> Self {
        Self { port: default::http_port() }
    }
}

/// The TCP listener.
#[derive(KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RespSpec {
    /// Whether it listens.
    #[serde(default)]
    pub enabled: bool,
    /// Its port.
    #[serde(default = "default::resp_port")]
    #[x_kube(validation = port("protocols.resp.port"))]
    pub port: i32,
    /// What becomes of commands that read a key and write what they make of it, such as INCR.
    #[serde(default = "default::read_modify_write")]
    pub read_modify_write: ReadModifyWrite,
}

impl Default for RespSpec {
    fn default() -> Self {
        Self { enabled: false, port: default::resp_port(), read_modify_write: default::read_modify_write() }
    }
}

/// What becomes of commands that read a key and write what they make of it.
#[derive(JsonSchema, Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ReadModifyWrite {
    /// They are refused: of two clients at the same time both could succeed, and one would be lost.
    Refuse,
    /// They are done in two steps, and of two at the same time one may be lost.
    BestEffort,
}

/// The UDP listener.
#[derive(KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct UdpSpec {
    /// Whether it listens.
    #[serde(default)]
    pub enabled: bool,
    /// Its port.
    #[serde(default = "default::udp_port")]
    #[x_kube(validation = port("protocols.udp.port"))]
    pub port: i32,
}

impl Default for UdpSpec {
    fn default() -> Self {
        Self { enabled: false, port: default::udp_port() }
    }
}

/// Who may read and write what.
#[derive(KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct UsersSpec {
    /// The Secret, in the cluster's namespace, that has the users' file under the key `users.yaml`. What changes in it is taken
    /// over without a restart.
    #[schemars(length(max = 253))]
    #[x_kube(validation = object_name("users.secretName"))]
    pub secret_name: String,
}

/// CPU and memory of each node, as in a pod.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[x_kube(validation = rule(
    // Named one by one: for a loop over all keys the API server's cost estimate is too high.
    "!has(self.limits) || !has(self.requests) || ['cpu', 'memory'].all(key, \
     !(key in self.requests) || !(key in self.limits) \
     || !isQuantity(string(self.requests[key])) || !isQuantity(string(self.limits[key])) \
     || quantity(string(self.requests[key])).compareTo(quantity(string(self.limits[key]))) <= 0)",
    "resources.requests asks for more than resources.limits allows: write a higher limit or a lower request"
))]
pub struct ResourcesSpec {
    /// The most that a node may use.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 7))]
    #[x_kube(validation = rule(
        "self.all(key, isQuantity(string(self[key])) && quantity(string(self[key])).compareTo(quantity('0')) >= 0)",
        "resources.limits has a value that is not a quantity of 0 or more: write values such as 500m, 2 or 4Gi"
    ))]
    pub limits: BTreeMap<String, Quantity>,
    /// What the scheduler reserves.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 7))]
    #[x_kube(validation = rule(
        "self.all(key, isQuantity(string(self[key])) && quantity(string(self[key])).compareTo(quantity('0')) >= 0)",
        "resources.requests has a value that is not a quantity of 0 or more: write values such as 500m, 2 or 4Gi"
    ))]
    pub requests: BTreeMap<String, Quantity>,
}

/// Passed through to the pods.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PodSpec {
    /// Further labels of the pods.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 64))]
    #[x_kube(validation = foreign_keys("pod.labels"))]
    pub labels: BTreeMap<String, String>,
    /// Annotations of the pods.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 64))]
    #[x_kube(validation = foreign_keys("pod.annotations"))]
    pub annotations: BTreeMap<String, String>,
    /// Replaces the operator's own preference for distinct machines.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub affinity: Option<Affinity>,
    /// Taints that the pods tolerate.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    pub tolerations: Vec<Toleration>,
    /// Labels of the machines that the pods may run on.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 64))]
    pub node_selector: BTreeMap<String, String>,
    /// The PriorityClass of the pods.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 253))]
    #[x_kube(validation = object_name("pod.priorityClassName"))]
    pub priority_class_name: Option<String>,
    /// Further spreading, beside that of `zones`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    pub topology_spread_constraints: Vec<TopologySpreadConstraint>,
    /// The RuntimeClass of the pods.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 253))]
    #[x_kube(validation = object_name("pod.runtimeClassName"))]
    pub runtime_class_name: Option<String>,
    /// The scheduler of the pods.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 253))]
    #[x_kube(validation = object_name("pod.schedulerName"))]
    pub scheduler_name: Option<String>,
}

/// The defaults of the schema, one function a field: serde asks for paths.
mod default {
    use super::{Conflicts, Durability, Mode, Quorum, ReadModifyWrite, Spread, VolumePolicy};

    macro_rules! defaults {
        ($($name:ident: $type:ty = $value:expr;)*) => {
            $(pub(super) fn $name() -> $type { $value })*
        };
    }

    defaults! {
        nodes: i32 = 3;
        partitions: i32 = 256;
        factor: i32 = 3;
        read_quorum: i32 = 2;
        write_quorum: i32 = 2;
        quorum: Quorum = Quorum::Strict;
        mode: Mode = Mode::Leaderless;
        conflicts: Conflicts = Conflicts::Siblings;
        durability: Durability = Durability::Sync;
        size: String = "10Gi".to_owned();
        on_delete: VolumePolicy = VolumePolicy::Retain;
        on_scale_down: VolumePolicy = VolumePolicy::Delete;
        topology_key: String = "topology.kubernetes.io/zone".to_owned();
        spread: Spread = Spread::Preferred;
        detect_after: String = "5s".to_owned();
        permanent_after: String = "15m".to_owned();
        auto_replace: bool = true;
        anti_entropy_interval: String = "60s".to_owned();
        transfer_rate: String = "64Mi".to_owned();
        http_port: i32 = 7001;
        resp_port: i32 = 7002;
        read_modify_write: ReadModifyWrite = ReadModifyWrite::Refuse;
        udp_port: i32 = 7003;
    }
}
