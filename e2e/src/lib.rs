//! A real Kubernetes on one bare machine, and the tests that run on it.
//!
//! The cluster is real where it matters: etcd, API server, controllers and scheduler as processes, and three
//! nodes in three zones, each a set of namespaces with its own kubelet, containerd and kube-proxy.
#![forbid(unsafe_code)]

pub mod apiserver;
pub mod cache;
pub mod certs;
pub mod cgroup;
pub mod cluster;
pub mod control_plane;
pub mod debian;
pub mod error;
pub mod helm;
pub mod image;
pub mod journal;
pub mod kind;
pub mod kubectl;
pub mod kubernetes;
pub mod layout;
pub mod load;
pub mod network;
pub mod node;
pub mod process;
pub mod product;
pub mod progress;
pub mod run;
pub mod store;
pub mod target;
pub mod tests;
pub mod tools;
pub mod up;
pub mod vitals;
pub mod volumes;
pub mod wheel;

pub use error::Error;
