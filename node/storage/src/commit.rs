//! The committer: reads, merges, makes dots, stores a group with one sync, answers.
//!
//! Invariants:
//! - It alone changes keys, one group after the other, so a write is built on everything before it.
//! - Dots are made in the order in which their writes are stored (INV-AMNESIA).
//! - Nothing is prepared before there is room for it, so a full disk refuses a write that nobody has seen yet.
//! - A write is answered `Ok` only when its set, or the equal one that was there, is durable as the options say.

use std::collections::{HashMap, VecDeque};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use quorate_core::causality::{DotMaker, VersionSet, WriteRefused};
use quorate_core::planted::{self, Bug};
use quorate_core::ring::{Partition, key_hash};

use crate::batch::Batch;
use crate::entry::KeyOf;
use crate::error::{ReadError, WriteError};
use crate::format::{FLAG_INCOMPLETE, FLAG_SHARED_HASH, GROUP_HEADER_BYTES, RECORD_HEADER_BYTES};
use crate::helper::Reads;
use crate::log::{Log, Written};
use crate::options::{Options, RECORD_BYTES_MAX};
use crate::queue::Wake;
use crate::shared::{Found, Place, Shared};
use crate::write::{Change, Committed, Done, Write, key_bytes_max, set_bytes_max};

/// How many keys are looked for in the index at a time.
const AHEAD: usize = 64;
/// How large a buffer is kept for the next group's records.
const BUFFER_BYTES_KEPT: usize = 64 * 1024;

/// A key in the group that is being prepared.
struct Slot {
    partition: Partition,
    hash: u64,
    key: Bytes,
    set: VersionSet,
    /// Whether the set is another one than the stored one.
    changed: bool,
    /// Whether there is a stored one.
    stored: bool,
    /// Whether the disk may have lost a part of the set.
    incomplete: bool,
    /// Whether it was settled that nothing is lost of the set, and the stored record still says otherwise.
    settled: bool,
    /// Whether another key has the same hash.
    shared: bool,
    /// An upper bound of the record's length.
    bytes_max: u64,
    /// Another key of this group with the same hash.
    next: Option<usize>,
}

impl Slot {
    fn bound(&mut self) {
        self.bytes_max = (RECORD_HEADER_BYTES + self.key.len() + set_bytes_max(&self.set)) as u64;
    }

    /// Whether the key holds nothing, or was removed: not even a tombstone is left.
    fn is_nothing(&self) -> bool {
        self.set.context().is_empty()
    }

    fn flags(&self) -> u8 {
        let shared = if self.shared { FLAG_SHARED_HASH } else { 0 };
        let incomplete = if self.incomplete { FLAG_INCOMPLETE } else { 0 };
        shared | incomplete
    }
}

/// The writes that one sync serves.
struct Group {
    slots: Vec<Slot>,
    by_hash: HashMap<(Partition, u64), usize>,
    /// An upper bound of the changed slots' records.
    bytes_max: u64,
    replies: Vec<(Done, Committed)>,
}

impl Group {
    /// An empty group, for so many writes.
    fn of(writes: usize) -> Self {
        Self {
            slots: Vec::with_capacity(writes),
            by_hash: HashMap::with_capacity(writes),
            bytes_max: 0,
            replies: Vec::with_capacity(writes),
        }
    }

    fn has_room(&self, options: &Options) -> bool {
        self.replies.len() < options.group_writes_max && self.bytes_max < options.group_bytes_max as u64
    }

    fn has_changes(&self) -> bool {
        self.bytes_max > 0
    }

    /// What the group takes in the log when this slot's set may grow by so much.
    fn bytes_with(&self, slot: usize, more: u64) -> u64 {
        let slot = &self.slots[slot];
        let counted = if slot.changed { slot.bytes_max } else { 0 };
        GROUP_HEADER_BYTES as u64 + self.bytes_max - counted + slot.bytes_max + more
    }

    fn position(&self, key: KeyOf<'_>) -> Option<usize> {
        let mut at = self.by_hash.get(&(key.partition, key.hash)).copied();
        while let Some(slot) = at.filter(|&slot| self.slots[slot].key != key.key) {
            at = self.slots[slot].next;
        }
        at
    }

    /// Adds a key. Keys that share their hash within the group are all marked, because recovery could not tell
    /// them apart otherwise.
    fn add(&mut self, mut slot: Slot) -> usize {
        let position = self.slots.len();
        slot.next = self.by_hash.insert((slot.partition, slot.hash), position);
        slot.bound();
        let mut other = slot.next;
        slot.shared |= other.is_some();
        while let Some(at) = other {
            self.slots[at].shared = true;
            other = self.slots[at].next;
        }
        self.slots.push(slot);
        position
    }

    /// Applies a write for which there is room.
    fn apply(&mut self, slot: usize, write: Write, dots: &mut DotMaker) {
        let slot = &mut self.slots[slot];
        let counted = if slot.changed { slot.bytes_max } else { 0 };
        let changed = match write.change {
            Change::Event(event) => match slot.set.write(event, dots.make()) {
                Ok(()) => true,
                Err(refused) => return answer(write.done, Err(refused.into())),
            },
            Change::Merge(other) if planted::is(Bug::OverwriteInsteadOfMerge) => {
                slot.set = other;
                true
            }
            Change::Merge(other) => slot.set.merge(&other) | slot.settled,
            Change::Forget { digest } => {
                let same = !slot.is_nothing() && slot.set.digest() == digest;
                if same {
                    slot.set = VersionSet::default();
                }
                same
            }
        };
        if changed {
            slot.changed = true;
            slot.bound();
            self.bytes_max = self.bytes_max - counted + slot.bytes_max;
        }
        if let Some(prepared) = write.prepared.filter(|_| !slot.is_nothing()) {
            guarded(|| prepared(&slot.set));
        }
        self.replies.push((write.done, Committed { changed, siblings: slot.set.versions().len() }));
    }

    /// The records of what changed: one a key, however many writes it had.
    fn batch(&mut self) -> Batch {
        let mut batch = Batch::of(self.slots.len(), self.bytes_max as usize);
        for slot in self.slots.iter().filter(|slot| slot.changed) {
            if slot.is_nothing() && !slot.stored {
                continue; // It came and went within the group.
            }
            let (set, before) = (Some(&slot.set).filter(|_| !slot.is_nothing()), batch.len());
            batch.push(slot.partition, slot.hash, slot.key.clone(), slot.flags(), set);
            debug_assert!(batch.len() - before <= slot.bytes_max);
        }
        batch
    }
}

/// A group that is prepared, and perhaps written, but not synced, nor answered.
struct Pending {
    /// None when no key changed.
    written: Option<Written>,
    replies: Vec<(Done, Committed)>,
    bytes: usize,
}

pub(crate) struct Committer {
    shared: Arc<Shared>,
    dots: DotMaker,
    log: Log,
    /// Taken from the queue and not prepared yet.
    waiting: VecDeque<Write>,
    pending: Option<Pending>,
    /// Records are read into it.
    buffer: Vec<u8>,
}

/// A key of a write that waits, and where the index has it. Only the committer changes what a key holds, so that is true
/// until its next group is stored.
struct Ahead {
    hash: u64,
    place: Place,
    /// Where the helper puts the record, if it helps.
    read: Option<(Arc<Reads>, usize)>,
}

impl Committer {
    pub(crate) fn new(shared: Arc<Shared>, dots: DotMaker, log: Log) -> Self {
        Self { shared, dots, log, waiting: VecDeque::new(), pending: None, buffer: Vec::new() }
    }

    /// Serves the queue until it is closed and empty. Should this code panic, nothing that it holds can be trusted:
    /// nothing more is written, and what waits is refused.
    pub(crate) fn run(mut self) {
        let served = catch_unwind(AssertUnwindSafe(|| self.serve()));
        if served.is_ok() {
            return;
        }
        let reason: Arc<str> = "the committer panicked".into();
        self.shared.status.set_broken(reason.clone());
        let error = WriteError::Failed { reason };
        refuse_all(&mut self.waiting, &error);
        while self.shared.queue.wait(None) == Wake::Writes {
            refuse_all(&mut self.shared.queue.take(), &error);
            self.shared.queue.take_rolls().into_iter().for_each(|roll| roll(Err(error.clone())));
        }
    }

    fn serve(&mut self) {
        loop {
            match self.shared.queue.wait(self.log.patience()) {
                Wake::Writes => {}
                Wake::Nothing => self.tick(),
                Wake::Closed => return self.finish(),
            }
            while self.prepare() {
                self.commit();
            }
        }
    }

    /// How long [`Committer::tick`] may wait when nothing is written; none while it has nothing to do.
    pub(crate) fn patience(&self) -> Option<Duration> {
        self.log.patience()
    }

    /// Nothing was written for a while.
    pub(crate) fn tick(&mut self) {
        if self.pending.is_none() {
            self.log.tick();
        }
    }

    /// Seals the segment that is written. See [`Log::roll`].
    pub(crate) fn roll(&mut self) -> Result<u64, WriteError> {
        self.log.roll()
    }

    /// Nothing will be written any more.
    pub(crate) fn finish(&mut self) {
        self.commit();
        self.log.finish();
    }

    /// Prepares one group of the writes that wait, and writes it, unsynced. Says whether there is a group now, for
    /// [`Committer::commit`]; else no write waits any more.
    pub(crate) fn prepare(&mut self) -> bool {
        while self.pending.is_none() {
            for roll in self.shared.queue.take_rolls() {
                roll(self.log.roll());
            }
            if self.waiting.is_empty() {
                self.waiting = self.shared.queue.take();
            }
            if self.waiting.is_empty() {
                break;
            }
            self.prepare_some();
        }
        self.pending.is_some()
    }

    /// Prepares one group of the writes that wait, or refuses some; at least one.
    fn prepare_some(&mut self) {
        if let Err(error) = self.log.ready() {
            return refuse_all(&mut self.waiting, &error);
        }
        let mut group = Group::of(self.waiting.len().min(self.shared.options.group_writes_max));
        let mut ahead = VecDeque::with_capacity(AHEAD);
        while group.has_room(&self.shared.options)
            && let Some((write, found)) = self.next(&mut ahead)
        {
            let (slot, bytes) = match self.admit(&mut group, &write, found) {
                Ok(admitted) => admitted,
                Err(error) => {
                    answer(write.done, Err(error));
                    continue;
                }
            };
            if !self.log.has_room(bytes) {
                if group.has_changes() {
                    self.waiting.push_front(write);
                    break; // The group is stored where it has room; the next one begins a segment.
                }
                ahead.clear(); // What was not synced may be stored anew.
                if let Err(error) = self.log.make_room(bytes) {
                    answer(write.done, Err(error));
                    continue;
                }
            }
            group.apply(slot, write, &mut self.dots);
        }
        self.buffer.clear();
        self.buffer.shrink_to(BUFFER_BYTES_KEPT);
        if group.replies.is_empty() {
            return;
        }
        let batch = group.batch();
        let bytes = batch.len() as usize;
        let written = (!batch.is_empty()).then(|| self.log.write(batch));
        self.pending = Some(Pending { written, replies: group.replies, bytes });
    }

    /// Makes the group that was prepared durable, and answers. Does nothing when none was.
    pub(crate) fn commit(&mut self) {
        let Some(Pending { written, replies, bytes }) = self.pending.take() else { return };
        let stored = written.map_or(Ok(()), |written| self.log.commit(written));
        if let Some(observer) = self.shared.options.observer.as_ref().filter(|_| stored.is_ok()) {
            observer.group(replies.len(), bytes);
        }
        for (done, committed) in replies {
            answer(done, stored.clone().map(|()| committed));
        }
    }

    /// The next write that waits, and where its key is. Keys are looked for some at a time, before any is read: so the
    /// processor waits for the memory of several at once.
    fn next(&mut self, ahead: &mut VecDeque<Ahead>) -> Option<(Write, Ahead)> {
        if ahead.is_empty() {
            let keys: Vec<_> = self.waiting.iter().take(AHEAD).map(key_of).collect();
            let places = self.shared.locate_all(&keys);
            let found =
                keys.iter().zip(places).map(|(key, place)| Ahead { hash: key.hash, place, read: None });
            ahead.extend(found);
            let records = || Reads::of(ahead.iter().map(|found| found.place.record()));
            if let Some(reads) = self.shared.helper.ask(keys.len(), records) {
                ahead.iter_mut().enumerate().for_each(|(at, found)| found.read = Some((reads.clone(), at)));
            }
        }
        Some((self.waiting.pop_front()?, ahead.pop_front()?))
    }

    /// The write's key in the group, and what the group could take in the log with it.
    fn admit(
        &mut self,
        group: &mut Group,
        write: &Write,
        Ahead { hash, place, read }: Ahead,
    ) -> Result<(usize, u64), WriteError> {
        if write.key.len() > key_bytes_max(write.partition) {
            return Err(WriteRefused::TooLarge.into());
        }
        let key = KeyOf { partition: write.partition, hash, key: &write.key };
        let read = read.and_then(|(reads, at)| reads.take(at));
        let slot = match group.position(key) {
            Some(slot) => slot,
            None => group.add(self.base(key, &write.key, place, read).map_err(WriteError::Unreadable)?),
        };
        if group.slots[slot].incomplete && !matches!(write.change, Change::Merge(_)) {
            // An event would claim to have seen what this disk forgot, and nobody may trust it to forget the rest.
            return Err(WriteError::Unreadable(ReadError::Quarantined { partition: key.partition }));
        }
        let more = write.change.bytes_max() as u64;
        if group.slots[slot].bytes_max + more > RECORD_BYTES_MAX {
            return Err(WriteRefused::TooLarge.into());
        }
        Ok((slot, group.bytes_with(slot, more)))
    }

    /// What a key holds before the group.
    fn base(
        &mut self,
        key: KeyOf<'_>,
        owned: &Bytes,
        place: Place,
        read: Option<Vec<u8>>,
    ) -> Result<Slot, ReadError> {
        let shared = place.shared;
        let found = self.shared.read_at(key, place, read, &mut self.buffer)?;
        if let Found::Other(owner) = &found {
            self.shared.index.split(key.partition, key.hash, owner.clone());
        }
        let nothing = Slot {
            partition: key.partition,
            hash: key.hash,
            key: owned.clone(),
            set: VersionSet::default(),
            changed: false,
            stored: false,
            incomplete: !self.shared.knows_all(key.partition),
            settled: false,
            shared: shared || matches!(found, Found::Other(_)),
            bytes_max: 0,
            next: None,
        };
        Ok(match found {
            Found::Set { set, sure, marked } => {
                Slot { set, stored: true, incomplete: !sure, settled: sure && marked, ..nothing }
            }
            Found::Removed { sure } => Slot { incomplete: !sure, ..nothing },
            Found::Lost => Slot { stored: true, incomplete: true, ..nothing },
            Found::Nothing | Found::Other(_) => nothing,
        })
    }
}

fn key_of(write: &Write) -> KeyOf<'_> {
    KeyOf { partition: write.partition, hash: key_hash(&write.key), key: &write.key }
}

fn refuse_all(writes: &mut VecDeque<Write>, error: &WriteError) {
    for write in writes.drain(..) {
        answer(write.done, Err(error.clone()));
    }
}

fn answer(done: Done, result: Result<Committed, WriteError>) {
    guarded(|| done(result));
}

/// Calls a caller's closure. Its panic is its own: the other writes of the group have nothing to do with it.
fn guarded(call: impl FnOnce()) {
    if catch_unwind(AssertUnwindSafe(call)).is_err() {
        tracing::error!("a callback of a write panicked");
    }
}
