//! The index of the hints that a node keeps, and their books.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::{HintName, Throttle};
use crate::id::NodeId;
use crate::planted::{self, Bug};
use crate::ring::Partition;

/// What a hint counts in addition to its set: its name, here and in the store, and its place in the index.
pub const HINT_BYTES_MORE: u64 = 512;
/// The most hints that are in flight to one target.
pub const IN_FLIGHT_MAX: usize = 16;
/// The first wait after a delivery failed; it doubles from there.
const RETRY_MIN: Duration = Duration::from_millis(500);
/// The longest wait, and how often a target that is away is looked at again.
const RETRY_MAX: Duration = Duration::from_secs(15);

/// Bounds.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Bytes of hints for one target.
    pub target_bytes_max: u64,
    /// Bytes of hints in all.
    pub bytes_max: u64,
    /// How fast they are delivered, in all.
    pub delivery_bytes_per_second: u64,
}

/// A hint is not taken: nothing was written.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Full {
    /// The target has been away for too much.
    #[error(
        "{bytes} bytes of hints are kept for {target} already: bring it back, or remove it from the ring"
    )]
    Target {
        /// Who is away.
        target: NodeId,
        /// What is kept.
        bytes: u64,
    },
    /// Too many are away.
    #[error("{bytes} bytes of hints are kept already: bring back the nodes that are down")]
    All {
        /// What is kept.
        bytes: u64,
    },
}

/// What became of all hints since the process started (INV-HINT).
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Books {
    /// Found in the store at the start.
    pub recovered: u64,
    /// Stored durably.
    pub written: u64,
    /// Acknowledged by their targets.
    pub delivered: u64,
    /// Merged with a newer one for the same key.
    pub superseded: u64,
    /// Given to the partition's new owners.
    pub handed_over: u64,
    /// Found unreadable.
    pub lost: u64,
    /// Not taken, so not written.
    pub refused: u64,
}

/// What is kept for one target.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Owed {
    /// For whom.
    pub target: NodeId,
    /// How many are stored.
    pub hints: u64,
    /// What they take, those that are being stored included.
    pub bytes: u64,
    /// When the oldest was stored, in Unix milliseconds.
    pub oldest_unix_ms: Option<u64>,
}

/// Where a hint goes now.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Route {
    /// Nowhere: the target is away.
    Wait,
    /// To its target.
    Target,
    /// To all of these: the target owns the partition in no live epoch any more.
    HandOver(Vec<NodeId>),
}

/// A hint to send: read its record, send it to each, and tell [`Hints::ended`] of each.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Delivery {
    /// Which.
    pub name: HintName,
    /// To whom.
    pub to: Vec<NodeId>,
    /// To be given back.
    pub revision: u64,
}

/// How a delivery to one node ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Ended {
    /// The node holds it durably.
    Acknowledged,
    /// Nobody knows, or it was refused.
    Failed,
}

/// What is left to do about a hint.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Settle {
    /// Nothing now.
    Nothing,
    /// Everybody has it: remove its record, if it still is what was sent, and tell [`Hints::forgotten`].
    Forget,
}

#[derive(Debug)]
enum State {
    Stored,
    InFlight { waiting: BTreeSet<NodeId>, handing_over: bool },
    Forgetting { handing_over: bool },
}

/// A hint whose record is durable.
#[derive(Debug)]
struct Record {
    bytes: u64,
    since_unix_ms: u64,
    /// Its place in its target's queue.
    place: u64,
    /// Changes with each merge.
    revision: u64,
    state: State,
}

#[derive(Default, Debug)]
struct Hint {
    record: Option<Record>,
    /// Writes of it that are being stored, and what they take.
    arriving: u32,
}

#[derive(Debug)]
struct Target {
    bytes: u64,
    queue: BTreeMap<u64, HintName>,
    ages: BTreeSet<(u64, u64)>,
    in_flight: usize,
    not_before: Duration,
    wait: Duration,
}

/// The hints of one node.
#[derive(Debug)]
pub struct Hints {
    limits: Limits,
    throttle: Throttle,
    hints: BTreeMap<HintName, Hint>,
    targets: BTreeMap<NodeId, Target>,
    bytes: u64,
    numbers: u64,
    books: Books,
}

impl Hints {
    /// Of a node that keeps none yet.
    pub fn new(limits: Limits) -> Self {
        Self {
            limits,
            throttle: Throttle::new(limits.delivery_bytes_per_second),
            hints: BTreeMap::new(),
            targets: BTreeMap::new(),
            bytes: 0,
            numbers: 0,
            books: Books::default(),
        }
    }

    /// A hint was found in the store, at the start of the process: `set_bytes` long, and as old as its youngest
    /// write. Also beyond the bounds, which may have been wider then.
    pub fn recover(&mut self, name: HintName, set_bytes: usize, since_unix_ms: u64) {
        self.books.recovered += 1;
        self.put(name, set_bytes as u64 + HINT_BYTES_MORE, since_unix_ms);
    }

    /// A hint wants to be kept. When this says yes it may be stored; then [`Hints::stored`] or
    /// [`Hints::not_stored`], with the same `set_bytes`. From here on [`Hints::keeps`] it.
    pub fn reserve(&mut self, name: &HintName, set_bytes: usize) -> Result<(), Full> {
        let bytes = set_bytes as u64 + HINT_BYTES_MORE;
        let of_target = self.targets.get(&name.target).map_or(0, |target| target.bytes);
        let full = if of_target + bytes > self.limits.target_bytes_max {
            Some(Full::Target { target: name.target, bytes: of_target })
        } else if self.bytes + bytes > self.limits.bytes_max {
            Some(Full::All { bytes: self.bytes })
        } else {
            None
        };
        if let Some(full) = full {
            self.books.refused += 1;
            return Err(full);
        }
        self.grow(name.target, bytes);
        self.hints.entry(name.clone()).or_default().arriving += 1;
        Ok(())
    }

    /// It is durable. `merged_bytes`: of the set that the record holds now, `set_bytes` that of what was reserved.
    pub fn stored(&mut self, name: HintName, set_bytes: usize, merged_bytes: usize, now_unix_ms: u64) {
        self.arrived(&name, set_bytes);
        self.books.written += 1;
        self.put(name, merged_bytes as u64 + HINT_BYTES_MORE, now_unix_ms);
    }

    /// It is certainly not durable. Where nobody knows, it counts as being stored until the next start.
    pub fn not_stored(&mut self, name: &HintName, set_bytes: usize) {
        self.arrived(name, set_bytes);
        self.tidy(name);
    }

    fn arrived(&mut self, name: &HintName, set_bytes: usize) {
        if let Some(hint) = self.hints.get_mut(name) {
            hint.arriving = hint.arriving.saturating_sub(1);
        }
        self.shrink(name.target, set_bytes as u64 + HINT_BYTES_MORE);
    }

    fn put(&mut self, name: HintName, bytes: u64, since_unix_ms: u64) {
        self.numbers += 1;
        let number = self.numbers;
        let target = name.target;
        let hint = self.hints.entry(name.clone()).or_default();
        if let Some(record) = &mut hint.record {
            self.books.superseded += 1;
            record.revision = number;
            let before = std::mem::replace(&mut record.bytes, bytes);
            self.grow(target, bytes);
            return self.shrink(target, before);
        }
        let state = State::Stored;
        hint.record = Some(Record { bytes, since_unix_ms, place: number, revision: number, state });
        let target = self.grow(target, bytes);
        target.queue.insert(number, name);
        target.ages.insert((since_unix_ms, number));
    }

    fn grow(&mut self, target: NodeId, bytes: u64) -> &mut Target {
        self.bytes += bytes;
        let target = self.targets.entry(target).or_insert_with(Target::new);
        target.bytes += bytes;
        target
    }

    fn shrink(&mut self, target: NodeId, bytes: u64) {
        self.bytes = self.bytes.saturating_sub(bytes);
        if let Some(target) = self.targets.get_mut(&target) {
            target.bytes = target.bytes.saturating_sub(bytes);
        }
    }

    /// Lets go of entries that stand for nothing any more.
    fn tidy(&mut self, name: &HintName) {
        if self.hints.get(name).is_some_and(|hint| hint.record.is_none() && hint.arriving == 0) {
            self.hints.remove(name);
        }
        if self.targets.get(&name.target).is_some_and(|target| target.bytes == 0 && target.queue.is_empty()) {
            self.targets.remove(&name.target);
        }
    }

    /// Whether a hint for this key is kept for anybody, stored or being stored.
    pub fn keeps(&self, partition: Partition, key: &[u8]) -> bool {
        let first =
            HintName { partition, key: bytes::Bytes::copy_from_slice(key), target: NodeId::from_u128(0) };
        let next = self.hints.range(first..).next();
        next.is_some_and(|(name, _)| name.partition == partition && name.key == key)
    }
}

/// Delivery.
impl Hints {
    /// What to send now: few for each target at a time, as many bytes in all as the limits say, the oldest first.
    pub fn next(
        &mut self,
        now: Duration,
        mut route: impl FnMut(NodeId, Partition) -> Route,
    ) -> Vec<Delivery> {
        let ids: Vec<NodeId> = self.targets.keys().copied().collect();
        let mut deliveries = Vec::new();
        for id in ids {
            while let Some(name) = self.head(id, now) {
                let to = match route(id, name.partition) {
                    Route::Wait => None,
                    Route::Target => Some((vec![id], false)),
                    Route::HandOver(owners) => (!owners.is_empty()).then_some((owners, true)),
                };
                match to {
                    Some((to, handing_over)) => deliveries.extend(self.send(name, to, handing_over, now)),
                    None => self.put_back(&name, now + RETRY_MAX),
                }
            }
        }
        deliveries
    }

    /// The next hint for a target, if it is time for one.
    fn head(&self, id: NodeId, now: Duration) -> Option<HintName> {
        let target = self.targets.get(&id)?;
        let open = target.not_before <= now && target.in_flight < IN_FLIGHT_MAX && self.throttle.is_open(now);
        if open { target.queue.values().next().cloned() } else { None }
    }

    fn send(
        &mut self,
        name: HintName,
        to: Vec<NodeId>,
        handing_over: bool,
        now: Duration,
    ) -> Option<Delivery> {
        let record = self.hints.get_mut(&name)?.record.as_mut()?;
        let target = self.targets.get_mut(&name.target)?;
        self.throttle.pass(record.bytes, now);
        record.state = State::InFlight { waiting: to.iter().copied().collect(), handing_over };
        target.queue.remove(&record.place);
        target.in_flight += 1;
        Some(Delivery { revision: record.revision, name, to })
    }

    /// Behind the others of its target, which rests until then.
    fn put_back(&mut self, name: &HintName, not_before: Duration) {
        self.numbers += 1;
        let Some(record) = self.hints.get_mut(name).and_then(|hint| hint.record.as_mut()) else { return };
        let Some(target) = self.targets.get_mut(&name.target) else { return };
        if matches!(record.state, State::InFlight { .. } | State::Forgetting { .. }) {
            target.in_flight -= 1;
        }
        record.state = State::Stored;
        target.queue.remove(&record.place);
        target.ages.remove(&(record.since_unix_ms, record.place));
        record.place = self.numbers;
        target.queue.insert(record.place, name.clone());
        target.ages.insert((record.since_unix_ms, record.place));
        target.not_before = target.not_before.max(not_before);
    }

    /// A delivery to one node ended.
    pub fn ended(
        &mut self,
        name: &HintName,
        revision: u64,
        from: NodeId,
        ended: Ended,
        now: Duration,
    ) -> Settle {
        let Some(record) = self.hints.get_mut(name).and_then(|hint| hint.record.as_mut()) else {
            return Settle::Nothing;
        };
        let State::InFlight { waiting, handing_over } = &mut record.state else { return Settle::Nothing };
        if !waiting.remove(&from) {
            return Settle::Nothing;
        }
        let Some(target) = self.targets.get_mut(&name.target) else { return Settle::Nothing };
        if ended == Ended::Failed && !planted::is(Bug::DropHint) {
            // What failed together with others waits no longer than they.
            if target.not_before <= now {
                target.not_before = now + target.wait;
                target.wait = (target.wait * 2).min(RETRY_MAX);
            }
            self.put_back(name, now);
            return Settle::Nothing;
        }
        target.wait = RETRY_MIN;
        if !waiting.is_empty() {
            return Settle::Nothing;
        }
        if record.revision != revision {
            // A newer one has been merged into it; that is still to go.
            self.put_back(name, now);
            return Settle::Nothing;
        }
        record.state = State::Forgetting { handing_over: *handing_over };
        Settle::Forget
    }

    /// Its record is removed; or not, since a newer one was merged into it or the store could not: then it goes out
    /// again.
    pub fn forgotten(&mut self, name: &HintName, removed: bool, now: Duration) {
        let Some(hint) = self.hints.get_mut(name) else { return };
        let Some(Record { state: State::Forgetting { handing_over }, .. }) = hint.record else { return };
        if !removed {
            return self.put_back(name, now);
        }
        if handing_over {
            self.books.handed_over += 1;
        } else {
            self.books.delivered += 1;
        }
        self.remove(name);
    }

    /// Its record cannot be read: it is gone, and said to be.
    pub fn lost(&mut self, name: &HintName) {
        if self.hints.get(name).is_some_and(|hint| hint.record.is_some()) {
            self.books.lost += 1;
            self.remove(name);
        }
    }

    fn remove(&mut self, name: &HintName) {
        let Some(record) = self.hints.get_mut(name).and_then(|hint| hint.record.take()) else { return };
        if let Some(target) = self.targets.get_mut(&name.target) {
            target.queue.remove(&record.place);
            target.ages.remove(&(record.since_unix_ms, record.place));
            if !matches!(record.state, State::Stored) {
                target.in_flight -= 1;
            }
        }
        self.shrink(name.target, record.bytes);
        self.tidy(name);
    }

    /// A target is back: no reason to wait any longer.
    pub fn hurry(&mut self, target: NodeId) {
        if let Some(target) = self.targets.get_mut(&target) {
            (target.not_before, target.wait) = (Duration::ZERO, RETRY_MIN);
        }
    }

    /// When [`Hints::next`] may have something; none while nothing waits.
    pub fn next_due(&self) -> Option<Duration> {
        let waiting = |target: &&Target| !target.queue.is_empty() && target.in_flight < IN_FLIGHT_MAX;
        let due = self.targets.values().filter(waiting).map(|target| target.not_before).min()?;
        Some(due.max(self.throttle.opens_at()))
    }
}

/// Books.
impl Hints {
    /// What became of all hints so far.
    pub fn books(&self) -> Books {
        self.books
    }

    /// The partitions of which a hint is kept, or being stored.
    pub fn partitions(&self) -> impl Iterator<Item = Partition> {
        self.hints.keys().map(|name| name.partition)
    }

    /// How many are held.
    pub fn held(&self) -> u64 {
        self.targets.values().map(|target| target.ages.len() as u64).sum()
    }

    /// What is owed to whom, in the order of the targets.
    pub fn owed(&self) -> impl Iterator<Item = Owed> {
        self.targets.iter().map(|(&target, kept)| Owed {
            target,
            hints: kept.ages.len() as u64,
            bytes: kept.bytes,
            oldest_unix_ms: kept.ages.first().map(|&(since, _)| since),
        })
    }

    /// Whether the books balance (INV-HINT).
    pub fn balances(&self) -> bool {
        let Books { recovered, written, delivered, superseded, handed_over, lost, refused: _ } = self.books;
        recovered + written == delivered + superseded + handed_over + lost + self.held()
    }
}

impl Target {
    fn new() -> Self {
        Self {
            bytes: 0,
            queue: BTreeMap::new(),
            ages: BTreeSet::new(),
            in_flight: 0,
            not_before: Duration::ZERO,
            wait: RETRY_MIN,
        }
    }
}
