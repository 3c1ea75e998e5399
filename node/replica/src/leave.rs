//! Partitions that this node lost: they stay until each of their new owners is proven to hold all that is here
//! (INV-PROOF), and then go, key by key.

use std::time::Duration;

use quorate_core::ring::Partition;
use quorate_storage::Page;

use crate::interface::{Completion, Done};
use crate::replica::Replica;
use crate::serve::MergeFor;
use crate::storage::Storage;
use crate::timers::Timer;

/// Keys that go in one step.
const PAGE: usize = 64;
/// Between two steps, at least: deleting is never urgent.
const PAUSE: Duration = Duration::from_millis(2);

/// The partition that is being deleted.
#[derive(Default)]
pub(crate) struct Leaving {
    dropping: Option<Dropping>,
}

struct Dropping {
    partition: Partition,
    /// The era in which it was proven: a new one may give the partition back.
    era: u64,
    /// When the step that is under way began.
    began: Duration,
    /// Keys on their way out.
    open: usize,
    /// Whether all went that were to go.
    fine: bool,
}

impl<S: Storage> Replica<S> {
    /// Looks which partitions are held and not owned.
    pub(crate) fn look_for_leaving(&mut self) {
        let Some(state) = self.ring.state() else { return };
        let partitions = state.newest().partitions().iter();
        let left = |partition: &Partition| !state.is_ours(*partition) && self.holds(*partition);
        let leaving = partitions.filter(left).collect();
        if leaving != self.ring.leaving {
            self.ring.leaving = leaving;
            self.plan_exchanges();
        }
    }

    /// The partition that is being deleted here.
    pub fn dropping(&self) -> Option<Partition> {
        self.leaving.dropping.as_ref().map(|dropping| dropping.partition)
    }

    /// Begins to delete a partition that is proven, if everything that it follows from is on the disk.
    pub(crate) fn drop_proven(&mut self) {
        if self.leaving.dropping.is_some() || !self.ring.is_kept() {
            return;
        }
        let Some(state) = self.ring.state() else { return };
        let proven = self.ring.leaving.iter().find(|partition| state.is_proven(**partition)).copied();
        let Some(partition) = proven else { return };
        let era = state.era();
        self.leaving.dropping = Some(Dropping { partition, era, began: self.now.mono, open: 0, fine: true });
        // What was read of it before must not be sent or merged any more.
        self.next_generation(partition);
        self.stats.partitions_left += 1;
        // And what was is on its way into the store, and must be there before it is looked at.
        self.wait_for_store(MergeFor::LeavingBarrier { partition, era });
    }

    /// Nothing of a partition is on its way into the store any more.
    pub(crate) fn drop_begins(&mut self, partition: Partition, era: u64) {
        let same = |dropping: &Dropping| (dropping.partition, dropping.era) == (partition, era);
        if self.leaving.dropping.as_ref().is_some_and(same) {
            self.drop_more();
        }
    }

    /// Whether content of a partition may be pulled: it is owned here, or held and not being deleted.
    pub(crate) fn may_pull(&self, partition: Partition) -> bool {
        let dropping = self.leaving.dropping.as_ref().is_some_and(|dropping| dropping.partition == partition);
        self.expect_ours(partition).is_ok() || (self.ring.leaving.contains(&partition) && !dropping)
    }

    pub(crate) fn drop_more(&mut self) {
        let Some(dropping) = &mut self.leaving.dropping else { return };
        dropping.began = self.now.mono;
        let (partition, era) = (dropping.partition, dropping.era);
        let inbox = self.inbox.clone();
        self.storage.read_later(Box::new(move |store| {
            let page = store.page(partition, None, PAGE);
            inbox(Completion(Done::LeavingRead { partition, era, page }));
        }));
    }

    pub(crate) fn leaving_read(&mut self, partition: Partition, era: u64, page: Page) {
        let current = self.ring.state().is_some_and(|state| state.era() == era);
        let Some(dropping) =
            self.leaving.dropping.as_mut().filter(|dropping| dropping.partition == partition)
        else {
            return;
        };
        if !current || page.keys.is_empty() || !dropping.fine {
            self.leaving.dropping = None;
            if page.unreadable == 0 && current {
                self.ring_step();
            } // Else it is tried again later.
            return;
        }
        dropping.open = page.keys.len();
        for (key, set) in page.keys {
            let digest = set.digest();
            self.forget_key(partition, key, digest, MergeFor::Leaving);
        }
    }

    /// A key is gone.
    pub(crate) fn left(&mut self, gone: bool) {
        let Some(dropping) = &mut self.leaving.dropping else { return };
        dropping.open -= 1;
        dropping.fine &= gone;
        if dropping.open == 0 {
            let began = dropping.began;
            self.timers.set(self.now.mono + self.fair_pause(began).max(PAUSE), Timer::Leaving);
        }
    }
}
