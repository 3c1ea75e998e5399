//! `INV-EPOCH`: a number stands for one epoch, and what a node goes by, and tells of itself, is on its disk.

use std::sync::Arc;

use quorate_core::ring::Epoch;
use quorate_core::transition::{Chain, Remembered, Transition};

use crate::history::{Verdict, Violation};

/// The epochs that a node holds are those that were committed.
pub(crate) fn committed(machine: usize, chain: &Chain, log: &[Arc<Epoch>]) -> Verdict {
    let is_committed = |epoch: &&Arc<Epoch>| log.iter().any(|committed| committed.mark() == epoch.mark());
    match chain.epochs().iter().find(|epoch| !is_committed(epoch)) {
        Some(epoch) => {
            let what = format!("n{machine} goes by epoch {}, which was never committed", epoch.number());
            Err(Violation::new("INV-EPOCH", what))
        }
        None => Ok(()),
    }
}

/// What a node goes by would be there after a crash.
pub(crate) fn kept(machine: usize, state: &Transition, kept: Option<&Remembered>) -> Verdict {
    let newest = state.newest().number();
    let is_kept = kept.is_some_and(|kept| {
        kept.chain.newest().number() >= newest && !kept.marks.clone().merge(state.ours())
    });
    if is_kept {
        return Ok(());
    }
    let what = format!("n{machine} goes by epoch {newest} and {:?}, on its disk is {kept:?}", state.ours());
    Err(Violation::new("INV-EPOCH", what))
}
