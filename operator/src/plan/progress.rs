//! How far the committed epoch is, as far as anybody says. Unknown is never done (INV-PROOF).

use super::view::View;
use super::{Plan, Reason, names};

/// What the members say of the committed epoch.
pub(super) struct Progress<'a> {
    number: u64,
    /// Nodes that hold an epoch that is not committed.
    pub(super) ahead: Vec<&'a str>,
    /// Members that do not hold the committed epoch yet.
    pub(super) behind: Vec<&'a str>,
    /// Members whose program says nothing of a change of the ring.
    mute: Vec<&'a str>,
    /// Members that have something left to do.
    unsettled: Vec<&'a str>,
    /// The oldest epoch that is live on a member.
    oldest: u64,
    /// Partitions of which too few owners answer to know anything.
    unheard: usize,
}

impl<'a> Progress<'a> {
    pub(super) fn of(view: View<'a>) -> Self {
        let mark = view.epoch.mark();
        let holds = |status: &quorate_admin::types::NodeStatus| status.epoch == Some(mark);
        let ahead = view.answers().filter(|(_, status)| {
            status.epoch.is_some_and(|held| held != mark && held.number >= mark.number)
        });
        let names = |chosen: &dyn Fn(&quorate_admin::types::NodeStatus) -> bool| {
            let chosen = view.answering().filter(|(_, status)| chosen(status));
            chosen.map(|(member, _)| member.name.as_str()).collect::<Vec<_>>()
        };
        let up_to_date = view.answering().filter(|(_, status)| holds(status));
        Self {
            number: mark.number,
            ahead: ahead.map(|(pod, _)| pod.name.as_str()).collect(),
            behind: names(&|status| !holds(status)),
            mute: names(&|status| holds(status) && status.transition.newest_epoch != mark.number),
            unsettled: names(&|status| holds(status) && !status.transition.is_settled()),
            oldest: up_to_date.map(|(_, status)| status.transition.oldest_epoch).min().unwrap_or(0),
            unheard: view.short(|_, status| holds(status)),
        }
    }

    /// Whether everybody who answers holds the committed epoch, and enough answer.
    pub(super) fn is_heard(&self) -> bool {
        self.ahead.is_empty() && self.behind.is_empty() && self.unheard == 0
    }

    /// Whether nothing of the change is left to do.
    pub(super) fn is_done(&self) -> bool {
        self.is_heard() && self.mute.is_empty() && self.unsettled.is_empty() && self.oldest == self.number
    }

    /// Whether the next epoch may be committed: at most three are live at a time. `despite_silence`: a person gave up
    /// what the silent ones know. Says what holds it up.
    pub(super) fn may_go_on(&self, despite_silence: bool, plan: &mut Plan) -> bool {
        // Who is ahead or behind is said where epochs are pushed.
        if !self.ahead.is_empty() || !self.behind.is_empty() {
            return false;
        }
        if !self.mute.is_empty() {
            let mute = names(self.mute.iter().copied());
            plan.find(
                Reason::NodesTooOld,
                format!(
                    "{mute} run a version that cannot change the ring: bring all nodes to this version first"
                ),
            );
            return false;
        }
        if self.unheard > 0 && !despite_silence {
            plan.find(
                Reason::TooFewAnswers,
                format!(
                    "too few owners of {} partitions answer to know how far epoch {} is: the next change waits for them",
                    self.unheard, self.number
                ),
            );
            return false;
        }
        if self.oldest.saturating_add(1) < self.number {
            plan.find(
                Reason::TooManyEpochs,
                format!(
                    "epochs {} to {} are live, and three is the most: the next change waits until {} ends",
                    self.oldest, self.number, self.oldest
                ),
            );
            return false;
        }
        true
    }

    /// Says what is still to be done.
    pub(super) fn say(&self, view: View<'_>, plan: &mut Plan) {
        if !self.is_heard() || !self.mute.is_empty() || self.is_done() {
            return;
        }
        let change = view.object.change.map(|change| format!(" ({change})")).unwrap_or_default();
        let number = self.number;
        let message = if self.unsettled.is_empty() {
            format!("epoch {number}{change}: epoch {} is not over yet", self.oldest)
        } else {
            let unsettled = names(self.unsettled.iter().copied());
            format!("epoch {number}{change}: data moves; {unsettled} are not done")
        };
        plan.find(Reason::MovingData, message);
    }
}
