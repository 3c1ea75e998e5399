//! What must hold, one promise a file.
//!
//! `amnesia`, `outdated` and `siblings` look at every set that anybody sends or reads, `overlap` at every read that is
//! answered, `answers` at every request, `bound` at every node after every step; `ack`, `converge`, `hint`, `quiet` and
//! `settle` at the end,
//! when faults are long over.

pub(crate) mod ack;
pub(crate) mod amnesia;
pub(crate) mod answers;
pub(crate) mod bound;
pub(crate) mod converge;
pub(crate) mod hint;
pub(crate) mod outdated;
pub(crate) mod overlap;
pub(crate) mod quiet;
pub(crate) mod settle;
