//! What a replica stores for a key.
//!
//! Merge is a join: commutative, associative, idempotent. So replicas that saw the same events hold equal
//! sets, in whatever order and however often the events came (INV-CONVERGE).

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::{
    CLOCK_AHEAD_MAX_MS, Context, Dot, Expiry, STAMP_AHEAD_MAX_MS, Stamp, StampAhead, VersionSetError,
};
use crate::id::NodeId;
use crate::limits::{SIBLINGS_MAX, VERSION_SET_BYTES_MAX};
use crate::planted::{self, Bug};

/// One value of a key, or its deletion.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Version {
    /// The write's unique event.
    pub dot: Dot,
    /// When, for last-write-wins and for people.
    pub stamp: Stamp,
    /// The value; none is a tombstone.
    pub value: Option<Bytes>,
    /// From when on the value counts as deleted; none is never.
    pub expires: Option<Expiry>,
}

impl Version {
    /// The value, unless it is deleted or expired.
    pub fn live_value(&self, now_unix_ms: u64) -> Option<&Bytes> {
        self.value.as_ref().filter(|_| !self.expires.is_some_and(|expires| expires.has_come(now_unix_ms)))
    }

    /// From which moment on, in Unix milliseconds, this is no value; none is never.
    fn dead_from(&self) -> Option<u64> {
        match self.value {
            Some(_) => self.expires.map(Expiry::unix_ms),
            None => Some(0),
        }
    }

    /// Whether it expired so long before a stamp that no clock whose stamps are believed shows it still.
    fn is_forgotten_at(&self, stamp: Stamp) -> bool {
        let past = stamp.unix_ms().saturating_sub(CLOCK_AHEAD_MAX_MS);
        self.expires.is_some_and(|expires| expires.has_come(past))
    }
}

/// What happens to versions that a write has not seen.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Policy {
    /// They stay, as siblings, until a write that has seen them.
    Siblings,
    /// They go: a write that an owner takes is later than whatever that owner holds, also when the clock that
    /// stamps it is behind.
    LastWriteWins,
}

/// A client's write, before it has a dot.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Event {
    /// What the client had seen.
    pub context: Context,
    /// When the write was taken.
    pub stamp: Stamp,
    /// The value; none deletes.
    pub value: Option<Bytes>,
    /// What happens to the rest.
    pub policy: Policy,
    /// From when on the value counts as deleted; none is never.
    pub expires: Option<Expiry>,
}

/// A write that this key cannot take.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error, Serialize, Deserialize)]
pub enum WriteRefused {
    /// Too many concurrent values.
    #[error(
        "the key has {SIBLINGS_MAX} concurrent values, no more are taken: read it and write back with the context that the read returned"
    )]
    TooManySiblings,
    /// Too many bytes in concurrent values.
    #[error(
        "the key's concurrent values together would exceed {VERSION_SET_BYTES_MAX} bytes: read it and write back with the context that the read returned"
    )]
    TooLarge,
    /// The context names events that have not happened.
    #[error("the context names writes that were never made: send back exactly what a read returned")]
    FutureContext,
}

/// The siblings of one key and the causal past they stand in.
///
/// Invariant: `versions` is sorted by dot, without duplicates, and `context` covers each.
#[derive(Clone, PartialEq, Eq, Default, Debug, Serialize, Deserialize)]
#[serde(try_from = "Parts")]
pub struct VersionSet {
    context: Context,
    versions: Vec<Version>,
}

/// A set as it comes from a disk or a peer, whose invariant nobody has checked yet.
#[derive(Deserialize)]
pub(super) struct Parts {
    pub(super) context: Context,
    pub(super) versions: Vec<Version>,
}

impl TryFrom<Parts> for VersionSet {
    type Error = VersionSetError;

    fn try_from(Parts { context, versions }: Parts) -> Result<Self, VersionSetError> {
        let sorted = versions.is_sorted_by(|a, b| a.dot < b.dot);
        let covered = versions.iter().all(|version| context.covers(version.dot));
        if sorted && covered { Ok(Self { context, versions }) } else { Err(VersionSetError::Malformed) }
    }
}

impl VersionSet {
    /// The causal past; what a client sends back to say "I have seen all this".
    pub fn context(&self) -> &Context {
        &self.context
    }

    /// Every concurrent version, tombstones included, ordered by dot.
    pub fn versions(&self) -> &[Version] {
        &self.versions
    }

    /// The concurrent versions that hold a value, expired or not: for sizes, not for readers.
    pub fn values(&self) -> impl Iterator<Item = (&Version, &Bytes)> {
        self.versions.iter().filter_map(|version| Some((version, version.value.as_ref()?)))
    }

    /// The concurrent versions that hold a value now: what a reader sees.
    pub fn live(&self, now_unix_ms: u64) -> impl Iterator<Item = (&Version, &Bytes)> {
        self.versions.iter().filter_map(move |version| Some((version, version.live_value(now_unix_ms)?)))
    }

    /// Whether there is nothing for a reader to see: all is deleted or expired. It stays so until a write.
    pub fn is_dead_at(&self, now_unix_ms: u64) -> bool {
        self.dead_from().is_some_and(|from| from <= now_unix_ms)
    }

    /// From which moment on, in Unix milliseconds, the set is dead: 0 when all is deleted, none when some
    /// value never expires.
    pub fn dead_from(&self) -> Option<u64> {
        self.versions
            .iter()
            .map(Version::dead_from)
            .try_fold(0, |latest, from| from.map(|from| latest.max(from)))
    }

    /// The last write, by stamp and then by dot. It may be a tombstone, or expired.
    pub fn last(&self) -> Option<&Version> {
        self.versions.iter().max_by_key(|version| (version.stamp, version.dot))
    }

    /// The set as those see it who want one value: its context, and the last version alone.
    pub fn into_last(mut self) -> Self {
        self.versions = self.last().cloned().into_iter().collect();
        self
    }

    /// Whether the stamps of those versions that a node made can be its own time, at this time here: to be asked
    /// before a *new* write of that node is taken. What others wrote before it is no matter, and neither is
    /// anything that comes by repair: it stands already.
    pub fn stamps_believable(&self, maker: NodeId, now_unix_ms: u64) -> Result<(), StampAhead> {
        let ahead = |version: &Version| StampAhead {
            actor: version.dot.actor,
            ahead_ms: version.stamp.ahead_of_ms(now_unix_ms),
        };
        let made = self.versions.iter().filter(|version| version.dot.actor.node == maker);
        let furthest = made.map(ahead).max_by_key(|ahead| ahead.ahead_ms);
        furthest.filter(|ahead| ahead.ahead_ms > STAMP_AHEAD_MAX_MS).map_or(Ok(()), Err)
    }

    /// Takes a write at an owner: it replaces what its context covers, and what expired long ago, so that
    /// blind writes which expire do not pile up. On refusal nothing is changed.
    ///
    /// `dot` must be greater than every dot that its actor made for this key before.
    pub fn write(&mut self, event: Event, dot: Dot) -> Result<(), WriteRefused> {
        if event.context.seen(dot.actor) >= dot.counter {
            return Err(WriteRefused::FutureContext);
        }
        let wins = event.policy == Policy::LastWriteWins;
        // Clocks jump back and restarts forget: an acknowledged write must not lose to what it was built on. But
        // a stamp that nobody believes is not handed on.
        let believed = |last: &&Version| last.stamp.ahead_of_ms(event.stamp.unix_ms()) <= CLOCK_AHEAD_MAX_MS;
        let stamp = match self.last().filter(believed) {
            Some(last) if wins => event.stamp.max(last.stamp.next()),
            _ => event.stamp,
        };
        let replaced = |version: &Version| {
            let stale = planted::is(Bug::BelieveStaleContext) && !event.context.is_empty();
            wins || stale || event.context.covers(version.dot) || version.is_forgotten_at(event.stamp)
        };
        let kept = || self.versions.iter().filter(|v| !replaced(v));
        if kept().count() >= SIBLINGS_MAX {
            return Err(WriteRefused::TooManySiblings);
        }
        let bytes = |value: &Option<Bytes>| value.as_ref().map_or(0, Bytes::len);
        if kept().map(|v| bytes(&v.value)).sum::<usize>() + bytes(&event.value) > VERSION_SET_BYTES_MAX {
            return Err(WriteRefused::TooLarge);
        }
        self.versions.retain(|version| !replaced(version));
        self.context.merge(&event.context);
        self.context.include(dot);
        self.insert(Version { dot, stamp, value: event.value, expires: event.expires });
        Ok(())
    }

    /// Joins with another replica's set. Says whether this one changed.
    ///
    /// A version stays when both have it, or when the other's past does not cover it: covered and absent
    /// means that the other saw it replaced.
    pub fn merge(&mut self, other: &VersionSet) -> bool {
        let before = self.versions.len();
        self.versions.retain(|version| other.has(version.dot) || !other.context.covers(version.dot));
        let mut changed = self.versions.len() != before;
        for version in &other.versions {
            if !self.context.covers(version.dot) {
                self.insert(version.clone());
                changed = true;
            }
        }
        let context = self.context.clone();
        self.context.merge(&other.context);
        changed || self.context != context
    }

    fn has(&self, dot: Dot) -> bool {
        self.versions.binary_search_by_key(&dot, |version| version.dot).is_ok()
    }

    fn insert(&mut self, version: Version) {
        if let Err(at) = self.versions.binary_search_by_key(&version.dot, |v| v.dot) {
            self.versions.insert(at, version);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::causality::{Actor, Clock};

    fn event(context: &Context, value: &str, stamp: u64, policy: Policy) -> Event {
        let value = (!value.is_empty()).then(|| Bytes::copy_from_slice(value.as_bytes()));
        Event { context: context.clone(), stamp: Stamp::at_ms(stamp), value, policy, expires: None }
    }

    fn dot(node: u128, counter: u64) -> Dot {
        Dot { actor: Actor { node: NodeId::from_u128(node), start: 1 }, counter }
    }

    fn texts(set: &VersionSet) -> Vec<&[u8]> {
        set.values().map(|(_, value)| value.as_ref()).collect()
    }

    #[test]
    fn a_blind_write_leaves_siblings_and_a_seen_one_replaces_them() {
        let mut set = VersionSet::default();
        set.write(event(&Context::default(), "a", 1, Policy::Siblings), dot(1, 1)).unwrap();
        set.write(event(&Context::default(), "b", 2, Policy::Siblings), dot(1, 2)).unwrap();
        assert_eq!(texts(&set), [b"a", b"b"]);
        let seen = set.context().clone();
        set.write(event(&seen, "c", 3, Policy::Siblings), dot(1, 3)).unwrap();
        assert_eq!(texts(&set), [b"c"]);
    }

    #[test]
    fn last_write_wins_keeps_one() {
        let mut set = VersionSet::default();
        for (counter, value) in ["a", "b", "c"].into_iter().enumerate() {
            let counter = counter as u64 + 1;
            set.write(event(&Context::default(), value, counter, Policy::LastWriteWins), dot(1, counter))
                .unwrap();
        }
        assert_eq!(texts(&set), [b"c"]);
    }

    #[test]
    fn the_last_write_wins_also_when_the_clock_jumped_back() {
        let mut set = VersionSet::default();
        let blind = Context::default();
        set.write(event(&blind, "a", 9000, Policy::LastWriteWins), dot(1, 1)).unwrap();
        let other_replica = set.clone();
        set.write(event(&blind, "b", 5, Policy::LastWriteWins), dot(2, 1)).unwrap();
        assert_eq!(texts(&set), [b"b"]);
        set.merge(&other_replica);
        assert_eq!(texts(&set.into_last()), [b"b"], "what it replaced does not come back");
    }

    #[test]
    fn a_stamp_that_nobody_believes_is_not_handed_on() {
        let mut set = VersionSet::default();
        let far = 1000 + CLOCK_AHEAD_MAX_MS;
        for (far, expected) in [(far, far), (far + 1, 1000)] {
            set.write(event(&Context::default(), "far", far, Policy::LastWriteWins), dot(1, far)).unwrap();
            set.write(event(&Context::default(), "b", 1000, Policy::LastWriteWins), dot(2, far)).unwrap();
            assert_eq!(set.last().unwrap().stamp.unix_ms(), expected);
            assert_eq!(texts(&set), [b"b"]);
        }
    }

    #[test]
    fn a_new_write_from_the_future_is_not_believed_and_an_old_one_beside_it_is_no_matter() {
        let mut set = VersionSet::default();
        let (honest, wrong) = (NodeId::from_u128(1), NodeId::from_u128(2));
        set.write(event(&Context::default(), "a", 1000, Policy::Siblings), dot(1, 1)).unwrap();
        set.write(event(&Context::default(), "b", 5000 + STAMP_AHEAD_MAX_MS, Policy::Siblings), dot(2, 7))
            .unwrap();
        assert_eq!(set.stamps_believable(wrong, 5000), Ok(()));
        let refused = StampAhead { actor: dot(2, 7).actor, ahead_ms: STAMP_AHEAD_MAX_MS + 1 };
        assert_eq!(set.stamps_believable(wrong, 4999), Err(refused));
        assert_eq!(set.stamps_believable(honest, 4999), Ok(()));
        let mut clock = Clock::default();
        clock.observe_all(&set, 500).unwrap_err();
        assert!(clock.tick(500) > Stamp::at_ms(1000), "the other one is followed");
    }

    #[test]
    fn a_delete_that_has_not_seen_a_value_leaves_it() {
        let mut left = VersionSet::default();
        left.write(event(&Context::default(), "a", 1, Policy::Siblings), dot(1, 1)).unwrap();
        let mut right = left.clone();
        left.write(event(&left.context().clone(), "", 2, Policy::Siblings), dot(1, 2)).unwrap();
        right.write(event(&Context::default(), "b", 2, Policy::Siblings), dot(2, 1)).unwrap();
        assert!(left.merge(&right));
        assert_eq!(texts(&left), [b"b"]);
        assert_eq!(left.versions().len(), 2, "the tombstone stays beside the concurrent value");
    }

    #[test]
    fn a_context_from_the_future_is_refused_and_changes_nothing() {
        let mut set = VersionSet::default();
        let mut context = Context::default();
        context.include(dot(1, 9));
        let refused = set.write(event(&context, "a", 1, Policy::Siblings), dot(1, 2));
        assert_eq!(refused, Err(WriteRefused::FutureContext));
        assert_eq!(set, VersionSet::default());
    }

    #[test]
    fn siblings_are_bounded() {
        let mut set = VersionSet::default();
        for counter in 1..=SIBLINGS_MAX as u64 {
            set.write(event(&Context::default(), "x", 1, Policy::Siblings), dot(1, counter)).unwrap();
        }
        let before = set.clone();
        let one_more = event(&Context::default(), "x", 1, Policy::Siblings);
        assert_eq!(set.write(one_more, dot(1, 1000)), Err(WriteRefused::TooManySiblings));
        assert_eq!(set, before);
        let resolved = event(&before.context().clone(), "x", 1, Policy::Siblings);
        set.write(resolved, dot(1, 1001)).unwrap();
        assert_eq!(set.versions().len(), 1);
    }

    /// Blind writes of a value that expires, one a second.
    fn expiring(count: u64, expires_ms: u64) -> VersionSet {
        let mut set = VersionSet::default();
        for counter in 1..=count {
            let blind = event(&Context::default(), "x", counter * 1000, Policy::Siblings);
            set.write(Event { expires: Some(Expiry::at_ms(expires_ms)), ..blind }, dot(1, counter)).unwrap();
        }
        set
    }

    #[test]
    fn a_reader_sees_no_value_after_its_expiry() {
        let mut set = expiring(1, 5000);
        let digest = set.digest();
        assert_eq!([4999, 5000, 5001].map(|now| set.live(now).count()), [1, 0, 0]);
        assert_eq!([4999, 5000].map(|now| set.is_dead_at(now)), [false, true]);
        assert_eq!((set.dead_from(), set.digest()), (Some(5000), digest));
        set.write(event(&Context::default(), "", 2, Policy::Siblings), dot(2, 1)).unwrap();
        assert_eq!(set.dead_from(), Some(5000), "a tombstone beside it changes nothing");
        set.write(event(&Context::default(), "y", 3, Policy::Siblings), dot(2, 2)).unwrap();
        assert_eq!(set.dead_from(), None);
        assert_eq!(VersionSet::default().dead_from(), Some(0));
    }

    #[test]
    fn an_expired_last_write_does_not_bring_back_what_it_hid() {
        let mut set = VersionSet::default();
        set.write(event(&Context::default(), "old", 1000, Policy::Siblings), dot(1, 1)).unwrap();
        let newer = event(&Context::default(), "new", 2000, Policy::Siblings);
        set.write(Event { expires: Some(Expiry::at_ms(5000)), ..newer }, dot(2, 1)).unwrap();
        assert!(set.into_last().is_dead_at(5000));
    }

    #[test]
    fn values_that_expired_long_ago_make_room() {
        let mut set = expiring(SIBLINGS_MAX as u64, 200_000);
        let at = |ms| event(&Context::default(), "y", ms, Policy::Siblings);
        let soon = 200_000 + CLOCK_AHEAD_MAX_MS - 1;
        assert_eq!(set.write(at(soon), dot(2, 1)), Err(WriteRefused::TooManySiblings));
        set.write(at(soon + 1), dot(2, 1)).unwrap();
        assert_eq!(texts(&set), [b"y"]);
        assert!(!set.merge(&expiring(SIBLINGS_MAX as u64, 200_000)), "and do not come back");
    }

    /// One step of a history over three replicas of one key.
    #[derive(Clone, Debug)]
    enum Step {
        Write { at: usize, seen_at: Option<usize>, delete: bool, wins: bool },
        Sync { from: usize, to: usize },
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let replica = 0..3usize;
        let write =
            (replica.clone(), prop::option::of(replica.clone()), any::<bool>(), prop::bool::weighted(0.2))
                .prop_map(|(at, seen_at, delete, wins)| Step::Write { at, seen_at, delete, wins });
        let sync = (replica.clone(), replica).prop_map(|(from, to)| Step::Sync { from, to });
        prop::collection::vec(prop_oneof![write, sync], 0..40)
    }

    /// The three replicas' sets after a history: sets as they really occur, not arbitrary ones.
    fn replay(steps: &[Step]) -> [VersionSet; 3] {
        let mut sets: [VersionSet; 3] = Default::default();
        for (at_step, step) in steps.iter().enumerate() {
            match *step {
                Step::Write { at, seen_at, delete, wins } => {
                    let context = seen_at.map(|from| sets[from].context().clone()).unwrap_or_default();
                    let policy = if wins { Policy::LastWriteWins } else { Policy::Siblings };
                    let value = if delete { String::new() } else { format!("v{at_step}") };
                    let counter = at_step as u64 + 1;
                    sets[at]
                        .write(event(&context, &value, counter, policy), dot(at as u128, counter))
                        .unwrap();
                }
                Step::Sync { from, to } => {
                    let other = sets[from].clone();
                    sets[to].merge(&other);
                }
            }
        }
        sets
    }

    fn merged(a: &VersionSet, b: &VersionSet) -> VersionSet {
        let mut joined = a.clone();
        joined.merge(b);
        joined
    }

    proptest! {
        #[test]
        fn merge_is_a_join(steps in steps()) {
            let [a, b, c] = replay(&steps);
            prop_assert_eq!(merged(&a, &b), merged(&b, &a));
            prop_assert_eq!(merged(&merged(&a, &b), &c), merged(&a, &merged(&b, &c)));
            prop_assert_eq!(&merged(&a, &a), &a);
            prop_assert!(!a.clone().merge(&a));
        }

        #[test]
        fn encoding_round_trips_and_is_canonical(steps in steps()) {
            let [a, b, _] = replay(&steps);
            prop_assert_eq!(VersionSet::decode(&a.encode()), Ok(a.clone()));
            prop_assert_eq!(merged(&a, &b).digest(), merged(&b, &a).digest());
        }

        #[test]
        fn no_bytes_crash_the_decoder(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = VersionSet::decode(&bytes);
        }
    }
}
