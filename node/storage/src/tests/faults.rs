//! A disk that is full, or fails: no promise is broken, nothing is forgotten, and writes resume where they can.

use super::*;
use crate::catalogue::CATALOGUE_SUFFIX;
use crate::entry::KeyOf;
use crate::segment::{LOG_SUFFIX, Range};
use crate::shared::State;

fn disk() -> SimulatedDisk {
    SimulatedDisk::new(1, 1 << 20)
}

impl Rig {
    /// Writes a key, over what is there.
    pub(super) fn put(&mut self, number: usize, value: &[u8]) -> Result<Committed, WriteError> {
        let change = event(self.context(&key(number)), value);
        self.commit([(key(number), change)]).remove(0).result.expect("answered")
    }

    pub(super) fn value(&self, number: usize) -> Option<Vec<u8>> {
        let set = self.get(&key(number)).unwrap()?;
        let values: Vec<_> = set.values().map(|(_, value)| value.to_vec()).collect();
        assert!(values.len() <= 1, "no siblings here");
        values.into_iter().next()
    }

    pub(super) fn state(&self) -> State {
        self.usage().state
    }
}

#[test]
fn a_full_disk_refuses_before_anything_is_prepared_and_writes_resume_by_themselves() {
    let mut rig = Rig::new(disk(), Options { free_space_reserve_bytes: 10_000, ..small() });
    rig.put(0, b"before").unwrap();
    let used = rig.disk.used_bytes();
    rig.disk.set_capacity_bytes(used + 9_999);
    let outcome = rig.commit([(key(0), event(Context::default(), b"during"))]).remove(0);
    assert_eq!(outcome.result, Some(Err(WriteError::Full { free_bytes: 9_999, reserve_bytes: 10_000 })));
    assert_eq!(outcome.prepared, None, "nobody has seen a write that was refused");
    assert_eq!((rig.state(), rig.value(0)), (State::Full, Some(b"before".to_vec())));
    rig.disk.set_capacity_bytes(used + 10_000);
    rig.put(0, b"after").unwrap();
    assert_eq!((rig.state(), rig.value(0)), (State::Writable, Some(b"after".to_vec())));
}

#[test]
fn no_room_for_a_segment_is_a_full_disk_too() {
    let mut rig = Rig::new(disk(), small());
    rig.put(0, &[1; 3000]).unwrap();
    rig.disk.set_capacity_bytes(rig.disk.used_bytes() + 100);
    let outcome = rig.commit([(key(1), event(Context::default(), &[2; 3000]))]).remove(0);
    assert!(matches!(outcome.result, Some(Err(WriteError::Full { free_bytes: 100, .. }))), "{outcome:?}");
    assert_eq!((outcome.prepared, rig.state()), (None, State::Full));
    rig.disk.set_capacity_bytes(1 << 20);
    rig.engine().preparer.step().unwrap();
    assert_eq!(rig.state(), State::Writable, "known without a write");
    rig.put(1, &[2; 3000]).unwrap();
    rig.check();
}

#[test]
fn merging_makes_room_on_a_full_disk() {
    let mut rig = Rig::new(disk(), small());
    for round in 0..20 {
        rig.put(0, &[round; 1000]).unwrap();
    }
    rig.disk.set_capacity_bytes(rig.disk.used_bytes() + 2000);
    while rig.put(0, &[99; 1000]).is_ok() {}
    assert_eq!(rig.state(), State::Full);
    rig.merge_all();
    rig.put(0, &[100; 1000]).unwrap();
    assert_eq!(rig.state(), State::Writable);
    rig.check();
}

#[test]
fn the_last_space_is_used_for_a_smaller_segment() {
    let options = Options { segment_bytes: 4 << 20, free_space_reserve_bytes: 1000, ..Options::default() };
    let mut rig = Rig::new(SimulatedDisk::new(1, (2 << 20) + 1000), options);
    rig.put(0, b"value").unwrap();
    assert_eq!(rig.disk.used_bytes(), 2 << 20);
}

#[test]
fn a_write_whose_sync_fails_goes_into_a_new_segment() {
    let mut rig = Rig::new(disk(), small());
    rig.put(0, b"before").unwrap();
    rig.disk.fail_syncs(1);
    rig.put(0, b"after").unwrap();
    rig.put(1, b"more").unwrap();
    assert_eq!((rig.usage().segments, rig.state()), (2, State::Writable));
    rig.disk.restart();
    assert_eq!(rig.open().unwrap().quarantined, []);
    rig.check();
    assert_eq!(rig.value(0), Some(b"after".to_vec()));
}

#[test]
fn a_segment_that_cannot_be_begun_refuses_what_nobody_has_seen_and_is_tried_again() {
    let mut rig = Rig::new(disk(), small());
    rig.disk.fail_syncs(1);
    let outcome = rig.commit([(key(0), event(Context::default(), b"refused"))]).remove(0);
    assert!(matches!(outcome.result, Some(Err(WriteError::Failed { .. }))), "{outcome:?}");
    assert_eq!((outcome.prepared, rig.state()), (None, State::Failed));
    rig.put(0, b"taken").unwrap();
    assert_eq!((rig.state(), rig.value(0)), (State::Writable, Some(b"taken".to_vec())));
}

#[test]
fn two_failures_in_a_row_end_writing_and_reads_go_on() {
    let mut rig = Rig::new(disk(), small());
    rig.put(0, b"before").unwrap();
    rig.disk.fail_syncs(2);
    let in_doubt = rig.put(0, b"in doubt");
    assert!(matches!(in_doubt, Err(WriteError::Indeterminate { .. })), "{in_doubt:?}");
    assert_eq!((rig.state(), rig.value(0)), (State::Failed, Some(b"before".to_vec())));
    assert!(matches!(rig.put(1, b"no more"), Err(WriteError::Failed { .. })));
    rig.disk.restart();
    rig.open().unwrap();
    rig.check();
    rig.put(1, b"again").unwrap();
}

#[test]
fn a_merge_that_changes_nothing_shares_the_fate_of_what_it_equals() {
    let mut rig = Rig::new(disk(), small());
    rig.put(1, b"makes a segment").unwrap();
    rig.disk.fail_syncs(2);
    let set = peer_set(7, b"value");
    let outcomes = rig.commit([(key(0), Change::Merge(set.clone())), (key(0), Change::Merge(set.clone()))]);
    for outcome in outcomes {
        assert_eq!(outcome.prepared.as_ref(), Some(&set));
        assert!(matches!(outcome.result, Some(Err(WriteError::Indeterminate { .. }))), "{outcome:?}");
    }
}

#[test]
fn a_merge_that_changes_nothing_writes_nothing() {
    let mut rig = Rig::new(disk(), small());
    let merge = || [(key(0), Change::Merge(peer_set(7, b"value")))];
    let first = rig.commit(merge()).remove(0).result.unwrap().unwrap();
    assert_eq!(first, Committed { changed: true, siblings: 1 });
    rig.disk.fail_syncs(1);
    rig.disk.fail_writes(1);
    let second = rig.commit(merge()).remove(0).result.unwrap().unwrap();
    assert_eq!(second, Committed { changed: false, siblings: 1 });
}

#[test]
fn what_was_prepared_is_not_forgotten_while_the_disk_is_full() {
    let mut rig = Rig::new(disk(), small());
    rig.put(0, b"before").unwrap();
    rig.disk.set_capacity_bytes(rig.disk.used_bytes());
    rig.disk.fail_syncs(1);
    let in_doubt = rig.commit([(key(0), event(Context::default(), b"in doubt"))]).remove(0);
    assert!(matches!(in_doubt.result, Some(Err(WriteError::Indeterminate { .. }))), "{in_doubt:?}");
    assert!(matches!(rig.put(1, b"refused"), Err(WriteError::Full { .. })));
    assert_eq!((rig.state(), rig.value(0)), (State::Full, Some(b"before".to_vec())));
    rig.disk.set_capacity_bytes(1 << 20);
    rig.put(1, b"taken").unwrap();
    let found = rig.get(&key(0)).unwrap().unwrap();
    assert!(includes(&found, &in_doubt.prepared.unwrap()), "peers may have it: {found:?}");
    rig.disk.restart();
    rig.open().unwrap();
    rig.check();
}

#[test]
fn many_writes_of_one_key_in_a_group_are_one_record() {
    let mut rig = Rig::new(disk(), small());
    rig.put(0, b"first").unwrap();
    let before = rig.usage();
    let writes = (0..20u8).map(|value| (key(0), event(rig.context(&key(0)), &[value; 100])));
    let writes: Vec<_> = writes.collect();
    let outcomes = rig.commit(writes);
    let siblings: Vec<_> = outcomes.iter().map(|o| o.result.clone().unwrap().unwrap().siblings).collect();
    assert_eq!(siblings, (1..=20).collect::<Vec<_>>(), "each was built on the one before");
    let dead = rig.usage().dead_bytes - before.dead_bytes;
    assert!(dead < 200, "only the first record died, not {dead} bytes");
}

impl Rig {
    fn forget(&mut self, number: usize) -> Committed {
        let digest = self.get(&key(number)).unwrap().unwrap_or_default().digest();
        let outcome = self.commit([(key(number), Change::Forget { digest })]).remove(0);
        assert_eq!(outcome.prepared, None, "nothing is left to be sent");
        outcome.result.unwrap().unwrap()
    }
}

#[test]
fn a_key_is_forgotten_only_as_it_was_seen() {
    let mut rig = Rig::new(disk(), small());
    rig.put(0, b"first").unwrap();
    let digest = rig.get(&key(0)).unwrap().unwrap().digest();
    rig.put(0, b"second").unwrap();
    let outdated = rig.commit([(key(0), Change::Forget { digest })]).remove(0);
    assert_eq!(outdated.result, Some(Ok(Committed { changed: false, siblings: 1 })));
    assert_eq!(rig.value(0), Some(b"second".to_vec()));
    assert_eq!(rig.forget(0), Committed { changed: true, siblings: 0 });
    assert_eq!((rig.get(&key(0)), rig.usage().keys), (Ok(None), 0));
    assert_eq!(rig.forget(0), Committed { changed: false, siblings: 0 }, "it is not there");
}

#[test]
fn what_comes_and_goes_within_a_group_leaves_nothing() {
    let mut rig = Rig::new(disk(), small());
    rig.put(0, b"makes a segment").unwrap();
    let before = rig.usage();
    let set = peer_set(1, b"value");
    let forget = Change::Forget { digest: set.digest() };
    let outcomes = rig.commit([(key(1), Change::Merge(set)), (key(1), forget)]);
    assert!(outcomes.iter().all(|outcome| outcome.result.as_ref().unwrap().as_ref().unwrap().changed));
    assert_eq!((rig.get(&key(1)), rig.usage()), (Ok(None), before));
}

#[test]
fn the_record_of_a_removal_goes_when_nothing_older_is_left() {
    let mut rig = Rig::new(disk(), small());
    for round in 0..40u8 {
        rig.put(usize::from(round) % 5, &[round; 500]).unwrap();
    }
    for number in 0..5 {
        rig.forget(number);
    }
    for round in 0..12u8 {
        rig.put(8, &[round; 500]).unwrap();
        rig.merge_all();
    }
    let table = &rig.engine.as_ref().unwrap().access.0.index;
    let left = (0..5).filter(|&number| {
        let key = key(number);
        table.look_up(KeyOf { partition: PARTITION, hash: key_hash(&key), key: &key }, |_| ()).0.is_some()
    });
    assert_eq!(left.count(), 0, "the index has forgotten them too");
    rig.disk.restart();
    assert_eq!(rig.open().unwrap().keys, 1);
    rig.check();
}

#[test]
fn a_record_larger_than_a_segment_gets_one_of_its_own() {
    let mut rig = Rig::new(disk(), small());
    rig.put(0, &[1; 50_000]).unwrap();
    rig.put(1, b"small").unwrap();
    rig.disk.restart();
    rig.open().unwrap();
    rig.check();
    assert_eq!(rig.value(0), Some(vec![1; 50_000]));
}

#[test]
fn keys_of_one_hash_survive_updates_merging_and_restarts() {
    let mut rig = Rig::new(disk(), small());
    rig.put(9, b"alone").unwrap();
    rig.commit([(key(10), event(Context::default(), b"x")), (key(11), event(Context::default(), b"y"))]);
    for round in 0..30u8 {
        rig.put(9 + usize::from(round) % 3, &[round; 300]).unwrap();
    }
    rig.merge_all();
    for _ in 0..2 {
        rig.check();
        assert_eq!([9, 10, 11].map(|n| rig.value(n).unwrap()[0]), [27, 28, 29]);
        rig.disk.restart();
        assert_eq!(rig.open().unwrap().keys, 3);
    }
}

/// A log in which most is dead, on the disk `seed`.
fn log_to_merge(seed: u64) -> Rig {
    let mut rig = Rig::new(SimulatedDisk::new(seed, 1 << 20), small());
    for round in 0..24usize {
        rig.put(round % 7, &[round as u8; 500]).unwrap();
    }
    rig
}

#[test]
fn merging_gives_space_back_and_keeps_what_is_live() {
    let mut rig = log_to_merge(1);
    let before = rig.usage();
    rig.merge_all();
    let after = rig.usage();
    assert!(after.log_bytes < before.log_bytes * 2 / 3, "{before:?} {after:?}");
    assert_eq!(after.keys, 7);
    rig.check();
    rig.disk.restart();
    rig.open().unwrap();
    rig.check();
    assert_eq!(rig.usage().keys, 7);
}

/// Nothing is left of files that were replaced, or never finished.
fn check_tiles(rig: &Rig) {
    let mut names = rig.disk.attach().list().unwrap();
    names.sort();
    let (catalogues, files): (Vec<_>, Vec<_>) =
        names.iter().partition(|name| name.ends_with(CATALOGUE_SUFFIX));
    let ranges: Vec<_> =
        files.iter().map(|name| Range::parse(name, LOG_SUFFIX).expect("a file in use")).collect();
    let of_file = |name: &String| ranges.contains(&Range::parse(name, CATALOGUE_SUFFIX).unwrap());
    assert!(catalogues.into_iter().all(of_file), "{names:?}");
    assert_eq!(ranges[0].first, 1);
    assert!(ranges.is_sorted_by(|a, b| a.last + 1 == b.first), "{names:?}");
}

#[test]
fn a_power_cut_at_any_operation_of_a_merge_loses_nothing() {
    for operations in 0.. {
        let mut rig = log_to_merge(operations);
        rig.disk.cut_power_after(operations);
        while rig.engine().merger.step().is_ok_and(|step| step != Step::Idle) {}
        let finished = rig.disk.is_powered();
        rig.disk.restart();
        let report = rig.open().unwrap();
        assert_eq!(report.quarantined, [], "after {operations} operations");
        rig.check();
        check_tiles(&rig);
        rig.merge_all();
        rig.put(0, b"goes on").unwrap();
        rig.check();
        if finished {
            assert!(operations > 10, "the merge takes some operations");
            return;
        }
    }
}

#[test]
fn a_power_cut_at_any_operation_of_writing_loses_nothing() {
    for operations in 0.. {
        let mut rig = Rig::new(SimulatedDisk::new(operations, 1 << 20), small());
        rig.disk.cut_power_after(operations);
        for round in 0..12usize {
            let _ = rig.put(round % 5, &[round as u8; 700]);
        }
        let finished = rig.disk.is_powered();
        rig.disk.restart();
        assert_eq!(rig.open().unwrap().quarantined, [], "after {operations} operations");
        rig.check();
        if finished {
            assert!(operations > 24, "each write takes two operations");
            return;
        }
    }
}

#[test]
fn a_directory_has_one_owner() {
    let rig = Rig::new(disk(), small());
    let actor = Actor { node: NODE, start: 9 };
    let second = Engine::open(rig.disk.attach(), actor, small());
    assert!(matches!(second.err(), Some(OpenError::Locked)));
}

#[test]
fn the_log_of_another_node_is_refused() {
    let mut rig = Rig::new(disk(), small());
    rig.put(0, b"mine").unwrap();
    rig.engine = None;
    let actor = Actor { node: NodeId::from_u128(2), start: 1 };
    let opened = Engine::open(rig.disk.attach(), actor, small());
    assert!(matches!(opened.err(), Some(OpenError::Foreign { found, .. }) if found == NODE));
    rig.open().unwrap();
    rig.check();
}
