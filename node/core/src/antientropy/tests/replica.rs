//! A replica in memory, and an exchange between two of them over a network that may be bad.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;

use bytes::Bytes as Key;

use super::super::*;
use crate::causality::{Actor, Context, Dot, Event, Policy, Stamp, VersionSet};
use crate::id::NodeId;
use crate::ring::{Partition, PartitionCount, key_hash};

pub(super) fn ring(partitions: u32) -> PartitionCount {
    PartitionCount::try_from(partitions).unwrap()
}

/// A numbered key.
pub(super) fn name(key: u64) -> Key {
    Key::copy_from_slice(&key.to_be_bytes())
}

/// Keys that begin so have the same hash.
pub(super) const SHARING: &[u8] = b"sharing";
/// Which is this.
pub(super) const SHARED_HASH: u64 = 77;

/// The hash of a numbered key.
pub(super) fn spread(key: u64) -> u64 {
    key_hash(&name(key))
}

#[derive(Clone)]
pub(super) struct Replica {
    ring: PartitionCount,
    sets: BTreeMap<u64, BTreeMap<Key, VersionSet>>,
    trees: BTreeMap<Partition, Tree>,
    /// Content messages sent; and, for the receiver's check, what was held at each count.
    sent: u64,
    changes: u64,
}

impl PartialEq for Replica {
    fn eq(&self, other: &Self) -> bool {
        let roots = |replica: &Self| -> Vec<u64> { replica.ring.iter().map(|p| replica.root(p)).collect() };
        self.sets == other.sets && roots(self) == roots(other)
    }
}

impl std::fmt::Debug for Replica {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "a replica of {} hashes", self.sets.len())
    }
}

impl View for Replica {
    fn root(&self, partition: Partition) -> u64 {
        self.trees.get(&partition).map_or(0, Tree::root)
    }

    fn children(&self, partition: Partition, prefix: Prefix) -> Option<[u64; FANOUT]> {
        self.trees.get(&partition)?.children(prefix)
    }

    fn entries(&self, _: Partition, hashes: RangeInclusive<u64>, limit: usize) -> Vec<Entry> {
        self.sets.range(hashes).take(limit).map(|(&key_hash, sets)| entry(key_hash, sets)).collect()
    }
}

fn entry(key_hash: u64, sets: &BTreeMap<Key, VersionSet>) -> Entry {
    Entry { key_hash, digest: combined(sets.values().map(VersionSet::digest)) }
}

impl Replica {
    pub(super) fn new(ring: PartitionCount) -> Self {
        Self { ring, sets: BTreeMap::new(), trees: BTreeMap::new(), sent: 0, changes: 0 }
    }

    /// Makes a version of its own: `maker` tells concurrent ones apart.
    pub(super) fn write(&mut self, key: u64, maker: u128) {
        self.put(spread(key), name(key), vec![7; 20], maker);
    }

    pub(super) fn write_value(&mut self, key: u64, value: Vec<u8>) {
        self.put(spread(key), name(key), value, 1);
    }

    /// One of the keys that share their hash.
    pub(super) fn write_sharing(&mut self, key: &str, maker: u128) {
        let key = [SHARING, key.as_bytes()].concat();
        self.put(SHARED_HASH, key.into(), vec![7; 20], maker);
    }

    /// A key whose hash is whatever is wanted; it can be loaded, and not merged.
    pub(super) fn write_as(&mut self, hash: u64, key: Key, value: Vec<u8>) {
        self.put(hash, key, value, 1);
    }

    fn put(&mut self, hash: u64, key: Key, value: Vec<u8>, maker: u128) {
        let mut set = self.sets.get(&hash).and_then(|sets| sets.get(&key)).cloned().unwrap_or_default();
        let actor = Actor { node: NodeId::from_u128(maker), start: 1 };
        let dot = Dot { actor, counter: set.context().seen(actor) + 1 };
        let stamp = Stamp::at_ms(1);
        let value = Some(value.into());
        let event =
            Event { context: Context::default(), stamp, value, expires: None, policy: Policy::Siblings };
        set.write(event, dot).unwrap();
        self.store(hash, key, Some(set));
    }

    pub(super) fn lose(&mut self, key: u64) {
        self.store(spread(key), name(key), None);
    }

    fn store(&mut self, hash: u64, key: Key, set: Option<VersionSet>) {
        self.changes += 1;
        let new = set.as_ref().map(VersionSet::digest);
        let sets = self.sets.entry(hash).or_default();
        let old = match set {
            Some(set) => sets.insert(key, set),
            None => sets.remove(&key),
        };
        if sets.is_empty() {
            self.sets.remove(&hash);
        }
        let bits = self.ring.get().trailing_zeros();
        let partition = self.ring.of_hash(hash);
        let tree = self.trees.entry(partition).or_insert_with(|| Tree::new(bits));
        tree.replace(hash, old.map(|old| old.digest()), new);
        if let Some(depth) = tree.wants_depth() {
            self.rebuild_one(partition, depth);
        }
    }

    fn rebuild_one(&mut self, partition: Partition, depth: u8) {
        let Some(tree) = self.trees.get_mut(&partition) else { return };
        let bits = self.ring.get().trailing_zeros();
        let here = self.sets.range(Prefix::ROOT.hashes(partition, bits));
        tree.rebuild(
            depth,
            here.flat_map(|(&hash, sets)| sets.values().map(move |set| (hash, set.digest()))),
        );
    }

    /// Makes all trees of one depth, wanted or not.
    pub(super) fn rebuild(&mut self, depth: u8) {
        self.ring.iter().for_each(|partition| self.rebuild_one(partition, depth));
    }

    pub(super) fn load(&self, hash: u64) -> Vec<(Key, VersionSet)> {
        let sets = self.sets.get(&hash).into_iter().flatten();
        sets.map(|(key, set)| (key.clone(), set.clone())).collect()
    }

    /// How many hashes two replicas hold differently.
    pub(super) fn differing(&self, other: &Self) -> usize {
        let entries = |replica: &Self| -> BTreeMap<u64, u64> {
            let entry = |(&hash, sets)| (hash, entry(hash, sets).digest);
            replica.sets.iter().map(entry).collect()
        };
        let (ours, theirs) = (entries(self), entries(other));
        let changed = ours.iter().filter(|(hash, digest)| theirs.get(hash) != Some(digest)).count();
        changed + theirs.keys().filter(|hash| !ours.contains_key(hash)).count()
    }

    fn count(&mut self) -> u64 {
        self.sent += 1;
        self.sent
    }

    fn merge(&mut self, items: &Items) {
        for Item { key, set } in &items.items {
            let hash = if key.starts_with(SHARING) { SHARED_HASH } else { key_hash(key) };
            let mut merged = self.sets.get(&hash).and_then(|sets| sets.get(key)).cloned().unwrap_or_default();
            if merged.merge(set) {
                self.store(hash, key.clone(), Some(merged));
            }
        }
    }
}

/// What goes wrong.
#[derive(Clone, Copy)]
pub(super) struct Faults {
    pub(super) seed: u64,
    pub(super) lose_percent: u64,
    pub(super) double_percent: u64,
    /// The peer answers so often, and then never again.
    pub(super) dead_after: Option<usize>,
    pub(super) initiator_full: bool,
    pub(super) responder_full: bool,
    /// Both sides take writes meanwhile.
    pub(super) writes: bool,
}

impl Faults {
    pub(super) fn none() -> Self {
        Self {
            seed: 0,
            lose_percent: 0,
            double_percent: 0,
            dead_after: None,
            initiator_full: false,
            responder_full: false,
            writes: false,
        }
    }
}

/// What an exchange sent, encoded.
#[derive(Clone, Copy, Default, Debug)]
pub(super) struct Bytes {
    /// All but the keys' sets.
    pub(super) finding: usize,
    pub(super) content: usize,
    pub(super) keys_fetched: usize,
    pub(super) keys_pushed: usize,
}

#[derive(Default)]
pub(super) struct Run {
    pub(super) bytes: Bytes,
    pub(super) messages: usize,
    pub(super) largest: usize,
    pub(super) reports: Vec<Report>,
}

impl Run {
    /// A message crosses the wire, and is decoded there.
    fn send<T: serde::Serialize + serde::de::DeserializeOwned>(
        &mut self,
        message: &T,
        content: Option<&Items>,
    ) -> T {
        let bytes = postcard::to_stdvec(message).unwrap();
        let content = content.map_or(0, |items| postcard::to_stdvec(&items.items).unwrap().len());
        self.messages += 1;
        self.largest = self.largest.max(bytes.len());
        self.bytes.finding += bytes.len() - content;
        self.bytes.content += content;
        postcard::from_bytes(&bytes).unwrap()
    }
}

fn respond(right: &mut Replica, request: Request, faults: Faults) -> Reply {
    match answer(request, right.ring, right, |_| true).expect("the initiator keeps to the protocol") {
        Answer::Reply(reply) => reply,
        Answer::Load { hashes, after, .. } => {
            let sent = right.count();
            Reply::Fetched(pack(sent, &hashes, after.as_deref(), |hash| right.load(hash)))
        }
        Answer::Merge { items, .. } => {
            let stored = !faults.responder_full;
            if stored {
                right.merge(&items);
            }
            Reply::Pushed { stored }
        }
    }
}

/// One exchange, `left` the initiator.
pub(super) fn exchange(left: &mut Replica, right: &mut Replica, faults: Faults) -> Run {
    let mut run = Run::default();
    let mut exchange = Exchange::new(left.ring, left.ring.iter());
    let mut seed = faults.seed;
    let mut percent = move || {
        seed = key_hash(&seed.to_be_bytes());
        seed % 100
    };
    let mut counted = (0, 0);
    for _ in 0..1_000_000 {
        if faults.writes && percent() < 20 {
            left.write(percent(), 4);
            right.write(percent(), 5);
        }
        match exchange.step(left) {
            Step::Ask { sequence, request } => {
                let pushed = match &request {
                    Request::Push { items, .. } => Some(items.clone()),
                    _ => None,
                };
                if let Some(items) = &pushed {
                    run.bytes.keys_pushed += items.items.len();
                    let (sent, changes) = counted;
                    assert_eq!(items.sent, sent, "a set that is sent again is counted and read again");
                    assert!(changes == left.changes || faults.writes);
                }
                let request = run.send(&request, pushed.as_ref());
                if faults.dead_after.is_some_and(|most| run.messages > most)
                    || percent() < faults.lose_percent
                {
                    exchange.expired(sequence);
                    continue;
                }
                for _ in 0..1 + u64::from(percent() < faults.double_percent) {
                    let reply = respond(right, request.clone(), faults);
                    let fetched = match &reply {
                        Reply::Fetched(parcel) => Some(parcel.items.clone()),
                        _ => None,
                    };
                    run.bytes.keys_fetched += fetched.as_ref().map_or(0, |items| items.items.len());
                    let reply = run.send(&reply, fetched.as_ref());
                    if percent() < faults.lose_percent {
                        exchange.expired(sequence);
                    }
                    for _ in 0..1 + u64::from(percent() < faults.double_percent) {
                        exchange
                            .replied(sequence, reply.clone(), left)
                            .expect("the responder keeps to the protocol");
                    }
                }
            }
            Step::Merge { items, .. } => {
                let stored = !faults.initiator_full;
                if stored {
                    left.merge(&items);
                }
                exchange.merged(stored, left);
            }
            Step::Load { hashes, after, .. } => {
                let sent = left.count();
                counted = (sent, left.changes);
                exchange.loaded(pack(sent, &hashes, after.as_deref(), |hash| left.load(hash)));
            }
            Step::Report(report) => run.reports.push(report),
            Step::Wait => panic!("nothing is under way"),
            Step::Finished => return run,
        }
    }
    panic!("the exchange does not end")
}
