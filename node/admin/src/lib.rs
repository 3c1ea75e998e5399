//! The admin API of a node: its types ([`types`]) and a client ([`Client`]).
//!
//! HTTP and JSON on the node's peer port (5000 by default). Every request under `/v1` carries
//! `Authorization: Bearer <the cluster's secret>`; `/healthz`, `/readyz` and `/metrics` ask for nothing.
//!
//! | request | answer |
//! | --- | --- |
//! | `GET /v1/status` | [`types::NodeStatus`]: identity, epoch, health and members in one reading |
//! | `GET /v1/identity` | [`types::Identity`] |
//! | `GET /v1/members` | [`types::Members`], as this node sees them |
//! | `GET /v1/health` | [`types::Health`] |
//! | `GET /v1/epoch` | the [`quorate_core::ring::Epoch`], or 404 `no_epoch` |
//! | `PUT /v1/epoch` | pushes an epoch, answers [`quorate_core::ring::EpochMark`], or 409 `epoch_conflict` |
//!
//! Every error is a [`types::ErrorBody`].
#![forbid(unsafe_code)]

mod client;
pub mod types;

pub use client::{Client, ClientError};
