//! What must hold, one promise a file.
//!
//! `amnesia`, `outdated` and `siblings` look at every set that anybody sends or reads, `overlap` at every read that is
//! answered, `answers` at every request, `fence` at all data that a node takes, `bound` at every node after every step, `epoch`,
//! `handover` and `proof` when it has gone a step further in a change of the ring; `ack`, `converge`, `hint`, `quiet` and
//! `settle` at the end, when faults are long over.

pub(crate) mod ack;
pub(crate) mod amnesia;
pub(crate) mod answers;
pub(crate) mod bound;
pub(crate) mod converge;
pub(crate) mod epoch;
pub(crate) mod fence;
pub(crate) mod handover;
pub(crate) mod hint;
pub(crate) mod outdated;
pub(crate) mod overlap;
pub(crate) mod proof;
pub(crate) mod quiet;
pub(crate) mod settle;
