//! Forgets what is deleted, when nothing can bring it back (INV-NOZOMBIE): leads and answers rounds of
//! `quorate_core::collection`, one at a time, for the partitions of which this node is the first owner that is up.

use std::time::Duration;

use bytes::Bytes;
use quorate_core::NodeId;
use quorate_core::collection::{
    self, Action, Answer, CANDIDATES_MAX, Candidate, Holder, Outcome, Reply, Request, Round, RoundId,
};
use quorate_core::ring::{Epoch, Partition, key_hash};
use quorate_storage::{Access, Change};
use quorate_wire::peer::{Refusal, Request as PeerRequest, Response};

use crate::calls::{Ending, Purpose};
use crate::interface::{Completion, Done};
use crate::replica::Replica;
use crate::serve::MergeFor;
use crate::storage::Storage;
use crate::timers::Timer;

/// Between two looks for something to collect.
const INTERVAL: Duration = Duration::from_secs(1);
/// Index entries that one look goes through.
const SCAN_MAX: usize = 16 * 1024;
/// Index entries that are looked at in one piece.
const PAGE: usize = 1024;
/// Rounds of peers in which keys are being forgotten.
const FORGETTING_MAX: usize = 64;

/// What this node forgets for a round.
struct Forgetting {
    number: u64,
    round: RoundId,
    leader: Leader,
    open: usize,
    forgotten: u16,
}

/// Who leads.
#[derive(Clone, Copy, Debug)]
enum Leader {
    Us,
    Peer { node: NodeId, request: u64 },
}

#[derive(Default)]
pub(crate) struct Collector {
    /// Where the next look begins.
    partition: u16,
    after: Option<u64>,
    /// Whether candidates are being read.
    reading: bool,
    round: Option<Round>,
    forgetting: Vec<Forgetting>,
}

/// What a participant holds, as the index knows it.
struct Held<'a, S> {
    replica: &'a Replica<S>,
}

impl<S: Storage> Holder for Held<'_, S> {
    fn holds_dead(&self, partition: Partition, candidate: &Candidate) -> bool {
        let hash = key_hash(&candidate.key);
        let scanned = self.replica.storage.access().scan(partition, hash.checked_sub(1), 1);
        // Keys that share a hash cannot be told apart here, so they stay.
        match scanned.as_slice() {
            [only] => {
                let now = self.replica.now.unix_ms;
                let dead = only.dead_from_unix_ms.is_some_and(|from| from <= now);
                only.key_hash == hash && only.digest == candidate.digest && dead
            }
            _ => false,
        }
    }

    fn keeps_hint(&self, partition: Partition, key: &[u8]) -> bool {
        self.replica.keeps_hint(partition, key)
    }
}

/// As the leader.
impl<S: Storage> Replica<S> {
    pub(crate) fn begin_collecting(&mut self) {
        self.timers.set(self.now.mono + INTERVAL, Timer::Collect);
    }

    pub(crate) fn collect_due(&mut self) {
        self.timers.set(self.now.mono + INTERVAL, Timer::Collect);
        if self.collector.round.is_some() || self.collector.reading {
            return;
        }
        let Ok(epoch) = self.serving_epoch() else { return };
        let mut left = SCAN_MAX;
        // At most once around the ring.
        for _ in 0..epoch.partitions().get() {
            let partition = Partition(self.collector.partition);
            if self.leads(&epoch, partition) {
                let hashes = self.scan_for_dead(partition, &mut left);
                if !hashes.is_empty() {
                    return self.read_candidates(partition, hashes);
                }
                if left == 0 {
                    return;
                }
            }
            let next = self.collector.partition + 1;
            self.collector.partition = if u32::from(next) < epoch.partitions().get() { next } else { 0 };
            self.collector.after = None;
        }
    }

    /// Whether this node collects in a partition now: it is the first owner, and all that must answer are up.
    fn leads(&mut self, epoch: &Epoch, partition: Partition) -> bool {
        if !self.is_settled(partition) {
            return false;
        }
        let first = epoch.owners(partition).find(|owner| self.is_up(owner.id)).map(|owner| owner.id);
        if first != Some(self.id()) {
            return false;
        }
        let fallbacks = self.ring.fallbacks(partition);
        let all = epoch.owners(partition).map(|owner| owner.id).chain(fallbacks.iter().copied());
        all.into_iter().all(|id| self.is_up(id))
    }

    /// Whether nothing of a partition is anywhere but with its owners and fallbacks: else not all who must answer are
    /// known.
    fn is_settled(&self, partition: Partition) -> bool {
        self.ring.state().is_some_and(|state| state.is_settled(partition))
    }

    /// A round belongs to the epoch in which it began.
    pub(crate) fn end_rounds(&mut self) {
        self.collector.round = None;
    }

    /// Hashes of keys without a live value, from where the last look ended.
    fn scan_for_dead(&mut self, partition: Partition, left: &mut usize) -> Vec<u64> {
        let mut dead = Vec::new();
        while *left > 0 && dead.len() < CANDIDATES_MAX {
            let page = self.storage.access().scan(partition, self.collector.after, PAGE);
            *left = left.saturating_sub(page.len().max(1));
            let is_dead = |from: Option<u64>| from.is_some_and(|from| from <= self.now.unix_ms);
            dead.extend(page.iter().filter(|key| is_dead(key.dead_from_unix_ms)).map(|key| key.key_hash));
            self.collector.after = page.last().map(|key| key.key_hash);
            if page.len() < PAGE {
                self.collector.after = None;
                break;
            }
        }
        dead.truncate(CANDIDATES_MAX);
        dead
    }

    fn read_candidates(&mut self, partition: Partition, hashes: Vec<u64>) {
        self.collector.reading = true;
        let inbox = self.inbox.clone();
        self.storage.read_later(Box::new(move |store| {
            let candidates = hashes.into_iter().flat_map(|hash| candidates(store, partition, hash)).collect();
            inbox(Completion(Done::Candidates { partition, candidates }));
        }));
    }

    pub(crate) fn candidates_read(&mut self, partition: Partition, candidates: Vec<Candidate>) {
        self.collector.reading = false;
        let Ok(epoch) = self.serving_epoch() else { return };
        let in_ring = u32::from(partition.0) < epoch.partitions().get();
        if candidates.is_empty() || !in_ring || !self.is_settled(partition) {
            return;
        }
        let id = RoundId { start: self.identity.actor.start, number: self.next_number() };
        let owners: Vec<NodeId> = epoch.owners(partition).map(|owner| owner.id).collect();
        let fallbacks = self.ring.fallbacks(partition);
        let mut round = Round::new(id, partition, owners, fallbacks.iter().copied(), candidates);
        let actions = round.begin();
        self.collector.round = Some(round);
        self.collect(actions);
    }

    fn collect(&mut self, actions: Vec<Action>) {
        for action in actions {
            match action {
                Action::Ask { to, request } if to == self.id() => self.answer_collection(Leader::Us, request),
                Action::Ask { to, request } => {
                    let epoch = self.ring.number();
                    self.call(to, PeerRequest::Collection { epoch, request }, Purpose::Collection);
                }
                Action::Finished(Outcome { cleared, complete }) => {
                    self.collector.round = None;
                    self.stats.collection_rounds += 1;
                    self.stats.collection_rounds_incomplete += u64::from(!complete);
                    self.stats.tombstones_cleared += cleared as u64;
                }
            }
        }
    }

    fn collection_replied(&mut self, from: NodeId, reply: Reply) {
        if let Some(round) = &mut self.collector.round {
            let actions = round.replied(from, reply);
            self.collect(actions);
        }
    }

    pub(crate) fn collection_ended(&mut self, from: NodeId, ending: Ending) {
        match ending {
            Ending::Response(Response::Collection(reply)) => self.collection_replied(from, reply),
            _ => {
                if let Some(round) = &mut self.collector.round {
                    let actions = round.expired(from);
                    self.collect(actions);
                }
            }
        }
    }
}

/// As a participant.
impl<S: Storage> Replica<S> {
    pub(crate) fn serve_collection(
        &mut self,
        node: NodeId,
        id: u64,
        epoch: u64,
        request: Request,
    ) -> Result<(), Refusal> {
        let epoch = self.admit(node, epoch)?;
        let partition = request.partition();
        let known = epoch.number();
        if u32::from(partition.0) >= epoch.partitions().get() || !epoch.owns(node, partition) {
            return Err(Refusal::NotOwner { known });
        }
        if self.collector.forgetting.len() >= FORGETTING_MAX || !self.is_settled(partition) {
            return Err(Refusal::Busy);
        }
        self.answer_collection(Leader::Peer { node, request: id }, request);
        Ok(())
    }

    fn answer_collection(&mut self, leader: Leader, request: Request) {
        let Some(partitions) = self.ring.current().map(|epoch| epoch.partitions()) else { return };
        let round = request.round();
        if !self.knows_marks(&request) {
            return self.tell_leader(leader, Reply::Declined { round });
        }
        let mut floors = std::mem::take(&mut self.content.floors);
        let held = Held { replica: self };
        let answer = collection::answer(request, partitions, self.mark(), &mut floors, &held);
        self.content.floors = floors;
        match answer {
            Ok(Answer::Reply(reply)) => self.tell_leader(leader, reply),
            Ok(Answer::Forget { round, partition, candidates }) => {
                self.forget(leader, round, partition, candidates);
            }
            Err(_) => self.tell_leader(leader, Reply::Declined { round }),
        }
    }

    /// Whether each sender that a request sets a floor for has told its mark to this start, in answer to its own
    /// question; and whether what this node is quoted with was said by this start. What a leader passes on may be
    /// older than what an earlier start of this node had heard.
    fn knows_marks(&mut self, request: &Request) -> bool {
        let (Request::Fence { floors, .. } | Request::Collect { floors, .. }) = request else { return true };
        let mine = self.identity.actor;
        let unknown: Vec<NodeId> = floors
            .iter()
            .filter(|(node, mark)| match *node == mine.node {
                true => mark.start != mine.start,
                false => !self.content.floors.knows(*node),
            })
            .map(|(node, _)| *node)
            .collect();
        unknown.iter().for_each(|node| self.ask_mark(*node));
        unknown.is_empty()
    }

    fn tell_leader(&mut self, leader: Leader, reply: Reply) {
        match leader {
            Leader::Us => self.collection_replied(self.id(), reply),
            Leader::Peer { node, request } => self.respond(node, request, Response::Collection(reply)),
        }
    }

    fn forget(&mut self, leader: Leader, round: RoundId, partition: Partition, candidates: Vec<Candidate>) {
        // What was read before must not be merged after: it may be what is forgotten now.
        self.next_generation(partition);
        if candidates.is_empty() {
            return self.tell_leader(leader, Reply::Collected { round, forgotten: 0 });
        }
        let number = self.next_number();
        let open = candidates.len();
        self.collector.forgetting.push(Forgetting { number, round, leader, open, forgotten: 0 });
        for Candidate { key, digest } in candidates {
            self.forget_key(partition, key, digest, MergeFor::Collection { number });
        }
    }

    /// Removes a key from the store, if it still holds exactly this.
    pub(crate) fn forget_key(&mut self, partition: Partition, key: Bytes, digest: u64, purpose: MergeFor) {
        self.submit(partition, key, Change::Forget { digest }, None, purpose);
    }

    pub(crate) fn forgotten(&mut self, number: u64, changed: bool) {
        let of = |forgetting: &Forgetting| forgetting.number == number;
        let Some(at) = self.collector.forgetting.iter().position(of) else { return };
        let forgetting = &mut self.collector.forgetting[at];
        forgetting.open -= 1;
        forgetting.forgotten += u16::from(changed);
        self.stats.tombstones_forgotten += u64::from(changed);
        if forgetting.open == 0 {
            let Forgetting { round, leader, forgotten, .. } = self.collector.forgetting.swap_remove(at);
            self.tell_leader(leader, Reply::Collected { round, forgotten });
        }
    }
}

/// The keys under a hash, with the digests of what they hold.
fn candidates(store: &Access, partition: Partition, hash: u64) -> Vec<Candidate> {
    let keys = store.load_hash(partition, hash).unwrap_or_default();
    keys.into_iter().map(|(key, set)| Candidate { key, digest: set.digest() }).collect()
}
