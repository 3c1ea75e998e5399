//! Tests of real node processes: what they promise to clients, and what they survive.

mod client_api;
mod configuration;
mod crashes;
mod epochs;
mod harness;
mod hostile;
mod lifecycle;
mod metrics;
mod redis;
