//! Namespaces of tests: marked, so that whatever a failed test leaves behind can be found and removed.

use std::time::Duration;

use serde_json::json;

use crate::error::Error;
use crate::kubectl::Kubectl;

/// The mark.
const LABEL: &str = "quorate.dev/e2e";

/// How long Kubernetes may take to remove everything in a namespace.
const REMOVE_SECONDS_MAX: Duration = Duration::from_secs(180);

/// Makes a fresh namespace that refuses every pod that is not as restricted as can be.
pub(super) fn make(kubectl: &Kubectl, name: &str) -> Result<(), Error> {
    remove(kubectl, name)?;
    let namespace = json!({
        "apiVersion": "v1",
        "kind": "Namespace",
        "metadata": {"name": name, "labels": {"pod-security.kubernetes.io/enforce": "restricted", LABEL: "true"}},
    });
    kubectl.apply(&namespace.to_string()).map(drop)
}

/// Removes a namespace and all in it, and waits until it is gone.
pub(super) fn remove(kubectl: &Kubectl, name: &str) -> Result<(), Error> {
    let timeout = format!("--timeout={}s", REMOVE_SECONDS_MAX.as_secs());
    kubectl.run(&["delete", "namespace", name, "--ignore-not-found", &timeout]).map(drop)
}

/// Removes the namespaces of all tests. The next test must not stumble over what this one could not.
pub(super) fn remove_all(kubectl: &Kubectl) {
    let timeout = format!("--timeout={}s", REMOVE_SECONDS_MAX.as_secs());
    if let Err(error) =
        kubectl.run(&["delete", "namespace", "--selector", LABEL, "--ignore-not-found", &timeout])
    {
        println!("  the test's namespaces could not be removed: {error}");
    }
}
