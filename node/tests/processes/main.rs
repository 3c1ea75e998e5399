//! Tests of real node processes: what they promise to clients, and what they survive.

mod batch;
mod client_api;
mod conditional;
mod configuration;
mod crashes;
mod documents;
mod epochs;
mod harness;
mod hostile;
mod lifecycle;
mod metrics;
mod redis;
mod redis_rs;
mod users;
