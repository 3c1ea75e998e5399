//! How the ring changes in a run: what the operator is asked for and when, and how well it and the nodes hear each other.

use std::time::Duration;

use crate::dice::Dice;
use crate::scenario::SAFETY;

/// The first change comes after this.
const BEGIN: Duration = Duration::from_secs(3);
/// The most machines.
pub(crate) const MACHINES_MAX: usize = 10;

/// What is drawn about changes of the ring.
#[derive(Clone, Debug, Default)]
pub(crate) struct RingPlan {
    /// Machines that are no members at the start.
    pub(crate) spares: usize,
    pub(crate) changes: Vec<Change>,
    /// How long a member is lost before it is replaced.
    pub(crate) replace_after: Duration,
    /// Per thousand of the members that are not told of an epoch, while things go wrong.
    pub(crate) untold_per_mille: u64,
    /// How late the others may be told.
    pub(crate) told_within: Duration,
    /// Per thousand of the operator's questions that are not answered.
    pub(crate) unanswered_per_mille: u64,
}

/// A wish for another ring.
#[derive(Clone, Debug)]
pub(crate) struct Change {
    pub(crate) at: Duration,
    pub(crate) kind: ChangeKind,
    /// For what is drawn when it happens.
    pub(crate) dice: u64,
}

/// What is wished for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum ChangeKind {
    /// Machines with empty disks join.
    Grow { count: usize },
    /// Members begin to leave.
    Shrink { count: usize },
    /// Whoever is leaving stays.
    Cancel,
    /// A member is given up without proof, as one that was down for too long; its process may live on.
    Evict,
}

impl RingPlan {
    /// The plan of a seed in which the ring stays as it is.
    pub(crate) fn none() -> Self {
        Self::default()
    }

    /// A plan for a ring of so many machines, of which at least `factor` are members at the start.
    pub(crate) fn draw(dice: &mut Dice, machines: usize, factor: usize) -> Self {
        let spares = dice.between(1, 3.min(machines - factor) as u64) as usize;
        let replace_after = dice.time(Duration::from_millis(500), Duration::from_secs(15));
        let mut plan = Self {
            spares,
            changes: Vec::new(),
            replace_after,
            untold_per_mille: dice.pick(&[0, 250, 600]),
            told_within: Duration::from_millis(dice.pick(&[50, 500, 6000])),
            unanswered_per_mille: dice.pick(&[0, 50, 300]),
        };
        let mut at = dice.time(BEGIN, BEGIN + Duration::from_secs(5));
        for _ in 0..dice.pick(&[1, 2, 4, 8]) {
            let dice = &mut dice.fork();
            let kind = draw_kind(dice);
            plan.changes.push(Change { at, kind, dice: dice.roll() });
            // Often so soon that it overtakes the one before.
            let most = if dice.chance(500) { 1500 } else { 9000 };
            at += dice.time(Duration::from_millis(50), Duration::from_millis(most));
        }
        plan.changes.retain(|change| change.at < SAFETY);
        plan
    }

    /// A plan of changes that somebody wishes for and nothing disturbs: nobody is given up, and members hear of an epoch soon,
    /// if not from the operator, then from each other.
    pub(crate) fn draw_calm(dice: &mut Dice, machines: usize, factor: usize) -> Self {
        let mut plan = Self::draw(dice, machines, factor);
        plan.changes.retain(|change| change.kind != ChangeKind::Evict);
        plan.untold_per_mille = plan.untold_per_mille.min(250);
        plan.told_within = plan.told_within.min(Duration::from_millis(500));
        plan
    }

    /// Whether the ring changes at all.
    pub(crate) fn is_live(&self) -> bool {
        self.spares > 0
    }
}

fn draw_kind(dice: &mut Dice) -> ChangeKind {
    match dice.below(100) {
        0..35 => ChangeKind::Grow { count: dice.between(1, 2) as usize },
        35..70 => ChangeKind::Shrink { count: dice.pick(&[1, 1, 1, 2]) },
        70..88 => ChangeKind::Cancel,
        _ => ChangeKind::Evict,
    }
}
