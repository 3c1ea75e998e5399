//! Files of segments that were merged away become segments again: what they held before is never taken for anything, and
//! nobody who can still read them sees them change.

use super::*;
use crate::segment::UNFINISHED_SUFFIX;
use crate::shared::{Shared, State};
use crate::spare::Spare;

/// What a segment's file holds at most, and some of it is written over with zeros when it is lengthened.
const SEGMENT_BYTES: usize = 4096;

fn disk(seed: u64) -> SimulatedDisk {
    SimulatedDisk::new(seed, 1 << 20)
}

impl Rig {
    fn shared(&self) -> &Shared {
        &self.engine.as_ref().expect("open").access.0
    }

    /// Writes, with background work in between, as long as the disk has power. Most of it dies and is merged away.
    fn churn(&mut self, rounds: usize) {
        for round in 0..rounds {
            let _ = self.put(round % 5, &[round as u8; 400]);
            let _ = self.engine().preparer.step_if_wanted();
            while self.engine().merger.step().is_ok_and(|step| step != Step::Idle) {}
        }
    }

    /// Writes until the segment that is written has the file of an older one, of which something is left behind its end.
    fn churn_into_old_file(&mut self) {
        self.churn(30);
        while !self.newest_bytes().iter().rev().take(1000).any(|&byte| byte != 0) {
            self.churn(1);
        }
    }

    fn newest_name(&self) -> String {
        self.shared().segments.in_order().last().expect("a segment").name.clone()
    }

    fn newest_bytes(&self) -> Vec<u8> {
        self.disk.bytes(&self.newest_name()).expect("it is there")
    }

    /// Where the segment that is written ends.
    fn newest_end(&self) -> usize {
        self.shared().segments.in_order().last().expect("a segment").end() as usize
    }

    fn unfinished(&self) -> usize {
        let names = self.disk.attach().list().unwrap();
        names.iter().filter(|name| name.ends_with(UNFINISHED_SUFFIX)).count()
    }
}

#[test]
fn a_power_cut_at_any_operation_loses_nothing() {
    for operations in 0.. {
        let mut rig = Rig::new(disk(operations), small());
        rig.churn_into_old_file();
        rig.disk.cut_power_after(operations);
        rig.churn(15);
        let finished = rig.disk.is_powered();
        rig.disk.restart();
        assert_eq!(rig.open().unwrap().quarantined, [], "after {operations} operations");
        rig.check();
        rig.churn(3);
        rig.check();
        if finished {
            assert!(operations > 100, "the log went through several files");
            return;
        }
    }
}

#[test]
fn the_death_of_the_process_at_any_step_loses_nothing() {
    for rounds in 0..40 {
        let mut rig = Rig::new(disk(rounds), small());
        rig.churn_into_old_file();
        rig.churn(rounds as usize);
        rig.disk.kill_process();
        let report = rig.open().unwrap();
        assert_eq!((report.quarantined, report.torn_bytes), (vec![], 0), "what was left behind is no write");
        rig.check();
        assert_eq!(rig.unfinished(), 0);
    }
}

#[test]
fn a_write_that_is_torn_over_what_was_left_is_dropped() {
    let torn = |seed| {
        let mut rig = Rig::new(disk(seed), small());
        rig.churn_into_old_file();
        while rig.newest_end() + 1300 > SEGMENT_BYTES {
            rig.churn(1);
        }
        // The power goes at the sync of a group of several sectors.
        rig.disk.cut_power_after(1);
        let _ = rig.put(0, &[2; 1000]);
        rig.disk.restart();
        let report = rig.open().unwrap();
        assert_eq!(report.quarantined, []);
        assert!(report.torn_bytes < 1300, "not what was left: {} bytes", report.torn_bytes);
        rig.check();
        rig.churn(3);
        rig.disk.restart();
        assert_eq!(rig.open().unwrap().quarantined, [], "the next segment says where this one ends");
        rig.check();
        report.torn_bytes > 0
    };
    assert!((0..40).filter(|&seed| torn(seed)).count() > 5);
}

#[test]
fn what_was_left_is_no_rot_and_may_rot() {
    let mut rig = Rig::new(disk(1), small());
    rig.churn_into_old_file();
    let (name, end, length) = (rig.newest_name(), rig.newest_end(), rig.newest_bytes().len());
    for at in (end..length).step_by(7) {
        rig.disk.rot(&name, at, 3);
    }
    rig.disk.restart();
    let report = rig.open().unwrap();
    assert_eq!((report.quarantined, report.torn_bytes), (vec![], 0));
    rig.check();
}

#[test]
fn rot_before_a_synced_group_is_found_in_an_old_file_too() {
    let mut rig = Rig::new(disk(1), small());
    rig.churn_into_old_file();
    while rig.newest_end() < 1500 || rig.newest_end() + 600 > SEGMENT_BYTES {
        rig.churn(1);
    }
    let (name, at) = (rig.newest_name(), rig.newest_end() - 700);
    rig.disk.restart();
    rig.disk.rot(&name, at, 0);
    assert_eq!(rig.open().unwrap().quarantined.len(), 1);
    let lost = rig.promised.keys().filter(|key| rig.get(key).is_err()).count();
    assert!(lost > 0, "what cannot be told is not told");
}

#[test]
fn a_file_that_a_snapshot_has_is_left_alone() {
    let mut rig = Rig::new(disk(1), small());
    rig.churn_into_old_file();
    let snapshot = rig.engine().snapshot("kept").unwrap();
    let then: Vec<_> = (0..5).map(|number| rig.get(&key(number)).unwrap()).collect();
    let folder = rig.disk.attach_folder(&snapshot.folder);
    let files = |names: Vec<String>| {
        names
            .into_iter()
            .map(|name| (rig_bytes(&rig.disk, &snapshot.folder, &name), name))
            .collect::<Vec<_>>()
    };
    let before = files(folder.list().unwrap());
    rig.churn(200);
    let names = rig.disk.attach_folder(&snapshot.folder).list().unwrap();
    let after: Vec<_> =
        names.into_iter().map(|name| (rig_bytes(&rig.disk, &snapshot.folder, &name), name)).collect();
    assert_eq!(after, before);
    let actor = Actor { node: NODE, start: 1_000_000 };
    let (copy, report) = Engine::open(folder, actor, small()).unwrap();
    assert_eq!(report.quarantined, []);
    let copied: Vec<_> = (0..5).map(|number| copy.get(PARTITION, &key(number)).unwrap()).collect();
    assert_eq!(copied, then);
}

fn rig_bytes(disk: &SimulatedDisk, folder: &str, name: &str) -> Vec<u8> {
    disk.bytes(&format!("{folder}/{name}")).expect("it is there")
}

#[test]
fn an_idle_log_keeps_no_old_files() {
    let mut rig = Rig::new(disk(1), small());
    rig.churn_into_old_file();
    while !rig.shared().spares.have_old() {
        rig.churn(1);
    }
    rig.engine().committer.tick();
    rig.merge_all();
    while rig.engine().preparer.step_if_wanted().unwrap() != Step::Idle {}
    assert!(rig.unfinished() <= 1, "at most the next segment");
    rig.engine = None;
    rig.open().unwrap();
    assert_eq!(rig.unfinished(), 0);
}

#[test]
fn a_full_disk_gets_the_space_of_old_files() {
    let options = Options { free_space_reserve_bytes: 1000, ..small() };
    let mut rig = Rig::new(disk(1), options);
    rig.churn_into_old_file();
    while !rig.shared().spares.have_old() {
        rig.churn(1);
    }
    let free = |rig: &Rig, bytes| rig.disk.set_capacity_bytes(rig.disk.used_bytes() + bytes);
    free(&rig, 0);
    let written = rig.put(0, b"fits");
    assert!(written.is_ok(), "there was space that nothing was stored in: {written:?}");
    assert_eq!(rig.state(), State::Writable);
    rig.check();
}

#[test]
fn a_disk_that_is_nearly_full_keeps_no_old_files() {
    let mut rig = Rig::new(disk(1), small());
    rig.churn_into_old_file();
    while !rig.shared().spares.have_old() {
        rig.churn(1);
    }
    let used = rig.disk.used_bytes();
    rig.disk.set_capacity_bytes(used + 100);
    rig.engine().preparer.step_if_wanted().unwrap();
    assert!(rig.disk.used_bytes() < used);
    while rig.engine().preparer.step_if_wanted().is_ok_and(|step| step != Step::Idle) {}
    rig.merge_all();
    rig.put(0, b"goes on").unwrap();
    rig.check();
}

#[test]
fn a_file_becomes_a_spare_only_when_nobody_else_has_it_and_the_disk_did_well_with_it() {
    let taken = |spoil: fn(&Rig, &crate::segment::Segment)| {
        let mut rig = Rig::new(disk(1), small());
        for round in 0..20 {
            rig.put(0, &[round; 1000]).unwrap();
        }
        let shared = rig.shared();
        let segment = shared.segments.in_order().remove(0);
        shared.segments.forget(segment.slot);
        spoil(&rig, &segment);
        let name = segment.name.clone();
        let spare = Spare::of(shared, segment).unwrap();
        assert_eq!(rig.disk.bytes(&name).is_none(), spare.is_some());
        spare.is_some()
    };
    assert!(taken(|_, _| {}));
    assert!(!taken(|_, segment| segment.give_up()), "rotten");
    assert!(!taken(|_, segment| segment.failed.store(true, std::sync::atomic::Ordering::Relaxed)));
    assert!(!taken(|_, segment| segment.file_bytes.store(100, std::sync::atomic::Ordering::Relaxed)));
    assert!(!taken(|rig, segment| {
        rig.disk.attach().folder("elsewhere").unwrap();
        rig.disk.attach().link(&segment.name, "elsewhere").unwrap();
    }));
}

#[test]
fn a_file_that_is_being_read_is_not_taken() {
    let mut rig = Rig::new(disk(1), small());
    for round in 0..20 {
        rig.put(0, &[round; 1000]).unwrap();
    }
    let shared = rig.shared();
    let reader = shared.segments.in_order().remove(0);
    shared.segments.forget(reader.slot);
    let (name, file) = (reader.name.clone(), reader.file.clone());
    assert!(Spare::of(shared, reader.clone()).unwrap().is_none());
    assert!(Spare::of(shared, reader).unwrap().is_none(), "its file is open elsewhere");
    assert!(rig.disk.bytes(&name).is_some() && file.length().is_ok());
}

#[test]
fn a_file_that_failed_once_is_not_trusted_again() {
    let mut rig = Rig::new(disk(1), small());
    rig.put(0, b"before").unwrap();
    rig.disk.fail_syncs(1);
    rig.put(0, b"after").unwrap();
    let segments = rig.shared().segments.in_order();
    assert_eq!(segments.iter().map(|segment| segment.is_sound()).collect::<Vec<_>>(), [false, true]);
}
