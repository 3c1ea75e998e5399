//! Coordinates reads: R owners are asked, one for the set and the others for its digest; who is slow is hedged;
//! who is stale is repaired after the answer.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use quorate_core::NodeId;
use quorate_core::causality::VersionSet;
use quorate_core::planted::{self, Bug};
use quorate_core::quorum::{Ask, Consistency, QuorumKind, ReadDecision, ReadQuorum, Reply};
use quorate_core::ring::{Epoch, Partition};
use quorate_wire::peer::{Receipt, Refusal, Request, Response, set_bytes};

use crate::calls::{Ending, Purpose};
use crate::interface::{Answer, Found};
use crate::repair::LoadFor;
use crate::replica::Replica;
use crate::ring::passes;
use crate::serve::MergeFor;
use crate::storage::Storage;
use crate::timers::Timer;
use crate::write::Reroute;

/// A read in progress.
pub(crate) struct ReadOperation {
    /// None once it was answered.
    ticket: Option<u64>,
    /// The one that it is routed by.
    epoch: Arc<Epoch>,
    partition: Partition,
    key: Bytes,
    quorum: ReadQuorum,
    needed: u8,
    ends: Duration,
    hedge_at: Option<Duration>,
    pub(crate) reroute: Reroute,
    /// Whether a replica refused it for a reason that passes by itself, such as a change of the ring.
    misrouted: bool,
    /// The partition's when it began.
    generation: u64,
    calls: Vec<u64>,
    held_bytes: usize,
}

impl<S: Storage> Replica<S> {
    pub(crate) fn begin_read(&mut self, ticket: u64, key: Bytes, consistency: Consistency) {
        if let Err(refusal) = self.try_begin_read(ticket, key, consistency) {
            self.answer(ticket, Answer::Refused(refusal));
        }
    }

    fn try_begin_read(&mut self, ticket: u64, key: Bytes, consistency: Consistency) -> Result<(), Refusal> {
        let state = self.serving()?;
        let newest = state.newest();
        let replication = newest.replication();
        let needed = consistency.needed(replication.read_quorum, replication.factor);
        let needed = needed.map_err(Refusal::Consistency)?;
        let partition = newest.partitions().of_key(&key);
        let epoch = state.read_by(partition).clone();
        self.has_room(key.len())?;
        let operation = self.next_number();
        let ends = self.now.mono + self.config.request_timeout;
        let held_bytes = key.len();
        let op = ReadOperation {
            ticket: Some(ticket),
            quorum: ReadQuorum::new(self.read_order(&epoch, partition), needed),
            epoch,
            partition,
            key,
            needed,
            ends,
            hedge_at: None,
            reroute: Reroute::default(),
            misrouted: false,
            generation: self.generation(partition),
            calls: Vec::new(),
            held_bytes,
        };
        self.held_bytes += held_bytes;
        self.reads.insert(operation, op);
        self.timers.set(ends, Timer::Read(operation));
        self.ask_more(operation);
        Ok(())
    }

    /// The ring changes: everybody is asked again, by what is known now.
    pub(crate) fn reroute_read(&mut self, operation: u64) {
        let Some(op) = self.reads.get_mut(&operation) else { return };
        (op.reroute.at, op.misrouted) = (None, false);
        let Some(state) = self.ring.state() else { return };
        let (epoch, partition, needed) = (state.read_by(op.partition).clone(), op.partition, op.needed);
        let calls = std::mem::take(&mut op.calls);
        let order = self.read_order(&epoch, partition);
        self.calls.forget(&calls);
        self.stats.rerouted += 1;
        if let Some(op) = self.reads.get_mut(&operation) {
            (op.epoch, op.quorum) = (epoch, ReadQuorum::new(order, needed));
        }
        self.ask_more(operation);
    }

    /// Ourselves first, it costs no hop; then whoever answers fast; who is called down last.
    fn read_order(&self, epoch: &Epoch, partition: Partition) -> Vec<NodeId> {
        let us = self.id();
        let mut owners: Vec<NodeId> = epoch.owners(partition).map(|owner| owner.id).collect();
        owners.sort_by_key(|id| (*id != us, !self.is_up(*id), self.calls.hedge_after(*id)));
        owners
    }

    /// Asks as many as are needed; without enough, the read ends.
    pub(crate) fn ask_more(&mut self, operation: u64) {
        loop {
            let Some(op) = self.reads.get_mut(&operation) else { return };
            let asks = op.quorum.asks();
            if asks.is_empty() {
                break;
            }
            asks.into_iter().for_each(|ask| self.ask(operation, ask));
        }
        self.set_hedge(operation);
        self.conclude(operation);
    }

    fn ask(&mut self, operation: u64, Ask { owner, whole }: Ask) {
        let Some(op) = self.reads.get_mut(&operation) else { return };
        let (partition, key, epoch) = (op.partition, op.key.clone(), op.epoch.number());
        if owner == self.id() {
            self.load(partition, key, LoadFor::Ask { operation });
        } else if self.is_up(owner) {
            let call = self.call(owner, Request::Read { epoch, key, whole }, Purpose::Ask { operation });
            if let Some(op) = self.reads.get_mut(&operation) {
                op.calls.push(call);
            }
        } else if let Some(op) = self.reads.get_mut(&operation) {
            op.quorum.failed(owner);
        }
    }

    /// When the slowest of those that were asked should have answered.
    fn set_hedge(&mut self, operation: u64) {
        let Some(op) = self.reads.get(&operation) else { return };
        let waits = op.ticket.is_some() && op.quorum.waiting() > 0 && op.hedge_at.is_none();
        if !waits {
            return;
        }
        let slowest = op.epoch.owners(op.partition).map(|owner| self.calls.hedge_after(owner.id)).max();
        let at = self.now.mono + slowest.unwrap_or_default().min(self.config.request_timeout / 4);
        self.timers.set(at, Timer::Hedge(operation));
        if let Some(op) = self.reads.get_mut(&operation) {
            op.hedge_at = Some(at);
        }
    }

    /// A replica is slow: another is asked as well.
    pub(crate) fn hedge(&mut self, operation: u64) {
        let Some(op) = self.reads.get_mut(&operation) else { return };
        op.hedge_at = None;
        if op.ticket.is_none() {
            return;
        }
        if let Some(ask) = op.quorum.hedge() {
            self.stats.hedges += 1;
            self.ask(operation, ask);
            self.ask_more(operation);
        }
    }

    pub(crate) fn ask_ended(&mut self, operation: u64, owner: NodeId, ending: Ending) {
        let reply = match ending {
            Ending::Response(Response::Refused(refusal)) if passes(&refusal, self.ring.number()) => {
                if let Some(op) = self.reads.get_mut(&operation) {
                    op.misrouted = true;
                    let partition = op.partition;
                    self.misrouted(owner, partition, &refusal);
                }
                Err(())
            }
            Ending::Response(Response::Stored(set)) => Ok(Reply::Set(set)),
            Ending::Response(Response::Digest(digest)) => Ok(Reply::Digest(digest)),
            _ => Err(()),
        };
        self.replied(operation, owner, reply);
        self.ask_more(operation);
    }

    /// An owner replied, or will not. The local one may do so within [`Replica::ask`], so this does not ask on.
    pub(crate) fn replied(&mut self, operation: u64, owner: NodeId, reply: Result<Reply, ()>) {
        let Some(op) = self.reads.get_mut(&operation) else { return };
        match reply {
            Ok(reply) => {
                if let Reply::Set(set) = &reply {
                    let bytes = set_bytes(set);
                    op.held_bytes += bytes;
                    self.held_bytes += bytes;
                }
                op.quorum.replied(owner, reply);
            }
            Err(()) => {
                op.quorum.failed(owner);
            }
        }
    }

    /// Answers when it is decided, and repairs when nothing more will come.
    fn conclude(&mut self, operation: u64) {
        let Some(op) = self.reads.get_mut(&operation) else { return };
        let (decision, needed) = (op.quorum.decision(), op.needed);
        let receipt = Receipt {
            epoch: op.epoch.number(),
            replicas: op.quorum.replies(),
            hints: 0,
            needed,
            kind: QuorumKind::Strict,
        };
        let answer = match decision {
            ReadDecision::Wait => return,
            ReadDecision::Unavailable if op.misrouted && op.ticket.is_some() => {
                return self.reroute_soon(operation);
            }
            ReadDecision::Again if op.ticket.is_some() => return self.read_again(operation),
            ReadDecision::Answer | ReadDecision::Again => {
                let set = op.quorum.merged().clone();
                Answer::Found(Found { set, receipt })
            }
            ReadDecision::Unavailable => {
                Answer::Refused(Refusal::Unavailable { needed, reachable: receipt.replicas })
            }
        };
        let complete = op.quorum.waiting() == 0;
        if let Some(ticket) = op.ticket.take() {
            self.answer(ticket, answer);
        }
        // Late answers are waited for, as long as there is room: they repair too.
        if complete || self.held_bytes > self.config.operation_bytes_max / 2 {
            self.end_read(operation);
        }
    }

    /// The owners did not say the same: they are asked once more. As another operation, so that nothing that was asked before
    /// is taken for an answer.
    fn read_again(&mut self, operation: u64) {
        let Some(op) = self.take_read(operation) else { return };
        let operation = self.next_number();
        self.timers.set(op.ends, Timer::Read(operation));
        let (quorum, generation) = (op.quorum.again(), self.generation(op.partition));
        let calls = Vec::new();
        let reroute = Reroute { at: None, ..op.reroute };
        let op = ReadOperation { quorum, generation, hedge_at: None, reroute, calls, ..op };
        self.reads.insert(operation, op);
        self.ask_more(operation);
    }

    /// Takes a read out, and all that waits for it.
    fn take_read(&mut self, operation: u64) -> Option<ReadOperation> {
        let op = self.reads.remove(&operation)?;
        self.timers.cancel(op.ends, Timer::Read(operation));
        if let Some(at) = op.hedge_at {
            self.timers.cancel(at, Timer::Hedge(operation));
        }
        if let Some(at) = op.reroute.at {
            self.timers.cancel(at, Timer::Reroute(operation));
        }
        self.calls.forget(&op.calls);
        Some(op)
    }

    pub(crate) fn read_expired(&mut self, operation: u64) {
        let Some(op) = self.reads.get_mut(&operation) else { return };
        let (needed, reachable) = (op.needed, op.quorum.replies());
        if let Some(ticket) = op.ticket.take() {
            self.answer(ticket, Answer::Refused(Refusal::Unavailable { needed, reachable }));
        }
        self.end_read(operation);
    }

    fn end_read(&mut self, operation: u64) {
        let Some(op) = self.take_read(operation) else { return };
        self.held_bytes -= op.held_bytes;
        self.repair_stale(&op);
    }

    /// Read repair: the owners that replied with less get what they lack.
    fn repair_stale(&mut self, op: &ReadOperation) {
        let stale = op.quorum.stale();
        if stale.is_empty() || planted::is(Bug::SkipReadRepair) {
            return;
        }
        let sources = op.quorum.sources();
        for owner in stale {
            if owner == self.id() {
                self.repair_ours(op, &sources);
            } else {
                let (epoch, key) = (self.ring.number(), op.key.clone());
                self.call(owner, Request::Repair { epoch, key, sources: sources.clone() }, Purpose::Repair);
            }
        }
    }

    fn repair_ours(&mut self, op: &ReadOperation, sources: &[NodeId]) {
        if self.expect_ours(op.partition).is_err() {
            return;
        }
        if op.generation == self.generation(op.partition) {
            let merged: VersionSet = op.quorum.merged().clone();
            self.observe(&merged);
            return self.merge(op.partition, op.key.clone(), merged, MergeFor::ReadRepair);
        }
        // What was read is older than a collection.
        if self.repair_from(sources.to_vec(), op.partition, op.key.clone(), None).is_err() {
            self.stats.read_repair(false);
        }
    }
}
