//! Partitions that lost something to rot on this disk heal from their other owners.
//!
//! An acknowledged write that was lost here has W - 1 other copies at least. Of the N - 1 other owners, N - W + 1 include
//! one that has it; so when that many were compared with and pulled from since the loss, everything is back, and the
//! partition is served again (INV-ACK, INV-OVERLAP). What none of them gave is dropped: it may have been deleted, and the
//! deletion forgotten (INV-NOZOMBIE).
//!
//! An owner that heals from a loss itself does not show all that it had, so it proves nothing. When every other owner was
//! pulled from, and too few of them were whole, more was lost than the ring was made for, and nobody knows better: then
//! what is left here is kept, rather than lost as well.

use std::collections::BTreeMap;

use quorate_core::NodeId;
use quorate_core::ring::Partition;
use quorate_storage::{HINTS, Leftover};

use crate::interface::{Completion, Done};
use crate::replica::Replica;
use crate::storage::Storage;

/// For each partition that is not served: who was compared with since the loss, and whether it was whole each time. One
/// that was not may have given up since what only it and this node had.
#[derive(Default)]
pub(crate) struct Healing(BTreeMap<Partition, BTreeMap<NodeId, bool>>);

impl Healing {
    /// Whether a partition is not served yet.
    pub(crate) fn is_open(&self, partition: Partition) -> bool {
        self.0.contains_key(&partition)
    }

    /// Whether everything is served.
    pub(crate) fn is_done(&self) -> bool {
        self.0.is_empty()
    }
}

impl<S: Storage> Replica<S> {
    /// Looks which partitions are not served, and asks their owners soon.
    pub(crate) fn look_for_rot(&mut self) {
        let quarantined = self.storage.access().quarantined();
        let fresh = |p: &&Partition| !self.healing.0.contains_key(p);
        let fresh: Vec<Partition> = quarantined.iter().filter(fresh).copied().collect();
        self.healing.0.retain(|partition, _| quarantined.contains(partition));
        for partition in &fresh {
            self.healing.0.insert(*partition, BTreeMap::new());
            if *partition == HINTS {
                // Nobody else has them: anti-entropy brings their owners what they were for.
                self.lift(HINTS, Leftover::Drop);
            }
        }
        if !fresh.is_empty() {
            self.exchange_all_soon();
        }
    }

    /// Everything that this co-owner shows of a partition is here now; `whole` says whether that is all that it had.
    pub(crate) fn healed_from(&mut self, partition: Partition, peer: NodeId, whole: bool) {
        let Some(state) = self.ring.state() else { return };
        let Some(healed) = self.healing.0.get_mut(&partition) else { return };
        *healed.entry(peer).or_insert(whole) &= whole;
        let replication = state.newest().replication();
        let others = usize::from(replication.factor) - 1;
        let needed = usize::from(replication.factor - replication.write_quorum + 1).min(others);
        let count = |set: &Vec<NodeId>, wanted: fn(&bool) -> bool| {
            set.iter().filter(|owner| healed.get(owner).is_some_and(wanted)).count()
        };
        let sets = state.write_sets(partition);
        if sets.iter().all(|set| count(set, |whole| *whole) >= needed) {
            self.lift(partition, Leftover::Drop);
        } else if sets.iter().all(|set| count(set, |_| true) >= others) {
            self.lift(partition, Leftover::Keep);
        }
    }

    /// Serves a partition again. That is put on the disk, so it is done elsewhere.
    fn lift(&mut self, partition: Partition, leftover: Leftover) {
        let inbox = self.inbox.clone();
        self.storage.read_later(Box::new(move |store| {
            let lifted = store.lift(partition, leftover).is_ok();
            inbox(Completion(Done::Lifted { partition, lifted }));
        }));
    }

    pub(crate) fn lifted(&mut self, partition: Partition, lifted: bool) {
        if lifted {
            self.healing.0.remove(&partition);
            self.stats.partitions_healed += 1;
        }
    }
}
