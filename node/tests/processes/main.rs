//! Tests of real node processes: what they promise to clients, and what they survive.

mod client_api;
mod crashes;
mod harness;
mod hostile;
mod lifecycle;
