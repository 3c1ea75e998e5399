//! One running node: what its parts share, and what it does when a peer asks.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use quorate_core::NodeId;
use quorate_core::causality::{Clock, Policy, Stamp, VersionSet};
use quorate_core::membership;
use quorate_core::ring::{Epoch, MemberState};
use quorate_storage::{Change, Committed, Store, Write, WriteError};
use quorate_wire::handshake::Secret;
use quorate_wire::peer::{Refusal, Request, Response};
use tokio::sync::mpsc;

use crate::gossip::{Heard, Liveness};
use crate::metrics::Metrics;
use crate::peers::{Handler, Peers, Reply};
use crate::ring::Ring;
use crate::room::Room;
use crate::seldom::Seldom;

/// Bytes of replies to reads that may be in memory; reads that find no room are told to come back.
pub(crate) const REPLIES_BYTES_MAX: usize = 256 << 20;

/// What the parts of a node share.
pub(crate) struct Node {
    pub(crate) id: NodeId,
    pub(crate) secret: Secret,
    pub(crate) conflicts: Policy,
    pub(crate) request_timeout: Duration,
    pub(crate) ring: Ring,
    pub(crate) store: Store,
    pub(crate) peers: Peers,
    pub(crate) liveness: Liveness,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) stopping: AtomicBool,
    /// What replies to reads may take in memory, answers that clients have not fetched yet included.
    pub(crate) replies: Room,
    pub(crate) clock: Mutex<Clock>,
    /// To the failure detector.
    pub(crate) heard: mpsc::Sender<Heard>,
}

/// Wall-clock milliseconds, the only reading of it.
pub(crate) fn unix_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

impl Node {
    /// The epoch to serve by, of which this node is an active member.
    pub(crate) fn serving_epoch(&self) -> Result<Arc<Epoch>, Refusal> {
        let epoch = self.ring.current().ok_or(Refusal::NoEpoch)?;
        if takes_part(&epoch, self.id) {
            Ok(epoch)
        } else {
            Err(Refusal::NotMember { known: epoch.number() })
        }
    }

    /// A stamp for a write that is taken now.
    pub(crate) fn stamp(&self) -> Stamp {
        self.clock.lock().unwrap_or_else(PoisonError::into_inner).tick(unix_ms())
    }

    /// Takes note of the stamps in a set, so that what is written next here counts as later.
    fn observe(&self, set: &VersionSet) {
        let Some(last) = set.last() else { return };
        let mut clock = self.clock.lock().unwrap_or_else(PoisonError::into_inner);
        if let Err(error) = clock.observe(last.stamp, unix_ms()) {
            static LOG: Seldom = Seldom::new();
            drop(clock);
            self.metrics.clock_ahead.inc();
            if LOG.due() {
                tracing::warn!(actor = ?last.dot.actor, %error, "check the clocks");
            }
        }
    }

    /// What this owner holds of a key.
    pub(crate) fn read_local(&self, epoch: &Epoch, key: &[u8]) -> Result<VersionSet, Refusal> {
        match self.store.get(epoch.partitions().of_key(key), key) {
            Ok(set) => Ok(set.unwrap_or_default()),
            Err(error) => {
                static LOG: Seldom = Seldom::new();
                if LOG.due() {
                    tracing::error!(%error, "a read from disk failed");
                }
                Err(storage_failed(&error))
            }
        }
    }

    /// Merges a set into this owner's, and says when it is durable.
    pub(crate) fn merge_local(
        &self,
        epoch: &Epoch,
        key: bytes::Bytes,
        set: VersionSet,
        done: impl FnOnce(Result<Committed, Refusal>) + Send + 'static,
    ) {
        self.observe(&set);
        self.store.submit(Write {
            partition: epoch.partitions().of_key(&key),
            key,
            change: Change::Merge(set),
            prepared: None,
            done: Box::new(|result| done(result.map_err(refusal))),
        });
    }

    /// Checks that a peer's data message was routed by our epoch, from a member, to an owner (INV-FENCE).
    fn admit(&self, from: NodeId, routed: u64, key: &[u8]) -> Result<Arc<Epoch>, Refusal> {
        let epoch = self.serving_epoch()?;
        let known = epoch.number();
        if routed > known {
            return Err(Refusal::EpochUnknown { routed, known });
        }
        if routed < known {
            return Err(Refusal::EpochRetired { routed, known });
        }
        if !takes_part(&epoch, from) {
            return Err(Refusal::NotMember { known });
        }
        if !epoch.owns(self.id, epoch.partitions().of_key(key)) {
            return Err(Refusal::NotOwner { known });
        }
        Ok(epoch)
    }
}

/// Whether a node may take part: one that was removed is as good as a stranger (INV-FENCE).
pub(crate) fn takes_part(epoch: &Epoch, node: NodeId) -> bool {
    epoch.member(node).is_some_and(|member| member.state != MemberState::Removed)
}

impl Handler for Node {
    fn request(self: &Arc<Self>, from: NodeId, request: Request, reply: Reply) {
        match request {
            Request::Replicate { epoch, key, set } => match self.admit(from, epoch, &key) {
                Ok(epoch) => self.merge_local(&epoch, key, set, |result| {
                    reply.send(result.map_or_else(Response::Refused, |_| Response::Applied));
                }),
                Err(refusal) => reply.send(Response::Refused(refusal)),
            },
            Request::Read { epoch, key } => {
                let read = self.admit(from, epoch, &key).and_then(|epoch| self.read_local(&epoch, &key));
                reply.send(read.map_or_else(Response::Refused, Response::Stored));
            }
            Request::Write { epoch, key, write, timeout_ms } => match self.admit(from, epoch, &key) {
                Ok(_) if self.stopping.load(Ordering::Relaxed) => {
                    reply.send(Response::Refused(Refusal::Stopping))
                }
                Ok(epoch) => {
                    let node = self.clone();
                    let time = Duration::from_millis(timeout_ms.into()).min(node.request_timeout);
                    // Bounded: the connection stops reading at its limit of requests in progress.
                    tokio::spawn(async move {
                        let written = node.coordinate_write(&epoch, key, write, time).await;
                        reply.send(written.map_or_else(Response::Refused, Response::Written));
                    });
                }
                Err(refusal) => reply.send(Response::Refused(refusal)),
            },
            Request::FetchEpoch => {
                reply.send(Response::Epoch(self.ring.current().map(|epoch| (*epoch).clone())))
            }
        }
    }

    fn gossip(&self, from: NodeId, epoch: u64, message: membership::Message) {
        // Full means that gossip is slower than its senders: it may lose messages.
        let _ = self.heard.try_send(Heard { from, epoch, message });
    }
}

/// What a storage error means to whoever asked.
pub(crate) fn refusal(error: WriteError) -> Refusal {
    match error {
        WriteError::Refused(refused) => Refusal::Write(refused),
        WriteError::Full { free_bytes, reserve_bytes } => Refusal::StorageFull { free_bytes, reserve_bytes },
        WriteError::Busy => Refusal::Busy,
        WriteError::Closed => Refusal::Stopping,
        WriteError::Indeterminate { .. } => Refusal::Indeterminate { needed: 1, acknowledged: 0 },
        error @ (WriteError::Unreadable(_) | WriteError::Failed { .. }) => storage_failed(&error),
    }
}

fn storage_failed(error: &dyn std::error::Error) -> Refusal {
    Refusal::StorageFailed { reason: error.to_string() }
}
