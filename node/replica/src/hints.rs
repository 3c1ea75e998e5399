//! Hinted handoff: keeps writes for owners that are away, and delivers them when they are back (INV-HINT).
//!
//! `quorate_core::handoff` keeps the books; this file moves records and messages for it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use quorate_core::NodeId;
use quorate_core::causality::VersionSet;
use quorate_core::handoff::{Books, Delivery, Ended, HintName, Hints, Limits, Owed, Route, Settle};
use quorate_core::ring::{MemberState, Partition};
use quorate_core::transition::Transition;
use quorate_storage::{Change, Committed, HINTS, Page, ReadError, WriteError};
use quorate_wire::peer::{Cause, Refusal, Request, Response, set_bytes};

use crate::calls::{Ending, Purpose};
use crate::interface::{Completion, Config, Done, Sender};
use crate::replica::Replica;
use crate::serve::{MergeFor, refusal};
use crate::storage::Storage;
use crate::timers::Timer;

/// How often a hint is sent again at once because something was collected while it was on its way.
const RESENDS_MAX: u8 = 8;
/// Records that one step of the recovery reads.
const PAGE: usize = 256;

/// A hint that is being stored, and who waits for it.
#[derive(Debug)]
pub(crate) struct Storing {
    name: HintName,
    set_bytes: usize,
    /// Of the set that the record holds afterwards.
    merged_bytes: Arc<AtomicUsize>,
    asker: (NodeId, u64),
}

/// A hint on its way to its target, or to several owners.
struct OnItsWay {
    name: HintName,
    revision: u64,
    digest: u64,
    open: usize,
    /// How often it was read and sent again because something was collected meanwhile.
    resends: u8,
}

pub(crate) struct Handoff {
    hints: Hints,
    /// Whether all that was stored by earlier starts is known.
    recovered: bool,
    deliveries: BTreeMap<u64, OnItsWay>,
    timer: Option<Duration>,
}

impl Handoff {
    pub(crate) fn new(config: &Config) -> Self {
        let hints = Hints::new(Limits {
            target_bytes_max: config.hint_bytes_max,
            bytes_max: config.hint_bytes_max.saturating_mul(4),
            delivery_bytes_per_second: config.transfer_bytes_per_second,
        });
        Self { hints, recovered: false, deliveries: BTreeMap::new(), timer: None }
    }
}

/// Keeping.
impl<S: Storage> Replica<S> {
    /// Finds what earlier starts have kept.
    pub(crate) fn recover_hints(&mut self, after: Option<u64>) {
        let inbox = self.inbox.clone();
        self.storage.read_later(Box::new(move |store| {
            inbox(Completion(Done::HintsRead { page: store.page(HINTS, after, PAGE) }));
        }));
    }

    pub(crate) fn hints_read(&mut self, page: Page) {
        for (record_key, set) in page.keys {
            // Nothing else is stored there.
            if let Some(name) = HintName::from_record_key(&record_key) {
                let since = set.last().map_or(self.now.unix_ms, |last| last.stamp.unix_ms());
                self.handoff.hints.recover(name, set_bytes(&set), since);
            }
        }
        match page.next {
            Some(after) => self.recover_hints(Some(after)),
            None => self.handoff.recovered = true,
        }
        self.schedule_handoff();
    }

    /// A coordinator asks this node to keep a write for an owner that is away.
    pub(crate) fn serve_hint(
        &mut self,
        from: Sender,
        request: u64,
        epoch: u64,
        sent: u64,
        target: NodeId,
        (key, set): (Bytes, VersionSet),
    ) -> Result<(), Refusal> {
        let epoch = self.admit(from.node, epoch)?;
        let partition = epoch.partitions().of_key(&key);
        let known = epoch.number();
        let stands_in = self.ring.fallbacks(partition).contains(&self.id());
        if !stands_in || !self.serving()?.owns(target, partition) {
            return Err(Refusal::NotOwner { known });
        }
        self.admit_holder(from.node, partition)?;
        self.admit_content(from, sent)?;
        self.believe(from.node, &set)?;
        self.observe(&set);
        let name = HintName { partition, key, target };
        let bytes = set_bytes(&set);
        self.handoff.hints.reserve(&name, bytes).map_err(|_| Refusal::HintsFull { target })?;
        let merged_bytes = Arc::new(AtomicUsize::new(bytes));
        let (record_key, merged) = (name.to_record_key(), merged_bytes.clone());
        let asker = (from.node, request);
        let purpose = MergeFor::Hint(Storing { name, set_bytes: bytes, merged_bytes, asker });
        let prepared = Box::new(move |set: &VersionSet| merged.store(set_bytes(set), Ordering::Relaxed));
        self.submit(HINTS, record_key, Change::Merge(set), Some(prepared), purpose);
        Ok(())
    }

    pub(crate) fn hint_stored(&mut self, storing: Storing, result: Result<Committed, WriteError>) {
        let Storing { name, set_bytes, merged_bytes, asker: (node, request) } = storing;
        let response = match result {
            Ok(_) => {
                let merged_bytes = merged_bytes.load(Ordering::Relaxed);
                self.handoff.hints.stored(name, set_bytes, merged_bytes, self.now.unix_ms);
                Response::Applied
            }
            // The next start may find it, and deliver it then: until that it counts as being stored, so that nothing
            // that it holds is forgotten meanwhile (INV-NOZOMBIE).
            Err(error @ WriteError::Indeterminate { .. }) => Response::Refused(refusal(error)),
            Err(error) => {
                self.handoff.hints.not_stored(&name, set_bytes);
                Response::Refused(refusal(error))
            }
        };
        self.respond(node, request, response);
        self.schedule_handoff();
    }

    /// Whether a hint for a key is kept here, or may be.
    pub(crate) fn keeps_hint(&self, partition: Partition, key: &[u8]) -> bool {
        !self.handoff.recovered || self.handoff.hints.keeps(partition, key)
    }

    /// The partitions of which hints are kept here; none while that is not known.
    pub(crate) fn hinted_partitions(&self) -> Option<BTreeSet<Partition>> {
        self.handoff.recovered.then(|| self.handoff.hints.partitions().collect())
    }

    /// What this node owes to whom.
    pub fn hints_owed(&self) -> impl Iterator<Item = Owed> {
        self.handoff.hints.owed()
    }

    /// What became of all hints that this node took.
    pub fn hint_books(&self) -> Books {
        self.handoff.hints.books()
    }

    /// Whether the books balance (INV-HINT): always.
    pub fn hints_balance(&self) -> bool {
        self.handoff.hints.balances()
    }
}

/// Delivering.
impl<S: Storage> Replica<S> {
    pub(crate) fn schedule_handoff(&mut self) {
        let due = self.handoff.hints.next_due();
        if due == self.handoff.timer {
            return;
        }
        if let Some(before) = self.handoff.timer.take() {
            self.timers.cancel(before, Timer::Handoff);
        }
        if let Some(at) = due {
            self.timers.set(at, Timer::Handoff);
            self.handoff.timer = due;
        }
    }

    /// A node is back.
    pub(crate) fn handoff_soon(&mut self, target: NodeId) {
        self.handoff.hints.hurry(target);
        self.schedule_handoff();
    }

    pub(crate) fn handoff_due(&mut self) {
        self.handoff.timer = None;
        if self.serving().is_err() {
            let at = self.now.mono + Duration::from_secs(1);
            self.timers.set(at, Timer::Handoff);
            self.handoff.timer = Some(at);
            return;
        }
        let Some(state) = self.ring.state() else { return };
        let (membership, us) = (&self.membership, self.identity.actor.node);
        let up = |id: NodeId| id == us || membership.get(id).is_some_and(|known| known.state.is_live());
        let route = |target, partition| route(state, us, target, partition, up);
        let deliveries = self.handoff.hints.next(self.now.mono, route);
        deliveries.into_iter().for_each(|delivery| self.read_hint(delivery, 0));
        self.schedule_handoff();
    }

    fn read_hint(&mut self, delivery: Delivery, resends: u8) {
        // Drawn before the set is read: see `content`.
        let (sent, inbox) = (self.next_sent(), self.inbox.clone());
        let record_key = delivery.name.to_record_key();
        self.storage.read_later(Box::new(move |store| {
            let result = store.get(HINTS, &record_key);
            inbox(Completion(Done::HintRead { delivery, resends, sent, result }));
        }));
    }

    pub(crate) fn hint_read(
        &mut self,
        delivery: Delivery,
        resends: u8,
        sent: u64,
        result: Result<Option<VersionSet>, ReadError>,
    ) {
        let Delivery { name, to, revision } = delivery;
        let (Ok(Some(set)), Some(epoch)) = (result, self.ring.current().cloned()) else {
            self.handoff.hints.lost(&name);
            return self.schedule_handoff();
        };
        let number = self.next_number();
        let (digest, open) = (set.digest(), to.len());
        let (partition, key) = (name.partition, name.key.clone());
        self.handoff.deliveries.insert(number, OnItsWay { name, revision, digest, open, resends });
        for node in to {
            let (key, set) = (key.clone(), set.clone());
            if node != self.id() {
                let (epoch, cause) = (epoch.number(), Cause::Handoff);
                let request = Request::Replicate { epoch, sent, cause, key, set };
                self.call(node, request, Purpose::Handoff { delivery: number });
            } else if self.expect_ours(partition).is_ok() {
                self.merge(partition, key, set, MergeFor::Handoff { delivery: number });
            } else {
                self.handoff_ended(number, node, false);
            }
        }
    }

    pub(crate) fn handoff_ended(&mut self, number: u64, node: NodeId, applied: bool) {
        let Some(delivery) = self.handoff.deliveries.get_mut(&number) else { return };
        delivery.open -= 1;
        let (name, revision, digest) = (delivery.name.clone(), delivery.revision, delivery.digest);
        if delivery.open == 0 {
            self.handoff.deliveries.remove(&number);
        }
        let ended = if applied { Ended::Acknowledged } else { Ended::Failed };
        match self.handoff.hints.ended(&name, revision, node, ended, self.now.mono) {
            Settle::Nothing => self.schedule_handoff(),
            Settle::Forget => {
                let record_key = name.to_record_key();
                self.forget_key(HINTS, record_key, digest, MergeFor::HintForgotten { name });
            }
        }
    }

    pub(crate) fn handoff_answered(&mut self, number: u64, node: NodeId, ending: &Ending) {
        let applied = matches!(ending, Ending::Response(Response::Applied));
        let stale = matches!(ending, Ending::Response(Response::Refused(Refusal::Stale)));
        let may = |delivery: &&mut OnItsWay| stale && delivery.resends < RESENDS_MAX;
        let Some(delivery) = self.handoff.deliveries.get_mut(&number).filter(may) else {
            return self.handoff_ended(number, node, applied);
        };
        delivery.open -= 1;
        let (name, revision, resends) = (delivery.name.clone(), delivery.revision, delivery.resends + 1);
        if delivery.open == 0 {
            self.handoff.deliveries.remove(&number);
        }
        self.read_hint(Delivery { name, to: vec![node], revision }, resends);
    }

    pub(crate) fn hint_forgotten(&mut self, name: &HintName, removed: bool) {
        self.handoff.hints.forgotten(name, removed, self.now.mono);
        self.schedule_handoff();
    }
}

/// Where a hint goes now: it belongs to the partition, not to the host. One who leaves does not wait for a target that
/// is away: every owner gets it, who keep the target's share for it.
fn route(
    state: &Transition,
    us: NodeId,
    target: NodeId,
    partition: Partition,
    up: impl Fn(NodeId) -> bool,
) -> Route {
    let epoch = state.newest();
    if u32::from(partition.0) >= epoch.partitions().get() {
        return Route::Wait;
    }
    let owned = state.owns(target, partition);
    if owned && up(target) {
        return Route::Target;
    }
    let leaving = epoch.member(us).is_some_and(|member| member.state == MemberState::Leaving);
    if owned && !leaving {
        return Route::Wait;
    }
    let owners = epoch.owners(partition).map(|owner| owner.id);
    Route::HandOver(owners.filter(|owner| *owner != target).collect())
}
