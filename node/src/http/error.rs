//! Errors as clients see them: a status, a stable code and a sentence that says what to do.

use axum::Json;
use axum::response::{IntoResponse, Response};
use http::{HeaderName, HeaderValue, StatusCode, header};
use quorate_admin::types::{ErrorBody, ErrorDetail};
use quorate_core::limits::{KEY_BYTES_MAX, VALUE_BYTES_MAX};
use quorate_wire::context::TokenError;
use quorate_wire::peer::Refusal;

use super::condition::ConditionError;
use super::parameters::ParameterError;
use super::patch::MEDIA_TYPE;
use crate::refusal;
use crate::users::Denied;

/// What a PATCH may be (RFC 5789).
const ACCEPT_PATCH: HeaderName = HeaderName::from_static("accept-patch");

/// How to say who asks (RFC 7617).
const CHALLENGE: &str = "Basic realm=\"quorate\", charset=\"UTF-8\"";

/// A request that is answered with an error.
#[derive(Debug, thiserror::Error)]
pub(crate) enum HttpError {
    #[error("{}", refusal::sentence(.0))]
    Refused(#[from] Refusal),
    #[error(transparent)]
    Context(#[from] TokenError),
    #[error(transparent)]
    Parameter(#[from] ParameterError),
    #[error(transparent)]
    Denied(#[from] Denied),
    #[error(transparent)]
    Condition(#[from] ConditionError),
    #[error("the condition is not true: the key is not as it was; read it again")]
    ConditionFailed,
    #[error("there is no such resource: keys are at /v1/kv/{{key}}, the rest is in /openapi.json")]
    NotFound,
    #[error("the key has no value")]
    NoKey,
    #[error("only {0} can be asked for here")]
    Method(&'static str),
    #[error("a key has at least one byte")]
    NoKeyGiven,
    #[error("the key has {bytes} bytes; at most {KEY_BYTES_MAX} are taken")]
    KeyTooLong { bytes: usize },
    #[error("the value is longer than {VALUE_BYTES_MAX} bytes, the most that is taken: store it in parts")]
    ValueTooLong,
    #[error("the body did not come in time; nothing was written")]
    SlowBody,
    #[error("a PATCH is a JSON merge patch: send it with Content-Type: {MEDIA_TYPE}")]
    MediaType,
    #[error("nothing was written: {0}")]
    BadJson(String),
    #[error("the key's value is not JSON, so it cannot be patched: {0}")]
    NotJson(String),
    #[error("the key or its value is not UTF-8 text: read it at /v1/kv/{{key}}")]
    NotText,
    #[error(
        "the key has {count} values: read them, and write the merged one with the context of that answer; then it can be patched"
    )]
    Siblings { count: usize },
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
            Self::Denied(denied) => denied.code(),
            Self::Condition(_) => "bad_condition",
            Self::ConditionFailed => "condition_failed",
            Self::Method(_) => "bad_method",
            Self::MediaType => "bad_media_type",
            Self::NotJson(_) => "not_json",
            Self::NotText => "not_text",
            Self::Siblings { .. } => "siblings",
            Self::KeyTooLong { .. } | Self::ValueTooLong => "too_large",
            Self::SlowBody => "slow_request",
            Self::BrokenBody(_) | Self::BadJson(_) | Self::NoKeyGiven => "bad_request",
        }
    }

    pub(super) fn status(&self) -> StatusCode {
        match self.code() {
            "not_ready" | "starting" | "stopping" | "busy" | "unavailable" | "hints_full" | "clock_ahead" => {
                StatusCode::SERVICE_UNAVAILABLE
            }
            "storage_full" => StatusCode::INSUFFICIENT_STORAGE,
            "storage_failed" => StatusCode::INTERNAL_SERVER_ERROR,
            "too_many_siblings" | "not_json" | "not_text" | "siblings" => StatusCode::CONFLICT,
            "unauthorized" => StatusCode::UNAUTHORIZED,
            "forbidden" => StatusCode::FORBIDDEN,
            "condition_failed" => StatusCode::PRECONDITION_FAILED,
            "bad_media_type" => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            "timeout" => StatusCode::GATEWAY_TIMEOUT,
            "not_found" => StatusCode::NOT_FOUND,
            "slow_request" => StatusCode::REQUEST_TIMEOUT,
            "bad_method" => StatusCode::METHOD_NOT_ALLOWED,
            "too_large" => StatusCode::PAYLOAD_TOO_LARGE,
            _ => StatusCode::BAD_REQUEST,
        }
    }
}

impl HttpError {
    /// As it is told in JSON.
    pub(super) fn detail(&self) -> ErrorDetail {
        ErrorDetail { code: self.code().to_owned(), message: self.to_string() }
    }
}

impl IntoResponse for HttpError {
    fn into_response(self) -> Response {
        let status = self.status();
        let mut response = (status, Json(ErrorBody { error: self.detail() })).into_response();
        let headers = response.headers_mut();
        if status == StatusCode::SERVICE_UNAVAILABLE {
            headers.insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
        }
        match self {
            Self::Method(allowed) => drop(headers.insert(header::ALLOW, HeaderValue::from_static(allowed))),
            Self::MediaType => drop(headers.insert(ACCEPT_PATCH, HeaderValue::from_static(MEDIA_TYPE))),
            Self::Denied(_) if status == StatusCode::UNAUTHORIZED => {
                headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static(CHALLENGE));
            }
            _ => {}
        }
        response
    }
}

/// The shape that every error of every HTTP API has here.
pub(crate) fn error_response(status: StatusCode, code: &str, message: &str) -> Response {
    let error = ErrorDetail { code: code.to_owned(), message: message.to_owned() };
    (status, Json(ErrorBody { error })).into_response()
}
