//! Members that are gone for good: replaced on evidence from both sides, one at a time, and never where an interlock
//! holds. What a person gives up by name is no automatism: it passes what keeps the operator from acting by itself (the
//! breaker, the order, `autoReplace`) and what is about the data, but never the evidence.

use std::collections::BTreeSet;

use quorate_core::NodeId;
use quorate_core::ring::{Member, MemberState};

use super::change::{Step, with_states};
use super::evidence::{Kubernetes, Suspect};
use super::progress::Progress;
use super::view::View;
use super::{Plan, Reason, RingChange, disks, members, names as list, reach};
use crate::build::names;
use crate::observe::Machine;

/// Whether a member that left and does not answer never will.
pub(super) fn is_gone(view: View<'_>, member: &Member) -> bool {
    Suspect::of(view, member).is_some_and(|suspect| suspect.is_gone(view))
}

/// The disk that the annotation names is given up: it is `lost`, and nobody waits for what only it held.
pub(super) fn give_up(view: View<'_>, progress: &Progress<'_>, plan: &mut Plan) -> Option<Step> {
    let text = view.cluster.accept_data_loss.as_ref()?;
    let refused = |why: &str| format!("{}: {text} {why}", names::ACCEPT_DATA_LOSS_ANNOTATION);
    let Some(member) = text.parse::<NodeId>().ok().and_then(|id| view.epoch.member(id)) else {
        plan.find(
            Reason::DataLossRefused,
            refused("is no member of the ring: write the nodeId of one that status.members lists"),
        );
        return None;
    };
    if !member.state.takes_part() {
        return None; // Done.
    }
    let suspect = Suspect::of(view, member).filter(|suspect| suspect.peers.agree());
    let Some(suspect) = suspect else {
        plan.find(
            Reason::DataLossRefused,
            refused("is alive, or its peers do not call it down: nothing of it is given up"),
        );
        return None;
    };
    if !suspect.is_gone(view) {
        say_what_is_missing(&suspect, view, plan);
        return None;
    }
    let has_room = view.in_state(MemberState::Active).filter(|other| other.id != member.id).count()
        >= usize::from(view.epoch.replication().factor);
    let is_leaving = member.state == MemberState::Leaving;
    if suspect.other.is_none() && (has_room || is_leaving) {
        return Some(epoch_without(member, MemberState::Lost, None, view));
    }
    make_way(&suspect, MemberState::Lost, view, progress, plan)
}

/// The member that was lost for good is replaced by the empty disk in its place; where there is none, one is made.
pub(super) fn replace(view: View<'_>, progress: &Progress<'_>, plan: &mut Plan) -> Option<Step> {
    let wanted = view.members().filter(|member| view.is_wanted(member));
    let down: Vec<Suspect<'_>> = wanted.filter_map(|member| Suspect::of(view, member)).collect();
    if !view.cluster.auto_replace {
        say_that_nothing_is_replaced(&down, plan);
        return None;
    }
    // One that may come back holds no other up.
    let (mut gone, others): (Vec<_>, Vec<_>) = down.into_iter().partition(|suspect| suspect.is_gone(view));
    others.iter().for_each(|suspect| say_what_is_missing(suspect, view, plan));
    // What has begun is ended first: the new disk that is there, and the old one that is gone already.
    gone.sort_by_key(|suspect| {
        let name = &suspect.member.name;
        (suspect.other.is_none(), suspect.kubernetes != Kubernetes::DiskGone, name.len(), name)
    });
    let (first, waiting) = gone.split_first()?;
    if !waiting.is_empty() {
        let waiting = list(waiting.iter().map(|suspect| suspect.member.name.as_str()));
        plan.find(
            Reason::OneAtATime,
            format!("{waiting} are lost too: {} is replaced first", first.member.name),
        );
    }
    let interlocks = [one_at_a_time, zones, quorum];
    if !interlocks.iter().all(|passes| passes(first, view, progress, plan)) {
        return None;
    }
    make_way(first, MemberState::Removed, view, progress, plan)
}

/// What the evidence lacks. Where Kubernetes has nothing to say, that the member is silent is said elsewhere, and why.
fn say_what_is_missing(suspect: &Suspect<'_>, view: View<'_>, plan: &mut Plan) {
    let name = &suspect.member.name;
    let Some(due) = suspect.since(view) else { return };
    if due > view.observed.now {
        plan.find(
            Reason::MemberDown,
            format!(
                "{name} is down: it counts as lost for good if it still is at {due} (failure.permanentAfter)"
            ),
        );
        return;
    }
    let (down, asked) = (suspect.peers.down, suspect.peers.asked);
    plan.find(
        Reason::PeersDisagree,
        format!(
            "{name} looks lost to Kubernetes, and {down} of the {asked} members that answer call it down: it is replaced when \
             more than half of them do"
        ),
    );
}

fn one_at_a_time(suspect: &Suspect<'_>, view: View<'_>, progress: &Progress<'_>, plan: &mut Plan) -> bool {
    let replaces = matches!(view.object.change, Some(RingChange::Replaced | RingChange::DataLossAccepted));
    if !replaces || progress.is_done() {
        return true;
    }
    let name = &suspect.member.name;
    plan.find(
        Reason::OneAtATime,
        format!("{name} is replaced when the replacement before it is whole (epoch {})", view.epoch.number()),
    );
    false
}

/// The breaker: where members of more than one zone look lost together, the fault is more likely between the zones.
fn zones(suspect: &Suspect<'_>, view: View<'_>, _: &Progress<'_>, plan: &mut Plan) -> bool {
    let suspects = view.members().filter_map(|member| Suspect::of(view, member));
    let down: Vec<Suspect<'_>> = suspects.filter(|suspect| suspect.peers.agree()).collect();
    let zones: BTreeSet<Option<&str>> = down.iter().map(|suspect| suspect.member.zone.as_deref()).collect();
    if zones.len() <= 1 {
        return true;
    }
    let names = list(down.iter().map(|suspect| suspect.member.name.as_str()));
    plan.find(
        Reason::ZonesDown,
        format!(
            "{names} of {} zones are down together: nothing is replaced by itself until at most one zone is concerned. If \
             {} is lost for good, say so: {}: {}",
            zones.len(),
            suspect.member.name,
            names::ACCEPT_DATA_LOSS_ANNOTATION,
            suspect.member.id
        ),
    );
    false
}

/// Never where a partition would keep too few owners that are up and whole: what it held may be nowhere else.
fn quorum(suspect: &Suspect<'_>, view: View<'_>, _: &Progress<'_>, plan: &mut Plan) -> bool {
    // The suspect does not answer, so that nobody counts it.
    let short = view.short(|_, status| view.is_whole(status));
    if short == 0 {
        return true;
    }
    let (name, id) = (&suspect.member.name, suspect.member.id);
    plan.find(
        Reason::QuorumAtRisk,
        format!(
            "without {name}, {short} partitions have fewer than {} owners that are up and have all of their data: it is not \
             replaced until more of them are back. If what only it held may be given up, say so: {}: {id}",
            view.quorum(),
            names::ACCEPT_DATA_LOSS_ANNOTATION
        ),
    );
    false
}

/// The empty disk in its place becomes a member, in the epoch that removes the lost one; or its place is emptied.
fn make_way(
    suspect: &Suspect<'_>,
    state: MemberState,
    view: View<'_>,
    progress: &Progress<'_>,
    plan: &mut Plan,
) -> Option<Step> {
    let name = &suspect.member.name;
    if let Some((pod, status)) = suspect.other {
        let comer = match members::newcomer(view, pod, status) {
            Ok(comer) => comer,
            Err(finding) => {
                plan.findings.push(finding);
                return None;
            }
        };
        if let [unreached, ..] = reach::unreached(view, &[(pod, status)]).as_slice() {
            plan.find(
                Reason::WaitingForNodes,
                format!(
                    "the new disk of {name} takes its place when every node that answers reaches {unreached}"
                ),
            );
            return None;
        }
        return Some(epoch_without(suspect.member, state, Some(comer), view));
    }
    plan.find(
        Reason::NewDisk,
        format!("{name} is lost for good: it comes back as a new node, with an empty disk"),
    );
    let pod = suspect.pod?;
    let another_goes = view.observed.pods.iter().any(|other| other.terminating && other.name != pod.name);
    let machine_is_dead = matches!(pod.machine_state, Machine::NotReady | Machine::Gone);
    // The places of the others must be known to be well before something is deleted.
    let is_known = progress.behind.is_empty();
    if another_goes || !is_known { None } else { disks::empty(view, pod, machine_is_dead) }
}

fn epoch_without(lost: &Member, state: MemberState, comer: Option<Member>, view: View<'_>) -> Step {
    let members = with_states(view, |member| (member.id == lost.id).then_some(state));
    let change = match state {
        MemberState::Lost => RingChange::DataLossAccepted,
        _ => RingChange::Replaced,
    };
    Step::Epoch { members: members.into_iter().chain(comer).collect(), change }
}

fn say_that_nothing_is_replaced(down: &[Suspect<'_>], plan: &mut Plan) {
    let with_new_disks = down.iter().filter_map(|suspect| Some((suspect.member, suspect.other?.1)));
    for (member, status) in with_new_disks {
        plan.find(
            Reason::UnknownDisk,
            format!(
                "{} has a new disk ({}), and the ring names the old one ({}): put the old volume back, or write \
                 failure.autoReplace: true",
                member.name, status.identity.node_id, member.id
            ),
        );
    }
}
