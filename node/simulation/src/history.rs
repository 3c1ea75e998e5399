//! The reference model: every request with what its client had seen, and what became of it.
//!
//! A write is known again wherever it shows up: a value begins with its number; a delete, which has no value to carry
//! it, says it in an expiry that is far away.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use bytes::Bytes;
use quorate_core::causality::{CLOCK_AHEAD_MAX_MS, Context, Dot, Expiry, Policy, Stamp, Version, VersionSet};
use quorate_core::quorum::Consistency;

use crate::clock::unix_ms;
use crate::dice::Dice;

/// Deletes say their number in an expiry from here on.
const DELETES_FROM_UNIX_MS: u64 = 100_000_000_000_000;
/// The shortest value: it holds its number and its length.
pub(crate) const VALUE_BYTES_MIN: usize = 12;

/// The number of a request.
pub(crate) type OpId = u64;
/// The number of a key.
pub(crate) type KeyId = usize;

/// What is asked for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum What {
    Read,
    Put { bytes: usize, expires: Option<Expiry> },
    Delete,
}

/// What became of it, as the client knows.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Outcome {
    /// Not answered yet.
    Open,
    /// A write that so many owners hold; by which epoch it was routed at last.
    Acknowledged { owners: u8, epoch: u64 },
    /// A write that nobody holds, nor will.
    NotWritten,
    /// A write that may be.
    Indeterminate,
    /// A read that was answered.
    Found,
    /// A read that was not.
    NotFound,
}

/// A request.
#[derive(Clone, Debug)]
pub(crate) struct Op {
    pub(crate) client: usize,
    pub(crate) key: KeyId,
    pub(crate) what: What,
    /// What the client had seen.
    pub(crate) context: Context,
    pub(crate) consistency: Consistency,
    pub(crate) began: Duration,
    pub(crate) ended: Option<Duration>,
    pub(crate) outcome: Outcome,
    /// The events that it became, as far as anybody saw them.
    pub(crate) events: Vec<(Dot, Stamp)>,
}

impl Op {
    pub(crate) fn is_write(&self) -> bool {
        self.what != What::Read
    }

    fn is_delete(&self) -> bool {
        self.what == What::Delete
    }

    /// Whether it may have happened.
    fn may_be(&self) -> bool {
        self.is_write() && self.outcome != Outcome::NotWritten
    }

    fn expires(&self) -> Option<Expiry> {
        match self.what {
            What::Put { expires, .. } => expires,
            _ => None,
        }
    }

    /// Whether some owner's clock may say that it expired.
    fn may_have_expired(&self, now: Duration, ahead_ms: u64) -> bool {
        self.expires().is_some_and(|expires| expires.has_come(unix_ms(now) + ahead_ms))
    }

    /// Whether its client had seen this event.
    fn saw(&self, dot: Dot) -> bool {
        self.context.covers(dot)
    }
}

/// Whom an event belongs to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Known {
    op: OpId,
    stamp: Stamp,
}

/// Something that no correct history contains.
#[derive(Clone, Debug)]
pub struct Violation {
    /// Which promise is broken.
    pub invariant: &'static str,
    /// How.
    pub what: String,
}

impl Violation {
    pub(crate) fn new(invariant: &'static str, what: impl Into<String>) -> Self {
        Self { invariant, what: what.into() }
    }
}

pub(crate) type Verdict = Result<(), Violation>;

/// When a set was read.
#[derive(Clone, Copy, Debug)]
pub(crate) struct When {
    pub(crate) began: Duration,
    pub(crate) now: Duration,
}

impl When {
    /// At one moment.
    pub(crate) fn at(now: Duration) -> Self {
        Self { began: now, now }
    }
}

pub(crate) struct History {
    pub(crate) policy: Policy,
    /// Whether no clock is ever so far from another that it is not believed, and begins anew.
    clocks_are_believed: bool,
    /// How far the clock of some node is ahead of the truth at most.
    clock_ahead_ms: u64,
    ops: Vec<Op>,
    /// The writes of each key.
    writes: Vec<Vec<OpId>>,
    events: BTreeMap<Dot, Known>,
    /// For an event that was seen replaced: by which one.
    replaced_by: HashMap<Dot, Dot>,
    pub(crate) events_seen: u64,
}

/// A key's name.
pub(crate) fn key_name(key: KeyId) -> Bytes {
    Bytes::from(format!("key-{key}"))
}

/// A key by its name.
pub(crate) fn key_of(name: &[u8]) -> Option<KeyId> {
    std::str::from_utf8(name.strip_prefix(b"key-")?).ok()?.parse().ok()
}

/// The value of a write.
pub(crate) fn value(op: OpId, bytes: usize) -> Bytes {
    let bytes = bytes.max(VALUE_BYTES_MIN);
    let mut value = Vec::with_capacity(bytes + 8);
    value.extend_from_slice(&op.to_le_bytes());
    value.extend_from_slice(&(bytes as u32).to_le_bytes());
    let mut dice = Dice::new(op);
    while value.len() < bytes {
        value.extend_from_slice(&dice.roll().to_le_bytes());
    }
    value.truncate(bytes);
    value.into()
}

/// The expiry that stands for a delete.
pub(crate) fn mark_of_delete(op: OpId) -> Expiry {
    Expiry::at_ms(DELETES_FROM_UNIX_MS + op)
}

/// The write that a version is of.
fn op_of(version: &Version) -> Option<OpId> {
    match &version.value {
        Some(value) => value.first_chunk::<8>().map(|number| u64::from_le_bytes(*number)),
        None => version.expires.and_then(|expires| expires.unix_ms().checked_sub(DELETES_FROM_UNIX_MS)),
    }
}

impl History {
    pub(crate) fn new(policy: Policy, clock_ahead_ms: u64, clocks_are_believed: bool) -> Self {
        Self {
            policy,
            clock_ahead_ms,
            clocks_are_believed,
            ops: Vec::new(),
            writes: Vec::new(),
            events: BTreeMap::new(),
            replaced_by: HashMap::new(),
            events_seen: 0,
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.ops.len()
    }

    pub(crate) fn begin(&mut self, op: Op) -> OpId {
        let id = self.ops.len() as OpId;
        if self.writes.len() <= op.key {
            self.writes.resize(op.key + 1, Vec::new());
        }
        if op.is_write() {
            self.writes[op.key].push(id);
        }
        self.ops.push(op);
        id
    }

    pub(crate) fn end(&mut self, id: OpId, now: Duration, outcome: Outcome) {
        let op = &mut self.ops[id as usize];
        op.outcome = outcome;
        op.ended = Some(now);
    }

    pub(crate) fn op(&self, id: OpId) -> &Op {
        &self.ops[id as usize]
    }

    pub(crate) fn keys(&self) -> std::ops::Range<KeyId> {
        0..self.writes.len()
    }

    /// Whether nobody has seen yet which event a write became.
    pub(crate) fn is_unseen(&self, id: OpId) -> bool {
        self.op(id).events.is_empty()
    }

    /// The writes of a key that were acknowledged, and of which it is known which event they became.
    pub(crate) fn acknowledged(&self, key: KeyId) -> impl Iterator<Item = (OpId, &Op, u8)> {
        self.writes.get(key).into_iter().flatten().filter_map(|&id| match self.op(id).outcome {
            Outcome::Acknowledged { owners, .. } if !self.is_unseen(id) => Some((id, self.op(id), owners)),
            _ => None,
        })
    }

    /// Takes note of the events in a set that somebody holds or sends (INV-AMNESIA: no dot is ever made twice).
    pub(crate) fn observe(&mut self, key: Option<KeyId>, set: &VersionSet) -> Verdict {
        set.versions().iter().try_for_each(|version| self.observe_version(key, version))
    }

    fn observe_version(&mut self, key: Option<KeyId>, version: &Version) -> Verdict {
        self.events_seen += 1;
        let dot = version.dot;
        let unknown = || Violation::new("INV-ACK", format!("{dot:?} is of no write that was ever begun"));
        let id = op_of(version).filter(|&id| (id as usize) < self.ops.len()).ok_or_else(unknown)?;
        let known = Known { op: id, stamp: version.stamp };
        if let Some(before) = self.events.get(&dot) {
            if *before == known {
                return Ok(());
            }
            let what = format!("{dot:?} was made twice: for #{} and for #{id}", before.op);
            return Err(Violation::new("INV-AMNESIA", what));
        }
        self.events.insert(dot, known);
        let op = &mut self.ops[id as usize];
        op.events.push((dot, version.stamp));
        if key.is_some_and(|key| key != op.key) {
            let what = format!("#{id} wrote key-{}, and shows up under key-{}", op.key, key.unwrap_or(0));
            return Err(Violation::new("INV-ACK", what));
        }
        match (op.what, &version.value) {
            (What::Put { bytes, expires }, Some(found)) if version.expires == expires => {
                if *found != value(id, bytes) {
                    return Err(Violation::new("INV-ACK", format!("#{id}'s value is not what was written")));
                }
            }
            (What::Delete, None) => {}
            _ => {
                return Err(Violation::new(
                    "INV-ACK",
                    format!("#{id} turned into something else: {version:?}"),
                ));
            }
        }
        self.check_stamp(dot, version.stamp)
    }

    /// Stamps of one start grow with its dots, however its wall clock jumps; but when it jumps back from a time that
    /// nobody would believe. (Where the last write wins, one that
    /// replaces what a faster clock stamped is stamped later than that, and the next one to another key need not be.)
    fn check_stamp(&self, dot: Dot, stamp: Stamp) -> Verdict {
        if self.policy == Policy::LastWriteWins || !self.clocks_are_believed {
            return Ok(());
        }
        let first = Dot { actor: dot.actor, counter: 0 };
        let last = Dot { actor: dot.actor, counter: u64::MAX };
        let before = self.events.range(first..dot).next_back();
        let after = self.events.range(dot..=last).nth(1);
        let follows = |earlier: Stamp, later: Stamp| {
            earlier < later || earlier.ahead_of_ms(later.unix_ms()) > CLOCK_AHEAD_MAX_MS
        };
        let grows = before.is_none_or(|(_, known)| follows(known.stamp, stamp))
            && after.is_none_or(|(_, known)| follows(stamp, known.stamp));
        let what = || format!("{dot:?} is stamped {stamp:?}: out of order with {before:?} and {after:?}");
        if grows { Ok(()) } else { Err(Violation::new("INV-CLOCK", what())) }
    }

    /// Sibling correctness: a value is gone from a set that knows of it only when a write that had seen it is known
    /// there too, or where the last write wins a later one; or when it expired long before a write that is known; or when
    /// such a write was a delete, and collected since.
    pub(crate) fn check_siblings(&mut self, key: KeyId, set: &VersionSet, when: When) -> Verdict {
        for at in 0..self.writes.get(key).map_or(0, Vec::len) {
            let id = self.writes[key][at];
            for event in 0..self.op(id).events.len() {
                let (dot, _) = self.op(id).events[event];
                let gone = set.context().covers(dot)
                    && set.versions().binary_search_by_key(&dot, |version| version.dot).is_err();
                if gone && !self.is_rightly_gone(key, set, id, dot, when) {
                    let what =
                        format!("#{id} ({dot:?}) vanished from key-{key}, and no write that saw it is there");
                    return Err(Violation::new("siblings", what));
                }
            }
        }
        Ok(())
    }

    fn is_rightly_gone(&mut self, key: KeyId, set: &VersionSet, id: OpId, dot: Dot, when: When) -> bool {
        if self.replaced_by.get(&dot).is_some_and(|by| set.context().covers(*by)) {
            return true;
        }
        if self.may_be_collected(set, id, when) {
            return true;
        }
        let Some(by) = self.replacement(key, set, id, when) else { return false };
        // None where its event was never seen.
        let event = self.op(by).events.iter().find(|(event, _)| set.context().covers(*event));
        if let Some(&(event, _)) = event {
            self.replaced_by.insert(dot, event);
        }
        true
    }

    /// What a set knows, and may have replaced a write.
    fn replacement(&self, key: KeyId, set: &VersionSet, id: OpId, when: When) -> Option<OpId> {
        // A write whose event nobody saw is given the benefit of the doubt.
        let is_there = |by: &OpId| self.op(*by).events.is_empty() || self.reflects(set, *by, when);
        let mut after = self.latest_first(key).filter(|&by| self.came_after(by, id));
        after.clone().find(|&by| self.is_known(set, by)).or_else(|| after.find(is_there))
    }

    /// Whether a write may have replaced another: its client had seen it; or the last write wins, and it is later; or
    /// the other one had expired long before.
    fn came_after(&self, by: OpId, id: OpId) -> bool {
        let (after, op) = (self.op(by), self.op(id));
        if by == id || !after.may_be() {
            return false;
        }
        let wins = self.policy == Policy::LastWriteWins;
        let later = |dot: Dot, stamp: Stamp| {
            let forgotten = |at: Stamp| {
                let past = at.unix_ms().saturating_sub(CLOCK_AHEAD_MAX_MS);
                op.expires().is_some_and(|expires| expires.has_come(past))
            };
            let stamps = || after.events.iter().map(|(_, stamp_by)| *stamp_by);
            // A stamp that nobody believes is not handed on to what replaces it.
            let beyond = |by: Stamp| by > stamp || stamp.ahead_of_ms(by.unix_ms()) > CLOCK_AHEAD_MAX_MS;
            let wins = wins && (after.events.is_empty() || stamps().any(beyond));
            after.saw(dot) || wins || stamps().any(forgotten)
        };
        op.events.iter().any(|(dot, stamp)| later(*dot, *stamp))
    }

    /// Whether a set holds a write, or what rightly came after it.
    pub(crate) fn reflects(&self, set: &VersionSet, id: OpId, when: When) -> bool {
        self.reflects_within(set, id, when, &mut Vec::new())
    }

    fn reflects_within(&self, set: &VersionSet, id: OpId, when: When, tried: &mut Vec<OpId>) -> bool {
        if self.is_known(set, id) {
            return true;
        }
        // The owners do not know of it. That is right when it was collected, or what replaced it.
        if self.may_be_collected(set, id, when) {
            return true;
        }
        tried.push(id);
        let mut after = self.latest_first(self.op(id).key).filter(|&by| self.came_after(by, id));
        after.clone().any(|by| self.is_known(set, by))
            || after.any(|by| !tried.contains(&by) && self.reflects_within(set, by, when, tried))
    }

    /// Whether a set, or what it has seen, includes a write.
    fn is_known(&self, set: &VersionSet, id: OpId) -> bool {
        self.op(id).events.iter().any(|(dot, _)| set.context().covers(*dot))
    }

    /// The writes of a key. What replaced another is mostly among the latest.
    fn latest_first(&self, key: KeyId) -> impl Iterator<Item = OpId> + Clone {
        self.writes[key].iter().rev().copied()
    }

    /// Whether nothing of a write is missed when it was collected: it was a delete, or has expired, and what it hid stays
    /// hidden. (A read that began before it ended may have met one owner before and another one after.)
    fn may_be_collected(&self, set: &VersionSet, id: OpId, when: When) -> bool {
        let op = self.op(id);
        let was_before = op.ended.is_some_and(|ended| ended <= when.began);
        (op.is_delete() || op.may_have_expired(when.now, self.clock_ahead_ms))
            && !(was_before && self.shows_replaced(set, id))
    }

    /// Whether a set shows something that a write had replaced.
    pub(crate) fn shows_replaced(&self, set: &VersionSet, id: OpId) -> bool {
        set.versions().iter().any(|version| self.op(id).saw(version.dot))
    }

    /// A write that its client was told is not written, in a set that was read.
    pub(crate) fn refused_in(&self, set: &VersionSet) -> Option<OpId> {
        let refused =
            |id: &OpId| self.ops.get(*id as usize).is_some_and(|op| op.outcome == Outcome::NotWritten);
        set.versions().iter().filter_map(op_of).find(refused)
    }

    /// The write that an event is of.
    pub(crate) fn write_of(&self, dot: Dot) -> Option<OpId> {
        self.events.get(&dot).map(|known| known.op)
    }

    /// Which broken promise it is when a set lacks a write.
    pub(crate) fn lacks(&self, set: &VersionSet, id: OpId, otherwise: &'static str) -> Violation {
        let op = self.op(id);
        let zombie = op.is_delete() && self.shows_replaced(set, id);
        let invariant = if zombie { "INV-NOZOMBIE" } else { otherwise };
        let shown: Vec<_> =
            set.versions().iter().map(|version| (op_of(version), version.dot.counter)).collect();
        Violation::new(
            invariant,
            format!(
                "#{id} ({:?} of key-{}, acknowledged at {:?}) is missing; there is {shown:?} and nothing that replaced it",
                op.what, op.key, op.ended
            ),
        )
    }
}
