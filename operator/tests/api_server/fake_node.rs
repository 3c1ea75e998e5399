//! A node as the operator sees it: the admin API on a loopback address of its own, without a ring behind it.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex};

use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use quorate_admin::types::{ErrorBody, ErrorDetail, Health, Identity, Members, NodeStatus, StorageState};
use quorate_core::ring::Epoch;
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
}

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
    pub(crate) async fn start(address: Ipv4Addr, disk: Disk) -> Self {
        let disk = Arc::new(Mutex::new(disk));
        let router = Router::new()
            .route("/v1/status", get(status))
            .route("/v1/epoch", get(epoch).put(push))
            .with_state(Arc::clone(&disk));
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
}

type Shared = State<Arc<Mutex<Disk>>>;

fn refuse(status: StatusCode, code: &str) -> Response {
    let error = ErrorDetail { code: code.to_owned(), message: code.to_owned() };
    (status, Json(ErrorBody { error })).into_response()
}

fn knows_the_secret(headers: &HeaderMap, disk: &Disk) -> bool {
    headers
        .get("authorization")
        .is_some_and(|value| value.as_bytes() == format!("Bearer {}", disk.secret).as_bytes())
}

async fn status(State(disk): Shared, headers: HeaderMap) -> Response {
    let disk = disk.lock().unwrap().clone();
    if !knows_the_secret(&headers, &disk) {
        return refuse(StatusCode::UNAUTHORIZED, "unauthorized");
    }
    let partitions = disk.epoch.as_ref().map_or(0, |epoch| epoch.partitions().get());
    let worry = disk.worry;
    let mut status = NodeStatus {
        transition: Default::default(),
        identity: Identity {
            node_id: disk.node_id,
            cluster_id: disk.cluster_id,
            address: format!("{}.peers:5000", disk.name),
            name: disk.name,
            zone: None,
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
        members: Members { observer: disk.node_id, members: Vec::new() },
    };
    worry(&mut status);
    Json(status).into_response()
}

async fn epoch(State(disk): Shared, headers: HeaderMap) -> Response {
    let disk = disk.lock().unwrap().clone();
    match disk.epoch.clone() {
        _ if !knows_the_secret(&headers, &disk) => refuse(StatusCode::UNAUTHORIZED, "unauthorized"),
        Some(epoch) => Json(epoch).into_response(),
        None => refuse(StatusCode::NOT_FOUND, "no_epoch"),
    }
}

async fn push(State(disk): Shared, headers: HeaderMap, Json(pushed): Json<Epoch>) -> Response {
    let mut disk = disk.lock().unwrap();
    if !knows_the_secret(&headers, &disk) {
        return refuse(StatusCode::UNAUTHORIZED, "unauthorized");
    }
    let follows = disk.epoch.as_ref().map_or(Ok(true), |known| pushed.follows(known));
    match follows {
        Err(_) => return refuse(StatusCode::CONFLICT, "epoch_conflict"),
        Ok(true) => disk.epoch = Some(pushed),
        Ok(false) => {}
    }
    Json(disk.epoch.as_ref().map(Epoch::mark)).into_response()
}
