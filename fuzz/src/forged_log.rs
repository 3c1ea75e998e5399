//! A directory of sound checksums around anything: every decoder of the log meets what no program wrote.
//!
//! The bytes of segments, groups, records and catalogues are made here, by what `quorate-storage` says of them; so
//! what is forged gets past the checksums, which no fuzzer guesses. Whatever comes of it, no question panics, and
//! what is served is what some record says.

use bytes::Bytes;
use quorate_core::causality::VersionSet;
use quorate_core::ring::Partition;
use quorate_storage::{Change, HINTS};
use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::{xxh3_64, xxh3_64_with_seed};

use crate::log::{self, Files, NODE};
use crate::samples::{decoded, encoded, sets};

/// Files of one directory.
const FILES_MAX: usize = 8;
/// The longest file.
const FILE_BYTES_MAX: usize = 64 * 1024;
const SALT: u64 = 7;

#[derive(Serialize, Deserialize)]
struct ForgedFile {
    first: u64,
    last: u64,
    kind: Kind,
}

/// What a file pretends to be.
#[derive(Serialize, Deserialize)]
enum Kind {
    Segment {
        format: u8,
        previous_end: u64,
        end: u64,
        groups: Vec<Group>,
        rest: Bytes,
    },
    /// Header and checksum around these entries.
    Catalogue {
        end: u64,
        entries: Vec<[u8; 32]>,
    },
    /// A checksum behind it.
    Lifted(Bytes),
    Raw {
        suffix: u8,
        bytes: Bytes,
    },
}

#[derive(Serialize, Deserialize)]
struct Group {
    synced_to: u64,
    /// Whether it names the group before it.
    follows: bool,
    records: Vec<Record>,
    /// Unsealed bytes that count as records.
    more: Bytes,
}

#[derive(Clone, Serialize, Deserialize)]
struct Record {
    partition: u16,
    flags: u8,
    dead_from: u64,
    /// By so much the length of the key is wrong.
    key_bytes_wrong: u16,
    key: Bytes,
    set: Bytes,
}

pub(crate) fn run(bytes: &[u8]) -> bool {
    let Some(forged) = decoded::<Vec<ForgedFile>>(bytes) else { return false };
    if forged.len() > FILES_MAX {
        return false;
    }
    let files: Files = forged.iter().map(|file| (name(file), content(file))).collect();
    let records: Vec<&Record> = forged.iter().flat_map(records).collect();
    let disk = log::disk(&files);
    for start in 1..=3 {
        // A log of another format or node is refused, and nothing else is.
        let Ok((mut engine, _)) = log::open(&disk, start) else { return true };
        log::ask_everything(&engine, records.iter().map(|record| Partition(record.partition)).chain([HINTS]));
        for record in &records {
            let served = engine.get(Partition(record.partition), &record.key);
            if let Ok(Some(set)) = served {
                assert!(says(&records, record, &set), "nobody wrote {set:?}");
            }
        }
        if start == 2 {
            let [_, _, set] = sets();
            let _ = log::write(&mut engine, Partition(1), &Bytes::from_static(b"fresh"), Change::Merge(set));
            log::settle(&mut engine);
        }
        log::end(engine, &disk, start == 1);
    }
    true
}

/// Whether a record of this key holds this set, or our own write is in it.
fn says(records: &[&Record], wanted: &Record, set: &VersionSet) -> bool {
    let says = |record: &&Record| {
        let body = [&record.key[..], &record.set].concat();
        let key_bytes = usize::from((record.key.len() as u16).wrapping_add(record.key_bytes_wrong));
        let split = body.split_at_checked(key_bytes);
        record.partition == wanted.partition
            && split.is_some_and(|(key, bytes)| {
                key == wanted.key && VersionSet::decode(bytes).as_ref() == Ok(set)
            })
    };
    wanted.key.as_ref() == b"fresh" || records.iter().any(says)
}

fn records(file: &ForgedFile) -> impl Iterator<Item = &Record> {
    let groups: &[Group] = match &file.kind {
        Kind::Segment { groups, .. } => groups,
        _ => &[],
    };
    groups.iter().flat_map(|group| &group.records)
}

fn name(file: &ForgedFile) -> String {
    let suffix = match &file.kind {
        Kind::Segment { .. } => ".log",
        Kind::Catalogue { .. } => ".catalogue",
        Kind::Lifted(_) => return "lifted".to_owned(),
        Kind::Raw { suffix, .. } => {
            [".log", ".catalogue", ".quarantined", ".unfinished", ""][usize::from(*suffix) % 5]
        }
    };
    format!("{:016x}-{:016x}{suffix}", file.first, file.last)
}

fn content(file: &ForgedFile) -> Vec<u8> {
    let mut bytes = match &file.kind {
        Kind::Segment { format, previous_end, end, groups, rest } => {
            let mut bytes = header(u32::from(*format), [file.first, file.last, *previous_end, *end, SALT, 0]);
            let mut previous = 0;
            for group in groups {
                previous = push_group(&mut bytes, group, previous);
            }
            [bytes, rest.to_vec()].concat()
        }
        Kind::Catalogue { end, entries } => catalogue(*end, entries),
        Kind::Lifted(bytes) => with_checksum([b"quorlif2", bytes.as_ref()].concat()),
        Kind::Raw { bytes, .. } => bytes.to_vec(),
    };
    bytes.truncate(FILE_BYTES_MAX);
    bytes
}

fn with_checksum(mut bytes: Vec<u8>) -> Vec<u8> {
    bytes.extend_from_slice(&xxh3_64(&bytes).to_le_bytes());
    bytes
}

fn header(format: u32, numbers: [u64; 6]) -> Vec<u8> {
    let mut bytes = b"quorlog\0".to_vec();
    bytes.extend_from_slice(&format.to_le_bytes());
    bytes.extend_from_slice(&[0; 4]);
    bytes.extend_from_slice(NODE.as_bytes());
    bytes.extend(numbers.iter().flat_map(|number| number.to_le_bytes()));
    bytes.resize(88, 0);
    with_checksum(bytes)
}

/// Says the group's checksum.
fn push_group(segment: &mut Vec<u8>, group: &Group, previous: u64) -> u64 {
    let mut body = Vec::new();
    group.records.iter().for_each(|record| push_record(&mut body, record));
    body.extend_from_slice(&group.more);
    let mut fields = b"grp1".to_vec();
    fields.extend_from_slice(&(group.records.len() as u32).to_le_bytes());
    fields.extend_from_slice(&(body.len() as u32).to_le_bytes());
    let previous = if group.follows { previous } else { !previous };
    let places = [group.synced_to.to_le_bytes(), previous.to_le_bytes()].concat();
    let check = xxh3_64_with_seed(&[&fields[..], &places].concat(), SALT) as u32;
    fields.extend_from_slice(&check.to_le_bytes());
    fields.extend_from_slice(&places);
    fields.extend_from_slice(&body);
    let checksum = xxh3_64_with_seed(&fields, SALT);
    segment.extend_from_slice(&checksum.to_le_bytes());
    segment.extend_from_slice(&fields);
    checksum
}

fn push_record(group: &mut Vec<u8>, record: &Record) {
    let Record { partition, flags, dead_from, key_bytes_wrong, key, set } = record;
    let mut fields = Vec::new();
    fields.extend_from_slice(&((24 + key.len() + set.len()) as u32).to_le_bytes());
    fields.extend_from_slice(&(key.len() as u16).wrapping_add(*key_bytes_wrong).to_le_bytes());
    fields.extend_from_slice(&partition.to_le_bytes());
    fields.extend_from_slice(&(dead_from << 8 >> 8 | u64::from(*flags) << 56).to_le_bytes());
    fields.extend_from_slice(key);
    fields.extend_from_slice(set);
    group.extend_from_slice(&xxh3_64(&fields).to_le_bytes());
    group.extend_from_slice(&fields);
}

fn catalogue(end: u64, entries: &[[u8; 32]]) -> Vec<u8> {
    let mut bytes = b"quorcat\0".to_vec();
    bytes.extend_from_slice(&1u32.to_le_bytes());
    bytes.extend_from_slice(&(entries.len() as u32).to_le_bytes());
    bytes.extend_from_slice(&SALT.to_le_bytes());
    bytes.extend_from_slice(&end.to_le_bytes());
    bytes.extend(entries.iter().flatten());
    with_checksum(bytes)
}

pub(crate) fn seeds() -> Vec<Vec<u8>> {
    let record = |set: &VersionSet| Record {
        partition: 1,
        flags: 0,
        dead_from: set.dead_from().unwrap_or(0),
        key_bytes_wrong: 0,
        key: Bytes::from_static(b"key"),
        set: set.encode().into(),
    };
    let group = |follows| Group {
        synced_to: 96,
        follows,
        records: sets().iter().map(record).collect(),
        more: Bytes::new(),
    };
    let segment = |number, format, previous_end, end| ForgedFile {
        first: number,
        last: number,
        kind: Kind::Segment { format, previous_end, end, groups: vec![group(true)], rest: Bytes::new() },
    };
    let bytes = content(&segment(1, 2, 0, 0)).len() as u64;
    let in_order = || vec![segment(1, 1, 0, bytes), segment(2, 2, bytes, 0)];
    let (_, last_record) = sets().iter().fold((0, 136), |(_, at), set| (at, at + 27 + set.encode().len()));
    let entries = vec![entry(136, 27 + sets()[0].encode().len() as u32), entry(last_record as u32, 30)];
    let mut catalogued = in_order();
    catalogued.push(ForgedFile { first: 1, last: 1, kind: Kind::Catalogue { end: bytes, entries } });
    let mut lost = in_order();
    lost[0].first = 3;
    lost[0].last = 4;
    lost.push(ForgedFile {
        first: 1,
        last: 1,
        kind: Kind::Lifted(Bytes::from_static(&[1, 0, 9, 0, 0, 0, 0, 0, 0, 0, 9, 0, 0, 0, 0, 0, 0, 0])),
    });
    lost.push(ForgedFile {
        first: 9,
        last: 9,
        kind: Kind::Raw { suffix: 2, bytes: Bytes::from_static(b"rot") },
    });
    [in_order(), catalogued, lost].iter().map(encoded).collect()
}

/// Of the key of the seeds.
fn entry(offset: u32, length: u32) -> [u8; 32] {
    let mut entry = [0; 32];
    entry[..8].copy_from_slice(&quorate_core::ring::key_hash(b"key").to_le_bytes());
    entry[16..20].copy_from_slice(&offset.to_le_bytes());
    entry[20..24].copy_from_slice(&length.to_le_bytes());
    entry[28] = 1;
    entry
}
