//! Anti-entropy: compares whole partitions with the members that own them too, one after the other, in the background.
//!
//! One exchange at a time; each step that moved content is followed by a pause, as long as the transfer rate asks for, and at
//! least as long as the step took: where clients are served, ten times as long, so that nearly all of the time belongs to them. A
//! step that had to wait for them took longer, so the busier a node is, the more it leaves to them.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use quorate_core::NodeId;
use quorate_core::antientropy::{self, Exchange, Items, Parcel, Reply, Report, Request, Step, pack};
use quorate_core::planted::{self, Bug};
use quorate_core::ring::Partition;
use quorate_core::transition::Transition;
use quorate_wire::peer::{Refusal, Request as PeerRequest, Response};

use crate::calls::{Ending, Purpose};
use crate::interface::{Completion, Done, Sender};
use crate::replica::Replica;
use crate::serve::MergeFor;
use crate::storage::Storage;
use crate::timers::Timer;

/// How long to wait when there is nobody to compare with.
const IDLE: Duration = Duration::from_secs(1);
/// The longest that background work steps back because its last step took so long: a slow disk must not make it twice as slow.
const FAIR_MAX: Duration = Duration::from_secs(1);
/// How many times as long as a step its pause is, while clients are served.
const FAIR_TIMES: u32 = 10;
/// For how long clients are served when one of them asked for something.
const SERVED_FOR: Duration = Duration::from_secs(1);
/// How soon an exchange that failed is tried again.
const RETRY_AFTER: Duration = Duration::from_secs(5);
/// The same, while a change of the ring waits for it.
const RETRY_IN_TRANSITION: Duration = Duration::from_millis(250);
/// Pushes of peers that may be merged at the same time.
const BATCHES_MAX: usize = 64;

/// What sets are packed for.
#[derive(Debug)]
pub(crate) enum PackFor {
    /// Our exchange.
    Exchange { exchange: u64 },
    /// A peer's.
    Peer { node: NodeId, request: u64 },
}

/// Who waits for items to be merged.
#[derive(Clone, Copy, Debug)]
enum Waiting {
    Exchange { exchange: u64 },
    Peer { node: NodeId, request: u64 },
}

struct Batch {
    waiting: Waiting,
    open: usize,
    stored: bool,
}

/// The exchange that this node runs.
struct Running {
    id: u64,
    peer: NodeId,
    exchange: Exchange,
    /// Whether every partition was in sync until now.
    full: bool,
    /// In which it began.
    era: u64,
    /// When the step that is under way began.
    began: Duration,
    /// Bytes of content that it moved.
    moved_bytes: u64,
    /// The partition's when the last step was asked for: what was fetched before a collection must not come back.
    generation: u64,
}

/// A member that shares partitions with this node.
struct CoOwner {
    shared: Vec<Partition>,
    due: Duration,
    last_full_unix_ms: Option<u64>,
    /// The start in which it was heard last.
    start: u64,
}

#[derive(Default)]
pub(crate) struct Sync {
    co_owners: BTreeMap<NodeId, CoOwner>,
    running: Option<Running>,
    batches: BTreeMap<u64, Batch>,
    timer: Option<Duration>,
    /// When a client asked last for something that is done here, at least in part.
    served_at: Option<Duration>,
}

impl Sync {
    pub(crate) fn last_full(&self, peer: NodeId) -> Option<u64> {
        self.co_owners.get(&peer).and_then(|peer| peer.last_full_unix_ms)
    }

    pub(crate) fn heard(&mut self, from: Sender) {
        if let Some(peer) = self.co_owners.get_mut(&from.node) {
            peer.start = from.start;
        }
    }

    fn start_of(&self, peer: NodeId) -> u64 {
        self.co_owners.get(&peer).map_or(0, |peer| peer.start)
    }
}

/// When.
impl<S: Storage> Replica<S> {
    /// Learns from the epoch who shares what with this node.
    ///
    /// With the owners in every live epoch of what it owns itself, and with the new owners of what it lost.
    pub(crate) fn plan_exchanges(&mut self) {
        let Some(state) = self.ring.state() else { return };
        let epoch = state.newest();
        self.storage.access().set_partitions(epoch.partitions());
        let us = self.id();
        let mut shared: BTreeMap<NodeId, Vec<Partition>> = BTreeMap::new();
        for partition in epoch.partitions().iter() {
            let others = match state.is_ours(partition) {
                true => state.owners(partition),
                false if self.ring.leaving.contains(&partition) => {
                    epoch.owners(partition).map(|owner| owner.id).collect()
                }
                false => continue,
            };
            for owner in others.into_iter().filter(|owner| *owner != us) {
                shared.entry(owner).or_default().push(partition);
            }
        }
        let mut before = std::mem::take(&mut self.sync.co_owners);
        let spread = self.config.anti_entropy_interval / (shared.len().max(1) as u32);
        for (at, (id, shared)) in shared.into_iter().enumerate() {
            // Spread over the interval, so that they do not all come at once after a change.
            let due = self.now.mono + spread * (at as u32 + 1);
            let known = before.remove(&id);
            let due = known.as_ref().map_or(due, |known| known.due.min(due));
            let last_full_unix_ms = known.as_ref().and_then(|known| known.last_full_unix_ms);
            let start = known.map_or(0, |known| known.start);
            self.sync.co_owners.insert(id, CoOwner { shared, due, last_full_unix_ms, start });
        }
        // One that is under way goes on at its own pace; and what was due before stays so.
        if self.sync.running.is_none() {
            let due = self.sync.co_owners.values().map(|peer| peer.due).min().unwrap_or_default();
            self.set_exchange_timer(due.saturating_sub(self.now.mono).min(IDLE));
        }
    }

    /// A co-owner is back: what it missed is looked for at once.
    pub(crate) fn exchange_soon(&mut self, peer: NodeId) {
        if let Some(peer) = self.sync.co_owners.get_mut(&peer) {
            peer.due = self.now.mono;
            if self.sync.running.is_none() {
                self.set_exchange_timer(Duration::ZERO);
            }
        }
    }

    /// Something was lost here: every co-owner is asked at once.
    pub(crate) fn exchange_all_soon(&mut self) {
        let peers: Vec<NodeId> = self.sync.co_owners.keys().copied().collect();
        peers.into_iter().for_each(|peer| self.exchange_soon(peer));
    }

    /// Without anti-entropy only what changes hands, or was lost here, is compared.
    fn may_exchange(&self) -> bool {
        !self.config.anti_entropy_interval.is_zero() || self.is_moving() || !self.healing.is_done()
    }

    fn set_exchange_timer(&mut self, after: Duration) {
        let after = if self.may_exchange() { after } else { IDLE };
        let at = self.now.mono + after;
        if let Some(before) = self.sync.timer.replace(at) {
            self.timers.cancel(before, Timer::Exchange);
        }
        self.timers.set(at, Timer::Exchange);
    }

    pub(crate) fn exchange_due(&mut self) {
        self.sync.timer = None;
        if self.sync.running.is_some() {
            return self.exchange_step();
        }
        self.look_for_rot();
        if !self.may_exchange() {
            return self.set_exchange_timer(IDLE);
        }
        let (Ok(epoch), Some(era)) = (self.serving_epoch(), self.ring.comparable_era()) else {
            return self.set_exchange_timer(IDLE);
        };
        let up = |id: &NodeId| self.is_up(*id);
        let next = self.sync.co_owners.iter().filter(|(id, _)| up(id)).min_by_key(|(_, peer)| peer.due);
        match next.map(|(id, peer)| (*id, peer.due, peer.shared.clone())) {
            Some((peer, due, shared)) if due <= self.now.mono => {
                let id = self.next_number();
                let exchange = Exchange::new(epoch.partitions(), shared);
                let began = self.now.mono;
                let (moved_bytes, generation) = (0, 0);
                self.sync.running =
                    Some(Running { id, peer, exchange, full: true, era, began, moved_bytes, generation });
                self.exchange_step();
            }
            Some((_, due, _)) => self.set_exchange_timer((due - self.now.mono).min(IDLE)),
            None => self.set_exchange_timer(IDLE),
        }
    }

    fn exchange_over(&mut self, running: Running, finished: bool) {
        let full = finished && running.full;
        let interval = self.config.anti_entropy_interval.max(RETRY_IN_TRANSITION);
        let wait = match full {
            true => interval,
            false if self.is_moving() => RETRY_IN_TRANSITION,
            false if finished => interval,
            false => RETRY_AFTER,
        };
        if finished {
            self.stats.exchanges_finished += 1;
        } else {
            self.stats.exchanges_failed += 1;
        }
        if let Some(peer) = self.sync.co_owners.get_mut(&running.peer) {
            peer.due = self.now.mono + wait;
            if full {
                peer.last_full_unix_ms = Some(self.now.unix_ms);
            }
        }
        self.set_exchange_timer(Duration::ZERO);
        self.ring_step();
    }

    /// Whether a change of the ring waits for what this node compares.
    fn is_moving(&self) -> bool {
        let syncing = |state: &Transition| state.newest().partitions().iter().any(|p| state.is_syncing(p));
        !self.ring.leaving.is_empty() || self.ring.state().is_some_and(syncing)
    }
}

/// As the one that runs an exchange.
impl<S: Storage> Replica<S> {
    fn exchange_step(&mut self) {
        let Some(mut running) = self.sync.running.take() else { return };
        let Ok(epoch) = self.serving_epoch() else { return self.exchange_over(running, false) };
        // In a new era it would prove nothing: it begins anew.
        let current = self.ring.comparable_era() == Some(running.era);
        if !current || !epoch.member(running.peer).is_some_and(|_| self.is_up(running.peer)) {
            return self.exchange_over(running, false);
        }
        loop {
            running.began = self.now.mono;
            match running.exchange.step(self.storage.access()) {
                Step::Ask { sequence, request } => {
                    running.generation = request.partitions().first().map_or(0, |p| self.generation(*p));
                    if let Request::Push { items, .. } = &request {
                        running.moved_bytes = items.bytes() as u64;
                        self.stats.exchange_bytes_out += running.moved_bytes;
                    }
                    let request = PeerRequest::Exchange { epoch: epoch.number(), request };
                    let peer = running.peer;
                    self.sync.running = Some(running);
                    self.call(peer, request, Purpose::Exchange { sequence });
                    return;
                }
                Step::Merge { partition, items } => {
                    let (peer, exchange) = (running.peer, running.id);
                    let from = Sender { node: peer, start: self.sync.start_of(peer) };
                    running.moved_bytes = items.bytes() as u64;
                    self.stats.exchange_bytes_in += running.moved_bytes;
                    let current =
                        running.generation == self.generation(partition) && self.may_pull(partition);
                    self.sync.running = Some(running);
                    if current && self.admit_content(from, items.sent).is_ok() {
                        self.merge_items(partition, items, Waiting::Exchange { exchange });
                    } else {
                        self.items_merged(Waiting::Exchange { exchange }, false);
                    }
                    return;
                }
                Step::Load { partition, hashes, after } => {
                    let exchange = running.id;
                    self.sync.running = Some(running);
                    return self.pack_later(partition, hashes, after, PackFor::Exchange { exchange });
                }
                Step::Report(report) => self.exchange_report(&mut running, report),
                Step::Wait => {
                    self.sync.running = Some(running);
                    return;
                }
                Step::Finished => return self.exchange_over(running, true),
            }
        }
    }

    fn exchange_report(&mut self, running: &mut Running, report: Report) {
        if report.synced {
            self.healed_from(report.partition, running.peer, report.whole);
            if report.whole && !self.healing.is_open(report.partition) {
                self.ring_compared(running.era, report.partition, running.peer);
            }
        }
        running.full &= report.synced && report.whole || planted::is(Bug::SkipExchange);
        self.stats.exchange_differing += report.differing;
        self.stats.exchange_keys_pulled += report.pulled;
        self.stats.exchange_keys_pushed += report.pushed;
    }

    pub(crate) fn exchange_answered(&mut self, peer: NodeId, sequence: u64, ending: Ending) {
        let Some(running) = self.sync.running.as_mut().filter(|running| running.peer == peer) else { return };
        let fine = match ending {
            Ending::Response(Response::Exchanged(reply)) => {
                running.exchange.replied(sequence, reply, self.storage.access()).is_ok()
            }
            Ending::Lost => {
                running.exchange.expired(sequence);
                true
            }
            Ending::Response(_) | Ending::NotSent => false,
        };
        match self.sync.running.take_if(|_| !fine) {
            Some(running) => self.exchange_over(running, false),
            None => self.exchange_step(),
        }
    }

    /// Waits as long as fairness and the transfer rate ask for, then goes on.
    fn exchange_pause(&mut self) {
        let Some(running) = self.sync.running.as_mut() else { return };
        let rate = self.config.transfer_bytes_per_second.max(1);
        let (bytes, began) = (std::mem::take(&mut running.moved_bytes), running.began);
        let by_rate = Duration::from_micros(bytes.saturating_mul(1_000_000) / rate);
        self.set_exchange_timer(by_rate.max(self.fair_pause(began)));
    }

    /// The pause after a step of background work that began then.
    pub(crate) fn fair_pause(&self, began: Duration) -> Duration {
        let is_serving = self.sync.served_at.is_some_and(|at| self.now.mono < at + SERVED_FOR);
        let took = self.now.mono.saturating_sub(began);
        (took * if is_serving { FAIR_TIMES } else { 1 }).min(FAIR_MAX)
    }

    /// A client's request, or a part of one, is worked on here.
    pub(crate) fn serves_clients(&mut self) {
        self.sync.served_at = Some(self.now.mono);
    }
}

/// What both sides do.
impl<S: Storage> Replica<S> {
    /// Answers a step of a co-owner's exchange.
    pub(crate) fn serve_exchange(
        &mut self,
        from: Sender,
        id: u64,
        epoch: u64,
        request: Request,
    ) -> Result<(), Refusal> {
        let (node, epoch) = (from.node, self.admit(from.node, epoch)?);
        let partitions = epoch.partitions();
        let known = epoch.number();
        // What is not applied yet is in no tree.
        self.ring.comparable_era().ok_or(Refusal::Busy)?;
        let state = self.serving()?;
        let in_ring = |p: Partition| u32::from(p.0) < partitions.get();
        let ours = |p: Partition| in_ring(p) && state.is_ours(p) && state.may_hold(node, p);
        let only_roots = matches!(request, Request::Roots { .. });
        if !only_roots && !request.partitions().iter().all(|p| ours(*p)) {
            return Err(Refusal::NotOwner { known });
        }
        let answer = antientropy::answer(request, partitions, self.storage.access(), ours);
        match answer.map_err(|_| Refusal::NotOwner { known })? {
            antientropy::Answer::Reply(reply) => self.respond(node, id, Response::Exchanged(reply)),
            antientropy::Answer::Load { partition, hashes, after } => {
                self.pack_later(partition, hashes, after, PackFor::Peer { node, request: id });
            }
            antientropy::Answer::Merge { partition, items } => {
                self.admit_content(from, items.sent)?;
                if self.sync.batches.len() >= BATCHES_MAX {
                    return Err(Refusal::Busy);
                }
                self.merge_items(partition, items, Waiting::Peer { node, request: id });
            }
        }
        Ok(())
    }

    fn pack_later(&mut self, partition: Partition, hashes: Vec<u64>, after: Option<Bytes>, purpose: PackFor) {
        // Drawn before anything is read: see `Items::sent`.
        let (sent, inbox) = (self.next_sent(), self.inbox.clone());
        self.storage.read_later(Box::new(move |store| {
            let load = |hash| store.load_hash(partition, hash).unwrap_or_default();
            let parcel = pack(sent, &hashes, after.as_deref(), load);
            inbox(Completion(Done::Packed { purpose, parcel }));
        }));
    }

    pub(crate) fn packed(&mut self, purpose: PackFor, parcel: Parcel) {
        match purpose {
            PackFor::Exchange { exchange } => {
                let running = self.sync.running.as_mut().filter(|running| running.id == exchange);
                let Some(running) = running else { return };
                running.exchange.loaded(parcel);
                self.exchange_step();
            }
            PackFor::Peer { node, request } => {
                self.stats.exchange_bytes_out += parcel.items.bytes() as u64;
                self.respond(node, request, Response::Exchanged(Reply::Fetched(parcel)));
            }
        }
    }

    fn merge_items(&mut self, partition: Partition, items: Items, waiting: Waiting) {
        if items.items.is_empty() {
            return self.items_merged(waiting, true);
        }
        let batch = self.next_number();
        self.sync.batches.insert(batch, Batch { waiting, open: items.items.len(), stored: true });
        for item in items.items {
            self.observe(&item.set);
            self.merge(partition, item.key, item.set, MergeFor::Item { batch });
        }
    }

    pub(crate) fn item_merged(&mut self, id: u64, stored: bool) {
        let Some(batch) = self.sync.batches.get_mut(&id) else { return };
        batch.open -= 1;
        batch.stored &= stored;
        if batch.open == 0
            && let Some(Batch { waiting, stored, .. }) = self.sync.batches.remove(&id)
        {
            self.items_merged(waiting, stored);
        }
    }

    fn items_merged(&mut self, waiting: Waiting, stored: bool) {
        match waiting {
            Waiting::Peer { node, request } => {
                self.respond(node, request, Response::Exchanged(Reply::Pushed { stored }));
            }
            Waiting::Exchange { exchange } => {
                let running = self.sync.running.as_mut().filter(|running| running.id == exchange);
                let Some(running) = running else { return };
                running.exchange.merged(stored, self.storage.access());
                self.exchange_pause();
            }
        }
    }
}
