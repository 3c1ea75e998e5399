//! The client API over HTTP: `/v1/kv/{key}` with raw bodies.
//!
//! | request | answer |
//! | --- | --- |
//! | `PUT` | 204 |
//! | `GET`, `HEAD` | 200 one value, 300 several (siblings), 404 none |
//! | `DELETE` | 204 |
//!
//! The header `Quorate-Context` carries the causal context: every answer that knows one has it, and a write
//! that sends it back replaces exactly what that answer showed.

mod error;
mod siblings;

use std::sync::Arc;
use std::time::Instant;

use axum::Router;
use axum::body::{Body, BodyDataStream, Bytes};
use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use axum::routing::any;
use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use bytes::BytesMut;
use futures::StreamExt as _;
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use percent_encoding::percent_decode_str;
use quorate_core::causality::{Context, Policy, VersionSet};
use quorate_core::limits::{KEY_BYTES_MAX, VALUE_BYTES_MAX};
use quorate_wire::context;
use quorate_wire::peer::{ClientWrite, Refusal};
use tokio::sync::Semaphore;
use tokio::time::timeout;

use crate::metrics::Metrics;
use crate::node::Node;
use crate::room::{Room, Taken, keep};
use siblings::Representation;

pub(crate) use error::{HttpError, error_response};

/// The header of the causal context.
pub(crate) const CONTEXT: HeaderName = HeaderName::from_static("quorate-context");
/// The header that says how many owners an answer comes from.
const REPLICAS: HeaderName = HeaderName::from_static("quorate-replicas");
/// The header that says how many concurrent values a key has.
const SIBLINGS: HeaderName = HeaderName::from_static("quorate-siblings");

const PREFIX: &str = "/v1/kv/";
/// Client requests that may be in progress; more are told to come back.
const REQUESTS_MAX: usize = 1024;
/// Bytes of request bodies that may be in memory; more are told to come back.
const BODIES_BYTES_MAX: usize = 256 << 20;
/// Bytes of a refused body that are still read, so that the client gets to see the answer.
const DISCARD_BYTES_MAX: usize = 64 << 20;

/// What the handlers share.
struct Api {
    node: Arc<Node>,
    requests: Semaphore,
    bodies: Room,
}

/// The client API.
pub(crate) fn router(node: Arc<Node>) -> Router {
    let api = Api { node, requests: Semaphore::new(REQUESTS_MAX), bodies: Room::new(BODIES_BYTES_MAX) };
    Router::new()
        .route("/v1/kv/{*key}", any(key_value))
        .fallback(|| async { HttpError::NotFound })
        .with_state(Arc::new(api))
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
        metrics.requests.with_label_values(&[*operation, *outcome]).inc();
        metrics.request_seconds.with_label_values(&[*operation]).observe(started.elapsed().as_secs_f64());
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
        match operation {
            "put" => self.put(key, &head.headers, body).await,
            "delete" => self.delete(key?, &head.headers).await,
            _ => self.get(key?, &head.headers).await,
        }
    }

    async fn put(
        &self,
        key: Result<Bytes, HttpError>,
        headers: &HeaderMap,
        body: Body,
    ) -> Result<Response, HttpError> {
        let mut body = body.into_data_stream();
        let taken = async {
            let key = key?;
            let context = self.context_of(&key, headers)?.unwrap_or_default();
            let (value, _room) = self.value(headers, &mut body).await?;
            Ok((key, context, value, _room))
        };
        match taken.await {
            Ok((key, context, value, _room)) => self.write(key, context, Some(value)).await,
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
    async fn delete(&self, key: Bytes, headers: &HeaderMap) -> Result<Response, HttpError> {
        let context = match self.context_of(&key, headers)? {
            Some(context) => context,
            None => self.node.read(key.clone()).await?.set.context().clone(),
        };
        self.write(key, context, None).await
    }

    async fn write(&self, key: Bytes, context: Context, value: Option<Bytes>) -> Result<Response, HttpError> {
        let write = ClientWrite { context, value, policy: self.node.conflicts };
        let written = self.node.write(key.clone(), write).await?;
        let mut response = StatusCode::NO_CONTENT.into_response();
        self.receipt(response.headers_mut(), &key, &written.context, written.replicas);
        Ok(response)
    }

    async fn get(&self, key: Bytes, headers: &HeaderMap) -> Result<Response, HttpError> {
        let mut found = self.node.read(key.clone()).await?;
        // The answer shows one value, but its context is that of all: writing it back resolves them.
        let context = found.set.context().clone();
        if self.node.conflicts == Policy::LastWriteWins {
            found.set = found.set.into_last();
        }
        let token = self.token(&key, &context);
        let mut response = match represent(&found.set, &token, headers) {
            None => HttpError::NoKey.into_response(),
            Some(Representation { status, content_type, body }) => {
                // A client that is slow to fetch its answer holds room until it has it.
                let body = Body::from(keep(body, found.room));
                (status, [(header::CONTENT_TYPE, content_type)], body).into_response()
            }
        };
        self.receipt(response.headers_mut(), &key, &context, found.replicas);
        response.headers_mut().insert(SIBLINGS, HeaderValue::from(found.set.values().count()));
        Ok(response)
    }

    fn token(&self, key: &[u8], context: &Context) -> String {
        BASE64_URL_SAFE_NO_PAD.encode(context::seal(&self.node.secret, key, context))
    }

    fn receipt(&self, headers: &mut HeaderMap, key: &[u8], context: &Context, replicas: u8) {
        headers.insert(REPLICAS, HeaderValue::from(u16::from(replicas)));
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

/// What a client sees of a set; nothing when it holds no value.
fn represent(set: &VersionSet, token: &str, headers: &HeaderMap) -> Option<Representation> {
    let mut values = set.values();
    match (values.next()?, values.next()) {
        _ if siblings::wants_json(headers) => Some(siblings::json(set, token)),
        ((_, value), None) => Some(Representation {
            status: StatusCode::OK,
            content_type: HeaderValue::from_static("application/octet-stream"),
            body: value.clone(),
        }),
        _ => Some(siblings::multipart(set)),
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
