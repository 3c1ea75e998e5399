//! The client API over HTTP: `/v1/kv/{key}` with raw bodies.
//!
//! | request | answer |
//! | --- | --- |
//! | `PUT` | 204 |
//! | `GET`, `HEAD` | 200 one value, 300 several (siblings), 404 none |
//! | `DELETE` | 204 |
//!
//! The header `Quorate-Context` carries the causal context: every answer that knows one has it, and a write
//! that sends it back replaces exactly what that answer showed. What an answer stands on is in the other `Quorate-`
//! headers; what it must stand on, and how long a value lives, may be said in the query ([`parameters`]).

mod error;
mod parameters;
mod siblings;

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::{Body, BodyDataStream, Bytes};
use axum::extract::{Request, State};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::any;
use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use bytes::BytesMut;
use futures::StreamExt as _;
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Version, header};
use percent_encoding::percent_decode_str;
use quorate_core::causality::{Context, Expiry, Policy};
use quorate_core::limits::{KEY_BYTES_MAX, VALUE_BYTES_MAX};
use quorate_replica::Found;
use quorate_storage::Durability;
use quorate_wire::context;
use quorate_wire::peer::{ClientWrite, Receipt, Refusal, set_bytes};
use tokio::sync::Semaphore;
use tokio::time::timeout;

use crate::engine::unix_ms;
use crate::metrics::Metrics;
use crate::node::Node;
use crate::room::{Room, Taken, keep};
use parameters::{Parameters, Takes};
use siblings::{Representation, Values};

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

const PREFIX: &str = "/v1/kv/";
/// Client requests that may be in progress; more are told to come back.
const REQUESTS_MAX: usize = 1024;
/// Bytes of request bodies that may be in memory; more are told to come back.
const BODIES_BYTES_MAX: usize = 256 << 20;
/// Bytes of answers that may be in memory until their clients have fetched them; more are told to come back.
const ANSWERS_BYTES_MAX: usize = 128 << 20;
/// Bytes of a refused body that are still read, so that the client gets to see the answer.
const DISCARD_BYTES_MAX: usize = 64 << 20;

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
        .route("/v1/kv/{*key}", any(key_value))
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

async fn key_value(State(api): State<Arc<Api>>, request: Request) -> Response {
    let operation = match *request.method() {
        Method::GET => "get",
        Method::HEAD => "head",
        Method::PUT => "put",
        Method::DELETE => "delete",
        _ => return HttpError::Method.into_response(),
    };
    let metrics = &api.node.metrics;
    let mut counted = Counted { metrics, operation, started: Instant::now(), outcome: "cancelled" };
    metrics.requests_in_progress.inc();
    let response = match api.requests.try_acquire() {
        Ok(_permit) => api.answer(operation, request).await,
        Err(_) => Err(Refusal::Busy.into()),
    };
    let (outcome, response) = match response {
        Ok(response) => (success(response.status()), response),
        Err(error) => (error.code(), error.into_response()),
    };
    counted.outcome = outcome;
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

impl Api {
    async fn answer(&self, operation: &str, request: Request) -> Result<Response, HttpError> {
        let (head, body) = request.into_parts();
        let key = key_of(head.uri.path());
        let query = head.uri.query();
        match operation {
            "put" => {
                let taken = Parameters::parse(query, Takes { read: false, write: true, ttl: true });
                let asked = key.and_then(|key| Ok((key, taken?)));
                self.put(asked, &head.headers, body).await
            }
            "delete" => {
                let taken = Parameters::parse(query, Takes { read: true, write: true, ttl: false })?;
                self.delete(key?, taken, &head.headers).await
            }
            _ => {
                let taken = Parameters::parse(query, Takes { read: true, write: false, ttl: false })?;
                self.get(key?, taken, &head.headers).await
            }
        }
    }

    async fn put(
        &self,
        asked: Result<(Bytes, Parameters), HttpError>,
        headers: &HeaderMap,
        body: Body,
    ) -> Result<Response, HttpError> {
        let mut body = body.into_data_stream();
        let taken = async {
            let (key, parameters) = asked?;
            let context = self.context_of(&key, headers)?.unwrap_or_default();
            let (value, room) = self.value(headers, &mut body).await?;
            Ok((key, context, value, parameters, room))
        };
        match taken.await {
            Ok((key, context, value, parameters, _room)) => {
                self.write(key, context, Some(value), parameters).await
            }
            Err(error) => {
                // A client that is still sending would see a broken connection instead of the answer.
                let _ = timeout(self.node.request_timeout, discard(&mut body)).await;
                Err(error)
            }
        }
    }

    /// The body, and the room that it takes in memory while it is held.
    async fn value(
        &self,
        headers: &HeaderMap,
        body: &mut BodyDataStream,
    ) -> Result<(Bytes, Taken), HttpError> {
        let announced =
            headers.get(header::CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse().ok());
        let bytes: usize = announced.unwrap_or(VALUE_BYTES_MAX);
        if bytes > VALUE_BYTES_MAX {
            return Err(HttpError::ValueTooLong);
        }
        let room = self.bodies.take(bytes).ok_or(Refusal::Busy)?;
        let value =
            timeout(self.node.request_timeout, read(body)).await.map_err(|_| HttpError::SlowBody)??;
        Ok((value, room))
    }

    /// A delete without a context deletes what a read finds now: a person with curl means just that.
    async fn delete(
        &self,
        key: Bytes,
        parameters: Parameters,
        headers: &HeaderMap,
    ) -> Result<Response, HttpError> {
        let context = match self.context_of(&key, headers)? {
            Some(context) => context,
            None => self.node.read(key.clone(), parameters.read).await?.set.context().clone(),
        };
        self.write(key, context, None, parameters).await
    }

    async fn write(
        &self,
        key: Bytes,
        context: Context,
        value: Option<Bytes>,
        parameters: Parameters,
    ) -> Result<Response, HttpError> {
        let ttl_ms = |ttl: Duration| u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX);
        let write = ClientWrite {
            context,
            value,
            expires: parameters.ttl.map(|ttl| Expiry::after_ms(unix_ms(), ttl_ms(ttl))),
            policy: self.node.conflicts,
            consistency: parameters.write,
        };
        let written = self.node.write(key.clone(), write).await?;
        let mut response = StatusCode::NO_CONTENT.into_response();
        self.receipt(response.headers_mut(), &key, &written.context, &written.receipt);
        Ok(response)
    }

    async fn get(
        &self,
        key: Bytes,
        parameters: Parameters,
        headers: &HeaderMap,
    ) -> Result<Response, HttpError> {
        let Found { mut set, receipt } = self.node.read(key.clone(), parameters.read).await?;
        let room = self.answers.take(set_bytes(&set)).ok_or(Refusal::Busy)?;
        // The answer shows one value, but its context is that of all: writing it back resolves them.
        let context = set.context().clone();
        if self.node.conflicts == Policy::LastWriteWins {
            set = set.into_last();
        }
        let values: Vec<_> = set.live(unix_ms()).collect();
        let token = self.token(&key, &context);
        let mut response = match represent(&values, &token, headers) {
            None => HttpError::NoKey.into_response(),
            Some(Representation { status, content_type, body }) => {
                // A client that is slow to fetch its answer holds room until it has it.
                let body = Body::from(keep(body, room));
                (status, [(header::CONTENT_TYPE, content_type)], body).into_response()
            }
        };
        self.receipt(response.headers_mut(), &key, &context, &receipt);
        response.headers_mut().insert(SIBLINGS, HeaderValue::from(values.len()));
        Ok(response)
    }

    fn token(&self, key: &[u8], context: &Context) -> String {
        BASE64_URL_SAFE_NO_PAD.encode(context::seal(&self.node.secret, key, context))
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

    fn context_of(&self, key: &[u8], headers: &HeaderMap) -> Result<Option<Context>, HttpError> {
        let Some(token) = headers.get(CONTEXT) else { return Ok(None) };
        let bytes = BASE64_URL_SAFE_NO_PAD.decode(token).map_err(|_| context::TokenError::Damaged)?;
        Ok(Some(context::open(&self.node.secret, key, &bytes)?))
    }
}

/// Reads a value, up to the longest that is taken.
async fn read(body: &mut BodyDataStream) -> Result<Bytes, HttpError> {
    let mut value = BytesMut::new();
    while let Some(chunk) = body.next().await {
        let chunk = chunk.map_err(|error| HttpError::BrokenBody(error.to_string()))?;
        if value.len() + chunk.len() > VALUE_BYTES_MAX {
            return Err(HttpError::ValueTooLong);
        }
        value.extend_from_slice(&chunk);
    }
    Ok(value.freeze())
}

/// Reads what is left of a body into nowhere, as far as politeness goes.
async fn discard(body: &mut BodyDataStream) {
    let mut left = DISCARD_BYTES_MAX;
    while let Some(Ok(chunk)) = body.next().await {
        match left.checked_sub(chunk.len()) {
            Some(rest) => left = rest,
            None => return,
        }
    }
}

/// The key is all that follows the prefix, percent-decoded; it may hold any bytes, slashes too.
fn key_of(path: &str) -> Result<Bytes, HttpError> {
    let encoded = path.strip_prefix(PREFIX).ok_or(HttpError::NotFound)?;
    let key: Vec<u8> = percent_decode_str(encoded).collect();
    if key.len() > KEY_BYTES_MAX { Err(HttpError::KeyTooLong { bytes: key.len() }) } else { Ok(key.into()) }
}

fn durability(durability: Durability) -> &'static str {
    match durability {
        Durability::Sync => "sync",
        Durability::Interval(_) => "interval",
        Durability::Memory => "memory",
    }
}

/// What a client sees of a key; nothing when it holds no value.
fn represent(values: &Values<'_>, token: &str, headers: &HeaderMap) -> Option<Representation> {
    match values {
        [] => None,
        _ if siblings::wants_json(headers) => Some(siblings::json(values, token)),
        [(_, value)] => Some(Representation {
            status: StatusCode::OK,
            content_type: HeaderValue::from_static("application/octet-stream"),
            body: (*value).clone(),
        }),
        _ => Some(siblings::multipart(values)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_any_bytes() {
        assert_eq!(&key_of("/v1/kv/a%2Fb/%FF c").unwrap()[..], b"a/b/\xff c");
        assert!(key_of(&format!("/v1/kv/{}", "x".repeat(KEY_BYTES_MAX))).is_ok());
        assert!(key_of(&format!("/v1/kv/{}", "x".repeat(KEY_BYTES_MAX + 1))).is_err());
    }
}
