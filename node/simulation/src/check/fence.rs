//! `INV-FENCE`: a replica takes no data that was routed by less than its newest epoch, or comes from one who is no member
//! of it.

use std::collections::BTreeMap;

use quorate_core::NodeId;
use quorate_core::antientropy;
use quorate_core::ring::Epoch;
use quorate_wire::peer::{Frame, Request, Response};

use crate::history::{Verdict, Violation};

/// Data on its way through the nodes, by whose it is: the run of the one who took it, who sent it, and its number.
#[derive(Default)]
pub(crate) struct Fence(BTreeMap<(u64, NodeId, u64), Option<String>>);

impl Fence {
    /// A message comes to a node that goes by an epoch.
    pub(crate) fn arrives(&mut self, run: u64, from: NodeId, frame: &Frame, newest: &Epoch) {
        let Frame::Request { id, request } = frame else { return };
        let Some(routed) = data_epoch(request) else { return };
        let known = newest.number();
        let is_member = newest.member(from).is_some_and(|member| member.state.takes_part());
        let wrong = if routed < known {
            Some(format!("that was routed by epoch {routed}, at epoch {known}"))
        } else if !is_member {
            Some(format!("from {from}, who is no member of epoch {known}"))
        } else {
            None
        };
        self.0.insert((run, from, *id), wrong);
    }

    /// A node answers.
    pub(crate) fn answers(&mut self, machine: usize, run: u64, to: NodeId, frame: &Frame) -> Verdict {
        let Frame::Response { id, response } = frame else { return Ok(()) };
        match (self.0.remove(&(run, to, *id)).flatten(), response) {
            (None, _) | (_, Response::Refused(_)) => Ok(()),
            (Some(wrong), _) => {
                Err(Violation::new("INV-FENCE", format!("n{machine} has taken data {wrong}")))
            }
        }
    }
}

/// The epoch by which data was routed.
fn data_epoch(request: &Request) -> Option<u64> {
    match request {
        Request::Replicate { epoch, .. } | Request::Hint { epoch, .. } => Some(*epoch),
        Request::Exchange { epoch, request: antientropy::Request::Push { .. } } => Some(*epoch),
        _ => None,
    }
}
