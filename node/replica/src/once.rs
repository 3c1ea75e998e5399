//! A forwarded write makes a dot, so it is carried out at most once, however often its message comes: done twice, a blind
//! write would stand beside itself, and after a delete it would bring the value back (INV-NOZOMBIE).

use std::collections::{BTreeMap, BTreeSet};

use quorate_core::NodeId;

use crate::interface::Sender;

/// Requests of one sender that are told apart; one that is older than all of them is not carried out.
const WINDOW: usize = 8192;

#[derive(Default)]
struct Seen {
    start: u64,
    requests: BTreeSet<u64>,
    /// Every request up to here counts as seen.
    through: u64,
}

/// The requests that were carried out.
#[derive(Default)]
pub(crate) struct Once(BTreeMap<NodeId, Seen>);

impl Once {
    /// Whether a request, by its sender's number, comes for the first time. Numbers grow within a start.
    pub(crate) fn is_first(&mut self, from: Sender, request: u64) -> bool {
        let seen = self.0.entry(from.node).or_default();
        if from.start < seen.start {
            return false;
        }
        if from.start > seen.start {
            *seen = Seen { start: from.start, ..Seen::default() };
        }
        if request <= seen.through || !seen.requests.insert(request) {
            return false;
        }
        if seen.requests.len() > WINDOW {
            seen.through = seen.requests.pop_first().unwrap_or(seen.through);
        }
        true
    }

    /// Lets go of senders that are no members any more.
    pub(crate) fn retain(&mut self, is_member: impl Fn(NodeId) -> bool) {
        self.0.retain(|node, _| is_member(*node));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_first_once_and_never_again() {
        let mut once = Once::default();
        let from = |start| Sender { node: NodeId::from_u128(1), start };
        assert!(once.is_first(from(1), 7) && once.is_first(from(1), 5));
        assert!(!once.is_first(from(1), 7));
        assert!(once.is_first(from(2), 7), "another start counts anew");
        assert!(!once.is_first(from(1), 9), "the earlier one is over");
        (100..=100 + WINDOW as u64).for_each(|number| assert!(once.is_first(from(2), number)));
        assert!(!once.is_first(from(2), 50), "older than all that is remembered");
    }
}
