//! `/v1/kv/{key}`, with raw bodies.

use std::sync::Arc;

use axum::body::{Body, Bytes};
use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use http::request::Parts;
use http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use quorate_core::causality::{Context, Policy, VersionSet};
use quorate_replica::Found;
use quorate_wire::peer::{ClientWrite, Refusal, Written, set_bytes};

use super::condition::Condition;
use super::error::HttpError;
use super::parameters::{Parameters, Takes};
use super::siblings::{self, Representation, Values};
use super::{Api, CONDITION, SIBLINGS, body, expiry, key_of};
use crate::engine::unix_ms;
use crate::room::keep;
use crate::users::Need;

const METHODS: &str = "GET, HEAD, PUT, PATCH, DELETE";

pub(super) async fn serve(State(api): State<Arc<Api>>, request: Request) -> Response {
    let operation = match *request.method() {
        Method::GET => "get",
        Method::HEAD => "head",
        Method::PUT => "put",
        Method::PATCH => "patch",
        Method::DELETE => "delete",
        _ => return HttpError::Method(METHODS).into_response(),
    };
    api.count(operation, api.answer(request)).await.unwrap_or_else(IntoResponse::into_response)
}

/// A write as its request describes it, but for the value.
pub(super) struct Asked {
    pub(super) key: Bytes,
    pub(super) parameters: Parameters,
    pub(super) condition: Condition,
    /// The one that the request gives.
    pub(super) context: Option<Context>,
}

impl Api {
    async fn answer(&self, request: Request) -> Result<Response, HttpError> {
        let (head, body) = request.into_parts();
        match head.method {
            Method::PUT | Method::PATCH => {
                let mut body = body.into_data_stream();
                let result = self.change(&head, &mut body).await;
                if result.is_err() {
                    body::discard(&mut body, self.node.request_timeout).await;
                }
                result
            }
            Method::DELETE => self.delete(&head).await,
            _ => self.get(&head).await,
        }
    }

    async fn change(
        &self,
        head: &Parts,
        body: &mut axum::body::BodyDataStream,
    ) -> Result<Response, HttpError> {
        let asked = self.asked(head, true)?;
        let is_patch = head.method == Method::PATCH;
        if is_patch {
            self.expect_patch(&asked, &head.headers)?;
        }
        let time = self.node.request_timeout;
        let (value, _room) = body::whole(&head.headers, body, &self.bodies, time).await?;
        if is_patch { self.patch(asked, &value).await } else { self.put(asked, value).await }
    }

    /// What a request that writes asks for.
    fn asked(&self, head: &Parts, ttl: bool) -> Result<Asked, HttpError> {
        let key = key_of(head.uri.path(), "/v1/kv/")?;
        let condition = self.condition_of(&key, &head.headers)?;
        let reads = condition.is_some() || head.method != Method::PUT;
        let tells = condition.is_some() || head.method == Method::PATCH;
        self.allow(&head.headers, if tells { Need::ReadAndWrite } else { Need::Write }, &key)?;
        let parameters = Parameters::parse(head.uri.query(), Takes { read: reads, write: true, ttl })?;
        let context = self.context_of(&key, &head.headers)?;
        Ok(Asked { key, parameters, condition, context })
    }

    async fn put(&self, asked: Asked, value: Bytes) -> Result<Response, HttpError> {
        let context = match (&asked.condition, &asked.context) {
            (Condition::None, context) => context.clone().unwrap_or_default(),
            _ => self.replaced(&asked).await?,
        };
        self.write(asked, context, Some(value)).await
    }

    /// A delete without a context deletes what a read finds now: a person with curl means just that.
    async fn delete(&self, head: &Parts) -> Result<Response, HttpError> {
        let asked = self.asked(head, false)?;
        let context = match (&asked.condition, &asked.context) {
            (Condition::None, Some(context)) => context.clone(),
            _ => self.replaced(&asked).await?,
        };
        self.write(asked, context, None).await
    }

    /// What a write replaces that depends on what a read finds.
    async fn replaced(&self, asked: &Asked) -> Result<Context, HttpError> {
        let Found { set, .. } = self.node.read(asked.key.clone(), asked.parameters.read).await?;
        if asked.condition.holds(&set, unix_ms()) {
            Ok(set.context().clone())
        } else {
            Err(HttpError::ConditionFailed)
        }
    }

    async fn write(
        &self,
        asked: Asked,
        context: Context,
        value: Option<Bytes>,
    ) -> Result<Response, HttpError> {
        let Asked { key, parameters, condition, .. } = asked;
        let write = ClientWrite {
            context,
            value,
            expires: expiry(parameters.ttl),
            policy: self.node.conflicts,
            consistency: parameters.write,
        };
        let written = self.node.write(key.clone(), write).await?;
        Ok(self.written(&key, &condition, &written))
    }

    /// The answer to a write.
    pub(super) fn written(&self, key: &[u8], condition: &Condition, written: &Written) -> Response {
        let mut response = StatusCode::NO_CONTENT.into_response();
        let headers = response.headers_mut();
        self.receipt(headers, key, &written.context, &written.receipt);
        if condition.is_some() {
            headers.insert(CONDITION, HeaderValue::from_static("read-then-write"));
        }
        response
    }

    async fn get(&self, head: &Parts) -> Result<Response, HttpError> {
        let key = key_of(head.uri.path(), "/v1/kv/")?;
        self.allow(&head.headers, Need::Read, &key)?;
        let takes = Takes { read: true, write: false, ttl: false };
        let parameters = Parameters::parse(head.uri.query(), takes)?;
        let condition = self.condition_of(&key, &head.headers)?;
        let Found { set, receipt } = self.node.read(key.clone(), parameters.read).await?;
        // The answer shows one value, but its context is that of all: writing it back resolves them.
        let context = set.context().clone();
        let holds = condition.holds(&set, unix_ms());
        let (mut response, siblings) = match condition {
            Condition::Unchanged(_) | Condition::Exists if !holds => return Err(HttpError::ConditionFailed),
            _ if !holds => (StatusCode::NOT_MODIFIED.into_response(), None),
            _ => self.shown(&key, set, &head.headers)?,
        };
        self.receipt(response.headers_mut(), &key, &context, &receipt);
        if let Some(siblings) = siblings {
            response.headers_mut().insert(SIBLINGS, HeaderValue::from(siblings));
        }
        Ok(response)
    }

    /// A key as a client sees it, and how many values it has.
    fn shown(
        &self,
        key: &[u8],
        set: VersionSet,
        headers: &HeaderMap,
    ) -> Result<(Response, Option<usize>), HttpError> {
        let room = self.answers.take(set_bytes(&set)).ok_or(Refusal::Busy)?;
        let token = self.token(key, set.context());
        let set = self.seen(set);
        let values: Vec<_> = set.live(unix_ms()).collect();
        let response = match represent(&values, &token, headers) {
            None => HttpError::NoKey.into_response(),
            Some(Representation { status, content_type, body }) => {
                // A client that is slow to fetch its answer holds room until it has it.
                let body = Body::from(keep(body, room));
                (status, [(header::CONTENT_TYPE, content_type)], body).into_response()
            }
        };
        Ok((response, Some(values.len())))
    }

    /// What readers see of it: where the last write wins, that one.
    pub(super) fn seen(&self, set: VersionSet) -> VersionSet {
        if self.node.conflicts == Policy::LastWriteWins { set.into_last() } else { set }
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
