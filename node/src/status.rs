//! How the node is doing, in one reading of the replica.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use quorate_admin::types::{
    self, Health, Identity, MemberView, Members, NodeStatus, StorageState, Transition,
};
use quorate_core::NodeId;
use quorate_core::handoff::{Books, Owed};
use quorate_core::membership::{NodeInfo, State};
use quorate_core::ring::{Epoch, MemberState};
use quorate_replica::{MemberStatus, RingStatus, Stats};
use quorate_storage::{State as EngineState, Usage};

use crate::node::{Ended, Node};

/// What the replica says of itself.
pub(crate) struct Status {
    pub(crate) epoch: Option<Arc<Epoch>>,
    pub(crate) claimed: bool,
    /// How far a change of the ring is.
    pub(crate) ring: RingStatus,
    /// Every other node that is known.
    pub(crate) members: Vec<MemberStatus>,
    pub(crate) stats: Stats,
    /// What this node owes to whom.
    pub(crate) owed: BTreeMap<NodeId, Owed>,
    /// What became of the hints that this node took.
    pub(crate) hints: Books,
    /// Operations, calls and repairs.
    pub(crate) in_progress: usize,
}

/// How many partitions are reachable, as this node sees it.
#[derive(Default)]
struct Reach {
    partitions: u32,
    at_quorum: u32,
    in_full: u32,
}

impl Status {
    fn reach(&self, us: NodeId) -> Reach {
        let Some(epoch) = &self.epoch else { return Reach::default() };
        let live = self.members.iter().filter(|member| member.view.state.is_live());
        let up: BTreeSet<NodeId> = live.map(|member| member.view.node.id).chain([us]).collect();
        let replication = epoch.replication();
        let quorum = replication.read_quorum.max(replication.write_quorum);
        let mut reach = Reach { partitions: epoch.partitions().get(), ..Reach::default() };
        for partition in epoch.partitions().iter() {
            let up = epoch.owners(partition).filter(|owner| up.contains(&owner.id)).count();
            reach.at_quorum += u32::from(up >= usize::from(quorum));
            reach.in_full += u32::from(up == usize::from(replication.factor));
        }
        reach
    }

    /// Why clients do better elsewhere for good: this node is no member, or leaves and has nothing left to hand over. It is
    /// asked for some time yet, and answers as long as it takes part.
    fn departure(&self, us: NodeId) -> Option<String> {
        let epoch = self.epoch.as_ref()?;
        let state = epoch.member(us).map(|member| member.state).filter(|state| state.takes_part());
        let Some(state) = state else {
            return Some(format!("this disk ({us}) is no active member of epoch {}", epoch.number()));
        };
        let transition = self.transition();
        let is_done = transition.is_settled() && transition.hints_owed == 0;
        let has_left = state == MemberState::Leaving && is_done;
        has_left.then(|| "it has left the ring, and nothing is left on it".into())
    }

    /// How far a change of the ring is.
    fn transition(&self) -> Transition {
        let count = |partitions: usize| u32::try_from(partitions).unwrap_or(u32::MAX);
        Transition {
            oldest_epoch: self.ring.oldest,
            newest_epoch: self.ring.newest,
            partitions_unretired: count(self.ring.unretired),
            partitions_syncing: count(self.ring.syncing),
            partitions_leaving: count(self.ring.leaving),
            keys_leaving: self.ring.keys_leaving,
            hints_owed: self.owed.values().map(|owed| owed.hints).sum(),
            moved_bytes: self.ring.moved_bytes,
            moved_bytes_per_second: self.ring.moved_bytes_per_second,
            remaining_seconds: self.ring.remaining.map(|remaining| remaining.as_secs()),
            waiting_for: self.ring.waiting_for.iter().copied().collect(),
        }
    }

    /// How many nodes are in each state, this one included.
    pub(crate) fn counts(&self) -> [(&'static str, i64); 4] {
        let states =
            [("up", State::Up), ("suspect", State::Suspect), ("down", State::Down), ("left", State::Left)];
        let count = |wanted| self.members.iter().filter(|member| member.view.state == wanted).count() as i64;
        states.map(|(name, state)| (name, count(state) + i64::from(state == State::Up)))
    }
}

impl Node {
    pub(crate) async fn status(&self) -> Result<Status, Ended> {
        let status = self.ask(|replica| Status {
            epoch: replica.epoch().cloned(),
            claimed: replica.is_claimed(),
            ring: replica.ring_status().unwrap_or_default(),
            members: replica.members().collect(),
            stats: replica.stats(),
            owed: replica.hints_owed().map(|owed| (owed.target, owed)).collect(),
            hints: replica.hint_books(),
            in_progress: replica.in_progress(),
        });
        let status = status.await?;
        let departs = status.departure(self.identity.actor.node).is_some();
        self.departs.store(departs, Ordering::Relaxed);
        Ok(status)
    }

    pub(crate) fn health(&self, status: &Status) -> Health {
        let reach = status.reach(self.identity.actor.node);
        let reason = self.unready(status, &reach);
        let usage = self.store.usage();
        Health {
            ready: reason.is_none(),
            reason,
            partitions: reach.partitions,
            partitions_at_quorum: reach.at_quorum,
            partitions_in_full: reach.in_full,
            keys: usage.keys,
            data_bytes: usage.log_bytes,
            free_bytes: usage.free_bytes,
            storage: storage_state(&usage),
        }
    }

    /// Why the ring does not serve through this node; none when it does.
    fn unready(&self, status: &Status, reach: &Reach) -> Option<String> {
        let us = self.identity.actor.node;
        if status.epoch.is_none() {
            Some("no ring yet: waiting for the first epoch".into())
        } else if self.stopping.load(Ordering::Relaxed) {
            Some("stopping".into())
        } else if let Some(departure) = status.departure(us) {
            Some(departure)
        } else if !status.claimed {
            Some("starting: a majority of members must confirm that this disk did not go back in time".into())
        } else if reach.at_quorum == 0 {
            Some("no partition has a quorum of owners up".into())
        } else {
            None
        }
    }

    pub(crate) fn identity(&self) -> Identity {
        let NodeInfo { id, name, address, zone } = self.identity.node.clone();
        Identity {
            node_id: id,
            cluster_id: self.identity.cluster,
            name,
            address,
            zone,
            redis_address: self.redis_address.clone(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            start: self.identity.actor.start,
        }
    }

    pub(crate) fn members(&self, status: &Status) -> Members {
        let in_ring = |id| status.epoch.as_ref().is_some_and(|epoch| epoch.member(id).is_some());
        let view = |node: &NodeInfo, state: State| MemberView {
            id: node.id,
            name: node.name.clone(),
            address: node.address.clone(),
            zone: node.zone.clone(),
            liveness: liveness(state),
            in_ring: in_ring(node.id),
            latency_micros: None,
            clock_skew_ms: None,
            last_full_sync_unix_ms: None,
            hints_owed: status.owed.get(&node.id).map_or(0, |owed| owed.hints),
            hint_bytes_owed: status.owed.get(&node.id).map_or(0, |owed| owed.bytes),
        };
        let other = |member: &MemberStatus| MemberView {
            latency_micros: member
                .latency
                .map(|latency| u64::try_from(latency.as_micros()).unwrap_or(u64::MAX)),
            clock_skew_ms: member.view.skew_ms,
            last_full_sync_unix_ms: member.last_full_sync_unix_ms,
            ..view(&member.view.node, member.view.state)
        };
        let ourselves = view(&self.identity.node, State::Up);
        let mut members: Vec<MemberView> = status.members.iter().map(other).chain([ourselves]).collect();
        members.sort_by_key(|member| member.id);
        Members { observer: self.identity.actor.node, members }
    }

    /// Everything at once.
    pub(crate) fn node_status(&self, status: &Status) -> NodeStatus {
        NodeStatus {
            identity: self.identity(),
            epoch: status.epoch.as_ref().map(|epoch| epoch.mark()),
            health: self.health(status),
            transition: status.transition(),
            members: self.members(status),
        }
    }
}

fn liveness(state: State) -> types::Liveness {
    match state {
        State::Up => types::Liveness::Up,
        State::Suspect => types::Liveness::Suspect,
        State::Down => types::Liveness::Down,
        State::Left => types::Liveness::Left,
    }
}

fn storage_state(usage: &Usage) -> StorageState {
    match usage.state {
        EngineState::Writable => StorageState::Writable,
        EngineState::Full => StorageState::Full,
        EngineState::Failed => StorageState::Failed,
    }
}
