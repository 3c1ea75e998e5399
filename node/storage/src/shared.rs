//! What the store's threads and its callers have in common.

use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use quorate_core::NodeId;
use quorate_core::causality::VersionSet;
use quorate_core::ring::Partition;

use crate::catalogue;
use crate::disk::Disk;
use crate::entry::{Entry, KeyOf};
use crate::error::{ReadError, WriteError};
use crate::format::{self, FLAG_INCOMPLETE, Record};
use crate::helper::Helper;
use crate::index::Index;
use crate::lifted::Lifted;
use crate::options::Options;
use crate::queue::Queue;
use crate::segment::{Segment, Segments, position};
use crate::spare::{Names, Spares};
use crate::sync::lock;

pub(crate) struct Shared {
    pub(crate) disk: Arc<dyn Disk>,
    pub(crate) options: Options,
    pub(crate) node: NodeId,
    pub(crate) index: Index,
    pub(crate) segments: Segments,
    pub(crate) queue: Queue,
    pub(crate) names: Names,
    pub(crate) spares: Spares,
    pub(crate) status: Status,
    pub(crate) background: Background,
    pub(crate) helper: Helper,
    /// The newest segment that was lost to rot as a whole; 0 when none was. What is older may be outdated.
    pub(crate) lost_through: u64,
    pub(crate) lifted: Lifted,
    /// Held by whoever replaces files of the log, or needs them to stay.
    pub(crate) files: Mutex<()>,
    /// See [`crate::Access::synced_position`].
    pub(crate) synced_position: AtomicU64,
}

/// What the log knows of a key.
pub(crate) enum Found {
    Nothing,
    /// The record under the key's hash is this other key's.
    Other(Bytes),
    Set {
        set: VersionSet,
        /// Whether this disk certainly never held a newer set of the key.
        sure: bool,
        /// Whether the record says that a part of the set may be lost, whatever was settled since.
        marked: bool,
    },
    /// There was a set, and the disk has lost it, or perhaps a newer one.
    Lost,
    /// The key was removed.
    Removed {
        /// As above.
        sure: bool,
    },
}

/// What the index says of a key.
pub(crate) struct Place {
    located: Result<Located, ReadError>,
    /// Whether another key has the same hash.
    pub(crate) shared: bool,
}

impl Place {
    /// The record that must be read.
    pub(crate) fn record(&self) -> Option<(Entry, Arc<Segment>)> {
        match &self.located {
            Ok(Located::At(entry, segment)) => Some((*entry, segment.clone())),
            _ => None,
        }
    }
}

enum Located {
    /// All there is to say.
    Known(Found),
    /// Where its newest record is.
    At(Entry, Arc<Segment>),
}

fn not_open() -> ReadError {
    ReadError::Io { reason: "the record's file is not open".into() }
}

/// The record of a partition that these bytes are.
fn whole_record(bytes: &[u8], partition: Partition) -> Option<Record<'_>> {
    format::record_at(bytes)
        .filter(|record| record.bytes.len() == bytes.len())
        .filter(|record| record.partition == partition)
}

impl Shared {
    /// Takes note that a segment is synced up to here.
    pub(crate) fn synced(&self, segment: &Segment, end: u64) {
        self.synced_position.fetch_max(position(segment.range.last, end), Ordering::Release);
    }

    /// Reads a key's newest record, and checks it.
    pub(crate) fn read(&self, key: KeyOf<'_>) -> Result<Found, ReadError> {
        self.read_at(key, self.locate(key), None, &mut Vec::new())
    }

    /// Reads the record at a key's place, if it was not read before, and checks it. The buffer is used, and may be used
    /// again.
    pub(crate) fn read_at(
        &self,
        key: KeyOf<'_>,
        place: Place,
        read: Option<Vec<u8>>,
        buffer: &mut Vec<u8>,
    ) -> Result<Found, ReadError> {
        match place.located? {
            Located::Known(found) => Ok(found),
            Located::At(entry, segment) => {
                match read {
                    Some(bytes) => *buffer = bytes,
                    None => segment.read_into(entry, buffer)?,
                }
                Ok(self.found(key, entry, &segment, buffer))
            }
        }
    }

    /// The same, unless it would have to wait for the disk.
    pub(crate) fn try_read(&self, key: KeyOf<'_>) -> Option<Result<Found, ReadError>> {
        match self.locate(key).located {
            Ok(Located::Known(found)) => Some(Ok(found)),
            Ok(Located::At(entry, segment)) => {
                let bytes = segment.try_read(entry)?;
                Some(bytes.map(|bytes| self.found(key, entry, &segment, &bytes)))
            }
            Err(error) => Some(Err(error)),
        }
    }

    /// Where a key's newest record is. The file stays readable while the place is held.
    fn locate(&self, key: KeyOf<'_>) -> Place {
        let (found, shared) = self.index.look_up(key, |entry| (entry, self.segments.get(entry.segment)));
        self.place(key.partition, found, shared)
    }

    /// The same of several keys.
    pub(crate) fn locate_all(&self, keys: &[KeyOf<'_>]) -> impl Iterator<Item = Place> {
        let found = self.index.look_up_all(keys, |entry| (entry, self.segments.get(entry.segment)));
        keys.iter().zip(found).map(|(key, (found, shared))| self.place(key.partition, found, shared))
    }

    fn place(
        &self,
        partition: Partition,
        found: Option<(Entry, Option<Arc<Segment>>)>,
        shared: bool,
    ) -> Place {
        let located = match found {
            None => Ok(Located::Known(Found::Nothing)),
            Some((entry, _)) if entry.is_lost() || entry.is_stale() => Ok(Located::Known(Found::Lost)),
            Some((entry, _)) if entry.is_gone() => {
                Ok(Located::Known(Found::Removed { sure: self.knows_all(partition) }))
            }
            Some((entry, segment)) => segment.map(|segment| Located::At(entry, segment)).ok_or_else(not_open),
        };
        Place { located, shared }
    }

    /// What the bytes of a key's newest record say.
    fn found(&self, key: KeyOf<'_>, entry: Entry, segment: &Segment, bytes: &[u8]) -> Found {
        let sound = whole_record(bytes, key.partition).and_then(|record| {
            let set = if record.is_removal() { None } else { Some(VersionSet::decode(record.set).ok()?) };
            Some((record, set))
        });
        let Some((record, set)) = sound else {
            self.lose(key, entry, segment);
            return Found::Lost;
        };
        if record.key != key.key {
            return Found::Other(Bytes::copy_from_slice(record.key));
        }
        let sure = segment.range.first > self.lost_through(key.partition) && !entry.is_incomplete();
        let marked = record.flags & FLAG_INCOMPLETE != 0;
        set.map_or(Found::Removed { sure }, |set| Found::Set { set, sure, marked })
    }

    /// Every key under a hash, with what it holds.
    pub(crate) fn read_hash(
        &self,
        partition: Partition,
        hash: u64,
    ) -> Result<Vec<(Bytes, VersionSet)>, ReadError> {
        let places = self.index.of_hash(partition, hash, |entry| (entry, self.segments.get(entry.segment)));
        let read = |(entry, segment): (Entry, Option<Arc<Segment>>)| {
            let segment = segment.ok_or_else(not_open)?;
            let bytes = segment.read(entry)?;
            let record = whole_record(&bytes, partition);
            let sound = record.and_then(|record| Some((record.key, VersionSet::decode(record.set).ok()?)));
            let Some((key, set)) = sound else {
                self.lose(KeyOf { partition, hash, key: &[] }, entry, &segment);
                return Err(ReadError::Quarantined { partition });
            };
            Ok((Bytes::copy_from_slice(key), set))
        };
        places.into_iter().map(read).collect()
    }

    /// The record of a key is not what was written.
    fn lose(&self, key: KeyOf<'_>, entry: Entry, segment: &Segment) {
        segment.give_up();
        self.index.lose(key, entry.place(), |old, new| {
            tracing::error!(partition = ?key.partition, name = %segment.name, offset = old.offset, "the disk lost a record: its key is not served until it is resynchronised");
            self.segments.count(Some(old), Some(new));
        });
    }

    /// Looks for the records that a segment does not hold any more, by its catalogue.
    pub(crate) fn lose_from(&self, segment: &Segment) {
        segment.give_up();
        let catalogue = catalogue::read(&*self.disk, segment.range, segment.salt, segment.end());
        for item in catalogue.iter().flat_map(|catalogue| catalogue.items(segment.slot)) {
            let bytes = segment.read(item.entry);
            let record = bytes.as_ref().ok().and_then(|bytes| whole_record(bytes, item.partition));
            if record.is_none() {
                // Of keys that share a hash, reading the key itself will tell.
                let key = KeyOf { partition: item.partition, hash: item.hash, key: &[] };
                self.lose(key, item.entry, segment);
            }
        }
    }

    /// The newest segment that was lost and may have held keys of this partition; 0 when none was.
    pub(crate) fn lost_through(&self, partition: Partition) -> u64 {
        self.lifted.not_lifted(partition, self.lost_through)
    }

    /// Whether this disk certainly never held a key of the partition that the index does not know.
    pub(crate) fn knows_all(&self, partition: Partition) -> bool {
        self.lost_through(partition) == 0
    }

    /// Free space; an answer that cannot be had is no reason to stop.
    pub(crate) fn free_bytes(&self) -> u64 {
        self.disk.free_bytes().unwrap_or(u64::MAX)
    }

    /// How much may be written without touching the reserve.
    pub(crate) fn spendable_bytes(&self) -> Result<u64, WriteError> {
        let free_bytes = self.free_bytes();
        let reserve_bytes = self.options.free_space_reserve_bytes;
        free_bytes.checked_sub(reserve_bytes).ok_or(WriteError::Full { free_bytes, reserve_bytes })
    }

    /// The same, after what is kept for later was given back, if need be.
    pub(crate) fn find_space(&self) -> Result<u64, WriteError> {
        self.spendable_bytes().or_else(|_| {
            self.spares.let_go(&*self.disk);
            self.spendable_bytes()
        })
    }

    /// Whether the disk will be full soon.
    pub(crate) fn is_short(&self) -> bool {
        let needed = 2 * u64::from(self.options.segment_bytes);
        self.spendable_bytes().map_or(true, |bytes| bytes < needed)
    }

    pub(crate) fn full(&self) -> WriteError {
        let reserve_bytes = self.options.free_space_reserve_bytes;
        WriteError::Full { free_bytes: self.free_bytes(), reserve_bytes }
    }
}

/// Whether an error says that there is no space.
pub(crate) fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

/// Whether writes are taken.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum State {
    /// They are.
    Writable,
    /// They are refused until the disk has space again; reads go on.
    Full,
    /// They are refused because the log cannot be written; reads go on.
    Failed,
}

enum Trouble {
    /// No segment could be begun for want of space.
    NoRoom,
    /// No segment could be begun.
    CannotBegin,
    /// What was promised to be remembered is not on the disk, and nothing more can be promised: for good.
    Broken(Arc<str>),
}

/// What keeps the log from being written.
#[derive(Default)]
pub(crate) struct Status(Mutex<Option<Trouble>>);

impl Status {
    pub(crate) fn broken(&self) -> Option<Arc<str>> {
        match &*lock(&self.0) {
            Some(Trouble::Broken(reason)) => Some(reason.clone()),
            _ => None,
        }
    }

    /// Stops writing for good.
    pub(crate) fn set_broken(&self, reason: Arc<str>) {
        *lock(&self.0) = Some(Trouble::Broken(reason));
    }

    /// No segment could be begun.
    pub(crate) fn cannot_begin(&self, for_want_of_space: bool) {
        let mut trouble = lock(&self.0);
        if !matches!(*trouble, Some(Trouble::Broken(_))) {
            *trouble = Some(if for_want_of_space { Trouble::NoRoom } else { Trouble::CannotBegin });
        }
    }

    /// A segment can be begun, or was.
    pub(crate) fn can_begin(&self) {
        lock(&self.0).take_if(|trouble| !matches!(trouble, Trouble::Broken(_)));
    }

    pub(crate) fn state(&self) -> State {
        match &*lock(&self.0) {
            None => State::Writable,
            Some(Trouble::NoRoom) => State::Full,
            Some(Trouble::CannotBegin | Trouble::Broken(_)) => State::Failed,
        }
    }
}

/// Wakes and ends the background threads.
#[derive(Default)]
pub(crate) struct Background {
    state: Mutex<BackgroundState>,
    changed: Condvar,
}

#[derive(Default)]
struct BackgroundState {
    pokes: u64,
    closing: bool,
}

impl Background {
    /// Something changed that background work may be waiting for.
    pub(crate) fn poke(&self) {
        lock(&self.state).pokes += 1;
        self.changed.notify_all();
    }

    pub(crate) fn close(&self) {
        lock(&self.state).closing = true;
        self.changed.notify_all();
    }

    /// Sleeps until a poke that was not seen yet, or for this long. Says whether to end.
    pub(crate) fn wait(&self, seen: &mut u64, patience: Duration) -> bool {
        let asleep = |state: &mut BackgroundState| !state.closing && state.pokes == *seen;
        let guard = lock(&self.state);
        let waited = self.changed.wait_timeout_while(guard, patience, asleep);
        let (state, _) = waited.unwrap_or_else(PoisonError::into_inner);
        *seen = state.pokes;
        state.closing
    }

    /// Sleeps for this long, unless it is time to end. Says whether it is.
    pub(crate) fn pause(&self, patience: Duration) -> bool {
        let guard = lock(&self.state);
        let waited = self.changed.wait_timeout_while(guard, patience, |state| !state.closing);
        waited.unwrap_or_else(PoisonError::into_inner).0.closing
    }
}
