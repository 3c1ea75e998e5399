//! A log on a simulated disk, and an engine that is stepped by hand.

use std::collections::BTreeMap;
use std::sync::mpsc;

use bytes::Bytes;
use quorate_core::NodeId;
use quorate_core::causality::Actor;
use quorate_core::ring::{Partition, PartitionCount};
use quorate_storage::disk::simulated::SimulatedDisk;
use quorate_storage::{Change, Committed, Engine, OpenError, Options, Recovery, Step, Write, WriteError};

/// Whose log it is.
pub(crate) const NODE: NodeId = NodeId::from_u128(1);
/// The size of a segment: the least that there is.
pub(crate) const SEGMENT_BYTES: u32 = 4096;
const DISK_BYTES: u64 = 64 * 1024 * 1024;
/// Background work that goes on for longer never ends.
const STEPS_MAX: usize = 10_000;

/// The files of a directory.
pub(crate) type Files = BTreeMap<String, Vec<u8>>;

/// A disk with these files.
pub(crate) fn disk(files: &Files) -> SimulatedDisk {
    let simulated = SimulatedDisk::new(7, DISK_BYTES);
    let disk = simulated.attach();
    for (name, bytes) in files {
        let file = disk.create(name).expect("the disk is empty");
        file.write_at(0, bytes).and_then(|()| file.sync()).expect("the disk is large");
    }
    disk.sync_directory().expect("the disk works");
    simulated
}

/// What is on a disk.
pub(crate) fn files(disk: &SimulatedDisk) -> Files {
    let names = disk.attach().list().expect("the disk works");
    names.into_iter().filter_map(|name| Some((name.clone(), disk.bytes(&name)?))).collect()
}

pub(crate) fn open(disk: &SimulatedDisk, start: u64) -> Result<(Engine, Recovery), OpenError> {
    let partitions = PartitionCount::try_from(8).ok();
    let segment_bytes = SEGMENT_BYTES;
    let options = Options { segment_bytes, free_space_reserve_bytes: 0, partitions, ..Options::default() };
    Engine::open(disk.attach(), Actor { node: NODE, start }, options)
}

/// Makes one write durable.
pub(crate) fn write(
    engine: &mut Engine,
    partition: Partition,
    key: &Bytes,
    change: Change,
) -> Result<Committed, WriteError> {
    let (sender, answer) = mpsc::channel();
    let done = Box::new(move |result| {
        // The answer is waited for below.
        let _ = sender.send(result);
    });
    engine.submit(Write { partition, key: key.clone(), change, prepared: None, done });
    while engine.prepare() {
        engine.commit();
    }
    answer.try_recv().expect("every write is answered")
}

/// All that the engine does in the background, until there is nothing to do.
pub(crate) fn settle(engine: &mut Engine) {
    for _ in 0..STEPS_MAX {
        let steps = [engine.merge_step(), engine.spare_step()];
        engine.tick();
        if steps == [Step::Idle; 2] {
            return;
        }
    }
    panic!("the background work does not end");
}

/// The process ends in order, or as if it was killed, and the disk stays.
pub(crate) fn end(engine: Engine, disk: &SimulatedDisk, in_order: bool) {
    if in_order {
        engine.close();
    } else {
        drop(engine);
    }
    disk.kill_process();
}

/// Nothing that the index says makes a question panic.
pub(crate) fn ask_everything(engine: &Engine, partitions: impl IntoIterator<Item = Partition>) {
    use quorate_core::antientropy::{Prefix, View};
    for partition in partitions {
        let _ = (engine.page(partition, None, 100), engine.scan(partition, None, 100));
        let _ = (engine.partition_usage(partition), engine.root(partition));
        let _ = (engine.children(partition, Prefix::ROOT), engine.entries(partition, 0..=u64::MAX, 100));
    }
    let _ = (engine.usage(), engine.quarantined(), engine.synced_position(), engine.patience());
}
