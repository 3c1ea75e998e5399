//! Who this disk is: `identity.json` in the data directory.
//!
//! The NodeId is made once, on an empty disk. The start number is raised and synced at every start, before
//! anything else: it is what makes the actor of this start's dots a new one (INV-AMNESIA).

use std::fs::{self, File};
use std::io::Write as _;
use std::path::Path;

use anyhow::{Context as _, bail};
use quorate_core::causality::Actor;
use quorate_core::{ClusterId, NodeId};
use rustix::fs::{FlockOperation, flock};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

const FILE: &str = "identity.json";
const LOCK: &str = "lock";

/// A disk, taken by this process for as long as it runs.
pub(crate) struct Disk {
    pub(crate) actor: Actor,
    _lock: File,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Document {
    node_id: NodeId,
    cluster_id: ClusterId,
    start: u64,
}

/// Takes the disk at `dir`, or makes an empty one a node of `cluster`.
pub(crate) fn take(dir: &Path, cluster: ClusterId) -> anyhow::Result<Disk> {
    create(dir).with_context(|| format!("cannot create the data directory {}", dir.display()))?;
    let lock = File::create(dir.join(LOCK)).with_context(|| format!("cannot write to {}", dir.display()))?;
    if flock(&lock, FlockOperation::NonBlockingLockExclusive).is_err() {
        bail!("{} is in use by another node: give each node a directory of its own", dir.display());
    }
    let mut document = match fs::read(dir.join(FILE)) {
        Ok(bytes) => read(dir, &bytes, cluster)?,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => first(dir, cluster)?,
        Err(error) => return Err(error).with_context(|| format!("cannot read {}", dir.join(FILE).display())),
    };
    document.start += 1;
    write_durably(dir, FILE, &serde_json::to_vec_pretty(&document)?)?;
    Ok(Disk { actor: Actor { node: document.node_id, start: document.start }, _lock: lock })
}

/// Makes the directory where there is none, so that a power cut cannot take it with all that is in it.
fn create(dir: &Path) -> std::io::Result<()> {
    if dir.is_dir() {
        return Ok(());
    }
    fs::create_dir_all(dir)?;
    match dir.parent().filter(|parent| !parent.as_os_str().is_empty()) {
        Some(parent) => File::open(parent)?.sync_all(),
        None => File::open(".")?.sync_all(),
    }
}

fn read(dir: &Path, bytes: &[u8], cluster: ClusterId) -> anyhow::Result<Document> {
    let path = dir.join(FILE);
    let document: Document = serde_json::from_slice(bytes).with_context(|| {
        format!("{} is damaged; this disk can no longer prove which node it is: replace it", path.display())
    })?;
    if document.cluster_id != cluster {
        bail!(
            "{} belongs to cluster {}, but this node is configured for cluster {cluster}: \
             attach the right disk, or give an empty directory",
            dir.display(),
            document.cluster_id
        );
    }
    Ok(document)
}

/// The identity of a new disk. Data without an identity is not a new disk: a second identity for it would
/// speak for dots that it does not remember.
fn first(dir: &Path, cluster: ClusterId) -> anyhow::Result<Document> {
    let known = [LOCK, "lost+found"];
    let other = fs::read_dir(dir)?
        .filter_map(Result::ok)
        .find(|entry| !known.iter().any(|k| entry.file_name() == *k));
    match other {
        // A crash in the middle of the very first write leaves this, and nothing else.
        Some(entry) if entry.file_name() != *format!("{FILE}.new") => bail!(
            "{} has no {FILE} but is not empty ({:?}): give an empty directory, or the whole disk of a node",
            dir.display(),
            entry.file_name()
        ),
        _ => Ok(Document { node_id: NodeId::from_uuid(Uuid::new_v4()), cluster_id: cluster, start: 0 }),
    }
}

/// Replaces a small file so that after a crash there is the old or the new one, whole.
pub(crate) fn write_durably(dir: &Path, name: &str, bytes: &[u8]) -> anyhow::Result<()> {
    let (new, path) = (dir.join(format!("{name}.new")), dir.join(name));
    let write = || -> std::io::Result<()> {
        let mut file = File::create(&new)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&new, &path)?;
        File::open(dir)?.sync_all()
    };
    write().with_context(|| format!("cannot write {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const CLUSTER: ClusterId = ClusterId::from_u128(1);

    #[test]
    fn a_disk_stays_itself_and_counts_its_starts() {
        let dir = tempfile::tempdir().unwrap();
        let first = take(dir.path(), CLUSTER).unwrap().actor;
        let second = take(dir.path(), CLUSTER).unwrap().actor;
        assert_eq!(first.node, second.node);
        assert_eq!((first.start, second.start), (1, 2));
    }

    #[test]
    fn two_processes_cannot_be_one_node() {
        let dir = tempfile::tempdir().unwrap();
        let _held = take(dir.path(), CLUSTER).unwrap();
        let error = take(dir.path(), CLUSTER).err().unwrap().to_string();
        assert!(error.contains("in use by another node"), "{error}");
    }

    #[test]
    fn a_disk_of_another_cluster_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        drop(take(dir.path(), CLUSTER).unwrap());
        let error = take(dir.path(), ClusterId::from_u128(2)).err().unwrap().to_string();
        assert!(error.contains("belongs to cluster 00000000-0000-0000-0000-000000000001"), "{error}");
    }

    #[test]
    fn data_without_an_identity_is_no_empty_disk() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("log")).unwrap();
        let error = take(dir.path(), CLUSTER).err().unwrap().to_string();
        assert!(error.contains("is not empty"), "{error}");
    }

    #[test]
    fn a_damaged_identity_is_refused_and_a_half_first_write_is_not() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("identity.json.new"), "{").unwrap();
        drop(take(dir.path(), CLUSTER).unwrap());
        fs::write(dir.path().join(FILE), "{").unwrap();
        assert!(take(dir.path(), CLUSTER).err().unwrap().to_string().contains("is damaged"));
    }
}
