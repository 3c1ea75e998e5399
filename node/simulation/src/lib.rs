//! The simulator: many nodes in one thread, over simulated time, network, disks and dice, and checkers that watch them.
//!
//! What runs is the real thing: [`quorate_replica::Replica`] with all that it coordinates, and the storage engine with
//! its recovery. Only sockets, disks, clocks and dice are replaced. A seed stands for everything that is drawn, so the
//! same seed gives the same run, to the byte, on every machine: nothing here reads a real clock, an address, or the
//! order of a hash map.
//!
//! A run has two halves. In safety mode anything may go wrong at any time, and nothing that a client was told may turn
//! out wrong. Then faults stop, and in liveness mode everything must converge and answer.
//!
//! One idea a file: `scenario` says what a seed stands for, `world` what happens next, `process` runs a node, `network`
//! and `machine` are what it runs on, `fault` disturbs them, `operator` changes the ring as `changes` has drawn, `losses`
//! counts what is lost, `client` asks, `history` is the reference model, `check` holds
//! the promises, `watch` looks at a node after each step and `ending` at everything, `shrink` makes a failing schedule small.
#![forbid(unsafe_code)]

mod changes;
mod check;
mod client;
mod clock;
mod cold;
mod dice;
mod ending;
mod fault;
mod history;
mod losses;
mod machine;
mod network;
mod operator;
mod process;
mod queue;
mod scenario;
mod shrink;
mod trace;
mod watch;
mod world;

pub use history::Violation;
pub use scenario::Scenario;
pub use shrink::shrink;
pub use world::{Report, run, run_guarded};
