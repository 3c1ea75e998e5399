//! What goes over the network, pure: bytes in, messages out, and back.
//!
//! [`frame`] cuts a stream into frames, [`handshake`] proves that both ends know the cluster's secret,
//! [`peer`] is what nodes say to each other, [`context`] is the causal context as clients carry it, [`resp`] is what Redis
//! clients speak.
#![forbid(unsafe_code)]

pub mod context;
pub mod frame;
pub mod handshake;
pub mod peer;
pub mod resp;
