//! Who stands in for the owners of a partition.
//!
//! The members after the owners in a partition's preference list: they count for a sloppy quorum and keep
//! hints. A function of the epoch alone, so that every node names the same ones, whoever is down: who keeps a
//! hint can be asked for it (INV-NOZOMBIE, INV-HINT).
//!
//! By rendezvous: a member's place in the list is the hash of partition and NodeId. So the hints of a lost
//! member spread over all the others, and a join or leave leaves the order of the rest as it is.
//! Source: Thaler, Ravishankar, "Using name-based mappings to increase hit rates" (1998).

use std::cmp::Reverse;

use xxhash_rust::xxh3::xxh3_64;

use super::{Member, MemberState, Partition};
use crate::id::NodeId;

/// Up to `count` members that could own partitions, other than the owners of this one. First those of the
/// zones that hold the fewest of the owners and of the fallbacks before, so that a lost zone takes few.
pub(super) fn choose<'a>(
    members: &'a [Member],
    owners: &[&Member],
    partition: Partition,
    count: usize,
) -> Vec<&'a Member> {
    let mut taken: Vec<&Option<String>> = owners.iter().map(|owner| &owner.zone).collect();
    let mut rest: Vec<(u64, &Member)> = members
        .iter()
        .filter(|m| m.state == MemberState::Active && m.weight > 0)
        .filter(|m| owners.iter().all(|owner| owner.id != m.id))
        .map(|m| (score(partition, m.id), m))
        .collect();
    rest.sort_unstable_by_key(|&(score, member)| (Reverse(score), member.id));
    let mut chosen = Vec::with_capacity(count.min(rest.len()));
    while chosen.len() < count && !rest.is_empty() {
        let crowd = |(_, m): &(u64, &Member)| taken.iter().filter(|zone| **zone == &m.zone).count();
        let crowds = rest.iter().map(crowd);
        let Some((next, _)) = crowds.enumerate().min_by_key(|&(at, crowd)| (crowd, at)) else { break };
        let (_, member) = rest.remove(next);
        taken.push(&member.zone);
        chosen.push(member);
    }
    chosen
}

fn score(partition: Partition, member: NodeId) -> u64 {
    let mut name = [0; 18];
    name[..2].copy_from_slice(&partition.0.to_be_bytes());
    name[2..].copy_from_slice(member.as_bytes());
    xxh3_64(&name)
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use crate::id::{ClusterId, NodeId};
    use crate::ring::planner::{first_epoch, next};
    use crate::ring::{Epoch, Member, MemberState, Partition, Replication};

    fn members(count: u128, zones: u128) -> Vec<Member> {
        let zone = |id| (zones > 0).then(|| format!("zone-{}", id % zones));
        let member = |id| Member {
            id: NodeId::from_u128(id),
            name: format!("node-{id}"),
            address: format!("node-{id}:5000"),
            zone: zone(id),
            weight: 1,
            state: MemberState::Active,
        };
        (1..=count).map(member).collect()
    }

    fn epoch(members: Vec<Member>) -> Epoch {
        let replication = Replication { factor: 3, read_quorum: 2, write_quorum: 2 };
        first_epoch(ClusterId::from_u128(1), 256, replication, members).unwrap()
    }

    fn ids(epoch: &Epoch, partition: Partition, count: usize) -> Vec<NodeId> {
        epoch.fallbacks(partition, count).iter().map(|m| m.id).collect()
    }

    #[test]
    fn every_member_that_may_own_and_does_not_stands_in() {
        let mut list = members(7, 0);
        list[5].state = MemberState::Leaving;
        list[6].weight = 0;
        let epoch = epoch(list);
        for p in epoch.partitions().iter() {
            let fallbacks = ids(&epoch, p, 9);
            let all: BTreeSet<_> = epoch.owners(p).map(|m| m.id).chain(fallbacks.iter().copied()).collect();
            assert_eq!((fallbacks.len(), all), (2, (1..=5).map(NodeId::from_u128).collect()));
            assert_eq!(ids(&epoch, p, 1), fallbacks[..1], "a shorter list is the beginning of a longer one");
        }
        assert!(epoch.fallbacks(Partition(0), 0).is_empty());
    }

    #[test]
    fn the_order_never_changes() {
        // Nodes of different versions must name the same fallbacks: pinned for good.
        let scores =
            [(0, 1), (0, 2), (1, 1)].map(|(p, id)| super::score(Partition(p), NodeId::from_u128(id)));
        assert_eq!(
            scores,
            [7_860_653_940_354_551_889, 13_557_759_698_338_363_218, 12_521_546_057_306_193_756]
        );
    }

    #[test]
    fn a_ring_of_owners_only_has_no_fallbacks() {
        assert!(epoch(members(3, 0)).fallbacks(Partition(0), 3).is_empty());
    }

    #[test]
    fn fallbacks_spread_over_the_zones() {
        let epoch = epoch(members(20, 4));
        for p in epoch.partitions().iter() {
            let fallbacks = epoch.fallbacks(p, 5);
            let zones: Vec<_> = epoch.owners(p).chain(fallbacks.iter().copied()).map(|m| &m.zone).collect();
            assert_eq!(BTreeSet::from_iter(&zones[..4]).len(), 4, "the first is where no owner is");
            assert_eq!(BTreeSet::from_iter(&zones[4..]).len(), 4, "and the next are apart");
        }
    }

    #[test]
    fn the_hints_of_a_lost_member_spread_over_the_others() {
        let epoch = epoch(members(20, 0));
        let lost = NodeId::from_u128(1);
        let mut kept: BTreeMap<NodeId, usize> = BTreeMap::new();
        for p in epoch.partitions().iter().filter(|&p| epoch.owns(lost, p)) {
            *kept.entry(ids(&epoch, p, 1)[0]).or_default() += 1;
        }
        assert!(kept.len() >= 14 && kept.values().all(|&partitions| partitions <= 8), "{kept:?}");
    }

    #[test]
    fn a_join_leaves_the_order_of_the_rest() {
        let before = epoch(members(9, 0));
        let after = next(&before, members(10, 0), before.replication()).unwrap();
        let new = NodeId::from_u128(10);
        for p in before.partitions().iter() {
            let owner = |id: &NodeId| after.owns(*id, p) || before.owns(*id, p);
            let rest = |epoch: &Epoch| -> Vec<NodeId> {
                ids(epoch, p, 9).into_iter().filter(|id| !owner(id) && *id != new).collect()
            };
            assert_eq!(rest(&before), rest(&after));
        }
    }
}
