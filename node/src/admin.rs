//! The admin API (`quorate_admin` says what it is), health, readiness and metrics.

use std::sync::Arc;

use axum::extract::{DefaultBodyLimit, Request, State};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use http::{HeaderMap, StatusCode, header};
use quorate_core::ring::Epoch;
use quorate_replica::AdoptError;

use crate::http::error_response;
use crate::node::{Ended, Node, sentence};
use crate::status::Status;

/// The largest epoch document: 1,000 members and 4,096 partitions fit well within.
const EPOCH_BYTES_MAX: usize = 1 << 20;

/// What the handlers share.
pub(crate) struct Admin {
    pub(crate) node: Arc<Node>,
    pub(crate) secret: String,
}

/// Everything that this port answers over HTTP.
pub(crate) fn router(admin: Admin) -> Router {
    let admin = Arc::new(admin);
    let behind_the_secret = Router::new()
        .route("/v1/status", get(status))
        .route("/v1/identity", get(async |State(admin): State<Arc<Admin>>| Json(admin.node.identity())))
        .route("/v1/members", get(members))
        .route("/v1/health", get(health))
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

/// The engine is gone: the process is about to end.
impl IntoResponse for Ended {
    fn into_response(self) -> Response {
        error_response(StatusCode::SERVICE_UNAVAILABLE, "stopping", "this node is about to end")
    }
}

async fn with_status(admin: &Admin, answer: impl FnOnce(&Node, &Status) -> Response) -> Response {
    match admin.node.status().await {
        Ok(status) => answer(&admin.node, &status),
        Err(ended) => ended.into_response(),
    }
}

async fn status(State(admin): State<Arc<Admin>>) -> Response {
    with_status(&admin, |node, status| Json(node.node_status(status)).into_response()).await
}

async fn members(State(admin): State<Arc<Admin>>) -> Response {
    with_status(&admin, |node, status| Json(node.members(status)).into_response()).await
}

async fn health(State(admin): State<Arc<Admin>>) -> Response {
    with_status(&admin, |node, status| Json(node.health(status)).into_response()).await
}

async fn epoch(State(admin): State<Arc<Admin>>) -> Response {
    with_status(&admin, |_, status| match &status.epoch {
        Some(epoch) => Json(&**epoch).into_response(),
        None => error_response(StatusCode::NOT_FOUND, "no_epoch", "no epoch was pushed to this node yet"),
    })
    .await
}

async fn push_epoch(State(admin): State<Arc<Admin>>, body: axum::body::Bytes) -> Response {
    let epoch: Epoch = match serde_json::from_slice(&body) {
        Ok(epoch) => epoch,
        Err(error) => {
            return error_response(StatusCode::BAD_REQUEST, "bad_request", &format!("not an epoch: {error}"));
        }
    };
    let error = match admin.node.adopt(epoch).await {
        Ok(Ok(mark)) => return Json(mark).into_response(),
        Ok(Err(error)) => error,
        Err(ended) => return ended.into_response(),
    };
    let (status, code) = match error {
        AdoptError::Epoch(_) => (StatusCode::CONFLICT, "epoch_conflict"),
        AdoptError::Disk(_) => (StatusCode::INTERNAL_SERVER_ERROR, "internal"),
        AdoptError::Busy | AdoptError::Behind { .. } | AdoptError::Full { .. } => {
            (StatusCode::SERVICE_UNAVAILABLE, "busy")
        }
    };
    error_response(status, code, &sentence(&error))
}

async fn ready(State(admin): State<Arc<Admin>>) -> Response {
    with_status(&admin, |node, status| match node.health(status).reason {
        None => "ready\n".into_response(),
        Some(reason) => (StatusCode::SERVICE_UNAVAILABLE, format!("{reason}\n")).into_response(),
    })
    .await
}

async fn metrics(State(admin): State<Arc<Admin>>) -> Response {
    with_status(&admin, |node, status| {
        node.metrics.update(status, &node.health(status), &node.store.usage());
        match node.metrics.encode() {
            Ok(text) => {
                let headers = HeaderMap::from_iter([(
                    header::CONTENT_TYPE,
                    header::HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8"),
                )]);
                (headers, text).into_response()
            }
            Err(error) => error_response(StatusCode::INTERNAL_SERVER_ERROR, "internal", &error.to_string()),
        }
    })
    .await
}
