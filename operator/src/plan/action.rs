//! What a plan may do, each with all that it needs.

use std::sync::Arc;

use quorate_core::ClusterId;
use quorate_core::ring::Epoch;

use super::Manifest;
use crate::observe::DiskMark;

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
        /// The committed epoch from now on.
        epoch: Option<Arc<Epoch>>,
        /// What that epoch is for.
        change: Option<RingChange>,
        /// What it replaces.
        resource_version: String,
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
    /// Ask for a larger volume.
    GrowClaim {
        /// The claim's name.
        name: String,
        /// The incarnation that was observed.
        uid: String,
        /// The size.
        size: String,
    },
    /// Delete the StatefulSet and leave its pods running, so that it can be made again.
    OrphanPods {
        /// Its name.
        name: String,
        /// The incarnation that was observed.
        uid: String,
    },
    /// Write on a volume claim whose disk is on it.
    MarkClaim {
        /// Its name.
        name: String,
        /// The incarnation that was observed.
        uid: String,
        /// The disk that its pod's node found.
        disk: DiskMark,
    },
    /// Delete a volume claim whose disk nobody needs.
    DeleteClaim {
        /// Its name.
        name: String,
        /// The incarnation that was observed.
        uid: String,
        /// Why nobody does.
        why: &'static str,
    },
    /// Delete a pod whose volume claim is gone, so that it comes back with a new one.
    RenewPod {
        /// Its name.
        name: String,
        /// The incarnation that was observed.
        uid: String,
        /// Without waiting for its machine, which is dead.
        now: bool,
    },
}

impl Action {
    /// Whether the ring, or a node, is not what it was before for a while: one such action at a time (INV-ONE).
    pub fn is_disruptive(&self) -> bool {
        match self {
            Self::ReplaceRing { .. }
            | Self::DeletePod { .. }
            | Self::DeleteClaim { .. }
            | Self::RenewPod { .. }
            | Self::OrphanPods { .. } => true,
            Self::CreateSecret
            | Self::CreateRing { .. }
            | Self::Apply(_)
            | Self::PushEpoch { .. }
            | Self::MarkClaim { .. }
            | Self::GrowClaim { .. } => false,
        }
    }
}

/// Why a pod is deleted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Deletion {
    /// It cannot run, and its template was corrected since.
    Stuck,
    /// Its template has changed, and the ring can miss it.
    Rolling,
}

/// What an epoch is for. Stored beside it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RingChange {
    /// It is the first.
    FirstEpoch,
    /// It was lost, and the nodes had it.
    Recovered,
    /// New members.
    ScaleUp,
    /// Members leave.
    ScaleDown,
    /// Members that had left are fenced.
    Removed,
    /// Members that were leaving stay.
    Cancelled,
    /// A member that was lost for good is fenced, and a new one takes its place.
    Replaced,
    /// The same, and what only it held is given up.
    DataLossAccepted,
}

impl RingChange {
    const ALL: [Self; 8] = [
        Self::FirstEpoch,
        Self::Recovered,
        Self::ScaleUp,
        Self::ScaleDown,
        Self::Removed,
        Self::Cancelled,
        Self::Replaced,
        Self::DataLossAccepted,
    ];
}

impl std::fmt::Display for RingChange {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        std::fmt::Debug::fmt(self, f)
    }
}

impl std::str::FromStr for RingChange {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        Self::ALL.into_iter().find(|change| change.to_string() == text).ok_or(())
    }
}

#[cfg(test)]
mod tests {
    use super::RingChange;

    #[test]
    fn what_an_epoch_is_for_is_read_as_it_is_written() {
        for change in RingChange::ALL {
            assert_eq!(change.to_string().parse(), Ok(change));
        }
        assert_eq!("Other".parse::<RingChange>(), Err(()));
    }
}
