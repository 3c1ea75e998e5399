//! `INV-OVERLAP` while partitions change hands: who says that it has everything has it, and an epoch ends when no read
//! quorum of it can form.

use std::sync::Arc;

use quorate_core::NodeId;
use quorate_core::ring::{Epoch, Partition};

use crate::history::{OpId, Verdict, Violation};

/// A node that gained a partition told that it has every write that older epochs acknowledged, and lacks one.
pub(crate) fn lacks(machine: usize, partition: Partition, newest: u64, write: OpId) -> Violation {
    let what = format!(
        "n{machine} says that it has synced {partition:?} in epoch {newest}, and lacks #{write}, which was acknowledged before"
    );
    Violation::new("INV-OVERLAP", what)
}

/// A node goes by an epoch no more: fewer than R owners of each partition still answer reads by it.
pub(crate) fn retired(
    machine: usize,
    epoch: &Epoch,
    later: &[Arc<Epoch>],
    refuses: impl Fn(NodeId, Partition) -> bool,
) -> Verdict {
    let replication = epoch.replication();
    for partition in epoch.partitions().iter() {
        let owners = || epoch.owners(partition).map(|owner| owner.id);
        let same = |later: &Arc<Epoch>| owners().all(|owner| later.owns(owner, partition));
        if later.iter().any(same) {
            continue; // Reads by it meet the same owners as those by an epoch that is live, whose own end is looked at.
        }
        let reading = owners().filter(|owner| !refuses(*owner, partition)).count();
        if reading >= usize::from(replication.read_quorum) {
            let number = epoch.number();
            let what = format!(
                "n{machine} has retired epoch {number}, and {reading} owners of {partition:?} answer reads by it"
            );
            return Err(Violation::new("INV-OVERLAP", what));
        }
    }
    Ok(())
}
