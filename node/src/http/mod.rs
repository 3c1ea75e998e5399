//! The client API over HTTP.
//!
//! | request | answer |
//! | --- | --- |
//! | `PUT /v1/kv/{key}` | 204 |
//! | `GET`, `HEAD` | 200 one value, 300 several (siblings), 404 none |
//! | `DELETE` | 204 |
//! | `PATCH` | 204: a JSON document was changed ([`merge_patch`]) |
//! | `POST /v1/batch` | 200: a line for each line ([`batch`]) |
//! | `POST /key`, `GET /key/{key}` | the simple form ([`simple`]) |
//! | `GET /openapi.json` | all of it for programs |
//!
//! The header `Quorate-Context` carries the causal context: every answer that knows one has it, and a write
//! that sends it back replaces exactly what that answer showed. What an answer stands on is in the other `Quorate-`
//! headers; what it must stand on, and how long a value lives, may be said in the query ([`parameters`]).

mod batch;
mod body;
mod condition;
mod error;
mod key_value;
mod login;
mod merge_patch;
mod parameters;
mod patch;
mod siblings;
mod simple;

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::Bytes;
use axum::extract::{Request, State};
use axum::middleware::{self, Next};
use axum::response::Response;
use axum::routing::{any, get};
use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, Version, header};
use percent_encoding::percent_decode_str;
use quorate_core::causality::{Context, Expiry};
use quorate_core::limits::KEY_BYTES_MAX;
use quorate_storage::Durability;
use quorate_wire::context;
use quorate_wire::peer::{Receipt, Refusal};
use tokio::sync::Semaphore;

use crate::engine::unix_ms;
use crate::metrics::Metrics;
use crate::node::Node;
use crate::room::Room;

pub(crate) use error::{HttpError, error_response};

/// The header of the causal context.
pub(crate) const CONTEXT: HeaderName = HeaderName::from_static("quorate-context");
/// The header that says how many owners an answer comes from.
const REPLICAS: HeaderName = HeaderName::from_static("quorate-replicas");
/// The header that says how many fallbacks keep a hint for an owner that an acknowledgement stands on.
const HINTS: HeaderName = HeaderName::from_static("quorate-hints");
/// The header that says which epoch of the ring an answer was given in.
const EPOCH: HeaderName = HeaderName::from_static("quorate-epoch");
/// The header that says what it means that an owner has a write.
const DURABILITY: HeaderName = HeaderName::from_static("quorate-durability");
/// The header that says whether owners alone made the quorum.
const QUORUM: HeaderName = HeaderName::from_static("quorate-quorum");
/// The header that says how many concurrent values a key has.
const SIBLINGS: HeaderName = HeaderName::from_static("quorate-siblings");
/// The header that says how strong the condition of a write was.
const CONDITION: HeaderName = HeaderName::from_static("quorate-condition");

/// What all requests and answers look like, for programs.
const OPENAPI: &str = include_str!("openapi.json");
/// Client requests that may be in progress; more are told to come back.
const REQUESTS_MAX: usize = 1024;
/// Bytes of request bodies that may be in memory; more are told to come back.
const BODIES_BYTES_MAX: usize = 256 << 20;
/// Bytes of answers that may be in memory until their clients have fetched them; more are told to come back.
const ANSWERS_BYTES_MAX: usize = 128 << 20;

/// What the handlers share.
struct Api {
    node: Arc<Node>,
    requests: Semaphore,
    bodies: Room,
    answers: Room,
}

/// The client API.
pub(crate) fn router(node: Arc<Node>) -> Router {
    let requests = Semaphore::new(REQUESTS_MAX);
    let (bodies, answers) = (Room::new(BODIES_BYTES_MAX), Room::new(ANSWERS_BYTES_MAX));
    let api = Api { node: node.clone(), requests, bodies, answers };
    Router::new()
        .route("/v1/kv/{*key}", any(key_value::serve))
        .route("/v1/batch", any(batch::serve))
        .route("/key", any(simple::serve_all))
        .route("/key/{*key}", any(simple::serve_one))
        .route("/openapi.json", get(|| async { ([(header::CONTENT_TYPE, "application/json")], OPENAPI) }))
        .method_not_allowed_fallback(|| async { HttpError::Method("GET, HEAD") })
        .fallback(|| async { HttpError::NotFound })
        .with_state(Arc::new(api))
        .layer(middleware::from_fn_with_state(node, say_goodbye))
}

/// While the node stops, or the ring goes on without it, each answer says that it was the last one of its connection.
/// Otherwise a client that keeps its connections would be cut off in the middle of a request at the end, and would go on
/// asking a node that is no member any more. (HTTP/2 has a word of its own for that.)
async fn say_goodbye(State(node): State<Arc<Node>>, request: Request, next: Next) -> Response {
    let is_http1 = request.version() <= Version::HTTP_11;
    let mut response = next.run(request).await;
    let goes = node.stopping.load(Ordering::Relaxed) || node.departs.load(Ordering::Relaxed);
    if is_http1 && goes {
        response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    response
}

/// Counts a request when it is done, or when its client hung up before: then this is dropped half-way.
struct Counted<'a> {
    metrics: &'a Metrics,
    operation: &'static str,
    started: Instant,
    outcome: &'static str,
}

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        let Self { metrics, operation, started, outcome } = self;
        metrics.requests_in_progress.dec();
        metrics.requests.with_label_values(&["http", *operation, *outcome]).inc();
        let seconds = metrics.request_seconds.with_label_values(&["http", *operation]);
        seconds.observe(started.elapsed().as_secs_f64());
    }
}

fn success(status: StatusCode) -> &'static str {
    match status {
        StatusCode::NOT_FOUND => "not_found",
        StatusCode::MULTIPLE_CHOICES => "siblings",
        _ => "ok",
    }
}

/// What has a status when it went well.
trait HasStatus {
    fn status(&self) -> StatusCode;
}

impl HasStatus for Response {
    fn status(&self) -> StatusCode {
        Response::status(self)
    }
}

impl Api {
    /// Does one operation, if there is room for one more, and counts it.
    async fn count<T: HasStatus>(
        &self,
        operation: &'static str,
        work: impl Future<Output = Result<T, HttpError>>,
    ) -> Result<T, HttpError> {
        let metrics = &self.node.metrics;
        let mut counted = Counted { metrics, operation, started: Instant::now(), outcome: "cancelled" };
        metrics.requests_in_progress.inc();
        let result = match self.requests.try_acquire() {
            Ok(_permit) => work.await,
            Err(_) => Err(Refusal::Busy.into()),
        };
        counted.outcome = match &result {
            Ok(done) => success(done.status()),
            Err(error) => error.code(),
        };
        result
    }

    fn token(&self, key: &[u8], context: &Context) -> String {
        BASE64_URL_SAFE_NO_PAD.encode(context::seal(&self.node.secret, key, context))
    }

    /// The context of a token.
    fn open(&self, key: &[u8], token: &[u8]) -> Result<Context, HttpError> {
        let bytes = BASE64_URL_SAFE_NO_PAD.decode(token).map_err(|_| context::TokenError::Damaged)?;
        Ok(context::open(&self.node.secret, key, &bytes)?)
    }

    fn context_of(&self, key: &[u8], headers: &HeaderMap) -> Result<Option<Context>, HttpError> {
        headers.get(CONTEXT).map(|token| self.open(key, token.as_bytes())).transpose()
    }

    /// What an answer stands on.
    fn receipt(&self, headers: &mut HeaderMap, key: &[u8], context: &Context, receipt: &Receipt) {
        let Receipt { epoch, replicas, hints, needed, .. } = *receipt;
        // With enough owners no hint was needed, whatever the cluster would have allowed.
        let quorum = if replicas < needed { "sloppy" } else { "strict" };
        headers.insert(EPOCH, HeaderValue::from(epoch));
        headers.insert(REPLICAS, HeaderValue::from(u16::from(replicas)));
        headers.insert(QUORUM, HeaderValue::from_static(quorum));
        headers.insert(DURABILITY, HeaderValue::from_static(durability(self.node.durability)));
        if hints > 0 {
            headers.insert(HINTS, HeaderValue::from(u16::from(hints)));
        }
        if let (false, Ok(token)) = (context.is_empty(), HeaderValue::try_from(self.token(key, context))) {
            headers.insert(CONTEXT, token);
        }
    }
}

/// When a value ends that lives so long from now.
fn expiry(ttl: Option<Duration>) -> Option<Expiry> {
    let ttl_ms = |ttl: Duration| u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX);
    ttl.map(|ttl| Expiry::after_ms(unix_ms(), ttl_ms(ttl)))
}

fn durability(durability: Durability) -> &'static str {
    match durability {
        Durability::Sync => "sync",
        Durability::Interval(_) => "interval",
        Durability::Memory => "memory",
    }
}

/// The key is all that follows the prefix of a path, percent-decoded; it may hold any bytes, slashes too.
fn key_of(path: &str, prefix: &str) -> Result<Bytes, HttpError> {
    let encoded = path.strip_prefix(prefix).ok_or(HttpError::NotFound)?;
    checked(percent_decode_str(encoded).collect::<Vec<u8>>().into())
}

/// A key that may be one.
fn checked(key: Bytes) -> Result<Bytes, HttpError> {
    match key.len() {
        0 => Err(HttpError::NoKeyGiven),
        1..=KEY_BYTES_MAX => Ok(key),
        bytes => Err(HttpError::KeyTooLong { bytes }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_any_bytes() {
        let key = |path: &str| key_of(path, "/v1/kv/");
        assert_eq!(&key("/v1/kv/a%2Fb/%FF c").unwrap()[..], b"a/b/\xff c");
        assert!(key(&format!("/v1/kv/{}", "x".repeat(KEY_BYTES_MAX))).is_ok());
        assert!(key(&format!("/v1/kv/{}", "x".repeat(KEY_BYTES_MAX + 1))).is_err());
        assert!(key("/v1/kv/").is_err());
    }
}
