//! Coordinates writes: an owner makes the dot, all owners get the set at once, the client is answered at W.
//!
//! The set goes to the peers while the local log still syncs. Owners that are away get a hint at a fallback.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use quorate_core::NodeId;
use quorate_core::causality::{Event, VersionSet};
use quorate_core::limits::SIBLINGS_WARN;
use quorate_core::planted::{self, Bug};
use quorate_core::quorum::{Failure, QuorumKind, WriteDecision, WriteQuorum};
use quorate_core::ring::{Epoch, Partition};
use quorate_storage::{Change, Committed, Write, WriteError};
use quorate_wire::peer::{Cause, ClientWrite, Receipt, Refusal, Request, Response, Written, set_bytes};

use crate::calls::{Ending, Purpose, failure_of};
use crate::interface::{Answer, Completion, Done};
use crate::repair::LoadFor;
use crate::replica::Replica;
use crate::ring::passes;
use crate::serve::refusal;
use crate::storage::Storage;
use crate::timers::Timer;

/// How often each part of a write may be sent again because something was collected meanwhile. A large value is long on its
/// way, and nodes that started together collect together.
const RESENDS_MAX: usize = 8;
/// How soon a request is routed again that a replica refused because the ring changes; the next time after twice as long.
const REROUTE_AFTER: Duration = Duration::from_millis(15);
/// No later than that.
const REROUTE_AFTER_MAX: Duration = Duration::from_millis(240);

/// Who waits for a write.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Origin {
    Client { ticket: u64 },
    Peer { node: NodeId, request: u64 },
}

/// A write in progress.
pub(crate) struct WriteOperation {
    /// None once it was answered.
    origin: Option<Origin>,
    /// The newest when it was routed last.
    epoch: Arc<Epoch>,
    partition: Partition,
    key: Bytes,
    ends: Duration,
    hedge_at: Option<Duration>,
    pub(crate) reroute: Reroute,
    calls: Vec<u64>,
    held_bytes: usize,
    /// Counts its content messages; drawn before anything of the key was read, so that what is drawn later knows
    /// all that was held then (see `quorate_core::collection`).
    sent: u64,
    stage: Stage,
}

/// When a request is routed again.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Reroute {
    /// None when nothing was refused since the last time.
    pub(crate) at: Option<Duration>,
    pub(crate) times: u32,
}

impl Reroute {
    /// When, if that was not known before: mostly at once, and more rarely where that does not help.
    fn set(&mut self, now: Duration) -> Option<Duration> {
        if self.at.is_some() {
            return None;
        }
        let after = REROUTE_AFTER.saturating_mul(1 << self.times.min(8)).min(REROUTE_AFTER_MAX);
        self.times += 1;
        self.at = Some(now + after);
        self.at
    }
}

enum Stage {
    /// Another owner coordinates it; these may be tried when it cannot be reached.
    Forwarded { write: ClientWrite, others: Vec<NodeId> },
    /// The local store makes the dot.
    Preparing { needed: u8, write: ClientWrite },
    /// It is on its way to the owners.
    Spreading {
        quorum: WriteQuorum,
        needed: u8,
        set: VersionSet,
        stored: bool,
        stale: Vec<NodeId>,
        resends: usize,
        /// Who refused it because the ring changes.
        misrouted: Vec<NodeId>,
    },
}

impl<S: Storage> Replica<S> {
    pub(crate) fn begin_write(&mut self, origin: Origin, key: Bytes, write: ClientWrite, time: Duration) {
        if let Err(refusal) = self.try_begin_write(origin, key, write, time) {
            self.answer_write(origin, Err(refusal));
        }
    }

    fn try_begin_write(
        &mut self,
        origin: Origin,
        key: Bytes,
        write: ClientWrite,
        time: Duration,
    ) -> Result<(), Refusal> {
        let epoch = self.serving_epoch()?;
        let replication = epoch.replication();
        let needed = write.consistency.needed(replication.write_quorum, replication.factor);
        let needed = needed.map_err(Refusal::Consistency)?;
        let partition = epoch.partitions().of_key(&key);
        let held_bytes = key.len() + write.value.as_ref().map_or(0, Bytes::len);
        self.has_room(held_bytes)?;
        let ends = self.now.mono + time;
        let operation = self.next_number();
        let is_owner = self.expect_coordinator(partition).is_ok();
        let stage = if is_owner {
            self.expect_reachable(partition, needed)?;
            Stage::Preparing { needed, write: write.clone() }
        } else {
            Stage::Forwarded { write: write.clone(), others: self.forward_targets(partition) }
        };
        let (origin, calls) = (Some(origin), Vec::new());
        let key_of = key.clone();
        let sent = self.next_sent();
        let op = WriteOperation {
            origin,
            epoch,
            partition,
            key,
            ends,
            hedge_at: None,
            reroute: Reroute::default(),
            calls,
            held_bytes,
            sent,
            stage,
        };
        self.held_bytes += held_bytes;
        self.writes.insert(operation, op);
        self.timers.set(ends, Timer::Write(operation));
        if is_owner {
            self.prepare(operation, partition, key_of, write);
        } else {
            self.forward_next(operation, Refusal::Unavailable { needed, reachable: 0 });
        }
        Ok(())
    }

    /// Partitions of which this node makes a version, or still sends one: until its time is over, to a fallback as well.
    pub(crate) fn partitions_written(&self) -> BTreeSet<Partition> {
        let makes = |op: &&WriteOperation| !matches!(op.stage, Stage::Forwarded { .. });
        self.writes.values().filter(makes).map(|op| op.partition).collect()
    }

    /// Refuses before anything is written when too few can be reached: *not written* beats *indeterminate*.
    fn expect_reachable(&mut self, partition: Partition, needed: u8) -> Result<(), Refusal> {
        let sets = self.serving()?.write_sets(partition);
        let up = |set: &Vec<NodeId>| set.iter().filter(|owner| self.is_up(**owner)).count() as u8;
        let up = sets.iter().map(up).min().unwrap_or(0);
        let stand_ins = match self.config.kind {
            QuorumKind::Sloppy if up < needed => {
                let fallbacks = self.ring.fallbacks(partition);
                fallbacks.iter().filter(|fallback| self.is_up(**fallback)).count() as u8
            }
            _ => 0,
        };
        let reachable = up.saturating_add(stand_ins);
        if reachable < needed { Err(Refusal::Unavailable { needed, reachable }) } else { Ok(()) }
    }

    fn prepare(&mut self, operation: u64, partition: Partition, key: Bytes, write: ClientWrite) {
        let ClientWrite { context, value, expires, policy, .. } = write;
        let event = Event { context, stamp: self.stamp(), value, expires, policy };
        let (prepared, stored) = (self.inbox.clone(), self.inbox.clone());
        self.storage.access().submit(Write {
            partition,
            key,
            change: Change::Event(event),
            prepared: Some(Box::new(move |set| {
                prepared(Completion(Done::Prepared { operation, set: set.clone() }));
            })),
            done: Box::new(move |result| stored(Completion(Done::Stored { operation, result }))),
        });
    }

    /// The set is known: the other owners get it.
    pub(crate) fn prepared(&mut self, operation: u64, set: VersionSet) {
        let Some(state) = self.ring.state() else { return };
        let Some(op) = self.writes.get_mut(&operation) else { return };
        let Stage::Preparing { needed, .. } = op.stage else { return };
        let owners = state.owners(op.partition);
        let quorum = WriteQuorum::new(state.write_sets(op.partition), needed, self.config.kind);
        op.epoch = state.newest().clone();
        let bytes = set_bytes(&set);
        op.held_bytes += bytes;
        self.held_bytes += bytes;
        let (stale, misrouted) = (Vec::new(), Vec::new());
        op.stage = Stage::Spreading { quorum, needed, set, stored: false, stale, resends: 0, misrouted };
        self.spread(operation, owners);
        self.set_write_hedge(operation);
    }

    /// Sends the set to these owners.
    fn spread(&mut self, operation: u64, owners: Vec<NodeId>) {
        let us = self.id();
        let Some(op) = self.writes.get(&operation) else { return };
        let Stage::Spreading { set, .. } = &op.stage else { return };
        let (epoch, key, sent, set) = (op.epoch.number(), op.key.clone(), op.sent, set.clone());
        for owner in owners.into_iter().filter(|owner| *owner != us) {
            if !self.is_up(owner) {
                self.stats.parts_unreachable += 1;
                self.hint(operation, owner);
                self.settle(operation, |quorum| quorum.failed(owner, Failure::NotApplied));
                continue;
            }
            let (key, set) = (key.clone(), set.clone());
            let request = Request::Replicate { epoch, sent, cause: Cause::Write, key, set };
            let call = self.call(owner, request, Purpose::Part { operation });
            self.own_call(operation, call);
        }
    }

    /// The ring may have changed on the way of a request: it is routed again, by what is known now.
    pub(crate) fn reroute(&mut self, operation: u64) {
        if self.reads.contains_key(&operation) {
            return self.reroute_read(operation);
        }
        let Some(op) = self.writes.get_mut(&operation) else { return };
        op.reroute.at = None;
        self.stats.rerouted += 1;
        let (partition, ends) = (op.partition, op.ends);
        if let Stage::Forwarded { .. } = &op.stage {
            let targets = self.forward_targets(partition);
            if let Some(WriteOperation { stage: Stage::Forwarded { others, .. }, .. }) =
                self.writes.get_mut(&operation)
            {
                *others = targets;
            }
            let known = self.ring.number();
            return self.forward_next(operation, Refusal::NotOwner { known });
        }
        let Some(state) = self.ring.state() else { return };
        let Stage::Spreading { quorum, misrouted, .. } = &mut op.stage else { return };
        op.epoch = state.newest().clone();
        let mut to_send = quorum.reroute(state.write_sets(partition));
        let again = std::mem::take(misrouted);
        let (wanted, rest): (Vec<NodeId>, Vec<NodeId>) = again.into_iter().partition(|id| quorum.wants(*id));
        to_send.extend(wanted);
        if ends > self.now.mono {
            self.spread(operation, to_send);
        }
        // Their epoch is retired: they count no more.
        rest.into_iter()
            .for_each(|owner| self.settle(operation, |quorum| quorum.failed(owner, Failure::NotApplied)));
        self.settle(operation, |quorum| quorum.decision());
    }

    /// Routes a request again in a moment, when this node has learned why it was refused.
    pub(crate) fn reroute_soon(&mut self, operation: u64) {
        let reroute = match (self.writes.get_mut(&operation), self.reads.get_mut(&operation)) {
            (Some(op), _) => &mut op.reroute,
            (None, Some(op)) => &mut op.reroute,
            (None, None) => return,
        };
        if let Some(at) = reroute.set(self.now.mono) {
            self.timers.set(at, Timer::Reroute(operation));
        }
    }

    /// In a sloppy quorum a fallback may stand for an owner that is slow, as for one that is down.
    fn set_write_hedge(&mut self, operation: u64) {
        let Some(op) = self.writes.get(&operation) else { return };
        if self.config.kind == QuorumKind::Strict {
            return;
        }
        let owners = self.ring.state().map(|state| state.owners(op.partition)).unwrap_or_default();
        let slowest = owners.into_iter().map(|owner| self.calls.hedge_after(owner)).max();
        let at = self.now.mono + slowest.unwrap_or_default().min(self.config.request_timeout / 4);
        self.timers.set(at, Timer::WriteHedge(operation));
        if let Some(op) = self.writes.get_mut(&operation) {
            op.hedge_at = Some(at);
        }
    }

    pub(crate) fn write_hedge(&mut self, operation: u64) {
        let us = self.id();
        let Some(op) = self.writes.get_mut(&operation) else { return };
        op.hedge_at = None;
        if let (Some(_), Stage::Spreading { quorum, .. }) = (op.origin, &op.stage) {
            let missing: Vec<NodeId> = quorum.missing().filter(|owner| *owner != us).collect();
            self.stats.hedges += missing.len() as u64;
            missing.into_iter().for_each(|owner| self.hint(operation, owner));
        }
    }

    fn own_call(&mut self, operation: u64, call: u64) {
        if let Some(op) = self.writes.get_mut(&operation) {
            op.calls.push(call);
        }
    }

    /// Gives the set to a fallback that stands for an owner, if there is one.
    fn hint(&mut self, operation: u64, target: NodeId) {
        let Some(op) = self.writes.get_mut(&operation) else { return };
        let Stage::Spreading { quorum, set, .. } = &mut op.stage else { return };
        let position = op.epoch.owners(op.partition).position(|owner| owner.id == target).unwrap_or(0);
        let fallbacks = self.ring.fallbacks(op.partition);
        let (epoch, key, set, sent) = (op.epoch.number(), op.key.clone(), set.clone(), op.sent);
        let mut up = fallbacks.iter().copied().cycle().skip(position).take(fallbacks.len());
        // Owners that are away together have different fallbacks, as far as there are.
        let membership = &self.membership;
        let chosen = up.find(|id| membership.get(*id).is_some_and(|known| known.state.is_live()));
        let Some(fallback) = chosen else { return };
        if quorum.hinting(target) {
            let request = Request::Hint { epoch, sent, target, key, set };
            let call = self.call(fallback, request, Purpose::Hint { operation, target });
            self.own_call(operation, call);
        }
    }

    /// This owner cannot coordinate a write that a client brought: another one may.
    fn refused_here(&mut self, operation: u64, write: ClientWrite, refusal: Refusal) {
        let Some(op) = self.writes.get(&operation) else { return };
        if !matches!(op.origin, Some(Origin::Client { .. })) || !another_may(&refusal) {
            return self.finish_write(operation, Err(refusal));
        }
        let partition = op.partition;
        let others = self.forward_targets(partition);
        if let Some(op) = self.writes.get_mut(&operation) {
            op.stage = Stage::Forwarded { write, others };
        }
        self.forward_next(operation, refusal);
    }

    /// The local part is durable, or never will be.
    pub(crate) fn stored(&mut self, operation: u64, result: Result<Committed, WriteError>) {
        let us = self.id();
        let Some(op) = self.writes.get_mut(&operation) else { return };
        if let Stage::Spreading { stored, .. } = &mut op.stage {
            *stored = result.is_ok();
        }
        match (result.map_err(refusal), &op.stage) {
            // Refused before it was prepared: no owner was sent anything.
            (Err(refusal), Stage::Preparing { write, .. }) => {
                let write = write.clone();
                self.refused_here(operation, write, refusal);
            }
            (Ok(_), _) => {
                self.settle(operation, |quorum| quorum.acknowledged(us));
                self.resend_stale(operation);
            }
            (Err(refusal), _) => {
                self.settle(operation, |quorum| quorum.failed(us, failure_of(&refusal)));
            }
        }
    }

    pub(crate) fn part_ended(&mut self, operation: u64, owner: NodeId, ending: &Ending) {
        match ending {
            Ending::Response(Response::Applied) => {
                self.stats.parts_acknowledged += 1;
                return self.settle(operation, |quorum| quorum.acknowledged(owner));
            }
            Ending::Response(Response::Refused(Refusal::Stale)) if self.may_resend(operation, owner) => {
                return self.resend_stale(operation);
            }
            Ending::Response(Response::Refused(refusal)) if self.may_reroute(operation, refusal) => {
                let Some(op) = self.writes.get_mut(&operation) else { return };
                let partition = op.partition;
                if let Stage::Spreading { misrouted, .. } = &mut op.stage {
                    misrouted.push(owner);
                }
                self.misrouted(owner, partition, refusal);
                return self.reroute_soon(operation);
            }
            Ending::Response(_) => self.stats.parts_refused += 1,
            Ending::NotSent => self.stats.parts_unreachable += 1,
            Ending::Lost => self.stats.parts_lost += 1,
        }
        // The hint first: it may be what keeps the write from being given up.
        self.hint(operation, owner);
        self.settle(operation, |quorum| quorum.failed(owner, ending.failure()));
    }

    /// Whether the part is sent again that was refused so. One that only starts gets a hint as soon as nobody waits for it:
    /// who knows when its start is claimed.
    fn may_reroute(&self, operation: u64, refusal: &Refusal) -> bool {
        let is_waited_for = self.writes.get(&operation).is_some_and(|op| op.origin.is_some());
        passes(refusal, self.ring.number()) && (is_waited_for || !matches!(refusal, Refusal::Starting))
    }

    /// Something was collected while the message was on its way: what it carried may be too old, and what is held here
    /// now is not. It holds the write as soon as that is stored.
    fn may_resend(&mut self, operation: u64, owner: NodeId) -> bool {
        let Some(op) = self.writes.get_mut(&operation) else { return false };
        let parts = op.epoch.owners(op.partition).count();
        let Stage::Spreading { stale, resends, .. } = &mut op.stage else { return false };
        *resends += 1;
        let may = *resends <= RESENDS_MAX * parts;
        if may {
            stale.push(owner);
        }
        may
    }

    fn resend_stale(&mut self, operation: u64) {
        let Some(op) = self.writes.get_mut(&operation) else { return };
        let Stage::Spreading { stored: true, stale, .. } = &mut op.stage else { return };
        let (stale, partition, key) = (std::mem::take(stale), op.partition, op.key.clone());
        for owner in stale {
            let sent = self.next_sent();
            self.load(partition, key.clone(), LoadFor::Resend { operation, owner, sent });
        }
    }

    pub(crate) fn resend(&mut self, operation: u64, owner: NodeId, sent: u64, set: Option<VersionSet>) {
        let Some(op) = self.writes.get(&operation) else { return };
        let Some(set) = set else {
            return self.settle(operation, |quorum| quorum.failed(owner, Failure::NotApplied));
        };
        let (epoch, key) = (op.epoch.number(), op.key.clone());
        let request = Request::Replicate { epoch, sent, cause: Cause::Write, key, set };
        let call = self.call(owner, request, Purpose::Part { operation });
        self.own_call(operation, call);
    }

    pub(crate) fn hint_ended(&mut self, operation: u64, target: NodeId, ending: &Ending) {
        let kept = matches!(ending, Ending::Response(Response::Applied));
        self.settle(operation, |quorum| match kept {
            true => quorum.hinted(target),
            false => quorum.hint_failed(target, ending.failure()),
        });
    }

    /// Takes in one part's end; answers when that decides it, and forgets it when nothing is open.
    fn settle(&mut self, operation: u64, part: impl FnOnce(&mut WriteQuorum) -> WriteDecision) {
        let Some(op) = self.writes.get_mut(&operation) else { return };
        let Stage::Spreading { quorum, needed, .. } = &mut op.stage else { return };
        let (decision, needed) = (part(quorum), *needed);
        let complete = quorum.complete();
        match decision {
            WriteDecision::Wait => {}
            WriteDecision::Acknowledged { replicas, hints } => {
                self.acknowledge(operation, needed, replicas, hints);
            }
            WriteDecision::NotWritten => {
                self.decide(operation, Err(Refusal::Unavailable { needed, reachable: 0 }));
            }
            WriteDecision::Indeterminate { replicas } => {
                self.decide(operation, Err(Refusal::Indeterminate { needed, acknowledged: replicas }));
            }
        }
        if complete && decision != WriteDecision::Wait {
            self.remove_write(operation);
        }
    }

    fn acknowledge(&mut self, operation: u64, needed: u8, replicas: u8, hints: u8) {
        let Some(op) = self.writes.get(&operation).filter(|op| op.origin.is_some()) else { return };
        let Stage::Spreading { set, .. } = &op.stage else { return };
        let kind = self.config.kind;
        let receipt = Receipt { epoch: op.epoch.number(), replicas, hints, needed, kind };
        let siblings = set.versions().len();
        let written = Written { context: set.context().clone(), siblings: siblings as u32, receipt };
        self.stats.sibling_warnings += u64::from(siblings >= SIBLINGS_WARN);
        self.stats.sloppy_writes += u64::from(replicas < needed);
        self.decide(operation, Ok(written));
    }

    /// Answers whoever waits, once.
    fn decide(&mut self, operation: u64, result: Result<Written, Refusal>) {
        if let Some(origin) = self.writes.get_mut(&operation).and_then(|op| op.origin.take()) {
            self.answer_write(origin, result);
        }
    }

    fn finish_write(&mut self, operation: u64, result: Result<Written, Refusal>) {
        self.decide(operation, result);
        self.remove_write(operation);
    }

    fn remove_write(&mut self, operation: u64) {
        let Some(op) = self.writes.remove(&operation) else { return };
        self.timers.cancel(op.ends, Timer::Write(operation));
        if let Some(at) = op.hedge_at {
            self.timers.cancel(at, Timer::WriteHedge(operation));
        }
        if let Some(at) = op.reroute.at {
            self.timers.cancel(at, Timer::Reroute(operation));
        }
        self.calls.forget(&op.calls);
        self.held_bytes -= op.held_bytes;
    }

    pub(crate) fn write_expired(&mut self, operation: u64) {
        let Some(op) = self.writes.get_mut(&operation) else { return };
        let needed = match &mut op.stage {
            Stage::Spreading { quorum, .. } => {
                // Only now is it known who missed it for good; the operation ends, so this is not waited for.
                let missing: Vec<NodeId> =
                    quorum.missing().filter(|id| *id != self.identity.actor.node).collect();
                missing.into_iter().for_each(|owner| self.hint(operation, owner));
                self.settle(operation, WriteQuorum::expired);
                return self.remove_write(operation);
            }
            // The disk hangs, or the owner that coordinates it: it cannot be taken back.
            Stage::Preparing { needed, .. } => *needed,
            Stage::Forwarded { .. } => op.epoch.replication().write_quorum,
        };
        let refusal = if planted::is(Bug::TimeoutMeansNotWritten) {
            Refusal::Unavailable { needed, reachable: 0 }
        } else {
            Refusal::Indeterminate { needed, acknowledged: 0 }
        };
        self.finish_write(operation, Err(refusal));
    }

    fn answer_write(&mut self, origin: Origin, result: Result<Written, Refusal>) {
        match origin {
            Origin::Client { ticket } => {
                self.answer(ticket, result.map_or_else(Answer::Refused, Answer::Written));
            }
            Origin::Peer { node, request } => {
                self.respond(node, request, result.map_or_else(Response::Refused, Response::Written));
            }
        }
    }
}

/// Writes that another owner coordinates.
impl<S: Storage> Replica<S> {
    /// The owners, the one to try first last: whoever is up and answers fast; who is called down may be back.
    ///
    /// They are those whom reads ask, since they know most of the key.
    fn forward_targets(&self, partition: Partition) -> Vec<NodeId> {
        let Some(state) = self.ring.state() else { return Vec::new() };
        let mut owners: Vec<NodeId> =
            state.read_by(partition).owners(partition).map(|owner| owner.id).collect();
        owners.retain(|owner| *owner != self.id());
        owners.sort_by_key(|owner| (self.is_up(*owner), std::cmp::Reverse(self.calls.hedge_after(*owner))));
        owners
    }

    /// Tries the next owner, or gives up with what the last one said.
    fn forward_next(&mut self, operation: u64, last: Refusal) {
        let Some(op) = self.writes.get_mut(&operation) else { return };
        let Stage::Forwarded { write, others } = &mut op.stage else { return };
        let Some(owner) = others.pop() else {
            return match passes(&last, self.ring.number()) {
                true => self.reroute_soon(operation),
                false => self.finish_write(operation, Err(last)),
            };
        };
        let time = op.ends.saturating_sub(self.now.mono).as_millis();
        let timeout_ms = u32::try_from(time).unwrap_or(u32::MAX);
        let (epoch, key, write) = (op.epoch.number(), op.key.clone(), write.clone());
        self.stats.writes_forwarded += 1;
        let request = Request::Write { epoch, key, write, timeout_ms };
        let call = self.call(owner, request, Purpose::Forward { operation });
        self.own_call(operation, call);
    }

    pub(crate) fn forward_ended(&mut self, operation: u64, from: NodeId, ending: Ending) {
        let Some(op) = self.writes.get(&operation) else { return };
        let needed = op.epoch.replication().write_quorum;
        match ending {
            Ending::Response(Response::Written(written)) => self.finish_write(operation, Ok(written)),
            // Not written, for a reason that another owner may not have.
            Ending::Response(Response::Refused(refusal)) if another_may(&refusal) => {
                let partition = op.partition;
                self.misrouted(from, partition, &refusal);
                self.forward_next(operation, refusal);
            }
            Ending::Response(Response::Refused(refusal)) => self.finish_write(operation, Err(refusal)),
            Ending::NotSent => self.forward_next(operation, Refusal::Unavailable { needed, reachable: 0 }),
            Ending::Response(_) | Ending::Lost => {
                self.finish_write(operation, Err(Refusal::Indeterminate { needed, acknowledged: 0 }));
            }
        }
    }
}

/// Whether another owner may take what this one refused.
fn another_may(refusal: &Refusal) -> bool {
    !matches!(
        refusal,
        Refusal::Indeterminate { .. }
            | Refusal::Write(_)
            | Refusal::Unavailable { .. }
            | Refusal::Consistency(_)
    )
}
