//! Version sets as they lie on disks: whatever decodes is canonical once it is encoded, and merges as a join.

use bytes::Bytes;
use quorate_core::causality::{Actor, Clock, Context, Dot, Policy, VersionSet};

use crate::samples::{self, decoded, encoded};

/// As many sets are merged with each other.
const SETS_MAX: usize = 3;

pub(crate) fn run(bytes: &[u8]) -> bool {
    let _ = VersionSet::decode(bytes);
    let Some(encodings) = decoded::<Vec<Bytes>>(bytes) else { return false };
    let sets: Vec<VersionSet> =
        encodings.iter().filter_map(|bytes| understood(bytes)).take(SETS_MAX).collect();
    for a in &sets {
        writes_like_a_set(a);
        assert!(!a.clone().merge(a), "merging a set with itself changes it");
        for b in &sets {
            assert_eq!(shape(&merged(a, b)), shape(&merged(b, a)), "merge does not commute");
            assert!(!merged(a, b).merge(b), "a second merge of the same changes something");
            for c in &sets {
                let (left, right) = (merged(&merged(a, b), c), merged(a, &merged(b, c)));
                assert_eq!(shape(&left), shape(&right), "merge is not associative");
            }
        }
    }
    !sets.is_empty()
}

/// The set in these bytes; what it encodes to is it.
fn understood(bytes: &[u8]) -> Option<VersionSet> {
    let set = VersionSet::decode(bytes).ok()?;
    let canonical = set.encode();
    assert_eq!(VersionSet::decode(&canonical).as_ref(), Ok(&set));
    assert_eq!(VersionSet::digest_of(&canonical), set.digest());
    if bytes[0] == 1 {
        assert_eq!(VersionSet::digest_of(bytes), set.digest(), "an upgrade makes a difference to peers");
    }
    let mut clock = Clock::default();
    let _ = clock.observe_all(&set, 1);
    let _ = (set.dead_from(), set.last(), set.is_dead_at(1), set.live(1).count());
    Some(set)
}

fn merged(a: &VersionSet, b: &VersionSet) -> VersionSet {
    let mut joined = a.clone();
    joined.merge(b);
    assert_eq!(
        VersionSet::decode(&joined.encode()).as_ref(),
        Ok(&joined),
        "a merged set cannot be read back"
    );
    joined
}

/// What a set has seen and which of it stands. Not the values: here two sets may tell different ones of one dot.
fn shape(set: &VersionSet) -> (&Context, Vec<Dot>) {
    (set.context(), set.versions().iter().map(|version| version.dot).collect())
}

fn writes_like_a_set(set: &VersionSet) {
    let dot = Dot { actor: Actor { node: samples::node(200), start: u64::MAX }, counter: u64::MAX };
    if set.context().covers(dot) || set.context().seen(dot.actor) > 0 {
        return;
    }
    for policy in [Policy::Siblings, Policy::LastWriteWins] {
        let mut written = set.clone();
        let mut event = samples::event(Some("new"), None);
        event.policy = policy;
        if written.write(event, dot).is_err() {
            assert_eq!(&written, set, "a write that is refused changes something");
            continue;
        }
        assert!(written.context().covers(dot) && written.versions().iter().any(|version| version.dot == dot));
        if policy == Policy::LastWriteWins {
            assert_eq!(written.versions().len(), 1);
        }
        assert_eq!(VersionSet::decode(&written.encode()), Ok(written));
    }
}

pub(crate) fn seeds() -> Vec<Vec<u8>> {
    let sets = samples::sets();
    let newest: Vec<Bytes> = sets.iter().map(|set| set.encode().into()).collect();
    let oldest: Vec<Bytes> = sets.iter().map(|set| before_expiry(set).into()).collect();
    vec![encoded(&newest), encoded(&oldest), encoded(&vec![&newest[1], &oldest[2]])]
}

/// A set without its expiries, in encoding 1.
fn before_expiry(set: &VersionSet) -> Vec<u8> {
    let versions: Vec<_> = set.versions().iter().map(|v| (v.dot, v.stamp, v.value.clone())).collect();
    [vec![1], encoded(&(set.context(), versions))].concat()
}
