//! What to do next, and why not more. Pure: the same cluster and the same observation give the same plan.
//!
//! [`decide`] asks one question after the other, each in its own file:
//!
//! 1. `frozen`: what of the spec cannot change any more, so what is built instead? `kept`: what does it leave open?
//! 2. `objects`: is a name taken by somebody else? must the Secret be made? which objects differ?
//! 3. `members`: how many pods does the ring need? (It may need more than are wanted.)
//! 4. `ring`: whose ring is it, and is there an epoch? `change`: what should the next one be, and what holds it up?
//!    There, `failure` sees to members that are lost for good, `members` to those that come and go, and `disks` to
//!    volumes that nobody needs any more.
//! 5. `volumes`: which claims are smaller than wanted, and must the StatefulSet be made again for it?
//! 6. `rollout`: which pod has an older template, and can the ring miss it now? (`whole` answers the second half.)
//! 7. `ring`, again: who does not have the committed epoch yet?
//!
//! INV-ONE: at most one disruptive action, and none while another is in flight. INV-UID: a deletion names the
//! incarnation that was observed.

mod action;
mod change;
mod disks;
mod drift;
mod evidence;
mod failure;
mod frozen;
mod kept;
mod members;
mod objects;
mod progress;
pub(crate) mod quantity;
mod reach;
mod ring;
mod rollout;
#[cfg(test)]
mod tests;
mod users;
mod view;
mod volumes;
mod whole;

pub use action::{Action, Deletion, RingChange};
pub use drift::APPLIED_HASH;
pub use objects::{Kind, Manifest};
pub(crate) use ring::is_member;

use crate::build::Spare;
use crate::observe::Observed;
use crate::validate::ValidatedCluster;

/// Names in one message; the rest is counted.
const NAMES_IN_MESSAGE_MAX: usize = 3;

/// What to do, in this order, and what to say.
#[derive(Clone, Debug)]
pub struct Plan {
    /// What is built: the cluster with what cannot change any more put back.
    pub cluster: ValidatedCluster,
    /// What to do, in order; the first failure ends it.
    pub actions: Vec<Action>,
    /// What is waited for, refused or wrong.
    pub findings: Vec<Finding>,
}

/// Something that a person may want to know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// Why, in one word.
    pub reason: Reason,
    /// Why, in a sentence, and what would help.
    pub message: String,
}

/// Why a condition is as it is. Part of the API: documented in the reference, never renamed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// Pods are missing, pending, silent or out of their peers' reach, and the next epoch waits for them.
    WaitingForNodes,
    /// The committed epoch is on its way to nodes that do not have it.
    PushingEpoch,
    /// The ring's ConfigMap was lost; the nodes are asked for it.
    RecoveringRing,
    /// Nodes are restarted one at a time, because the pod template changed.
    RollingRestart,
    /// Volumes are being made larger.
    VolumesGrowing,
    /// The StatefulSet is made again, and the pods run on.
    ReplacingStatefulSet,
    /// A pod that does not run is being replaced by one of the corrected template.
    ReplacingPod,
    /// The committed epoch moves data.
    MovingData,
    /// Members leave and still have something that others need.
    HandingOver,
    /// Three epochs are live; the next change waits.
    TooManyEpochs,
    /// A member is down, and may come back.
    MemberDown,
    /// A pod gets an empty disk.
    NewDisk,
    /// Another replacement goes first.
    OneAtATime,
    /// The number of nodes is below that of copies.
    BelowFactor,
    /// The annotation about data loss names a disk that cannot be given up.
    DataLossRefused,
    /// The spec changes something that this version cannot change.
    ChangeNotSupported,
    /// The StorageClass does not let volumes grow.
    VolumesCannotGrow,
    /// The spec asks for something that this version does not have.
    NotSupportedYet,
    /// The spec is out of range: the definition in the cluster is older than the operator.
    InvalidSpec,
    /// An object of the cluster's name belongs to somebody else.
    NameTaken,
    /// The Secret is gone while nodes hold it.
    SecretMissing,
    /// The Secret has no usable value.
    SecretMalformed,
    /// The Secret of the users is not there, or has no file of users.
    UsersMissing,
    /// The ring's ConfigMap cannot be read.
    RingMalformed,
    /// The nodes hold different epochs, and the ConfigMap does not say which is right.
    RingDisagreement,
    /// A node holds an epoch that was never committed.
    EpochConflict,
    /// The first epoch cannot be planned.
    PlanFailed,
    /// The ring cannot name one more member: those that were removed count, too.
    TooManyMembers,
    /// A disk of another cluster.
    WrongCluster,
    /// A disk that the ring does not name: it was replaced.
    UnknownDisk,
    /// Two pods say that they are the same disk.
    DuplicateDisk,
    /// A node's disk is full or failed.
    StorageTrouble,
    /// Members do not answer.
    MembersSilent,
    /// The first node with a changed pod template does not come up: the others keep the older one.
    RolloutHalted,
    /// A member that leaves does not answer.
    LeaverSilent,
    /// Nodes run a program that cannot change the ring.
    NodesTooOld,
    /// Too few owners answer to know how far the ring is.
    TooFewAnswers,
    /// A member looks lost, and its peers do not agree.
    PeersDisagree,
    /// Members of more than one zone are down together.
    ZonesDown,
    /// A member that looks lost may have the last good copy of something.
    QuorumAtRisk,
    /// A disk that was removed from the ring is back.
    RemovedDisk,
    /// A disk with data that the ring never knew.
    DiskNotEmpty,
}

/// How a finding colours the status.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Weight {
    /// On the way.
    Waiting,
    /// A wish that is not carried out.
    Refused,
    /// Wrong.
    Problem,
}

impl Reason {
    /// How it colours the status.
    pub fn weight(self) -> Weight {
        match self {
            Self::WaitingForNodes
            | Self::PushingEpoch
            | Self::RecoveringRing
            | Self::RollingRestart
            | Self::VolumesGrowing
            | Self::ReplacingStatefulSet
            | Self::ReplacingPod
            | Self::MovingData
            | Self::HandingOver
            | Self::TooManyEpochs
            | Self::MemberDown
            | Self::NewDisk
            | Self::OneAtATime => Weight::Waiting,
            Self::ChangeNotSupported
            | Self::VolumesCannotGrow
            | Self::NotSupportedYet
            | Self::InvalidSpec
            | Self::BelowFactor
            | Self::DataLossRefused => Weight::Refused,
            Self::NameTaken
            | Self::SecretMissing
            | Self::SecretMalformed
            | Self::UsersMissing
            | Self::RingMalformed
            | Self::RingDisagreement
            | Self::EpochConflict
            | Self::PlanFailed
            | Self::TooManyMembers
            | Self::WrongCluster
            | Self::UnknownDisk
            | Self::DuplicateDisk
            | Self::StorageTrouble
            | Self::MembersSilent
            | Self::RolloutHalted
            | Self::LeaverSilent
            | Self::NodesTooOld
            | Self::TooFewAnswers
            | Self::PeersDisagree
            | Self::ZonesDown
            | Self::QuorumAtRisk
            | Self::RemovedDisk
            | Self::DiskNotEmpty => Weight::Problem,
        }
    }
}

impl std::fmt::Display for Reason {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        std::fmt::Debug::fmt(self, f)
    }
}

impl Plan {
    /// Actions that bring the cluster nearer to its spec. The budget of drains follows how the ring is, and says
    /// nothing new.
    pub fn steps(&self) -> usize {
        let is_budget = |action: &&Action| {
            matches!(action, Action::Apply(Manifest { kind: Kind::PodDisruptionBudget, .. }))
        };
        self.actions.len() - self.actions.iter().filter(is_budget).count()
    }

    /// Whether something disruptive is planned already.
    fn disrupts(&self) -> bool {
        self.actions.iter().any(Action::is_disruptive)
    }

    fn find(&mut self, reason: Reason, message: impl Into<String>) {
        self.findings.push(Finding { reason, message: message.into() });
    }
}

/// Decides.
pub fn decide(cluster: &ValidatedCluster, observed: &Observed) -> Plan {
    let (mut settled, mut findings) = frozen::settle(cluster, observed);
    findings.extend(users::settle(&mut settled, observed));
    kept::keep(&mut settled, observed);
    volumes::settle(&mut settled, observed);
    let mut plan = Plan { cluster: settled, actions: Vec::new(), findings };
    if objects::names_are_free(&mut plan, observed) {
        plan.cluster.nodes = members::pods(cluster, observed);
        objects::secret(&mut plan, observed);
        if ring::identity(&mut plan, observed) {
            objects::apply(&mut plan, spare(observed), observed);
        }
        let committed = ring::epoch(cluster, &mut plan, observed);
        volumes::grow(&cluster.storage.size, &mut plan, observed);
        rollout::roll(&mut plan, observed);
        // Last, since a node that does not take it ends the pass.
        if let Some(epoch) = committed {
            ring::push(&epoch, &mut plan, observed);
        }
    }
    if cluster.paused {
        plan.actions.clear();
    }
    plan
}

/// What a drain may take now: nothing while a node is to be restarted, so that the two never add up, and nothing while
/// the ring is not known to be whole.
fn spare(observed: &Observed) -> Spare {
    match whole::lack(observed, None) {
        None if !rollout::is_due(observed) => Spare::OneNode,
        _ => Spare::Nothing,
    }
}

/// "a, b and c", or "a, b, c and 4 more".
fn names<'a>(names: impl IntoIterator<Item = &'a str>) -> String {
    let names: Vec<&str> = names.into_iter().collect();
    let shown = &names[..names.len().min(NAMES_IN_MESSAGE_MAX)];
    let hidden = names.len() - shown.len();
    match (shown, hidden) {
        ([], _) => String::new(),
        ([one], 0) => (*one).to_owned(),
        ([first @ .., last], 0) => format!("{} and {last}", first.join(", ")),
        (shown, hidden) => format!("{} and {hidden} more", shown.join(", ")),
    }
}
