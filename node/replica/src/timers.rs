//! What is due, and when.

use std::collections::BTreeSet;
use std::time::Duration;

/// What shall happen.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum Timer {
    /// A write's time is up.
    Write(u64),
    /// A read's time is up.
    Read(u64),
    /// A read waits too long for a replica.
    Hedge(u64),
    /// A write in a sloppy quorum waits too long for an owner.
    WriteHedge(u64),
    /// A call of no operation was not answered.
    Call(u64),
    /// Members that have not answered this start's claim are asked again.
    Claim,
    /// What was heard of the logs of others is put on the disk.
    KeepPositions,
    /// Hints may go out.
    Handoff,
    /// A request is sent again: the ring changes.
    Reroute(u64),
    /// Members are asked how far they are in a change of the ring.
    Ring,
    /// More of a lost partition is deleted.
    Leaving,
    /// A look for something to collect.
    Collect,
    /// The next step of anti-entropy.
    Exchange,
}

/// The timers that are set, the earliest first.
#[derive(Default)]
pub(crate) struct Timers(BTreeSet<(Duration, Timer)>);

impl Timers {
    pub(crate) fn set(&mut self, at: Duration, timer: Timer) {
        self.0.insert((at, timer));
    }

    pub(crate) fn cancel(&mut self, at: Duration, timer: Timer) {
        self.0.remove(&(at, timer));
    }

    /// Takes the earliest that is due.
    pub(crate) fn take_due(&mut self, now: Duration) -> Option<Timer> {
        self.0.first().filter(|(at, _)| *at <= now)?;
        self.0.pop_first().map(|(_, timer)| timer)
    }

    pub(crate) fn next(&self) -> Option<Duration> {
        self.0.first().map(|(at, _)| *at)
    }
}
