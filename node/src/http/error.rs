//! Errors as clients see them: a status, a stable code and a sentence that says what to do.

use axum::Json;
use axum::response::{IntoResponse, Response};
use http::{HeaderValue, StatusCode, header};
use quorate_admin::types::{ErrorBody, ErrorDetail};
use quorate_core::limits::{KEY_BYTES_MAX, VALUE_BYTES_MAX};
use quorate_wire::context::TokenError;
use quorate_wire::peer::Refusal;

use super::parameters::ParameterError;
use crate::refusal;

/// A request that is answered with an error.
#[derive(Debug, thiserror::Error)]
pub(crate) enum HttpError {
    #[error("{}", refusal::sentence(.0))]
    Refused(#[from] Refusal),
    #[error(transparent)]
    Context(#[from] TokenError),
    #[error(transparent)]
    Parameter(#[from] ParameterError),
    #[error("there is no such resource: keys are at /v1/kv/{{key}}")]
    NotFound,
    #[error("the key has no value")]
    NoKey,
    #[error("only GET, HEAD, PUT and DELETE are known here")]
    Method,
    #[error("the key has {bytes} bytes; at most {KEY_BYTES_MAX} are taken")]
    KeyTooLong { bytes: usize },
    #[error("the value is longer than {VALUE_BYTES_MAX} bytes, the most that is taken: store it in parts")]
    ValueTooLong,
    #[error("the body did not come in time; nothing was written")]
    SlowBody,
    #[error("the body broke off; nothing was written: {0}")]
    BrokenBody(String),
}

impl HttpError {
    /// Stable, for programs and metrics.
    pub(crate) fn code(&self) -> &'static str {
        match self {
            Self::Refused(refusal) => refusal::code(refusal),
            Self::Context(_) => "bad_context",
            Self::Parameter(_) => "bad_parameter",
            Self::NotFound | Self::NoKey => "not_found",
            Self::Method => "bad_method",
            Self::KeyTooLong { .. } | Self::ValueTooLong => "too_large",
            Self::SlowBody => "slow_request",
            Self::BrokenBody(_) => "bad_request",
        }
    }

    fn status(&self) -> StatusCode {
        match self.code() {
            "not_ready" | "starting" | "stopping" | "busy" | "unavailable" | "hints_full" | "clock_ahead" => {
                StatusCode::SERVICE_UNAVAILABLE
            }
            "storage_full" => StatusCode::INSUFFICIENT_STORAGE,
            "storage_failed" => StatusCode::INTERNAL_SERVER_ERROR,
            "too_many_siblings" => StatusCode::CONFLICT,
            "timeout" => StatusCode::GATEWAY_TIMEOUT,
            "not_found" => StatusCode::NOT_FOUND,
            "slow_request" => StatusCode::REQUEST_TIMEOUT,
            "bad_method" => StatusCode::METHOD_NOT_ALLOWED,
            "too_large" => StatusCode::PAYLOAD_TOO_LARGE,
            _ => StatusCode::BAD_REQUEST,
        }
    }
}

impl IntoResponse for HttpError {
    fn into_response(self) -> Response {
        let status = self.status();
        let mut response = error_response(status, self.code(), &self.to_string());
        if status == StatusCode::SERVICE_UNAVAILABLE {
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
        }
        if status == StatusCode::METHOD_NOT_ALLOWED {
            response.headers_mut().insert(header::ALLOW, HeaderValue::from_static("GET, HEAD, PUT, DELETE"));
        }
        response
    }
}

/// The shape that every error of every HTTP API has here.
pub(crate) fn error_response(status: StatusCode, code: &str, message: &str) -> Response {
    let error = ErrorDetail { code: code.to_owned(), message: message.to_owned() };
    (status, Json(ErrorBody { error })).into_response()
}
