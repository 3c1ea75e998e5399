//! Anti-entropy with a peer that says anything: what it asks, and what it answers.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::RangeInclusive;

use bytes::Bytes;
use quorate_core::antientropy::{
    Answer, Entry, Exchange, FANOUT, Prefix, Reply, Request, Step, Tree, View, answer, pack,
};
use quorate_core::causality::VersionSet;
use quorate_core::ring::{Partition, PartitionCount};
use serde::{Deserialize, Serialize};

use crate::frames::{exchange_replies, exchange_requests};
use crate::samples::{decoded, encoded, sets};

/// Keys of the node that is talked to.
const KEYS: u64 = 200;
/// The longest answer, with room to spare: one set of these is shorter than a message.
const REPLY_BYTES_MAX: usize = 512 * 1024;
/// An exchange that takes more steps for an answer never ends.
const STEPS_PER_REPLY_MAX: usize = 10_000;

/// What a peer says.
#[derive(Serialize, Deserialize)]
struct Talk {
    /// The ring has two to the power of this partitions, about.
    partition_bits: u8,
    requests: Vec<Request>,
    /// To our questions, in turn; none is silence.
    replies: Vec<Option<Reply>>,
}

pub(crate) fn run(bytes: &[u8]) -> bool {
    let Some(talk) = decoded::<Talk>(bytes) else { return false };
    let node = Node::new(u32::from(talk.partition_bits) % 4);
    talk.requests.into_iter().for_each(|request| node.asked(request));
    node.asks(talk.replies);
    true
}

/// A node with some keys.
struct Node {
    ring: PartitionCount,
    trees: Vec<Tree>,
    /// By hash.
    keys: BTreeMap<u64, (Bytes, VersionSet)>,
}

impl Node {
    fn new(partition_bits: u32) -> Self {
        let ring = PartitionCount::try_from(1 << partition_bits).expect("a power of two");
        let mut trees: Vec<Tree> = ring.iter().map(|_| Tree::new(partition_bits)).collect();
        let mut keys = BTreeMap::new();
        for number in 0..KEYS {
            let key = Bytes::from(number.to_string());
            let hash = quorate_core::ring::key_hash(&key);
            let [_, _, set] = sets();
            trees[ring.of_hash(hash).index()].replace(hash, None, Some(set.digest()));
            keys.insert(hash, (key, set));
        }
        for (at, tree) in trees.iter_mut().enumerate() {
            let here = |hash: &u64| ring.of_hash(*hash).index() == at;
            let entries =
                keys.iter().filter(|(hash, _)| here(hash)).map(|(&hash, (_, set))| (hash, set.digest()));
            tree.rebuild(2, entries);
        }
        Self { ring, trees, keys }
    }

    fn load(&self, hash: u64) -> Vec<(Bytes, VersionSet)> {
        self.keys.get(&hash).cloned().into_iter().collect()
    }

    /// Answers what is allowed, and nothing else.
    fn asked(&self, request: Request) {
        let allowed = request.check(self.ring);
        let answered = answer(request, self.ring, self, |_| true);
        assert_eq!(allowed.err(), answered.as_ref().err().copied());
        let reply = match answered {
            Ok(Answer::Reply(reply)) => reply,
            Ok(Answer::Load { hashes, after, .. }) => {
                Reply::Fetched(pack(1, &hashes, after.as_deref(), |hash| self.load(hash)))
            }
            Ok(Answer::Merge { .. }) | Err(_) => return,
        };
        let bytes = encoded(&reply);
        assert!(bytes.len() <= REPLY_BYTES_MAX, "an answer of {} bytes", bytes.len());
        assert_eq!(decoded::<Reply>(&bytes), Some(reply));
    }

    /// Leads an exchange to its end, whatever is answered: each partition is reported once.
    fn asks(&self, replies: Vec<Option<Reply>>) {
        let steps_max = STEPS_PER_REPLY_MAX * (replies.len() + 1);
        let mut replies = replies.into_iter();
        let mut exchange = Exchange::new(self.ring, self.ring.iter());
        let mut reported = BTreeSet::new();
        for _ in 0..steps_max {
            match exchange.step(self) {
                Step::Ask { sequence, request } => {
                    assert_eq!(request.check(self.ring), Ok(()), "we ask what nobody answers");
                    match replies.next().flatten() {
                        None => exchange.expired(sequence),
                        Some(reply) => {
                            if exchange.replied(sequence, reply, self).is_err() {
                                return;
                            }
                        }
                    }
                }
                Step::Merge { partition, items } => {
                    let strays = items.items.iter().filter(|item| self.ring.of_key(&item.key) != partition);
                    assert_eq!(strays.count(), 0, "a key is merged into another partition");
                    exchange.merged(items.sent % 2 == 0, self);
                }
                Step::Load { hashes, after, .. } => {
                    exchange.loaded(pack(1, &hashes, after.as_deref(), |hash| self.load(hash)));
                }
                Step::Report(report) => assert!(reported.insert(report.partition), "reported twice"),
                Step::Wait => unreachable!("every question is answered at once"),
                Step::Finished => {
                    assert_eq!(reported.len(), self.ring.get() as usize, "a partition is forgotten");
                    return;
                }
            }
        }
        panic!("the exchange does not end");
    }
}

impl View for Node {
    fn root(&self, partition: Partition) -> u64 {
        self.trees[partition.index()].root()
    }

    fn children(&self, partition: Partition, prefix: Prefix) -> Option<[u64; FANOUT]> {
        self.trees[partition.index()].children(prefix)
    }

    fn entries(&self, _: Partition, hashes: RangeInclusive<u64>, limit: usize) -> Vec<Entry> {
        let entry =
            |(&key_hash, (_, set)): (&u64, &(Bytes, VersionSet))| Entry { key_hash, digest: set.digest() };
        self.keys.range(hashes).map(entry).take(limit).collect()
    }
}

pub(crate) fn seeds() -> Vec<Vec<u8>> {
    let asking = Talk { partition_bits: 1, requests: exchange_requests(), replies: Vec::new() };
    let answering = Talk { partition_bits: 1, requests: Vec::new(), replies: replies_in_turn() };
    vec![encoded(&asking), encoded(&answering)]
}

/// The answers of a peer that holds another key.
fn replies_in_turn() -> Vec<Option<Reply>> {
    let [roots, _, entries, fetched, pushed] = exchange_replies().try_into().expect("five kinds");
    let no_cells = Reply::Children { cells: vec![None] };
    vec![Some(roots), Some(no_cells), Some(entries), Some(fetched), Some(pushed)]
}
