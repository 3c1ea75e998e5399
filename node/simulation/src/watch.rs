//! What must hold of a node at any time, looked at after each of its steps.

use quorate_core::NodeId;
use quorate_core::quorum::QuorumKind;
use std::collections::BTreeMap;

use quorate_core::causality::VersionSet;
use quorate_core::ring::Partition;
use quorate_core::transition::{Bits, Known, Transition};

use crate::check::{amnesia, bound, epoch, handover, proof};
use crate::history::{KeyId, OpId, Outcome, Verdict, When, key_of};
use crate::machine::Process;
use crate::world::World;

/// Keys of a partition that are looked at; more than there are.
const KEYS_MAX: usize = 10_000;

/// How far a node was in a change of the ring when it was last looked at.
#[derive(Clone, PartialEq, Default)]
pub(crate) struct Seen {
    newest: u64,
    oldest: u64,
    told: Option<Known>,
    synced: Bits,
    revision: u64,
    dropping: Option<Partition>,
}

/// What a node held of partitions when it lost them. (What it pulled since is with the owner that it came from.)
pub(crate) type Lost = BTreeMap<Partition, Vec<(KeyId, VersionSet)>>;

impl Seen {
    fn of(process: &Process, state: &Transition) -> Self {
        Self {
            newest: state.newest().number(),
            oldest: state.chain().oldest().number(),
            told: Some(state.ours().known(process.replica.identity().actor.node)),
            synced: state.ours().synced.clone(),
            revision: state.revision(),
            dropping: process.replica.dropping(),
        }
    }
}

impl World {
    pub(crate) fn watch(&mut self, machine: usize) -> Verdict {
        let members = self.machines.len();
        let Some(process) = &self.machines[machine].process else { return Ok(()) };
        bound::in_progress(&self.scenario, members, process.replica.in_progress())?;
        let process_epoch = process.replica.epoch().cloned();
        if process.replica.is_claimed()
            && let Some(restored) = self.machines[machine].restored.take()
        {
            self.forgetful.insert(restored.node);
            self.trace.say(|| format!("n{machine} serves from a disk that went back in time"));
            let epoch = process_epoch.unwrap_or(self.operator.newest().clone());
            amnesia::served(&epoch, &restored)?;
        }
        if self.scenario.ring.is_live() { self.watch_ring(machine) } else { Ok(()) }
    }

    fn watch_ring(&mut self, machine: usize) -> Verdict {
        let at = &self.machines[machine];
        let Some(process) = &at.process else { return Ok(()) };
        let Some(state) = process.replica.ring_state() else { return Ok(()) };
        let (before, now) = (&process.seen, Seen::of(process, state));
        if now == *before {
            return Ok(());
        }
        epoch::kept(machine, state, at.documents.ring.as_ref())?;
        if now.newest > before.newest {
            epoch::committed(machine, state.chain(), self.operator.log())?;
        }
        if before.oldest > 0 {
            self.watch_retired(machine, state, before.oldest..now.oldest)?;
        }
        let known = if now.newest > before.newest { Bits::default() } else { before.synced.clone() };
        for partition in state.newest().partitions().iter().filter(|p| !known.contains(*p)) {
            self.watch_synced(machine, state, partition)?;
        }
        if let Some(partition) = now.dropping.filter(|_| now.dropping != before.dropping) {
            self.watch_dropping(machine, state, partition)?;
        }
        let lost = held_of_lost(process, state);
        if let Some(process) = &mut self.machines[machine].process {
            process.seen = now;
            process.lost = lost;
        }
        Ok(())
    }

    fn watch_retired(&self, machine: usize, state: &Transition, retired: std::ops::Range<u64>) -> Verdict {
        for number in retired {
            let Some(epoch) = self.operator.epoch(number) else { continue };
            let refuses = |owner, partition| self.refuses_reads(owner, partition, number);
            handover::retired(machine, epoch, state.chain().epochs(), refuses)?;
        }
        Ok(())
    }

    /// Whether a node answers no reads that are routed by an epoch, as far as anybody can know.
    fn refuses_reads(&self, node: NodeId, partition: Partition, epoch: u64) -> bool {
        if self.losses.contains(node) || self.forgetful.contains(&node) {
            return true;
        }
        let Some(at) = self.machine_of(node).map(|at| &self.machines[at]) else { return true };
        if let Some(state) = at.process.as_ref().and_then(|process| process.replica.ring_state()) {
            let takes_part = state.newest().member(node).is_some_and(|member| member.state.takes_part());
            return !takes_part || state.admits_read(partition, epoch).is_err();
        }
        at.documents.ring.as_ref().is_some_and(|ring| {
            let floor = ring.floors.get(partition.index()).copied().unwrap_or(0);
            floor.max(ring.chain.oldest().number()) > epoch
        })
    }

    /// Where nothing was lost, a node that says that it has synced what it gained has what was acknowledged before.
    fn watch_synced(&self, machine: usize, state: &Transition, partition: Partition) -> Verdict {
        let (us, newest) = (self.machines[machine].documents.node, state.newest());
        let before = self.operator.epoch(newest.number().saturating_sub(1));
        let gained = newest.owns(us, partition) && before.is_some_and(|epoch| !epoch.owns(us, partition));
        let may_lack = self.scenario.kind == QuorumKind::Sloppy || self.losses_of(partition).0 > 0;
        if !gained || may_lack || !state.ours().synced.contains(partition) || !self.forgetful.is_empty() {
            return Ok(());
        }
        for key in self.history.keys().filter(|key| self.partition_of(*key) == partition) {
            let Some((_, set)) = self.held(us, key) else { continue };
            let lacks = |id: OpId| !self.history.reflects(&set, id, When::at(self.now));
            let lacking = self.acknowledged_before(key, newest.number()).find(|id| lacks(*id));
            if let Some(write) = lacking {
                return Err(handover::lacks(machine, partition, newest.number(), write));
            }
        }
        Ok(())
    }

    /// Writes of a key that W owners in epochs before one have acknowledged.
    fn acknowledged_before(&self, key: KeyId, number: u64) -> impl Iterator<Item = OpId> {
        let needed = self.scenario.replication.write_quorum;
        self.history.acknowledged(key).filter_map(move |(id, op, owners)| match op.outcome {
            Outcome::Acknowledged { epoch, .. } if epoch < number && owners >= needed => Some(id),
            _ => None,
        })
    }

    /// A partition is being deleted: its owners have all that is here.
    fn watch_dropping(&self, machine: usize, state: &Transition, partition: Partition) -> Verdict {
        let Some(process) = &self.machines[machine].process else { return Ok(()) };
        let newest = state.newest().number();
        for (key, ours) in process.lost.get(&partition).into_iter().flatten() {
            for owner in state.newest().owners(partition).map(|owner| owner.id) {
                let may_lack = self.losses.contains(owner) || self.forgetful.contains(&owner);
                let Some((at, theirs)) = self.held(owner, *key).filter(|_| !may_lack) else { continue };
                let owner_epoch = self.machines[at].process.as_ref().and_then(|p| p.replica.epoch());
                if owner_epoch.is_some_and(|epoch| epoch.number() == newest) {
                    proof::has(machine, partition, ours, owner, &theirs)?;
                }
            }
        }
        Ok(())
    }
}

fn held_of_lost(process: &Process, state: &Transition) -> Lost {
    let mut lost = Lost::new();
    for partition in state.newest().partitions().iter().filter(|partition| !state.is_ours(*partition)) {
        let held = || {
            let page = process.engine.access().page(partition, None, KEYS_MAX);
            page.keys.into_iter().filter_map(|(name, set)| Some((key_of(&name)?, set))).collect()
        };
        let known = process.lost.get(&partition).cloned();
        lost.insert(partition, known.unwrap_or_else(held));
    }
    lost
}
