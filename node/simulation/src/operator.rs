//! The operator: keeps the log of epochs, alone, and changes the ring by the rules of the real one.
//!
//! It commits an epoch before it tells anybody. Some members are told late, some never: they hear of it from the others.
//! It commits the next one when every member that answers holds the newest, enough owners of each partition do, and no more
//! epochs would be live than may be. Whoever leaves is removed when the members' answers prove that nothing is left on it. When faults are over it
//! begins nothing new, finishes what it began, and replaces whoever is gone.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use quorate_core::NodeId;
use quorate_core::membership::{MemberView, State};
use quorate_core::ring::{Epoch, Member, MemberState, Partition, planner};
use quorate_core::transition::LIVE_MAX;
use quorate_replica::{AdoptError, RingStatus};

use crate::changes::{Change, ChangeKind};
use crate::dice::Dice;
use crate::history::{Verdict, Violation};
use crate::scenario::END;
use crate::world::{Event, Input, World, address, machine_at, zone};

/// How often it looks.
const INTERVAL: Duration = Duration::from_millis(200);
/// How often members that lack an epoch are told again.
const PUSH_INTERVAL: Duration = Duration::from_millis(700);
/// In calm runs clients are led to members that leave for so long.
const LEAVERS_SERVE: Duration = Duration::from_millis(1500);
/// And they are removed after this: what they were asked by then is answered.
const LEAVERS_STAY: Duration = Duration::from_secs(4);
/// How long the machine of a removed member takes to come back with an empty disk, in calm runs.
const RENEWED_AFTER: Duration = Duration::from_millis(500);
/// Epochs that may be live after a change that somebody wished for; whoever is lost is replaced beyond that.
const WISHED_LIVE_MAX: u64 = 3;

pub(crate) struct Operator {
    /// Every epoch, the first one first.
    log: Vec<Arc<Epoch>>,
    /// When the newest one was committed.
    committed_at: Duration,
    dice: Dice,
    /// Wishes that were looked at.
    begun: usize,
    /// When a member was first seen to be gone.
    gone_since: BTreeMap<NodeId, Duration>,
}

impl Operator {
    pub(crate) fn new(first: Epoch, seed: u64) -> Self {
        Self {
            log: vec![Arc::new(first)],
            committed_at: Duration::ZERO,
            dice: Dice::new(seed),
            begun: 0,
            gone_since: BTreeMap::new(),
        }
    }

    pub(crate) fn log(&self) -> &[Arc<Epoch>] {
        &self.log
    }

    pub(crate) fn newest(&self) -> &Arc<Epoch> {
        self.log.last().expect("there is a first epoch")
    }

    /// The epoch with this number, if it was ever committed.
    pub(crate) fn epoch(&self, number: u64) -> Option<&Arc<Epoch>> {
        self.log.get(usize::try_from(number.checked_sub(1)?).ok()?)
    }

    /// Whether the newest epoch names a node as one that takes part.
    pub(crate) fn takes_part(&self, node: NodeId) -> bool {
        self.newest().member(node).is_some_and(|member| member.state.takes_part())
    }

    /// Whether a node is a member that stays, or began to leave only now.
    pub(crate) fn leads_clients_to(&self, node: NodeId, now: Duration) -> bool {
        self.newest().member(node).is_some_and(|member| match member.state {
            MemberState::Active => true,
            MemberState::Leaving => now < self.committed_at + LEAVERS_SERVE,
            _ => false,
        })
    }

    /// Whoever owned a partition in any epoch.
    pub(crate) fn owners_ever(&self, partition: Partition) -> BTreeSet<NodeId> {
        self.log.iter().flat_map(|epoch| epoch.owners(partition)).map(|owner| owner.id).collect()
    }
}

/// Whether a node owns any partition.
pub(crate) fn owns_anything(epoch: &Epoch, node: NodeId) -> bool {
    epoch.partitions().iter().any(|partition| epoch.owns(node, partition))
}

/// A machine as a member.
pub(crate) fn member(id: NodeId, machine: usize) -> Member {
    Member {
        id,
        name: format!("n{machine}"),
        address: address(machine),
        zone: Some(zone(machine)),
        weight: 1,
        state: MemberState::Active,
    }
}

/// Whether enough owners of each partition answer: every read quorum meets them, and they are enough to end an older epoch.
fn is_heard(epoch: &Epoch, answers: &BTreeMap<NodeId, RingStatus>) -> bool {
    let replication = epoch.replication();
    let needed = usize::from(replication.read_quorum.max(replication.factor + 1 - replication.read_quorum));
    let told = |partition| epoch.owners(partition).filter(|owner| answers.contains_key(&owner.id)).count();
    epoch.partitions().iter().all(|partition| told(partition) >= needed)
}

fn is_active(member: &&Member) -> bool {
    member.state == MemberState::Active
}

/// Looking, and committing.
impl World {
    pub(crate) fn operate(&mut self) -> Verdict {
        if self.now < END {
            self.after(INTERVAL, Event::Operate);
        }
        self.look_for_mended();
        self.look_for_gone();
        let (answers, number) = (self.ask_members(), self.operator.newest().number());
        let is_heard = is_heard(self.operator.newest(), &answers);
        let has_room = |live_max: u64| {
            let fits =
                |status: &RingStatus| status.newest == number && number + 2 <= status.oldest + live_max;
            is_heard && answers.values().all(fits)
        };
        if has_room(LIVE_MAX as u64)
            && let Some(members) = self.without_lost()
        {
            return self.commit_epoch("ring-replace", members);
        }
        if !has_room(WISHED_LIVE_MAX) {
            return Ok(());
        }
        if let Some(members) = self.without_left(&answers) {
            return self.commit_epoch("ring-remove", members);
        }
        match self.next_wish() {
            Some(change) => self.begin_change(change),
            None => Ok(()),
        }
    }

    /// What the members say of the ring; those that are down, or cannot be reached, say nothing.
    fn ask_members(&mut self) -> BTreeMap<NodeId, RingStatus> {
        let epoch = self.operator.newest().clone();
        let mut answers = BTreeMap::new();
        for id in epoch.members().iter().filter(|member| member.state.takes_part()).map(|member| member.id) {
            let unanswered = self.operator.dice.chance(self.scenario.ring.unanswered_per_mille);
            let Some(machine) = self.machine_of(id).map(|at| &self.machines[at]) else { continue };
            let (Some(process), true) = (&machine.process, machine.paused_until <= self.now) else {
                continue;
            };
            if self.is_safe || !unanswered {
                // One that has no epoch yet holds none: its number is 0.
                answers.insert(id, process.replica.ring_status().unwrap_or_default());
            }
        }
        answers
    }

    fn look_for_gone(&mut self) {
        let epoch = self.operator.newest().clone();
        for member in epoch.members().iter().filter(|member| member.state.takes_part()) {
            if self.machine_of(member.id).is_none() {
                self.operator.gone_since.entry(member.id).or_insert(self.now);
            }
        }
    }

    /// The members without those whose disks are gone, and with what their machines are now.
    fn without_lost(&mut self) -> Option<Vec<Member>> {
        let epoch = self.operator.newest().clone();
        let patience = if self.is_safe { Duration::ZERO } else { self.scenario.ring.replace_after };
        let mut members = epoch.members().to_vec();
        let mut fresh = Vec::new();
        for member in members.iter_mut().filter(|member| member.state.takes_part()) {
            let since = self.operator.gone_since.get(&member.id);
            let is_lost = since.is_some_and(|since| self.now - *since >= patience);
            let Some(machine) = machine_at(&member.address).filter(|_| is_lost) else { continue };
            let id = self.machines[machine].documents.node;
            if epoch.member(id).is_none() && self.machines[machine].process.is_some() {
                member.state = MemberState::Removed;
                fresh.push((id, machine));
            }
        }
        let changed = !fresh.is_empty();
        members.extend(fresh.into_iter().map(|(id, machine)| self::member(id, machine)));
        changed.then_some(members)
    }

    /// The members without those that have left, and nothing is left on them.
    fn without_left(&mut self, answers: &BTreeMap<NodeId, RingStatus>) -> Option<Vec<Member>> {
        let epoch = self.operator.newest().clone();
        let number = epoch.number();
        let is_done = |status: &RingStatus| {
            (status.oldest, status.newest, status.unretired, status.syncing) == (number, number, 0, 0)
        };
        let is_too_soon = self.scenario.is_calm && self.now < self.operator.committed_at + LEAVERS_STAY;
        if is_too_soon || !answers.values().all(is_done) {
            return None;
        }
        let mut members = epoch.members().to_vec();
        let leaving = members.iter_mut().filter(|member| member.state == MemberState::Leaving);
        let mut gone = 0;
        for member in leaving {
            let is_empty = answers.get(&member.id).is_some_and(|status| status.leaving == 0);
            if is_empty && self.owes_no_hints(member.id) && (self.is_safe || self.operator.dice.chance(400)) {
                member.state = MemberState::Removed;
                gone += 1;
            }
        }
        (gone > 0).then_some(members)
    }

    fn owes_no_hints(&self, node: NodeId) -> bool {
        let machine = self.machine_of(node).and_then(|at| self.machines[at].process.as_ref());
        machine.is_some_and(|process| {
            process.replica.hints_owed().all(|owed| owed.hints == 0 && owed.bytes == 0)
        })
    }

    fn commit_epoch(&mut self, what: &'static str, members: Vec<Member>) -> Verdict {
        let before = self.operator.newest();
        let epoch = planner::next(before, members, before.replication());
        let epoch = epoch.map_err(|error| Violation::new("liveness", format!("no epoch: {error}")))?;
        *self.faults.entry(what).or_default() += 1;
        self.trace.add(30, epoch.number(), 0, what.as_bytes());
        self.trace.say(|| format!("OPERATOR {what}: epoch {} of {}", epoch.number(), shown(&epoch)));
        self.operator.log.push(Arc::new(epoch));
        self.operator.committed_at = self.now;
        self.tell_members();
        if self.scenario.is_calm {
            self.renew_removed();
        }
        Ok(())
    }

    /// The machines of removed members come back with empty disks, so that they can join again.
    fn renew_removed(&mut self) {
        let epoch = self.operator.newest().clone();
        for machine in 0..self.machines.len() {
            let id = self.machines[machine].documents.node;
            if epoch.member(id).is_some_and(|member| !member.state.takes_part()) {
                self.stop(machine);
                self.wipe(machine);
                self.after(RENEWED_AFTER, Event::Start { machine });
            }
        }
    }

    /// When each member is told, if at all. One that was removed may be told as well.
    fn tell_members(&mut self) {
        let epoch = self.operator.newest().clone();
        let plan = self.scenario.ring.clone();
        for machine in 0..self.machines.len() {
            let is_member = epoch.member(self.machines[machine].documents.node).is_some();
            let untold = self.operator.dice.chance(plan.untold_per_mille);
            let delay = self.operator.dice.time(Duration::from_millis(1), plan.told_within);
            if is_member && !untold {
                self.after(delay, Event::Tell { machine, epoch: epoch.number() });
            }
        }
    }

    pub(crate) fn tell(&mut self, machine: usize, epoch: u64) -> Verdict {
        if let Some(run) = self.machines[machine].process.as_ref().map(|process| process.run) {
            self.after(
                Duration::from_millis(1),
                Event::Process { machine, run, input: Input::Adopt { epoch } },
            );
        }
        Ok(())
    }

    /// Tells whoever has no epoch; and when faults are over, whoever has not the newest.
    pub(crate) fn push(&mut self) -> Verdict {
        let newest = self.operator.newest().number();
        for machine in 0..self.machines.len() {
            let Some(process) = &self.machines[machine].process else { continue };
            let held = process.replica.epoch().map_or(0, |epoch| epoch.number());
            let takes_part = self.operator.takes_part(self.machines[machine].documents.node);
            let lacks = match self.is_safe && self.scenario.ring.is_live() {
                true => held < newest && takes_part,
                false => held == 0 && newest == 1,
            };
            if lacks {
                self.tell(machine, newest)?;
            }
        }
        if self.now < END {
            self.after(PUSH_INTERVAL, Event::Push);
        }
        Ok(())
    }

    /// What a node says to an epoch that it was told.
    pub(crate) fn adopted(&mut self, machine: usize, result: &Result<impl Sized, AdoptError>) -> Verdict {
        match result {
            Err(error @ AdoptError::Epoch(_)) => {
                let what = format!("n{machine} refuses what was committed: {error:?}");
                Err(Violation::new("INV-EPOCH", what))
            }
            _ => Ok(()),
        }
    }
}

/// What is wished for.
impl World {
    /// The next wish, if its time has come: none when faults are over.
    fn next_wish(&mut self) -> Option<Change> {
        let change = self.scenario.ring.changes.get(self.operator.begun).filter(|_| !self.is_safe)?;
        let due = change.at <= self.now;
        self.operator.begun += usize::from(due);
        due.then(|| change.clone())
    }

    fn begin_change(&mut self, change: Change) -> Verdict {
        let dice = &mut Dice::new(change.dice);
        let (what, members) = match change.kind {
            ChangeKind::Grow { count } => ("ring-grow", self.grown(count, dice)),
            ChangeKind::Shrink { count } => ("ring-shrink", self.shrunk(count, dice)),
            ChangeKind::Cancel => ("ring-cancel", self.with_those_who_leave()),
            ChangeKind::Evict => ("ring-evict", self.evicted(dice)),
        };
        match members {
            Some(members) => self.commit_epoch(what, members),
            None => Ok(()),
        }
    }

    /// Machines join that are no members, those that were removed with other disks.
    fn grown(&mut self, count: usize, dice: &mut Dice) -> Option<Vec<Member>> {
        let epoch = self.operator.newest().clone();
        let mut members = epoch.members().to_vec();
        let mut free: Vec<usize> = (0..self.machines.len())
            .filter(|at| !members.iter().any(|m| m.state.takes_part() && m.address == address(*at)))
            .filter(|at| !self.scenario.is_calm || self.is_reached(*at))
            .collect();
        for _ in 0..count.min(free.len()) {
            let machine = free.swap_remove(dice.below(free.len() as u64) as usize);
            if epoch.member(self.machines[machine].documents.node).is_some() {
                self.stop(machine);
                self.wipe(machine);
            }
            self.after(dice.time(Duration::ZERO, Duration::from_millis(500)), Event::Start { machine });
            members.push(member(self.machines[machine].documents.node, machine));
        }
        (members.len() > epoch.members().len()).then_some(members)
    }

    /// Whether every node has talked to the one on a machine: the real operator asks them before one joins.
    fn is_reached(&self, machine: usize) -> bool {
        let id = self.machines[machine].documents.node;
        let others = self.machines.iter().filter(|other| other.documents.node != id);
        self.machines[machine].process.is_some()
            && others.filter_map(|other| other.process.as_ref()).all(|process| {
                let mut seen = process.replica.members();
                let reached = |view: &MemberView| view.state == State::Up && view.skew_ms.is_some();
                seen.any(|seen| seen.view.node.id == id && reached(&seen.view))
            })
    }

    fn shrunk(&mut self, count: usize, dice: &mut Dice) -> Option<Vec<Member>> {
        let epoch = self.operator.newest();
        let mut members = epoch.members().to_vec();
        let active = members.iter().filter(is_active).count();
        let spare = active.saturating_sub(usize::from(epoch.replication().factor));
        for _ in 0..count.min(spare) {
            let mut active: Vec<&mut Member> = members.iter_mut().filter(|m| is_active(&&**m)).collect();
            let at = dice.below(active.len() as u64) as usize;
            active[at].state = MemberState::Leaving;
        }
        (count.min(spare) > 0).then_some(members)
    }

    /// They stay, but for those whose disks were lost when nobody relied on them any more: they would be missed again.
    fn with_those_who_leave(&mut self) -> Option<Vec<Member>> {
        let mut members = self.operator.newest().members().to_vec();
        let stays =
            |member: &Member| member.state == MemberState::Leaving && !self.losses.contains(member.id);
        let mut leaving: Vec<&mut Member> = members.iter_mut().filter(|member| stays(member)).collect();
        leaving.iter_mut().for_each(|member| member.state = MemberState::Active);
        let any = !leaving.is_empty();
        any.then_some(members)
    }

    /// Gives up a member, if as much may be lost: whoever is away if somebody is, and one of the free machines joins.
    fn evicted(&mut self, dice: &mut Dice) -> Option<Vec<Member>> {
        let epoch = self.operator.newest().clone();
        let active: Vec<NodeId> = epoch.members().iter().filter(is_active).map(|member| member.id).collect();
        let is_away = |id: &NodeId| {
            let machine = self.machine_of(*id).map(|at| &self.machines[at]);
            machine.is_some_and(|m| m.process.is_none() || m.paused_until > self.now)
        };
        let away = active.iter().copied().find(is_away);
        let chosen = away.unwrap_or(active[dice.below(active.len() as u64) as usize]);
        if self.machine_of(chosen).is_none() || !self.may_lose(chosen) {
            return None;
        }
        let mut members = self.grown(1, dice).unwrap_or_else(|| epoch.members().to_vec());
        members.iter_mut().filter(|m| m.id == chosen).for_each(|member| member.state = MemberState::Removed);
        if members.iter().filter(is_active).count() < usize::from(epoch.replication().factor) {
            return None;
        }
        self.losses.add(chosen);
        Some(members)
    }
}

/// The members of an epoch, for people.
fn shown(epoch: &Epoch) -> String {
    let member = |member: &Member| format!("{}={:?}", member.name, member.state);
    epoch.members().iter().map(member).collect::<Vec<_>>().join(" ")
}
