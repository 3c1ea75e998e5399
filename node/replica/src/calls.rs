//! Requests to peers that are open, and how fast peers answer.

use std::collections::BTreeMap;
use std::time::Duration;

use quorate_core::NodeId;
use quorate_core::membership::Peer;
use quorate_core::quorum::Failure;
use quorate_wire::peer::{Frame, Refusal, Request, Response};

use crate::interface::{Effect, Sender};
use crate::repair::Pull;
use crate::replica::Replica;
use crate::storage::Storage;
use crate::timers::Timer;

/// Before a peer was measured, it is taken to answer within this.
const LATENCY_UNKNOWN: Duration = Duration::from_millis(20);
/// A replica is never called slow sooner than this: asking another costs the others.
const HEDGE_AFTER_MIN: Duration = Duration::from_millis(2);

/// What a call is for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Purpose {
    /// A part of a write.
    Part { operation: u64 },
    /// The hint for an owner's part of a write.
    Hint { operation: u64, target: NodeId },
    /// The write that an owner coordinates for us.
    Forward { operation: u64 },
    /// A part of a read.
    Ask { operation: u64 },
    /// A set that this owner lacks.
    Pull(Pull),
    /// To tell a stale owner.
    Repair,
    /// This start's claim.
    Claim,
    /// Newer epochs.
    Ring,
    /// How far others are in a change of the ring.
    Progress,
    /// A hint on its way.
    Handoff { delivery: u64 },
    /// How far a sender has counted.
    Mark,
    /// A step of a collection that this node leads.
    Collection,
    /// A step of the exchange with a co-owner.
    Exchange { sequence: u64 },
}

impl Purpose {
    /// Calls of operations end with them; others need a timer.
    fn has_operation(self) -> bool {
        matches!(self, Self::Part { .. } | Self::Hint { .. } | Self::Forward { .. } | Self::Ask { .. })
    }
}

#[derive(Debug)]
pub(crate) struct Call {
    pub(crate) to: NodeId,
    pub(crate) purpose: Purpose,
    began: Duration,
    /// When it is given up, if no operation does that.
    ends: Option<Duration>,
}

/// How a call ended.
#[derive(Debug)]
pub(crate) enum Ending {
    Response(Response),
    /// It was certainly not sent.
    NotSent,
    /// The connection broke, or time ran out: it may have arrived.
    Lost,
}

impl Ending {
    /// What a write's part says that ended so, without an acknowledgement.
    pub(crate) fn failure(&self) -> Failure {
        match self {
            Self::NotSent => Failure::NotApplied,
            Self::Response(Response::Refused(refusal)) => failure_of(refusal),
            _ => Failure::Unknown,
        }
    }
}

/// What a refusal says about a write.
pub(crate) fn failure_of(refusal: &Refusal) -> Failure {
    match refusal {
        Refusal::Indeterminate { .. } => Failure::Unknown,
        _ => Failure::NotApplied,
    }
}

/// How fast a peer answers: Jacobson's estimator (1988), as TCP has it.
#[derive(Clone, Copy, Debug)]
struct Latency {
    smoothed: Duration,
    variation: Duration,
}

#[derive(Default)]
pub(crate) struct Calls {
    open: BTreeMap<u64, Call>,
    latency: BTreeMap<NodeId, Latency>,
}

impl Calls {
    pub(crate) fn open_count(&self) -> usize {
        self.open.len()
    }

    pub(crate) fn latency(&self, peer: NodeId) -> Option<Duration> {
        self.latency.get(&peer).map(|latency| latency.smoothed)
    }

    /// After which time a replica counts as slow.
    pub(crate) fn hedge_after(&self, peer: NodeId) -> Duration {
        let expected = self.latency.get(&peer).map(|l| l.smoothed + 4 * l.variation);
        expected.unwrap_or(LATENCY_UNKNOWN).max(HEDGE_AFTER_MIN)
    }

    pub(crate) fn forget(&mut self, ids: &[u64]) {
        for id in ids {
            self.open.remove(id);
        }
    }

    fn measured(&mut self, peer: NodeId, took: Duration) {
        let latency = self.latency.entry(peer).or_insert(Latency { smoothed: took, variation: took / 2 });
        let error = took.abs_diff(latency.smoothed);
        latency.variation = (latency.variation * 3 + error) / 4;
        latency.smoothed = (latency.smoothed * 7 + took) / 8;
    }
}

impl<S: Storage> Replica<S> {
    /// Asks a node that the epoch or gossip names.
    pub(crate) fn call(&mut self, to: NodeId, request: Request, purpose: Purpose) -> u64 {
        let id = self.next_number();
        let ends = (!purpose.has_operation()).then(|| self.now.mono + self.config.request_timeout);
        if let Some(ends) = ends {
            self.timers.set(ends, Timer::Call(id));
        }
        self.calls.open.insert(id, Call { to, purpose, began: self.now.mono, ends });
        let to = Peer { id: Some(to), address: self.address(to) };
        self.effects.push(Effect::Send { to, frame: Frame::Request { id, request } });
        id
    }

    pub(crate) fn respond(&mut self, to: NodeId, id: u64, response: Response) {
        let to = Peer { id: Some(to), address: self.address(to) };
        self.effects.push(Effect::Send { to, frame: Frame::Response { id, response } });
    }

    /// An answer came; one that nobody waits for any more is ignored.
    pub(crate) fn answered(&mut self, from: Sender, id: u64, response: Response) {
        let Some(call) = self.calls.open.get(&id).filter(|call| call.to == from.node) else { return };
        if matches!(call.purpose, Purpose::Ask { .. } | Purpose::Part { .. }) {
            let took = self.now.mono.saturating_sub(call.began);
            self.calls.measured(from.node, took);
        }
        self.sync.heard(from);
        self.end_call(id, Ending::Response(response));
    }

    /// Every call to a node is lost.
    pub(crate) fn lose_calls(&mut self, to: NodeId) {
        let lost: Vec<u64> =
            self.calls.open.iter().filter(|(_, call)| call.to == to).map(|(id, _)| *id).collect();
        for id in lost {
            self.end_call(id, Ending::Lost);
        }
    }

    pub(crate) fn end_call(&mut self, id: u64, ending: Ending) {
        let Some(Call { to, purpose, ends, .. }) = self.calls.open.remove(&id) else { return };
        if let Some(ends) = ends {
            self.timers.cancel(ends, Timer::Call(id));
        }
        match purpose {
            Purpose::Part { operation } => self.part_ended(operation, to, &ending),
            Purpose::Hint { operation, target } => self.hint_ended(operation, target, &ending),
            Purpose::Forward { operation } => self.forward_ended(operation, to, ending),
            Purpose::Ask { operation } => self.ask_ended(operation, to, ending),
            Purpose::Pull(pull) => self.pull_ended(to, pull, ending),
            Purpose::Repair => {
                let done = matches!(ending, Ending::Response(Response::Applied));
                self.stats.read_repair(done);
            }
            Purpose::Claim => self.claim_ended(to, &ending),
            Purpose::Ring => self.epoch_fetched(ending),
            Purpose::Progress => self.progress_told(to, ending),
            Purpose::Handoff { delivery } => self.handoff_answered(delivery, to, &ending),
            Purpose::Mark => self.mark_told(to, &ending),
            Purpose::Collection => self.collection_ended(to, ending),
            Purpose::Exchange { sequence } => self.exchange_answered(to, sequence, ending),
        }
    }
}
