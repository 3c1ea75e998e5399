//! The Kubernetes operator of Quorate: turns a KVCluster into a running ring of nodes and keeps it whole.
//!
//! The files are the phases, in this order: [`crd`] says what may be asked for; [`observe`] is the only reader;
//! [`validate`] makes the only input of the builders; [`plan`] decides, purely; [`build`] makes objects, purely;
//! [`apply`] is the only writer; [`status`] says, purely, what came of it. [`controller`] is the driver; [`lease`],
//! [`metrics`] and [`server`] are around it.
#![forbid(unsafe_code)]

pub mod apply;
pub mod build;
pub mod controller;
pub mod crd;
#[cfg(test)]
mod fixtures;
pub mod lease;
pub mod metrics;
pub mod observe;
pub mod plan;
pub mod server;
pub mod status;
pub mod validate;
