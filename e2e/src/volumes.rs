//! Disks: folders of each node, offered as local volumes that pods anywhere else cannot reach.
//!
//! Invariant: a volume whose claim is gone is wiped before it is offered again. Deleting a claim therefore
//! really loses the data, as it does with a provisioner whose policy is Delete.

use std::fs;
use std::path::Path;
use std::pin::pin;

use futures::TryStreamExt as _;
use k8s_openapi::api::core::v1::PersistentVolume;
use kube::api::{Api, Patch, PatchParams};
use kube::runtime::{WatchStreamExt as _, watcher};
use kube::{Client, ResourceExt as _};
use serde_json::{Value, json};

use crate::error::{Doing, Error};
use crate::layout::Layout;
use crate::node::{NODES, Node};

/// How many claims a node can hold at once.
const VOLUMES_PER_NODE: usize = 12;

/// What a volume says it holds. It is a folder: nothing reserves or limits it.
const VOLUME_SIZE: &str = "20Gi";

/// The storage class of these volumes, and the default one.
const CLASS: &str = "local";

/// Makes the folders, and the objects that offer them.
///
/// # Errors
/// When a folder cannot be made.
pub fn prepare(layout: &Layout) -> Result<Value, Error> {
    let mut items = vec![class()];
    for node in NODES {
        for number in 1..=VOLUMES_PER_NODE {
            let name = volume_name(&node, number);
            let folder = layout.volumes(node.name()).join(&name);
            fs::create_dir_all(&folder).doing(|| format!("making {}", folder.display()))?;
            items.push(volume(&node, &name, &folder));
        }
    }
    Ok(json!({"apiVersion": "v1", "kind": "List", "items": items}))
}

/// Wipes each volume whose claim is gone and offers it again, for as long as the process runs.
///
/// # Errors
/// When the API server's answers cannot be understood, or a folder cannot be wiped.
pub async fn reclaim(client: Client) -> Result<(), Error> {
    let volumes: Api<PersistentVolume> = Api::all(client);
    let changes = watcher(volumes.clone(), watcher::Config::default()).default_backoff().applied_objects();
    let mut changes = pin!(changes);
    loop {
        match changes.try_next().await {
            Ok(Some(volume)) if is_released(&volume) => offer_again(&volumes, &volume).await?,
            Ok(Some(_)) => {}
            Ok(None) => return Ok(()),
            // The API server is away: the watcher comes back by itself, with growing pauses.
            Err(error) => eprintln!("watching volumes: {error}"),
        }
    }
}

fn is_released(volume: &PersistentVolume) -> bool {
    let phase = volume.status.as_ref().and_then(|status| status.phase.as_deref());
    let class = volume.spec.as_ref().and_then(|spec| spec.storage_class_name.as_deref());
    phase == Some("Released") && class == Some(CLASS)
}

async fn offer_again(volumes: &Api<PersistentVolume>, seen: &PersistentVolume) -> Result<(), Error> {
    // An event tells of the past: what is wiped must be free now.
    let Some(volume) = volumes.get_opt(&seen.name_any()).await?.filter(is_released) else { return Ok(()) };
    let local = volume.spec.as_ref().and_then(|spec| spec.local.as_ref());
    if let Some(local) = local {
        wipe(Path::new(&local.path))?;
        println!("wiped {}", volume.name_any());
    }
    // When it changed since, its next event decides.
    let patch =
        json!({"metadata": {"resourceVersion": volume.resource_version()}, "spec": {"claimRef": null}});
    match volumes.patch(&volume.name_any(), &PatchParams::default(), &Patch::Merge(patch)).await {
        Err(kube::Error::Api(status)) if status.code == 409 => Ok(()),
        other => other.map(drop).map_err(Error::from),
    }
}

/// Wipes every volume of a node, whoever uses them.
///
/// # Errors
/// When a folder cannot be wiped.
pub fn wipe_all(layout: &Layout, node: &Node) -> Result<(), Error> {
    (1..=VOLUMES_PER_NODE)
        .try_for_each(|number| wipe(&layout.volumes(node.name()).join(volume_name(node, number))))
}

fn volume_name(node: &Node, number: usize) -> String {
    format!("{}-disk-{number:02}", node.name())
}

/// An empty folder of the same name, without the owner and mode that a pod gave to the old one.
fn wipe(folder: &Path) -> Result<(), Error> {
    if folder.exists() {
        fs::remove_dir_all(folder).doing(|| format!("wiping {}", folder.display()))?;
    }
    fs::create_dir_all(folder).doing(|| format!("making {}", folder.display()))
}

/// A claim waits for its pod, so that the pod's place decides the disk and not the other way round.
fn class() -> Value {
    json!({
        "apiVersion": "storage.k8s.io/v1",
        "kind": "StorageClass",
        "metadata": {
            "name": CLASS,
            "annotations": {"storageclass.kubernetes.io/is-default-class": "true"},
        },
        "provisioner": "kubernetes.io/no-provisioner",
        "volumeBindingMode": "WaitForFirstConsumer",
    })
}

/// `Retain` hands a released volume to [`reclaim`]: Kubernetes itself cannot wipe a local one.
fn volume(node: &Node, name: &str, folder: &Path) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "PersistentVolume",
        "metadata": {"name": name},
        "spec": {
            "capacity": {"storage": VOLUME_SIZE},
            "accessModes": ["ReadWriteOnce"],
            "persistentVolumeReclaimPolicy": "Retain",
            "storageClassName": CLASS,
            "local": {"path": folder},
            "nodeAffinity": {"required": {"nodeSelectorTerms": [{
                "matchExpressions": [{
                    "key": "kubernetes.io/hostname", "operator": "In", "values": [node.name()],
                }],
            }]}},
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wiped_folder_is_empty_and_there() {
        let root = tempfile::tempdir().unwrap();
        let folder = root.path().join("disk");
        fs::create_dir_all(folder.join("a/b")).unwrap();
        fs::write(folder.join("a/b/c"), "data").unwrap();
        wipe(&folder).unwrap();
        assert_eq!(fs::read_dir(&folder).unwrap().count(), 0);
    }

    #[test]
    fn only_released_volumes_of_ours_are_wiped() {
        let parse = |phase: &str, class: &str| -> PersistentVolume {
            serde_json::from_value(json!({
                "metadata": {"name": "a"}, "spec": {"storageClassName": class}, "status": {"phase": phase},
            }))
            .unwrap()
        };
        assert!(is_released(&parse("Released", CLASS)));
        assert!(!is_released(&parse("Bound", CLASS)));
        assert!(!is_released(&parse("Released", "theirs")));
    }
}
