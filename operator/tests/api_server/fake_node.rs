//! A node as the operator sees it: the admin API on a loopback address of its own, without a ring behind it.

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex};

use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use quorate_admin::types::{
    ErrorBody, ErrorDetail, Health, Identity, Liveness, MemberView, Members, NodeStatus, StorageState,
    Transition,
};
use quorate_core::ring::{Epoch, MemberState};
use quorate_core::{ClusterId, NodeId};
use tokio::task::JoinHandle;

/// What a node keeps.
#[derive(Clone, Debug)]
pub(crate) struct Disk {
    pub(crate) node_id: NodeId,
    pub(crate) cluster_id: ClusterId,
    pub(crate) name: String,
    pub(crate) secret: String,
    pub(crate) epoch: Option<Epoch>,
    /// What its status says otherwise than that of a node without a worry.
    pub(crate) worry: fn(&mut NodeStatus),
    /// The oldest epoch that is live; 0 without one.
    pub(crate) oldest: u64,
    /// Whose answer to a probe it got.
    pub(crate) met: BTreeSet<NodeId>,
    /// Whom its failure detector calls down.
    pub(crate) down: BTreeSet<NodeId>,
    /// Pushes of epochs that it still answers with `busy`.
    pub(crate) busy: u32,
}

impl Disk {
    fn transition(&self) -> Transition {
        let newest = self.epoch.as_ref().map_or(0, Epoch::number);
        let is_settled = self.oldest == newest;
        let leaves = self.epoch.as_ref().is_some_and(|epoch| {
            epoch.member(self.node_id).is_some_and(|member| member.state == MemberState::Leaving)
        });
        Transition {
            oldest_epoch: self.oldest,
            newest_epoch: newest,
            partitions_unretired: if is_settled { 0 } else { 8 },
            partitions_leaving: if is_settled || !leaves { 0 } else { 4 },
            ..Transition::default()
        }
    }

    /// How it sees the members of its epoch, and who else it met.
    fn members(&self) -> Vec<MemberView> {
        let members: Vec<NodeId> =
            self.epoch.iter().flat_map(Epoch::members).map(|member| member.id).collect();
        let known: BTreeSet<NodeId> = members.iter().chain(&self.met).copied().collect();
        let view = |id: NodeId| MemberView {
            id,
            name: String::new(),
            address: String::new(),
            zone: None,
            liveness: if self.down.contains(&id) { Liveness::Down } else { Liveness::Up },
            in_ring: members.contains(&id),
            latency_micros: None,
            clock_skew_ms: self.met.contains(&id).then_some(0),
            last_full_sync_unix_ms: None,
            hints_owed: 0,
            hint_bytes_owed: 0,
        };
        known.into_iter().map(view).collect()
    }
}

/// How many more writes an operator makes before it dies.
pub(crate) type Budget = Arc<AtomicI64>;

/// Whose writes to nodes count, if anybody's.
pub(crate) type Gate = Arc<Mutex<Option<Budget>>>;

/// A running node. It stops when it is dropped; its disk can start another.
pub(crate) struct FakeNode {
    pub(crate) address: Ipv4Addr,
    disk: Arc<Mutex<Disk>>,
    server: JoinHandle<()>,
}

impl Drop for FakeNode {
    fn drop(&mut self) {
        self.server.abort();
    }
}

impl FakeNode {
    /// Starts a node with a disk.
    pub(crate) async fn start(address: Ipv4Addr, disk: Disk, gate: Gate) -> Self {
        let disk = Arc::new(Mutex::new(disk));
        let router = Router::new()
            .route("/v1/status", get(status))
            .route("/v1/epoch", get(epoch).put(push))
            .with_state((Arc::clone(&disk), gate));
        let listener = tokio::net::TcpListener::bind(SocketAddr::from((address, 5000))).await.unwrap();
        let server = tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        Self { address, disk, server }
    }

    /// What is on the disk now.
    pub(crate) fn disk(&self) -> Disk {
        self.disk.lock().unwrap().clone()
    }

    /// Changes what is on the disk.
    pub(crate) fn change(&self, change: impl FnOnce(&mut Disk)) {
        change(&mut self.disk.lock().unwrap());
    }

    /// Ends what is under way: every older epoch is retired. Answers whether there was any.
    pub(crate) fn settle(&self) -> bool {
        let mut disk = self.disk.lock().unwrap();
        let newest = disk.epoch.as_ref().map_or(0, Epoch::number);
        std::mem::replace(&mut disk.oldest, newest) != newest
    }
}

type Shared = State<(Arc<Mutex<Disk>>, Gate)>;

fn refuse(status: StatusCode, code: &str) -> Response {
    let error = ErrorDetail { code: code.to_owned(), message: code.to_owned() };
    (status, Json(ErrorBody { error })).into_response()
}

fn knows_the_secret(headers: &HeaderMap, disk: &Disk) -> bool {
    headers
        .get("authorization")
        .is_some_and(|value| value.as_bytes() == format!("Bearer {}", disk.secret).as_bytes())
}

async fn status(State((disk, _)): Shared, headers: HeaderMap) -> Response {
    let disk = disk.lock().unwrap().clone();
    if !knows_the_secret(&headers, &disk) {
        return refuse(StatusCode::UNAUTHORIZED, "unauthorized");
    }
    let partitions = disk.epoch.as_ref().map_or(0, |epoch| epoch.partitions().get());
    let worry = disk.worry;
    let mut status = NodeStatus {
        transition: disk.transition(),
        identity: Identity {
            node_id: disk.node_id,
            cluster_id: disk.cluster_id,
            address: format!("{}.peers:5000", disk.name),
            name: disk.name.clone(),
            zone: None,
            redis_address: None,
            version: "0.0.0-fake".to_owned(),
            start: 1,
        },
        epoch: disk.epoch.as_ref().map(Epoch::mark),
        health: Health {
            ready: disk.epoch.is_some(),
            reason: None,
            partitions,
            partitions_at_quorum: partitions,
            partitions_in_full: partitions,
            keys: 0,
            data_bytes: 0,
            free_bytes: 1 << 30,
            storage: StorageState::Writable,
        },
        members: Members { observer: disk.node_id, members: disk.members() },
    };
    worry(&mut status);
    Json(status).into_response()
}

async fn epoch(State((disk, _)): Shared, headers: HeaderMap) -> Response {
    let disk = disk.lock().unwrap().clone();
    match disk.epoch.clone() {
        _ if !knows_the_secret(&headers, &disk) => refuse(StatusCode::UNAUTHORIZED, "unauthorized"),
        Some(epoch) => Json(epoch).into_response(),
        None => refuse(StatusCode::NOT_FOUND, "no_epoch"),
    }
}

async fn push(State((disk, gate)): Shared, headers: HeaderMap, Json(pushed): Json<Epoch>) -> Response {
    let mut disk = disk.lock().unwrap();
    if !knows_the_secret(&headers, &disk) {
        return refuse(StatusCode::UNAUTHORIZED, "unauthorized");
    }
    // The operator died before it could say this.
    let budget = gate.lock().unwrap().clone();
    if budget.is_some_and(|budget| budget.fetch_sub(1, Ordering::SeqCst) <= 0) {
        return refuse(StatusCode::SERVICE_UNAVAILABLE, "busy");
    }
    if disk.busy > 0 {
        disk.busy -= 1;
        return refuse(StatusCode::SERVICE_UNAVAILABLE, "busy");
    }
    let newest = disk.epoch.as_ref().map_or(0, Epoch::number);
    if pushed.number() > newest && newest.saturating_sub(disk.oldest) >= 2 {
        return refuse(StatusCode::SERVICE_UNAVAILABLE, "busy");
    }
    let follows = disk.epoch.as_ref().map_or(Ok(true), |known| pushed.follows(known));
    match follows {
        Err(_) => return refuse(StatusCode::CONFLICT, "epoch_conflict"),
        Ok(true) => {
            disk.oldest = if disk.oldest == 0 { (pushed.number() - 1).max(1) } else { disk.oldest };
            disk.epoch = Some(pushed);
        }
        Ok(false) => {}
    }
    Json(disk.epoch.as_ref().map(Epoch::mark)).into_response()
}
