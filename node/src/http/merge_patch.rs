//! JSON merge patch (RFC 7396), on texts: what a patch does not touch stays as it was written, to the last digit of a
//! number.

use std::collections::BTreeMap;

use serde_json::value::{RawValue, to_raw_value};

/// How deep objects of a patch may lie in each other.
const DEPTH_MAX: usize = 128;

/// An object's members.
type Members = BTreeMap<String, Box<RawValue>>;

/// Why there is no result.
#[derive(Debug, thiserror::Error)]
pub(crate) enum MergeError {
    #[error("it is not JSON: {0}")]
    Json(#[from] serde_json::Error),
    #[error("its objects lie deeper than {DEPTH_MAX} in each other")]
    Depth,
}

/// What a patch makes of a document; of nothing if there is none.
pub(super) fn merge(target: Option<&RawValue>, patch: &RawValue) -> Result<Box<RawValue>, MergeError> {
    merged(target, patch, DEPTH_MAX)
}

fn merged(target: Option<&RawValue>, patch: &RawValue, depth: usize) -> Result<Box<RawValue>, MergeError> {
    let Some(changes) = members(patch)? else { return Ok(patch.to_owned()) };
    let depth = depth.checked_sub(1).ok_or(MergeError::Depth)?;
    let mut result = target.map(members).transpose()?.flatten().unwrap_or_default();
    for (name, change) in changes {
        if change.get() == "null" {
            result.remove(&name);
        } else {
            let value = merged(result.get(&name).map(|value| &**value), &change, depth)?;
            result.insert(name, value);
        }
    }
    Ok(to_raw_value(&result)?)
}

/// The members of an object; none for anything else.
fn members(value: &RawValue) -> Result<Option<Members>, MergeError> {
    let is_object = value.get().starts_with('{');
    Ok(if is_object { Some(serde_json::from_str(value.get())?) } else { None })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(target: &str, patch: &str) -> String {
        let raw = |text: &str| RawValue::from_string(text.to_owned()).unwrap();
        merge(Some(&raw(target)), &raw(patch)).unwrap().get().to_owned()
    }

    #[test]
    fn the_examples_of_the_standard() {
        for (target, patch, result) in [
            (r#"{"a":"b"}"#, r#"{"a":"c"}"#, r#"{"a":"c"}"#),
            (r#"{"a":"b"}"#, r#"{"b":"c"}"#, r#"{"a":"b","b":"c"}"#),
            (r#"{"a":"b"}"#, r#"{"a":null}"#, r#"{}"#),
            (r#"{"a":"b","b":"c"}"#, r#"{"a":null}"#, r#"{"b":"c"}"#),
            (r#"{"a":["b"]}"#, r#"{"a":"c"}"#, r#"{"a":"c"}"#),
            (r#"{"a":"c"}"#, r#"{"a":["b"]}"#, r#"{"a":["b"]}"#),
            (r#"{"a":{"b":"c"}}"#, r#"{"a":{"b":"d","c":null}}"#, r#"{"a":{"b":"d"}}"#),
            (r#"{"a":[{"b":"c"}]}"#, r#"{"a":[1]}"#, r#"{"a":[1]}"#),
            (r#"["a","b"]"#, r#"["c","d"]"#, r#"["c","d"]"#),
            (r#"{"a":"b"}"#, r#"["c"]"#, r#"["c"]"#),
            (r#"{"a":"foo"}"#, "null", "null"),
            (r#"{"a":"foo"}"#, r#""bar""#, r#""bar""#),
            (r#"{"e":null}"#, r#"{"a":1}"#, r#"{"a":1,"e":null}"#),
            ("[1,2]", r#"{"a":"b","c":null}"#, r#"{"a":"b"}"#),
            ("{}", r#"{"a":{"bb":{"ccc":null}}}"#, r#"{"a":{"bb":{}}}"#),
        ] {
            assert_eq!(of(target, patch), result, "{target} with {patch}");
        }
    }

    #[test]
    fn what_is_not_touched_stays_to_the_last_digit() {
        let target = r#"{"n":123456789012345678901234567890.10,"deep":{"b" : 1e400, "a":2},"x":0}"#;
        assert_eq!(
            of(target, r#"{"x":1}"#),
            r#"{"deep":{"b" : 1e400, "a":2},"n":123456789012345678901234567890.10,"x":1}"#
        );
    }

    #[test]
    fn a_patch_is_not_deeper_than_the_stack() {
        let deep = |depth: usize| {
            let text = "{\"a\":".repeat(depth) + "1" + &"}".repeat(depth);
            merge(None, &RawValue::from_string(text).unwrap())
        };
        assert!(deep(DEPTH_MAX).is_ok());
        assert!(matches!(deep(DEPTH_MAX + 1), Err(MergeError::Depth)));
    }
}
