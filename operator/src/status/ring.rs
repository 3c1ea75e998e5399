//! What is said of the ring and of each of its members.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::jiff::Timestamp;
use quorate_admin::types::{NodeStatus, StorageState};
use quorate_core::NodeId;
use quorate_core::ring::{Epoch, Member, MemberState, Partition};

use super::count;
use crate::crd::{KVCluster, MemberStatus, NodeState, RingStatus, TransitionStatus};
use crate::observe::{Observed, PodState, RingState};
use crate::plan::is_member;

/// Smaller differences of the size of a log are no news.
const DATA_BYTES_STEP_MIN: u64 = 1 << 20;
const HOUR_SECONDS: i64 = 3600;

/// Those that stay.
pub(super) fn member_count(epoch: &Epoch) -> i32 {
    count(epoch.members().iter().filter(|member| member.state == MemberState::Active))
}

/// The ring as its members tell it.
pub(super) fn ring(epoch: Option<&Epoch>, cluster: &KVCluster, observed: &Observed) -> RingStatus {
    let cluster_id = match &observed.ring {
        RingState::Present(ring) => Some(ring.cluster_id),
        RingState::Absent | RingState::Malformed(_) => observed.recorded_cluster_id,
    };
    let cluster_id = cluster_id.map(|id| id.to_string());
    let Some(epoch) = epoch else {
        return RingStatus { cluster_id, partitions: cluster.spec.ring.partitions, ..RingStatus::default() };
    };
    let owners_up = |p| {
        let up = |id| status_of(observed, id).is_some_and(|(_, status)| takes_part(epoch, status));
        epoch.owners(p).filter(|member| up(member.id)).count()
    };
    let up: Vec<usize> = epoch.partitions().iter().map(owners_up).collect();
    let replication = epoch.replication();
    let quorum = usize::from(replication.read_quorum.max(replication.write_quorum));
    RingStatus {
        cluster_id,
        epoch: i64::try_from(epoch.number()).ok(),
        partitions: i32::try_from(epoch.partitions().get()).unwrap_or(i32::MAX),
        partitions_at_quorum: count(up.iter().filter(|up| **up >= quorum)),
        partitions_in_full: count(up.iter().filter(|up| **up >= usize::from(replication.factor))),
        transition: change(epoch, observed),
    }
}

/// What the members say is left to do.
fn change(epoch: &Epoch, observed: &Observed) -> Option<TransitionStatus> {
    let RingState::Present(ring) = &observed.ring else { return None };
    let answers = observed.pods.iter().filter_map(PodState::status);
    let (held, others): (Vec<&NodeStatus>, Vec<&NodeStatus>) = answers
        .filter(|status| is_member(epoch, status.identity.node_id))
        // A program that says nothing of changes has none.
        .filter(|status| status.transition.newest_epoch != 0 || status.epoch.is_none())
        .partition(|status| status.epoch == Some(epoch.mark()));
    let changes = || held.iter().map(|status| &status.transition);
    let is_old = |status: &&NodeStatus| status.epoch.is_some_and(|held| held.number < epoch.number());
    let oldest_behind =
        others.iter().filter(|status| is_old(status)).map(|s| s.transition.oldest_epoch).min();
    if epoch.number() == 1 || (oldest_behind.is_none() && changes().all(|change| change.is_settled())) {
        return None;
    }
    let oldest = changes().map(|change| change.oldest_epoch).chain(oldest_behind).min();
    let total = epoch.partitions().get();
    let untouched = oldest_behind.map(|_| total);
    let unretired = changes().map(|change| change.partitions_unretired).chain(untouched).max().unwrap_or(0);
    let waiting_for: BTreeSet<NodeId> =
        changes().flat_map(|change| change.waiting_for.iter().copied()).collect();
    let mut names: Vec<&str> = waiting_for
        .into_iter()
        .filter_map(|id| epoch.member(id))
        .map(|member| member.name.as_str())
        .collect();
    names.sort_by_key(|name| (name.len(), *name));
    let narrow = |count: u32| i32::try_from(count).unwrap_or(i32::MAX);
    let done = total.saturating_sub(unretired);
    Some(TransitionStatus {
        from_epoch: oldest.and_then(|oldest| i64::try_from(oldest).ok()).unwrap_or_default(),
        to_epoch: i64::try_from(epoch.number()).unwrap_or_default(),
        reason: ring.change.map(|change| change.to_string()),
        partitions_unretired: narrow(unretired),
        partitions_syncing: narrow(changes().map(|change| change.partitions_syncing).sum()),
        partitions_leaving: narrow(changes().map(|change| change.partitions_leaving).sum()),
        waiting_for: names.into_iter().map(str::to_owned).collect(),
        percent: narrow(u32::try_from(u64::from(done) * 100 / u64::from(total)).unwrap_or(0)),
    })
}

/// Whether a replica counts for quorums. While an epoch is on its way, who does not have it yet serves by the one
/// before.
fn takes_part(epoch: &Epoch, status: &NodeStatus) -> bool {
    let mark = epoch.mark();
    let serves = match status.epoch {
        Some(held) => held == mark || held.number < mark.number,
        None => mark.number > 1,
    };
    serves && status.health.storage != StorageState::Failed
}

fn status_of(observed: &Observed, id: NodeId) -> Option<(&PodState, &NodeStatus)> {
    let answered = observed.pods.iter().filter_map(|pod| Some((pod, pod.status()?)));
    answered.into_iter().find(|(_, status)| status.identity.node_id == id)
}

/// Members first, then the pods whose disk the ring does not name.
pub(super) fn members(epoch: Option<&Epoch>, observed: &Observed) -> Vec<MemberStatus> {
    let of_ring = epoch.map(|epoch| ring_members(epoch, observed)).unwrap_or_default();
    let is_listed = |pod: &PodState| match (epoch, pod.status()) {
        (Some(epoch), Some(status)) => is_member(epoch, status.identity.node_id),
        (Some(epoch), None) => {
            epoch.members().iter().any(|member| member.state.takes_part() && member.name == pod.name)
        }
        (None, _) => false,
    };
    let others = observed.pods.iter().filter(|pod| !is_listed(pod)).map(|pod| outsider(epoch, pod));
    of_ring.into_iter().chain(others).collect()
}

fn ring_members(epoch: &Epoch, observed: &Observed) -> Vec<MemberStatus> {
    let mut owned: BTreeMap<NodeId, i32> = BTreeMap::new();
    for owner in epoch.partitions().iter().flat_map(|p| epoch.owners(p)) {
        *owned.entry(owner.id).or_default() += 1;
    }
    let members = epoch.members().iter().filter(|member| member.state.takes_part());
    let mut members: Vec<_> = members.collect();
    // The epoch's order is that of the ids; people count pods, and demo-10 comes after demo-9.
    members.sort_by_key(|member| (member.name.len(), &member.name));
    let described = members.into_iter().map(|member| {
        let answer = status_of(observed, member.id);
        let pod = observed.pods.iter().find(|pod| pod.name == member.name);
        let state = match (answer, pod) {
            (Some(_), _) if member.state == MemberState::Leaving => NodeState::Leaving,
            (Some((pod, status)), _) if pod.ready && status.health.ready && takes_part(epoch, status) => {
                NodeState::Serving
            }
            (Some(_), _) => NodeState::NotReady,
            (None, Some(pod)) if pod.status().is_none() && pod.running => NodeState::Unreachable,
            (None, _) => NodeState::Missing,
        };
        MemberStatus {
            name: member.name.clone(),
            node_id: Some(member.id.to_string()),
            zone: member.zone.clone(),
            state: Some(state),
            weight: Some(i64::from(member.weight)),
            ownership: Some(owned.get(&member.id).copied().unwrap_or_default()),
            data_bytes: answer.map(|(_, status)| coarse(status.health.data_bytes, DATA_BYTES_STEP_MIN)),
            hints_owed: answer.map(|(_, status)| coarse(status.transition.hints_owed, 1)),
            last_full_sync: answer.and_then(|(_, status)| last_full_sync(epoch, status)),
            version: answer.map(|(_, status)| status.identity.version.clone()),
        }
    });
    described.collect()
}

/// The oldest of the times at which a node was found equal with those who own partitions with it. To the hour: replicas
/// are compared every minute, and a cluster at rest must not be written that often (INV-ONE).
fn last_full_sync(epoch: &Epoch, status: &NodeStatus) -> Option<String> {
    let id = status.identity.node_id;
    let together = |p: &Partition| epoch.owners(*p).any(|owner| owner.id == id);
    let shared = epoch.partitions().iter().filter(together).flat_map(|p| epoch.owners(p));
    let others: BTreeSet<NodeId> = shared.map(|owner| owner.id).filter(|other| *other != id).collect();
    let time = |other| {
        let view = status.members.members.iter().find(|view| view.id == other);
        view.and_then(|view| view.last_full_sync_unix_ms)
    };
    // None is less than any time: never.
    let oldest = others.into_iter().map(time).min()??;
    let seconds = i64::try_from(oldest / 1000).ok()?;
    Timestamp::from_second(seconds - seconds % HOUR_SECONDS).ok().map(|time| time.to_string())
}

fn outsider(epoch: Option<&Epoch>, pod: &PodState) -> MemberStatus {
    let status = pod.status();
    let is_taken = |epoch: &Epoch| {
        let other = |member: &Member| member.state.takes_part() && member.name == pod.name;
        epoch.members().iter().any(other)
    };
    let state = match status {
        Some(_) if epoch.is_some_and(is_taken) => NodeState::UnknownDisk,
        Some(_) => NodeState::Waiting,
        None if pod.running => NodeState::Unreachable,
        None => NodeState::Missing,
    };
    MemberStatus {
        name: pod.name.clone(),
        node_id: status.map(|status| status.identity.node_id.to_string()),
        zone: pod.zone.clone(),
        state: Some(state),
        version: status.map(|status| status.identity.version.clone()),
        ..MemberStatus::default()
    }
}

/// Rounded up to a multiple of an eighth of the power of two below it, and of no less than `step_min`: at most one part
/// in eight too much, and a steady load does not change it from one look to the next.
fn coarse(count: u64, step_min: u64) -> i64 {
    let step = (count.checked_ilog2().map_or(0, |log| 1_u64 << log) / 8).max(step_min);
    i64::try_from(count.div_ceil(step).saturating_mul(step)).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixtures::{epoch_of, member_view, node_status, validated};

    #[test]
    fn a_growing_log_rarely_changes_the_status() {
        let sizes: std::collections::BTreeSet<i64> =
            (0..1000).map(|i| coarse((1 << 30) + i * (1 << 17), DATA_BYTES_STEP_MIN)).collect();
        assert!(sizes.len() <= 3, "{sizes:?}");
        for bytes in [0, 1, 1 << 20, (1 << 20) + 1, 12_345_678_901, 1 << 40] {
            let coarse = coarse(bytes, DATA_BYTES_STEP_MIN);
            assert!(
                coarse >= bytes as i64 && coarse <= (bytes + bytes / 8 + (1 << 20)) as i64,
                "{bytes}: {coarse}"
            );
        }
    }

    #[test]
    fn few_hints_are_counted_and_many_are_rounded() {
        for (hints, said) in [(0, 0), (1, 1), (8, 8), (17, 18), (1000, 1024), (1025, 1152)] {
            assert_eq!(coarse(hints, 1), said);
        }
    }

    /// Who is compared with whom follows from the partitions that they own together.
    #[test]
    fn the_last_full_sync_is_the_oldest_of_those_with_every_other_owner() {
        let cluster = validated("demo", |_| {});
        let epoch = epoch_of(&cluster);
        let mut status = node_status(&cluster, 0, Some(&epoch));
        let mut others = vec![member_view(1), member_view(2), member_view(7)];
        status.members.members.clone_from(&others);
        assert_eq!(last_full_sync(&epoch, &status), None, "never");
        others[0].last_full_sync_unix_ms = Some(1_767_229_199_999);
        status.members.members.clone_from(&others);
        assert_eq!(last_full_sync(&epoch, &status), None, "not with the other one");
        others[1].last_full_sync_unix_ms = Some(1_767_232_800_000);
        status.members.members.clone_from(&others);
        assert_eq!(last_full_sync(&epoch, &status).as_deref(), Some("2026-01-01T00:00:00Z"));
        status.members.members.pop();
        status.members.members.pop();
        assert_eq!(last_full_sync(&epoch, &status), None, "unknown is never equal");
    }
}
