//! Several concurrent values in one answer: multipart by default, JSON for those who ask for it.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, StatusCode, header};
use quorate_core::causality::VersionSet;
use serde::Serialize;

/// Whether the client names `application/json` among what it accepts. `*/*` means the raw value.
pub(super) fn wants_json(headers: &HeaderMap) -> bool {
    let accepts = headers.get_all(header::ACCEPT).iter().filter_map(|value| value.to_str().ok());
    accepts.flat_map(|value| value.split(',')).any(|media| {
        media.split(';').next().is_some_and(|media| media.trim().eq_ignore_ascii_case("application/json"))
    })
}

fn status(set: &VersionSet) -> StatusCode {
    if set.values().nth(1).is_some() { StatusCode::MULTIPLE_CHOICES } else { StatusCode::OK }
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
struct Value {
    /// Base64, with padding.
    value: String,
    written_at_unix_ms: u64,
}

/// `{"context": …, "values": [{"value": base64, "writtenAtUnixMs": …}]}`, also for a single value.
pub(super) fn json(set: &VersionSet, token: &str) -> Representation {
    let values = set.values().map(|(version, value)| Value {
        value: BASE64_STANDARD.encode(value),
        written_at_unix_ms: version.stamp.unix_ms(),
    });
    let document = Document { context: token, values: values.collect() };
    let body = serde_json::to_vec(&document).expect("strings and numbers always encode to memory");
    Representation {
        status: status(set),
        content_type: HeaderValue::from_static("application/json"),
        body: body.into(),
    }
}

/// `multipart/mixed` (RFC 2046), one part a value, raw.
pub(super) fn multipart(set: &VersionSet) -> Representation {
    let boundary = boundary(set);
    let mut body = Vec::new();
    for (_, value) in set.values() {
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
    Representation { status: status(set), content_type, body: body.into() }
}

/// A boundary that occurs in no value. The digest makes a chance hit unlikely, the loop makes it impossible:
/// it ends, since the values are finite and each round tries another text.
fn boundary(set: &VersionSet) -> String {
    let digest = set.digest();
    let taken = |boundary: &str| {
        set.values()
            .any(|(_, value)| value.windows(boundary.len()).any(|window| window == boundary.as_bytes()))
    };
    (0u64..)
        .map(|n| format!("quorate-{:016x}", digest.wrapping_add(n)))
        .find(|b| !taken(b))
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
