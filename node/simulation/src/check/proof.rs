//! `INV-PROOF`: a member that lost a partition deletes it only when every new owner has all of it: each value, or what
//! replaced it. (A tombstone may have been collected meanwhile, by who had heard of no change.)

use quorate_core::NodeId;
use quorate_core::causality::VersionSet;
use quorate_core::ring::Partition;

use crate::history::{Verdict, Violation};

/// A key of a partition that is being deleted, and what a new owner has of it.
pub(crate) fn has(
    machine: usize,
    partition: Partition,
    ours: &VersionSet,
    owner: NodeId,
    theirs: &VersionSet,
) -> Verdict {
    let mut values = ours.versions().iter().filter(|version| version.value.is_some());
    if values.all(|version| theirs.context().covers(version.dot)) {
        return Ok(());
    }
    let what =
        format!("n{machine} deletes {partition:?}, and its owner {owner} has {theirs:?} instead of {ours:?}");
    Err(Violation::new("INV-PROOF", what))
}
