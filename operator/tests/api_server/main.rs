//! The operator against a real API server, with nodes that answer as real ones do.
//!
//! `QUORATE_TEST_KUBECONFIG` names the kubeconfig of an API server with every right; nothing else of Kubernetes need
//! run: the tests make the pods themselves. Each test has namespaces and addresses of its own.

mod deaths;
mod epochs;
mod fake_node;
mod incarnations;
mod kubernetes;
mod leading;
mod many;
mod members;
mod outage;
mod refusals;
mod repairs;
mod restarts;
mod rolling;
mod stale;
mod volumes;
mod world;
