//! Crashes at any operation of the disk: what was acknowledged is there afterwards, and nothing else.

use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::options::Durability;

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
}

fn op() -> impl Strategy<Value = Op> {
    let key = 0..12usize;
    prop_oneof![
        3 => (key.clone(), prop::bool::weighted(0.2), 0..400usize)
            .prop_map(|(key, blind, bytes)| Op::Write { key, blind, bytes }),
        1 => (key, 1..50u64, 1..400usize).prop_map(|(key, counter, bytes)| Op::Merge { key, counter, bytes }),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        20 => prop::collection::vec(op(), 1..6).prop_map(Step::Commit),
        6 => Just(Step::Merge),
        4 => Just(Step::Prepare),
        2 => Just(Step::Idle),
        2 => (0..40u64).prop_map(Step::CutPowerAfter),
        1 => Just(Step::Kill),
        1 => Just(Step::Restart),
        1 => (1..4u32).prop_map(Step::FailSyncs),
        1 => (1..3u32).prop_map(Step::FailWrites),
    ]
}

impl Engine {
    fn run(&mut self, step: &Step) {
        match step {
            Step::Commit(ops) => {
                let changes: Vec<_> = ops.iter().map(|op| self.change(op)).collect();
                self.commit(changes);
            }
            Step::Merge => drop(self.parts().merger.step()),
            Step::Prepare => drop(self.parts().preparer.step()),
            Step::Idle => self.parts().committer.idle(),
            Step::CutPowerAfter(operations) => self.disk.cut_power_after(*operations),
            Step::FailSyncs(count) => self.disk.fail_syncs(*count),
            Step::FailWrites(count) => self.disk.fail_writes(*count),
            Step::Kill => {
                self.disk.kill_process();
                self.reopen();
            }
            Step::Restart => {
                self.parts().committer.finish();
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

    /// Only what was synced was promised to survive this.
    fn restart(&mut self) {
        self.disk.restart();
        if self.options.durability != Durability::Sync {
            self.promised.clear();
        }
    }

    fn reopen(&mut self) {
        self.disk.fail_syncs(0);
        self.disk.fail_writes(0);
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

fn live_through(seed: u64, durability: Durability, steps: &[Step]) {
    let disk = SimulatedDisk::new(seed, 1 << 20);
    let mut engine = Engine::new(disk, Options { durability, ..small() });
    for step in steps {
        engine.run(step);
        if engine.disk.is_powered() {
            engine.check();
        }
    }
    engine.disk.kill_process();
    engine.reopen();
}

proptest! {
    #[test]
    fn what_was_synced_survives_power_cuts(seed: u64, steps in prop::collection::vec(step(), 1..60)) {
        live_through(seed, Durability::Sync, &steps);
    }

    #[test]
    fn what_was_written_survives_the_death_of_the_process(seed: u64, steps in prop::collection::vec(step(), 1..60)) {
        let durability = if seed % 2 == 0 { Durability::Memory } else { Durability::Interval(Duration::from_secs(3600)) };
        live_through(seed, durability, &steps);
    }
}
