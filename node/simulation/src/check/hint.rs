//! `INV-HINT`: a hint that a fallback acknowledged reaches its owner, or what replaced it does.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use quorate_core::NodeId;
use quorate_core::causality::{Dot, VersionSet};
use quorate_wire::peer::{Frame, Request, Response};

use crate::history::{History, KeyId, Verdict, Violation, When, key_of};

/// A hint on its way, or kept.
#[derive(Clone, Debug)]
pub(crate) struct Hint {
    pub(crate) target: NodeId,
    pub(crate) key: KeyId,
    dots: Vec<Dot>,
    /// Who keeps it.
    pub(crate) keeper: Option<NodeId>,
}

/// The hints that were sent, and those that were acknowledged.
#[derive(Default)]
pub(crate) struct Hints {
    /// By the run of the coordinator and its number of the request.
    sent: BTreeMap<(usize, u64, u64), Hint>,
    kept: Vec<Hint>,
}

impl Hints {
    /// A machine, in a run, sends a frame.
    pub(crate) fn sends(&mut self, machine: usize, run: u64, frame: &Frame) {
        if let Frame::Request { id, request: Request::Hint { target, key, set, .. } } = frame
            && let Some(key) = key_of(key)
        {
            let dots = set.versions().iter().map(|version| version.dot).collect();
            self.sent.insert((machine, run, *id), Hint { target: *target, key, dots, keeper: None });
        }
    }

    /// A node answers a run of a machine.
    pub(crate) fn answers(&mut self, keeper: NodeId, machine: usize, run: u64, frame: &Frame) {
        if let Frame::Response { id, response: Response::Applied } = frame
            && let Some(mut hint) = self.sent.remove(&(machine, run, *id))
        {
            hint.keeper = Some(keeper);
            self.kept.push(hint);
        }
    }

    pub(crate) fn kept(&self) -> &[Hint] {
        &self.kept
    }
}

/// A hint that was kept, and what its owner holds at the end.
pub(crate) fn delivered(history: &History, hint: &Hint, set: &VersionSet, now: Duration) -> Verdict {
    let missing = hint.dots.iter().find(|dot| {
        !set.context().covers(**dot)
            && history.write_of(**dot).is_none_or(|write| !history.reflects(set, write, When::at(now)))
    });
    let Some(dot) = missing else { return Ok(()) };
    let what = format!(
        "{:?} kept a hint of key-{} for {}, with {dot:?}, and the owner never got it",
        hint.keeper, hint.key, hint.target
    );
    Err(Violation::new("INV-HINT", what))
}

/// The key of a hint that is still kept, for people.
pub(crate) fn left(machine: usize, keys: u64, first: Option<&Bytes>) -> Violation {
    let what =
        format!("n{machine} still keeps {keys} hints when all owners are back; the first is {first:?}");
    Violation::new("INV-HINT", what)
}
