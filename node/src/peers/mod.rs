//! Connections between nodes: one outgoing connection to each address that is talked to, one incoming from each
//! peer that talks, both multiplexed and driven by one task each.

mod connection;
mod handshake;
mod link;
mod server;
mod sessions;

pub(crate) use handshake::Credentials;
pub(crate) use link::{Links, NotSent};
pub(crate) use server::{Reply, serve};
pub(crate) use sessions::{Opened, Sessions};
