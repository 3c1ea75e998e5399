//! A log that the disk changed: bytes flipped, zeroed, cut, swapped, files lost.
//!
//! Whatever is served was written once; what is lost is told, unless it may be taken for a write that was torn.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::OnceLock;

use bytes::Bytes;
use quorate_core::causality::{Context, Event, Policy, Stamp, VersionSet};
use quorate_core::ring::{Partition, key_hash};
use quorate_storage::{Change, Engine, ReadError};
use serde::{Deserialize, Serialize};

use crate::log::{self, Files};
use crate::samples::{decoded, encoded};

const KEYS: usize = 9;
/// Two rounds over all keys fill some segments.
const ROUNDS: usize = 8;
const VALUE_BYTES: usize = 200;
const LOG_SUFFIX: &str = ".log";

/// What the disk does to a file; places are taken modulo what is there.
#[derive(Serialize, Deserialize)]
enum Rot {
    Flip {
        file: u8,
        at: u16,
        mask: u8,
    },
    Zero {
        file: u8,
        at: u16,
        bytes: u16,
    },
    Cut {
        file: u8,
        bytes: u16,
    },
    Extend {
        file: u8,
        bytes: Bytes,
    },
    Lose {
        file: u8,
    },
    /// The content of another file.
    Swap {
        file: u8,
        with: u8,
    },
}

/// A log, and what every key ever held in it.
struct History {
    files: Files,
    states: BTreeMap<usize, Vec<VersionSet>>,
}

fn key(number: usize) -> (Partition, Bytes) {
    let key = match number {
        0..7 => Bytes::from(format!("key-{number}")),
        _ => twin(number as u8),
    };
    (Partition(number as u16 % 3), key)
}

/// Keys of one hash: xxh3 multiplies the first 8 of 32 bytes, xored with these, by the next 8.
fn twin(number: u8) -> Bytes {
    let mut key = vec![0xb8, 0xfe, 0x6c, 0x39, 0x23, 0xa4, 0x4b, 0xbe];
    key.extend_from_slice(&[number; 8]);
    key.extend_from_slice(&[7; 16]);
    key.into()
}

/// Written once, read by every run.
fn history() -> &'static History {
    static HISTORY: OnceLock<History> = OnceLock::new();
    HISTORY.get_or_init(|| {
        let disk = log::disk(&Files::new());
        let (mut engine, _) = log::open(&disk, 1).expect("an empty disk is a log");
        let mut states: BTreeMap<usize, Vec<VersionSet>> = BTreeMap::new();
        for round in 0..ROUNDS {
            for number in (0..KEYS).filter(|number| round == 0 || (number + round) % 3 > 0) {
                let (partition, key) = key(number);
                let change = change(round, number);
                log::write(&mut engine, partition, &key, change).expect("the disk is large");
                let state = engine.get(partition, &key).expect("sound").expect("just written");
                states.entry(number).or_default().push(state);
            }
            if round % 2 == 1 {
                log::settle(&mut engine);
            }
        }
        log::end(engine, &disk, false);
        History { files: log::files(&disk), states }
    })
}

fn change(round: usize, number: usize) -> Change {
    let value = !(round + number).is_multiple_of(5);
    let event = Event {
        context: Context::default(),
        stamp: Stamp::at_ms(round as u64),
        value: value.then(|| vec![round as u8; VALUE_BYTES + number].into()),
        policy: if number == 5 { Policy::Siblings } else { Policy::LastWriteWins },
        expires: None,
    };
    Change::Event(event)
}

pub(crate) fn run(bytes: &[u8]) -> bool {
    let Some(rots) = decoded::<Vec<Rot>>(bytes) else { return false };
    let mut files = history().files.clone();
    let newest = files.keys().rfind(|name| name.ends_with(LOG_SUFFIX)).expect("the log is not empty").clone();
    let touched: BTreeSet<String> = rots.into_iter().filter_map(|rot| apply(rot, &mut files)).collect();
    let may_be_torn = touched.contains(&newest);
    let disk = log::disk(&files);

    let (mut engine, _) = log::open(&disk, 2).expect("rot keeps no node from starting");
    let found = read(&engine, may_be_torn);
    log::ask_everything(&engine, (0..8).map(Partition));
    for partition in (0..3).map(Partition) {
        let page = engine.page(partition, None, KEYS).keys;
        assert!(page.is_sorted_by_key(|(key, _)| key_hash(key)), "a page without order");
    }
    log::settle(&mut engine);
    agree(&found, &read(&engine, may_be_torn));
    let fresh = (Partition(7), Bytes::from_static(b"fresh"));
    let set = history().states[&0][0].clone();
    log::write(&mut engine, fresh.0, &fresh.1, Change::Merge(set.clone())).expect("a merge is always taken");
    log::end(engine, &disk, touched.len().is_multiple_of(2));

    let (engine, _) = log::open(&disk, 3).expect("it was open before");
    agree(&found, &read(&engine, may_be_torn));
    let kept = engine.get(fresh.0, &fresh.1);
    assert!(
        matches!(&kept, Ok(Some(kept)) if *kept == set) || is_quarantined(&kept),
        "{kept:?} was acknowledged"
    );
    true
}

/// Changes a file; says which, if it is another one now.
fn apply(rot: Rot, files: &mut Files) -> Option<String> {
    let (Rot::Flip { file, .. }
    | Rot::Zero { file, .. }
    | Rot::Cut { file, .. }
    | Rot::Extend { file, .. }
    | Rot::Lose { file }
    | Rot::Swap { file, .. }) = &rot;
    let name = nth(files, *file)?;
    let before = files.get(&name)?.clone();
    let mut bytes = before.clone();
    match rot {
        Rot::Flip { at, mask, .. } => {
            let at = usize::from(at) % bytes.len().max(1);
            *bytes.get_mut(at)? ^= mask;
        }
        Rot::Zero { at, bytes: count, .. } => {
            let at = usize::from(at) % bytes.len().max(1);
            bytes.iter_mut().skip(at).take(count.into()).for_each(|byte| *byte = 0);
        }
        Rot::Cut { bytes: count, .. } => bytes.truncate(count.into()),
        Rot::Extend { bytes: more, .. } => bytes.extend_from_slice(&more),
        Rot::Swap { with, .. } => bytes = files.get(&nth(files, with)?)?.clone(),
        Rot::Lose { .. } => {
            files.remove(&name);
            return Some(name);
        }
    }
    let changed = bytes != before;
    files.insert(name.clone(), bytes);
    changed.then_some(name)
}

fn nth(files: &Files, number: u8) -> Option<String> {
    files.keys().nth(usize::from(number) % files.len().max(1)).cloned()
}

type Read = Result<Option<VersionSet>, ReadError>;

fn is_quarantined(read: &Read) -> bool {
    matches!(read, Err(ReadError::Quarantined { .. }))
}

/// Every key, each as it may be.
fn read(engine: &Engine, may_be_torn: bool) -> Vec<Read> {
    let read = |number| {
        let (partition, key) = key(number);
        let found = engine.get(partition, &key);
        let states = &history().states[&number];
        match &found {
            Ok(Some(set)) if may_be_torn => assert!(states.contains(set), "key {number} never held {set:?}"),
            Ok(None) if may_be_torn => {}
            Ok(set) => assert_eq!(set.as_ref(), states.last(), "key {number} went back in time"),
            Err(error) => assert!(is_quarantined(&found), "{error}"),
        }
        found
    };
    (0..KEYS).map(read).collect()
}

/// What was served once is served for ever.
fn agree(before: &[Read], after: &[Read]) {
    for (number, (before, after)) in before.iter().zip(after).enumerate() {
        assert!(
            before == after || before.is_err() || is_quarantined(after),
            "key {number} changed: {after:?}"
        );
    }
}

pub(crate) fn seeds() -> Vec<Vec<u8>> {
    let none: Vec<Rot> = Vec::new();
    let one = vec![Rot::Flip { file: 0, at: 200, mask: 4 }];
    let many = vec![
        Rot::Zero { file: 1, at: 100, bytes: 50 },
        Rot::Cut { file: 2, bytes: 1000 },
        Rot::Extend { file: 3, bytes: Bytes::from_static(b"more") },
        Rot::Swap { file: 2, with: 4 },
        Rot::Lose { file: 4 },
    ];
    [none, one, many].iter().map(encoded).collect()
}
