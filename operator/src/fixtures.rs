//! Small objects for the unit tests of several modules.

use std::sync::Arc;

use k8s_openapi::api::apps::v1::StatefulSetStatus;
use k8s_openapi::jiff::Timestamp;
use quorate_admin::types::{
    Health, Identity, Liveness, MemberView, Members, NodeStatus, StorageState, Transition,
};
use quorate_core::ring::{Epoch, Member, MemberState, planner};
use quorate_core::{ClusterId, NodeId};

use crate::build::names;
use crate::crd::{KVCluster, KVClusterSpec};
use crate::observe::{
    ClaimState, DiskMark, Existing, Growth, Machine, NodeAnswer, Observed, PodState, RingObject, RingState,
    SecretState,
};
use crate::plan::{Action, Kind, Manifest, Plan, RingChange, decide};
use crate::validate::{Settings, ValidatedCluster, validate};

pub(crate) fn cluster(name: &str, change: impl FnOnce(&mut KVClusterSpec)) -> KVCluster {
    let mut spec = KVClusterSpec::default();
    change(&mut spec);
    let mut cluster = KVCluster::new(name, spec);
    cluster.metadata.namespace = Some("shop".to_owned());
    cluster.metadata.uid = Some("11111111-2222-3333-4444-555555555555".to_owned());
    cluster.metadata.generation = Some(1);
    cluster
}

pub(crate) fn settings() -> Settings {
    Settings {
        node_image: "quorate/node:test".to_owned(),
        operator_namespace: Some("quorate-system".to_owned()),
    }
}

pub(crate) fn validated(name: &str, change: impl FnOnce(&mut KVClusterSpec)) -> ValidatedCluster {
    validate(&cluster(name, change), &settings()).expect("fixtures ask for what this version can do")
}

/// The identity of every cluster of these tests.
pub(crate) fn cluster_id() -> ClusterId {
    ClusterId::from_u128(0xc1)
}

/// The disk of the pod with a number.
pub(crate) fn disk(ordinal: u16) -> NodeId {
    NodeId::from_u128(0x100 + u128::from(ordinal))
}

/// The epoch of a cluster whose nodes have the disks of [`disk`].
pub(crate) fn epoch_of(cluster: &ValidatedCluster) -> Arc<Epoch> {
    let members = (0..cluster.nodes).map(|ordinal| Member {
        id: disk(ordinal),
        name: names::pod(&cluster.name, ordinal),
        address: format!("{}:5000", names::pod(&cluster.name, ordinal)),
        zone: None,
        weight: 100,
        state: MemberState::Active,
    });
    let epoch =
        planner::first_epoch(cluster_id(), cluster.partitions, cluster.replication, members.collect());
    Arc::new(epoch.expect("as many members as copies"))
}

/// What a healthy node says.
pub(crate) fn node_status(cluster: &ValidatedCluster, ordinal: u16, epoch: Option<&Epoch>) -> NodeStatus {
    let name = names::pod(&cluster.name, ordinal);
    NodeStatus {
        transition: settled(epoch),
        identity: Identity {
            node_id: disk(ordinal),
            cluster_id: cluster_id(),
            address: format!("{name}:5000"),
            name,
            zone: None,
            redis_address: None,
            version: "1.2.3".to_owned(),
            start: 1,
        },
        epoch: epoch.map(Epoch::mark),
        health: Health {
            ready: epoch.is_some(),
            reason: None,
            partitions: 0,
            partitions_at_quorum: 0,
            partitions_in_full: 0,
            keys: 0,
            data_bytes: 0,
            free_bytes: 1 << 30,
            storage: StorageState::Writable,
        },
        members: Members { observer: disk(ordinal), members: Vec::new() },
    }
}

/// How a member is seen by another that has nothing to say of it.
pub(crate) fn member_view(ordinal: u16) -> MemberView {
    MemberView {
        id: disk(ordinal),
        name: format!("demo-{ordinal}"),
        address: String::new(),
        zone: None,
        liveness: Liveness::Up,
        in_ring: true,
        latency_micros: None,
        clock_skew_ms: None,
        last_full_sync_unix_ms: None,
        hints_owed: 0,
        hint_bytes_owed: 0,
    }
}

/// Every node that answers has talked to a disk that the ring does not know yet.
pub(crate) fn reached(observed: &mut Observed, id: NodeId) {
    for pod in &mut observed.pods {
        let NodeAnswer::Answered(status) = &mut pod.node else { continue };
        let view = MemberView { id, in_ring: false, clock_skew_ms: Some(0), ..member_view(0) };
        status.members.members.retain(|seen| seen.id != id);
        status.members.members.push(view);
    }
}

/// Nothing is left to do.
pub(crate) fn settled(epoch: Option<&Epoch>) -> Transition {
    let number = epoch.map_or(0, Epoch::number);
    Transition { oldest_epoch: number, newest_epoch: number, ..Transition::default() }
}

/// The claim that the pod with a number mounts, with its disk written on it.
pub(crate) fn claim(cluster: &ValidatedCluster, ordinal: u16) -> ClaimState {
    ClaimState {
        name: format!("data-{}", names::pod(&cluster.name, ordinal)),
        uid: format!("claim-{ordinal}"),
        ordinal,
        lost: false,
        terminating: false,
        disk: Some(DiskMark { cluster: cluster_id(), node: disk(ordinal) }),
        bound: true,
        requested: cluster.storage.size.clone(),
        capacity: Some(cluster.storage.size.clone()),
        step: None,
        class: Some("fast".to_owned()),
        growth: Growth::Unknown,
    }
}

/// A running pod whose node answers.
pub(crate) fn pod(cluster: &ValidatedCluster, ordinal: u16, epoch: Option<&Epoch>) -> PodState {
    PodState {
        name: names::pod(&cluster.name, ordinal),
        uid: format!("pod-{ordinal}"),
        ordinal,
        ready: epoch.is_some(),
        running: true,
        started: true,
        has_crashed: false,
        terminating: false,
        revision: Some("r1".to_owned()),
        image: Some(cluster.image.reference.clone()),
        restarted_at: None,
        address: Some(format!("10.0.0.{ordinal}:5000")),
        trouble: None,
        obstacle: None,
        down_since: None,
        machine_state: Machine::Ready,
        machine: Some(format!("machine-{ordinal}")),
        zone: Some(format!("zone-{ordinal}")),
        node: NodeAnswer::Answered(Box::new(node_status(cluster, ordinal, epoch))),
        held: None,
    }
}

/// Every object as the plan wants it: what is left after its actions.
pub(crate) fn existing(cluster: &ValidatedCluster) -> Existing {
    let mut existing = Existing::default();
    absorb(&mut existing, &decide(cluster, &Observed::default()));
    if let Some(set) = &mut existing.stateful_set {
        set.metadata.generation = Some(1);
        set.status = Some(StatefulSetStatus {
            observed_generation: Some(1),
            update_revision: Some("r1".to_owned()),
            ..StatefulSetStatus::default()
        });
    }
    existing
}

/// What becomes of the objects when a plan is carried out.
pub(crate) fn absorb(existing: &mut Existing, plan: &Plan) {
    for action in &plan.actions {
        let Action::Apply(Manifest { kind, name, body }) = action else { continue };
        let body = body.clone();
        match kind {
            Kind::ServiceAccount => existing.service_account = Some(parse(body)),
            Kind::Service if *name == plan.cluster.name => existing.client_service = Some(parse(body)),
            Kind::Service => existing.peer_service = Some(parse(body)),
            Kind::PodDisruptionBudget => existing.disruption_budget = Some(parse(body)),
            Kind::NetworkPolicy => existing.network_policy = Some(parse(body)),
            Kind::StatefulSet => existing.stateful_set = Some(parse(body)),
        }
    }
}

fn parse<T: serde::de::DeserializeOwned>(body: serde_json::Value) -> T {
    serde_json::from_value(body).expect("a manifest is an object of its kind")
}

/// A cluster at rest: every object is there and every node serves the committed epoch.
pub(crate) fn at_rest(cluster: &ValidatedCluster) -> Observed {
    let epoch = epoch_of(cluster);
    let pods = (0..cluster.nodes).map(|ordinal| pod(cluster, ordinal, Some(&epoch))).collect();
    settled_budget(
        cluster,
        Observed {
            has_users: false,
            existing: existing(cluster),
            secret: SecretState::Present { text: "secret".to_owned(), owners: vec![cluster.owner.clone()] },
            ring: RingState::Present(RingObject {
                cluster_id: cluster_id(),
                epoch: Some(epoch),
                change: Some(RingChange::FirstEpoch),
                resource_version: "7".to_owned(),
                owners: Vec::new(),
            }),
            recorded_cluster_id: Some(cluster_id()),
            recorded_epoch: true,
            claims: (0..cluster.nodes).map(|ordinal| claim(cluster, ordinal)).collect(),
            pods,
            now: Timestamp::UNIX_EPOCH,
        },
    )
}

/// The budget for drains depends on how the ring is: set to what it is now.
pub(crate) fn settled_budget(cluster: &ValidatedCluster, mut observed: Observed) -> Observed {
    let mut existing = observed.existing.clone();
    absorb(&mut existing, &decide(cluster, &observed));
    observed.existing.disruption_budget = existing.disruption_budget;
    observed
}

/// The same cluster before its first epoch.
pub(crate) fn before_the_first_epoch(cluster: &ValidatedCluster) -> Observed {
    let mut observed = at_rest(cluster);
    if let RingState::Present(ring) = &mut observed.ring {
        ring.epoch = None;
        ring.change = None;
    }
    observed.recorded_epoch = false;
    observed.pods = (0..cluster.nodes).map(|ordinal| pod(cluster, ordinal, None)).collect();
    settled_budget(cluster, observed)
}

/// Changes what the node of a pod says.
pub(crate) fn says(observed: &mut Observed, ordinal: usize, change: impl FnOnce(&mut NodeStatus)) {
    let NodeAnswer::Answered(status) = &mut observed.pods[ordinal].node else {
        panic!("answers in these tests")
    };
    change(status);
}
