//! Reading the local store, and healing what a read found stale: a stale owner gets the key from the owners that
//! have it. Content travels between owners only, so that it can be fenced (see `quorate_core::collection`).

use std::collections::BTreeMap;

use bytes::Bytes;
use quorate_core::NodeId;
use quorate_core::causality::VersionSet;
use quorate_core::limits::FACTOR_MAX;
use quorate_core::planted::{self, Bug};
use quorate_core::quorum::Reply;
use quorate_core::ring::Partition;
use quorate_storage::{Committed, ReadError, WriteError};
use quorate_wire::peer::{Refusal, Request, Response};

use crate::calls::{Ending, Purpose};
use crate::interface::{Completion, Done};
use crate::replica::Replica;
use crate::serve::{MergeFor, refusal};
use crate::storage::Storage;

/// What the local store is read for.
#[derive(Debug)]
pub(crate) enum LoadFor {
    /// A part of a read that this node coordinates.
    Ask { operation: u64 },
    /// A part of a write that came too late is sent again, from what is held now.
    Resend { operation: u64, owner: NodeId, sent: u64 },
    /// A peer's read.
    Peer { node: NodeId, request: u64, whole: bool },
}

impl LoadFor {
    /// The read that waits for it.
    pub(crate) fn operation(&self) -> Option<u64> {
        match self {
            Self::Ask { operation } => Some(*operation),
            Self::Resend { .. } | Self::Peer { .. } => None,
        }
    }
}

/// How often one owner is asked for a key, if collections overtake its answers.
const PULLS_MAX: u8 = 4;

/// A key that this owner lacks something of.
struct Repair {
    partition: Partition,
    key: Bytes,
    /// The coordinator that waits for it; none where a read of this node's found it.
    asker: Option<(NodeId, u64)>,
    /// Pulls and merges under way.
    open: usize,
    failed: bool,
}

/// A question to an owner that has more.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Pull {
    repair: u64,
    /// The partition's when it was asked: content that is older than a collection must not come back.
    generation: u64,
    /// How often it may still be asked.
    left: u8,
}

/// The repairs under way.
#[derive(Default)]
pub(crate) struct Repairs(BTreeMap<u64, Repair>);

impl Repairs {
    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }
}

impl<S: Storage> Replica<S> {
    /// Reads a key here, at once or when the disk has it.
    pub(crate) fn load(&mut self, partition: Partition, key: Bytes, purpose: LoadFor) {
        match self.storage.access().try_get(partition, &key) {
            Some(result) => self.loaded(purpose, result),
            None => {
                let inbox = self.inbox.clone();
                self.storage.read_later(Box::new(move |store| {
                    let result = store.get(partition, &key);
                    inbox(Completion(Done::Loaded { purpose, result }));
                }));
            }
        }
    }

    pub(crate) fn loaded(&mut self, purpose: LoadFor, result: Result<Option<VersionSet>, ReadError>) {
        let mut result = result.map(Option::unwrap_or_default);
        if planted::is(Bug::ExpireLocally) {
            let now = self.now.unix_ms;
            result = result.map(|set| if set.is_dead_at(now) { VersionSet::default() } else { set });
        }
        match purpose {
            LoadFor::Ask { operation } => {
                let reply = result.map(Reply::Set).map_err(|_| ());
                self.replied(operation, self.id(), reply);
            }
            LoadFor::Resend { operation, owner, sent } => self.resend(operation, owner, sent, result.ok()),
            LoadFor::Peer { node, request, whole } => {
                let response = match result {
                    Ok(set) if whole => Response::Stored(set),
                    Ok(set) => Response::Digest(set.digest()),
                    Err(error) => Response::Refused(Refusal::StorageFailed { reason: error.to_string() }),
                };
                self.respond(node, request, response);
            }
        }
    }

    /// A coordinator says that this owner lacks something that others have.
    pub(crate) fn begin_repair(
        &mut self,
        node: NodeId,
        request: u64,
        epoch: u64,
        key: Bytes,
        sources: Vec<NodeId>,
    ) -> Result<(), Refusal> {
        let partition = self.admit_to_owner(node, epoch, &key)?;
        self.serving()?;
        if sources.len() > usize::from(FACTOR_MAX) {
            return Err(Refusal::Busy);
        }
        self.repair_from(sources, partition, key, Some((node, request)))
    }

    /// Asks the owners that have more.
    pub(crate) fn repair_from(
        &mut self,
        sources: Vec<NodeId>,
        partition: Partition,
        key: Bytes,
        asker: Option<(NodeId, u64)>,
    ) -> Result<(), Refusal> {
        if self.repairs.len() >= self.config.repairs_max {
            return Err(Refusal::Busy);
        }
        let id = self.next_number();
        // One is this function's own: it does not end before all are asked.
        let open = sources.len() + 1;
        self.repairs.0.insert(id, Repair { partition, key, asker, open, failed: false });
        for source in sources {
            self.pull(id, source, PULLS_MAX);
        }
        self.repair_step(id, true);
        Ok(())
    }

    fn pull(&mut self, repair: u64, source: NodeId, left: u8) {
        let Some(Repair { partition, key, .. }) = self.repairs.0.get(&repair) else { return };
        let epoch = self.ring.state().map(|state| state.read_by(*partition));
        match epoch.filter(|epoch| source != self.id() && epoch.owns(source, *partition)) {
            Some(epoch) => {
                let request = Request::Read { epoch: epoch.number(), key: key.clone(), whole: true };
                let pull = Pull { repair, generation: self.generation(*partition), left: left - 1 };
                self.call(source, request, Purpose::Pull(pull));
            }
            None => self.repair_step(repair, true),
        }
    }

    pub(crate) fn pull_ended(&mut self, from: NodeId, pull: Pull, ending: Ending) {
        let Some(Repair { partition, key, .. }) = self.repairs.0.get(&pull.repair) else { return };
        let (partition, key) = (*partition, key.clone());
        let set = match ending {
            // It may have been lost meanwhile: then nothing may come to what is left of it.
            Ending::Response(Response::Stored(set)) if self.expect_ours(partition).is_ok() => set,
            _ => return self.repair_step(pull.repair, false),
        };
        if pull.generation == self.generation(partition) {
            self.observe(&set);
            self.merge(partition, key, set, MergeFor::Repair { repair: pull.repair });
        } else if pull.left > 0 {
            self.pull(pull.repair, from, pull.left);
        } else {
            self.repair_step(pull.repair, false);
        }
    }

    pub(crate) fn repair_merged(&mut self, id: u64, result: Result<Committed, WriteError>) {
        self.repair_step(id, result.map_err(refusal).is_ok());
    }

    fn repair_step(&mut self, id: u64, done: bool) {
        let Some(repair) = self.repairs.0.get_mut(&id) else { return };
        repair.open -= 1;
        repair.failed |= !done;
        if repair.open > 0 {
            return;
        }
        let failed = repair.failed;
        match self.repairs.0.remove(&id).and_then(|repair| repair.asker) {
            Some((node, request)) => {
                let response = if failed { Response::Refused(Refusal::Busy) } else { Response::Applied };
                self.respond(node, request, response);
            }
            None => self.stats.read_repair(!failed),
        }
    }
}
