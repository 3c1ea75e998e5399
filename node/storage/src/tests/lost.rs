//! A segment that is lost as a whole: what it may have outdated is shown to nobody.

use quorate_core::antientropy::View;

use super::*;
use crate::Leftover;

/// A log that has lost its second segment, and with it that `key(0)` was deleted and forgotten. `key(1)` was written in
/// the first segment, `key(8)` again in the third.
fn log_that_forgot_a_removal() -> Rig {
    let mut rig = Rig::new(SimulatedDisk::new(1, 1 << 20), small());
    rig.engine().set_partitions(PartitionCount::try_from(8).unwrap());
    let roll = |rig: &mut Rig| {
        rig.commit([(key(8), Change::Merge(peer_set(9, b"filler")))]);
        rig.engine().committer.roll().unwrap();
    };
    rig.commit([(key(0), event(Context::default(), b"zombie")), (key(1), event(Context::default(), b"old"))]);
    roll(&mut rig);
    let deleted = rig.commit([(key(0), event(rig.context(&key(0)), b""))]).remove(0).prepared.unwrap();
    rig.commit([(key(0), Change::Forget { digest: deleted.digest() })]);
    assert_eq!(rig.get(&key(0)), Ok(None));
    roll(&mut rig);
    rig.commit([(key(8), event(Context::default(), b"new"))]);
    rig.engine().committer.finish();
    rig.engine = None;
    assert!(rig.disk.rot("0000000000000002-0000000000000002.log", 20, 0));
    assert_eq!(rig.open().unwrap().quarantined.len(), 1);
    rig.engine().set_partitions(PartitionCount::try_from(8).unwrap());
    rig
}

/// The numbers of the keys that are shown to peers, through every door.
fn shown(rig: &Rig) -> Vec<usize> {
    let engine = rig.engine.as_ref().expect("open");
    let loads =
        |number: &usize| engine.load_hash(PARTITION, key_hash(&key(*number))).is_ok_and(|k| !k.is_empty());
    let shown: Vec<usize> = (0..9).filter(loads).collect();
    let mut hashes: Vec<u64> = shown.iter().map(|number| key_hash(&key(*number))).collect();
    hashes.sort_unstable();
    let scanned = engine.scan(PARTITION, None, 100);
    assert_eq!(scanned.iter().map(|scanned| scanned.key_hash).collect::<Vec<_>>(), hashes);
    let entries = engine.entries(PARTITION, 0..=u64::MAX, 100);
    assert_eq!(entries.iter().map(|entry| entry.key_hash).collect::<Vec<_>>(), hashes);
    let page = engine.page(PARTITION, None, 100);
    assert_eq!((page.keys.len(), page.unreadable), (shown.len(), 0));
    assert_eq!(engine.partition_usage(PARTITION).keys, shown.len() as u64);
    shown
}

#[test]
fn what_may_be_outdated_leaves_through_no_door_and_goes_when_nobody_gives_it() {
    let mut rig = log_that_forgot_a_removal();
    let root = rig.engine().root(PARTITION);
    assert!(!rig.engine().is_whole(PARTITION));
    for _ in 0..2 {
        assert_eq!(shown(&rig), [8], "what was written after the loss is sure");
        for number in 0..2 {
            assert_eq!(rig.get(&key(number)), Err(ReadError::Quarantined { partition: PARTITION }));
        }
        let refused = rig.commit([(key(0), Change::Forget { digest: 0 })]).remove(0);
        assert!(refused.result.unwrap().is_err(), "it is no evidence that a key may be forgotten");
        rig.merge_all();
        rig.disk.restart();
        rig.open().unwrap();
        rig.engine().set_partitions(PartitionCount::try_from(8).unwrap());
        assert_eq!(rig.engine().root(PARTITION), root);
    }
    rig.lift(PARTITION, Leftover::Drop);
    for _ in 0..2 {
        assert!(rig.quarantined().iter().all(|partition| *partition != PARTITION));
        assert_eq!((shown(&rig), rig.get(&key(0)), rig.get(&key(1))), (vec![8], Ok(None), Ok(None)));
        assert_eq!(rig.engine().root(PARTITION), root);
        rig.merge_all();
        rig.disk.restart();
        rig.open().unwrap();
        rig.engine().set_partitions(PartitionCount::try_from(8).unwrap());
    }
}

#[test]
fn what_a_peer_gives_takes_the_place_of_what_may_be_outdated() {
    let mut rig = log_that_forgot_a_removal();
    let (first, second) = (peer_set(1, b"first"), peer_set(2, b"second"));
    rig.commit([(key(0), Change::Merge(first.clone()))]);
    rig.commit([(key(0), Change::Merge(second.clone()))]);
    assert_eq!(shown(&rig), [0, 8], "what peers gave may be given on");
    rig.lift(PARTITION, Leftover::Drop);
    let mut both = first;
    both.merge(&second);
    for _ in 0..2 {
        assert_eq!(rig.get(&key(0)), Ok(Some(both.clone())), "and nothing of what was here");
        rig.merge_all();
        rig.disk.restart();
        rig.open().unwrap();
    }
}

#[test]
fn where_nobody_knows_better_what_is_left_is_kept() {
    let mut rig = log_that_forgot_a_removal();
    rig.lift(PARTITION, Leftover::Keep);
    for _ in 0..2 {
        assert_eq!(shown(&rig), [0, 1, 8]);
        rig.check_index();
        rig.merge_all();
        rig.disk.restart();
        rig.open().unwrap();
    }
}

#[test]
fn a_key_that_was_dropped_is_written_and_forgotten_like_others() {
    let mut rig = log_that_forgot_a_removal();
    rig.lift(PARTITION, Leftover::Drop);
    let written = rig.commit([(key(0), event(Context::default(), b"anew"))]).remove(0).prepared.unwrap();
    rig.engine().committer.roll().unwrap();
    rig.commit([(key(0), Change::Forget { digest: written.digest() })]);
    rig.engine().committer.roll().unwrap();
    for _ in 0..3 {
        assert_eq!((shown(&rig), rig.get(&key(0))), (vec![8], Ok(None)));
        // The first segment is merged away before the one with the removal.
        rig.engine().merger.step().unwrap();
        rig.disk.restart();
        rig.open().unwrap();
    }
}
