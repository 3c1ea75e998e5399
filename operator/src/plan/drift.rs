//! Whether an object must be applied: what would be applied against what is there. Pure.
//!
//! Two questions, and both must be answered with no:
//! - is a field that the operator owns different? (a hand edit; what the API server added as a default is no
//!   difference);
//! - was something else applied last time? (a field that is no longer wanted is invisible to the first question; the
//!   hash of what was applied, kept in an annotation, tells).
//!
//! INV-ONE: a converged input makes zero writes, also right after a restart, since nothing of this is kept in memory.

use serde_json::{Map, Value};

use super::quantity;

/// Holds the hash of the manifest that was applied last.
pub const APPLIED_HASH: &str = "quorate.dev/applied-hash";

/// Lists that server-side apply merges by a key: others may add items of their own, which stay theirs.
const KEYED_LISTS: [(&str, &[&str]); 8] = [
    ("ownerReferences", &["uid"]),
    ("containers", &["name"]),
    ("env", &["name"]),
    ("ports", &["name"]),
    ("volumes", &["name"]),
    ("volumeMounts", &["mountPath"]),
    ("imagePullSecrets", &["name"]),
    ("topologySpreadConstraints", &["topologyKey", "whenUnsatisfiable"]),
];

/// The manifest with the annotation that tells what was applied.
pub(super) fn stamped(mut manifest: Value) -> Value {
    let hash = format!("{:016x}", hash(manifest.to_string().as_bytes()));
    if let Some(metadata) = manifest.get_mut("metadata").and_then(Value::as_object_mut) {
        let annotations = metadata.entry("annotations").or_insert_with(|| Value::Object(Map::new()));
        annotations[APPLIED_HASH] = Value::String(hash);
    }
    manifest
}

/// Whether applying `wanted` would change `found`.
pub(super) fn differs(wanted: &Value, found: &Value) -> bool {
    !covers(wanted, found, "")
}

/// FNV-1a, 64 bits: stable over releases of the compiler and of this program. A collision would only delay the removal
/// of a field until the next change.
fn hash(bytes: &[u8]) -> u64 {
    bytes
        .iter()
        .fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3))
}

/// Whether everything in `wanted` is in `found`. `field` is the name under which both stand.
fn covers(wanted: &Value, found: &Value, field: &str) -> bool {
    match (wanted, found) {
        (Value::Object(wanted), Value::Object(found)) => {
            wanted.iter().all(|(name, value)| match found.get(name) {
                Some(other) => covers(value, other, if is_quantities(field) { field } else { name }),
                // The API server does not store empty maps and lists everywhere.
                None => is_empty(value),
            })
        }
        (Value::Array(wanted), Value::Array(found)) => lists_cover(wanted, found, field),
        (Value::String(wanted), Value::String(found)) if wanted != found && is_quantities(field) => {
            quantity::nanos(wanted).is_some_and(|value| quantity::nanos(found) == Some(value))
        }
        _ => wanted == found,
    }
}

fn lists_cover(wanted: &[Value], found: &[Value], field: &str) -> bool {
    let keys = KEYED_LISTS.iter().find(|(name, _)| *name == field).map(|(_, keys)| *keys);
    let is_keyed = |keys: &&[&str]| wanted.iter().all(|item| keys.iter().any(|key| item.get(key).is_some()));
    match keys.filter(is_keyed) {
        Some(keys) => wanted.iter().all(|item| {
            let same = |other: &&Value| keys.iter().all(|key| item.get(key) == other.get(key));
            found.iter().any(|other| same(&other) && covers(item, other, ""))
        }),
        None => wanted.len() == found.len() && wanted.iter().zip(found).all(|(w, f)| covers(w, f, field)),
    }
}

/// The maps whose values are quantities.
fn is_quantities(field: &str) -> bool {
    matches!(field, "limits" | "requests")
}

fn is_empty(value: &Value) -> bool {
    match value {
        Value::Object(fields) => fields.is_empty(),
        Value::Array(items) => items.is_empty(),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_the_api_server_adds_is_no_difference() {
        let wanted = json!({"spec": {"ports": [{"name": "http", "port": 7001}], "selector": {"a": "b"}}});
        let found = json!({"spec": {
            "clusterIP": "10.0.0.1",
            "ports": [{"name": "http", "port": 7001, "protocol": "TCP", "nodePort": 31000}],
            "selector": {"a": "b"}
        }});
        assert!(!differs(&wanted, &found));
    }

    #[test]
    fn a_hand_edit_of_an_owned_field_is_a_difference() {
        let wanted =
            json!({"spec": {"replicas": 3, "template": {"containers": [{"name": "node", "image": "a"}]}}});
        let mut found = wanted.clone();
        found["spec"]["template"]["containers"][0]["image"] = json!("b");
        assert!(differs(&wanted, &found));
        let mut found = wanted.clone();
        found["spec"].as_object_mut().unwrap().remove("replicas");
        assert!(differs(&wanted, &found));
    }

    #[test]
    fn an_item_that_somebody_else_added_to_a_keyed_list_is_theirs() {
        let wanted = json!({"env": [{"name": "A", "value": "1"}]});
        let found = json!({"env": [{"name": "B", "value": "2"}, {"name": "A", "value": "1"}]});
        assert!(!differs(&wanted, &found));
        assert!(differs(&wanted, &json!({"env": [{"name": "B", "value": "2"}]})));
    }

    #[test]
    fn an_item_that_somebody_added_to_a_whole_list_is_a_difference() {
        let wanted = json!({"tolerations": [{"key": "a"}]});
        assert!(differs(&wanted, &json!({"tolerations": [{"key": "a"}, {"key": "b"}]})));
        // The ports of a network policy have no key of their own that server-side apply knows.
        let wanted = json!({"ports": [{"port": "http"}]});
        assert!(differs(&wanted, &json!({"ports": [{"port": "http"}, {"port": "ssh"}]})));
    }

    #[test]
    fn quantities_are_compared_by_value_and_only_they() {
        let wanted = json!({"limits": {"memory": "1024Mi"}, "tag": "1024Mi"});
        assert!(!differs(&wanted, &json!({"limits": {"memory": "1Gi"}, "tag": "1024Mi"})));
        assert!(differs(&wanted, &json!({"limits": {"memory": "1Gi"}, "tag": "1Gi"})));
        assert!(differs(&wanted, &json!({"limits": {"memory": "2Gi"}, "tag": "1024Mi"})));
    }

    #[test]
    fn a_field_that_is_no_longer_wanted_is_found_by_the_hash() {
        let before = stamped(json!({"metadata": {"name": "x"}, "spec": {"a": 1, "b": 2}}));
        let now = stamped(json!({"metadata": {"name": "x"}, "spec": {"a": 1}}));
        assert!(differs(&now, &before));
        assert!(!differs(&before, &before));
    }

    #[test]
    fn the_hash_never_changes() {
        // A changed hash would make the next release apply every object of every cluster again.
        assert_eq!(hash(b""), 0xcbf2_9ce4_8422_2325);
        assert_eq!(hash(b"quorate"), stable_hash_of_quorate());
    }

    fn stable_hash_of_quorate() -> u64 {
        let mut value: u64 = 14_695_981_039_346_656_037;
        for byte in b"quorate" {
            value ^= u64::from(*byte);
            value = value.wrapping_mul(1_099_511_628_211);
        }
        value
    }
}
