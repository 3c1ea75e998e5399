//! Several concurrent values in one answer: multipart by default, JSON for those who ask for it.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, StatusCode, header};
use quorate_core::causality::{Expiry, Version};
use serde::Serialize;

/// Whether the client names `application/json` among what it accepts. `*/*` means the raw value.
pub(super) fn wants_json(headers: &HeaderMap) -> bool {
    let accepts = headers.get_all(header::ACCEPT).iter().filter_map(|value| value.to_str().ok());
    accepts.flat_map(|value| value.split(',')).any(|media| {
        media.split(';').next().is_some_and(|media| media.trim().eq_ignore_ascii_case("application/json"))
    })
}

/// The values that a client gets to see, with their versions.
pub(super) type Values<'a> = [(&'a Version, &'a Bytes)];

fn status(values: &Values<'_>) -> StatusCode {
    if values.len() > 1 { StatusCode::MULTIPLE_CHOICES } else { StatusCode::OK }
}

/// A set as a client asked to see it.
pub(super) struct Representation {
    pub(super) status: StatusCode,
    pub(super) content_type: HeaderValue,
    pub(super) body: Bytes,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Document<'a> {
    context: &'a str,
    values: Vec<Value>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Value {
    /// Base64, with padding.
    value: String,
    written_at_unix_ms: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    expires_at_unix_ms: Option<u64>,
}

/// `{"context": …, "values": [{"value": base64, "writtenAtUnixMs": …}]}`, also for a single value; with
/// `"expiresAtUnixMs"` for one that expires.
pub(super) fn json(values: &Values<'_>, token: &str) -> Representation {
    let document = Document { context: token, values: said(values) };
    let body = serde_json::to_vec(&document).expect("strings and numbers always encode to memory");
    Representation {
        status: status(values),
        content_type: HeaderValue::from_static("application/json"),
        body: body.into(),
    }
}

/// The values, each as an object.
pub(super) fn said(values: &Values<'_>) -> Vec<Value> {
    let said = values.iter().map(|(version, value)| Value {
        value: BASE64_STANDARD.encode(value),
        written_at_unix_ms: version.stamp.unix_ms(),
        expires_at_unix_ms: version.expires.map(Expiry::unix_ms),
    });
    said.collect()
}

/// `multipart/mixed` (RFC 2046), one part a value, raw.
pub(super) fn multipart(values: &Values<'_>) -> Representation {
    let boundary = boundary(values);
    let mut body = Vec::new();
    for (_, value) in values {
        let part = format!(
            "--{boundary}\r\nContent-Type: application/octet-stream\r\nContent-Length: {}\r\n\r\n",
            value.len()
        );
        body.extend_from_slice(part.as_bytes());
        body.extend_from_slice(value);
        body.extend_from_slice(b"\r\n");
    }
    body.extend_from_slice(format!("--{boundary}--\r\n").as_bytes());
    let content_type = HeaderValue::try_from(format!("multipart/mixed; boundary={boundary}"))
        .unwrap_or(HeaderValue::from_static("multipart/mixed"));
    Representation { status: status(values), content_type, body: body.into() }
}

/// A boundary that occurs in no value. A first try that depends on the values makes
/// a hit unlikely, the loop makes it impossible: it ends, since the values are finite and each round tries another text.
fn boundary(values: &Values<'_>) -> String {
    let first = values.iter().fold(0u64, |sum, (version, value)| {
        sum.rotate_left(7) ^ version.stamp.unix_ms() ^ (version.dot.counter << 32) ^ value.len() as u64
    });
    let taken = |boundary: &str| {
        values
            .iter()
            .any(|(_, value)| value.windows(boundary.len()).any(|window| window == boundary.as_bytes()))
    };
    (0u64..)
        .map(|n| format!("quorate-{:016x}", first.wrapping_add(n)))
        .find(|boundary| !taken(boundary))
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_is_for_those_who_name_it() {
        let accept =
            |value: &'static str| HeaderMap::from_iter([(header::ACCEPT, HeaderValue::from_static(value))]);
        assert!(wants_json(&accept("application/json")));
        assert!(wants_json(&accept("text/html, Application/JSON;q=0.9")));
        assert!(!wants_json(&accept("*/*")));
        assert!(!wants_json(&HeaderMap::new()));
    }
}
