//! The replication protocol of Quorate, pure.
//!
//! Nothing here opens a socket or a file, reads a clock or throws dice: time, dice and messages are
//! arguments, actions are return values. The node is the shell around it; the simulator and the property
//! tests run the same code.
//!
//! One module a concept: [`ring`] says who owns a key, [`causality`] says which value is newer,
//! [`quorum`] says when an operation is decided, [`membership`] says who is alive, [`antientropy`] makes replicas
//! equal, [`handoff`] says which hints are owed to whom, [`collection`] says when a deleted key may be forgotten,
//! [`transition`] changes the ring without losing a write.
#![forbid(unsafe_code)]

pub mod antientropy;
mod bounded;
pub mod causality;
pub mod collection;
pub mod handoff;
pub mod id;
pub mod limits;
pub mod membership;
pub mod planted;
pub mod quorum;
pub mod ring;
pub mod transition;

pub use id::{ClusterId, NodeId};
