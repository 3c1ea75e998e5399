//! Partitions that lost something to rot on this disk heal from their other owners.
//!
//! An acknowledged write that was lost here has W - 1 other copies at least. Of the N - 1 other owners, N - W + 1 include
//! one that has it; so when that many were compared with and pulled from since the loss, everything is back, and the
//! partition is served again (INV-ACK, INV-OVERLAP).

use std::collections::{BTreeMap, BTreeSet};

use quorate_core::NodeId;
use quorate_core::ring::Partition;
use quorate_storage::HINTS;

use crate::interface::{Completion, Done};
use crate::replica::Replica;
use crate::storage::Storage;

/// Who was compared with since the loss, for each partition that is not served.
#[derive(Default)]
pub(crate) struct Healing(BTreeMap<Partition, BTreeSet<NodeId>>);

impl<S: Storage> Replica<S> {
    /// Looks which partitions are not served, and asks their owners soon.
    pub(crate) fn look_for_rot(&mut self) {
        let quarantined = self.storage.access().quarantined();
        let fresh = |p: &&Partition| !self.healing.0.contains_key(p);
        let fresh: Vec<Partition> = quarantined.iter().filter(fresh).copied().collect();
        self.healing.0.retain(|partition, _| quarantined.contains(partition));
        for partition in &fresh {
            self.healing.0.insert(*partition, BTreeSet::new());
            if *partition == HINTS {
                self.lift(HINTS); // Nobody else has them: anti-entropy brings their owners what they were for.
            }
        }
        if !fresh.is_empty() {
            self.exchange_all_soon();
        }
    }

    /// Everything that this co-owner has of a partition is here now.
    pub(crate) fn healed_from(&mut self, partition: Partition, peer: NodeId) {
        let Some(epoch) = self.ring.current().cloned() else { return };
        let Some(healed) = self.healing.0.get_mut(&partition) else { return };
        healed.insert(peer);
        let replication = epoch.replication();
        let others = usize::from(replication.factor) - 1;
        let needed = usize::from(replication.factor - replication.write_quorum + 1).min(others);
        let owners = healed.iter().filter(|owner| epoch.owns(**owner, partition)).count();
        if owners >= needed {
            self.lift(partition);
        }
    }

    /// Serves a partition again. That is put on the disk, so it is done elsewhere.
    fn lift(&mut self, partition: Partition) {
        let inbox = self.inbox.clone();
        self.storage.read_later(Box::new(move |store| {
            let lifted = store.lift(partition).is_ok();
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
