//! What the index knows: trees, scans, hints; after anything that happens to the log.

use quorate_core::antientropy::{Prefix, View};
use quorate_core::causality::Expiry;
use quorate_core::limits::KEY_BYTES_MAX;
use quorate_core::ring::PartitionCount;

use super::*;
use crate::access::{Access, Scanned};
use crate::write::HINTS;

fn disk() -> SimulatedDisk {
    SimulatedDisk::new(1, 16 << 20)
}

fn ring() -> Options {
    Options { partitions: PartitionCount::try_from(1).ok(), ..small() }
}

impl Rig {
    fn access(&self) -> &Access {
        &self.engine.as_ref().expect("open").access
    }

    fn put_in(&mut self, partition: Partition, key: Bytes, change: Change) -> Result<Committed, WriteError> {
        let outcome = Arc::new(Mutex::new(None));
        let answered = outcome.clone();
        let done = Box::new(move |result| *lock(&answered) = Some(result));
        self.engine().submit(Write { partition, key, change, prepared: None, done });
        while self.engine().prepare() {
            self.engine().commit();
        }
        let result = lock(&outcome).take();
        result.expect("answered")
    }

    /// What the trees say, once by deltas and once from the start.
    fn check_trees(&mut self) -> (u64, Option<[u64; 16]>) {
        let said =
            |rig: &Self| (rig.access().root(PARTITION), rig.access().children(PARTITION, Prefix::ROOT));
        let by_deltas = said(self);
        self.engine().committer.finish();
        self.open().unwrap();
        assert_eq!(said(self), by_deltas);
        by_deltas
    }
}

#[test]
fn trees_and_scans_know_what_is_there_through_merges_removals_and_restarts() {
    let mut rig = Rig::new(disk(), ring());
    let number_of = |number: usize| match number {
        0..12 => key(number),
        _ => Bytes::from(format!("more-{number}")),
    };
    for number in 0..200 {
        rig.commit([(number_of(number), event(Context::default(), &[number as u8; 50]))]);
    }
    let full = rig.check_trees();
    for number in (0..200).step_by(3) {
        let digest = rig.get(&number_of(number)).unwrap().unwrap().digest();
        rig.commit([(number_of(number), Change::Forget { digest })]);
    }
    rig.merge_all();
    let some = rig.check_trees();
    assert!(full.0 != some.0 && full.1.is_some());

    let mut expected: Vec<_> = (0..200).filter(|number| number % 3 != 0).map(number_of).collect();
    expected.sort_by_key(|key| key_hash(key));
    let scanned = rig.access().scan(PARTITION, None, 1000);
    assert_eq!(
        scanned.iter().map(|scanned| scanned.key_hash).collect::<Vec<_>>(),
        expected.iter().map(|key| key_hash(key)).collect::<Vec<_>>()
    );
    let (mut paged, mut after) = (Vec::new(), None);
    loop {
        let page = rig.access().page(PARTITION, after, 7);
        assert_eq!(page.unreadable, 0);
        after = page.next;
        if after.is_none() {
            break;
        }
        paged.extend(page.keys);
    }
    let keys: HashSet<_> = paged.iter().map(|(key, _)| key.clone()).collect();
    assert_eq!((paged.len(), keys), (expected.len(), expected.iter().cloned().collect()));
    for (key, set) in paged {
        assert_eq!(rig.get(&key).unwrap().as_ref(), Some(&set));
        let of_hash =
            |scanned: &&Scanned| scanned.key_hash == key_hash(&key) && scanned.digest == set.digest();
        assert_eq!(scanned.iter().filter(of_hash).count(), 1, "{key:?}");
    }
}

#[test]
fn keys_of_one_hash_are_one_entry_and_are_loaded_together() {
    let mut rig = Rig::new(disk(), ring());
    for number in [9, 10] {
        rig.commit([(key(number), event(Context::default(), &[number as u8]))]);
    }
    let sets = [9, 10].map(|number| rig.get(&key(number)).unwrap().unwrap());
    let entries = rig.access().entries(PARTITION, 0..=u64::MAX, 10);
    assert_eq!(entries.len(), 1);
    assert_eq!(entries[0].digest, sets[0].digest().wrapping_add(sets[1].digest()));
    let mut loaded = rig.access().load_hash(PARTITION, key_hash(&key(9))).unwrap();
    loaded.sort_by_key(|(key, _)| key.clone());
    assert_eq!(loaded, [9, 10].map(key).into_iter().zip(sets).collect::<Vec<_>>());
    assert_eq!(rig.access().load_hash(PARTITION, 1).unwrap(), []);
}

#[test]
fn a_scan_says_from_when_on_a_key_is_dead() {
    let mut rig = Rig::new(disk(), small());
    let expiring = |value: &str, at: Option<u64>| {
        let Change::Event(event) = event(Context::default(), value.as_bytes()) else { unreachable!() };
        Change::Event(Event { expires: at.map(Expiry::at_ms), ..event })
    };
    let expected = [("", None, Some(0)), ("value", None, None), ("value", Some(1500), Some(2000))];
    for (number, (value, at, _)) in expected.into_iter().enumerate() {
        rig.commit([(key(number), expiring(value, at))]);
    }
    for _ in 0..2 {
        let scanned = rig.access().scan(PARTITION, None, 10);
        for (number, (_, _, dead_from)) in expected.into_iter().enumerate() {
            let hash = key_hash(&key(number));
            let found = scanned.iter().find(|scanned| scanned.key_hash == hash).unwrap();
            assert_eq!(found.dead_from_unix_ms, dead_from, "{number}");
        }
        rig.engine().committer.finish();
        rig.open().unwrap();
    }
}

#[test]
fn hints_have_longer_keys_and_are_counted_apart() {
    let mut rig = Rig::new(disk(), small());
    let longest = |more: usize| Bytes::from(vec![7; KEY_BYTES_MAX + more]);
    let change = || event(Context::default(), b"value");
    let too_long = rig.put_in(PARTITION, longest(1), change());
    assert!(matches!(too_long, Err(WriteError::Refused(_))), "{too_long:?}");
    assert!(rig.put_in(HINTS, longest(33), change()).is_err());
    rig.put_in(HINTS, longest(32), change()).unwrap();
    rig.put_in(HINTS, Bytes::from_static(b"short"), change()).unwrap();
    rig.put_in(PARTITION, Bytes::from_static(b"short"), change()).unwrap();
    let usage = rig.usage();
    assert_eq!((usage.keys, usage.hints.keys), (3, 2));
    assert!(usage.hints.bytes > 4096);
    let page = rig.access().page(HINTS, None, 10);
    let mut keys: Vec<_> = page.keys.into_iter().map(|(key, _)| key.len()).collect();
    keys.sort_unstable();
    assert_eq!(keys, [5, KEY_BYTES_MAX + 32]);
}

#[test]
fn a_read_that_need_not_wait_says_the_same() {
    let directory = tempfile::tempdir().unwrap();
    let disk = Arc::new(crate::StdDisk::open(directory.path()).unwrap());
    let actor = Actor { node: NODE, start: 1 };
    let (mut engine, _) = Engine::open(disk, actor, small()).unwrap();
    let done = Box::new(|result: Result<_, _>| assert!(result.is_ok()));
    let change = event(Context::default(), b"value");
    engine.submit(Write { partition: PARTITION, key: key(0), change, prepared: None, done });
    while engine.prepare() {
        engine.commit();
    }
    // None is an answer too: whether a page is in memory is the operating system's business.
    let waited = engine.get(PARTITION, &key(0));
    assert!(engine.try_get(PARTITION, &key(0)).is_none_or(|tried| tried == waited));
    assert_eq!(engine.try_get(PARTITION, &key(1)), Some(Ok(None)), "the index is in memory");
    engine.close();
}
