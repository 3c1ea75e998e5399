//! What to do next, and why not more. Pure: the same cluster and the same observation give the same plan.
//!
//! [`decide`] asks one question after the other, each in its own file:
//!
//! 1. `frozen`: what of the spec cannot change any more, so what is built instead?
//! 2. `objects`: is a name taken by somebody else? must the Secret be made? which objects differ?
//! 3. `ring`: whose ring is it, is there an epoch, and who does not have it yet?
//! 4. `rollout`: which pod has an older template, and can the ring miss it now? (`whole` answers the second half.)
//!
//! INV-ONE: at most one disruptive action, and none while another is in flight. INV-UID: a deletion names the
//! incarnation that was observed.

mod drift;
mod frozen;
mod objects;
pub(crate) mod quantity;
mod ring;
mod rollout;
#[cfg(test)]
mod tests;
mod whole;

pub use drift::APPLIED_HASH;
pub use objects::{Kind, Manifest};
pub(crate) use ring::is_member;

use std::sync::Arc;

use quorate_core::ClusterId;
use quorate_core::ring::Epoch;

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

/// One change of the world.
#[derive(Clone, Debug, PartialEq)]
pub enum Action {
    /// Make the cluster's secret, from dice; fails if there is one.
    CreateSecret,
    /// Make the ring's ConfigMap; fails if there is one.
    CreateRing {
        /// The identity that the disks carry; none for new dice.
        cluster_id: Option<ClusterId>,
    },
    /// Change the ring's ConfigMap, if it still is the one that was observed.
    ReplaceRing {
        /// Stays.
        cluster_id: ClusterId,
        /// The epoch that is committed by this.
        epoch: Option<Arc<Epoch>>,
        /// What it replaces.
        resource_version: String,
        /// What it is for.
        why: RingChange,
    },
    /// Server-side apply.
    Apply(Manifest),
    /// Tell nodes the committed epoch.
    PushEpoch {
        /// The committed one, as observed.
        epoch: Arc<Epoch>,
        /// Whom: pod and address.
        nodes: Vec<(String, String)>,
    },
    /// Delete a pod, so that it comes back with the newest template.
    DeletePod {
        /// Its name.
        name: String,
        /// The incarnation that was observed.
        uid: String,
        /// Why.
        why: Deletion,
    },
}

/// Why a pod is deleted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Deletion {
    /// It cannot run, and its template was corrected since.
    Stuck,
    /// Its template has changed, and the ring can miss it.
    Rolling,
}

/// Why the ring's ConfigMap changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RingChange {
    /// The first epoch is committed.
    FirstEpoch,
    /// The committed epoch was lost and the nodes have it.
    Recovered,
    /// `storage.onDelete` changed whom it goes with.
    Owner,
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
    /// Pods are missing, pending or silent, and the first epoch waits for them.
    WaitingForNodes,
    /// The committed epoch is on its way to nodes that do not have it.
    PushingEpoch,
    /// The ring's ConfigMap was lost; the nodes are asked for it.
    RecoveringRing,
    /// Nodes are restarted one at a time, because the pod template changed.
    RollingRestart,
    /// A pod that does not run is being replaced by one of the corrected template.
    ReplacingPod,
    /// The spec changes something that this version cannot change.
    ChangeNotSupported,
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
    /// The ring's ConfigMap cannot be read.
    RingMalformed,
    /// The nodes hold different epochs, and the ConfigMap does not say which is right.
    RingDisagreement,
    /// A node holds an epoch that was never committed.
    EpochConflict,
    /// The first epoch cannot be planned.
    PlanFailed,
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
            | Self::ReplacingPod => Weight::Waiting,
            Self::ChangeNotSupported | Self::NotSupportedYet | Self::InvalidSpec => Weight::Refused,
            Self::NameTaken
            | Self::SecretMissing
            | Self::SecretMalformed
            | Self::RingMalformed
            | Self::RingDisagreement
            | Self::EpochConflict
            | Self::PlanFailed
            | Self::WrongCluster
            | Self::UnknownDisk
            | Self::DuplicateDisk
            | Self::StorageTrouble
            | Self::MembersSilent
            | Self::RolloutHalted => Weight::Problem,
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

    fn find(&mut self, reason: Reason, message: impl Into<String>) {
        self.findings.push(Finding { reason, message: message.into() });
    }
}

/// Decides.
pub fn decide(cluster: &ValidatedCluster, observed: &Observed) -> Plan {
    let (mut settled, findings) = frozen::settle(cluster, observed);
    rollout::keep_image(&mut settled, observed);
    let mut plan = Plan { cluster: settled, actions: Vec::new(), findings };
    if objects::names_are_free(&mut plan, observed) {
        objects::secret(&mut plan, observed);
        if ring::identity(&mut plan, observed) {
            objects::apply(&mut plan, spare(observed), observed);
        }
        ring::epoch(&mut plan, observed);
        rollout::roll(&mut plan, observed);
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
