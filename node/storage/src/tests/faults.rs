//! A disk that is full, or fails: no promise is broken, nothing is forgotten, and writes resume where they can.

use super::*;
use crate::segment::{LOG_SUFFIX, Range};
use crate::shared::State;

fn disk() -> SimulatedDisk {
    SimulatedDisk::new(1, 1 << 20)
}

impl Engine {
    /// Writes a key, over what is there.
    fn put(&mut self, number: usize, value: &[u8]) -> Result<Committed, WriteError> {
        let change = event(self.context(&key(number)), value);
        self.commit([(key(number), change)]).remove(0).result.expect("answered")
    }

    fn value(&self, number: usize) -> Option<Vec<u8>> {
        let set = self.get(&key(number)).unwrap()?;
        let values: Vec<_> = set.values().map(|(_, value)| value.to_vec()).collect();
        assert!(values.len() <= 1, "no siblings here");
        values.into_iter().next()
    }

    fn state(&self) -> State {
        self.usage().state
    }
}

#[test]
fn a_full_disk_refuses_before_anything_is_prepared_and_writes_resume_by_themselves() {
    let mut engine = Engine::new(disk(), Options { free_space_reserve_bytes: 10_000, ..small() });
    engine.put(0, b"before").unwrap();
    let used = engine.disk.used_bytes();
    engine.disk.set_capacity_bytes(used + 9_999);
    let outcome = engine.commit([(key(0), event(Context::default(), b"during"))]).remove(0);
    assert_eq!(outcome.result, Some(Err(WriteError::Full { free_bytes: 9_999, reserve_bytes: 10_000 })));
    assert_eq!(outcome.prepared, None, "nobody has seen a write that was refused");
    assert_eq!((engine.state(), engine.value(0)), (State::Full, Some(b"before".to_vec())));
    engine.disk.set_capacity_bytes(used + 10_000);
    engine.put(0, b"after").unwrap();
    assert_eq!((engine.state(), engine.value(0)), (State::Writable, Some(b"after".to_vec())));
}

#[test]
fn no_room_for_a_segment_is_a_full_disk_too() {
    let mut engine = Engine::new(disk(), small());
    engine.put(0, &[1; 3000]).unwrap();
    engine.disk.set_capacity_bytes(engine.disk.used_bytes() + 100);
    let outcome = engine.commit([(key(1), event(Context::default(), &[2; 3000]))]).remove(0);
    assert!(matches!(outcome.result, Some(Err(WriteError::Full { free_bytes: 100, .. }))), "{outcome:?}");
    assert_eq!((outcome.prepared, engine.state()), (None, State::Full));
    engine.disk.set_capacity_bytes(1 << 20);
    engine.parts().preparer.step().unwrap();
    assert_eq!(engine.state(), State::Writable, "known without a write");
    engine.put(1, &[2; 3000]).unwrap();
    engine.check();
}

#[test]
fn merging_makes_room_on_a_full_disk() {
    let mut engine = Engine::new(disk(), small());
    for round in 0..20 {
        engine.put(0, &[round; 1000]).unwrap();
    }
    engine.disk.set_capacity_bytes(engine.disk.used_bytes() + 2000);
    while engine.put(0, &[99; 1000]).is_ok() {}
    assert_eq!(engine.state(), State::Full);
    while engine.parts().merger.step().unwrap() {}
    engine.put(0, &[100; 1000]).unwrap();
    assert_eq!(engine.state(), State::Writable);
    engine.check();
}

#[test]
fn the_last_space_is_used_for_a_smaller_segment() {
    let options = Options { segment_bytes: 4 << 20, free_space_reserve_bytes: 1000, ..Options::default() };
    let mut engine = Engine::new(SimulatedDisk::new(1, (2 << 20) + 1000), options);
    engine.put(0, b"value").unwrap();
    assert_eq!(engine.disk.used_bytes(), 2 << 20);
}

#[test]
fn a_write_whose_sync_fails_goes_into_a_new_segment() {
    let mut engine = Engine::new(disk(), small());
    engine.put(0, b"before").unwrap();
    engine.disk.fail_syncs(1);
    engine.put(0, b"after").unwrap();
    engine.put(1, b"more").unwrap();
    assert_eq!((engine.usage().segments, engine.state()), (2, State::Writable));
    engine.disk.restart();
    assert_eq!(engine.open().unwrap().quarantined, []);
    engine.check();
    assert_eq!(engine.value(0), Some(b"after".to_vec()));
}

#[test]
fn a_segment_that_cannot_be_begun_refuses_what_nobody_has_seen_and_is_tried_again() {
    let mut engine = Engine::new(disk(), small());
    engine.disk.fail_syncs(1);
    let outcome = engine.commit([(key(0), event(Context::default(), b"refused"))]).remove(0);
    assert!(matches!(outcome.result, Some(Err(WriteError::Failed { .. }))), "{outcome:?}");
    assert_eq!((outcome.prepared, engine.state()), (None, State::Failed));
    engine.put(0, b"taken").unwrap();
    assert_eq!((engine.state(), engine.value(0)), (State::Writable, Some(b"taken".to_vec())));
}

#[test]
fn two_failures_in_a_row_end_writing_and_reads_go_on() {
    let mut engine = Engine::new(disk(), small());
    engine.put(0, b"before").unwrap();
    engine.disk.fail_syncs(2);
    let in_doubt = engine.put(0, b"in doubt");
    assert!(matches!(in_doubt, Err(WriteError::Indeterminate { .. })), "{in_doubt:?}");
    assert_eq!((engine.state(), engine.value(0)), (State::Failed, Some(b"before".to_vec())));
    assert!(matches!(engine.put(1, b"no more"), Err(WriteError::Failed { .. })));
    engine.disk.restart();
    engine.open().unwrap();
    engine.check();
    engine.put(1, b"again").unwrap();
}

#[test]
fn a_merge_that_changes_nothing_shares_the_fate_of_what_it_equals() {
    let mut engine = Engine::new(disk(), small());
    engine.put(1, b"makes a segment").unwrap();
    engine.disk.fail_syncs(2);
    let set = peer_set(7, b"value");
    let outcomes =
        engine.commit([(key(0), Change::Merge(set.clone())), (key(0), Change::Merge(set.clone()))]);
    for outcome in outcomes {
        assert_eq!(outcome.prepared.as_ref(), Some(&set));
        assert!(matches!(outcome.result, Some(Err(WriteError::Indeterminate { .. }))), "{outcome:?}");
    }
}

#[test]
fn a_merge_that_changes_nothing_writes_nothing() {
    let mut engine = Engine::new(disk(), small());
    let merge = || [(key(0), Change::Merge(peer_set(7, b"value")))];
    let first = engine.commit(merge()).remove(0).result.unwrap().unwrap();
    assert_eq!(first, Committed { changed: true, siblings: 1 });
    engine.disk.fail_syncs(1);
    engine.disk.fail_writes(1);
    let second = engine.commit(merge()).remove(0).result.unwrap().unwrap();
    assert_eq!(second, Committed { changed: false, siblings: 1 });
}

#[test]
fn what_was_prepared_is_not_forgotten_while_the_disk_is_full() {
    let mut engine = Engine::new(disk(), small());
    engine.put(0, b"before").unwrap();
    engine.disk.set_capacity_bytes(engine.disk.used_bytes());
    engine.disk.fail_syncs(1);
    let in_doubt = engine.commit([(key(0), event(Context::default(), b"in doubt"))]).remove(0);
    assert!(matches!(in_doubt.result, Some(Err(WriteError::Indeterminate { .. }))), "{in_doubt:?}");
    assert!(matches!(engine.put(1, b"refused"), Err(WriteError::Full { .. })));
    assert_eq!((engine.state(), engine.value(0)), (State::Full, Some(b"before".to_vec())));
    engine.disk.set_capacity_bytes(1 << 20);
    engine.put(1, b"taken").unwrap();
    let found = engine.get(&key(0)).unwrap().unwrap();
    assert!(includes(&found, &in_doubt.prepared.unwrap()), "peers may have it: {found:?}");
    engine.disk.restart();
    engine.open().unwrap();
    engine.check();
}

#[test]
fn many_writes_of_one_key_in_a_group_are_one_record() {
    let mut engine = Engine::new(disk(), small());
    engine.put(0, b"first").unwrap();
    let before = engine.usage();
    let writes = (0..20u8).map(|value| (key(0), event(engine.context(&key(0)), &[value; 100])));
    let writes: Vec<_> = writes.collect();
    let outcomes = engine.commit(writes);
    let siblings: Vec<_> = outcomes.iter().map(|o| o.result.clone().unwrap().unwrap().siblings).collect();
    assert_eq!(siblings, (1..=20).collect::<Vec<_>>(), "each was built on the one before");
    let dead = engine.usage().dead_bytes - before.dead_bytes;
    assert!(dead < 200, "only the first record died, not {dead} bytes");
}

#[test]
fn a_record_larger_than_a_segment_gets_one_of_its_own() {
    let mut engine = Engine::new(disk(), small());
    engine.put(0, &[1; 50_000]).unwrap();
    engine.put(1, b"small").unwrap();
    engine.disk.restart();
    engine.open().unwrap();
    engine.check();
    assert_eq!(engine.value(0), Some(vec![1; 50_000]));
}

#[test]
fn keys_of_one_hash_survive_updates_merging_and_restarts() {
    let mut engine = Engine::new(disk(), small());
    engine.put(9, b"alone").unwrap();
    engine.commit([(key(10), event(Context::default(), b"x")), (key(11), event(Context::default(), b"y"))]);
    for round in 0..30u8 {
        engine.put(9 + usize::from(round) % 3, &[round; 300]).unwrap();
    }
    while engine.parts().merger.step().unwrap() {}
    for _ in 0..2 {
        engine.check();
        assert_eq!([9, 10, 11].map(|n| engine.value(n).unwrap()[0]), [27, 28, 29]);
        engine.disk.restart();
        assert_eq!(engine.open().unwrap().keys, 3);
    }
}

/// A log in which most is dead, on the disk `seed`.
fn log_to_merge(seed: u64) -> Engine {
    let mut engine = Engine::new(SimulatedDisk::new(seed, 1 << 20), small());
    for round in 0..24usize {
        engine.put(round % 7, &[round as u8; 500]).unwrap();
    }
    engine
}

#[test]
fn merging_gives_space_back_and_keeps_what_is_live() {
    let mut engine = log_to_merge(1);
    let before = engine.usage();
    while engine.parts().merger.step().unwrap() {}
    let after = engine.usage();
    assert!(after.log_bytes < before.log_bytes * 2 / 3, "{before:?} {after:?}");
    assert_eq!(after.keys, 7);
    engine.check();
    engine.disk.restart();
    engine.open().unwrap();
    engine.check();
    assert_eq!(engine.usage().keys, 7);
}

/// Nothing is left of files that were replaced, or never finished.
fn check_tiles(engine: &Engine) {
    let mut names = engine.disk.attach().list().unwrap();
    names.sort();
    let ranges: Vec<_> =
        names.iter().map(|name| Range::parse(name, LOG_SUFFIX).expect("a file in use")).collect();
    assert_eq!(ranges[0].first, 1);
    assert!(ranges.is_sorted_by(|a, b| a.last + 1 == b.first), "{names:?}");
}

#[test]
fn a_power_cut_at_any_operation_of_a_merge_loses_nothing() {
    for operations in 0.. {
        let mut engine = log_to_merge(operations);
        engine.disk.cut_power_after(operations);
        while engine.parts().merger.step().is_ok_and(|merged| merged) {}
        let finished = engine.disk.is_powered();
        engine.disk.restart();
        let report = engine.open().unwrap();
        assert_eq!(report.quarantined, [], "after {operations} operations");
        engine.check();
        check_tiles(&engine);
        while engine.parts().merger.step().unwrap() {}
        engine.put(0, b"goes on").unwrap();
        engine.check();
        if finished {
            assert!(operations > 10, "the merge takes some operations");
            return;
        }
    }
}

#[test]
fn a_power_cut_at_any_operation_of_writing_loses_nothing() {
    for operations in 0.. {
        let mut engine = Engine::new(SimulatedDisk::new(operations, 1 << 20), small());
        engine.disk.cut_power_after(operations);
        for round in 0..12usize {
            let _ = engine.put(round % 5, &[round as u8; 700]);
        }
        let finished = engine.disk.is_powered();
        engine.disk.restart();
        assert_eq!(engine.open().unwrap().quarantined, [], "after {operations} operations");
        engine.check();
        if finished {
            assert!(operations > 24, "each write takes two operations");
            return;
        }
    }
}

#[test]
fn a_directory_has_one_owner() {
    let engine = Engine::new(disk(), small());
    let actor = Actor { node: NODE, start: 9 };
    let second = Parts::open(engine.disk.attach(), actor, small());
    assert!(matches!(second.err(), Some(OpenError::Locked)));
}

#[test]
fn the_log_of_another_node_is_refused() {
    let mut engine = Engine::new(disk(), small());
    engine.put(0, b"mine").unwrap();
    engine.parts = None;
    let actor = Actor { node: NodeId::from_u128(2), start: 1 };
    let opened = Parts::open(engine.disk.attach(), actor, small());
    assert!(matches!(opened.err(), Some(OpenError::Foreign { found, .. }) if found == NODE));
    engine.open().unwrap();
    engine.check();
}
