//! Computes replica sets: who owns each partition, in which order of preference.
//!
//! The plan is a function of its input alone: the same members, in whatever order, give the same epoch. What
//! every plan keeps, strongest law first:
//!
//! 1. a replica set has N distinct members, in as many distinct zones as exist (at most N);
//! 2. members hold shares in proportion to their weights, as nearly as whole replicas and law 1 allow;
//! 3. each member stands at each position of preference in its share of the lists, since the first is asked
//!    first;
//! 4. [`next`] moves no more replicas than it must.
//!
//! Three steps, a file each: `share` says how many replicas a member shall hold, `layout` says of which
//! partitions, `preference` puts each set in order.

mod layout;
mod preference;
mod share;

use std::collections::HashMap;

use super::{Epoch, EpochError, Member, MemberState, PartitionCount, Replication};
use crate::id::{ClusterId, NodeId};
use layout::Layout;
use share::{Candidate, Shares};

/// Why there is no plan.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[allow(missing_docs)] // The messages are the documentation.
pub enum PlanError {
    #[error(
        "{eligible} active members with a weight above 0, but N={factor} replicas need as many members: \
         add members, or lower N"
    )]
    TooFewMembers { eligible: usize, factor: u8 },
    #[error(
        "member {id} was removed in an earlier epoch, for good (INV-FENCE): let the node join with an empty disk"
    )]
    Revived { id: NodeId },
    #[error("member {id} of epoch {previous} is not listed: list it, as leaving or removed if it shall go")]
    Forgotten { id: NodeId, previous: u64 },
    #[error(transparent)]
    Epoch(#[from] EpochError),
}

/// Plans the first epoch of a ring.
///
/// Members that are not active, or have weight 0, are named by the epoch and own nothing.
pub fn first_epoch(
    cluster: ClusterId,
    partitions: u32,
    replication: Replication,
    members: Vec<Member>,
) -> Result<Epoch, PlanError> {
    let count = PartitionCount::try_from(partitions)?;
    let field = Field::new(members, replication, |_| 0)?;
    let shares = Shares::of(&field.candidates, field.zones, count.get() as usize, field.factor);
    let layout = Layout::fresh(&shares, count.get() as usize);
    Ok(Epoch::new(cluster, None, replication, field.members, preference::order(layout, &field.positions))?)
}

/// Plans the epoch after `previous`: for these members (all of them, removed ones included), moving as little
/// as possible.
pub fn next(previous: &Epoch, members: Vec<Member>, replication: Replication) -> Result<Epoch, PlanError> {
    check_succession(previous, &members)?;
    let count = previous.partitions().get() as usize;
    let mut owned: HashMap<NodeId, usize> = HashMap::new();
    for owner in previous.partitions().iter().flat_map(|p| previous.owners(p)) {
        *owned.entry(owner.id).or_default() += 1;
    }
    let field = Field::new(members, replication, |id| owned.get(&id).copied().unwrap_or(0))?;
    let shares = Shares::of(&field.candidates, field.zones, count, field.factor);
    let candidate_of: HashMap<NodeId, usize> =
        field.positions.iter().enumerate().map(|(c, &at)| (field.members[usize::from(at)].id, c)).collect();
    let before = previous.partitions().iter().map(|p| {
        let owners = previous.owners(p);
        owners.filter_map(|owner| candidate_of.get(&owner.id).copied()).collect()
    });
    let layout = Layout::after(before.collect(), &shares);
    let replicas = preference::order(layout, &field.positions);
    Ok(Epoch::new(previous.cluster(), Some(previous.mark()), replication, field.members, replicas)?)
}

/// Membership only moves forward: nobody is dropped without being marked, nobody removed returns.
fn check_succession(previous: &Epoch, members: &[Member]) -> Result<(), PlanError> {
    let listed: HashMap<NodeId, MemberState> = members.iter().map(|m| (m.id, m.state)).collect();
    for Member { id, state: before, .. } in previous.members() {
        match listed.get(id) {
            None => return Err(PlanError::Forgotten { id: *id, previous: previous.number() }),
            Some(now) if !before.takes_part() && now.takes_part() => {
                return Err(PlanError::Revived { id: *id });
            }
            Some(_) => {}
        }
    }
    Ok(())
}

/// The members in their final order, and those of them that can own partitions.
struct Field {
    members: Vec<Member>,
    candidates: Vec<Candidate>,
    /// The position in `members` of each candidate.
    positions: Vec<u16>,
    /// How many distinct zones the candidates are in.
    zones: usize,
    factor: usize,
}

impl Field {
    fn new(
        mut members: Vec<Member>,
        replication: Replication,
        held: impl Fn(NodeId) -> usize,
    ) -> Result<Self, PlanError> {
        replication.check()?;
        if members.len() > crate::limits::MEMBERS_MAX {
            return Err(EpochError::MemberCount { count: members.len() }.into());
        }
        // By id, so that the order of the caller's list means nothing.
        members.sort_by_key(|m| m.id);
        let (mut candidates, mut positions) = (Vec::new(), Vec::new());
        let mut zones: HashMap<&Option<String>, usize> = HashMap::new();
        for (position, member) in members.iter().enumerate() {
            if member.state != MemberState::Active || member.weight == 0 {
                continue;
            }
            let unseen = zones.len();
            let zone = *zones.entry(&member.zone).or_insert(unseen);
            candidates.push(Candidate { weight: member.weight, zone, held: held(member.id) });
            positions.push(position as u16); // MEMBERS_MAX fits.
        }
        let (eligible, zones) = (candidates.len(), zones.len());
        if eligible < usize::from(replication.factor) {
            return Err(PlanError::TooFewMembers { eligible, factor: replication.factor });
        }
        Ok(Self { members, candidates, positions, zones, factor: usize::from(replication.factor) })
    }
}

#[cfg(test)]
mod tests;
