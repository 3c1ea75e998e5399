//! Rounds among owners, fallbacks and writers on a network that does its worst.

mod world;

use bytes::Bytes;

use super::*;
use crate::NodeId;
use crate::ring::{Partition, PartitionCount};
use world::{Hole, World};

/// Of the adversary, before it rests.
const STEPS: usize = 3000;
const SEEDS: u64 = 1000;
/// In which each hole is found.
const HOLE_SEEDS_MAX: u64 = 20_000;

/// Runs the worst that a seed knows, then the best; says what broke.
fn run(seed: u64, hole: Hole) -> Result<usize, String> {
    let mut world = World::new(seed, hole);
    for _ in 0..STEPS {
        world.step()?;
    }
    let buried = world.forgotten();
    world.settle()?;
    Ok(buried)
}

#[test]
fn nothing_comes_back_and_everything_goes() {
    let mut forgotten = 0;
    for seed in 0..SEEDS {
        forgotten += run(seed, Hole::None).unwrap_or_else(|broken| panic!("seed {seed}: {broken}"));
    }
    assert!(
        forgotten as u64 > SEEDS,
        "{forgotten} sets were forgotten amid faults: too few to prove anything"
    );
}

/// Each rule of the protocol is needed: without it, some seed brings a deleted value back.
#[test]
fn every_rule_is_needed() {
    for hole in Hole::ALL {
        let found = (0..HOLE_SEEDS_MAX).find_map(|seed| run(seed, hole).err().map(|broken| (seed, broken)));
        let (seed, broken) = found.unwrap_or_else(|| panic!("{hole:?} does no harm: is the rule needed?"));
        println!("{hole:?}: seed {seed}: {broken}");
    }
}

fn node(number: u128) -> NodeId {
    NodeId::from_u128(number)
}

fn candidate(key: &'static str, digest: u64) -> Candidate {
    Candidate { key: key.into(), digest }
}

fn round(candidates: Vec<Candidate>) -> Round {
    let id = RoundId { start: 1, number: 1 };
    Round::new(id, Partition(0), [node(1), node(2)], [node(2), node(3)], candidates)
}

fn cleared(step: message::Step, clear: &[u16]) -> Reply {
    let round = RoundId { start: 1, number: 1 };
    Reply::Cleared { round, step, clear: clear.to_vec(), mark: Mark { start: 5, sent: 9 } }
}

fn asked(actions: &[Action]) -> Vec<(NodeId, &Request)> {
    let ask = |action: &'_ Action| matches!(action, Action::Ask { .. });
    assert!(actions.iter().all(ask), "{actions:?}");
    actions
        .iter()
        .filter_map(|action| match action {
            Action::Ask { to, request } => Some((*to, request)),
            Action::Finished(_) => None,
        })
        .collect()
}

#[test]
fn a_round_asks_everybody_in_order_and_drops_what_anybody_holds_back() {
    use message::Step::{Confirm, Fence};
    let mut round = round(vec![candidate("a", 1), candidate("b", 2), candidate("c", 3)]);
    assert_eq!(asked(&round.begin()).iter().map(|(to, _)| *to).collect::<Vec<_>>(), [node(1), node(2)]);
    assert_eq!(round.replied(node(1), cleared(Confirm, &[0, 1, 2])), []);
    assert_eq!(round.replied(node(1), cleared(Confirm, &[])), [], "doubled");
    assert_eq!(round.replied(node(3), cleared(Fence, &[])), [], "not asked yet");
    let fences = round.replied(node(2), cleared(Confirm, &[0, 2]));
    assert_eq!(asked(&fences).iter().map(|(to, _)| *to).collect::<Vec<_>>(), [1, 2, 3].map(node));
    for (_, request) in asked(&fences) {
        let Request::Fence { floors, keys, .. } = request else { panic!("{request:?}") };
        assert_eq!((floors.len(), keys.as_slice()), (2, ["a".into(), Bytes::from("c")].as_slice()));
    }
    assert_eq!(round.replied(node(1), cleared(Fence, &[0, 1])), []);
    assert_eq!(round.replied(node(2), cleared(Fence, &[0, 1])), []);
    let collects = round.replied(node(3), cleared(Fence, &[1]));
    for (to, request) in asked(&collects) {
        let Request::Collect { floors, candidates, .. } = request else { panic!("{request:?}") };
        assert_eq!((floors.len(), candidates.as_slice()), (3, [candidate("c", 3)].as_slice()), "{to}");
    }
    let id = RoundId { start: 1, number: 1 };
    assert_eq!(round.replied(node(1), Reply::Collected { round: id, forgotten: 1 }), []);
    let end = round.replied(node(2), Reply::Collected { round: id, forgotten: 1 });
    assert_eq!(end, [Action::Finished(Outcome { cleared: 1, complete: true })]);
}

#[test]
fn a_round_without_an_answer_ends_without_a_deed() {
    let mut round = round(vec![candidate("a", 1)]);
    round.begin();
    for _ in 1..TRIES_MAX {
        assert_eq!(asked(&round.expired(node(2))).len(), 1);
    }
    let end = round.expired(node(2));
    assert_eq!(end, [Action::Finished(Outcome { cleared: 0, complete: false })]);
    assert_eq!(round.expired(node(1)), [], "over");
    assert!(round.is_over());
}

#[test]
fn who_declines_ends_the_round() {
    let mut round = round(vec![candidate("a", 1)]);
    round.begin();
    let other = RoundId { start: 1, number: 2 };
    assert_eq!(round.replied(node(2), Reply::Declined { round: other }), [], "of another round");
    let id = RoundId { start: 1, number: 1 };
    assert_eq!(round.replied(node(2), Reply::Declined { round: id }).len(), 1);
    assert!(round.is_over());
}

#[test]
fn a_round_is_bounded() {
    let many = (0..1000).map(|n: u32| Candidate { key: Bytes::from(n.to_string()), digest: 0 }).collect();
    let mut bounded = round(many);
    let begun = bounded.begin();
    let ring = PartitionCount::try_from(1).unwrap();
    for (_, request) in asked(&begun) {
        let Request::Confirm { candidates, .. } = request else { panic!("{request:?}") };
        assert_eq!(candidates.len(), CANDIDATES_MAX);
        assert_eq!(request.check(ring), Ok(()));
    }
    let long = (0..200).map(|n: u8| Candidate { key: Bytes::from(vec![n; 4000]), digest: 0 }).collect();
    for (_, request) in asked(&round(long).begin()) {
        assert_eq!(request.check(ring), Ok(()));
    }
    assert!(matches!(
        round(Vec::new()).begin()[..],
        [Action::Finished(Outcome { cleared: 0, complete: true })]
    ));
}

#[test]
fn a_request_beyond_its_bounds_is_refused() {
    let ring = PartitionCount::try_from(2).unwrap();
    let id = RoundId { start: 1, number: 1 };
    let confirm = |partition, candidates| Request::Confirm { round: id, partition, candidates };
    assert!(confirm(Partition(0), vec![candidate("a", 1); CANDIDATES_MAX + 1]).check(ring).is_err());
    let huge = Candidate { key: Bytes::from(vec![0; crate::limits::KEY_BYTES_MAX + 1]), digest: 0 };
    assert!(confirm(Partition(0), vec![huge]).check(ring).is_err());
    let stray = Partition(1 - ring.of_key(b"a").0);
    assert_eq!(confirm(stray, vec![candidate("a", 1)]).check(ring), Err(Refused::Stray { partition: stray }));
    let floors = vec![(node(1), Mark::default()); PARTICIPANTS_MAX + 1];
    let fence = Request::Fence { round: id, partition: Partition(0), floors, keys: Vec::new() };
    assert!(fence.check(ring).is_err());
}
