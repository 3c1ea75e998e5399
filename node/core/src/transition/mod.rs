//! Changes of the ring that lose no write: which epochs are live for a partition, who has to say what before an older
//! one is retired, and when a member that lost a partition may delete it.
//!
//! # The protocol
//!
//! Epochs are a linear log, written by one writer. A node holds the *live* ones, the [`Chain`], at most
//! [`LIVE_MAX`] of them, and works on the newest, n. Safety comes from the replicas, which refuse messages that were
//! routed by old epochs, and never from waiting for every coordinator. For a partition p with N, R and W, each node
//! tells three things about itself, its [`Marks`] for n, which spread by gossip and only grow:
//!
//! - **synced**: an owner of p in n that owned it in every older live epoch, or that has pulled all of p from N-W+1
//!   owners in each older live epoch. (Epochs before one that somebody reads by count no more: its owners have
//!   everything.) A pull counts when the other side held n before it began, and everything that it had accepted before was
//!   applied. (A write that was acknowledged by older epochs has W copies among their owners, each made before that owner
//!   held n; so one of the N-W+1 has it.)
//! - **reading**: refuses reads of p that are routed by less than m, an epoch up to n. Allowed when all owners in m that
//!   gain p are synced: each acknowledged write then has W copies among the owners in m, since everybody who left the set
//!   was replaced by one who is synced. It is on the disk before it is told. What is refused stays refused when newer
//!   epochs come, so an epoch that was retired stays retired.
//! - **clear**: a node that owns p in n; or that owns it in no live epoch, holds nothing of it any more, has no write of it
//!   under way, and keeps no hint of it, unless it may as a fallback in n.
//!
//! An older epoch is *retired* for p when N-R+1 of its owners are reading, for no read quorum of it can form any more;
//! or when it has the same owners as n. Writes need W of the owners in each live epoch that is not retired. Reads go by n
//! when every gainer is synced, else by the oldest epoch whose reads go on. An epoch that is retired for every partition,
//! and whose reads are over, leaves the chain.
//!
//! A member that owns p in no epoch that is live to it compares p with all N owners in n, and deletes it when each was
//! found equal, or made so (INV-PROOF). Nothing of p is collected before every member is clear (see
//! [`crate::collection`]): until then somebody may hold, or send, what the tombstone was for (INV-NOZOMBIE).
//!
//! # What holds in a transition, and what does not
//!
//! Requests with R and W of the cluster, or more, meet each other in every transition (INV-OVERLAP). A read from fewer
//! than R may be answered by an owner of a retired epoch that was cut off and does not know; and what fewer than W
//! owners acknowledged may be missing in reads until the members that lost the partition have handed it over.
//!
//! # Overtaking
//!
//! When n+1 comes before n is done, *synced* and *clear* begin anew for n+1, and a gainer pulls from owners in *each* older epoch
//! that is live. Nothing is dropped on a guess; what was moved already is found equal, and costs next to nothing.
//!
//! Sources: Garage's versions of the layout, Cassandra's epoch on every message (CEP-21), Scylla's stages of topology
//! changes; put together here, and judged by the simulator.

mod bits;
mod chain;
mod marks;
#[cfg(test)]
mod tests;

pub use bits::Bits;
pub use chain::{Chain, ChainError, LIVE_MAX};
pub use marks::{Known, MARKS_TOLD_MAX, Marks};

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::id::NodeId;
use crate::planted::{self, Bug};
use crate::ring::{Epoch, MemberState, Partition};

/// What a node keeps on its disk about the ring.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Remembered {
    /// The live epochs.
    pub chain: Chain,
    /// What it tells about itself.
    pub marks: Marks,
    /// Below these epochs it refuses reads, by partition.
    pub floors: Vec<u64>,
}

/// The ring as one node knows it.
#[derive(Debug)]
pub struct Transition {
    us: NodeId,
    chain: Chain,
    /// By member that takes part in the newest epoch, ours included.
    marks: BTreeMap<NodeId, Marks>,
    /// Reads of a partition that are routed by less are over: somebody was reading, so every gainer was synced.
    floors: Vec<u64>,
    /// With whom a partition was compared in this era.
    compared: BTreeMap<Partition, BTreeSet<NodeId>>,
    /// Counts the moments from which on comparisons begin anew.
    era: u64,
    /// Whose data is given up.
    lost: BTreeSet<NodeId>,
    /// Counts how often the owners that matter have changed.
    revision: u64,
    /// By partition.
    views: Vec<View>,
}

/// What a node tells another about the ring.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Told {
    /// The live epochs.
    pub chain: Chain,
    /// Below these epochs reads are over, by partition.
    #[serde(deserialize_with = "crate::bounded::list::<_, _, { crate::limits::PARTITIONS_MAX as usize }>")]
    pub floors: Vec<u64>,
}

/// What follows from the chain and the marks for one partition; worked out when either changes.
#[derive(Clone, Debug, Default)]
struct View {
    /// The owners of each live epoch that writes must reach: the newest's first.
    sets: Vec<Vec<NodeId>>,
    /// Positions in the chain of the older ones of those.
    live: Vec<usize>,
    /// Whether reads may go by the newest epoch: every gainer is synced.
    readable: bool,
    /// The position in the chain of the epoch that reads go by.
    read_by: usize,
    /// Whether no older epoch is live, and every member is clear.
    settled: bool,
}

impl Transition {
    /// A node that holds one epoch, or a chain that a peer told.
    pub fn new(us: NodeId, chain: Chain) -> Self {
        let partitions = chain.newest().partitions().get() as usize;
        let marks = Marks::new(chain.newest().number(), partitions);
        Self::remembered(us, Remembered { chain, marks, floors: vec![0; partitions] })
    }

    /// A node as it comes back.
    pub fn remembered(us: NodeId, remembered: Remembered) -> Self {
        let Remembered { chain, mut marks, mut floors } = remembered;
        let partitions = chain.newest().partitions().get() as usize;
        floors.resize(partitions, 0);
        if marks.epoch != chain.newest().number() {
            marks = marks.next(chain.newest().number());
        }
        let mut transition = Self {
            us,
            chain,
            marks: BTreeMap::from([(us, marks)]),
            floors,
            compared: BTreeMap::new(),
            era: 0,
            revision: 0,
            lost: BTreeSet::new(),
            views: Vec::new(),
        };
        transition.look();
        transition
    }

    /// What must be on the disk before anything of it is told.
    pub fn to_remember(&self) -> Remembered {
        Remembered { chain: self.chain.clone(), marks: self.ours().clone(), floors: self.floors.clone() }
    }

    /// The live epochs.
    pub fn chain(&self) -> &Chain {
        &self.chain
    }

    /// The newest epoch.
    pub fn newest(&self) -> &Arc<Epoch> {
        self.chain.newest()
    }

    /// What this node tells about itself.
    pub fn ours(&self) -> &Marks {
        &self.marks[&self.us]
    }

    /// What a peer is told who asks.
    pub fn told(&self) -> Told {
        Told { chain: self.chain.clone(), floors: self.floors.clone() }
    }

    /// Takes over a chain that goes further, and the floors that its teller knows.
    pub fn adopt(&mut self, chain: Chain, floors: &[u64]) {
        self.floors.iter_mut().zip(floors).for_each(|(floor, told)| *floor = (*floor).max(*told));
        if chain.newest().number() > self.newest().number() {
            // What was compared for the epoch before counts no more.
            self.begin_era();
            self.marks.insert(self.us, self.ours().next(chain.newest().number()));
        }
        self.chain = chain;
        let marks = std::mem::take(&mut self.marks);
        self.marks = marks.into_iter().filter(|(id, _)| *id == self.us || self.matters(*id)).collect();
        self.look();
    }

    /// Whether what a node said of itself matters: it takes part, or reads by an epoch that is live would need it.
    fn matters(&self, node: NodeId) -> bool {
        let takes_part = self.newest().member(node).is_some_and(|member| member.state.takes_part());
        let (_, older) = self.chain.epochs().split_last().expect("a chain is never empty");
        takes_part || older.iter().any(|epoch| epoch.partitions().iter().any(|p| epoch.owns(node, p)))
    }

    /// Takes in what a member said about itself; whether that was news. What it said of an epoch that is not known here is not
    /// heard before that is: that reads moved on to it says that an older epoch is retired, but not that whoever gains by the
    /// newest known here has synced.
    pub fn learn(&mut self, node: NodeId, marks: Marks) -> bool {
        if node == self.us
            || marks.epoch > self.newest().number()
            || !self.matters(node)
            || marks.partitions() != self.newest().partitions().get() as usize
        {
            return false;
        }
        let news = match self.marks.get_mut(&node) {
            Some(known) => known.merge(&marks),
            None => {
                self.marks.insert(node, marks);
                true
            }
        };
        if news {
            self.look();
        }
        news
    }

    /// Whose marks are known, and how far.
    pub fn known(&self) -> Vec<Known> {
        self.marks.iter().map(|(id, marks)| marks.known(*id)).collect()
    }

    /// Whether somebody who knows so much knows more of another node than is known here.
    pub fn is_behind(&self, known: &[Known]) -> bool {
        known.iter().filter(|known| known.node != self.us && self.matters(known.node)).any(|known| {
            self.marks.get(&known.node).is_none_or(|marks| known.is_ahead_of(&marks.known(known.node)))
        })
    }

    /// What somebody lacks who knows so much: of at most [`MARKS_TOLD_MAX`] members.
    pub fn news_for(&self, known: &[Known]) -> Vec<(NodeId, Marks)> {
        let known: BTreeMap<NodeId, &Known> = known.iter().map(|known| (known.node, known)).collect();
        let lacks = |(id, marks): &(&NodeId, &Marks)| {
            known.get(id).is_none_or(|theirs| marks.known(**id).is_news_to(theirs))
        };
        let news = self.marks.iter().filter(lacks).take(MARKS_TOLD_MAX);
        news.map(|(id, marks)| (*id, marks.clone())).collect()
    }

    /// The owners that a write must reach, W of each set: of the newest epoch, then of each older one that is live.
    pub fn write_sets(&self, partition: Partition) -> &[Vec<NodeId>] {
        &self.views[partition.index()].sets
    }

    /// The epoch that reads of a partition go by, and its owners.
    pub fn read_by(&self, partition: Partition) -> &Arc<Epoch> {
        &self.chain.epochs()[self.views[partition.index()].read_by]
    }

    /// Whether reads routed by an epoch are still taken here; else by which epoch they go.
    pub fn admits_read(&self, partition: Partition, routed: u64) -> Result<(), u64> {
        let floor = self.floors[partition.index()].max(self.chain.oldest().number());
        if routed >= floor { Ok(()) } else { Err(floor) }
    }

    /// A replica said that reads by less than this epoch are over.
    pub fn reads_moved(&mut self, partition: Partition, floor: u64) {
        if floor > self.floors[partition.index()] && floor <= self.newest().number() {
            self.floors[partition.index()] = floor;
            self.look();
        }
    }

    /// Comparisons count for the era in which they began: until a newer epoch came, or a partition was lost for good.
    /// They may begin when all that was accepted before the era is applied.
    pub fn era(&self) -> u64 {
        self.era
    }

    /// Another one whenever some partition has other owners than before: whatever was planned by them is planned anew.
    pub fn revision(&self) -> u64 {
        self.revision
    }

    fn begin_era(&mut self) {
        self.era += 1;
        self.compared.clear();
    }

    /// Whether a node owns a partition in an epoch that is live.
    pub fn owns(&self, node: NodeId, partition: Partition) -> bool {
        self.views[partition.index()].sets.iter().any(|set| set.contains(&node))
    }

    /// Whether a node's content of a partition may be taken: it owns it, or it may still hold what it owned.
    pub fn may_hold(&self, node: NodeId, partition: Partition) -> bool {
        self.owns(node, partition) || !self.views[partition.index()].settled
    }

    /// Every node that owns a partition in a live epoch, once.
    pub fn owners(&self, partition: Partition) -> Vec<NodeId> {
        let mut owners = Vec::new();
        for owner in self.write_sets(partition).iter().flatten() {
            if !owners.contains(owner) {
                owners.push(*owner);
            }
        }
        owners
    }

    /// Whether nothing of a partition is anywhere but with its owners and fallbacks in the newest epoch.
    pub fn is_settled(&self, partition: Partition) -> bool {
        self.views[partition.index()].settled || planted::is(Bug::CollectInTransition)
    }

    /// Whether nothing is left to do: nobody needs to be asked for marks any more.
    pub fn all_settled(&self) -> bool {
        self.chain.epochs().len() == 1 && self.views.iter().all(|view| view.settled)
    }

    /// Whether this node gains a partition and has not pulled it from enough.
    pub fn is_syncing(&self, partition: Partition) -> bool {
        self.gains(self.us, partition) && !self.ours().synced.contains(partition)
    }

    /// Everything that a node held of a partition when the comparison began, in an era, is here too, and the other way
    /// around. The other held the newest epoch then, and had applied all that it accepted before.
    pub fn compared(&mut self, era: u64, partition: Partition, node: NodeId) {
        if era == self.era {
            self.compared.entry(partition).or_default().insert(node);
        }
    }

    /// Whether N-W+1 owners of each live epoch are among these, or are given up.
    pub fn covers(&self, partition: Partition, nodes: &BTreeSet<NodeId>) -> bool {
        let replication = self.newest().replication();
        let mut needed = usize::from(replication.factor - replication.write_quorum + 1);
        if planted::is(Bug::SyncFromOneFewer) {
            needed = needed.saturating_sub(1).max(1);
        }
        self.sources(partition).all(|epoch| {
            let counts =
                |owner: NodeId| nodes.contains(&owner) || owner == self.us || self.lost.contains(&owner);
            epoch.owners(partition).filter(|owner| counts(owner.id)).count() >= needed
        })
    }

    /// Whether each owner in the newest epoch was compared with: then what this node has of a lost partition can go.
    pub fn is_proven(&self, partition: Partition) -> bool {
        let proven = self.compared.get(&partition);
        let mut owners = self.newest().owners(partition);
        planted::is(Bug::DeleteBeforeProof)
            || owners.all(|owner| proven.is_some_and(|proven| proven.contains(&owner.id)))
    }

    /// Whether this node may make dots in a partition: it owns it in the epoch that reads go by, so it holds all that it
    /// made there before. One that lost the partition, or gets it back, may not: its next dot would claim to have seen
    /// those that it gave away.
    pub fn may_make_dots(&self, partition: Partition) -> bool {
        self.is_ours(partition) && self.read_by(partition).owns(self.us, partition)
    }

    /// Whether this node may take writes of a partition: it owns it in some live epoch. One that told that it is clear takes
    /// nothing more, whatever it has forgotten since of epochs that were retired.
    pub fn is_ours(&self, partition: Partition) -> bool {
        let gave_up = self.ours().clear.contains(partition) && !self.newest().owns(self.us, partition);
        self.owns(self.us, partition) && !gave_up
    }

    /// What has become true of this node since it told last, if anything. It counts when it is on the disk and
    /// [`Transition::install`]ed, but reads that it ends are refused from now on. `is_whole` tells whether all that was
    /// ever held of a partition is served; `is_clear` whether this node, which does not own a partition, holds nothing of
    /// it.
    pub fn advance(
        &mut self,
        is_whole: impl Fn(Partition) -> bool,
        is_clear: impl Fn(Partition) -> bool,
    ) -> Option<Marks> {
        let newest = self.newest().clone();
        let mut marks = self.ours().clone();
        let none = BTreeSet::new();
        for partition in newest.partitions().iter() {
            let owner = newest.owns(self.us, partition);
            let compared = self.compared.get(&partition).unwrap_or(&none);
            let covered = || is_whole(partition) && self.covers(partition, compared);
            if owner && (!self.gains(self.us, partition) || covered()) {
                marks.synced.insert(partition);
            }
            let readable = self.views[partition.index()].readable;
            if readable && self.is_ours(partition) {
                self.floors[partition.index()] = newest.number();
            }
            // What it has heard of it refuses as well.
            marks.read_from(partition, self.floors[partition.index()]);
            if owner || (!self.is_ours(partition) && is_clear(partition)) {
                marks.clear.insert(partition);
            }
        }
        (marks != *self.ours()).then_some(marks)
    }

    /// These marks of this node are on its disk. Whether they say anything new.
    pub fn install(&mut self, marks: Marks) -> bool {
        let news = self.marks.get_mut(&self.us).is_some_and(|ours| ours.merge(&marks));
        if news {
            self.look();
        }
        news
    }

    /// Drops the epochs that are retired for every partition, and whose reads are over. Whether there were any.
    pub fn retire(&mut self) -> bool {
        let live = self.views.iter().flat_map(|view| view.live.first()).min().copied();
        let read = self.floors.iter().min().copied().unwrap_or(0);
        let epochs = self.chain.epochs();
        let over = epochs.iter().take_while(|epoch| epoch.number() < read).count();
        let retired = live.unwrap_or(epochs.len() - 1).min(over);
        if retired == 0 {
            return false;
        }
        self.chain.drop_oldest(retired);
        self.look();
        true
    }

    /// Partitions of which an older epoch is live.
    pub fn unretired_count(&self) -> usize {
        self.views.iter().filter(|view| !view.live.is_empty()).count()
    }

    /// Members that gain partitions and have not said that they are synced.
    pub fn waiting_for(&self) -> BTreeSet<NodeId> {
        let newest = self.newest();
        let unsynced = |partition| {
            let owners = newest.owners(partition).map(|owner| owner.id);
            owners.filter(move |owner| !self.is_synced(*owner, partition))
        };
        newest.partitions().iter().flat_map(unsynced).collect()
    }

    /// Older epochs that are not retired for a partition.
    fn older(&self, partition: Partition) -> impl Iterator<Item = &Arc<Epoch>> {
        self.views[partition.index()].live.iter().map(|at| &self.chain.epochs()[*at])
    }

    /// The older epochs whose owners may have a write that the owners in a later one lack: by none before the floor, since
    /// somebody reads by that, and so whoever had gained the partition until then was synced.
    fn sources(&self, partition: Partition) -> impl Iterator<Item = &Arc<Epoch>> {
        let floor = self.floors[partition.index()];
        self.older(partition).filter(move |epoch| epoch.number() >= floor)
    }

    /// Whether a node owns a partition in the newest epoch and may lack a write of an older one.
    fn gains(&self, node: NodeId, partition: Partition) -> bool {
        self.newest().owns(node, partition)
            && self.sources(partition).any(|epoch| !epoch.owns(node, partition))
    }

    fn is_synced(&self, owner: NodeId, partition: Partition) -> bool {
        let newest = self.newest().number();
        let told = |marks: &Marks| marks.epoch == newest && marks.synced.contains(partition);
        !self.gains(owner, partition) || self.marks.get(&owner).is_some_and(told)
    }

    /// Works out what follows from the chain and the marks.
    fn look(&mut self) {
        let newest = self.newest().clone();
        let lost = newest.members().iter().filter(|member| member.state == MemberState::Lost);
        self.lost = lost.map(|member| member.id).collect();
        let clear = self.clear_of_all();
        let partitions = newest.partitions();
        let before = std::mem::replace(&mut self.views, vec![View::default(); partitions.get() as usize]);
        for partition in partitions.iter() {
            self.learn_floor(partition);
            let live = self.live(partition);
            let older = live.iter().map(|at| &self.chain.epochs()[*at]);
            let owners = |epoch: &Arc<Epoch>| epoch.owners(partition).map(|owner| owner.id).collect();
            let sets = std::iter::once(&newest).chain(older).map(owners).collect();
            let settled = live.is_empty() && clear.contains(partition);
            self.views[partition.index()] = View { sets, live, settled, ..View::default() };
            let readable = newest.owners(partition).all(|owner| self.is_synced(owner.id, partition));
            let read_by = self.read_position(partition, readable);
            let view = &mut self.views[partition.index()];
            (view.readable, view.read_by) = (readable, read_by);
        }
        let us = self.us;
        let owned = |view: &View| view.sets.iter().any(|set| set.contains(&us));
        self.revision +=
            u64::from(before.iter().zip(&self.views).any(|(before, now)| before.sets != now.sets));
        if before.iter().zip(&self.views).any(|(before, now)| owned(before) && !owned(now)) {
            // What is held of it changes no more: now it can be proven.
            self.begin_era();
        }
    }

    fn read_position(&self, partition: Partition, readable: bool) -> usize {
        let epochs = self.chain.epochs();
        let newest = epochs.len() - 1;
        if readable || planted::is(Bug::MoveReadsEarly) {
            return newest;
        }
        let floor = self.floors[partition.index()];
        let goes_on = |epoch: &Arc<Epoch>| epoch.number() >= floor && !self.is_retired(epoch, partition);
        epochs.iter().position(goes_on).unwrap_or(newest)
    }

    /// Whoever is reading by an epoch makes it known that nobody reads by less.
    fn learn_floor(&mut self, partition: Partition) {
        let told = self.marks.values().map(|marks| marks.reads_from(partition)).max().unwrap_or(0);
        let floor = &mut self.floors[partition.index()];
        *floor = told.max(*floor);
    }

    /// Positions of the older epochs that are not retired for a partition, the oldest first.
    fn live(&self, partition: Partition) -> Vec<usize> {
        let newest = self.newest();
        let mut older = self.chain.epochs().iter().enumerate().take(self.chain.epochs().len() - 1);
        let mut live = Vec::new();
        let same = |epoch: &Epoch| epoch.owners(partition).all(|owner| newest.owns(owner.id, partition));
        for (at, epoch) in &mut older {
            if !same(epoch) && !self.is_retired(epoch, partition) {
                live.push(at);
            }
        }
        live
    }

    fn is_retired(&self, epoch: &Epoch, partition: Partition) -> bool {
        let replication = epoch.replication();
        let mut needed = usize::from(replication.factor - replication.read_quorum + 1);
        if planted::is(Bug::RetireEarly) {
            needed -= 1;
        }
        let reads_no_more = |owner: NodeId| {
            let told = |marks: &Marks| marks.reads_from(partition) > epoch.number();
            self.marks.get(&owner).is_some_and(told) || self.lost.contains(&owner)
        };
        epoch.owners(partition).filter(|owner| reads_no_more(owner.id)).count() >= needed
    }

    /// The partitions of which every member says that it is clear.
    fn clear_of_all(&self) -> Bits {
        let newest = self.newest();
        let told = |id| self.marks.get(&id).filter(|marks| marks.epoch == newest.number());
        let mut members = newest.members().iter().filter(|member| member.state.takes_part());
        let first = members.next().and_then(|member| told(member.id)).map(|marks| marks.clear.clone());
        members.fold(first.unwrap_or_default(), |mut clear, member| {
            clear.intersect(told(member.id).map_or(&Bits::default(), |marks| &marks.clear));
            clear
        })
    }
}
