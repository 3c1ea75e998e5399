//! The end: faults are long over, clients are silent, and everything must be as promised.

use quorate_core::NodeId;
use quorate_core::causality::VersionSet;
use quorate_core::ring::Partition;
use quorate_storage::HINTS;

use crate::check::{ack, bound, converge, hint, quiet, settle};
use crate::clock::unix_ms;
use crate::history::{KeyId, OpId, Verdict, When, key_name};
use crate::world::World;

impl World {
    /// How many of those who ever owned a key serve from a disk that went back in time.
    pub(crate) fn count_forgetful(&self, key: KeyId) -> u8 {
        let owners = self.operator.owners_ever(self.partition_of(key));
        owners.intersection(&self.forgetful).count() as u8
    }

    pub(crate) fn partition_of(&self, key: KeyId) -> Partition {
        self.operator.newest().partitions().of_key(&key_name(key))
    }

    /// The owners of a key in the newest epoch.
    fn owners_of_key(&self, key: KeyId) -> Vec<NodeId> {
        self.operator.newest().owners(self.partition_of(key)).map(|owner| owner.id).collect()
    }

    /// The machine that a node runs on.
    pub(crate) fn machine_of(&self, node: NodeId) -> Option<usize> {
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
        for owner in self.operator.owners_ever(self.partition_of(key)) {
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
            let is_member = self.operator.takes_part(at.documents.node);
            let Some(process) = &at.process else { return Err(quiet::not_serving(machine)) };
            if is_member && !process.replica.is_claimed() {
                return Err(quiet::not_serving(machine));
            }
            bound::idle(self.machines.len(), process.replica.in_progress())?;
            if is_member && self.scenario.ring.is_live() {
                let status = process.replica.ring_status().unwrap_or_default();
                settle::settled(machine, &status, self.operator.newest().number())?;
            }
        }
        Ok(())
    }

    fn check_hints(&mut self) -> Verdict {
        for kept in self.hints.kept() {
            let safe = |node| !self.losses.contains(node);
            if !safe(kept.target) || !kept.keeper.is_some_and(safe) {
                continue;
            }
            // Where its target owns the key no more, those who do have it.
            let mut owners = self.owners_of_key(kept.key);
            if owners.contains(&kept.target) {
                owners = vec![kept.target];
            }
            for (_, set) in owners.iter().filter_map(|owner| self.held(*owner, kept.key)) {
                hint::delivered(&self.history, kept, &set, self.now)?;
            }
        }
        for machine in 0..self.machines.len() {
            let Some(process) = &self.machines[machine].process else { continue };
            let hints = process.engine.usage().hints.keys;
            let is_member = self.operator.takes_part(self.machines[machine].documents.node);
            if hints > 0 && is_member && self.losses.is_empty() {
                let page = process.engine.page(HINTS, None, 1);
                return Err(hint::left(machine, hints, page.keys.first().map(|(key, _)| key)));
            }
        }
        Ok(())
    }

    fn check_key(&mut self, key: KeyId) -> Verdict {
        let owners = self.owners_of_key(key);
        let held: Vec<_> = owners.iter().filter_map(|owner| self.held(*owner, key)).collect();
        let lost = self.losses_of(self.partition_of(key));
        let replication = self.scenario.replication;
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
        ack::at_end(&mut self.history, key, &together, (lost, replication.write_quorum), self.now)
    }
}
