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
    /// Writes wait.
    Writes,
    /// Nothing arrived in time.
    Nothing,
    /// Nothing will arrive any more.
    Closed,
}

#[derive(Default)]
struct Inner {
    writes: VecDeque<Write>,
    bytes: usize,
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

    /// Takes a write, or gives it back with the reason. One write is always taken by an empty queue, however large.
    pub(crate) fn push(&self, write: Write) -> Result<(), (Box<Write>, WriteError)> {
        let bytes = write.key.len() + write.change.bytes_max();
        let mut inner = lock(&self.inner);
        if inner.closed {
            return Err((Box::new(write), WriteError::Closed));
        }
        let full = inner.writes.len() >= self.writes_max || inner.bytes + bytes > self.bytes_max;
        if full && !inner.writes.is_empty() {
            return Err((Box::new(write), WriteError::Busy));
        }
        inner.bytes += bytes;
        inner.writes.push_back(write);
        if inner.sleeping {
            inner.sleeping = false;
            self.arrived.notify_one();
        }
        Ok(())
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
            if !inner.writes.is_empty() {
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

    fn error(result: Result<(), (Box<Write>, WriteError)>) -> Option<WriteError> {
        result.err().map(|(_, error)| error)
    }

    #[test]
    fn it_is_bounded_and_keeps_the_order() {
        let queue = Queue::new(2, 1000);
        assert_eq!([error(queue.push(write("a"))), error(queue.push(write("b")))], [None, None]);
        assert_eq!(error(queue.push(write("c"))), Some(WriteError::Busy));
        assert_eq!(queue.wait(None), Wake::Writes);
        assert_eq!(queue.take().iter().map(|w| w.key.clone()).collect::<Vec<_>>(), ["a", "b"]);
        assert_eq!(error(queue.push(write("d"))), None);
    }

    #[test]
    fn bytes_count_too_but_one_write_always_fits() {
        let queue = Queue::new(10, 8);
        assert_eq!(error(queue.push(write("much too long a key"))), None);
        assert_eq!(error(queue.push(write("a"))), Some(WriteError::Busy));
    }

    #[test]
    fn closed_it_hands_out_what_is_there_and_takes_nothing() {
        let queue = Queue::new(2, 1000);
        assert_eq!(error(queue.push(write("a"))), None);
        queue.close();
        assert_eq!(error(queue.push(write("b"))), Some(WriteError::Closed));
        assert_eq!((queue.wait(None), queue.take().len()), (Wake::Writes, 1));
        assert_eq!((queue.wait(None), queue.take().len()), (Wake::Closed, 0));
        assert_eq!(Queue::new(1, 1).wait(Some(Duration::ZERO)), Wake::Nothing);
    }
}
