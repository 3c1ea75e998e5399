//! Which epochs are live here, and what this node says about a change of the ring; `quorate_core::transition` decides.
//!
//! An epoch is on the disk before it is used, one number is one epoch (INV-EPOCH), and a mark is on the disk before it
//! counts, here or anywhere else.

mod adopt;
mod progress;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use quorate_core::planted::{self, Bug};
use quorate_core::ring::{Epoch, EpochError, Member, Partition};
use quorate_core::transition::{self, Chain, ChainError, Marks, Transition};
use quorate_core::{ClusterId, NodeId};
use quorate_wire::peer::Refusal;

use crate::interface::AdoptError;
use crate::pace::Pace;
use crate::replica::Replica;
use crate::storage::Storage;
use progress::ASK_MIN;

/// Epochs that are new here, the floors that came with them, and who waits for it.
type Adopted = (Chain, Vec<u64>, Option<u64>);

/// What is on its way to the disk.
struct Keeping {
    document: u64,
    adopted: Option<Adopted>,
    marks: Marks,
}

pub(crate) struct Ring {
    cluster: ClusterId,
    state: Option<Transition>,
    keeping: Option<Keeping>,
    /// Epochs that were pushed meanwhile.
    waiting: Vec<(u64, Epoch)>,
    /// Whether something is not on the disk that was not worth a write of its own.
    dirty: bool,
    /// Whether a peer was asked for its epochs.
    fetching: bool,
    /// Of the newest epoch, as far as they were needed: choosing them looks at every member.
    fallbacks: BTreeMap<Partition, Arc<[NodeId]>>,
    /// Everything that was accepted before this era is applied.
    applied_era: Option<u64>,
    /// The era for which the store was asked to say so.
    asked_era: Option<u64>,
    /// The revision of the owners by which exchanges were planned.
    planned: u64,
    /// Partitions that are not owned here any more, and of which something is still held.
    pub(crate) leaving: BTreeSet<Partition>,
    /// Whether this node has said something of itself that nobody was told: whoever is asked next asks back.
    untold: bool,
    ask_at: Option<Duration>,
    ask_after: Duration,
    pace: Pace,
}

impl Ring {
    pub(crate) fn new(us: NodeId, cluster: ClusterId, remembered: Option<transition::Remembered>) -> Self {
        let state = remembered.map(|remembered| Transition::remembered(us, remembered));
        // Nothing of an earlier start is on its way.
        let era = state.as_ref().map(Transition::era);
        Self {
            cluster,
            state,
            keeping: None,
            waiting: Vec::new(),
            dirty: false,
            fetching: false,
            fallbacks: BTreeMap::new(),
            applied_era: era,
            asked_era: era,
            planned: 0,
            leaving: BTreeSet::new(),
            untold: false,
            ask_at: None,
            ask_after: ASK_MIN,
            pace: Pace::default(),
        }
    }

    /// The newest epoch.
    pub(crate) fn current(&self) -> Option<&Arc<Epoch>> {
        self.state.as_ref().map(Transition::newest)
    }

    pub(crate) fn state(&self) -> Option<&Transition> {
        self.state.as_ref()
    }

    pub(crate) fn number(&self) -> u64 {
        self.current().map_or(0, |epoch| epoch.number())
    }

    /// Who stands in for the owners of a partition: as many as there are owners.
    pub(crate) fn fallbacks(&mut self, partition: Partition) -> Arc<[NodeId]> {
        let Some(epoch) = self.state.as_ref().map(Transition::newest) else { return Arc::default() };
        let choose = || {
            let factor = usize::from(epoch.replication().factor);
            epoch.fallbacks(partition, factor).iter().map(|member| member.id).collect()
        };
        self.fallbacks.entry(partition).or_insert_with(choose).clone()
    }

    /// The chain with an epoch that somebody pushed; none when it is known already.
    fn with(&self, epoch: Epoch) -> Result<Option<Chain>, AdoptError> {
        if epoch.cluster() != self.cluster {
            let (pushed, found) = (epoch.number(), epoch.cluster());
            return Err(AdoptError::Epoch(EpochError::Cluster { pushed, found, expected: self.cluster }));
        }
        let number = epoch.number();
        match &self.state {
            None if number > 1 => Err(AdoptError::Behind { known: 0 }),
            None => Ok(Some(Chain::of(Arc::new(epoch)))),
            Some(state) => state.chain().with(Arc::new(epoch)).map_err(|error| match error {
                ChainError::Epoch(error) => AdoptError::Epoch(error),
                ChainError::Gap { known, .. } => AdoptError::Behind { known },
                ChainError::Full { oldest, newest, .. } => AdoptError::Full { oldest, newest },
                ChainError::Count { .. } => AdoptError::Busy,
            }),
        }
    }

    /// The era of comparisons that may begin now: all that was accepted before it is applied.
    pub(crate) fn comparable_era(&self) -> Option<u64> {
        let era = self.state.as_ref().map(Transition::era);
        era.filter(|era| self.applied_era == Some(*era) || planted::is(Bug::SkipBarrier))
    }

    /// Whether all that this node said and decided is on its disk.
    pub(crate) fn is_kept(&self) -> bool {
        self.keeping.is_none() && !self.dirty
    }
}

/// Whether a node may take part: one that was removed is as good as a stranger (INV-FENCE).
pub(crate) fn takes_part(epoch: &Epoch, node: NodeId) -> bool {
    let takes_part = |member: &Member| member.state.takes_part() || planted::is(Bug::AdmitRemoved);
    epoch.member(node).is_some_and(takes_part)
}

/// Whether a refusal passes by itself, so that its request is routed again: one of the two knows less of the ring than the
/// other, or the other has only just become a member. `known_here` is the newest epoch here: who says by an older one that
/// somebody is no member has not heard yet of the one that makes it a member.
pub(crate) fn passes(refusal: &Refusal, known_here: u64) -> bool {
    match refusal {
        Refusal::EpochRetired { .. }
        | Refusal::ReadsMoved { .. }
        | Refusal::EpochUnknown { .. }
        | Refusal::NotOwner { .. } => true,
        Refusal::NoEpoch | Refusal::Starting => !planted::is(Bug::FinalRefusals),
        Refusal::NotMember { known } => *known < known_here && !planted::is(Bug::FinalRefusals),
        _ => false,
    }
}

/// What is served by which epoch.
impl<S: Storage> Replica<S> {
    /// The newest epoch, of which this node is a member, once its start is claimed.
    pub(crate) fn serving_epoch(&self) -> Result<Arc<Epoch>, Refusal> {
        self.serving().map(|state| state.newest().clone())
    }

    /// The ring to serve by.
    pub(crate) fn serving(&self) -> Result<&Transition, Refusal> {
        let state = self.ring.state().ok_or(Refusal::NoEpoch)?;
        let epoch = state.newest();
        if !takes_part(epoch, self.id()) {
            return Err(Refusal::NotMember { known: epoch.number() });
        }
        if !self.claim.is_won() {
            return Err(Refusal::Starting);
        }
        Ok(state)
    }

    /// Asks a peer for the epoch that it routed a message by, if that is not known here. Whether it is not.
    pub(crate) fn is_behind(&mut self, from: NodeId, routed: u64) -> bool {
        let is_behind = routed > self.ring.number();
        if is_behind {
            self.fetch_epoch(from);
        }
        is_behind
    }

    /// Refuses what was routed by an epoch that is not known here: before anything else, since that epoch may be the one that
    /// makes this node a member.
    fn expect_known(&mut self, from: NodeId, routed: u64) -> Result<(), Refusal> {
        let known = self.ring.number();
        if self.is_behind(from, routed) { Err(Refusal::EpochUnknown { routed, known }) } else { Ok(()) }
    }

    /// Checks that a peer's message was routed by our newest epoch, from a member (INV-FENCE).
    pub(crate) fn admit(&mut self, from: NodeId, routed: u64) -> Result<Arc<Epoch>, Refusal> {
        self.expect_known(from, routed)?;
        let epoch = self.serving_epoch()?;
        let known = epoch.number();
        if routed < known && !planted::is(Bug::SkipFence) {
            return Err(Refusal::EpochRetired { routed, known });
        }
        self.admit_member(&epoch, from)?;
        Ok(epoch)
    }

    pub(crate) fn admit_member(&self, epoch: &Epoch, from: NodeId) -> Result<(), Refusal> {
        let known = epoch.number();
        if takes_part(epoch, from) { Ok(()) } else { Err(Refusal::NotMember { known }) }
    }

    /// The same, for a key that this node must own.
    pub(crate) fn admit_to_owner(
        &mut self,
        from: NodeId,
        routed: u64,
        key: &Bytes,
    ) -> Result<Partition, Refusal> {
        let epoch = self.admit(from, routed)?;
        let partition = epoch.partitions().of_key(key);
        self.expect_ours(partition)?;
        Ok(partition)
    }

    pub(crate) fn expect_ours(&self, partition: Partition) -> Result<(), Refusal> {
        let known = self.ring.number();
        let ours = self.ring.state().is_some_and(|state| state.is_ours(partition));
        if ours { Ok(()) } else { Err(Refusal::NotOwner { known }) }
    }

    /// Whether a write of a partition may be coordinated here.
    pub(crate) fn expect_coordinator(&self, partition: Partition) -> Result<(), Refusal> {
        let known = self.ring.number();
        let may = self.ring.state().is_some_and(|state| state.may_make_dots(partition));
        if may { Ok(()) } else { Err(Refusal::NotOwner { known }) }
    }

    /// Checks a read: it may be routed by any live epoch whose reads are not over, in which this node owns the key.
    pub(crate) fn admit_read(
        &mut self,
        from: NodeId,
        routed: u64,
        key: &Bytes,
    ) -> Result<Partition, Refusal> {
        self.expect_known(from, routed)?;
        let state = self.serving()?;
        let (newest, known) = (state.newest(), state.newest().number());
        let partition = newest.partitions().of_key(key);
        self.admit_member(newest, from)?;
        state.admits_read(partition, routed).map_err(|floor| Refusal::ReadsMoved { routed, floor })?;
        let epoch = state.chain().get(routed).ok_or(Refusal::EpochRetired { routed, known })?;
        if !epoch.owns(self.id(), partition) {
            return Err(Refusal::NotOwner { known });
        }
        Ok(partition)
    }

    /// Whether a node's content of a partition may be taken: from its owners, its fallbacks, and from whoever may still
    /// hold what it owned (INV-NOZOMBIE).
    pub(crate) fn admit_holder(&mut self, from: NodeId, partition: Partition) -> Result<(), Refusal> {
        let known = self.ring.number();
        let holds = self.ring.state().is_some_and(|state| state.may_hold(from, partition));
        if holds || self.ring.fallbacks(partition).contains(&from) {
            Ok(())
        } else {
            Err(Refusal::NotOwner { known })
        }
    }

    /// A peer knows more of the ring, or less: what follows for what is routed next.
    pub(crate) fn misrouted(&mut self, from: NodeId, partition: Partition, refusal: &Refusal) {
        match *refusal {
            Refusal::EpochRetired { known, .. } if known > self.ring.number() => self.fetch_epoch(from),
            Refusal::ReadsMoved { floor, .. } if floor > self.ring.number() => self.fetch_epoch(from),
            Refusal::NotOwner { known } if known > self.ring.number() => self.fetch_epoch(from),
            Refusal::ReadsMoved { floor, .. } => {
                if let Some(state) = &mut self.ring.state {
                    state.reads_moved(partition, floor);
                }
            }
            Refusal::NotOwner { .. } => self.ask_progress(from),
            _ => {}
        }
    }
}
