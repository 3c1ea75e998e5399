//! The Kubernetes operator of Quorate: turns a KVCluster into a running ring of nodes and keeps it whole.
//!
//! The files are the phases, in this order: [`crd`] says what may be asked for; [`observe`] is the only reader;
//! [`validate`] makes the only input of the builders; [`plan`] decides, purely; [`build`] makes objects, purely;
//! [`apply`] is the only writer; [`status`] says, purely, what came of it. [`controller`] is the driver.
#![forbid(unsafe_code)]

pub mod crd;
