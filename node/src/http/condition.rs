//! Conditional requests (RFC 9110, section 13). A state of a key is named by its causal context: the token that
//! `Quorate-Context` carries.
//!
//! For a write the condition is looked at in a read, and the write follows it: no owner orders both as one step. What
//! another client writes in between is therefore not prevented, but it is not lost either where the cluster keeps siblings.

use axum::body::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, header};
use quorate_core::causality::{Context, VersionSet};

use super::error::HttpError;
use super::{Api, CONTEXT};

/// What a request makes itself depend on.
#[derive(Clone, PartialEq, Debug)]
pub(super) enum Condition {
    /// Nothing.
    None,
    /// `If-Match: "token"`: the key is as that answer showed it.
    Unchanged(Context),
    /// `If-Match: *`: it has a value.
    Exists,
    /// `If-None-Match: *`: it has no value.
    Absent,
    /// `If-None-Match: "token"`: it is not as that answer showed it.
    Changed(Context),
}

/// Conditions that cannot be understood.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub(crate) enum ConditionError {
    #[error(
        "a request has one condition: write either If-Match or If-None-Match, once, with * or with one Quorate-Context in quotes"
    )]
    Several,
    #[error(
        "If-Match says which state a write replaces, so it stands instead of Quorate-Context: leave that out"
    )]
    Context,
    #[error(
        "PATCH reads what it changes by itself: leave Quorate-Context out, and name a state with If-Match if it must be that one"
    )]
    Patch,
}

impl Condition {
    pub(super) fn is_some(&self) -> bool {
        *self != Self::None
    }

    /// Whether it is true of what a read found.
    pub(super) fn holds(&self, found: &VersionSet, now_unix_ms: u64) -> bool {
        let exists = || found.live(now_unix_ms).next().is_some();
        match self {
            Self::None => true,
            Self::Unchanged(context) => found.context() == context,
            Self::Exists => exists(),
            Self::Absent => !exists(),
            Self::Changed(context) => found.context() != context,
        }
    }
}

impl Api {
    /// The condition in the headers of a request of a key.
    pub(super) fn condition_of(&self, key: &Bytes, headers: &HeaderMap) -> Result<Condition, HttpError> {
        let (matches, differs) = (only(headers, header::IF_MATCH)?, only(headers, header::IF_NONE_MATCH)?);
        let condition = match (matches, differs) {
            (None, None) => Condition::None,
            (Some(value), None) if value == "*" => Condition::Exists,
            (None, Some(value)) if value == "*" => Condition::Absent,
            (Some(value), None) => Condition::Unchanged(self.open(key, tag(value)?)?),
            (None, Some(value)) => Condition::Changed(self.open(key, tag(value)?)?),
            (Some(_), Some(_)) => return Err(ConditionError::Several.into()),
        };
        if condition.is_some() && headers.contains_key(CONTEXT) {
            return Err(ConditionError::Context.into());
        }
        Ok(condition)
    }
}

/// The value of a header that may be given once.
fn only(headers: &HeaderMap, name: HeaderName) -> Result<Option<&HeaderValue>, ConditionError> {
    let mut values = headers.get_all(name).iter();
    match (values.next(), values.next()) {
        (value, None) => Ok(value),
        _ => Err(ConditionError::Several),
    }
}

/// The token of an entity tag; people who leave the quotes out mean the same.
fn tag(value: &HeaderValue) -> Result<&[u8], ConditionError> {
    let tag = value.as_bytes().trim_ascii();
    let bare = tag.strip_prefix(b"\"").and_then(|rest| rest.strip_suffix(b"\"")).unwrap_or(tag);
    if bare.iter().any(|byte| matches!(byte, b'"' | b',')) { Err(ConditionError::Several) } else { Ok(bare) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tag_is_one_token_with_or_without_quotes() {
        let read = |text: &'static str| tag(&HeaderValue::from_static(text)).map(<[u8]>::to_vec);
        assert_eq!(read("\"abc\""), Ok(b"abc".to_vec()));
        assert_eq!(read("abc"), Ok(b"abc".to_vec()));
        assert_eq!(read("\"a\", \"b\""), Err(ConditionError::Several));
        assert_eq!(read("W/\"a\""), Err(ConditionError::Several), "no state is weakly the same");
    }
}
