//! `PATCH`: changes a JSON document by a merge patch.
//!
//! It reads, changes, and writes with the context of what it read, so that no other writer's value is lost: what somebody
//! wrote in between stays, as a sibling. Then it reads again. Where there are two values now, it makes the same change to
//! the other one, and writes that over both. Of two patches at the same time, the one that ends last sees both
//! (where R + W > N), so both changes are in what it leaves.

use std::time::Duration;

use axum::body::Bytes;
use axum::response::Response;
use http::{HeaderMap, HeaderValue, header};
use quorate_core::causality::{Context, Expiry, VersionSet};
use quorate_core::limits::VALUE_BYTES_MAX;
use quorate_replica::Found;
use quorate_wire::peer::{ClientWrite, Written};
use rand::Rng as _;
use serde_json::value::RawValue;
use tokio::time::sleep;

use super::Api;
use super::condition::ConditionError;
use super::error::HttpError;
use super::key_value::Asked;
use super::merge_patch::merge;
use super::{SIBLINGS, expiry};
use crate::engine::unix_ms;

/// What the body must be.
pub(super) const MEDIA_TYPE: &str = "application/merge-patch+json";
/// How often a patch is made to what another writer left at the same time.
const SETTLINGS_MAX: u32 = 5;
/// Those who met once would meet again if they did not wait differently long.
const WAIT_MAX: Duration = Duration::from_millis(20);

/// A document, and when it ends.
type Document = (Bytes, Option<Expiry>);

impl Api {
    /// Whether a request may be a patch.
    pub(super) fn expect_patch(&self, asked: &Asked, headers: &HeaderMap) -> Result<(), HttpError> {
        let content_type = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
        let media_type = content_type.and_then(|value| value.split(';').next()).unwrap_or_default();
        if !media_type.trim().eq_ignore_ascii_case(MEDIA_TYPE) {
            return Err(HttpError::MediaType);
        }
        if asked.context.is_some() { Err(ConditionError::Patch.into()) } else { Ok(()) }
    }

    pub(super) async fn patch(&self, asked: Asked, patch: &[u8]) -> Result<Response, HttpError> {
        let patch: &RawValue =
            serde_json::from_slice(patch).map_err(|error| HttpError::BadJson(error.to_string()))?;
        let Found { set, .. } = self.node.read(asked.key.clone(), asked.parameters.read).await?;
        if !asked.condition.holds(&set, unix_ms()) {
            return Err(HttpError::ConditionFailed);
        }
        let context = set.context().clone();
        let mut documents = self.documents(set);
        let document = documents.pop();
        if !documents.is_empty() {
            return Err(HttpError::Siblings { count: documents.len() + 1 });
        }
        let (mut ours, mut written) = self.patched(&asked, patch, document, context).await?;
        let mut siblings = 1;
        for attempt in 0..=SETTLINGS_MAX {
            // It is written, whatever comes of this.
            let Ok(Found { set, .. }) = self.node.read(asked.key.clone(), asked.parameters.read).await else {
                break;
            };
            let context = set.context().clone();
            let documents = self.documents(set);
            siblings = documents.len();
            let to_settle = to_settle(documents, &ours).filter(|_| attempt < SETTLINGS_MAX);
            let Some(document) = to_settle else { break };
            let wait = rand::rng().random_range(Duration::ZERO..WAIT_MAX);
            sleep(wait).await;
            match self.patched(&asked, patch, Some(document), context).await {
                Ok(settled) => (ours, written) = settled,
                Err(_) => break,
            }
        }
        let mut response = self.written(&asked.key, &asked.condition, &written);
        response.headers_mut().insert(SIBLINGS, HeaderValue::from(siblings));
        Ok(response)
    }

    /// The values that a set shows.
    fn documents(&self, set: VersionSet) -> Vec<Document> {
        let set = self.seen(set);
        set.live(unix_ms()).map(|(version, value)| (value.clone(), version.expires)).collect()
    }

    /// Writes what the patch makes of a document.
    async fn patched(
        &self,
        asked: &Asked,
        patch: &RawValue,
        document: Option<Document>,
        context: Context,
    ) -> Result<(Bytes, Written), HttpError> {
        let (before, ends) = document.map_or((None, None), |(value, ends)| (Some(value), ends));
        let target = before.as_deref().map(serde_json::from_slice::<&RawValue>).transpose();
        let target = target.map_err(|error| HttpError::NotJson(error.to_string()))?;
        let result = merge(target, patch).map_err(|error| HttpError::BadJson(error.to_string()))?;
        let value = Bytes::from(result.get().to_owned());
        if value.len() > VALUE_BYTES_MAX {
            return Err(HttpError::ValueTooLong);
        }
        let write = ClientWrite {
            context,
            value: Some(value.clone()),
            expires: expiry(asked.parameters.ttl).or(ends),
            policy: self.node.conflicts,
            consistency: asked.parameters.write,
        };
        Ok((value, self.node.write(asked.key.clone(), write).await?))
    }
}

/// Of several documents the one that the patch is still to be made to. More than one that another writer left are for people
/// to settle.
fn to_settle(mut documents: Vec<Document>, ours: &Bytes) -> Option<Document> {
    if documents.len() < 2 {
        return None;
    }
    let any = documents.first().cloned();
    documents.retain(|(value, _)| value != ours);
    match documents.len() {
        0 => any,
        1 => documents.pop(),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_one_other_writer_left_is_settled() {
        let settled = |texts: &[&'static str]| {
            let documents = texts.iter().map(|text| (Bytes::from_static(text.as_bytes()), None)).collect();
            to_settle(documents, &Bytes::from_static(b"ours")).map(|(value, _)| value)
        };
        assert_eq!(settled(&[]), None);
        assert_eq!(settled(&["theirs"]), None, "it saw ours");
        assert_eq!(settled(&["theirs", "ours"]).as_deref(), Some(&b"theirs"[..]));
        assert_eq!(settled(&["ours", "ours"]).as_deref(), Some(&b"ours"[..]), "two that made the same of it");
        assert_eq!(settled(&["a", "ours", "b"]), None);
    }
}
