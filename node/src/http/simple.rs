//! The simple form, for those who keep texts and care for one value a key: `POST /key` with `{"key": …, "value": …}`,
//! `GET /key/{key}`, `DELETE /key/{key}`. The last write wins here, as for [Redis clients](crate::resp), whatever the
//! cluster does with siblings.

use std::sync::Arc;

use axum::Json;
use axum::body::{Body, Bytes};
use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use http::request::Parts;
use http::{Method, StatusCode};
use quorate_core::causality::{Context, Policy};
use quorate_replica::Found;
use quorate_wire::peer::{ClientWrite, Refusal};
use serde::{Deserialize, Serialize};

use super::error::HttpError;
use super::parameters::{Parameters, Takes};
use super::{Api, body, checked, expiry, key_of};
use crate::engine::unix_ms;
use crate::users::Need;

/// A key and its value, both ways.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Pair {
    key: String,
    value: String,
}

/// `/key`
pub(super) async fn serve_all(State(api): State<Arc<Api>>, request: Request) -> Response {
    if request.method() != Method::POST {
        return HttpError::Method("POST").into_response();
    }
    let (head, body) = request.into_parts();
    api.count("put", api.post_pair(&head, body)).await.unwrap_or_else(IntoResponse::into_response)
}

/// `/key/{key}`
pub(super) async fn serve_one(State(api): State<Arc<Api>>, request: Request) -> Response {
    let (head, _) = request.into_parts();
    let result = match head.method {
        Method::GET => api.count("get", api.get_pair(&head)).await,
        Method::HEAD => api.count("head", api.get_pair(&head)).await,
        Method::DELETE => api.count("delete", api.delete_pair(&head)).await,
        _ => Err(HttpError::Method("GET, HEAD, DELETE")),
    };
    result.unwrap_or_else(IntoResponse::into_response)
}

impl Api {
    async fn post_pair(&self, head: &Parts, body: Body) -> Result<Response, HttpError> {
        let (mut body, time) = (body.into_data_stream(), self.node.request_timeout);
        let taken = async {
            let takes = Takes { read: false, write: true, ttl: true };
            let parameters = Parameters::parse(head.uri.query(), takes)?;
            let (text, room) = body::whole(&head.headers, &mut body, &self.bodies, time).await?;
            let pair: Pair = serde_json::from_slice(&text).map_err(|error| {
                HttpError::BadJson(format!("write {{\"key\": \"…\", \"value\": \"…\"}}: {error}"))
            })?;
            Ok((pair, parameters, room))
        };
        let taken: Result<_, HttpError> = taken.await;
        let (pair, parameters, _room) = match taken {
            Ok(taken) => taken,
            Err(error) => {
                body::discard(&mut body, time).await;
                return Err(error);
            }
        };
        let key = checked(Bytes::from(pair.key.clone()))?;
        self.allow(&head.headers, Need::Write, &key)?;
        self.write_last(key, Some(pair.value.clone().into()), parameters).await?;
        Ok(Json(pair).into_response())
    }

    async fn get_pair(&self, head: &Parts) -> Result<Response, HttpError> {
        let key = key_of(head.uri.path(), "/key/")?;
        self.allow(&head.headers, Need::Read, &key)?;
        let takes = Takes { read: true, write: false, ttl: false };
        let parameters = Parameters::parse(head.uri.query(), takes)?;
        let text = text(&key)?;
        let Found { set, .. } = self.node.read(key, parameters.read).await?;
        let value = set.last().and_then(|last| last.live_value(unix_ms())).ok_or(HttpError::NoKey)?;
        // JSON may write one byte as six.
        let _room = self.answers.take(value.len() * 6).ok_or(Refusal::Busy)?;
        let value = String::from_utf8(value.to_vec()).map_err(|_| HttpError::NotText)?;
        Ok(Json(Pair { key: text, value }).into_response())
    }

    async fn delete_pair(&self, head: &Parts) -> Result<Response, HttpError> {
        let key = key_of(head.uri.path(), "/key/")?;
        self.allow(&head.headers, Need::Write, &key)?;
        let takes = Takes { read: false, write: true, ttl: false };
        let parameters = Parameters::parse(head.uri.query(), takes)?;
        self.write_last(key, None, parameters).await?;
        Ok(StatusCode::NO_CONTENT.into_response())
    }

    /// Replaces whatever a key holds.
    async fn write_last(
        &self,
        key: Bytes,
        value: Option<Bytes>,
        parameters: Parameters,
    ) -> Result<(), HttpError> {
        let write = ClientWrite {
            context: Context::default(),
            value,
            expires: expiry(parameters.ttl),
            policy: Policy::LastWriteWins,
            consistency: parameters.write,
        };
        self.node.write(key, write).await?;
        Ok(())
    }
}

fn text(key: &Bytes) -> Result<String, HttpError> {
    String::from_utf8(key.to_vec()).map_err(|_| HttpError::NotText)
}
