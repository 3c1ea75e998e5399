//! The laws of what is told, and a model in which rings change while writes and reads are on their way.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use proptest::prelude::*;

use super::*;
use crate::id::ClusterId;
use crate::ring::{EpochMark, Member, Replication};

const N: usize = 3;
const W: usize = 2;
const R: usize = 2;
const NODES: usize = 6;
const PARTITIONS: u16 = 2;
/// Reads and writes that are on their way; older ones are given up.
const OPEN: usize = 3;

fn id(number: usize) -> NodeId {
    NodeId::from_u128(number as u128 + 1)
}

fn partition(number: usize) -> Partition {
    Partition(number as u16 % PARTITIONS)
}

/// An epoch in which these nodes own the partitions, the first [`NODES`] are members, and these are gone.
fn epoch(
    previous: Option<EpochMark>,
    owners: [[usize; N]; PARTITIONS as usize],
    gone: &[usize],
) -> Arc<Epoch> {
    let replication = Replication { factor: N as u8, read_quorum: R as u8, write_quorum: W as u8 };
    let member = |number| Member {
        id: id(number),
        name: format!("n{number}"),
        address: format!("n{number}:1"),
        zone: None,
        weight: 1,
        state: if gone.contains(&number) { MemberState::Removed } else { MemberState::Active },
    };
    let members = (0..NODES).map(member).collect();
    let replicas = owners.iter().map(|set| set.iter().map(|at| *at as u16).collect()).collect();
    Arc::new(Epoch::new(ClusterId::from_u128(7), previous, replication, members, replicas).unwrap())
}

fn marks(epoch: u64, bits: [u16; 3]) -> Marks {
    let set = |bits: u16| {
        let mut set = Bits::default();
        (0..16).filter(|at| bits >> at & 1 == 1).for_each(|at| set.insert(Partition(at)));
        set
    };
    let [synced, reading, clear] = bits.map(set);
    let mut marks = Marks::new(epoch, 16);
    (marks.synced, marks.clear) = (synced, clear);
    (0..16).map(Partition).filter(|p| reading.contains(*p)).for_each(|p| marks.read_from(p, epoch));
    marks
}

fn any_marks() -> impl Strategy<Value = Marks> {
    (0..3u64, any::<[u16; 3]>()).prop_map(|(epoch, bits)| marks(epoch, bits))
}

fn merged(all: &[Marks]) -> Marks {
    all.iter().fold(Marks::new(0, 16), |mut sum, marks| {
        sum.merge(marks);
        sum
    })
}

/// Trailing zeros are no difference.
fn said(marks: &Marks) -> (u64, Vec<(bool, u64, bool)>) {
    let at = |p| (marks.synced.contains(p), marks.reads_from(p), marks.clear.contains(p));
    (marks.epoch, (0..16).map(|p| at(Partition(p))).collect())
}

proptest! {
    #[test]
    fn marks_merge_in_any_order_and_any_number_of_times(
        (all, shuffled) in prop::collection::vec(any_marks(), 0..8)
            .prop_flat_map(|all| (Just(all.clone()), Just(all).prop_shuffle())),
        split in 0..8usize,
    ) {
        let whole = said(&merged(&all));
        prop_assert_eq!(&said(&merged(&shuffled)), &whole);
        let (left, right) = all.split_at(split.min(all.len()));
        prop_assert_eq!(&said(&merged(&[merged(left), merged(right)])), &whole);
        prop_assert_eq!(&said(&merged(&[all.clone(), all].concat())), &whole);
    }

    #[test]
    fn what_was_told_is_known_and_what_was_not_is_told(a in any_marks(), b in any_marks()) {
        let mut both = a.clone();
        let news = both.merge(&b);
        prop_assert_eq!(news, said(&both) != said(&a));
        if said(&both) != said(&a) {
            prop_assert!(both.known(id(1)).is_news_to(&a.known(id(1))));
        }
    }

    #[test]
    fn reads_meet_writes_whatever_the_ring_does(seed in any::<u64>()) {
        Model::after(seed);
    }
}

/// The model is worth something: rings change to the end, and each rule that is left out is found out.
#[test]
fn the_model_goes_far() {
    let runs: Vec<Model> = (1..65).map(Model::after).collect();
    let sum = |of: fn(&Model) -> usize| runs.iter().map(of).sum::<usize>();
    assert!(sum(|run| run.log.len()) > 64 * 3, "epochs");
    assert!(sum(|run| run.acknowledged.values().map(BTreeSet::len).sum()) > 64 * 5, "writes");
    assert!(sum(|run| run.read) > 64 * 5, "reads");
    assert!(sum(|run| run.left) > 64, "partitions that were given up");
}

#[cfg(feature = "planted-bugs")]
#[test]
fn every_rule_is_needed() {
    for bug in [Bug::MoveReadsEarly, Bug::RetireEarly, Bug::SyncFromOneFewer, Bug::DeleteBeforeProof] {
        let found = (0..3000).find(|seed| {
            std::panic::catch_unwind(|| {
                planted::plant(Some(bug));
                Model::after(*seed);
            })
            .is_err()
        });
        planted::plant(None);
        assert!(found.is_some(), "{bug:?} is not found");
    }
}

#[test]
fn a_chain_takes_the_next_epoch_and_no_other() {
    let first = epoch(None, [[0, 1, 2], [0, 1, 2]], &[]);
    let chain = Chain::of(first.clone());
    assert_eq!(chain.with(first.clone()), Ok(None));
    let second = epoch(Some(first.mark()), [[0, 1, 3], [0, 1, 2]], &[]);
    let other = epoch(Some(first.mark()), [[0, 1, 4], [0, 1, 2]], &[]);
    let third = epoch(Some(second.mark()), [[0, 1, 4], [0, 1, 2]], &[]);
    assert_eq!(chain.with(third.clone()), Err(ChainError::Gap { pushed: 3, known: 1 }));
    let chain = chain.with(second.clone()).unwrap().unwrap();
    assert!(matches!(chain.with(other), Err(ChainError::Epoch(_))), "one number, one epoch");
    let mut chain = chain.with(third.clone()).unwrap().unwrap();
    assert_eq!(Chain::of(third).joined(&chain), Ok(None), "what is retired does not come back");
    let next = |chain: &Chain| epoch(Some(chain.newest().mark()), [[0, 1, 5], [0, 1, 2]], &[]);
    while chain.epochs().len() < LIVE_MAX {
        chain = chain.with(next(&chain)).unwrap().unwrap();
    }
    let newest = LIVE_MAX as u64;
    let full = ChainError::Full { pushed: newest + 1, oldest: 1, newest };
    assert_eq!(chain.with(next(&chain)), Err(full));
    let far = Chain::of(next(&chain));
    assert_eq!(chain.joined(&far), Ok(Some(far.clone())), "what another has left behind is retired");
}

#[test]
fn a_chain_from_a_disk_or_a_peer_is_checked() {
    let first = epoch(None, [[0, 1, 2], [0, 1, 2]], &[]);
    let second = epoch(Some(first.mark()), [[0, 1, 3], [0, 1, 2]], &[]);
    let alien = epoch(Some(second.mark()), [[0, 1, 3], [0, 1, 2]], &[]);
    let of =
        |epochs: &[&Arc<Epoch>]| Chain::try_from(epochs.iter().map(|e| (***e).clone()).collect::<Vec<_>>());
    assert!(of(&[&first, &second]).is_ok());
    assert_eq!(of(&[]), Err(ChainError::Count { count: 0 }));
    assert!(of(&[&second, &first]).is_err());
    assert_eq!(of(&[&first, &alien]), Err(ChainError::Gap { pushed: 3, known: 1 }));
}

#[test]
fn a_cancelled_change_goes_back_to_those_who_have_the_data() {
    let first = epoch(None, [[0, 1, 2], [0, 1, 2]], &[]);
    let second = epoch(Some(first.mark()), [[0, 1, 3], [0, 1, 2]], &[]);
    let third = epoch(Some(second.mark()), [[0, 1, 2], [0, 1, 2]], &[]);
    let epochs = [first, second, third].map(|epoch| (*epoch).clone());
    let state = Transition::new(id(0), Chain::try_from(epochs.to_vec()).unwrap());
    let owners = |p| state.read_by(p).owners(p).map(|owner| owner.id).collect::<Vec<_>>();
    assert_eq!(owners(Partition(0)), [id(0), id(1), id(2)], "not those who were to get it and never did");
    assert_eq!(state.write_sets(Partition(0)).len(), 2);
    assert_eq!(state.write_sets(Partition(1)).len(), 1, "nothing changed there");
}

#[test]
fn what_is_said_of_an_epoch_that_is_not_known_is_not_heard() {
    let first = epoch(None, [[0, 1, 2], [0, 1, 2]], &[]);
    let second = epoch(Some(first.mark()), [[0, 1, 3], [0, 1, 2]], &[]);
    let mut gainer =
        Transition::new(id(3), Chain::try_from(vec![(*first).clone(), (*second).clone()]).unwrap());
    let mut of_third = Marks::new(3, 2);
    of_third.read_from(Partition(0), 3);
    for owner in [0, 1, 2] {
        assert!(!gainer.learn(id(owner), of_third.clone()));
    }
    assert!(
        gainer.is_syncing(Partition(0)),
        "the first epoch is retired for the third, in which it gains nothing"
    );
    assert_eq!(
        gainer.advance(|_| true, |_| true).map(|marks| marks.synced.contains(Partition(0))),
        Some(false)
    );
}

/// A write on its way.
struct Write {
    partition: Partition,
    routed: u64,
    sets: Vec<Vec<NodeId>>,
    acknowledged: BTreeSet<NodeId>,
}

/// A read on its way.
struct Read {
    partition: Partition,
    routed: u64,
    owners: Vec<NodeId>,
    replied: BTreeSet<NodeId>,
    found: BTreeSet<usize>,
    /// What was acknowledged when it began.
    expected: BTreeSet<usize>,
}

struct Node {
    state: Option<Transition>,
    held: BTreeMap<Partition, BTreeSet<usize>>,
}

/// Nodes that hear of epochs and of each other in any order, or not at all.
struct Model {
    dice: u64,
    /// What was committed.
    log: Vec<Arc<Epoch>>,
    gone: Vec<usize>,
    nodes: Vec<Node>,
    writes: Vec<Write>,
    reads: Vec<Read>,
    acknowledged: BTreeMap<Partition, BTreeSet<usize>>,
    /// Reads that were answered.
    read: usize,
    /// Partitions that were given up.
    left: usize,
}

impl Model {
    fn after(seed: u64) -> Self {
        let mut model = Self::new(seed);
        model.run(6000);
        model
    }

    fn new(seed: u64) -> Self {
        let first = epoch(None, [[0, 1, 2], [1, 2, 3]], &[]);
        let chain = Chain::of(first.clone());
        let node = |number| Node {
            state: (number < 4).then(|| Transition::new(id(number), chain.clone())),
            held: BTreeMap::new(),
        };
        Self {
            dice: seed | 1,
            log: vec![first],
            gone: Vec::new(),
            nodes: (0..NODES).map(node).collect(),
            writes: Vec::new(),
            reads: Vec::new(),
            acknowledged: BTreeMap::new(),
            read: 0,
            left: 0,
        }
    }

    fn draw(&mut self, below: usize) -> usize {
        self.dice = self.dice.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.dice >> 33) as usize % below
    }

    fn run(&mut self, steps: usize) {
        for _ in 0..steps {
            match self.draw(32) {
                0 => self.commit(),
                1 => self.push(),
                2..=7 => self.gossip(),
                8..=12 => self.compare(),
                13..=15 => self.advance(),
                16 => self.leave(),
                17 => self.begin_write(),
                18 | 19 => self.begin_read(),
                20..=24 => self.deliver_write(),
                _ => self.deliver_read(),
            }
        }
    }

    /// As the operator: never a fourth live epoch for a wish, and never so many gone that nobody has the data.
    fn commit(&mut self) {
        let newest = self.log.last().unwrap().clone();
        let newest_number = newest.number();
        let behind = |node: &Node| {
            node.state.as_ref().is_some_and(|state| {
                state.newest().number() != newest_number || state.chain().epochs().len() > 2
            })
        };
        let gone = self.gone.clone();
        let lives = |at: &usize| !gone.contains(at);
        if (0..NODES).filter(lives).any(|at| behind(&self.nodes[at])) {
            return;
        }
        if self.gone.is_empty() && self.draw(4) == 0 {
            let at = self.draw(NODES);
            self.gone.push(at);
        }
        let sets = [0, 1].map(|p| {
            let mut owners: Vec<usize> = newest
                .owners(Partition(p))
                .map(|owner| (0..NODES).find(|at| id(*at) == owner.id).unwrap())
                .filter(|at| !self.gone.contains(at))
                .collect();
            if owners.len() == N && self.draw(2) == 0 {
                let at = self.draw(N);
                owners.remove(at);
            }
            while owners.len() < N {
                let at = self.draw(NODES);
                if !owners.contains(&at) && !self.gone.contains(&at) {
                    owners.push(at);
                }
            }
            [owners[0], owners[1], owners[2]]
        });
        self.log.push(epoch(Some(newest.mark()), sets, &self.gone));
    }

    fn push(&mut self) {
        let (at, which) = (self.draw(NODES), self.draw(self.log.len()));
        let pushed = self.log[which].clone();
        let Some(state) = &mut self.nodes[at].state else { return };
        if let Ok(Some(chain)) = state.chain().with(pushed) {
            state.adopt(chain, &[]);
        }
    }

    /// One tells another something that it knows.
    fn gossip(&mut self) {
        let (from, to, which) = (self.draw(NODES), self.draw(NODES), self.draw(2 * NODES));
        let Some(teller) = &self.nodes[from].state else { return };
        let told = teller.told();
        let known = self.nodes[to].state.as_ref().map(Transition::known).unwrap_or_default();
        let news = teller.news_for(&known);
        match &mut self.nodes[to].state {
            Some(state) => {
                if let Some((node, marks)) = news.into_iter().nth(which) {
                    state.learn(node, marks);
                } else if let Some(chain) = state.chain().joined(&told.chain).unwrap() {
                    state.adopt(chain, &told.floors);
                }
            }
            None => {
                let mut state = Transition::new(id(to), told.chain.clone());
                state.adopt(told.chain, &told.floors);
                self.nodes[to].state = Some(state);
            }
        }
    }

    /// Two compare a partition, as an exchange does.
    fn compare(&mut self) {
        let (a, b, p) = (self.draw(NODES), self.draw(NODES), partition(self.draw(2)));
        let (Some(ours), Some(theirs)) = (&self.nodes[a].state, &self.nodes[b].state) else { return };
        let same = ours.newest().number() == theirs.newest().number();
        let takes_part = |at| ours.newest().member(id(at)).is_some_and(|m| m.state.takes_part());
        let may = theirs.is_ours(p) && (ours.is_ours(p) || theirs.may_hold(id(a), p));
        if a == b || !same || !takes_part(a) || !takes_part(b) || !may {
            return;
        }
        let (era, keeps) = (ours.era(), ours.is_ours(p));
        let left = self.nodes[a].held.entry(p).or_default().clone();
        let right = self.nodes[b].held.entry(p).or_default();
        right.extend(&left);
        if keeps {
            let all = right.clone();
            self.nodes[a].held.insert(p, all);
        }
        if let Some(state) = &mut self.nodes[a].state {
            state.compared(era, p, id(b));
        }
    }

    fn advance(&mut self) {
        let at = self.draw(NODES);
        let Node { state: Some(state), held } = &mut self.nodes[at] else { return };
        state.retire();
        let clear = |p: Partition| held.get(&p).is_none_or(BTreeSet::is_empty);
        if let Some(marks) = state.advance(|_| true, clear) {
            state.install(marks);
        }
    }

    /// INV-PROOF: what goes is with every new owner.
    fn leave(&mut self) {
        let (at, p) = (self.draw(NODES), partition(self.draw(2)));
        let Some(state) = &self.nodes[at].state else { return };
        if state.is_ours(p) || !state.is_proven(p) {
            return;
        }
        let held = self.nodes[at].held.get(&p).cloned().unwrap_or_default();
        let newest = state.newest().clone();
        for owner in newest.owners(p) {
            let holder = (0..NODES).find(|at| id(*at) == owner.id).unwrap();
            let theirs = self.nodes[holder].held.get(&p).cloned().unwrap_or_default();
            // One that has lost it again since has proven it to its own successors.
            let still = self.nodes[holder].state.as_ref().is_some_and(|s| s.is_ours(p));
            assert!(!still || theirs.is_superset(&held), "{at} gives up what {holder} does not have");
        }
        self.left += usize::from(self.nodes[at].held.remove(&p).is_some());
    }

    fn begin_write(&mut self) {
        let (at, p) = (self.draw(NODES), partition(self.draw(2)));
        let Some(state) = &self.nodes[at].state else { return };
        let (routed, sets) = (state.newest().number(), state.write_sets(p).to_vec());
        self.writes.push(Write { partition: p, routed, sets, acknowledged: BTreeSet::new() });
    }

    fn deliver_write(&mut self) {
        if self.writes.is_empty() {
            return;
        }
        let which = self.writes.len() - 1 - self.draw(self.writes.len().min(OPEN));
        let at = self.draw(NODES);
        let Write { partition: p, routed, sets, acknowledged } = &mut self.writes[which];
        let Node { state: Some(state), held } = &mut self.nodes[at] else { return };
        let wanted = sets.iter().any(|set| set.contains(&id(at)));
        if !wanted || state.newest().number() != *routed || !state.is_ours(*p) {
            return;
        }
        held.entry(*p).or_default().insert(which);
        acknowledged.insert(id(at));
        if sets.iter().all(|set| set.iter().filter(|owner| acknowledged.contains(owner)).count() >= W) {
            self.acknowledged.entry(*p).or_default().insert(which);
        }
    }

    fn begin_read(&mut self) {
        let (at, p) = (self.draw(NODES), partition(self.draw(2)));
        let Some(state) = &self.nodes[at].state else { return };
        let epoch = state.read_by(p);
        self.reads.push(Read {
            partition: p,
            routed: epoch.number(),
            owners: epoch.owners(p).map(|owner| owner.id).collect(),
            replied: BTreeSet::new(),
            found: BTreeSet::new(),
            expected: self.acknowledged.get(&p).cloned().unwrap_or_default(),
        });
    }

    /// INV-OVERLAP: R replies hold everything that was acknowledged before.
    fn deliver_read(&mut self) {
        if self.reads.is_empty() {
            return;
        }
        let which = self.reads.len() - 1 - self.draw(self.reads.len().min(OPEN));
        let read = &mut self.reads[which];
        let at = (self.dice >> 20) as usize % NODES;
        let (p, routed) = (read.partition, read.routed);
        let Node { state: Some(state), held } = &self.nodes[at] else { return };
        let owns = state.chain().get(routed).is_some_and(|epoch| epoch.owns(id(at), p));
        if !read.owners.contains(&id(at)) || !owns || state.admits_read(p, routed).is_err() {
            return;
        }
        read.replied.insert(id(at));
        read.found.extend(held.get(&p).into_iter().flatten());
        if read.replied.len() >= R {
            assert!(read.found.is_superset(&read.expected), "read by {routed} misses an acknowledged write");
            self.reads.swap_remove(which);
            self.read += 1;
        }
    }
}
