//! The next epoch, or why there is none.
//!
//! [`next`] shows the order: what is lost for good comes first, then what ends a change that began, then what begins
//! one. At most one step a pass (INV-ONE), each an epoch that is committed and pushed by a later pass (INV-EPOCH), or
//! the deletion of one object.

use std::sync::Arc;

use quorate_core::limits::MEMBERS_MAX;
use quorate_core::ring::planner::PlanError;
use quorate_core::ring::{EpochError, Member, MemberState, planner};

use super::progress::Progress;
use super::view::View;
use super::{Action, Finding, Plan, Reason, RingChange, disks, failure, members, ring};

/// What may be done next.
pub(super) enum Step {
    /// Commit an epoch with these members.
    Epoch { members: Vec<Member>, change: RingChange },
    /// Make room for a new disk.
    Disk(Action),
}

pub(super) fn next(view: View<'_>, progress: &Progress<'_>, plan: &mut Plan) {
    if !progress.ahead.is_empty() {
        // The ConfigMap is older than the ring: whatever follows from it is wrong.
        return;
    }
    if let Some(step) = failure::give_up(view, progress, plan) {
        // What the silent ones know is given up, too.
        take(step, true, view, progress, plan);
        return;
    }
    let step = failure::replace(view, progress, plan)
        .or_else(|| members::reactivate(view))
        .or_else(|| members::remove(view, progress, plan))
        .or_else(|| members::join(view, plan))
        .or_else(|| members::leave(view, plan))
        .or_else(|| disks::renew(view, plan));
    match step {
        Some(step) => take(step, false, view, progress, plan),
        None => disks::sweep(view, progress, plan),
    }
    progress.say(view, plan);
}

fn take(step: Step, despite_silence: bool, view: View<'_>, progress: &Progress<'_>, plan: &mut Plan) {
    if !progress.may_go_on(despite_silence, plan) {
        return;
    }
    match step {
        Step::Disk(action) => plan.actions.push(action),
        Step::Epoch { members, change } => {
            match planner::next(view.epoch, members, view.epoch.replication()) {
                Ok(epoch) => ring::commit(view.object, Arc::new(epoch), change, plan),
                Err(error) => plan.findings.push(unplanned(&error, view)),
            }
        }
    }
}

/// A removed member stays named, so that nobody mistakes it for a new one when it is back (INV-FENCE): each replacement
/// takes a place for good.
fn unplanned(error: &PlanError, view: View<'_>) -> Finding {
    let number = view.epoch.number() + 1;
    let PlanError::Epoch(EpochError::MemberCount { .. }) = error else {
        let message = format!("epoch {number} cannot be planned: {error}");
        return Finding { reason: Reason::PlanFailed, message };
    };
    let (named, gone) = (view.epoch.members().len(), view.epoch.members().len() - view.members().count());
    let message = format!(
        "the ring names {named} members, {gone} of them removed for good, and has room for {MEMBERS_MAX}: nobody joins and \
         nobody is replaced any more. Move the data to a new KVCluster"
    );
    Finding { reason: Reason::TooManyMembers, message }
}

/// All members, some of them in another state.
pub(super) fn with_states(view: View<'_>, state: impl Fn(&Member) -> Option<MemberState>) -> Vec<Member> {
    let changed = |member: &Member| Member { state: state(member).unwrap_or(member.state), ..member.clone() };
    view.epoch.members().iter().map(changed).collect()
}
