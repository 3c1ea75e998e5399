//! Which epoch is served by. An epoch is on the disk before it is used, and one number is one epoch (INV-EPOCH).

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use quorate_core::ring::{Epoch, EpochError, EpochMark, Partition};
use quorate_core::{ClusterId, NodeId};
use quorate_wire::peer::{Refusal, Request, Response};

use crate::calls::{Ending, Purpose};
use crate::interface::{AdoptError, Effect, Kept, Record};
use crate::replica::Replica;
use crate::storage::Storage;

/// An epoch on its way to the disk.
struct Adopting {
    document: u64,
    epoch: Arc<Epoch>,
    /// Who waits for it.
    tickets: Vec<u64>,
}

pub(crate) struct Ring {
    cluster: ClusterId,
    current: Option<Arc<Epoch>>,
    adopting: Option<Adopting>,
    /// Whether a peer was asked for its epoch.
    fetching: bool,
    /// Of the current epoch, as far as they were needed: choosing them looks at every member.
    fallbacks: BTreeMap<Partition, Arc<[NodeId]>>,
}

impl Ring {
    pub(crate) fn new(cluster: ClusterId, current: Option<Arc<Epoch>>) -> Self {
        Self { cluster, current, adopting: None, fetching: false, fallbacks: BTreeMap::new() }
    }

    pub(crate) fn current(&self) -> Option<&Arc<Epoch>> {
        self.current.as_ref()
    }

    pub(crate) fn number(&self) -> u64 {
        self.current.as_ref().map_or(0, |epoch| epoch.number())
    }

    /// Who stands in for the owners of a partition: as many as there are owners.
    pub(crate) fn fallbacks(&mut self, partition: Partition) -> Arc<[NodeId]> {
        let Some(epoch) = &self.current else { return Arc::default() };
        let choose = || {
            let factor = usize::from(epoch.replication().factor);
            epoch.fallbacks(partition, factor).iter().map(|member| member.id).collect()
        };
        self.fallbacks.entry(partition).or_insert_with(choose).clone()
    }

    /// Whether an epoch is newer than the one that is held.
    fn is_newer(&self, epoch: &Epoch) -> Result<bool, EpochError> {
        if epoch.cluster() != self.cluster {
            let (pushed, found) = (epoch.number(), epoch.cluster());
            return Err(EpochError::Cluster { pushed, found, expected: self.cluster });
        }
        self.current.as_ref().map_or(Ok(true), |known| epoch.follows(known))
    }
}

/// Whether a node may take part: one that was removed is as good as a stranger (INV-FENCE).
pub(crate) fn takes_part(epoch: &Epoch, node: NodeId) -> bool {
    epoch.member(node).is_some_and(|member| member.state.takes_part())
}

impl<S: Storage> Replica<S> {
    /// The epoch to serve by, of which this node is an active member, once its start is claimed.
    pub(crate) fn serving_epoch(&self) -> Result<Arc<Epoch>, Refusal> {
        let epoch = self.ring.current().ok_or(Refusal::NoEpoch)?;
        if !takes_part(epoch, self.id()) {
            return Err(Refusal::NotMember { known: epoch.number() });
        }
        if !self.claim.is_won() {
            return Err(Refusal::Starting);
        }
        Ok(epoch.clone())
    }

    /// Checks that a peer's data message was routed by our epoch, from a member (INV-FENCE).
    pub(crate) fn admit(&self, from: NodeId, routed: u64) -> Result<Arc<Epoch>, Refusal> {
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
        Ok(epoch)
    }

    /// The same, for a key that this node must own.
    pub(crate) fn admit_to_owner(
        &self,
        from: NodeId,
        routed: u64,
        key: &Bytes,
    ) -> Result<(Arc<Epoch>, Partition), Refusal> {
        let epoch = self.admit(from, routed)?;
        let partition = epoch.partitions().of_key(key);
        if !epoch.owns(self.id(), partition) {
            return Err(Refusal::NotOwner { known: epoch.number() });
        }
        Ok((epoch, partition))
    }

    pub(crate) fn adopt_epoch(&mut self, ticket: Option<u64>, epoch: Epoch) {
        let known = match self.ring.is_newer(&epoch) {
            Ok(true) => None,
            Ok(false) => self.ring.current().map(|known| Ok(known.mark())),
            Err(error) => Some(Err(AdoptError::Epoch(error))),
        };
        if let Some(result) = known {
            return self.tell_adopted(ticket, result);
        }
        match &mut self.ring.adopting {
            Some(adopting) if adopting.epoch.mark() == epoch.mark() => adopting.tickets.extend(ticket),
            Some(_) => self.tell_adopted(ticket, Err(AdoptError::Busy)),
            None => {
                let (document, epoch) = (self.next_number(), Arc::new(epoch));
                let tickets = ticket.into_iter().collect();
                self.ring.adopting = Some(Adopting { document, epoch: epoch.clone(), tickets });
                self.effects.push(Effect::Keep { ticket: document, record: Record::Epoch(epoch) });
            }
        }
    }

    fn tell_adopted(&mut self, ticket: Option<u64>, result: Result<EpochMark, AdoptError>) {
        if let Some(ticket) = ticket {
            self.effects.push(Effect::Adopted { ticket, result });
        }
    }

    pub(crate) fn kept(&mut self, document: u64, result: Kept) {
        let Some(adopting) = self.ring.adopting.take_if(|adopting| adopting.document == document) else {
            return self.starts_kept(document, result);
        };
        let result = result.map(|()| adopting.epoch.mark()).map_err(AdoptError::Disk);
        if result.is_ok() {
            self.ring.current = Some(adopting.epoch);
            self.epoch_changed();
        }
        for ticket in adopting.tickets {
            self.tell_adopted(Some(ticket), result.clone());
        }
    }

    /// What follows from the epoch that was just read or adopted.
    pub(crate) fn epoch_changed(&mut self) {
        self.ring.fallbacks.clear();
        self.forget_removed();
        self.begin_claim();
        self.plan_exchanges();
        self.look_for_rot();
        self.ask_marks();
    }

    /// What removed members say, and what is said about them, is ignored.
    pub(crate) fn forget_removed(&mut self) {
        let Some(epoch) = self.ring.current().cloned() else { return };
        for member in epoch.members().iter().filter(|member| !member.state.takes_part()) {
            self.membership.forget(member.id);
        }
    }

    /// Gets the newer epoch of a peer, one at a time; the next message of a peer that is ahead tries again.
    pub(crate) fn fetch_epoch(&mut self, from: NodeId) {
        if !std::mem::replace(&mut self.ring.fetching, true) {
            self.call(from, Request::FetchEpoch, Purpose::Epoch);
        }
    }

    pub(crate) fn epoch_fetched(&mut self, ending: Ending) {
        self.ring.fetching = false;
        if let Ending::Response(Response::Epoch(Some(epoch))) = ending {
            self.adopt_epoch(None, epoch);
        }
    }
}
