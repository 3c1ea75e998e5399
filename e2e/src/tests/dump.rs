//! What a person needs to find out why a test failed.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::error::{Doing, Error};
use crate::kubectl::Kubectl;
use crate::product;

/// How much of a container's log is kept.
const LOG_LINES: &str = "--tail=5000";

/// What is written of the whole cluster: a file's name, and kubectl's arguments.
const VIEWS: &[(&str, &[&str])] = &[
    ("nodes.txt", &["describe", "nodes"]),
    ("pods.txt", &["get", "pods", "--all-namespaces", "-o", "wide"]),
    ("pods-described.txt", &["describe", "pods", "--all-namespaces"]),
    ("events.txt", &["get", "events", "--all-namespaces", "--sort-by=.lastTimestamp"]),
    ("kvclusters.yaml", &["get", "kvclusters", "--all-namespaces", "-o", "yaml"]),
    ("volumes.txt", &["get", "persistentvolumes,persistentvolumeclaims", "--all-namespaces", "-o", "wide"]),
    (
        "rest.yaml",
        &["get", "statefulsets,services,configmaps,networkpolicies", "--all-namespaces", "-o", "yaml"],
    ),
];

/// Writes it all and says where.
pub(super) fn write(kubectl: &Kubectl, test: &str) -> Result<PathBuf, Error> {
    let folder = product::checkout().join("target/e2e").join(test);
    if folder.exists() {
        fs::remove_dir_all(&folder).doing(|| format!("clearing {}", folder.display()))?;
    }
    fs::create_dir_all(folder.join("logs")).doing(|| format!("making {}", folder.display()))?;
    for (file, arguments) in VIEWS {
        save(&folder.join(file), kubectl, arguments)?;
    }
    let pods = kubectl.get(&["pods", "--all-namespaces"])?;
    for pod in pods["items"].as_array().into_iter().flatten() {
        save_logs(&folder, kubectl, pod)?;
    }
    Ok(folder)
}

fn save_logs(folder: &Path, kubectl: &Kubectl, pod: &Value) -> Result<(), Error> {
    let text = |key: &str| pod["metadata"][key].as_str().unwrap_or_default();
    let (namespace, name) = (text("namespace"), text("name"));
    let logs = ["logs", "--namespace", namespace, name, "--all-containers", LOG_LINES];
    save(&folder.join(format!("logs/{namespace}-{name}.log")), kubectl, &logs)?;
    let restarts = pod["status"]["containerStatuses"].as_array().into_iter().flatten();
    if restarts.filter_map(|container| container["restartCount"].as_u64()).sum::<u64>() > 0 {
        let before: Vec<&str> = logs.iter().copied().chain(["--previous"]).collect();
        save(&folder.join(format!("logs/{namespace}-{name}-previous.log")), kubectl, &before)?;
    }
    Ok(())
}

/// What cannot be read is said in the file: the rest is wanted all the same.
fn save(path: &Path, kubectl: &Kubectl, arguments: &[&str]) -> Result<(), Error> {
    let text = kubectl.run(arguments).unwrap_or_else(|error| error.to_string());
    fs::write(path, text).doing(|| format!("writing {}", path.display()))
}
