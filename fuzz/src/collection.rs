//! Tombstone collection with participants and leaders that say anything.

use bytes::Bytes;
use quorate_core::NodeId;
use quorate_core::collection::{
    Action, Answer, Candidate, Floors, Holder, Mark, Outcome, Reply, Request, Round, Turned, answer,
};
use quorate_core::ring::{Partition, PartitionCount, key_hash};
use serde::{Deserialize, Serialize};

use crate::frames::{collection_replies, collection_requests, round};
use crate::samples::{decoded, encoded, node};

const OWNERS: [u8; 3] = [1, 2, 3];
const FALLBACKS: [u8; 2] = [4, 5];
const MINE: Mark = Mark { start: 1, sent: 7 };

/// What others say.
#[derive(Serialize, Deserialize)]
struct Talk {
    requests: Vec<Request>,
    /// By whom; none is silence.
    replies: Vec<(u8, Option<Reply>)>,
}

pub(crate) fn run(bytes: &[u8]) -> bool {
    let Some(talk) = decoded::<Talk>(bytes) else { return false };
    let mut floors = Floors::new();
    talk.requests.into_iter().for_each(|request| takes_part(request, &mut floors));
    leads(talk.replies);
    true
}

/// Holds keys by their hash.
struct Node;

impl Holder for Node {
    fn holds_dead(&self, _: Partition, candidate: &Candidate) -> bool {
        key_hash(&candidate.key) & 1 == 0
    }

    fn keeps_hint(&self, _: Partition, key: &[u8]) -> bool {
        key_hash(key) & 2 == 0
    }
}

fn ring() -> PartitionCount {
    PartitionCount::try_from(1).expect("a power of two")
}

fn takes_part(request: Request, floors: &mut Floors) {
    let allowed = request.check(ring());
    let asked = request.clone();
    let answered = answer(request, ring(), MINE, floors, &Node);
    assert_eq!(allowed.err(), answered.as_ref().err().copied());
    match answered {
        Ok(Answer::Reply(Reply::Cleared { round, clear, mark, .. })) => {
            assert_eq!((round, mark), (asked.round(), MINE));
            let keys = match &asked {
                Request::Confirm { candidates, .. } => candidates.len(),
                Request::Fence { keys, .. } => keys.len(),
                Request::Collect { .. } => unreachable!("a collect clears nothing"),
            };
            assert!(clear.is_sorted_by(|a, b| a < b) && clear.iter().all(|&at| usize::from(at) < keys));
        }
        Ok(Answer::Forget { round, .. }) => {
            assert_eq!(round, asked.round());
            let Request::Collect { floors: marks, .. } = asked else {
                unreachable!("only a collect forgets")
            };
            let mut old = |&(sender, mark): &(NodeId, Mark)| {
                // Once the sender is known, it is told from nobody by the floor alone.
                floors.raise(sender, Mark::default()) && floors.admit(sender, mark) == Err(Turned::Late)
            };
            assert!(marks.iter().all(&mut old), "what is collected can come back");
        }
        Ok(Answer::Reply(_)) | Err(_) => {}
    }
}

/// Leads a round: it ends at most once, and forgets only what everybody had a say in.
fn leads(replies: Vec<(u8, Option<Reply>)>) {
    let candidates =
        ["a", "b", "c"].map(|key| Candidate { key: Bytes::from_static(key.as_bytes()), digest: 5 });
    let mut round = Round::new(round(), Partition(0), OWNERS.map(node), FALLBACKS.map(node), candidates);
    let mut waiting = Waiting::default();
    waiting.take(round.begin());
    for (from, reply) in replies {
        let from = node(from % 8);
        let was_over = round.is_over();
        let actions = match reply {
            Some(reply) => {
                waiting.heard.insert(from);
                round.replied(from, reply)
            }
            None => round.expired(from),
        };
        assert!(!was_over || actions.is_empty(), "a round goes on after its end");
        waiting.take(actions);
    }
    assert_eq!(waiting.outcome.is_some(), round.is_over());
    if waiting.outcome.is_some_and(|outcome| outcome.cleared > 0) {
        assert!(OWNERS.iter().chain(&FALLBACKS).all(|&each| waiting.heard.contains(&node(each))));
    }
}

/// What a round does.
#[derive(Default)]
struct Waiting {
    heard: std::collections::BTreeSet<NodeId>,
    outcome: Option<Outcome>,
}

impl Waiting {
    fn take(&mut self, actions: Vec<Action>) {
        for action in actions {
            match action {
                Action::Ask { to, request } => {
                    assert!(
                        OWNERS.iter().chain(&FALLBACKS).any(|&each| node(each) == to),
                        "a stranger is asked"
                    );
                    assert_eq!(request.check(ring()), Ok(()), "we ask what nobody answers");
                }
                Action::Finished(outcome) => {
                    assert!(self.outcome.replace(outcome).is_none(), "a round ends twice");
                }
            }
        }
    }
}

pub(crate) fn seeds() -> Vec<Vec<u8>> {
    let asked = Talk { requests: collection_requests(), replies: Vec::new() };
    let mut floors = Floors::new();
    let [confirm, fence, _] = collection_requests().try_into().expect("three kinds");
    let mut cleared = |request| match answer(request, ring(), MINE, &mut floors, &Clear) {
        Ok(Answer::Reply(reply)) => reply,
        other => unreachable!("a seed is in order: {other:?}"),
    };
    let (confirmed, fenced) = (cleared(confirm), cleared(fence));
    let [collected, declined] = collection_replies().try_into().expect("two kinds");
    let from = |each: u8, reply: &Reply| (each, Some(reply.clone()));
    let mut replies: Vec<_> = OWNERS.iter().map(|&each| from(each, &confirmed)).collect();
    replies.extend(FALLBACKS.iter().map(|&each| from(each, &fenced)));
    replies.extend(OWNERS.iter().map(|&each| from(each, &collected)));
    let whole = Talk { requests: Vec::new(), replies };
    let silent = Talk { requests: Vec::new(), replies: vec![(1, None), (2, None), (1, Some(declined))] };
    [asked, whole, silent].iter().map(encoded).collect()
}

/// Clears whatever it is asked.
struct Clear;

impl Holder for Clear {
    fn holds_dead(&self, _: Partition, _: &Candidate) -> bool {
        true
    }

    fn keeps_hint(&self, _: Partition, _: &[u8]) -> bool {
        false
    }
}
