//! `INV-OVERLAP`: a read that begins after a write was acknowledged, where their quorums overlap, returns that write or
//! what replaced it. And `INV-NOZOMBIE`: what such a write deleted is not there.

use std::time::Duration;

use quorate_core::causality::VersionSet;
use quorate_core::ring::Replication;

use crate::history::{History, OpId, Verdict, Violation, When};

/// What decides whether two quorums overlap.
pub(crate) struct Overlap {
    pub(crate) replication: Replication,
    /// So many of a key's owners may have forgotten something.
    pub(crate) forgetful: u8,
    /// Whether the key has changed hands, or an owner lost something to rot and has what N-W+1 others gave it: then the
    /// quorums of the cluster meet, and smaller ones need not.
    pub(crate) was_handed_over: bool,
}

impl Overlap {
    /// Whether a read at so many owners meets what so many had acknowledged.
    fn meets(&self, needed: u8, owners: u8) -> bool {
        let Replication { factor, read_quorum, write_quorum } = self.replication;
        let (needed, owners) = match self.was_handed_over {
            false => (needed, owners),
            true if needed < read_quorum || owners < write_quorum => return false,
            true => (read_quorum, write_quorum),
        };
        u32::from(owners) + u32::from(needed) > u32::from(factor) + u32::from(self.forgetful)
    }
}

/// A read was answered, when `needed` owners had replied.
pub(crate) fn read(
    history: &mut History,
    id: OpId,
    set: &VersionSet,
    needed: u8,
    overlap: &Overlap,
    now: Duration,
) -> Verdict {
    let (key, began) = (history.op(id).key, history.op(id).began);
    history.observe(Some(key), set)?;
    if let Some(refused) = history.refused_in(set) {
        let what = format!("#{refused} was told to be not written, and read #{id} returns it");
        return Err(Violation::new("INV-ACK", what));
    }
    let when = When { began, now };
    history.check_siblings(key, set, when)?;
    for (write, op, owners) in history.acknowledged(key) {
        let before = op.ended.is_some_and(|ended| ended <= began);
        if before && overlap.meets(needed, owners) && !history.reflects(set, write, when) {
            let mut violation = history.lacks(set, write, "INV-OVERLAP");
            violation.what = format!("read #{id} at {needed} after a write at {owners}: {}", violation.what);
            return Err(violation);
        }
    }
    Ok(())
}
