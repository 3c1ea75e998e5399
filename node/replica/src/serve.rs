//! Answers peers, as a replica.

use std::time::Duration;

use bytes::Bytes;
use quorate_core::NodeId;
use quorate_core::causality::VersionSet;
use quorate_core::handoff::HintName;
use quorate_core::ring::Partition;
use quorate_core::transition::Transition;
use quorate_storage::{Change, Committed, Prepared, Write, WriteError};
use quorate_wire::peer::{Cause, ClientWrite, Refusal, Request, Response};

use crate::claim::KnownStart;
use crate::hints::Storing;
use crate::interface::{Completion, Done, Sender};
use crate::repair::LoadFor;
use crate::replica::Replica;
use crate::storage::Storage;
use crate::write::Origin;

/// What a merge into the local store is for.
#[derive(Debug)]
pub(crate) enum MergeFor {
    /// A peer waits for the acknowledgement.
    Peer { node: NodeId, request: u64 },
    /// A read that this node coordinated found it stale.
    ReadRepair,
    /// A repair that a coordinator asked for.
    Repair { repair: u64 },
    /// One of the items that came in an exchange.
    Item { batch: u64 },
    /// A hint is kept.
    Hint(Storing),
    /// A hint is handed over to this node itself.
    Handoff { delivery: u64 },
    /// A hint that was delivered is removed.
    HintForgotten { name: HintName },
    /// A key of a collection is removed.
    Collection { number: u64 },
    /// A key of a partition that this node lost is removed.
    Leaving,
    /// Everything that was submitted before is applied.
    Barrier { era: u64 },
    /// The same, of a partition that is to be deleted.
    LeavingBarrier { partition: Partition, era: u64 },
}

impl<S: Storage> Replica<S> {
    pub(crate) fn serve(&mut self, from: Sender, id: u64, request: Request) {
        let node = from.node;
        if matches!(request, Request::Replicate { cause: Cause::Write, .. } | Request::Read { .. }) {
            self.serves_clients();
        }
        let served = match request {
            Request::Replicate { epoch, sent, cause, key, set } => {
                self.serve_replicate(from, id, epoch, sent, cause, (key, set))
            }
            Request::Hint { epoch, sent, target, key, set } => {
                self.serve_hint(from, id, epoch, sent, target, (key, set))
            }
            Request::Read { epoch, key, whole } => self.admit_read(node, epoch, &key).map(|partition| {
                self.load(partition, key, LoadFor::Peer { node, request: id, whole });
            }),
            Request::Repair { epoch, key, sources } => self.begin_repair(node, id, epoch, key, sources),
            Request::Write { epoch, key, write, timeout_ms } => {
                // One that comes again is answered once.
                if !self.once.is_first(from, id) {
                    return;
                }
                self.serve_write(node, id, epoch, key, write, timeout_ms)
            }
            Request::Exchange { epoch, request } => self.serve_exchange(from, id, epoch, request),
            Request::Collection { epoch, request } => self.serve_collection(node, id, epoch, request),
            Request::Mark => {
                self.respond(node, id, Response::Mark(self.mark()));
                Ok(())
            }
            Request::FetchRing => {
                let told = self.ring.state().map(Transition::told);
                self.respond(node, id, Response::Ring(told));
                Ok(())
            }
            Request::Progress { known } => {
                self.serve_progress(node, id, &known);
                Ok(())
            }
            Request::Claim { epoch, start, nonce, position } => {
                self.serve_claim(node, id, epoch, KnownStart { start, nonce, position })
            }
        };
        if let Err(refusal) = served {
            self.respond(node, id, Response::Refused(refusal));
        }
    }

    fn serve_replicate(
        &mut self,
        from: Sender,
        request: u64,
        epoch: u64,
        sent: u64,
        cause: Cause,
        (key, set): (Bytes, VersionSet),
    ) -> Result<(), Refusal> {
        let node = from.node;
        let partition = self.admit_to_owner(node, epoch, &key)?;
        self.admit_holder(node, partition)?;
        self.admit_content(from, sent)?;
        if cause == Cause::Write {
            self.believe(node, &set)?;
        }
        self.observe(&set);
        self.merge(partition, key, set, MergeFor::Peer { node, request });
        Ok(())
    }

    fn serve_write(
        &mut self,
        node: NodeId,
        request: u64,
        routed: u64,
        key: Bytes,
        write: ClientWrite,
        timeout_ms: u32,
    ) -> Result<(), Refusal> {
        // Whatever it was routed by, it is coordinated here by the epochs that are known here; but who asks may be a member
        // only by one that is not.
        self.is_behind(node, routed);
        let epoch = self.serving_epoch()?;
        self.admit_member(&epoch, node)?;
        self.expect_coordinator(epoch.partitions().of_key(&key))?;
        if self.stopping {
            return Err(Refusal::Stopping);
        }
        let time = Duration::from_millis(timeout_ms.into()).min(self.config.request_timeout);
        self.begin_write(Origin::Peer { node, request }, key, write, time);
        Ok(())
    }

    /// Refuses a new write whose maker's clock is wrong: by last-write-wins it would win over all that is written later.
    pub(crate) fn believe(&mut self, maker: NodeId, set: &VersionSet) -> Result<(), Refusal> {
        set.stamps_believable(maker, self.now.unix_ms).map_err(|error| {
            self.stats.clock_ahead += 1;
            Refusal::ClockAhead { node: maker, ahead_ms: error.ahead_ms }
        })
    }

    /// Takes note of the stamps in a set, so that what is written next here counts as later. One that is too
    /// far ahead is not followed; what it stamps was written already, and is kept.
    pub(crate) fn observe(&mut self, set: &VersionSet) {
        let ahead = self.clock.observe_all(set, self.now.unix_ms).is_err();
        self.stats.clock_ahead += u64::from(ahead);
    }

    /// Merges a set into this owner's.
    pub(crate) fn merge(&mut self, partition: Partition, key: Bytes, set: VersionSet, purpose: MergeFor) {
        self.submit(partition, key, Change::Merge(set), None, purpose);
    }

    /// Hands a write that makes no dot to the store; its end comes to [`Replica::merged`].
    pub(crate) fn submit(
        &mut self,
        partition: Partition,
        key: Bytes,
        change: Change,
        prepared: Option<Prepared>,
        purpose: MergeFor,
    ) {
        let inbox = self.inbox.clone();
        let done = Box::new(move |result| inbox(Completion(Done::Merged { purpose, result })));
        self.storage.access().submit(Write { partition, key, change, prepared, done });
    }

    pub(crate) fn merged(&mut self, purpose: MergeFor, result: Result<Committed, WriteError>) {
        match purpose {
            MergeFor::Peer { node, request } => {
                let response =
                    result.map_or_else(|error| Response::Refused(refusal(error)), |_| Response::Applied);
                self.respond(node, request, response);
            }
            MergeFor::ReadRepair => self.stats.read_repair(result.is_ok()),
            MergeFor::Repair { repair } => self.repair_merged(repair, result),
            MergeFor::Item { batch } => self.item_merged(batch, result.is_ok()),
            MergeFor::Hint(storing) => self.hint_stored(storing, result),
            MergeFor::Handoff { delivery } => self.handoff_ended(delivery, self.id(), result.is_ok()),
            MergeFor::HintForgotten { name } => {
                self.hint_forgotten(&name, result.is_ok_and(|committed| committed.changed));
            }
            MergeFor::Leaving => self.left(result.is_ok_and(|committed| committed.changed)),
            MergeFor::Barrier { era } => self.barrier_passed(era),
            MergeFor::LeavingBarrier { partition, era } => self.drop_begins(partition, era),
            MergeFor::Collection { number } => {
                self.forgotten(number, result.is_ok_and(|committed| committed.changed));
            }
        }
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
        error @ (WriteError::Unreadable(_) | WriteError::Failed { .. }) => {
            Refusal::StorageFailed { reason: error.to_string() }
        }
    }
}
