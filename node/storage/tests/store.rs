//! The store as its callers see it: threads, queues and callbacks, on simulated and real disks.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::mpsc::{self, Receiver};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use bytes::Bytes;
use quorate_core::NodeId;
use quorate_core::causality::{Actor, Context, Event, Policy, Stamp, VersionSet};
use quorate_core::ring::{Partition, PartitionCount};
use quorate_storage::disk::simulated::SimulatedDisk;
use quorate_storage::{
    Change, Committed, Disk, Durability, MANIFEST, Observer, OpenError, Options, SnapshotError, State,
    StdDisk, Store, Write, WriteError,
};

/// Long enough for a slow machine; nothing waits this long unless the test fails.
const PATIENCE: Duration = Duration::from_secs(60);

type Answer = Result<Committed, WriteError>;

fn actor(start: u64) -> Actor {
    Actor { node: NodeId::from_u128(1), start }
}

fn small() -> Options {
    Options { segment_bytes: 64 * 1024, free_space_reserve_bytes: 0, ..Options::default() }
}

fn simulated() -> SimulatedDisk {
    SimulatedDisk::new(1, 64 << 20)
}

fn open(disk: Arc<dyn Disk>, start: u64, options: Options) -> Store {
    Store::open(disk, actor(start), options).unwrap().0
}

fn real(path: &Path) -> Arc<dyn Disk> {
    Arc::new(StdDisk::open(path).unwrap())
}

fn partition(key: &[u8]) -> Partition {
    PartitionCount::try_from(16).unwrap().of_key(key)
}

fn event(context: Context, value: &[u8]) -> Change {
    let value = Some(Bytes::copy_from_slice(value));
    Change::Event(Event { context, stamp: Stamp::at_ms(1), value, policy: Policy::Siblings, expires: None })
}

fn submit(store: &Store, key: &str, change: Change) -> Receiver<Answer> {
    let (sender, receiver) = mpsc::channel();
    store.submit(Write {
        partition: partition(key.as_bytes()),
        key: Bytes::copy_from_slice(key.as_bytes()),
        change,
        prepared: None,
        done: Box::new(move |answer| sender.send(answer).unwrap_or_default()),
    });
    receiver
}

fn wait(receiver: Receiver<Answer>) -> Answer {
    receiver.recv_timeout(PATIENCE).expect("every write is answered")
}

fn get(store: &Store, key: &str) -> Option<VersionSet> {
    store.get(partition(key.as_bytes()), key.as_bytes()).unwrap()
}

/// Writes a key over what is there.
fn put(store: &Store, key: &str, value: &[u8]) -> Answer {
    let context = get(store, key).map(|set| set.context().clone()).unwrap_or_default();
    wait(submit(store, key, event(context, value)))
}

fn value(store: &Store, key: &str) -> Option<Bytes> {
    let set = get(store, key)?;
    let mut values = set.values().map(|(_, value)| value.clone());
    values.next().filter(|_| values.next().is_none())
}

fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < deadline, "never: {what}");
        thread::yield_now();
    }
}

/// Several writers, each with keys of its own, over and over; what each key was last.
fn load(store: &Store, rounds: usize) -> BTreeMap<String, Vec<u8>> {
    let last = Mutex::new(BTreeMap::new());
    thread::scope(|scope| {
        for writer in 0..4 {
            let last = &last;
            scope.spawn(move || {
                for round in 0..rounds {
                    let key = format!("{writer}-{}", round % 20);
                    let value = vec![round as u8; 100 + round % 300];
                    put(store, &key, &value).unwrap();
                    assert_eq!(get(store, &key).unwrap().versions().len(), 1);
                    last.lock().unwrap().insert(key, value);
                }
            });
        }
    });
    last.into_inner().unwrap()
}

fn check(store: &Store, last: &BTreeMap<String, Vec<u8>>) {
    for (key, expected) in last {
        assert_eq!(value(store, key).as_deref(), Some(expected.as_slice()), "{key}");
    }
}

#[test]
fn concurrent_writers_and_merging_on_a_real_disk() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(real(directory.path()), 1, small());
    let last = load(&store, 400);
    check(&store, &last);
    // Some 690 KiB were written, 30 KiB are live. At rest sealed segments are less than half dead, and one is active.
    eventually("what is dead is merged away", || store.usage().log_bytes < 3 * 64 * 1024);
    check(&store, &last);
    store.close();
    drop(store);
    let (store, report) = Store::open(real(directory.path()), actor(2), small()).unwrap();
    assert_eq!((report.keys, report.torn_bytes, report.quarantined.len()), (80, 0, 0));
    check(&store, &last);
}

#[test]
fn groups_that_are_large_are_built_on_everything_before_too() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(real(directory.path()), 1, small());
    for round in 1..=8 {
        let (sender, answers) = mpsc::channel();
        store.submit_all((0..200).map(|number| {
            let (key, sender) = (format!("{number}"), sender.clone());
            Write {
                partition: partition(key.as_bytes()),
                key: Bytes::from(key),
                change: event(Context::default(), &[round as u8; 50]),
                prepared: None,
                done: Box::new(move |answer: Answer| sender.send(answer).unwrap_or_default()),
            }
        }));
        drop(sender);
        let siblings: Vec<_> = answers.iter().map(|answer| answer.unwrap().siblings).collect();
        assert_eq!(siblings, [round; 200]);
    }
}

#[test]
fn power_cuts_under_load_lose_no_acknowledged_write() {
    let disk = simulated();
    let mut promised: BTreeMap<String, u64> = BTreeMap::new();
    for start in 1..=12 {
        let (store, report) = Store::open(disk.attach(), actor(start), small()).unwrap();
        assert_eq!(report.quarantined, []);
        for (key, round) in &promised {
            let found = u64::from_le_bytes(value(&store, key).unwrap()[..8].try_into().unwrap());
            assert!(found >= *round, "{key}: acknowledged {round}, found {found}");
        }
        disk.cut_power_after(40 * start);
        let found = Mutex::new(promised);
        thread::scope(|scope| {
            for writer in 0..3 {
                let (store, found) = (&store, &found);
                scope.spawn(move || {
                    for round in 0..10_000 {
                        let (key, round) = (format!("{writer}-{}", round % 9), start * 100_000 + round);
                        let bytes = [round.to_le_bytes().as_slice(), &[7; 500]].concat();
                        let Ok(set) = store.get(partition(key.as_bytes()), key.as_bytes()) else { return };
                        let context = set.map(|set| set.context().clone()).unwrap_or_default();
                        if wait(submit(store, &key, event(context, &bytes))).is_err() {
                            return;
                        }
                        found.lock().unwrap().insert(key, round);
                    }
                });
            }
        });
        promised = found.into_inner().unwrap();
        assert!(!disk.is_powered(), "the load was long enough");
        drop(store);
        disk.restart();
    }
    assert_eq!(promised.len(), 27);
}

#[test]
fn a_second_opener_is_told_so() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(real(directory.path()), 1, small());
    let second = Store::open(real(directory.path()), actor(2), small());
    assert!(matches!(second.err(), Some(OpenError::Locked)));
    drop(store);
    open(real(directory.path()), 2, small());
}

#[test]
fn nothing_is_answered_or_read_before_it_is_synced() {
    let disk = simulated();
    let store = open(disk.attach(), 1, small());
    put(&store, "key", b"first").unwrap();
    let held = disk.hold_syncs();
    let (sender, prepared) = mpsc::channel();
    let (answered, answer) = mpsc::channel();
    store.submit(Write {
        partition: partition(b"key"),
        key: "key".into(),
        change: event(get(&store, "key").unwrap().context().clone(), b"second"),
        prepared: Some(Box::new(move |set| sender.send(set.clone()).unwrap())),
        done: Box::new(move |result| answered.send(result).unwrap()),
    });
    let set = prepared.recv_timeout(PATIENCE).unwrap();
    let merge = submit(&store, "key", Change::Merge(set.clone()));
    assert_eq!(value(&store, "key").unwrap(), "first");
    assert!(answer.try_recv().is_err() && merge.try_recv().is_err());
    drop(held);
    assert_eq!(wait(answer).unwrap(), Committed { changed: true, siblings: 1 });
    assert_eq!(wait(merge).unwrap(), Committed { changed: false, siblings: 1 });
    assert_eq!(get(&store, "key"), Some(set));
}

#[test]
fn the_queue_is_bounded_and_what_was_taken_is_stored_at_close() {
    let disk = simulated();
    let store = open(disk.attach(), 1, Options { queue_writes_max: 10, ..small() });
    put(&store, "key", b"makes a segment").unwrap();
    let held = disk.hold_syncs();
    let (sender, prepared) = mpsc::channel();
    let first = Write {
        partition: partition(b"first"),
        key: "first".into(),
        change: event(Context::default(), b"x"),
        prepared: Some(Box::new(move |_| sender.send(()).unwrap())),
        done: Box::new(|_| {}),
    };
    store.submit(first);
    prepared.recv_timeout(PATIENCE).unwrap();
    let waiting: Vec<_> =
        (0..12).map(|n| submit(&store, &format!("key-{n}"), event(Context::default(), b"x"))).collect();
    let closing = thread::spawn({
        let store = store.clone();
        move || store.close()
    });
    eventually("closed", || {
        wait(submit(&store, "late", event(Context::default(), b"x"))) == Err(WriteError::Closed)
    });
    drop(held);
    closing.join().unwrap();
    store.close();
    let answers: Vec<_> = waiting.into_iter().map(wait).collect();
    assert!(answers[..10].iter().all(Result::is_ok), "{answers:?}");
    assert_eq!(answers[10..], [Err(WriteError::Busy), Err(WriteError::Busy)]);
    assert!(value(&store, "key-9").is_some(), "reads go on");
}

#[test]
fn the_last_handle_may_be_dropped_by_a_callback() {
    let disk = simulated();
    let store = open(disk.attach(), 1, small());
    let (sender, done) = mpsc::channel();
    let last = store.clone();
    let (go, gone) = mpsc::channel::<()>();
    store.submit(Write {
        partition: Partition(0),
        key: "key".into(),
        change: event(Context::default(), b"x"),
        prepared: None,
        done: Box::new(move |answer| {
            gone.recv_timeout(PATIENCE).unwrap();
            drop(last);
            sender.send(answer).unwrap();
        }),
    });
    drop(store);
    go.send(()).unwrap();
    assert!(wait(done).is_ok());
}

#[test]
fn a_panic_in_a_callback_harms_nobody_else() {
    let store = open(simulated().attach(), 1, small());
    store.submit(Write {
        partition: Partition(0),
        key: "bad".into(),
        change: event(Context::default(), b"x"),
        prepared: Some(Box::new(|_| panic!("on purpose"))),
        done: Box::new(|_| panic!("on purpose")),
    });
    put(&store, "key", b"value").unwrap();
    assert_eq!(store.usage().state, State::Writable);
    assert!(store.get(Partition(0), b"bad").unwrap().is_some());
    store.close();
}

#[derive(Default)]
struct Counts(Mutex<(usize, usize)>);

impl Observer for Counts {
    fn synced(&self, _: Duration) {
        self.0.lock().unwrap().0 += 1;
    }

    fn group(&self, writes: usize, _: usize) {
        self.0.lock().unwrap().1 += writes;
    }
}

#[test]
fn with_an_interval_writes_are_answered_at_once_and_synced_by_themselves() {
    let disk = simulated();
    let counts = Arc::new(Counts::default());
    let durability = Durability::Interval(Duration::from_millis(1));
    let store = open(disk.attach(), 1, Options { durability, observer: Some(counts.clone()), ..small() });
    put(&store, "key", b"value").unwrap();
    assert_eq!(counts.0.lock().unwrap().1, 1);
    eventually("synced", || counts.0.lock().unwrap().0 > 0);
    disk.cut_power_after(0);
    drop(store);
    disk.restart();
    let store = open(disk.attach(), 2, small());
    assert_eq!(value(&store, "key").unwrap(), "value");
}

#[test]
fn a_snapshot_is_what_was_answered_before_it_and_opens_as_a_store() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(real(directory.path()), 1, small());
    let before = load(&store, 100);
    let snapshot = store.snapshot("first").unwrap();
    assert_eq!(snapshot.folder, "snapshots/first");
    let after = load(&store, 300);
    assert_ne!(before, after);
    assert!(matches!(store.snapshot("first"), Err(SnapshotError::Exists { .. })));
    assert!(matches!(store.snapshot("../first"), Err(SnapshotError::Name { .. })));
    store.snapshot("second").unwrap();
    check(&store, &after);
    for (folder, expected) in [(snapshot.folder.as_str(), &before), ("snapshots/second", &after)] {
        let path = directory.path().join(folder);
        assert!(path.join(MANIFEST).is_file());
        let (copy, report) = Store::open(real(&path), actor(2), small()).unwrap();
        assert_eq!((report.keys, report.quarantined.len()), (expected.len() as u64, 0));
        check(&copy, expected);
        // It lives its own life.
        put(&copy, "0-0", b"only here").unwrap();
    }
    check(&store, &after);
    store.close();
    assert!(store.snapshot("third").is_err());
}

#[test]
fn a_full_real_disk_is_told_by_the_reserve() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(real(directory.path()), 1, Options { free_space_reserve_bytes: u64::MAX, ..small() });
    let answer = wait(submit(&store, "key", event(Context::default(), b"x")));
    assert!(matches!(answer, Err(WriteError::Full { .. })), "{answer:?}");
    assert_eq!(store.usage().state, State::Full);
}

#[test]
fn what_was_synced_is_reached_again_after_a_crash_and_not_by_an_old_copy() {
    let disk = simulated();
    let store = open(disk.attach(), 1, small());
    put(&store, "a", b"1").unwrap();
    let (backup, synced_then) = (disk.backup(), store.synced_position());
    put(&store, "b", b"2").unwrap();
    let synced = store.synced_position();
    assert!(synced > synced_then);
    disk.crash(7);
    drop(store);
    let store = open(disk.attach(), 2, small());
    assert!(store.synced_position() >= synced);
    drop(store);
    disk.restore(&backup);
    let restored = open(disk.attach(), 3, small()).synced_position();
    assert!((synced_then..synced).contains(&restored), "{synced_then} {restored} {synced}");
}
