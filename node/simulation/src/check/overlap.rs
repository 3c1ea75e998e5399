//! `INV-OVERLAP`: a read that begins after a write was acknowledged, where their quorums overlap, returns that write or
//! what replaced it. And `INV-NOZOMBIE`: what such a write deleted is not there.

use std::time::Duration;

use quorate_core::causality::VersionSet;

use crate::history::{History, OpId, Verdict, Violation, When};

/// A read was answered. `needed` owners replied, of `factor`; so many of a key's owners may have forgotten something.
pub(crate) fn read(
    history: &mut History,
    id: OpId,
    set: &VersionSet,
    (needed, factor, forgetful): (u8, u8, u8),
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
        let overlap = u32::from(owners) + u32::from(needed) > u32::from(factor) + u32::from(forgetful);
        if before && overlap && !history.reflects(set, write, when) {
            let mut violation = history.lacks(set, write, "INV-OVERLAP");
            violation.what = format!("read #{id} at {needed} after a write at {owners}: {}", violation.what);
            return Err(violation);
        }
    }
    Ok(())
}
