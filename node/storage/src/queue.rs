//! The queue in front of the committer.
//!
//! Invariant: it never holds more writes or bytes than the options say, and what it took it hands out once, in order.

use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::error::WriteError;
use crate::sync::lock;
use crate::write::Write;

/// What the committer is to do next.
#[derive(PartialEq, Eq, Debug)]
pub(crate) enum Wake {
    /// Something waits.
    Writes,
    /// Nothing arrived in time.
    Nothing,
    /// Nothing will arrive any more.
    Closed,
}

/// Hears the number of the newest segment, once all that was stored until then is in sealed ones.
pub(crate) type Roll = Box<dyn FnOnce(Result<u64, WriteError>) + Send>;

#[derive(Default)]
struct Inner {
    writes: VecDeque<Write>,
    bytes: usize,
    rolls: Vec<Roll>,
    closed: bool,
    /// Somebody sleeps until a write arrives.
    sleeping: bool,
}

pub(crate) struct Queue {
    inner: Mutex<Inner>,
    arrived: Condvar,
    writes_max: usize,
    bytes_max: usize,
}

impl Queue {
    pub(crate) fn new(writes_max: usize, bytes_max: usize) -> Self {
        Self { inner: Mutex::default(), arrived: Condvar::new(), writes_max, bytes_max }
    }

    /// Takes writes, which then wait together, and gives those back that cannot wait, with the reason. One write is
    /// always taken by an empty queue, however large.
    pub(crate) fn push(&self, writes: impl IntoIterator<Item = Write>) -> Vec<(Write, WriteError)> {
        let mut refused = Vec::new();
        let mut inner = lock(&self.inner);
        for write in writes {
            match self.refusal(&inner, &write) {
                Some(error) => refused.push((write, error)),
                None => {
                    inner.bytes += bytes(&write);
                    inner.writes.push_back(write);
                }
            }
        }
        if inner.sleeping && !inner.writes.is_empty() {
            inner.sleeping = false;
            self.arrived.notify_one();
        }
        refused
    }

    fn refusal(&self, inner: &Inner, write: &Write) -> Option<WriteError> {
        if inner.closed {
            return Some(WriteError::Closed);
        }
        let full = inner.writes.len() >= self.writes_max || inner.bytes + bytes(write) > self.bytes_max;
        (full && !inner.writes.is_empty()).then_some(WriteError::Busy)
    }

    /// Asks for the segment that is written to be sealed.
    pub(crate) fn roll(&self, roll: Roll) {
        let mut inner = lock(&self.inner);
        if inner.closed {
            drop(inner);
            return roll(Err(WriteError::Closed));
        }
        inner.rolls.push(roll);
        inner.sleeping = false;
        self.arrived.notify_one();
    }

    /// Whoever asked for that.
    pub(crate) fn take_rolls(&self) -> Vec<Roll> {
        std::mem::take(&mut lock(&self.inner).rolls)
    }

    /// Everything that waits, in the order in which it came.
    pub(crate) fn take(&self) -> VecDeque<Write> {
        let mut inner = lock(&self.inner);
        inner.bytes = 0;
        std::mem::take(&mut inner.writes)
    }

    /// Sleeps until writes wait, at most for `patience`.
    pub(crate) fn wait(&self, patience: Option<Duration>) -> Wake {
        let deadline = patience.map(|patience| Instant::now() + patience);
        let mut inner = lock(&self.inner);
        loop {
            if !inner.writes.is_empty() || !inner.rolls.is_empty() {
                return Wake::Writes;
            }
            if inner.closed {
                return Wake::Closed;
            }
            inner.sleeping = true;
            inner = match deadline.map(|deadline| deadline.saturating_duration_since(Instant::now())) {
                None => self.arrived.wait(inner).unwrap_or_else(PoisonError::into_inner),
                Some(Duration::ZERO) => return Wake::Nothing,
                Some(left) => {
                    self.arrived.wait_timeout(inner, left).unwrap_or_else(PoisonError::into_inner).0
                }
            };
        }
    }

    /// Whether writes wait: what is not urgent should.
    pub(crate) fn is_busy(&self) -> bool {
        !lock(&self.inner).writes.is_empty()
    }

    /// Takes no more writes; what is there is still handed out.
    pub(crate) fn close(&self) {
        lock(&self.inner).closed = true;
        self.arrived.notify_all();
    }
}

/// An upper bound of what a write holds.
fn bytes(write: &Write) -> usize {
    write.key.len() + write.change.bytes_max()
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use quorate_core::causality::VersionSet;
    use quorate_core::ring::Partition;

    use super::*;
    use crate::write::Change;

    fn write(key: &'static str) -> Write {
        let change = Change::Merge(VersionSet::default());
        Write {
            partition: Partition(0),
            key: Bytes::from_static(key.as_bytes()),
            change,
            prepared: None,
            done: Box::new(|_| {}),
        }
    }

    fn push(queue: &Queue, key: &'static str) -> Option<WriteError> {
        queue.push([write(key)]).pop().map(|(_, error)| error)
    }

    #[test]
    fn it_is_bounded_and_keeps_the_order() {
        let queue = Queue::new(2, 1000);
        assert_eq!([push(&queue, "a"), push(&queue, "b")], [None, None]);
        assert_eq!(push(&queue, "c"), Some(WriteError::Busy));
        assert_eq!(queue.wait(None), Wake::Writes);
        assert_eq!(queue.take().iter().map(|w| w.key.clone()).collect::<Vec<_>>(), ["a", "b"]);
        assert_eq!(push(&queue, "d"), None);
    }

    #[test]
    fn bytes_count_too_but_one_write_always_fits() {
        let queue = Queue::new(10, 8);
        assert_eq!(push(&queue, "much too long a key"), None);
        assert_eq!(push(&queue, "a"), Some(WriteError::Busy));
    }

    #[test]
    fn closed_it_hands_out_what_is_there_and_takes_nothing() {
        let queue = Queue::new(2, 1000);
        assert_eq!(push(&queue, "a"), None);
        queue.close();
        assert_eq!(push(&queue, "b"), Some(WriteError::Closed));
        assert_eq!((queue.wait(None), queue.take().len()), (Wake::Writes, 1));
        assert_eq!((queue.wait(None), queue.take().len()), (Wake::Closed, 0));
        assert_eq!(Queue::new(1, 1).wait(Some(Duration::ZERO)), Wake::Nothing);
    }
}
