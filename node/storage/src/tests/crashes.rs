//! Crashes at any operation of the disk: what was acknowledged is there afterwards, and nothing else.

use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::disk::simulated::Backup;
use crate::options::Durability;

const CAPACITY_BYTES: u64 = 1 << 20;

/// One step of a history.
#[derive(Clone, Debug)]
enum Step {
    /// Writes that wait together.
    Commit(Vec<Op>),
    /// A merge of segments, if one is worth it.
    Merge,
    /// A segment prepared ahead.
    Prepare,
    /// Nothing happened for a while.
    Idle,
    /// The power will go after so many operations.
    CutPowerAfter(u64),
    /// The disk has only so much space left, until the next start.
    Fill(u64),
    /// Reads fail.
    FailReads(u32),
    /// A snapshot is taken.
    Snapshot(u8),
    /// Writes are prepared, and then the power goes.
    CutPowerBeforeCommit(Vec<Op>, u64),
    /// The process dies, and another starts.
    Kill,
    /// An orderly restart.
    Restart,
    /// Syncs fail.
    FailSyncs(u32),
    /// Writes fail halfway.
    FailWrites(u32),
}

#[derive(Clone, Debug)]
enum Op {
    Write { key: usize, blind: bool, bytes: usize },
    Merge { key: usize, counter: u64, bytes: usize },
    Forget { key: usize, outdated: bool },
}

fn op() -> impl Strategy<Value = Op> {
    let key = 0..12usize;
    prop_oneof![
        3 => (key.clone(), prop::bool::weighted(0.2), 0..400usize)
            .prop_map(|(key, blind, bytes)| Op::Write { key, blind, bytes }),
        1 => (key.clone(), 1..50u64, 1..400usize)
            .prop_map(|(key, counter, bytes)| Op::Merge { key, counter, bytes }),
        1 => (key, prop::bool::weighted(0.1)).prop_map(|(key, outdated)| Op::Forget { key, outdated }),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        20 => prop::collection::vec(op(), 1..6).prop_map(Step::Commit),
        6 => Just(Step::Merge),
        4 => Just(Step::Prepare),
        2 => Just(Step::Idle),
        2 => (0..40u64).prop_map(Step::CutPowerAfter),
        2 => (prop::collection::vec(op(), 1..6), any::<u64>())
            .prop_map(|(ops, dice)| Step::CutPowerBeforeCommit(ops, dice)),
        1 => (0..10_000u64).prop_map(Step::Fill),
        1 => (1..4u32).prop_map(Step::FailReads),
        1 => any::<u8>().prop_map(Step::Snapshot),
        1 => Just(Step::Kill),
        1 => Just(Step::Restart),
        1 => (1..4u32).prop_map(Step::FailSyncs),
        1 => (1..3u32).prop_map(Step::FailWrites),
    ]
}

impl Rig {
    fn run(&mut self, step: &Step) {
        match step {
            Step::Commit(ops) => {
                let changes: Vec<_> = ops.iter().map(|op| self.change(op)).collect();
                self.commit(changes);
            }
            Step::Merge => drop(self.engine().merger.step()),
            Step::Prepare => drop(self.engine().preparer.step()),
            Step::Idle => self.engine().committer.tick(),
            Step::CutPowerAfter(operations) => self.disk.cut_power_after(*operations),
            Step::FailSyncs(count) => self.disk.fail_syncs(*count),
            Step::FailWrites(count) => self.disk.fail_writes(*count),
            Step::Fill(left) => self.disk.set_capacity_bytes(self.disk.used_bytes() + left),
            Step::FailReads(count) => self.disk.fail_reads(*count),
            Step::Snapshot(number) => self.snapshot(&number.to_string()),
            Step::CutPowerBeforeCommit(ops, dice) => {
                let changes: Vec<_> = ops.iter().map(|op| self.change(op)).collect();
                self.prepare(changes);
                self.disk.crash(*dice);
                self.lose_what_was_not_synced();
                self.reopen();
            }
            Step::Kill => {
                self.disk.kill_process();
                self.reopen();
            }
            Step::Restart => {
                self.engine().committer.finish();
                self.reopen();
            }
        }
        if !self.disk.is_powered() {
            self.restart();
            self.reopen();
        }
    }

    fn change(&self, op: &Op) -> (Bytes, Change) {
        match *op {
            Op::Write { key: number, blind, bytes } => {
                let context = if blind { Context::default() } else { self.context(&key(number)) };
                (key(number), event(context, &vec![bytes as u8; bytes]))
            }
            Op::Forget { key: number, outdated } => {
                let set = self.get(&key(number)).ok().flatten().unwrap_or_default();
                (key(number), Change::Forget { digest: set.digest() + u64::from(outdated) })
            }
            // A peer that made another value under the same dot would be broken: the bytes follow from the counter.
            Op::Merge { key: number, counter, bytes } => {
                let counter = counter * 1000 + number as u64 * 60 + bytes as u64 % 50;
                (
                    key(number),
                    Change::Merge(peer_set(counter, &vec![counter as u8; 1 + counter as usize % 300])),
                )
            }
        }
    }

    fn restart(&mut self) {
        self.disk.restart();
        self.lose_what_was_not_synced();
    }

    /// What a snapshot holds is what was there.
    fn snapshot(&mut self, name: &str) {
        let Ok(snapshot) = self.engine().snapshot(name) else { return };
        let actor = Actor { node: NODE, start: 1_000_000 };
        let folder = self.disk.attach_folder(&snapshot.folder);
        let (copy, report) = match Engine::open(folder, actor, self.options.clone()) {
            Ok(opened) => opened,
            Err(_) if !self.disk.is_powered() => return,
            Err(error) => panic!("{error}"),
        };
        assert_eq!(report.quarantined, []);
        for key in (0..12).map(key) {
            if let (Ok(there), Ok(copied)) = (self.get(&key), copy.get(PARTITION, &key)) {
                assert_eq!(there, copied, "{key:?}");
            }
        }
    }

    /// Only what was synced was promised to survive a power cut.
    fn lose_what_was_not_synced(&mut self) {
        if self.options.durability != Durability::Sync {
            self.promised.clear();
        }
    }

    fn reopen(&mut self) {
        self.disk.fail_syncs(0);
        self.disk.fail_writes(0);
        self.disk.fail_reads(0);
        self.disk.set_capacity_bytes(CAPACITY_BYTES);
        let report = match self.open() {
            Ok(report) => report,
            // The fuse may still burn.
            Err(_) if !self.disk.is_powered() => {
                self.restart();
                self.open().unwrap()
            }
            Err(error) => panic!("{error}"),
        };
        assert_eq!(report.quarantined, [], "a crash is no rot");
        self.check();
        self.promise_what_is_there();
    }
}

/// What is on the disk at the end of a history.
fn live_through(seed: u64, durability: Durability, steps: &[Step]) -> Backup {
    let disk = SimulatedDisk::new(seed, CAPACITY_BYTES);
    let mut rig = Rig::new(disk, Options { durability, ..small() });
    for step in steps {
        rig.run(step);
        if rig.disk.is_powered() {
            rig.disk.fail_reads(0);
            rig.check();
        }
    }
    rig.disk.kill_process();
    rig.reopen();
    rig.disk.backup()
}

proptest! {
    #[test]
    fn what_was_synced_survives_power_cuts(seed: u64, steps in prop::collection::vec(step(), 1..60)) {
        live_through(seed, Durability::Sync, &steps);
    }

    #[test]
    fn the_same_steps_leave_the_same_bytes(seed: u64, steps in prop::collection::vec(step(), 1..30)) {
        let [first, second] = [(), ()].map(|()| live_through(seed, Durability::Sync, &steps));
        prop_assert_eq!(first, second);
    }

    #[test]
    fn what_was_written_survives_the_death_of_the_process(seed: u64, steps in prop::collection::vec(step(), 1..60)) {
        let durability = if seed % 2 == 0 { Durability::Memory } else { Durability::Interval(Duration::from_secs(3600)) };
        live_through(seed, durability, &steps);
    }
}
