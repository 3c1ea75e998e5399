//! Bits that change on the disk: what is wrong is never served, and never "absent" instead.

use proptest::prelude::*;

use super::*;

/// A closed log of several segments, the same for the same seed, and its files in use.
fn closed_log(seed: u64) -> (Engine, Vec<String>) {
    let mut engine = Engine::new(SimulatedDisk::new(seed, 1 << 20), small());
    for round in 0..20usize {
        let change = event(engine.context(&key(round % 9)), &[round as u8; 400]);
        engine.commit([(key(round % 9), change)]);
        if round == 12 && seed.is_multiple_of(2) {
            while engine.parts().merger.step().unwrap() {}
        }
    }
    engine.parts().committer.finish();
    engine.parts = None;
    let names = engine.disk.attach().list().unwrap();
    (engine, names.into_iter().filter(|name| name.ends_with(".log")).collect())
}

/// Every answer is right or an error.
fn check_honest(engine: &Engine) {
    for (key, promised) in &engine.promised {
        match engine.get(key) {
            Ok(found) => assert_eq!(found.as_ref(), Some(promised), "{key:?}"),
            Err(ReadError::Quarantined { .. } | ReadError::Corrupt { .. }) => {}
            Err(error) => panic!("{error}"),
        }
    }
}

fn unreadable(engine: &Engine) -> usize {
    engine.promised.keys().filter(|key| engine.get(key).is_err()).count()
}

proptest! {
    #[test]
    fn a_changed_bit_is_never_served(seed in 0..4u64, file: prop::sample::Index, at: prop::sample::Index, bit in 0..8u8) {
        let (mut engine, names) = closed_log(seed);
        let name = file.get(&names);
        let length = engine.disk.bytes(name).unwrap().len();
        engine.disk.rot(name, at.index(length), bit);
        let report = engine.open().unwrap();
        check_honest(&engine);
        if report.quarantined.is_empty() {
            prop_assert_eq!(unreadable(&engine), 0);
        }
        // Nor does it come to be after more writes, merges and starts.
        for number in 0..9 {
            engine.commit([(key(number), Change::Merge(peer_set(50 + number as u64, b"later")))]);
        }
        while engine.parts().merger.step().unwrap() {}
        engine.disk.restart();
        let again = engine.open().unwrap();
        prop_assert_eq!(again.quarantined.len(), report.quarantined.len());
        for (key, promised) in &engine.promised {
            if let Ok(found) = engine.get(key) {
                prop_assert!(includes(&found.unwrap_or_default(), promised));
            }
        }
    }

    #[test]
    fn a_bit_that_changes_while_the_store_is_open_is_found_too(at in 96..4000usize, bit in 0..8u8) {
        let (mut engine, names) = closed_log(1);
        engine.open().unwrap();
        engine.disk.rot(&names[0], at, bit);
        check_honest(&engine);
        while engine.parts().merger.step().unwrap() {}
        check_honest(&engine);
    }
}

/// A log whose first segment is lost, and the keys that were written after it.
fn log_without_its_first_segment() -> (Engine, QuarantinedCount) {
    let (mut engine, names) = closed_log(1);
    engine.disk.rot(&names[0], 200, 0);
    let report = engine.open().unwrap();
    (engine, report.quarantined.len())
}

type QuarantinedCount = usize;

#[test]
fn a_rotten_segment_is_set_aside_and_kept() {
    let (mut engine, names) = closed_log(1);
    let before = engine.disk.bytes(&names[1]).unwrap();
    engine.disk.rot(&names[1], 300, 3);
    let report = engine.open().unwrap();
    let kept = names[1].replace(".log", ".quarantined");
    assert_eq!(report.quarantined.iter().map(|q| &q.name).collect::<Vec<_>>(), [&kept]);
    assert!(report.quarantined[0].reason.contains("changed by the disk"), "{report:?}");
    assert_eq!(engine.disk.bytes(&kept).unwrap().len(), before.len());
    assert_eq!(engine.disk.bytes(&names[1]), None);
    assert_eq!(engine.open().unwrap().quarantined.len(), 1, "remembered");
}

#[test]
fn what_is_newer_than_the_lost_segment_is_served_and_the_rest_is_not() {
    let (engine, quarantined) = log_without_its_first_segment();
    assert_eq!(quarantined, 1);
    check_honest(&engine);
    // Every key was written again in a later segment.
    assert_eq!(unreadable(&engine), 0);
    let missing = engine.get(b"never written");
    assert_eq!(missing, Err(ReadError::Quarantined { partition: PARTITION }), "it may have been in there");
}

#[test]
fn what_is_older_than_the_lost_segment_may_be_outdated() {
    let (mut engine, names) = closed_log(1);
    engine.disk.rot(names.last().unwrap(), 200, 0);
    engine.open().unwrap();
    check_honest(&engine);
    assert_eq!(unreadable(&engine), 9);
}

#[test]
fn a_quarantined_key_takes_merges_and_no_events() {
    let (mut engine, _) = log_without_its_first_segment();
    let key = Bytes::from_static(b"never written");
    let refused = engine.commit([(key.clone(), event(Context::default(), b"value"))]).remove(0);
    let quarantined = ReadError::Quarantined { partition: PARTITION };
    assert_eq!(refused.result, Some(Err(WriteError::Unreadable(quarantined.clone()))));
    assert_eq!(refused.prepared, None);
    let merged = engine.commit([(key.clone(), Change::Merge(peer_set(1, b"value")))]).remove(0);
    assert_eq!(merged.result, Some(Ok(Committed { changed: true, siblings: 1 })));
    for _ in 0..2 {
        assert_eq!(engine.get(&key), Err(quarantined.clone()), "what was lost may be newer");
        engine.disk.restart();
        engine.open().unwrap();
    }
    // What is known for certain goes on as ever.
    let sure = super::key(0);
    let taken = engine.commit([(sure.clone(), event(engine.context(&sure), b"new"))]).remove(0);
    assert!(taken.result.unwrap().is_ok());
    engine.disk.restart();
    engine.open().unwrap();
    assert_eq!(engine.get(&sure).unwrap(), taken.prepared);
}

#[test]
fn a_missing_file_is_a_loss_not_an_absence() {
    let (mut engine, names) = closed_log(1);
    engine.disk.attach().remove(&names[1]).unwrap();
    let report = engine.open().unwrap();
    assert_eq!(report.quarantined[0].reason, "the file is missing");
    assert_eq!(engine.get(b"never written"), Err(ReadError::Quarantined { partition: PARTITION }));
    check_honest(&engine);
    // Nor is the gap merged over.
    for number in 0..27 {
        engine.commit([(key(number % 9), Change::Merge(peer_set(number as u64 + 1, &[1; 900])))]);
    }
    while engine.parts().merger.step().unwrap() {}
    assert_eq!(engine.open().unwrap().quarantined, report.quarantined);
}

#[test]
fn the_end_of_a_segment_is_known_after_the_next_one_was_merged() {
    let mut engine = Engine::new(SimulatedDisk::new(1, 1 << 20), small());
    let mut number = 0;
    while engine.usage().segments < 2 {
        engine.commit([(key(number), event(Context::default(), &[1; 600]))]);
        number += 1;
    }
    for round in 0..20u8 {
        let change = event(engine.context(&key(8)), &[round; 600]);
        engine.commit([(key(8), change)]);
    }
    while engine.parts().merger.step().unwrap() {}
    let names = engine.disk.attach().list().unwrap();
    let first = "0000000000000001-0000000000000001.log";
    let second_was_merged = |name: &String| name.starts_with("0000000000000002-") && !name.contains("2.");
    assert!(names.iter().any(|name| name == first) && names.iter().any(second_was_merged), "{names:?}");
    let last_byte = engine.disk.bytes(first).unwrap().len() - 1;
    engine.disk.rot(first, last_byte, 0);
    assert_eq!(
        engine.open().unwrap().quarantined.len(),
        1,
        "its last group was synced: this is no torn write"
    );
    check_honest(&engine);
}

#[test]
fn a_rotten_record_refuses_its_key_alone_and_is_not_merged_away() {
    let (mut engine, names) = closed_log(1);
    engine.open().unwrap();
    for name in &names {
        engine.disk.rot(name, 500, 1);
    }
    let rotten: Vec<_> = engine.promised.keys().filter(|key| engine.get(key).is_err()).cloned().collect();
    assert!(!rotten.is_empty() && rotten.len() <= names.len());
    for key in &rotten {
        let outcomes = engine.commit([
            (key.clone(), event(Context::default(), b"blind")),
            (key.clone(), Change::Merge(peer_set(1, b"peer"))),
        ]);
        for outcome in outcomes {
            assert!(matches!(outcome.result, Some(Err(WriteError::Unreadable(ReadError::Corrupt { .. })))));
        }
    }
    // Kill what is sound, so that merging would be worth it.
    for key in engine.promised.keys().filter(|key| !rotten.contains(key)).cloned().collect::<Vec<_>>() {
        let change = event(engine.context(&key), b"");
        assert!(engine.commit([(key, change)])[0].result.as_ref().unwrap().is_ok());
    }
    while engine.parts().merger.step().unwrap() {}
    check_honest(&engine);
    assert!(names.iter().all(|name| engine.disk.bytes(name).is_some()), "the evidence stays");
}

#[test]
fn a_torn_group_at_the_end_is_dropped_and_does_not_count_as_rot_later() {
    let torn = |seed| {
        let mut engine = Engine::new(SimulatedDisk::new(seed, 1 << 20), small());
        engine.commit([(key(0), event(Context::default(), &[1; 300]))]);
        // The power goes at the sync of a group of several sectors.
        engine.disk.cut_power_after(1);
        engine.commit([(key(1), event(Context::default(), &[2; 2000]))]);
        engine.disk.restart();
        let report = engine.open().unwrap();
        assert_eq!(report.quarantined, []);
        engine.check();
        engine.commit([(key(2), event(Context::default(), b"goes on"))]);
        engine.disk.restart();
        assert_eq!(engine.open().unwrap().quarantined, [], "the next segment says where this one ends");
        engine.check();
        report.torn_bytes > 0
    };
    assert!((0..20).filter(|&seed| torn(seed)).count() > 5);
}

#[test]
fn a_broken_group_before_a_synced_one_is_rot_even_in_the_newest_segment() {
    let mut engine = Engine::new(SimulatedDisk::new(1, 1 << 20), small());
    for number in 0..3 {
        engine.commit([(key(number), event(Context::default(), &[1; 100]))]);
    }
    engine.disk.restart(); // Not closed: no mark at the end.
    let name = "0000000000000001-0000000000000001.log";
    engine.disk.rot(name, 300, 0);
    let report = engine.open().unwrap();
    assert_eq!((report.quarantined.len(), report.keys), (1, 0));
    assert!(engine.get(&key(0)).is_err());
}

#[test]
fn the_mark_of_an_idle_log_tells_rot_in_its_last_group_from_a_torn_write() {
    let rotten = |idle: bool| {
        let mut engine = Engine::new(SimulatedDisk::new(1, 1 << 20), small());
        engine.commit([(key(0), event(Context::default(), &[1; 100]))]);
        if idle {
            engine.parts().committer.idle();
        }
        engine.disk.restart();
        engine.disk.rot("0000000000000001-0000000000000001.log", 200, 0);
        engine.open().unwrap().quarantined.len()
    };
    assert_eq!(rotten(true), 1);
    assert_eq!(rotten(false), 0, "without the mark nothing proves that the group was ever whole");
}

#[test]
fn a_log_of_a_later_program_is_refused_and_left_alone() {
    let (mut engine, names) = closed_log(1);
    let sound = engine.disk.bytes(&names[0]).unwrap();
    let mut later = sound[..96].to_vec();
    later[8] = 9;
    let checksum = xxhash_rust::xxh3::xxh3_64(&later[..88]);
    later[88..].copy_from_slice(&checksum.to_le_bytes());
    let file = engine.disk.attach().open(&names[0]).unwrap();
    file.write_at(0, &later).unwrap();
    assert!(matches!(engine.open(), Err(OpenError::Format { found: 9, known: 1, .. })));
    file.write_at(0, &sound[..96]).unwrap();
    engine.open().unwrap();
    engine.check();
}
