//! Which epochs are live here, and what this node says about a change of the ring; `quorate_core::transition` decides.
//!
//! An epoch is on the disk before it is used, one number is one epoch (INV-EPOCH), and a mark is on the disk before it
//! counts, here or anywhere else.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use quorate_core::planted::{self, Bug};
use quorate_core::ring::{Epoch, EpochError, EpochMark, Member, Partition};
use quorate_core::transition::{self, Chain, ChainError, Known, MARKS_TOLD_MAX, Marks, Told, Transition};
use quorate_core::{ClusterId, NodeId};
use quorate_storage::HINTS;
use quorate_wire::peer::{Refusal, Request, Response};

use crate::calls::{Ending, Purpose};
use crate::interface::{AdoptError, Effect, Kept, Record, RingStatus};
use crate::pace::Pace;
use crate::replica::Replica;
use crate::serve::MergeFor;
use crate::storage::Storage;
use crate::timers::Timer;

/// How often others are asked how far they are, while that can change anything.
const ASK_MIN: Duration = Duration::from_millis(100);
/// The same, when nobody had news for long.
const ASK_MAX: Duration = Duration::from_secs(5);
/// Epochs that may wait for the disk.
const WAITING_MAX: usize = 8;
/// How many are asked each time.
const ASKED: usize = 2;

/// Epochs that are new here, the floors that came with them, and who waits for it.
type Adopted = (Chain, Vec<u64>, Option<u64>);

/// What is on its way to the disk.
struct Keeping {
    document: u64,
    adopted: Option<Adopted>,
    marks: Marks,
}

pub(crate) struct Ring {
    cluster: ClusterId,
    state: Option<Transition>,
    keeping: Option<Keeping>,
    /// Epochs that were pushed meanwhile.
    waiting: Vec<(u64, Epoch)>,
    /// Whether something is not on the disk that was not worth a write of its own.
    dirty: bool,
    /// Whether a peer was asked for its epochs.
    fetching: bool,
    /// Of the newest epoch, as far as they were needed: choosing them looks at every member.
    fallbacks: BTreeMap<Partition, Arc<[NodeId]>>,
    /// Everything that was accepted before this era is applied.
    applied_era: Option<u64>,
    /// The era for which the store was asked to say so.
    asked_era: Option<u64>,
    /// The revision of the owners by which exchanges were planned.
    planned: u64,
    /// Partitions that are not owned here any more, and of which something is still held.
    pub(crate) leaving: BTreeSet<Partition>,
    /// Whether this node has said something of itself that nobody was told: whoever is asked next asks back.
    untold: bool,
    ask_at: Option<Duration>,
    ask_after: Duration,
    pace: Pace,
}

impl Ring {
    pub(crate) fn new(us: NodeId, cluster: ClusterId, remembered: Option<transition::Remembered>) -> Self {
        let state = remembered.map(|remembered| Transition::remembered(us, remembered));
        // Nothing of an earlier start is on its way.
        let era = state.as_ref().map(Transition::era);
        Self {
            cluster,
            state,
            keeping: None,
            waiting: Vec::new(),
            dirty: false,
            fetching: false,
            fallbacks: BTreeMap::new(),
            applied_era: era,
            asked_era: era,
            planned: 0,
            leaving: BTreeSet::new(),
            untold: false,
            ask_at: None,
            ask_after: ASK_MIN,
            pace: Pace::default(),
        }
    }

    /// The newest epoch.
    pub(crate) fn current(&self) -> Option<&Arc<Epoch>> {
        self.state.as_ref().map(Transition::newest)
    }

    pub(crate) fn state(&self) -> Option<&Transition> {
        self.state.as_ref()
    }

    pub(crate) fn number(&self) -> u64 {
        self.current().map_or(0, |epoch| epoch.number())
    }

    /// Who stands in for the owners of a partition: as many as there are owners.
    pub(crate) fn fallbacks(&mut self, partition: Partition) -> Arc<[NodeId]> {
        let Some(epoch) = self.state.as_ref().map(Transition::newest) else { return Arc::default() };
        let choose = || {
            let factor = usize::from(epoch.replication().factor);
            epoch.fallbacks(partition, factor).iter().map(|member| member.id).collect()
        };
        self.fallbacks.entry(partition).or_insert_with(choose).clone()
    }

    /// The chain with an epoch that somebody pushed; none when it is known already.
    fn with(&self, epoch: Epoch) -> Result<Option<Chain>, AdoptError> {
        if epoch.cluster() != self.cluster {
            let (pushed, found) = (epoch.number(), epoch.cluster());
            return Err(AdoptError::Epoch(EpochError::Cluster { pushed, found, expected: self.cluster }));
        }
        let number = epoch.number();
        match &self.state {
            None if number > 1 => Err(AdoptError::Behind { known: 0 }),
            None => Ok(Some(Chain::of(Arc::new(epoch)))),
            Some(state) => state.chain().with(Arc::new(epoch)).map_err(|error| match error {
                ChainError::Epoch(error) => AdoptError::Epoch(error),
                ChainError::Gap { known, .. } => AdoptError::Behind { known },
                ChainError::Full { oldest, newest, .. } => AdoptError::Full { oldest, newest },
                ChainError::Count { .. } => AdoptError::Busy,
            }),
        }
    }

    /// The era of comparisons that may begin now: all that was accepted before it is applied.
    pub(crate) fn comparable_era(&self) -> Option<u64> {
        let era = self.state.as_ref().map(Transition::era);
        era.filter(|era| self.applied_era == Some(*era) || planted::is(Bug::SkipBarrier))
    }

    /// Whether all that this node said and decided is on its disk.
    pub(crate) fn is_kept(&self) -> bool {
        self.keeping.is_none() && !self.dirty
    }
}

/// Whether a node may take part: one that was removed is as good as a stranger (INV-FENCE).
pub(crate) fn takes_part(epoch: &Epoch, node: NodeId) -> bool {
    let takes_part = |member: &Member| member.state.takes_part() || planted::is(Bug::AdmitRemoved);
    epoch.member(node).is_some_and(takes_part)
}

/// Whether a refusal says that one of the two knows less of the ring than the other: it passes.
pub(crate) fn is_misrouted(refusal: &Refusal) -> bool {
    matches!(
        refusal,
        Refusal::EpochRetired { .. }
            | Refusal::ReadsMoved { .. }
            | Refusal::EpochUnknown { .. }
            | Refusal::NotOwner { .. }
    )
}

/// What is served by which epoch.
impl<S: Storage> Replica<S> {
    /// The newest epoch, of which this node is a member, once its start is claimed.
    pub(crate) fn serving_epoch(&self) -> Result<Arc<Epoch>, Refusal> {
        self.serving().map(|state| state.newest().clone())
    }

    /// The ring to serve by.
    pub(crate) fn serving(&self) -> Result<&Transition, Refusal> {
        let state = self.ring.state().ok_or(Refusal::NoEpoch)?;
        let epoch = state.newest();
        if !takes_part(epoch, self.id()) {
            return Err(Refusal::NotMember { known: epoch.number() });
        }
        if !self.claim.is_won() {
            return Err(Refusal::Starting);
        }
        Ok(state)
    }

    /// Checks that a peer's message was routed by our newest epoch, from a member (INV-FENCE).
    pub(crate) fn admit(&mut self, from: NodeId, routed: u64) -> Result<Arc<Epoch>, Refusal> {
        let epoch = self.serving_epoch()?;
        let known = epoch.number();
        if routed > known {
            self.fetch_epoch(from);
            return Err(Refusal::EpochUnknown { routed, known });
        }
        if routed < known && !planted::is(Bug::SkipFence) {
            return Err(Refusal::EpochRetired { routed, known });
        }
        self.admit_member(&epoch, from)?;
        Ok(epoch)
    }

    pub(crate) fn admit_member(&self, epoch: &Epoch, from: NodeId) -> Result<(), Refusal> {
        let known = epoch.number();
        if takes_part(epoch, from) { Ok(()) } else { Err(Refusal::NotMember { known }) }
    }

    /// The same, for a key that this node must own.
    pub(crate) fn admit_to_owner(
        &mut self,
        from: NodeId,
        routed: u64,
        key: &Bytes,
    ) -> Result<Partition, Refusal> {
        let epoch = self.admit(from, routed)?;
        let partition = epoch.partitions().of_key(key);
        self.expect_ours(partition)?;
        Ok(partition)
    }

    pub(crate) fn expect_ours(&self, partition: Partition) -> Result<(), Refusal> {
        let known = self.ring.number();
        let ours = self.ring.state().is_some_and(|state| state.is_ours(partition));
        if ours { Ok(()) } else { Err(Refusal::NotOwner { known }) }
    }

    /// Whether a write of a partition may be coordinated here.
    pub(crate) fn expect_coordinator(&self, partition: Partition) -> Result<(), Refusal> {
        let known = self.ring.number();
        let may = self.ring.state().is_some_and(|state| state.may_make_dots(partition));
        if may { Ok(()) } else { Err(Refusal::NotOwner { known }) }
    }

    /// Checks a read: it may be routed by any live epoch whose reads are not over, in which this node owns the key.
    pub(crate) fn admit_read(
        &mut self,
        from: NodeId,
        routed: u64,
        key: &Bytes,
    ) -> Result<Partition, Refusal> {
        let state = self.serving()?;
        let (newest, known) = (state.newest().clone(), state.newest().number());
        let partition = newest.partitions().of_key(key);
        self.admit_member(&newest, from)?;
        if routed > known {
            self.fetch_epoch(from);
            return Err(Refusal::EpochUnknown { routed, known });
        }
        let state = self.serving()?;
        state.admits_read(partition, routed).map_err(|floor| Refusal::ReadsMoved { routed, floor })?;
        let epoch = state.chain().get(routed).ok_or(Refusal::EpochRetired { routed, known })?;
        if !epoch.owns(self.id(), partition) {
            return Err(Refusal::NotOwner { known });
        }
        Ok(partition)
    }

    /// Whether a node's content of a partition may be taken: from its owners, its fallbacks, and from whoever may still
    /// hold what it owned (INV-NOZOMBIE).
    pub(crate) fn admit_holder(&mut self, from: NodeId, partition: Partition) -> Result<(), Refusal> {
        let known = self.ring.number();
        let holds = self.ring.state().is_some_and(|state| state.may_hold(from, partition));
        if holds || self.ring.fallbacks(partition).contains(&from) {
            Ok(())
        } else {
            Err(Refusal::NotOwner { known })
        }
    }

    /// A peer knows more of the ring, or less: what follows for what is routed next.
    pub(crate) fn misrouted(&mut self, from: NodeId, partition: Partition, refusal: &Refusal) {
        match *refusal {
            Refusal::EpochRetired { known, .. } if known > self.ring.number() => self.fetch_epoch(from),
            Refusal::ReadsMoved { floor, .. } if floor > self.ring.number() => self.fetch_epoch(from),
            Refusal::NotOwner { known } if known > self.ring.number() => self.fetch_epoch(from),
            Refusal::ReadsMoved { floor, .. } => {
                if let Some(state) = &mut self.ring.state {
                    state.reads_moved(partition, floor);
                }
            }
            Refusal::NotOwner { .. } => self.ask_progress(from),
            _ => {}
        }
    }
}

/// Adopting epochs.
impl<S: Storage> Replica<S> {
    pub(crate) fn adopt_epoch(&mut self, ticket: u64, epoch: Epoch) {
        let members: Vec<NodeId> = epoch.members().iter().map(|member| member.id).collect();
        match self.ring.with(epoch.clone()) {
            Ok(Some(_)) if self.ring.keeping.is_some() => {
                if self.ring.waiting.len() == WAITING_MAX {
                    return self.tell_adopted(ticket, Err(AdoptError::Busy));
                }
                self.ring.waiting.push((ticket, epoch));
            }
            Ok(Some(chain)) => self.keep_chain(Some(ticket), chain, Vec::new()),
            Ok(None) => {
                if let Some(known) = self.ring.current().map(|epoch| epoch.mark()) {
                    self.tell_adopted(ticket, Ok(known));
                }
            }
            Err(error) => {
                // The epochs between are told by whoever has them.
                if matches!(error, AdoptError::Behind { .. }) {
                    let others: Vec<NodeId> = members.into_iter().filter(|id| *id != self.id()).collect();
                    if let Some(peer) = self.choose(others, 1).first() {
                        self.fetch_epoch(*peer);
                    }
                }
                self.tell_adopted(ticket, Err(error));
            }
        }
    }

    fn keep_chain(&mut self, ticket: Option<u64>, chain: Chain, floors: Vec<u64>) {
        let us = self.id();
        let mut next = match &self.ring.state {
            None => Transition::new(us, chain.clone()),
            Some(state) => Transition::remembered(us, state.to_remember()),
        };
        next.adopt(chain.clone(), &floors);
        if planted::is(Bug::AdoptBeforeKept) {
            self.install_chain(chain.clone(), &floors);
        }
        self.keep_ring(next.to_remember(), Some((chain, floors, ticket)));
    }

    fn keep_ring(&mut self, record: transition::Remembered, adopted: Option<Adopted>) {
        let document = self.next_number();
        let marks = record.marks.clone();
        self.ring.dirty = false;
        self.ring.keeping = Some(Keeping { document, adopted, marks });
        self.effects.push(Effect::Keep { ticket: document, record: Record::Ring(Arc::new(record)) });
    }

    fn tell_adopted(&mut self, ticket: u64, result: Result<EpochMark, AdoptError>) {
        self.effects.push(Effect::Adopted { ticket, result });
    }

    pub(crate) fn kept(&mut self, document: u64, result: Kept) {
        let Some(Keeping { adopted, marks, .. }) =
            self.ring.keeping.take_if(|kept| kept.document == document)
        else {
            return self.starts_kept(document, result);
        };
        if let Err(reason) = result {
            self.ring.dirty = true;
            if let Some((_, _, Some(ticket))) = adopted {
                self.tell_adopted(ticket, Err(AdoptError::Disk(reason)));
            }
            return self.adopt_waiting();
        }
        match adopted {
            Some((chain, floors, ticket)) => {
                let mark = chain.newest().mark();
                self.install_chain(chain, &floors);
                ticket.into_iter().for_each(|ticket| self.tell_adopted(ticket, Ok(mark)));
            }
            None => {
                if self.ring.state.as_mut().is_some_and(|state| state.install(marks)) {
                    self.ring.untold = true;
                    self.ask_soon();
                }
            }
        }
        self.adopt_waiting();
        self.ring_step();
    }

    fn adopt_waiting(&mut self) {
        for (ticket, epoch) in std::mem::take(&mut self.ring.waiting) {
            self.adopt_epoch(ticket, epoch);
        }
    }

    fn install_chain(&mut self, chain: Chain, floors: &[u64]) {
        let us = self.id();
        let before = self.ring.number();
        match &mut self.ring.state {
            Some(state) => state.adopt(chain, floors),
            None => self.ring.state.insert(Transition::new(us, chain.clone())).adopt(chain, floors),
        }
        if self.ring.number() > before {
            self.epoch_changed();
        }
    }

    /// What follows from the epochs that were just read or adopted.
    pub(crate) fn epoch_changed(&mut self) {
        self.ring.fallbacks.clear();
        self.ring.pace = Pace::begin(self.now.mono, self.syncing_count(), self.moved_bytes());
        self.forget_removed();
        self.begin_claim();
        self.end_rounds();
        self.look_for_rot();
        self.ask_marks();
        self.plan_exchanges();
        self.ask_soon();
    }

    /// What removed members say, and what is said about them, is ignored.
    pub(crate) fn forget_removed(&mut self) {
        let Some(epoch) = self.ring.current().cloned() else { return };
        for member in epoch.members().iter().filter(|member| !takes_part(&epoch, member.id)) {
            self.membership.forget(member.id);
        }
    }

    /// Gets the epochs of a peer that knows newer ones, one at a time; its next message tries again.
    pub(crate) fn fetch_epoch(&mut self, from: NodeId) {
        if !std::mem::replace(&mut self.ring.fetching, true) {
            self.call(from, Request::FetchRing, Purpose::Ring);
        }
    }

    pub(crate) fn epoch_fetched(&mut self, ending: Ending) {
        self.ring.fetching = false;
        let Ending::Response(Response::Ring(Some(Told { chain, floors }))) = ending else { return };
        if chain.newest().cluster() != self.ring.cluster {
            return;
        }
        let joined = match &self.ring.state {
            None => Ok(Some(chain)),
            Some(state) => state.chain().joined(&chain),
        };
        match joined {
            Ok(Some(chain)) if self.ring.keeping.is_none() => self.keep_chain(None, chain, floors),
            Ok(Some(_)) => {} // The next message of a peer that is ahead tries again.
            Ok(None) => {}
            Err(_) => self.stats.epochs_refused += 1,
        }
    }
}

/// How far a change of the ring is.
impl<S: Storage> Replica<S> {
    /// Does what has become possible, and says what has become true.
    pub(crate) fn ring_step(&mut self) {
        self.plan_anew();
        self.begin_comparing();
        self.look_for_leaving();
        if self.ring.keeping.is_some() || self.ring.state.is_none() || !self.claim.is_won() {
            return;
        }
        if self.ring.state.as_mut().is_some_and(Transition::retire) {
            self.ring.dirty = true;
        }
        let clear: BTreeSet<Partition> = self.clear_partitions();
        let healing = &self.healing;
        let Some(state) = &mut self.ring.state else { return };
        let marks = state.advance(|p| !healing.is_open(p), |p| clear.contains(&p));
        if marks.is_some() || self.ring.dirty {
            let mut record = state.to_remember();
            record.marks = marks.unwrap_or(record.marks);
            if planted::is(Bug::TellBeforeKept) {
                state.install(record.marks.clone());
            }
            self.keep_ring(record, None);
        } else {
            self.drop_proven();
        }
    }

    /// Other owners than before are compared with, since an epoch was retired, or is live after all: marks for a newer epoch say
    /// nothing of it.
    fn plan_anew(&mut self) {
        let revision = self.ring.state().map_or(0, Transition::revision);
        if std::mem::replace(&mut self.ring.planned, revision) != revision {
            self.plan_exchanges();
        }
    }

    /// In a new era all that was accepted before must be applied before anybody compares.
    fn begin_comparing(&mut self) {
        let Some(era) = self.ring.state().map(Transition::era) else { return };
        if self.ring.asked_era == Some(era) {
            return;
        }
        self.ring.asked_era = Some(era);
        self.wait_for_store(MergeFor::Barrier { era });
    }

    /// The store works in order: when it has found that there is nothing to forget, it has done what came before.
    pub(crate) fn wait_for_store(&mut self, purpose: MergeFor) {
        self.forget_key(HINTS, Bytes::from_static(b"barrier"), 0, purpose);
    }

    pub(crate) fn barrier_passed(&mut self, era: u64) {
        self.ring.applied_era = Some(era);
        self.exchange_all_soon();
        self.ring_step();
    }

    /// A partition was compared with a peer's, in an era.
    pub(crate) fn ring_compared(&mut self, era: u64, partition: Partition, peer: NodeId) {
        if let Some(state) = &mut self.ring.state {
            state.compared(era, partition, peer);
        }
    }

    /// Partitions of which this node, which does not own them, holds nothing.
    fn clear_partitions(&mut self) -> BTreeSet<Partition> {
        // What is not applied yet is not held, and will be.
        let (Some(epoch), Some(_)) = (self.ring.current().cloned(), self.ring.comparable_era()) else {
            return BTreeSet::new();
        };
        let us = self.id();
        let hinted = self.hinted_partitions();
        let mut clear = BTreeSet::new();
        for partition in epoch.partitions().iter().filter(|partition| !epoch.owns(us, *partition)) {
            let may_hint = |ring: &mut Ring| ring.fallbacks(partition).contains(&us);
            let no_hint = hinted.as_ref().is_some_and(|hinted| !hinted.contains(&partition));
            if !self.holds(partition) && (no_hint || may_hint(&mut self.ring)) {
                clear.insert(partition);
            }
        }
        clear
    }

    pub(crate) fn holds(&self, partition: Partition) -> bool {
        self.storage.access().partition_usage(partition).keys > 0
    }

    /// Asks a peer how far it knows everybody to be.
    pub(crate) fn ask_progress(&mut self, peer: NodeId) {
        let Some(state) = self.ring.state() else { return };
        let known = state.known();
        self.call(peer, Request::Progress { known }, Purpose::Progress);
    }

    pub(crate) fn serve_progress(&mut self, from: NodeId, request: u64, known: &[Known]) {
        let response = match self.ring.state() {
            Some(state) => {
                let (oldest, newest) = (state.chain().oldest().number(), state.newest().number());
                Response::Progress { oldest, newest, marks: state.news_for(known) }
            }
            None => Response::Refused(Refusal::NoEpoch),
        };
        self.respond(from, request, response);
        if self.ring.state().is_some_and(|state| state.is_behind(known)) {
            self.ask_progress(from);
        }
    }

    pub(crate) fn progress_told(&mut self, from: NodeId, ending: Ending) {
        let Ending::Response(Response::Progress { oldest, newest, marks }) = ending else { return };
        let Some(state) = &mut self.ring.state else { return };
        let mut news = false;
        for (node, marks) in marks.into_iter().take(MARKS_TOLD_MAX) {
            news |= state.learn(node, marks);
        }
        if newest > state.newest().number() || oldest > state.chain().oldest().number() {
            self.fetch_epoch(from);
        }
        if news {
            self.ask_soon();
            self.ring_step();
        }
    }

    fn ask_soon(&mut self) {
        self.ring.ask_after = ASK_MIN;
        if self.ring.ask_at.is_none_or(|at| at > self.now.mono + ASK_MIN) {
            self.set_ask_timer();
        }
    }

    fn set_ask_timer(&mut self) {
        let at = self.now.mono + self.ring.ask_after;
        if let Some(before) = self.ring.ask_at.replace(at) {
            self.timers.cancel(before, Timer::Ring);
        }
        self.timers.set(at, Timer::Ring);
    }

    /// Asks some members how far they are, and looks what has become possible here, until nothing is left to do.
    pub(crate) fn ring_due(&mut self) {
        self.ring.ask_at = None;
        let Some(state) = self.ring.state() else { return };
        let (epoch, done) = (state.newest().clone(), state.all_settled());
        if std::mem::take(&mut self.ring.untold) || !done {
            let others = epoch.members().iter().map(|member| member.id);
            let others: Vec<NodeId> =
                others.filter(|id| *id != self.id() && takes_part(&epoch, *id) && self.is_up(*id)).collect();
            for peer in self.choose(others, ASKED) {
                self.ask_progress(peer);
            }
        }
        self.ring_step();
        if !done || !self.ring.is_kept() || !self.ring.leaving.is_empty() {
            self.ring.ask_after = (self.ring.ask_after * 5 / 4).min(ASK_MAX);
            self.set_ask_timer();
        }
    }

    /// Some of these, by the dice.
    fn choose(&mut self, mut from: Vec<NodeId>, count: usize) -> Vec<NodeId> {
        let mut chosen = Vec::new();
        while chosen.len() < count && !from.is_empty() {
            let at = (self.dice)() as usize % from.len();
            chosen.push(from.swap_remove(at));
        }
        chosen
    }

    /// How far a change of the ring is.
    pub fn ring_status(&self) -> Option<RingStatus> {
        let state = self.ring.state()?;
        let (now, pace, syncing) = (self.now.mono, &self.ring.pace, self.syncing_count());
        let leaving = self.ring.leaving.iter();
        let keys_leaving = leaving.map(|p| self.storage.access().partition_usage(*p).keys).sum();
        Some(RingStatus {
            oldest: state.chain().oldest().number(),
            newest: state.newest().number(),
            unretired: state.unretired_count(),
            syncing,
            leaving: self.ring.leaving.len(),
            keys_leaving,
            moved_bytes: pace.moved(self.moved_bytes()),
            moved_bytes_per_second: pace.rate(now, self.moved_bytes()),
            remaining: pace.remaining(now, syncing).filter(|_| syncing > 0),
            waiting_for: state.waiting_for(),
            settled: state.all_settled(),
        })
    }

    fn syncing_count(&self) -> usize {
        let syncing = |state: &Transition| {
            state.newest().partitions().iter().filter(|partition| state.is_syncing(*partition)).count()
        };
        self.ring.state().map_or(0, syncing)
    }

    fn moved_bytes(&self) -> u64 {
        self.stats.exchange_bytes_in + self.stats.exchange_bytes_out
    }

    /// The ring, as this node knows it: for the simulator's checkers.
    pub fn ring_state(&self) -> Option<&Transition> {
        self.ring.state()
    }
}
