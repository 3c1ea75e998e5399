//! Planted bugs: mistakes that the simulator must catch, or its checkers prove nothing.
//!
//! Behind the feature `planted-bugs`, which only the simulator turns on; without it [`is`] is a constant and
//! no trace of them is left in the program. One bug at a time, on this thread.

/// A mistake that somebody could make, at the place where it would be made.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
#[non_exhaustive]
pub enum Bug {
    /// A write is acknowledged before it is synced.
    AcknowledgeBeforeSync,
    /// A node goes on with the number of its last start.
    ReuseStart,
    /// A disk that went back in time keeps its identity.
    SkipClaim,
    /// A hint counts in a strict quorum.
    CountHintInStrictQuorum,
    /// A write counts one acknowledgement twice.
    CountTwice,
    /// A read answers one reply early.
    ReadOneFewer,
    /// A read answers with one reply instead of with all replies together.
    SkipReadMerge,
    /// A hint is forgotten when it is sent, not when it is acknowledged.
    DropHint,
    /// A tombstone is collected as soon as one other owner has it.
    CollectTombstoneEarly,
    /// A tombstone is collected without fencing what is on its way.
    SkipFloors,
    /// A write with a stale context replaces what it has not seen.
    BelieveStaleContext,
    /// A replica keeps what came last instead of merging.
    OverwriteInsteadOfMerge,
    /// Last-write-wins goes by the wall clock alone.
    CompareByWallClock,
    /// A suspect's refutation is ignored.
    ForgetRefutation,
    /// An exchange calls a partition synced without having compared it.
    SkipExchange,
    /// An expired value is dropped by each replica on its own.
    ExpireLocally,
    /// A timeout is told as "not written".
    TimeoutMeansNotWritten,
    /// A failed sync is tried again on the same file.
    RetrySync,
    /// Read repair gives the stale replica nothing.
    SkipReadRepair,
    /// A replica takes writes that were routed by an epoch that it has left behind.
    SkipFence,
    /// Reads go by the newest epoch before its gainers are synced.
    MoveReadsEarly,
    /// An epoch is retired while a read quorum of it can form.
    RetireEarly,
    /// A gainer pulls from one owner fewer than it must.
    SyncFromOneFewer,
    /// A member deletes a partition that it lost without proof.
    DeleteBeforeProof,
    /// An epoch counts as seen while writes that were accepted before it are not applied.
    SkipBarrier,
    /// Tombstones are collected while data moves.
    CollectInTransition,
    /// Records that a lost segment may have outdated are shown to other owners.
    UnsureKeysLeave,
    /// A member that was removed coordinates on, and is believed.
    AdmitRemoved,
    /// A node goes by an epoch that is not on its disk yet.
    AdoptBeforeKept,
    /// A node tells how far it is before that is on its disk.
    TellBeforeKept,
    /// What a node refuses that has only just become a member, or has not heard yet of a new one, is refused for good.
    FinalRefusals,
}

impl Bug {
    /// Those that must be caught within a few hundred seeds: all but `SkipBarrier`, which is about a rare moment, and has a
    /// test of its own among those of the replica.
    pub const ALL: [Bug; 29] = [
        Bug::AcknowledgeBeforeSync,
        Bug::ReuseStart,
        Bug::SkipClaim,
        Bug::CountHintInStrictQuorum,
        Bug::CountTwice,
        Bug::ReadOneFewer,
        Bug::SkipReadMerge,
        Bug::DropHint,
        Bug::CollectTombstoneEarly,
        Bug::SkipFloors,
        Bug::BelieveStaleContext,
        Bug::OverwriteInsteadOfMerge,
        Bug::CompareByWallClock,
        Bug::ForgetRefutation,
        Bug::SkipExchange,
        Bug::ExpireLocally,
        Bug::TimeoutMeansNotWritten,
        Bug::RetrySync,
        Bug::SkipReadRepair,
        Bug::SkipFence,
        Bug::MoveReadsEarly,
        Bug::CollectInTransition,
        Bug::UnsureKeysLeave,
        Bug::RetireEarly,
        Bug::SyncFromOneFewer,
        Bug::DeleteBeforeProof,
        Bug::AdmitRemoved,
        Bug::AdoptBeforeKept,
        Bug::TellBeforeKept,
    ];

    /// Those that lose nothing, but let requests fail while the ring changes: calm runs must catch them.
    pub const CALM: [Bug; 1] = [Bug::FinalRefusals];
}

#[cfg(feature = "planted-bugs")]
mod switch {
    use std::cell::Cell;

    use super::Bug;

    thread_local! {
        static PLANTED: Cell<Option<Bug>> = const { Cell::new(None) };
    }

    /// Plants a bug on this thread, or none.
    pub fn plant(bug: Option<Bug>) {
        PLANTED.set(bug);
    }

    /// Whether this bug is planted.
    pub fn is(bug: Bug) -> bool {
        PLANTED.get() == Some(bug)
    }
}

#[cfg(feature = "planted-bugs")]
pub use switch::{is, plant};

/// Whether this bug is planted: never, in a real program.
#[cfg(not(feature = "planted-bugs"))]
#[inline(always)]
pub const fn is(_: Bug) -> bool {
    false
}
