//! One immutable version of the ring, and the chain that the versions form.
//!
//! INV-EPOCH: an epoch is identified by its number *and* its hash; the hash covers everything, the hash of
//! the epoch before included, so two different epochs of one number cannot be mistaken for each other.

use std::collections::HashSet;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::{KEY_HASH_NAME, Partition, PartitionCount, fallback};
use crate::id::{ClusterId, NodeId};
use crate::limits::{FACTOR_MAX, MEMBERS_MAX, NAME_BYTES_MAX};

/// The version of the epoch document; another version is refused instead of guessed at.
const SCHEMA: u32 = 1;

/// The BLAKE3 hash of an epoch's canonical encoding; 64 hexadecimal digits in text.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct EpochHash([u8; 32]);

impl fmt::Display for EpochHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for EpochHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for EpochHash {
    type Err = EpochError;

    fn from_str(text: &str) -> Result<Self, EpochError> {
        blake3::Hash::from_hex(text).map(|h| Self(*h.as_bytes())).map_err(|_| EpochError::HashText)
    }
}

impl TryFrom<String> for EpochHash {
    type Error = EpochError;

    fn try_from(text: String) -> Result<Self, EpochError> {
        text.parse()
    }
}

impl From<EpochHash> for String {
    fn from(hash: EpochHash) -> Self {
        hash.to_string()
    }
}

/// An epoch's name: enough to tell whether two nodes hold the same one.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct EpochMark {
    /// Counts from 1.
    pub number: u64,
    /// Of the whole epoch.
    pub hash: EpochHash,
}

/// N, R and W. They travel in the epoch, so that no two coordinators ever use different ones for the same
/// epoch while a configuration change rolls through the nodes.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Replication {
    /// N: replicas of each partition.
    pub factor: u8,
    /// R: replies that decide a read.
    pub read_quorum: u8,
    /// W: acknowledgements that decide a write.
    pub write_quorum: u8,
}

impl Replication {
    /// Whether the quorums are within the replicas, and the replicas within [`FACTOR_MAX`].
    pub fn check(self) -> Result<(), EpochError> {
        let Self { factor, read_quorum: read, write_quorum: write } = self;
        let within = |quorum: u8| (1..=factor).contains(&quorum);
        if factor > FACTOR_MAX || !within(read) || !within(write) {
            return Err(EpochError::Quorums { factor, read, write });
        }
        Ok(())
    }
}

/// What a member does in this epoch.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum MemberState {
    /// Owns partitions.
    Active,
    /// Owns none any more; still coordinates for the clients that it has.
    Leaving,
    /// Fenced: whatever this NodeId says is refused, for good.
    Removed,
    /// Removed, and what only it held is given up: nobody waits for it. The last resort of a person
    /// (`quorate.dev/accept-data-loss`).
    Lost,
}

impl MemberState {
    /// Whether a member in this state may take part; what others say is refused (INV-FENCE).
    pub fn takes_part(self) -> bool {
        matches!(self, Self::Active | Self::Leaving)
    }
}

/// A node that the ring names.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Member {
    /// The disk.
    pub id: NodeId,
    /// For people: the pod's name on Kubernetes.
    pub name: String,
    /// `host:port` of the peer and admin listener; a DNS name stays true when the pod's address changes.
    pub address: String,
    /// The failure domain; members without one count as one zone of their own.
    pub zone: Option<String>,
    /// Relative share of the partitions; 0 owns none.
    pub weight: u32,
    /// What it does in this epoch.
    pub state: MemberState,
}

/// One numbered version of the ring. Immutable, and valid by construction: the only ways to make one are
/// [`Epoch::new`] and deserialization, and both check everything.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(try_from = "Document", into = "Document")]
pub struct Epoch {
    document: Document,
    partitions: PartitionCount,
    hash: EpochHash,
}

/// The shape of an epoch in JSON and on disk.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Document {
    schema: u32,
    key_hash: String,
    cluster: ClusterId,
    number: u64,
    previous: Option<EpochHash>,
    replication: Replication,
    members: Vec<Member>,
    /// Per partition, in preference order, positions in `members`.
    replicas: Vec<Vec<u16>>,
}

/// Why something is not an epoch, or not the next one.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
#[allow(missing_docs)] // The messages are the documentation.
pub enum EpochError {
    #[error("an epoch hash is 64 hexadecimal digits")]
    HashText,
    #[error("epoch schema {found} is not known here (this version knows {SCHEMA}): upgrade the reader first")]
    Schema { found: u32 },
    #[error("the ring hashes keys with {found:?}; this version knows {KEY_HASH_NAME:?}")]
    KeyHash { found: String },
    #[error("{count} partitions: must be a power of two from 1 to 4096")]
    Partitions { count: u32 },
    #[error("epoch {number} {}: epochs count from 1, and only the first has no predecessor",
        if *.has_previous { "names a predecessor" } else { "names no predecessor" })]
    Chain { number: u64, has_previous: bool },
    #[error("N={factor}, R={read}, W={write}: need 1 <= R, W <= N <= 9")]
    Quorums { factor: u8, read: u8, write: u8 },
    #[error("{count} members: an epoch names 1 to 1000")]
    MemberCount { count: usize },
    #[error("member {id} is named twice")]
    MemberTwice { id: NodeId },
    #[error("member {id}: name, address and zone must be 1 to 253 bytes")]
    MemberText { id: NodeId },
    #[error("partition {partition} has {found} replicas; N is {factor}")]
    ReplicaCount { partition: usize, found: usize, factor: u8 },
    #[error(
        "partition {partition}: replica {position} is not the position of an active member, or is named twice"
    )]
    Replica { partition: usize, position: u16 },
    #[error("epoch {pushed} is of cluster {found}, this node belongs to {expected}")]
    Cluster { pushed: u64, found: ClusterId, expected: ClusterId },
    #[error(
        "epoch {number} is known here with hash {known}, but {pushed} was pushed: one number, one epoch (INV-EPOCH)"
    )]
    Conflict { number: u64, known: EpochHash, pushed: EpochHash },
    #[error("epoch {pushed} does not follow epoch {known}: it names another predecessor")]
    Predecessor { pushed: u64, known: u64 },
    #[error("epoch {pushed} changes {what}, which is fixed for the life of the ring")]
    Fixed { pushed: u64, what: &'static str },
}

impl Epoch {
    /// Makes the epoch that follows `previous`, or the first one. `replicas` holds, for each partition,
    /// positions in `members` in preference order.
    pub fn new(
        cluster: ClusterId,
        previous: Option<EpochMark>,
        replication: Replication,
        members: Vec<Member>,
        replicas: Vec<Vec<u16>>,
    ) -> Result<Self, EpochError> {
        Document {
            schema: SCHEMA,
            key_hash: KEY_HASH_NAME.to_owned(),
            cluster,
            number: previous.map_or(1, |p| p.number + 1),
            previous: previous.map(|p| p.hash),
            replication,
            members,
            replicas,
        }
        .try_into()
    }

    /// The cluster this ring belongs to.
    pub fn cluster(&self) -> ClusterId {
        self.document.cluster
    }

    /// Counts from 1.
    pub fn number(&self) -> u64 {
        self.document.number
    }

    /// Number and hash together.
    pub fn mark(&self) -> EpochMark {
        EpochMark { number: self.number(), hash: self.hash }
    }

    /// N, R and W.
    pub fn replication(&self) -> Replication {
        self.document.replication
    }

    /// Q.
    pub fn partitions(&self) -> PartitionCount {
        self.partitions
    }

    /// Every member, removed ones included.
    pub fn members(&self) -> &[Member] {
        &self.document.members
    }

    /// The member with this id.
    pub fn member(&self, id: NodeId) -> Option<&Member> {
        self.document.members.iter().find(|m| m.id == id)
    }

    /// The owners of a partition, in preference order. Panics for a partition of another ring.
    pub fn owners(&self, partition: Partition) -> impl ExactSizeIterator<Item = &Member> {
        self.document.replicas[partition.index()].iter().map(|&at| &self.document.members[usize::from(at)])
    }

    /// The next `count` members of a partition's preference list, after its owners: who stands in when owners
    /// are down. Fewer when there are no more; a shorter list is the beginning of a longer one. The same on
    /// every node, since it depends on nothing but the epoch. Takes time in proportion to the members; panics
    /// for a partition of another ring.
    pub fn fallbacks(&self, partition: Partition, count: usize) -> Vec<&Member> {
        let owners: Vec<&Member> = self.owners(partition).collect();
        fallback::choose(self.members(), &owners, partition, count)
    }

    /// Whether a node owns a partition.
    pub fn owns(&self, node: NodeId, partition: Partition) -> bool {
        self.owners(partition).any(|m| m.id == node)
    }

    /// How many partitions a node owns.
    pub fn owned_count(&self, node: NodeId) -> usize {
        self.partitions.iter().filter(|&p| self.owns(node, p)).count()
    }

    /// Checks that this epoch may stand after `known` (INV-EPOCH). `Ok(false)` means that it is `known`
    /// itself, or older: nothing to do.
    pub fn follows(&self, known: &Epoch) -> Result<bool, EpochError> {
        let pushed = self.number();
        if self.cluster() != known.cluster() {
            return Err(EpochError::Cluster { pushed, found: self.cluster(), expected: known.cluster() });
        }
        if pushed == known.number() && self.hash != known.hash {
            return Err(EpochError::Conflict { number: pushed, known: known.hash, pushed: self.hash });
        }
        if pushed <= known.number() {
            return Ok(false);
        }
        if pushed == known.number() + 1 && self.document.previous != Some(known.hash) {
            return Err(EpochError::Predecessor { pushed, known: known.number() });
        }
        if self.partitions != known.partitions {
            return Err(EpochError::Fixed { pushed, what: "the number of partitions" });
        }
        if self.replication() != known.replication() {
            return Err(EpochError::Fixed { pushed, what: "N, R or W" });
        }
        Ok(true)
    }
}

impl TryFrom<Document> for Epoch {
    type Error = EpochError;

    fn try_from(document: Document) -> Result<Self, EpochError> {
        let partitions = document.check()?;
        let hash = document.hash();
        Ok(Self { document, partitions, hash })
    }
}

impl From<Epoch> for Document {
    fn from(epoch: Epoch) -> Self {
        epoch.document
    }
}

impl Document {
    fn check(&self) -> Result<PartitionCount, EpochError> {
        if self.schema != SCHEMA {
            return Err(EpochError::Schema { found: self.schema });
        }
        if self.key_hash != KEY_HASH_NAME {
            return Err(EpochError::KeyHash { found: self.key_hash.clone() });
        }
        if self.number == 0 || (self.number == 1) != self.previous.is_none() {
            return Err(EpochError::Chain { number: self.number, has_previous: self.previous.is_some() });
        }
        self.replication.check()?;
        self.check_members()?;
        self.check_replicas()?;
        let count = u32::try_from(self.replicas.len()).unwrap_or(u32::MAX);
        PartitionCount::try_from(count)
    }

    fn check_members(&self) -> Result<(), EpochError> {
        let count = self.members.len();
        if count == 0 || count > MEMBERS_MAX {
            return Err(EpochError::MemberCount { count });
        }
        let mut seen = HashSet::new();
        for member in &self.members {
            let id = member.id;
            if !seen.insert(id) {
                return Err(EpochError::MemberTwice { id });
            }
            let mut texts = [&member.name, &member.address].into_iter().chain(&member.zone);
            if texts.any(|text| text.is_empty() || text.len() > NAME_BYTES_MAX) {
                return Err(EpochError::MemberText { id });
            }
        }
        Ok(())
    }

    fn check_replicas(&self) -> Result<(), EpochError> {
        let factor = self.replication.factor;
        for (partition, owners) in self.replicas.iter().enumerate() {
            if owners.len() != usize::from(factor) {
                return Err(EpochError::ReplicaCount { partition, found: owners.len(), factor });
            }
            for (rank, &position) in owners.iter().enumerate() {
                let member = self.members.get(usize::from(position));
                let active = member.is_some_and(|m| m.state == MemberState::Active);
                if !active || owners[..rank].contains(&position) {
                    return Err(EpochError::Replica { partition, position });
                }
            }
        }
        Ok(())
    }

    fn hash(&self) -> EpochHash {
        let bytes = postcard::to_stdvec(self).expect("a document of vectors and strings always encodes");
        EpochHash(*blake3::hash(&bytes).as_bytes())
    }
}
