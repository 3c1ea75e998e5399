//! One node of Quorate as a state machine without sockets, threads, clocks or dice.
//!
//! [`Replica`] coordinates requests, answers peers, watches who is alive, repairs. Whatever happens is told to it
//! by one of its methods, with the time; whatever it wants done comes out as an [`Effect`]. The node's shell moves
//! bytes and time for one of them, the simulator for many in one thread. So what the simulator tests is what runs.
//!
//! One idea a file: `write` and `read` coordinate, `serve` answers peers, `repair` heals what a read found stale,
//! `claim` makes sure that the disk did not go back in time, `ring` adopts epochs, `gossip` drives the failure
//! detector, `sync` compares whole partitions with co-owners in the
//! background, `hints` keeps writes for owners that are away, `collect` forgets what is deleted, `heal` brings back what
//! rotted, `content` fences what
//! is too old, `calls` are open requests, `timers` what is due.
//!
//! Bounds (INV-BOUND): operations in progress, calls and what they hold are limited by [`Config`]; a request that
//! finds no room is told [`Refusal::Busy`](quorate_wire::peer::Refusal).
#![forbid(unsafe_code)]

mod calls;
mod claim;
mod collect;
mod content;
mod gossip;
mod heal;
mod hints;
mod interface;
mod leave;
mod once;
mod pace;
mod read;
mod repair;
mod replica;
mod ring;
mod serve;
mod stats;
mod storage;
mod sync;

mod timers;
mod write;

pub use claim::KnownStart;
pub use interface::{
    AdoptError, Answer, ClientRequest, Completion, Config, Effect, Found, Identity, Inbox, Kept,
    MemberStatus, Now, Record, Remembered, RingStatus, Sender,
};
pub use replica::{Dice, Replica};
pub use stats::Stats;
pub use storage::{SlowRead, Storage};
