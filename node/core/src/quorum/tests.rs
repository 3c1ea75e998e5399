//! Quorums: what counts, what is said when, and that decided reads meet decided writes.

use proptest::prelude::*;

use super::*;
use crate::NodeId;
use crate::causality::{Actor, Context, Dot, Event, Policy, Stamp, VersionSet};

const A: NodeId = NodeId::from_u128(1);
const B: NodeId = NodeId::from_u128(2);
const C: NodeId = NodeId::from_u128(3);

fn write(kind: QuorumKind) -> WriteQuorum {
    WriteQuorum::new(&[vec![A, B, C]], 2, kind)
}

fn acknowledged(replicas: u8, hints: u8) -> WriteDecision {
    WriteDecision::Acknowledged { replicas, hints }
}

#[test]
fn a_write_is_acknowledged_at_w() {
    let mut quorum = write(QuorumKind::Strict);
    assert_eq!(quorum.acknowledged(A), WriteDecision::Wait);
    assert_eq!(quorum.acknowledged(A), WriteDecision::Wait, "one owner counts once");
    assert_eq!(quorum.acknowledged(NodeId::from_u128(9)), WriteDecision::Wait, "a stranger counts never");
    assert_eq!(quorum.acknowledged(C), acknowledged(2, 0));
}

#[test]
fn not_written_only_when_it_is_certain() {
    let mut quorum = write(QuorumKind::Strict);
    assert_eq!(quorum.failed(A, Failure::NotApplied), WriteDecision::Wait);
    let c_may = WriteDecision::Indeterminate { replicas: 0 };
    assert_eq!(quorum.failed(B, Failure::NotApplied), c_may);
    assert_eq!(quorum.failed(C, Failure::NotApplied), WriteDecision::NotWritten);
    let mut quorum = write(QuorumKind::Strict);
    quorum.failed(A, Failure::NotApplied);
    quorum.failed(B, Failure::Unknown);
    assert_eq!(quorum.failed(C, Failure::NotApplied), WriteDecision::Indeterminate { replicas: 0 });
}

const D: NodeId = NodeId::from_u128(4);

#[test]
fn while_the_ring_changes_each_set_of_owners_must_have_it() {
    let sets = [vec![A, B, D], vec![A, B, C]];
    let mut quorum = WriteQuorum::new(&sets, 2, QuorumKind::Strict);
    quorum.acknowledged(A);
    assert_eq!(quorum.acknowledged(D), WriteDecision::Wait, "the old owners have one copy");
    assert_eq!(quorum.acknowledged(C), acknowledged(2, 0));
}

#[test]
fn sets_that_change_on_the_way_keep_what_was_acknowledged() {
    let mut quorum = write(QuorumKind::Strict);
    quorum.acknowledged(A);
    assert_eq!(quorum.reroute(&[vec![A, B, D], vec![A, B, C]]), [D]);
    assert_eq!(quorum.acknowledged(C), WriteDecision::Wait);
    assert_eq!(quorum.reroute(&[vec![A, B, D]]), [], "the older epoch is retired");
    assert_eq!(quorum.decision(), WriteDecision::Wait, "C counts no more");
    assert_eq!(quorum.acknowledged(D), acknowledged(2, 0));
    assert!(quorum.wants(D) && !quorum.wants(C));
}

#[test]
fn time_is_up_means_indeterminate() {
    let mut quorum = write(QuorumKind::Strict);
    quorum.acknowledged(B);
    assert_eq!(quorum.expired(), WriteDecision::Indeterminate { replicas: 1 });
    assert_eq!(quorum.acknowledged(C), WriteDecision::Indeterminate { replicas: 1 }, "too late to count");
    assert!(quorum.complete());
}

#[test]
fn a_hint_counts_only_when_sloppy_and_only_for_an_owner_that_is_missing() {
    let mut quorum = write(QuorumKind::Sloppy);
    assert!(quorum.hinting(A) && !quorum.hinting(A), "one hint an owner");
    quorum.failed(A, Failure::NotApplied);
    assert_eq!(quorum.hinted(A), WriteDecision::Wait);
    assert_eq!(quorum.acknowledged(B), acknowledged(1, 1));
    let mut quorum = write(QuorumKind::Sloppy);
    quorum.hinting(A);
    quorum.hinted(A);
    assert_eq!(quorum.acknowledged(A), WriteDecision::Wait, "the owner and its hint are one");
    let mut quorum = write(QuorumKind::Strict);
    quorum.hinting(A);
    quorum.hinted(A);
    assert_eq!(quorum.acknowledged(B), WriteDecision::Wait);
    assert_eq!(quorum.failed(C, Failure::NotApplied), WriteDecision::Wait, "A itself may yet");
    assert_eq!(quorum.failed(A, Failure::NotApplied), WriteDecision::Indeterminate { replicas: 1 });
}

#[test]
fn a_kept_hint_means_that_it_may_be_written() {
    let mut quorum = write(QuorumKind::Strict);
    quorum.hinting(A);
    quorum.hinted(A);
    for owner in [A, B, C] {
        quorum.failed(owner, Failure::NotApplied);
    }
    assert_eq!(quorum.decision(), WriteDecision::Indeterminate { replicas: 0 });
    assert_eq!(quorum.missing().collect::<Vec<_>>(), [B, C]);
}

#[test]
fn consistency_is_a_number_of_owners() {
    let needed = |consistency: Consistency| consistency.needed(2, 5);
    assert_eq!(needed(Consistency::Configured), Ok(2));
    assert_eq!(needed(Consistency::One), Ok(1));
    assert_eq!(needed(Consistency::Quorum), Ok(3));
    assert_eq!(needed(Consistency::All), Ok(5));
    assert_eq!(needed(Consistency::Exactly(4)), Ok(4));
    for asked in [0, 6] {
        assert_eq!(needed(Consistency::Exactly(asked)), Err(OutOfRange { asked, factor: 5 }));
    }
}

fn set(value: &'static str, start: u64) -> VersionSet {
    let mut set = VersionSet::default();
    let event = Event {
        context: Context::default(),
        stamp: Stamp::at_ms(1),
        value: Some(value.into()),
        expires: None,
        policy: Policy::Siblings,
    };
    set.write(event, Dot { actor: Actor { node: A, start }, counter: 1 }).unwrap();
    set
}

fn whole(owner: NodeId) -> Ask {
    Ask { owner, whole: true }
}

fn digest(owner: NodeId) -> Ask {
    Ask { owner, whole: false }
}

#[test]
fn a_read_moves_one_set_when_the_replicas_agree() {
    let mut quorum = ReadQuorum::new([A, B, C], 2);
    assert_eq!(quorum.asks(), [whole(A), digest(B)]);
    let x = set("x", 1);
    assert_eq!(quorum.replied(B, Reply::Digest(x.digest())), ReadDecision::Wait, "a digest is no answer");
    assert!(quorum.asks().is_empty());
    assert_eq!(quorum.replied(A, Reply::Set(x.clone())), ReadDecision::Answer);
    assert_eq!((quorum.merged(), quorum.replies(), quorum.stale()), (&x, 2, vec![]));
}

#[test]
fn owners_that_do_not_agree_are_asked_again() {
    let mut quorum = ReadQuorum::new([A, B, C], 2);
    quorum.asks();
    quorum.replied(A, Reply::Set(set("x", 1)));
    assert_eq!(quorum.replied(B, Reply::Digest(set("y", 2).digest())), ReadDecision::Again);
    let mut quorum = quorum.again();
    assert_eq!(quorum.asks(), [whole(A), whole(B)]);
    assert_eq!(quorum.replied(B, Reply::Set(set("y", 2))), ReadDecision::Wait);
    assert_eq!(quorum.replied(A, Reply::Set(set("x", 1))), ReadDecision::Answer);
    assert_eq!(quorum.merged().versions().len(), 2);
    assert_eq!(quorum.stale(), [A, B]);
    assert_eq!(quorum.sources(), [A, B]);
}

#[test]
fn what_was_read_before_a_delete_that_is_forgotten_by_now_is_not_shown() {
    let (nothing, mut deleted) = (VersionSet::default(), set("x", 1));
    let delete = Event {
        context: deleted.context().clone(),
        stamp: Stamp::at_ms(2),
        value: None,
        expires: None,
        policy: Policy::Siblings,
    };
    deleted.write(delete, Dot { actor: Actor { node: B, start: 1 }, counter: 1 }).unwrap();
    let round = |quorum: &mut ReadQuorum, of_a: &VersionSet, of_b: &VersionSet| {
        quorum.asks();
        quorum.replied(A, Reply::Set(of_a.clone()));
        quorum.replied(B, Reply::Set(of_b.clone()))
    };
    // A had not heard of the delete, and was asked before B, which had forgotten it when it was asked for its set.
    let mut quorum = ReadQuorum::new([A, B], 2);
    quorum.asks();
    quorum.replied(A, Reply::Set(set("x", 1)));
    assert_eq!(quorum.replied(B, Reply::Digest(deleted.digest())), ReadDecision::Again);
    let mut quorum = quorum.again();
    assert_eq!(
        round(&mut quorum, &set("x", 1), &nothing),
        ReadDecision::Again,
        "B may have forgotten it just now"
    );
    let mut quorum = quorum.again();
    assert_eq!(round(&mut quorum, &nothing, &nothing), ReadDecision::Answer);
    assert_eq!(quorum.merged(), &nothing);
    // B had forgotten it already.
    let mut quorum = ReadQuorum::new([A, B], 2);
    assert_eq!(round(&mut quorum, &set("x", 1), &nothing), ReadDecision::Again);
    let mut quorum = quorum.again();
    assert_eq!(round(&mut quorum, &deleted, &nothing), ReadDecision::Answer, "it is deleted in any case");
    assert_eq!(quorum.merged(), &deleted);
}

#[test]
fn a_key_that_is_written_all_the_time_is_answered_in_a_few_rounds() {
    let mut quorum = ReadQuorum::new([A, B], 2);
    let mut rounds = 1;
    loop {
        for (number, owner) in [A, B].into_iter().enumerate() {
            quorum.asks();
            quorum.replied(owner, Reply::Set(set("x", 10 * rounds + number as u64)));
        }
        match quorum.decision() {
            ReadDecision::Again => (quorum, rounds) = (quorum.again(), rounds + 1),
            decision => break assert_eq!((decision, rounds), (ReadDecision::Answer, 4)),
        }
    }
}

#[test]
fn a_slow_replica_is_hedged_and_one_that_failed_replaced() {
    let mut quorum = ReadQuorum::new([A, B, C], 2);
    quorum.asks();
    let x = set("x", 1);
    quorum.replied(B, Reply::Digest(x.digest()));
    assert_eq!(quorum.hedge(), Some(whole(C)), "it is the set that is late");
    assert_eq!(quorum.hedge(), None);
    assert_eq!(quorum.replied(C, Reply::Set(x)), ReadDecision::Answer);
    let mut quorum = ReadQuorum::new([A, B, C], 2);
    quorum.asks();
    assert_eq!(quorum.failed(A), ReadDecision::Wait);
    assert_eq!(quorum.asks(), [whole(C)]);
    assert_eq!(quorum.failed(A), ReadDecision::Wait, "one owner fails once");
    assert_eq!(quorum.failed(B), ReadDecision::Unavailable);
}

/// N, R and W of strict quorums that overlap.
fn overlapping() -> impl Strategy<Value = (u8, u8, u8)> {
    (1u8..=9).prop_flat_map(|n| (Just(n), 1..=n).prop_flat_map(|(n, r)| (Just(n), Just(r), (n - r + 1)..=n)))
}

proptest! {
    /// INV-OVERLAP: with R + W > N, whoever answers, fails, is late or is hedged, in whatever order, a decided
    /// read contains what a decided write wrote.
    #[test]
    fn a_decided_read_meets_a_decided_write(
        (n, r, w) in overlapping(),
        write_order in Just((0..9u128).collect::<Vec<_>>()).prop_shuffle(),
        read_order in Just((0..9u128).collect::<Vec<_>>()).prop_shuffle(),
        fates in prop::collection::vec(0..4u8, 64),
    ) {
        let owners = || (0..u128::from(n)).map(NodeId::from_u128);
        let mut write = WriteQuorum::new(&[owners().collect()], w, QuorumKind::Strict);
        let mut holders = Vec::new();
        for id in write_order.into_iter().filter(|&id| id < u128::from(n)) {
            if matches!(write.decision(), WriteDecision::Acknowledged { .. }) {
                break;
            }
            holders.push(NodeId::from_u128(id));
            write.acknowledged(NodeId::from_u128(id));
        }
        prop_assert_eq!(write.decision(), acknowledged(w, 0));
        let order = read_order.into_iter().filter(|&id| id < u128::from(n)).map(NodeId::from_u128);
        let mut read = ReadQuorum::new(order, r);
        let stored = |id| if holders.contains(&id) { set("x", 1) } else { VersionSet::default() };
        let (mut open, mut fates) = (read.asks(), fates.into_iter());
        while let Some(ask) = open.pop() {
            match fates.next() {
                Some(0) => { read.failed(ask.owner); }
                Some(1) => {
                    open.extend(read.hedge());
                    open.insert(0, ask);
                }
                _ if ask.whole => { read.replied(ask.owner, Reply::Set(stored(ask.owner))); }
                _ => { read.replied(ask.owner, Reply::Digest(stored(ask.owner).digest())); }
            }
            match read.decision() {
                ReadDecision::Answer => break,
                ReadDecision::Again => {
                    read = read.again();
                    open.clear();
                }
                ReadDecision::Wait | ReadDecision::Unavailable => {}
            }
            open.extend(read.asks());
        }
        match read.decision() {
            ReadDecision::Answer => prop_assert_eq!(read.merged().values().count(), 1),
            decision => prop_assert_eq!(decision, ReadDecision::Unavailable, "it never hangs"),
        }
    }
}
