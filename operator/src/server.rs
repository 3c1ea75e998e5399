//! `/healthz`, `/readyz` and `/metrics`.
//!
//! A replica that stands by is ready: it can take over. It asks for nothing, and says nothing that is secret.

use axum::Router;
use axum::http::StatusCode;
use axum::routing::get;

use crate::metrics::Metrics;

/// The routes.
pub fn router(metrics: Metrics) -> Router {
    let ok = || async { "ok\n" };
    let text = move || async move {
        metrics.text().map_err(|error| (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()))
    };
    Router::new().route("/healthz", get(ok)).route("/readyz", get(ok)).route("/metrics", get(text))
}
