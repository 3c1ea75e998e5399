//! Hinted handoff: writes that a node keeps for owners that are away, until they have them.
//!
//! The hints themselves are records of the store, named by [`HintName`] and merged like any other set. [`Hints`] is
//! what a node knows of them in memory: how many it keeps for whom, which go out next, and the books
//! (INV-HINT): *recovered + written = delivered + superseded + handed over + lost + held*, always.
//!
//! A hint is *stored* (durable), *in flight* (sent to the owner), and gone when the owner has acknowledged it
//! durably **and** the store has removed its record: a crash in between delivers it twice, which a merge does not
//! notice. A newer hint for the same key is merged into the one that is kept and *supersedes* it; an
//! acknowledgement of the older one then settles nothing. Hints belong to the partition, not to the host: when
//! the target owns it no more, the hint is *handed over* to all who do. *Lost* are hints whose record rotted.
//!
//! Policy when full: a hint beyond the bounds is **refused**, before anything is written, and none is ever dropped
//! to make room. A strict quorum never counts hints, so it loses nothing but the short cut (anti-entropy brings the
//! owner what it missed); a sloppy one that needed the hint tells the client that the write was not acknowledged.
//!
//! Invariants: the books balance (INV-HINT). Bytes for each target and in all are bounded, and so is what is in
//! flight (INV-BOUND). Nothing is decided here that needs a clock or a disk: time is an argument, deeds are results.
//!
//! Source: DeCandia et al., "Dynamo" (2007), section 4.6.

mod hints;
mod name;
#[cfg(test)]
mod tests;
mod throttle;

pub use hints::{
    Books, Delivery, Ended, Full, HINT_BYTES_MORE, Hints, IN_FLIGHT_MAX, Limits, Owed, Route, Settle,
};
pub use name::HintName;
pub use throttle::Throttle;
