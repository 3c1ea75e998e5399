//! Logs that earlier programs wrote are read for ever, and become logs of the newest format as they are merged.

use std::fs;
use std::path::Path;
use std::sync::{Arc, mpsc};

use bytes::Bytes;
use quorate_core::NodeId;
use quorate_core::causality::{Actor, Context, Event, Policy, Stamp};
use quorate_core::ring::Partition;
use quorate_storage::{Change, Engine, Options, Recovery, StdDisk, Step, Write};

/// What the log of format 1 holds: by number of the key, the counter and the length of the value of each version.
/// Two starts wrote it: each key over and over, number 5 always blind, number 7 deleted, 11 and 12 with one hash.
const FORMAT_1: [&[(u64, Option<usize>)]; 13] = [
    &[(40, Some(128))],
    &[(28, Some(92))],
    &[(29, Some(95))],
    &[(30, Some(98))],
    &[(31, Some(101))],
    &[(6, Some(25)), (19, Some(65)), (32, Some(104)), (6, Some(25)), (19, Some(65)), (32, Some(104))],
    &[(33, Some(107))],
    &[(34, None)],
    &[(35, Some(113))],
    &[(36, Some(116))],
    &[(37, Some(119))],
    &[(38, Some(122))],
    &[(39, Some(125))],
];

fn key(number: usize) -> (Partition, Bytes) {
    match number {
        0..11 => (Partition(number as u16 % 4), Bytes::from(format!("key-{number}"))),
        _ => {
            let mut key = vec![0xb8, 0xfe, 0x6c, 0x39, 0x23, 0xa4, 0x4b, 0xbe];
            key.extend_from_slice(&[number as u8; 8]);
            key.extend_from_slice(&[7; 16]);
            (Partition(3), key.into())
        }
    }
}

fn open(path: &Path, start: u64) -> (Engine, Recovery) {
    let disk = Arc::new(StdDisk::open(path).unwrap());
    let options = Options { segment_bytes: 4096, free_space_reserve_bytes: 0, ..Options::default() };
    Engine::open(disk, Actor { node: NodeId::from_u128(1), start }, options).unwrap()
}

fn check(engine: &Engine) {
    for (number, expected) in FORMAT_1.into_iter().enumerate() {
        let (partition, key) = key(number);
        let set = engine.get(partition, &key).unwrap().unwrap();
        let found = set.versions().iter().map(|v| (v.dot.counter, v.value.as_ref().map(Bytes::len)));
        assert_eq!(found.collect::<Vec<_>>(), expected, "{number}");
        let hash = quorate_core::ring::key_hash(&key);
        let scanned = engine.scan(partition, None, 100);
        let known = scanned.iter().find(|known| known.key_hash == hash && known.digest == set.digest());
        assert_eq!(known.unwrap().dead_from_unix_ms, set.dead_from(), "{number}");
    }
}

/// The formats of the segments in a directory.
fn formats(path: &Path) -> Vec<u8> {
    let files = fs::read_dir(path).unwrap().map(|file| file.unwrap().path());
    let logs = files.filter(|path| path.extension().is_some_and(|extension| extension == "log"));
    logs.map(|path| fs::read(path).unwrap()[8]).collect()
}

fn put(engine: &mut Engine, bytes: usize) {
    let (sender, answer) = mpsc::channel();
    let event = Event {
        context: Context::default(),
        stamp: Stamp::at_ms(1),
        value: Some(vec![1; bytes].into()),
        policy: Policy::LastWriteWins,
        expires: None,
    };
    engine.submit(Write {
        partition: Partition(9),
        key: Bytes::from_static(b"new"),
        change: Change::Event(event),
        prepared: None,
        done: Box::new(move |result| sender.send(result).unwrap()),
    });
    while engine.prepare() {
        engine.commit();
    }
    answer.recv().unwrap().unwrap();
}

#[test]
fn a_log_of_format_1_is_read_and_becomes_one_of_the_newest() {
    let directory = tempfile::tempdir().unwrap();
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/format-1");
    for file in fs::read_dir(golden).unwrap() {
        let file = file.unwrap();
        fs::copy(file.path(), directory.path().join(file.file_name())).unwrap();
    }
    assert!(formats(directory.path()).iter().all(|&format| format == 1));
    let (mut engine, recovery) = open(directory.path(), 3);
    assert_eq!((recovery.keys, recovery.quarantined.len(), recovery.torn_bytes), (13, 0, 0));
    check(&engine);
    // Until there are so many segments that the old ones are merged with their neighbours.
    for _ in 0..20 {
        put(&mut engine, 1500);
        while engine.merge_step() != Step::Idle {}
    }
    assert!(formats(directory.path()).iter().all(|&format| format == 2), "{:?}", formats(directory.path()));
    check(&engine);
    engine.close();
    let (engine, recovery) = open(directory.path(), 4);
    assert_eq!((recovery.keys, recovery.quarantined.len()), (14, 0));
    check(&engine);
}
