//! The admin API (`quorate_admin` says what it is), health, readiness and metrics.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use axum::extract::{DefaultBodyLimit, Request, State};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use http::{HeaderMap, StatusCode, header};
use quorate_admin::types::{Health, Identity, Members, NodeStatus, StorageState};
use quorate_core::ring::Epoch;
use quorate_storage::{State as EngineState, Usage};

use crate::http::error_response;
use crate::node::{Node, takes_part};
use crate::ring::AdoptError;

/// The largest epoch document: 1,000 members and 4,096 partitions fit well within.
const EPOCH_BYTES_MAX: usize = 1 << 20;

/// What the handlers share.
pub(crate) struct Admin {
    pub(crate) node: Arc<Node>,
    pub(crate) identity: Identity,
    pub(crate) secret: String,
}

/// Everything that this port answers over HTTP.
pub(crate) fn router(admin: Admin) -> Router {
    let admin = Arc::new(admin);
    let behind_the_secret = Router::new()
        .route("/v1/status", get(status))
        .route("/v1/identity", get(async |State(admin): State<Arc<Admin>>| Json(admin.identity.clone())))
        .route("/v1/members", get(async |State(admin): State<Arc<Admin>>| Json(admin.node.members())))
        .route("/v1/health", get(async |State(admin): State<Arc<Admin>>| Json(admin.node.health())))
        .route("/v1/epoch", get(epoch).put(push_epoch))
        .layer(DefaultBodyLimit::max(EPOCH_BYTES_MAX))
        .fallback(|| async {
            error_response(StatusCode::NOT_FOUND, "not_found", "there is no such resource")
        })
        .method_not_allowed_fallback(|| async {
            let sentence = "this resource has other methods: GET, and PUT for the epoch";
            error_response(StatusCode::METHOD_NOT_ALLOWED, "bad_method", sentence)
        })
        .layer(middleware::from_fn_with_state(admin.clone(), ask_for_the_secret));
    Router::new()
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(ready))
        .route("/metrics", get(metrics))
        .merge(behind_the_secret)
        .with_state(admin)
}

async fn ask_for_the_secret(State(admin): State<Arc<Admin>>, request: Request, next: Next) -> Response {
    let given = request
        .headers()
        .get(header::AUTHORIZATION)
        .and_then(|value| value.to_str().ok()?.strip_prefix("Bearer "));
    // Hashes compare in constant time; the texts would tell how far they agree.
    let known =
        given.is_some_and(|given| blake3::hash(given.as_bytes()) == blake3::hash(admin.secret.as_bytes()));
    if known {
        return next.run(request).await;
    }
    let sentence = "send the cluster's secret: Authorization: Bearer <secret>";
    error_response(StatusCode::UNAUTHORIZED, "unauthorized", sentence)
}

async fn status(State(admin): State<Arc<Admin>>) -> Json<NodeStatus> {
    let node = &admin.node;
    Json(NodeStatus {
        identity: admin.identity.clone(),
        epoch: node.ring.current().map(|epoch| epoch.mark()),
        health: node.health(),
        members: node.members(),
    })
}

async fn epoch(State(admin): State<Arc<Admin>>) -> Response {
    match admin.node.ring.current() {
        Some(epoch) => Json(&*epoch).into_response(),
        None => error_response(StatusCode::NOT_FOUND, "no_epoch", "no epoch was pushed to this node yet"),
    }
}

async fn push_epoch(State(admin): State<Arc<Admin>>, body: axum::body::Bytes) -> Response {
    let epoch: Epoch = match serde_json::from_slice(&body) {
        Ok(epoch) => epoch,
        Err(error) => {
            return error_response(StatusCode::BAD_REQUEST, "bad_request", &format!("not an epoch: {error}"));
        }
    };
    let node = admin.node.clone();
    let adopted = tokio::task::spawn_blocking(move || node.ring.adopt(epoch)).await;
    match adopted {
        Ok(Ok(mark)) => Json(mark).into_response(),
        Ok(Err(AdoptError::Epoch(error))) => {
            error_response(StatusCode::CONFLICT, "epoch_conflict", &error.to_string())
        }
        Ok(Err(AdoptError::Disk(error))) => {
            error_response(StatusCode::INTERNAL_SERVER_ERROR, "internal", &format!("{error:#}"))
        }
        Err(error) => error_response(StatusCode::INTERNAL_SERVER_ERROR, "internal", &error.to_string()),
    }
}

async fn ready(State(admin): State<Arc<Admin>>) -> Response {
    match admin.node.health().reason {
        None => "ready\n".into_response(),
        Some(reason) => (StatusCode::SERVICE_UNAVAILABLE, format!("{reason}\n")).into_response(),
    }
}

async fn metrics(State(admin): State<Arc<Admin>>) -> Response {
    admin.node.update_gauges();
    match admin.node.metrics.encode() {
        Ok(text) => {
            let headers = HeaderMap::from_iter([(
                header::CONTENT_TYPE,
                header::HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8"),
            )]);
            (headers, text).into_response()
        }
        Err(error) => error_response(StatusCode::INTERNAL_SERVER_ERROR, "internal", &error.to_string()),
    }
}

/// How many partitions are reachable, as this node sees it.
struct Reach {
    partitions: u32,
    at_quorum: u32,
    in_full: u32,
}

impl Node {
    fn reach(&self, epoch: &Epoch) -> Reach {
        let replication = epoch.replication();
        let quorum = replication.read_quorum.max(replication.write_quorum);
        let mut reach = Reach { partitions: epoch.partitions().get(), at_quorum: 0, in_full: 0 };
        for partition in epoch.partitions().iter() {
            let up = epoch.owners(partition).filter(|o| o.id == self.id || self.liveness.is_up(o.id)).count();
            reach.at_quorum += u32::from(up >= usize::from(quorum));
            reach.in_full += u32::from(up == usize::from(replication.factor));
        }
        reach
    }

    /// Why the ring does not serve through this node; none when it does.
    fn unready(&self, epoch: Option<&Epoch>, reach: &Reach) -> Option<String> {
        let Some(epoch) = epoch else { return Some("no ring yet: waiting for the first epoch".into()) };
        if self.stopping.load(Ordering::Relaxed) {
            Some("stopping".into())
        } else if !takes_part(epoch, self.id) {
            Some(format!("this disk ({}) is no active member of epoch {}", self.id, epoch.number()))
        } else if reach.at_quorum == 0 {
            Some("no partition has a quorum of owners up".into())
        } else {
            None
        }
    }

    pub(crate) fn health(&self) -> Health {
        let epoch = self.ring.current();
        let none = Reach { partitions: 0, at_quorum: 0, in_full: 0 };
        let reach = epoch.as_ref().map_or(none, |epoch| self.reach(epoch));
        let reason = self.unready(epoch.as_deref(), &reach);
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

    pub(crate) fn members(&self) -> Members {
        let epoch = self.ring.current();
        let in_ring = |id| epoch.as_ref().is_some_and(|epoch| epoch.member(id).is_some());
        Members { observer: self.id, members: self.liveness.views(in_ring) }
    }

    fn update_gauges(&self) {
        let health = self.health();
        let m = &self.metrics;
        m.ready.set(health.ready.into());
        m.epoch.set(self.ring.number() as i64);
        m.partitions.set(health.partitions.into());
        m.partitions_at_quorum.set(health.partitions_at_quorum.into());
        m.partitions_in_full.set(health.partitions_in_full.into());
        m.keys.set(health.keys as i64);
        m.log_bytes.set(health.data_bytes as i64);
        m.dead_bytes.set(self.store.usage().dead_bytes as i64);
        m.free_bytes.set(health.free_bytes as i64);
        m.storage_writable.set((health.storage == StorageState::Writable).into());
        for (state, count) in self.liveness.counts() {
            m.members.with_label_values(&[state]).set(count);
        }
    }
}

fn storage_state(usage: &Usage) -> StorageState {
    match usage.state {
        EngineState::Writable => StorageState::Writable,
        EngineState::Full => StorageState::Full,
        EngineState::Failed => StorageState::Failed,
    }
}
