//! Bits that change on the disk: what is wrong is never served, and never "absent" instead.

use proptest::prelude::*;

use super::*;
use crate::Leftover;

/// A closed log of several segments, the same for the same seed, and its files in use.
fn closed_log(seed: u64) -> (Rig, Vec<String>) {
    let mut rig = Rig::new(SimulatedDisk::new(seed, 1 << 20), small());
    for round in 0..20usize {
        let change = event(rig.context(&key(round % 9)), &[round as u8; 400]);
        rig.commit([(key(round % 9), change)]);
        if round == 12 && seed.is_multiple_of(2) {
            rig.merge_all();
        }
    }
    rig.engine().committer.finish();
    rig.engine = None;
    let names = rig.disk.attach().list().unwrap();
    (rig, names.into_iter().filter(|name| name.ends_with(".log")).collect())
}

/// Every answer is right or an error.
fn check_honest(rig: &Rig) {
    for (key, promised) in &rig.promised {
        match rig.get(key) {
            Ok(found) => assert_eq!(found.as_ref(), Some(promised), "{key:?}"),
            Err(ReadError::Quarantined { .. }) => {}
            Err(error) => panic!("{error}"),
        }
    }
}

fn unreadable(rig: &Rig) -> usize {
    rig.promised.keys().filter(|key| rig.get(key).is_err()).count()
}

proptest! {
    #[test]
    fn a_changed_bit_is_never_served(seed in 0..4u64, file: prop::sample::Index, at: prop::sample::Index, bit in 0..8u8) {
        let (mut rig, names) = closed_log(seed);
        let name = file.get(&names);
        let length = rig.disk.bytes(name).unwrap().len();
        rig.disk.rot(name, at.index(length), bit);
        let report = rig.open().unwrap();
        check_honest(&rig);
        if rig.quarantined().is_empty() {
            prop_assert_eq!(unreadable(&rig), 0);
        }
        // Nor does it come to be after more writes, merges and starts.
        for number in 0..9 {
            rig.commit([(key(number), Change::Merge(peer_set(50 + number as u64, b"later")))]);
        }
        rig.merge_all();
        rig.disk.restart();
        let again = rig.open().unwrap();
        prop_assert!(again.quarantined.len() >= report.quarantined.len());
        for (key, promised) in &rig.promised {
            if let Ok(found) = rig.get(key) {
                prop_assert!(includes(&found.unwrap_or_default(), promised));
            }
        }
    }

    #[test]
    fn a_bit_that_changes_while_the_store_is_open_is_found_too(at in 96..4000usize, bit in 0..8u8) {
        let (mut rig, names) = closed_log(1);
        rig.open().unwrap();
        rig.disk.rot(&names[0], at, bit);
        check_honest(&rig);
        rig.merge_all();
        check_honest(&rig);
    }
}

impl Rig {
    pub(super) fn quarantined(&self) -> Vec<Partition> {
        self.engine.as_ref().expect("open").quarantined()
    }

    pub(super) fn lift(&mut self, partition: Partition, leftover: Leftover) {
        self.engine().lift(partition, leftover).unwrap();
        while self.engine().prepare() {
            self.engine().commit();
        }
    }
}

#[test]
fn a_lost_record_heals_by_merges_and_counts_as_whole_after_it_was_settled() {
    let (mut rig, _) = closed_log(1);
    rig.open().unwrap();
    rig.merge_all();
    let names = rig.disk.attach().list().unwrap();
    for name in names.iter().filter(|name| name.ends_with(".log")) {
        for offset in [300, 800, 1300, 1800] {
            rig.disk.rot(name, offset, 1);
        }
    }
    let rotten: Vec<_> = rig.promised.keys().filter(|key| rig.get(key).is_err()).cloned().collect();
    let (healed, unknown) = rotten.split_first().unwrap();
    assert!(!unknown.is_empty());
    rig.promised.retain(|key, _| !rotten.contains(key));
    let set = peer_set(1, b"peer");
    let merged = rig.commit([(healed.clone(), Change::Merge(set.clone()))]).remove(0);
    assert_eq!(merged.result, Some(Ok(Committed { changed: true, siblings: 1 })));
    for _ in 0..2 {
        let quarantined = Err(ReadError::Quarantined { partition: PARTITION });
        assert_eq!(rig.get(healed), quarantined, "peers may have more");
        assert_eq!(rig.quarantined(), [PARTITION]);
        check_honest(&rig);
        rig.engine().committer.finish();
        rig.open().unwrap();
    }
    rig.merge_all();
    rig.lift(PARTITION, Leftover::Drop);
    assert_eq!(rig.quarantined(), []);
    assert_eq!(rig.get(healed), Ok(Some(set.clone())));
    for key in unknown {
        assert_eq!(rig.get(key), Ok(None), "nobody has it");
        let written = rig.commit([(key.clone(), event(Context::default(), b"anew"))]).remove(0);
        assert!(written.result.unwrap().is_ok());
    }
    rig.engine().committer.finish();
    rig.open().unwrap();
    rig.merge_all();
    assert_eq!((rig.quarantined(), rig.get(healed)), (vec![], Ok(Some(set))));
    rig.check();
}

#[test]
fn partitions_are_lifted_one_by_one_and_stay_so() {
    let (mut rig, _) = log_without_its_first_segment();
    let everything = rig.quarantined().len();
    assert_eq!(everything, 4097, "every partition, because nothing says which keys were lost, and the hints");
    let missing = Bytes::from_static(b"never written");
    let merged = rig.commit([(missing.clone(), Change::Merge(peer_set(1, b"peer")))]).remove(0);
    rig.lift(PARTITION, Leftover::Drop);
    for _ in 0..2 {
        assert_eq!(rig.quarantined().len(), everything - 1);
        assert_eq!(rig.get(&missing).unwrap(), merged.prepared);
        assert_eq!(rig.get(b"nor this"), Ok(None));
        let other = rig.engine().get(Partition(0), b"nor this");
        assert_eq!(other, Err(ReadError::Quarantined { partition: Partition(0) }));
        rig.disk.restart();
        rig.open().unwrap();
    }
    let name = "lifted";
    assert!(rig.disk.rot(name, 9, 0));
    rig.open().unwrap();
    assert_eq!(rig.quarantined().len(), everything, "rather once too often");
}

/// A log whose first segment is lost, and the keys that were written after it.
fn log_without_its_first_segment() -> (Rig, QuarantinedCount) {
    let (mut rig, names) = closed_log(1);
    rig.disk.rot(&names[0], 200, 0);
    let report = rig.open().unwrap();
    (rig, report.quarantined.len())
}

type QuarantinedCount = usize;

#[test]
fn a_rotten_segment_is_set_aside_and_kept() {
    let (mut rig, names) = closed_log(1);
    let before = rig.disk.bytes(&names[1]).unwrap();
    rig.disk.rot(&names[1], 300, 3);
    let report = rig.open().unwrap();
    let kept = names[1].replace(".log", ".quarantined");
    assert_eq!(report.quarantined.iter().map(|q| &q.name).collect::<Vec<_>>(), [&kept]);
    assert!(report.quarantined[0].reason.contains("changed by the disk"), "{report:?}");
    assert_eq!(rig.disk.bytes(&kept).unwrap().len(), before.len());
    assert_eq!(rig.disk.bytes(&names[1]), None);
    assert_eq!(rig.open().unwrap().quarantined.len(), 1, "remembered");
}

#[test]
fn what_is_newer_than_the_lost_segment_is_served_and_the_rest_is_not() {
    let (rig, quarantined) = log_without_its_first_segment();
    assert_eq!(quarantined, 1);
    check_honest(&rig);
    // Every key was written again in a later segment.
    assert_eq!(unreadable(&rig), 0);
    let missing = rig.get(b"never written");
    assert_eq!(missing, Err(ReadError::Quarantined { partition: PARTITION }), "it may have been in there");
}

#[test]
fn what_is_older_than_the_lost_segment_may_be_outdated() {
    let (mut rig, names) = closed_log(1);
    rig.disk.rot(names.last().unwrap(), 200, 0);
    rig.open().unwrap();
    check_honest(&rig);
    assert_eq!(unreadable(&rig), 9);
}

#[test]
fn a_quarantined_key_takes_merges_and_no_events() {
    let (mut rig, _) = log_without_its_first_segment();
    let key = Bytes::from_static(b"never written");
    let refused = rig.commit([(key.clone(), event(Context::default(), b"value"))]).remove(0);
    let quarantined = ReadError::Quarantined { partition: PARTITION };
    assert_eq!(refused.result, Some(Err(WriteError::Unreadable(quarantined.clone()))));
    assert_eq!(refused.prepared, None);
    let merged = rig.commit([(key.clone(), Change::Merge(peer_set(1, b"value")))]).remove(0);
    assert_eq!(merged.result, Some(Ok(Committed { changed: true, siblings: 1 })));
    for _ in 0..2 {
        assert_eq!(rig.get(&key), Err(quarantined.clone()), "what was lost may be newer");
        rig.disk.restart();
        rig.open().unwrap();
    }
    // What is known for certain goes on as ever.
    let sure = super::key(0);
    let taken = rig.commit([(sure.clone(), event(rig.context(&sure), b"new"))]).remove(0);
    assert!(taken.result.unwrap().is_ok());
    rig.disk.restart();
    rig.open().unwrap();
    assert_eq!(rig.get(&sure).unwrap(), taken.prepared);
}

#[test]
fn a_missing_file_is_a_loss_not_an_absence() {
    let (mut rig, names) = closed_log(1);
    rig.disk.attach().remove(&names[1]).unwrap();
    let report = rig.open().unwrap();
    assert_eq!(report.quarantined[0].reason, "the file is missing");
    assert_eq!(rig.get(b"never written"), Err(ReadError::Quarantined { partition: PARTITION }));
    check_honest(&rig);
    // Nor is the gap merged over.
    for number in 0..27 {
        rig.commit([(key(number % 9), Change::Merge(peer_set(number as u64 + 1, &[1; 900])))]);
    }
    rig.merge_all();
    assert_eq!(rig.open().unwrap().quarantined, report.quarantined);
}

#[test]
fn the_end_of_a_segment_is_known_after_the_next_one_was_merged() {
    let mut rig = Rig::new(SimulatedDisk::new(1, 1 << 20), small());
    let mut number = 0;
    while rig.usage().segments < 2 {
        rig.commit([(key(number), event(Context::default(), &[1; 600]))]);
        number += 1;
    }
    for round in 0..20u8 {
        let change = event(rig.context(&key(8)), &[round; 600]);
        rig.commit([(key(8), change)]);
    }
    rig.merge_all();
    let names = rig.disk.attach().list().unwrap();
    let first = "0000000000000001-0000000000000001.log";
    let second_was_merged = |name: &String| name.starts_with("0000000000000002-") && !name.contains("2.");
    assert!(names.iter().any(|name| name == first) && names.iter().any(second_was_merged), "{names:?}");
    let last_byte = rig.disk.bytes(first).unwrap().len() - 1;
    rig.disk.rot(first, last_byte, 0);
    rig.disk.attach().remove(&first.replace(".log", ".catalogue")).unwrap();
    assert_eq!(rig.open().unwrap().quarantined.len(), 1, "its last group was synced: this is no torn write");
    check_honest(&rig);
}

#[test]
fn a_rotten_record_refuses_its_key_alone_and_is_not_merged_away() {
    let (mut rig, names) = closed_log(1);
    rig.open().unwrap();
    for name in &names {
        rig.disk.rot(name, 500, 1);
    }
    let rotten: Vec<_> = rig.promised.keys().filter(|key| rig.get(key).is_err()).cloned().collect();
    assert!(!rotten.is_empty() && rotten.len() <= names.len());
    let quarantined = ReadError::Quarantined { partition: PARTITION };
    for key in &rotten {
        let blind = rig.commit([(key.clone(), event(Context::default(), b"blind"))]).remove(0);
        assert_eq!(blind.result, Some(Err(WriteError::Unreadable(quarantined.clone()))));
    }
    assert_eq!(rig.quarantined(), [PARTITION], "what was lost is known, so the rest is served");
    // Kill what is sound, so that merging would be worth it.
    for key in rig.promised.keys().filter(|key| !rotten.contains(key)).cloned().collect::<Vec<_>>() {
        let change = event(rig.context(&key), b"");
        assert!(rig.commit([(key, change)])[0].result.as_ref().unwrap().is_ok());
    }
    rig.merge_all();
    check_honest(&rig);
    assert!(names.iter().all(|name| rig.disk.bytes(name).is_some()), "the evidence stays");
}

#[test]
fn a_torn_group_at_the_end_is_dropped_and_does_not_count_as_rot_later() {
    let torn = |seed| {
        let mut rig = Rig::new(SimulatedDisk::new(seed, 1 << 20), small());
        rig.commit([(key(0), event(Context::default(), &[1; 300]))]);
        // The power goes at the sync of a group of several sectors.
        rig.disk.cut_power_after(1);
        rig.commit([(key(1), event(Context::default(), &[2; 2000]))]);
        rig.disk.restart();
        let report = rig.open().unwrap();
        assert_eq!(report.quarantined, []);
        rig.check();
        rig.commit([(key(2), event(Context::default(), b"goes on"))]);
        rig.disk.restart();
        assert_eq!(rig.open().unwrap().quarantined, [], "the next segment says where this one ends");
        rig.check();
        report.torn_bytes > 0
    };
    assert!((0..20).filter(|&seed| torn(seed)).count() > 5);
}

#[test]
fn a_broken_group_before_a_synced_one_is_rot_even_in_the_newest_segment() {
    let mut rig = Rig::new(SimulatedDisk::new(1, 1 << 20), small());
    for number in 0..3 {
        rig.commit([(key(number), event(Context::default(), &[1; 100]))]);
    }
    rig.disk.restart(); // Not closed: no mark at the end.
    let name = "0000000000000001-0000000000000001.log";
    rig.disk.rot(name, 300, 0);
    let report = rig.open().unwrap();
    assert_eq!((report.quarantined.len(), report.keys), (1, 0));
    assert!(rig.get(&key(0)).is_err());
}

#[test]
fn the_mark_of_an_idle_log_tells_rot_in_its_last_group_from_a_torn_write() {
    let rotten = |idle: bool| {
        let mut rig = Rig::new(SimulatedDisk::new(1, 1 << 20), small());
        rig.commit([(key(0), event(Context::default(), &[1; 100]))]);
        if idle {
            rig.engine().committer.tick();
        }
        rig.disk.restart();
        rig.disk.rot("0000000000000001-0000000000000001.log", 200, 0);
        rig.open().unwrap().quarantined.len()
    };
    assert_eq!(rotten(true), 1);
    assert_eq!(rotten(false), 0, "without the mark nothing proves that the group was ever whole");
}

#[test]
fn a_log_of_a_later_program_is_refused_and_left_alone() {
    let (mut rig, names) = closed_log(1);
    let sound = rig.disk.bytes(&names[0]).unwrap();
    let mut later = sound[..96].to_vec();
    later[8] = 9;
    let checksum = xxhash_rust::xxh3::xxh3_64(&later[..88]);
    later[88..].copy_from_slice(&checksum.to_le_bytes());
    let file = rig.disk.attach().open(&names[0]).unwrap();
    file.write_at(0, &later).unwrap();
    assert!(matches!(rig.open(), Err(OpenError::Format { found: 9, known: 2, .. })));
    file.write_at(0, &sound[..96]).unwrap();
    rig.open().unwrap();
    rig.check();
}
