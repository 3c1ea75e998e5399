//! `INV-BOUND`: what a node keeps in memory for others stays bounded, and goes when it is done.

use quorate_core::limits::FACTOR_MAX;

use crate::history::{Verdict, Violation};
use crate::scenario::Scenario;

/// Calls of background work: claims, epochs, exchanges, hand-offs, collections, a few a member.
const CALLS_MEMBER_MAX: usize = 600;
/// Repairs after reads that a node has at most.
const REPAIRS_MAX: usize = 1024;
/// What may be going on while nobody asks for anything, a member.
const IDLE_MEMBER_MAX: usize = 16;

/// After any step of a node.
pub(crate) fn in_progress(scenario: &Scenario, members: usize, in_progress: usize) -> Verdict {
    let parts = 2 * usize::from(FACTOR_MAX);
    let operations = scenario.operations_max * (1 + parts);
    let repairs = REPAIRS_MAX * (1 + parts);
    let max = operations + repairs + members * CALLS_MEMBER_MAX;
    if in_progress <= max {
        return Ok(());
    }
    Err(Violation::new(
        "INV-BOUND",
        format!("{in_progress} operations and calls in progress, more than {max}"),
    ))
}

/// At the end, when clients were silent for long.
pub(crate) fn idle(members: usize, in_progress: usize) -> Verdict {
    if in_progress <= members * IDLE_MEMBER_MAX {
        return Ok(());
    }
    let what = format!("{in_progress} operations and calls are in progress, though nobody asks for anything");
    Err(Violation::new("INV-BOUND", what))
}
