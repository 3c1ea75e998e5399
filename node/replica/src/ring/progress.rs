//! How far a change of the ring is: what has become true here is put on the disk and told, and others are asked.

use std::collections::BTreeSet;
use std::time::Duration;

use bytes::Bytes;
use quorate_core::NodeId;
use quorate_core::planted::{self, Bug};
use quorate_core::ring::Partition;
use quorate_core::transition::{Known, MARKS_TOLD_MAX, Transition};
use quorate_storage::HINTS;
use quorate_wire::peer::{Refusal, Request, Response};

use super::{Ring, takes_part};
use crate::calls::{Ending, Purpose};
use crate::interface::RingStatus;
use crate::replica::Replica;
use crate::serve::MergeFor;
use crate::storage::Storage;
use crate::timers::Timer;

/// How often others are asked how far they are, while that can change anything.
pub(super) const ASK_MIN: Duration = Duration::from_millis(100);
/// The same, when nobody had news for long.
const ASK_MAX: Duration = Duration::from_secs(5);
/// How many are asked each time.
const ASKED: usize = 2;

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

    /// Partitions of which this node, which does not own them, holds nothing. A write that it began as an owner is
    /// something: what it sends when its time is over may be older than a delete by then, and no fence knows of it.
    fn clear_partitions(&mut self) -> BTreeSet<Partition> {
        // What is not applied yet is not held, and will be.
        let (Some(epoch), Some(_)) = (self.ring.current().cloned(), self.ring.comparable_era()) else {
            return BTreeSet::new();
        };
        let us = self.id();
        let (hinted, written) = (self.hinted_partitions(), self.partitions_written());
        let mut clear = BTreeSet::new();
        for partition in epoch.partitions().iter().filter(|partition| !epoch.owns(us, *partition)) {
            let may_hint = |ring: &mut Ring| ring.fallbacks(partition).contains(&us);
            let no_hint = hinted.as_ref().is_some_and(|hinted| !hinted.contains(&partition));
            let holds = self.holds(partition) || written.contains(&partition);
            if !holds && (no_hint || may_hint(&mut self.ring)) {
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

    pub(super) fn ask_soon(&mut self) {
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
    pub(super) fn choose(&mut self, mut from: Vec<NodeId>, count: usize) -> Vec<NodeId> {
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

    pub(super) fn syncing_count(&self) -> usize {
        let syncing = |state: &Transition| {
            state.newest().partitions().iter().filter(|partition| state.is_syncing(*partition)).count()
        };
        self.ring.state().map_or(0, syncing)
    }

    pub(super) fn moved_bytes(&self) -> u64 {
        self.stats.exchange_bytes_in + self.stats.exchange_bytes_out
    }

    /// The ring, as this node knows it: for the simulator's checkers.
    pub fn ring_state(&self) -> Option<&Transition> {
        self.ring.state()
    }
}
