//! The CEL rules that more than one field uses.
//!
//! A rule's message is a sentence for the person who wrote the object: what is wrong and what to write instead. (The
//! API server puts the value that is wrong before it. A `messageExpression` with `string(…)` of a number would name
//! it better, but the API server estimates the cost of such a string as that of an endless one and refuses it.)
//! Rules never fail with an evaluation error: a malformed value is refused by the rule about its form, and the
//! rules about its meaning let it pass.

use kube::core::Rule;

/// One whole number and one unit. Go's full grammar (`1h2m3.5s`) buys nothing here and reads badly in a diff.
const DURATION_PATTERN: &str = "^[1-9][0-9]{0,6}(ms|s|m|h)$";

/// A rule with a fixed sentence.
pub(super) fn rule(rule: &str, sentence: &str) -> Rule {
    Rule::new(rule).message(sentence)
}

/// Whether the value of a CEL expression is a duration, as CEL.
pub(super) fn is_duration(expression: &str) -> String {
    format!("{expression}.matches('{DURATION_PATTERN}')")
}

/// A number of a closed range.
pub(super) fn between(field: &str, min: i32, max: i32, why: &str) -> Rule {
    rule(
        &format!("self >= {min} && self <= {max}"),
        &format!("{field} must be a number from {min} to {max}: {why}"),
    )
}

/// A duration of a closed range.
pub(super) fn duration_between(field: &str, min: &str, max: &str) -> Rule {
    let form = is_duration("self");
    rule(
        &format!("{form} && duration(self) >= duration('{min}') && duration(self) <= duration('{max}')"),
        &format!(
            "{field} must be a duration from {min} to {max}, written as one whole number and one unit \
             (ms, s, m or h), such as {min}"
        ),
    )
}

/// A quantity of bytes of a closed range.
pub(super) fn bytes_between(field: &str, min: &str, max: &str) -> Rule {
    rule(
        &format!(
            "isQuantity(self) && quantity(self).compareTo(quantity('{min}')) >= 0 \
             && quantity(self).compareTo(quantity('{max}')) <= 0"
        ),
        &format!("{field} must be a quantity of bytes from {min} to {max}, such as {min}"),
    )
}

/// A port that a process without privileges can listen on and that is not the peer port.
pub(super) fn port(field: &str) -> Rule {
    rule(
        "self >= 1024 && self <= 65535 && self != 5000",
        &format!(
            "{field} must be a port from 1024 to 65535 other than 5000: nodes run without privileges, and 5000 is for \
             peers and the admin API"
        ),
    )
}

/// A DNS subdomain: how Kubernetes names most objects.
pub(super) fn object_name(field: &str) -> Rule {
    rule(
        "self.matches('^[a-z0-9]([-a-z0-9]*[a-z0-9])?([.][a-z0-9]([-a-z0-9]*[a-z0-9])?)*$')",
        &format!(
            "{field} must be the name of an object: lower-case letters, digits, '-' and '.', such as fast-ssd"
        ),
    )
}

/// A map whose keys leave the operator's own prefixes alone.
pub(super) fn foreign_keys(field: &str) -> Rule {
    rule(
        "self.all(key, !key.startsWith('app.kubernetes.io/') && !key.startsWith('quorate.dev/'))",
        &format!(
            "{field} must not use the prefixes app.kubernetes.io/ and quorate.dev/: the operator finds its pods by \
             them; write keys of your own"
        ),
    )
}
