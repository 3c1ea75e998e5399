//! Connections between nodes: one outgoing connection to each peer that is talked to, one incoming from each
//! peer that talks, both multiplexed and driven by one task each.

mod connection;
mod handshake;
mod link;
mod server;

pub(crate) use handshake::Credentials;
pub(crate) use link::{CallError, Peers};
pub(crate) use server::{Handler, Reply, serve};
