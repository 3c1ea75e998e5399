//! Epochs come: from the operator, or from a peer that is ahead. They are on the disk before they are used.

use std::sync::Arc;

use quorate_core::NodeId;
use quorate_core::planted::{self, Bug};
use quorate_core::ring::{Epoch, EpochMark};
use quorate_core::transition::{self, Chain, Told, Transition};
use quorate_wire::peer::{Request, Response};

use super::{Adopted, Keeping, takes_part};
use crate::calls::{Ending, Purpose};
use crate::interface::{AdoptError, Effect, Kept, Record};
use crate::pace::Pace;
use crate::replica::Replica;
use crate::storage::Storage;

/// Epochs that may wait for the disk.
const WAITING_MAX: usize = 8;

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

    pub(super) fn keep_ring(&mut self, record: transition::Remembered, adopted: Option<Adopted>) {
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
