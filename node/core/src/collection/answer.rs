//! The participants' side: what an owner or a fallback does with a leader's request.

use super::message::{Candidate, Refused, Reply, Request, RoundId, Step};
use super::{Floors, Mark};
use crate::id::NodeId;
use crate::ring::{Partition, PartitionCount};

/// What a node holds.
pub trait Holder {
    /// Whether this node holds durably exactly this set, and it has no live value by the node's own clock. False
    /// whenever that is not certain.
    fn holds_dead(&self, partition: Partition, candidate: &Candidate) -> bool;

    /// Whether this node keeps a hint for this key, for whomever, stored or being stored.
    fn keeps_hint(&self, partition: Partition, key: &[u8]) -> bool;
}

/// How a request is answered.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Answer {
    /// With this.
    Reply(Reply),
    /// With [`Reply::Collected`], when each of these is forgotten, if the store still holds exactly that digest when
    /// it comes to it.
    Forget {
        /// Which round.
        round: RoundId,
        /// Where.
        partition: Partition,
        /// What.
        candidates: Vec<Candidate>,
    },
}

/// Answers a leader. The caller has checked that it and the leader hold the same newest epoch (or answers
/// [`Reply::Declined`]), and that it is a participant; `mine` is its mark now.
pub fn answer(
    request: Request,
    partitions: PartitionCount,
    mine: Mark,
    floors: &mut Floors,
    holder: &impl Holder,
) -> Result<Answer, Refused> {
    request.check(partitions)?;
    // Nothing is sent between the look at what is held and the mark: both are of this moment.
    let cleared =
        |step, clear: Vec<u16>, round| Answer::Reply(Reply::Cleared { round, step, clear, mark: mine });
    Ok(match request {
        Request::Confirm { round, partition, candidates } => {
            let is_clear = |candidate: &Candidate| holder.holds_dead(partition, candidate);
            cleared(Step::Confirm, positions(&candidates, is_clear), round)
        }
        Request::Fence { round, partition, floors: marks, keys } => {
            if !raise(floors, &marks) {
                return Ok(Answer::Reply(Reply::Declined { round }));
            }
            // Only now: a late hint must not come in between.
            let is_clear = |key: &bytes::Bytes| !holder.keeps_hint(partition, key);
            cleared(Step::Fence, positions(&keys, is_clear), round)
        }
        Request::Collect { round, partition, floors: marks, candidates } => {
            if !raise(floors, &marks) {
                return Ok(Answer::Reply(Reply::Declined { round }));
            }
            Answer::Forget { round, partition, candidates }
        }
    })
}

fn raise(floors: &mut Floors, marks: &[(NodeId, Mark)]) -> bool {
    marks.iter().fold(true, |all, &(node, mark)| floors.lift(node, mark) && all)
}

fn positions<T>(items: &[T], is_clear: impl Fn(&T) -> bool) -> Vec<u16> {
    let clear = items.iter().enumerate().filter(|(_, item)| is_clear(item));
    // At most `CANDIDATES_MAX`, so the cast cannot truncate.
    clear.map(|(at, _)| at as u16).collect()
}
