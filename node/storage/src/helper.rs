//! A second reader beside the committer, where there are threads. Most of what a large group takes is reading its keys'
//! records, of which most are in memory: so one reads from the first on, and the other from the last on.
//!
//! Invariants:
//! - The committer never waits for it: what the helper has not read yet, the committer reads itself.
//! - It decides nothing: it hands over bytes, and the committer checks them as if it had read them.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};

use crate::entry::Entry;
use crate::segment::Segment;
use crate::sync::lock;

/// From so many records on it is worth waking somebody.
const RECORDS_MIN: usize = 32;

/// Records that a group needs.
pub(crate) struct Reads(Vec<Read>);

struct Read {
    /// Where it is; none when there is nothing to be read.
    place: Option<(Entry, Arc<Segment>)>,
    /// Somebody has read it, or does.
    taken: AtomicBool,
    /// What the helper read; empty while it has not.
    bytes: Mutex<Vec<u8>>,
}

impl Reads {
    pub(crate) fn of(places: impl Iterator<Item = Option<(Entry, Arc<Segment>)>>) -> Self {
        let read = |place| Read { place, taken: AtomicBool::new(false), bytes: Mutex::default() };
        Self(places.map(read).collect())
    }

    /// The bytes of a record, if the helper has read them. From now on it does not begin to.
    pub(crate) fn take(&self, at: usize) -> Option<Vec<u8>> {
        let read = self.0.get(at)?;
        if !read.taken.swap(true, Ordering::AcqRel) {
            return None;
        }
        Some(std::mem::take(&mut *lock(&read.bytes))).filter(|bytes| !bytes.is_empty())
    }

    /// Reads from the last one on, up to where the committer is.
    fn read(&self) {
        for Read { place, taken, bytes } in self.0.iter().rev() {
            if taken.swap(true, Ordering::AcqRel) {
                return;
            }
            // The committer meets the error where there is one.
            if let Some(read) = place.as_ref().and_then(|(entry, segment)| segment.read(*entry).ok()) {
                *lock(bytes) = read;
            }
        }
    }
}

/// Where the committer finds the helper.
#[derive(Default)]
pub(crate) struct Helper {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    /// Whether there is a helper, with nothing to do.
    idle: bool,
    reads: Option<Arc<Reads>>,
    closing: bool,
}

impl Helper {
    /// Has records read, if there are enough of them and somebody to do it.
    pub(crate) fn ask(&self, records: usize, reads: impl FnOnce() -> Reads) -> Option<Arc<Reads>> {
        if records < RECORDS_MIN || !lock(&self.state).idle {
            return None;
        }
        let reads = Arc::new(reads());
        lock(&self.state).reads = Some(reads.clone());
        self.changed.notify_one();
        Some(reads)
    }

    /// Helps until there is nobody to help any more.
    pub(crate) fn run(&self) {
        let mut state = lock(&self.state);
        loop {
            state.idle = true;
            let asleep = |state: &mut State| state.reads.is_none() && !state.closing;
            state = self.changed.wait_while(state, asleep).unwrap_or_else(PoisonError::into_inner);
            state.idle = false;
            let Some(reads) = state.reads.take() else { return };
            drop(state);
            reads.read();
            drop(reads);
            state = lock(&self.state);
        }
    }

    /// Nobody will be asked any more.
    pub(crate) fn close(&self) {
        lock(&self.state).closing = true;
        self.changed.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;
    use crate::disk::simulated::SimulatedDisk;
    use crate::entry::DeadFrom;
    use crate::format::{FORMAT, SegmentHeader};
    use crate::segment::Segments;

    const RECORDS: usize = 40;
    const LENGTH: usize = 3;

    /// Records of which each byte is the record's number; every seventh is not there.
    fn reads() -> Reads {
        let disk = SimulatedDisk::new(1, 1 << 20).attach();
        let file = disk.create("a").unwrap();
        let bytes: Vec<u8> = (0..RECORDS * LENGTH).map(|at| (at / LENGTH) as u8).collect();
        file.write_at(0, &bytes).unwrap();
        let node = quorate_core::NodeId::from_u128(1);
        let header =
            SegmentHeader { format: FORMAT, node, first: 1, last: 1, previous_end: 0, end: 0, salt: 0 };
        let segment = Segments::default().add(&header, "a".into(), file, 0);
        let entry = |at: usize| Entry::new(0, (at * LENGTH) as u32, LENGTH as u32, 0, DeadFrom::NEVER);
        Reads::of((0..RECORDS).map(|at| (at % 7 != 0).then(|| (entry(at), segment.clone()))))
    }

    #[test]
    fn what_it_has_read_is_right_and_what_the_committer_takes_first_it_leaves() {
        let reads = reads();
        assert_eq!((reads.take(0), reads.take(1), reads.take(RECORDS)), (None, None, None));
        reads.read();
        for at in 2..RECORDS {
            let expected = (at % 7 != 0).then(|| vec![at as u8; LENGTH]);
            assert_eq!(reads.take(at), expected);
        }
    }

    #[test]
    fn it_helps_while_it_is_idle_and_ends_when_it_is_told() {
        let helper = Helper::default();
        assert!(helper.ask(RECORDS, reads).is_none(), "nobody is there");
        thread::scope(|scope| {
            scope.spawn(|| helper.run());
            let asked = loop {
                match helper.ask(RECORDS, reads) {
                    Some(asked) => break asked,
                    None => thread::yield_now(),
                }
            };
            while !asked.0[1].taken.load(Ordering::Acquire) {
                thread::yield_now();
            }
            assert!(helper.ask(RECORDS_MIN - 1, reads).is_none(), "not worth it");
            helper.close();
        });
        assert!(helper.ask(RECORDS, reads).is_none(), "nobody is there any more");
    }
}
