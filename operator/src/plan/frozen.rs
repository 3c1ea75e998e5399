//! What cannot change any more. A change is put back, and said to be refused: nothing is done by half.

use super::{Finding, Reason, quantity};
use crate::observe::{Observed, RingObject, RingState};
use crate::validate::ValidatedCluster;

/// The cluster with what cannot change put back to what is, and a word for each thing that was put back.
pub(super) fn settle(cluster: &ValidatedCluster, observed: &Observed) -> (ValidatedCluster, Vec<Finding>) {
    let mut settled = cluster.clone();
    let mut findings = Vec::new();
    let mut refuse = |what: String| {
        let message =
            format!("{what}; this version of the operator cannot change it, and nothing was changed");
        findings.push(Finding { reason: Reason::ChangeNotSupported, message });
    };
    if let Some((wanted, found)) = smaller_volumes(cluster, observed) {
        refuse(format!("storage.size is {wanted}, the volumes have {found} and cannot shrink"));
        settled.storage.size = found;
    }
    if let RingState::Present(RingObject { epoch: Some(epoch), .. }) = &observed.ring {
        let fixed = epoch.replication();
        if cluster.replication != fixed {
            refuse(format!(
                "replication is factor {}, readQuorum {}, writeQuorum {}, the ring was made with {}, {} and {}",
                cluster.replication.factor,
                cluster.replication.read_quorum,
                cluster.replication.write_quorum,
                fixed.factor,
                fixed.read_quorum,
                fixed.write_quorum
            ));
            settled.replication = fixed;
        }
        let partitions = epoch.partitions().get();
        if cluster.partitions != partitions {
            refuse(format!("ring.partitions is {}, the ring has {partitions}", cluster.partitions));
            settled.partitions = partitions;
        }
    }
    (settled, findings)
}

/// The wanted and the existing size, where the wanted one is less.
fn smaller_volumes(cluster: &ValidatedCluster, observed: &Observed) -> Option<(String, String)> {
    let templates = observed.existing.stateful_set.as_ref()?.spec.volume_claim_templates.as_ref()?;
    let requests = templates.first()?.spec.as_ref()?.resources.as_ref()?.requests.as_ref()?;
    let found = requests.get("storage")?.0.clone();
    let wanted = cluster.storage.size.clone();
    quantity::is_less(&wanted, &found).then_some((wanted, found))
}
