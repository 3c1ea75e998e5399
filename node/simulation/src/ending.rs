//! The end: faults are long over, clients are silent, and everything must be as promised.

use std::collections::BTreeSet;

use quorate_core::NodeId;
use quorate_core::causality::VersionSet;
use quorate_core::ring::Partition;
use quorate_storage::HINTS;

use crate::check::{ack, bound, converge, hint, quiet};
use crate::clock::unix_ms;
use crate::history::{KeyId, OpId, Verdict, When, key_name};
use crate::world::World;

impl World {
    /// How many of a key's owners are among these.
    pub(crate) fn count_owners(&self, key: KeyId, among: &BTreeSet<NodeId>) -> u8 {
        let partition = self.partition_of(key);
        self.epoch.owners(partition).filter(|owner| among.contains(&owner.id)).count() as u8
    }

    fn partition_of(&self, key: KeyId) -> Partition {
        self.epoch.partitions().of_key(&key_name(key))
    }

    /// The machine that a node runs on.
    fn machine_of(&self, node: NodeId) -> Option<usize> {
        self.machines.iter().position(|machine| machine.documents.node == node)
    }

    /// What a node holds of a key; none when it is gone, or cannot say.
    pub(crate) fn held(&self, node: NodeId, key: KeyId) -> Option<(usize, VersionSet)> {
        let machine = self.machine_of(node)?;
        let process = self.machines[machine].process.as_ref()?;
        let set = process.engine.get(self.partition_of(key), &key_name(key)).ok()?;
        Some((machine, set.unwrap_or_default()))
    }

    /// A write was acknowledged that never crossed the wire: an owner has it.
    pub(crate) fn look_for(&mut self, id: OpId) -> Verdict {
        let key = self.history.op(id).key;
        let owners: Vec<NodeId> = self.epoch.owners(self.partition_of(key)).map(|owner| owner.id).collect();
        for owner in owners {
            if let Some((_, set)) = self.held(owner, key) {
                self.history.observe(Some(key), &set)?;
            }
        }
        Ok(())
    }

    /// Where nobody compares owners in the background, reads at all of them repair what they meet.
    pub(crate) fn sweep(&mut self) -> Verdict {
        if !self.scenario.anti_entropy.is_zero() || self.clients.is_empty() {
            return Ok(());
        }
        self.history.keys().try_for_each(|key| self.sweep_key(key))
    }

    pub(crate) fn check_end(&mut self) -> Verdict {
        self.check_nodes()?;
        self.check_hints()?;
        for key in self.history.keys() {
            self.check_key(key)?;
        }
        Ok(())
    }

    fn check_nodes(&mut self) -> Verdict {
        for machine in 0..self.machines.len() {
            let at = &self.machines[machine];
            let is_member = self.epoch.member(at.documents.node).is_some();
            let Some(process) = &at.process else { return Err(quiet::not_serving(machine)) };
            if is_member && !process.replica.is_claimed() {
                return Err(quiet::not_serving(machine));
            }
            bound::idle(self.machines.len(), process.replica.in_progress())?;
        }
        Ok(())
    }

    fn check_hints(&mut self) -> Verdict {
        for kept in self.hints.kept() {
            let safe = |node| !self.lost.contains(&node);
            if !safe(kept.target) || !kept.keeper.is_some_and(safe) {
                continue;
            }
            if let Some((_, set)) = self.held(kept.target, kept.key) {
                hint::delivered(&self.history, kept, &set, self.now)?;
            }
        }
        for machine in 0..self.machines.len() {
            let Some(process) = &self.machines[machine].process else { continue };
            let hints = process.engine.usage().hints.keys;
            if hints > 0 && self.lost.is_empty() {
                let page = process.engine.page(HINTS, None, 1);
                return Err(hint::left(machine, hints, page.keys.first().map(|(key, _)| key)));
            }
        }
        Ok(())
    }

    fn check_key(&mut self, key: KeyId) -> Verdict {
        let owners: Vec<NodeId> = self.epoch.owners(self.partition_of(key)).map(|owner| owner.id).collect();
        let held: Vec<_> = owners.iter().filter_map(|owner| self.held(*owner, key)).collect();
        let lost = self.count_owners(key, &self.lost);
        if !self.scenario.anti_entropy.is_zero() || self.swept.contains(&key) {
            converge::equal(key, &held, unix_ms(self.now))?;
        }
        let mut together = VersionSet::default();
        for (_, set) in &held {
            self.history.check_siblings(key, set, When::at(self.now))?;
            together.merge(set);
        }
        if held.is_empty() {
            return Ok(());
        }
        ack::at_end(&mut self.history, key, &together, lost, self.now)
    }
}
