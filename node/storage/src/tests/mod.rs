//! The engine under test, stepped by hand on a simulated disk: no thread but the test's, so that every run of a seed
//! is the same run.

mod access;
mod crashes;
mod faults;
mod lost;
mod reuse;
mod rot;

use std::collections::{BTreeMap, HashSet};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use quorate_core::NodeId;
use quorate_core::causality::{Actor, Context, Dot, Event, Policy, Stamp, VersionSet};
use quorate_core::ring::{Partition, PartitionCount, key_hash};

use crate::access::Usage;
use crate::disk::simulated::SimulatedDisk;
use crate::engine::{Engine, Step};
use crate::error::{OpenError, ReadError, WriteError};
use crate::options::{Durability, Options};
use crate::recovery::Recovery;
use crate::sync::lock;
use crate::write::{Change, Committed, Write};

const NODE: NodeId = NodeId::from_u128(1);
const PARTITION: Partition = Partition(3);

fn small() -> Options {
    Options { segment_bytes: 4096, free_space_reserve_bytes: 0, ..Options::default() }
}

/// Keys of one hash: xxh3 multiplies the first 8 of 32 bytes, xored with these, by the next 8.
fn twin(number: u8) -> Bytes {
    let mut key = vec![0xb8, 0xfe, 0x6c, 0x39, 0x23, 0xa4, 0x4b, 0xbe];
    key.extend_from_slice(&[number; 8]);
    key.extend_from_slice(&[7; 16]);
    key.into()
}

/// Some keys; the last ones share their hash.
fn key(number: usize) -> Bytes {
    match number {
        0..9 => Bytes::from(format!("key-{number}")),
        _ => twin(number as u8),
    }
}

fn event(context: Context, value: &[u8]) -> Change {
    let value = (!value.is_empty()).then(|| Bytes::copy_from_slice(value));
    Change::Event(Event { context, stamp: Stamp::at_ms(1), value, policy: Policy::Siblings, expires: None })
}

/// What a peer could send: one version that it made.
fn peer_set(counter: u64, value: &[u8]) -> VersionSet {
    let Change::Event(event) = event(Context::default(), value) else { unreachable!() };
    let mut set = VersionSet::default();
    let actor = Actor { node: NodeId::from_u128(2), start: 1 };
    set.write(event, Dot { actor, counter }).unwrap();
    set
}

/// Whether a set has seen all that another has.
fn includes(set: &VersionSet, other: &VersionSet) -> bool {
    !set.clone().merge(other)
}

/// What became of a write.
#[derive(Clone, Debug)]
struct Outcome {
    key: Bytes,
    forget: bool,
    prepared: Option<VersionSet>,
    result: Option<Result<Committed, WriteError>>,
}

/// An engine on a simulated disk, and what it promised.
struct Rig {
    disk: SimulatedDisk,
    options: Options,
    start: u64,
    engine: Option<Engine>,
    /// By key: what was acknowledged, joined.
    promised: BTreeMap<Bytes, VersionSet>,
    /// By key: all that was ever prepared or merged, joined.
    possible: BTreeMap<Bytes, VersionSet>,
    dots: HashSet<Dot>,
    last_dot: Option<Dot>,
}

impl Rig {
    fn new(disk: SimulatedDisk, options: Options) -> Self {
        let (promised, possible) = Default::default();
        let dots = HashSet::new();
        let mut rig =
            Self { disk, options, start: 0, engine: None, promised, possible, dots, last_dot: None };
        rig.open().unwrap();
        rig
    }

    /// The next start on the same disk.
    fn open(&mut self) -> Result<Recovery, OpenError> {
        self.engine = None;
        self.start += 1;
        let actor = Actor { node: NODE, start: self.start };
        let (engine, report) = Engine::open(self.disk.attach(), actor, self.options.clone())?;
        self.engine = Some(engine);
        Ok(report)
    }

    fn engine(&mut self) -> &mut Engine {
        self.engine.as_mut().expect("open")
    }

    fn merge_all(&mut self) {
        while self.engine().merger.step().unwrap() != Step::Idle {}
    }

    fn get(&self, key: &[u8]) -> Result<Option<VersionSet>, ReadError> {
        self.engine.as_ref().expect("open").get(PARTITION, key)
    }

    fn usage(&self) -> Usage {
        self.engine.as_ref().expect("open").usage()
    }

    fn context(&self, key: &[u8]) -> Context {
        self.get(key).ok().flatten().map(|set| set.context().clone()).unwrap_or_default()
    }

    /// Commits writes that wait together, and takes note of what they promised.
    fn commit(&mut self, changes: impl IntoIterator<Item = (Bytes, Change)>) -> Vec<Outcome> {
        let outcomes = self.submit(changes);
        while self.engine().prepare() {
            self.engine().commit();
        }
        let outcomes: Vec<_> = outcomes.iter().map(|outcome| lock(outcome).clone()).collect();
        for outcome in &outcomes {
            assert!(outcome.result.is_some(), "every write is answered");
            self.note(outcome);
        }
        outcomes
    }

    /// Prepares a group of writes and does not commit it.
    fn prepare(&mut self, changes: impl IntoIterator<Item = (Bytes, Change)>) {
        let outcomes = self.submit(changes);
        self.engine().prepare();
        for outcome in outcomes {
            self.note(&lock(&outcome));
        }
    }

    fn submit(&mut self, changes: impl IntoIterator<Item = (Bytes, Change)>) -> Vec<Arc<Mutex<Outcome>>> {
        let mut outcomes = Vec::new();
        for (key, change) in changes {
            let outcome = Arc::new(Mutex::new(Outcome {
                key: key.clone(),
                forget: matches!(change, Change::Forget { .. }),
                prepared: None,
                result: None,
            }));
            let (for_prepared, for_done) = (outcome.clone(), outcome.clone());
            self.engine().submit(Write {
                partition: PARTITION,
                key,
                change,
                prepared: Some(Box::new(move |set| lock(&for_prepared).prepared = Some(set.clone()))),
                done: Box::new(move |result| {
                    assert!(lock(&for_done).result.replace(result).is_none(), "answered twice");
                }),
            });
            outcomes.push(outcome);
        }
        outcomes
    }

    fn note(&mut self, outcome: &Outcome) {
        let result = outcome.result.as_ref();
        if outcome.forget {
            return self.note_forgotten(&outcome.key, result);
        }
        let Some(set) = &outcome.prepared else {
            assert!(
                !matches!(result, Some(Ok(_) | Err(WriteError::Indeterminate { .. }))),
                "{result:?} without preparing"
            );
            return;
        };
        let before = self.possible.entry(outcome.key.clone()).or_default();
        for version in set.versions() {
            let ours = version.dot.actor == Actor { node: NODE, start: self.start };
            if ours && before.versions().iter().all(|v| v.dot != version.dot) && self.dots.insert(version.dot)
            {
                assert!(self.last_dot.is_none_or(|last| last < version.dot), "dots in order");
                self.last_dot = Some(version.dot);
            }
        }
        before.merge(set);
        if result.is_some_and(Result::is_ok) {
            self.promised.entry(outcome.key.clone()).or_default().merge(set);
        }
    }

    /// What was forgotten for certain never comes back. Until a start has settled it, it may or may not.
    fn note_forgotten(&mut self, key: &Bytes, result: Option<&Result<Committed, WriteError>>) {
        match result {
            Some(Ok(Committed { changed: true, .. })) => {
                self.promised.remove(key);
                if self.options.durability == Durability::Sync {
                    self.possible.remove(key);
                }
            }
            None | Some(Err(WriteError::Indeterminate { .. })) => {
                self.promised.remove(key);
            }
            _ => {}
        }
    }

    /// Every promise is kept, and nothing is there that was never written.
    fn check(&self) {
        for (key, promised) in &self.promised {
            let found = self.get(key).unwrap_or_else(|error| panic!("{key:?}: {error}")).unwrap_or_default();
            assert!(includes(&found, promised), "{key:?}: promised {promised:?}, found {found:?}");
        }
        self.check_possible();
        self.check_index();
    }

    /// The index says what the records say.
    fn check_index(&self) {
        let engine = self.engine.as_ref().expect("open");
        let mut there: Vec<_> = (0..12)
            .filter_map(|number| Some((key_hash(&key(number)), self.get(&key(number)).ok()??.digest())))
            .collect();
        there.sort_unstable();
        let scanned = engine.scan(PARTITION, None, 100);
        let mut known: Vec<_> = scanned.iter().map(|known| (known.key_hash, known.digest)).collect();
        known.sort_unstable();
        assert_eq!((known, engine.usage().keys), (there.clone(), there.len() as u64));
    }

    /// Nothing is there that was never written. Errors are allowed.
    fn check_possible(&self) {
        let nothing = VersionSet::default();
        for number in 0..12 {
            let key = key(number);
            if let Ok(Some(found)) = self.get(&key) {
                let possible = self.possible.get(&key).unwrap_or(&nothing);
                assert!(includes(possible, &found), "{key:?}: never written: {found:?}");
            }
        }
    }

    /// What is there now was found by a recovery, and may not go away any more; nor may anything else come back.
    fn promise_what_is_there(&mut self) {
        for number in 0..12 {
            let Ok(found) = self.get(&key(number)) else { continue };
            if self.options.durability == Durability::Sync {
                self.possible.insert(key(number), found.clone().unwrap_or_default());
            }
            if let Some(found) = found {
                self.promised.insert(key(number), found);
            }
        }
    }
}

#[test]
fn the_twins_have_one_hash() {
    assert_eq!(key_hash(&twin(1)), key_hash(&twin(2)));
}
