//! A real Kubernetes on one bare machine, and the tests that run on it.
#![forbid(unsafe_code)]
