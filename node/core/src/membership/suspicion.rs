//! How long a suspect may stay one (Lifeguard, section IV-B): long while one node alone suspects it, since
//! that one may be the slow one; short when others found the same by themselves.

use std::collections::BTreeSet;
use std::time::Duration;

use super::config::Config;
use crate::id::NodeId;

/// So many independent confirmations shorten a suspicion to its minimum.
const CONFIRMATIONS_MAX: usize = 3;
/// How much of the way from the longest to the shortest time is gone, in thousandths: log(c+1) / log(k+1)
/// after c of k confirmations, by k and c.
const GONE_PERMILLE: [&[u32]; CONFIRMATIONS_MAX + 1] =
    [&[0], &[0, 1000], &[0, 631, 1000], &[0, 500, 792, 1000]];

pub(super) struct Suspicion {
    began: Duration,
    accusers: BTreeSet<NodeId>,
}

impl Suspicion {
    pub(super) fn new(accuser: NodeId, now: Duration) -> Self {
        Self { began: now, accusers: BTreeSet::from([accuser]) }
    }

    /// Whether this is another accuser, and one that still counts.
    pub(super) fn confirm(&mut self, accuser: NodeId) -> bool {
        self.accusers.len() <= CONFIRMATIONS_MAX && self.accusers.insert(accuser)
    }

    /// When it ends, in a cluster of `nodes`.
    pub(super) fn ends(&self, config: &Config, nodes: usize) -> Duration {
        // Everybody but the suspect and the first accuser can confirm. In a small cluster fewer suffice.
        let wanted = nodes.saturating_sub(2).min(CONFIRMATIONS_MAX);
        let confirmations = (self.accusers.len() - 1).min(wanted);
        let span = config.suspicion_max - config.suspicion_min;
        let timeout = config.suspicion_max - span * GONE_PERMILLE[wanted][confirmations] / 1000;
        // News travel in logarithmic time, so must the right to refute them: about log10, and never below 1.
        let scale_permille = (301 * nodes.max(1).ilog2()).max(1000);
        self.began + timeout * scale_permille / 1000
    }

    /// This node was paused: the suspect could not be heard for so long.
    pub(super) fn postpone(&mut self, by: Duration) {
        self.began += by;
    }
}
