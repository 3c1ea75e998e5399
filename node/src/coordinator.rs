//! Serves a request with the key's owners: sends to all at once, answers at the quorum, repairs afterwards.
//!
//! The decisions are `quorate_core::quorum`'s; this file moves their messages.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use quorate_core::NodeId;
use quorate_core::causality::{Event, VersionSet};
use quorate_core::limits::SIBLINGS_WARN;
use quorate_core::quorum::{Failure, ReadDecision, ReadQuorum, WriteDecision, WriteQuorum};
use quorate_core::ring::{Epoch, Member};
use quorate_storage::{Change, Write};
use quorate_wire::peer::{ClientWrite, Refusal, Request, Response, Written, set_bytes};
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, timeout, timeout_at};

use crate::node::{Node, refusal};
use crate::peers::CallError;
use crate::room::Taken;
use crate::seldom::Seldom;

/// A read that a quorum answered.
pub(crate) struct Found {
    /// What the replies say together; empty for nothing.
    pub(crate) set: VersionSet,
    /// Owners that replied; at least R.
    pub(crate) replicas: u8,
    /// What the replies take in memory. Held until the client has its answer.
    pub(crate) room: Arc<Vec<Taken>>,
}

/// What an owner replied to a read.
enum Reply {
    Stored(VersionSet, Taken),
    /// There was no room to keep what it replied.
    NoRoom,
    None,
}

/// A read on its way: the replies, and the room that they take.
struct Reading {
    quorum: ReadQuorum,
    room: Vec<Taken>,
    no_room: bool,
}

impl Reading {
    fn heard(&mut self, (owner, reply): (NodeId, Reply)) -> ReadDecision {
        match reply {
            Reply::Stored(set, room) => {
                self.room.push(room);
                return self.quorum.replied(owner, set);
            }
            Reply::NoRoom => self.no_room = true,
            Reply::None => {}
        }
        self.quorum.failed(owner)
    }
}

/// An owner's part of a write.
enum Part {
    Acknowledged,
    Failed(Failure, Option<Refusal>),
}

impl Node {
    /// Writes a key through an owner: this node if it is one, else the first that can be reached.
    pub(crate) async fn write(self: &Arc<Self>, key: Bytes, write: ClientWrite) -> Result<Written, Refusal> {
        let deadline = Instant::now() + self.request_timeout;
        let epoch = self.serving_epoch()?;
        let partition = epoch.partitions().of_key(&key);
        let mut owners: Vec<&Member> = epoch.owners(partition).collect();
        // Ourselves first, it saves a hop; whoever is called down last, it may have come back just now.
        owners.sort_by_key(|owner| (owner.id != self.id, !self.liveness.is_up(owner.id)));
        let mut last = Refusal::Unavailable { needed: epoch.replication().write_quorum, reachable: 0 };
        for owner in owners {
            let time = deadline.saturating_duration_since(Instant::now());
            if time.is_zero() {
                break; // Nothing was written so far, and nothing will be.
            }
            let result = if owner.id == self.id {
                self.coordinate_write(&epoch, key.clone(), write.clone(), time).await
            } else {
                self.forward_write(&epoch, owner, key.clone(), write.clone(), time).await
            };
            match result {
                // Not written, for a reason that another owner may not have.
                Err(refusal) if another_may(&refusal) => last = refusal,
                result => return result,
            }
        }
        Err(last)
    }

    async fn forward_write(
        &self,
        epoch: &Epoch,
        owner: &Member,
        key: Bytes,
        write: ClientWrite,
        time: Duration,
    ) -> Result<Written, Refusal> {
        self.metrics.forwarded.inc();
        let needed = epoch.replication().write_quorum;
        let timeout_ms = u32::try_from(time.as_millis()).unwrap_or(u32::MAX);
        let request = Request::Write { epoch: epoch.number(), key, write, timeout_ms };
        match timeout(time, self.peers.call(owner.id, &self.liveness.address(owner), request)).await {
            Ok(Ok(Response::Written(written))) => Ok(written),
            Ok(Ok(Response::Refused(refusal))) => Err(refusal),
            Ok(Err(CallError::NotSent)) => Err(Refusal::Unavailable { needed, reachable: 0 }),
            Ok(Err(CallError::Lost)) | Err(_) => Err(Refusal::Indeterminate { needed, acknowledged: 0 }),
            Ok(Ok(_)) => Err(Refusal::Indeterminate { needed, acknowledged: 0 }),
        }
    }

    /// Takes a write as an owner: makes its dot, and sends the set to the other owners while the local log
    /// still syncs.
    pub(crate) async fn coordinate_write(
        self: &Arc<Self>,
        epoch: &Arc<Epoch>,
        key: Bytes,
        write: ClientWrite,
        time: Duration,
    ) -> Result<Written, Refusal> {
        let deadline = Instant::now() + time;
        let needed = epoch.replication().write_quorum;
        let partition = epoch.partitions().of_key(&key);
        let owners: Vec<Member> = epoch.owners(partition).cloned().collect();
        self.expect_reachable(&owners, needed)?;

        let (parts, mut settled) = mpsc::channel(owners.len());
        let (prepared, ready) = oneshot::channel();
        let us = (self.id, parts.clone());
        let event = Event {
            context: write.context,
            stamp: self.stamp(),
            value: write.value,
            policy: write.policy,
            expires: None,
        };
        self.store.submit(Write {
            partition,
            key: key.clone(),
            change: Change::Event(event),
            prepared: Some(Box::new(|set| drop(prepared.send(set.clone())))),
            done: Box::new(move |result| {
                let part = match result.map_err(refusal) {
                    Ok(_) => Part::Acknowledged,
                    Err(refusal) => Part::Failed(failure_of(&refusal), Some(refusal)),
                };
                let _ = us.1.try_send((us.0, part)); // The client may be gone; there is room for every owner.
            }),
        });

        let mut quorum = WriteQuorum::new(owners.iter().map(|owner| owner.id), needed);
        let set = match timeout_at(deadline, ready).await {
            Ok(Ok(set)) => set,
            // Refused before it was prepared: no owner was sent anything.
            Ok(Err(_)) => {
                return match settled.recv().await {
                    Some((_, Part::Failed(_, Some(refusal)))) => Err(refusal),
                    _ => Err(Refusal::Stopping),
                };
            }
            // The disk hangs, and the write waits for it here: it cannot be taken back.
            Err(_) => return Err(Refusal::Indeterminate { needed, acknowledged: 0 }),
        };
        for owner in owners.iter().filter(|owner| owner.id != self.id) {
            self.replicate(epoch, owner.clone(), key.clone(), set.clone(), deadline, parts.clone());
        }
        drop(parts);

        loop {
            let decision = match timeout_at(deadline, settled.recv()).await {
                Ok(Some((owner, Part::Acknowledged))) => quorum.acknowledged(owner),
                Ok(Some((owner, Part::Failed(failure, _)))) => quorum.failed(owner, failure),
                Ok(None) | Err(_) => quorum.expired(),
            };
            match decision {
                WriteDecision::Wait => {}
                WriteDecision::Acknowledged { replicas } => return Ok(self.written(&set, replicas)),
                WriteDecision::NotWritten => return Err(Refusal::Unavailable { needed, reachable: 0 }),
                WriteDecision::Indeterminate { replicas } => {
                    return Err(Refusal::Indeterminate { needed, acknowledged: replicas });
                }
            }
        }
    }

    fn written(&self, set: &VersionSet, replicas: u8) -> Written {
        let siblings = set.versions().len();
        if siblings >= SIBLINGS_WARN {
            static LOG: Seldom = Seldom::new();
            self.metrics.sibling_warnings.inc();
            if LOG.due() {
                tracing::warn!(
                    siblings,
                    "a key has many concurrent values: its writers do not send contexts back"
                );
            }
        }
        Written { context: set.context().clone(), siblings: siblings as u32, replicas }
    }

    /// Refuses before anything is written when too few owners are up: *not written* beats *indeterminate*.
    fn expect_reachable(&self, owners: &[Member], needed: u8) -> Result<(), Refusal> {
        let up = owners.iter().filter(|owner| owner.id == self.id || self.liveness.is_up(owner.id)).count();
        let reachable = up as u8; // At most FACTOR_MAX.
        if reachable < needed { Err(Refusal::Unavailable { needed, reachable }) } else { Ok(()) }
    }

    /// Sends a set to one owner, and its outcome to `parts`.
    fn replicate(
        self: &Arc<Self>,
        epoch: &Epoch,
        owner: Member,
        key: Bytes,
        set: VersionSet,
        deadline: Instant,
        parts: mpsc::Sender<(NodeId, Part)>,
    ) {
        let node = self.clone();
        let request = Request::Replicate { epoch: epoch.number(), key, set };
        tokio::spawn(async move {
            let address = node.liveness.address(&owner);
            let (part, outcome) =
                match timeout_at(deadline, node.peers.call(owner.id, &address, request)).await {
                    Ok(Ok(Response::Applied)) => (Part::Acknowledged, "acknowledged"),
                    Ok(Ok(Response::Refused(refusal))) => {
                        (Part::Failed(failure_of(&refusal), Some(refusal)), "refused")
                    }
                    Ok(Err(CallError::NotSent)) => (Part::Failed(Failure::NotApplied, None), "unreachable"),
                    Ok(Err(CallError::Lost) | Ok(_)) => (Part::Failed(Failure::Unknown, None), "lost"),
                    Err(_) => (Part::Failed(Failure::Unknown, None), "timeout"),
                };
            node.metrics.replica_acks.with_label_values(&[outcome]).inc();
            let _ = parts.send((owner.id, part)).await; // The client was answered already.
        });
    }

    /// Reads a key from its owners.
    pub(crate) async fn read(self: &Arc<Self>, key: Bytes) -> Result<Found, Refusal> {
        let deadline = Instant::now() + self.request_timeout;
        let epoch = self.serving_epoch()?;
        let replication = epoch.replication();
        let owners: Vec<Member> = epoch.owners(epoch.partitions().of_key(&key)).cloned().collect();
        let quorum = ReadQuorum::new(replication.factor, replication.read_quorum);
        let mut reading = Reading { quorum, room: Vec::new(), no_room: false };
        let (replies, mut replied) = mpsc::channel(owners.len());
        for owner in owners {
            self.ask(&epoch, owner, key.clone(), deadline, replies.clone());
        }
        drop(replies);

        let decision = loop {
            match timeout_at(deadline, replied.recv()).await {
                Ok(Some(reply)) => match reading.heard(reply) {
                    ReadDecision::Wait => {}
                    decision => break decision,
                },
                Ok(None) | Err(_) => break ReadDecision::Unavailable,
            }
        };
        let (set, replicas) = (reading.quorum.merged(), reading.quorum.replies());
        if decision != ReadDecision::Answer {
            let needed = replication.read_quorum;
            return Err(match reading.no_room {
                true => Refusal::Busy,
                false => Refusal::Unavailable { needed, reachable: replicas },
            });
        }
        let room = Arc::new(std::mem::take(&mut reading.room));
        let (node, held) = (self.clone(), room.clone());
        // One task a read, for at most the request's time and at most half of the room for replies.
        tokio::spawn(async move {
            let _held = held;
            while !reading.quorum.complete() && !node.replies.is_crowded() {
                let Ok(Some(reply)) = timeout_at(deadline, replied.recv()).await else { break };
                reading.heard(reply);
            }
            node.repair(&epoch, key, &reading.quorum, deadline + node.request_timeout);
        });
        Ok(Found { set, replicas, room })
    }

    /// Asks one owner for its set.
    fn ask(
        self: &Arc<Self>,
        epoch: &Arc<Epoch>,
        owner: Member,
        key: Bytes,
        deadline: Instant,
        replies: mpsc::Sender<(NodeId, Reply)>,
    ) {
        if owner.id == self.id {
            let reply = self.read_local(epoch, &key).map_or(Reply::None, |set| self.reply(set));
            let _ = replies.try_send((owner.id, reply)); // There is a place for every owner.
            return;
        }
        if !self.liveness.is_up(owner.id) {
            let _ = replies.try_send((owner.id, Reply::None));
            return;
        }
        let node = self.clone();
        let request = Request::Read { epoch: epoch.number(), key };
        tokio::spawn(async move {
            let address = node.liveness.address(&owner);
            let reply = match timeout_at(deadline, node.peers.call(owner.id, &address, request)).await {
                Ok(Ok(Response::Stored(set))) => node.reply(set),
                _ => Reply::None,
            };
            let _ = replies.send((owner.id, reply)).await;
        });
    }

    fn reply(&self, set: VersionSet) -> Reply {
        match self.replies.take(set_bytes(&set)) {
            Some(room) => Reply::Stored(set, room),
            None => Reply::NoRoom,
        }
    }

    /// Read repair: gives the merged set to the owners that replied with less.
    fn repair(self: &Arc<Self>, epoch: &Epoch, key: Bytes, quorum: &ReadQuorum, deadline: Instant) {
        let merged = quorum.merged();
        for owner in quorum.stale(&merged) {
            let node = self.clone();
            let count = move |done: bool| {
                let outcome = if done { "repaired" } else { "failed" };
                node.metrics.read_repairs.with_label_values(&[outcome]).inc();
            };
            if owner == self.id {
                self.merge_local(epoch, key.clone(), merged.clone(), move |result| count(result.is_ok()));
            } else if let Some(member) = epoch.member(owner).cloned() {
                let request =
                    Request::Replicate { epoch: epoch.number(), key: key.clone(), set: merged.clone() };
                let node = self.clone();
                tokio::spawn(async move {
                    let address = node.liveness.address(&member);
                    let call = node.peers.call(member.id, &address, request);
                    count(matches!(timeout_at(deadline, call).await, Ok(Ok(Response::Applied))));
                });
            }
        }
    }
}

/// What a refused owner's part says about the write.
fn failure_of(refusal: &Refusal) -> Failure {
    match refusal {
        Refusal::Indeterminate { .. } => Failure::Unknown,
        _ => Failure::NotApplied,
    }
}

/// Whether another owner might take what this one refused without writing it.
fn another_may(refusal: &Refusal) -> bool {
    match refusal {
        Refusal::NoEpoch
        | Refusal::Stopping
        | Refusal::NotMember { .. }
        | Refusal::EpochRetired { .. }
        | Refusal::EpochUnknown { .. }
        | Refusal::NotOwner { .. }
        | Refusal::Busy
        | Refusal::StorageFull { .. }
        | Refusal::StorageFailed { .. }
        | Refusal::Unavailable { .. } => true,
        Refusal::Write(_) | Refusal::Indeterminate { .. } => false,
    }
}
