//! Who this disk is: `identity.json` in the data directory.
//!
//! The NodeId is made once, on an empty disk. The start number is raised and synced at every start, before
//! anything else: it is what makes the actor of this start's dots a new one (INV-AMNESIA). It follows the clock and
//! ends in dice, so that a disk that was put back to an earlier state does not count again what it counted before; and
//! it never falls, whatever the clock does.
//!
//! A disk that turns out to have gone back in time gives up its identity: what is on it is set aside, and the next
//! start is a new node's.

use std::fs::{self, File};
use std::io::Write as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use quorate_core::causality::Actor;
use quorate_core::{ClusterId, NodeId};
use rustix::fs::{FlockOperation, flock};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::documents;
use crate::engine::unix_ms;

const FILE: &str = "identity.json";
const LOCK: &str = "lock";
/// The folder of the log.
pub(crate) const LOG: &str = "log";
/// What identities that were given up leave: this, their NodeId and the time.
const GONE: &str = "gone-";
/// How many of those are kept; older ones make room.
const GONE_MAX: usize = 2;
/// The low bits of a start number that are dice.
const START_DICE_BITS: u32 = 16;

/// A disk, taken by this process for as long as it runs.
pub(crate) struct Disk {
    dir: PathBuf,
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
    document.start = next_start(document.start, unix_ms(), rand::random());
    write_durably(dir, FILE, &serde_json::to_vec_pretty(&document)?)?;
    let actor = Actor { node: document.node_id, start: document.start };
    Ok(Disk { dir: dir.to_owned(), actor, _lock: lock })
}

/// The number of the start after `previous`.
fn next_start(previous: u64, now_unix_ms: u64, dice: u16) -> u64 {
    previous.saturating_add(1).max((now_unix_ms << START_DICE_BITS) | u64::from(dice))
}

impl Disk {
    /// Gives up the identity, and all that was stored under it. The log must be closed.
    pub(crate) fn give_up(self) -> anyhow::Result<PathBuf> {
        let gone = gone(&self.dir)?;
        for old in gone.iter().rev().skip(GONE_MAX - 1) {
            fs::remove_dir_all(old).with_context(|| format!("cannot remove {}", old.display()))?;
        }
        // Ordered by time, since the names are compared.
        let name = format!("{GONE}{:015}-{}", unix_ms(), self.actor.node);
        let aside = self.dir.join(name);
        fs::create_dir(&aside).with_context(|| format!("cannot create {}", aside.display()))?;
        // First of all: after a crash here the next start sees that there is no identity, and goes on with the rest.
        fs::rename(self.dir.join(FILE), aside.join(FILE)).context("cannot set the identity aside")?;
        File::open(&self.dir)?.sync_all()?;
        set_aside(&self.dir, &aside)?;
        Ok(aside)
    }
}

/// What earlier identities left, the oldest first.
fn gone(dir: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let entries = fs::read_dir(dir).with_context(|| format!("cannot read {}", dir.display()))?;
    let names = entries.filter_map(Result::ok).map(|entry| entry.path());
    let mut gone: Vec<_> = names.filter(|path| is_gone(path)).collect();
    gone.sort();
    Ok(gone)
}

fn is_gone(path: &Path) -> bool {
    path.file_name().and_then(|name| name.to_str()).is_some_and(|name| name.starts_with(GONE))
}

/// Moves what belonged to an identity that was given up.
fn set_aside(dir: &Path, aside: &Path) -> anyhow::Result<()> {
    for name in [LOG, documents::RING, documents::EPOCH, documents::STARTS] {
        match fs::rename(dir.join(name), aside.join(name)) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(error).with_context(|| format!("cannot set {name} aside"));
            }
            _ => {}
        }
    }
    File::open(dir)?.sync_all().context("cannot sync the data directory")
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
    if let Some(aside) = gone(dir)?.last() {
        set_aside(dir, aside)?; // Only if a crash kept it from being done.
    }
    let known = [LOCK, "lost+found"];
    let other = fs::read_dir(dir)?
        .filter_map(Result::ok)
        .find(|entry| !known.iter().any(|k| entry.file_name() == *k) && !is_gone(&entry.path()));
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
        assert!(first.start < second.start);
    }

    #[test]
    fn a_start_follows_the_clock_and_never_falls() {
        assert_eq!(next_start(0, 5, 7), (5 << 16) + 7);
        assert_eq!(next_start(u64::MAX >> 2, 5, 7), (u64::MAX >> 2) + 1, "the clock was put back");
    }

    #[test]
    fn a_disk_that_gave_up_its_identity_is_a_new_node() {
        let dir = tempfile::tempdir().unwrap();
        let mut nodes = std::collections::BTreeSet::new();
        for _ in 0..4 {
            let disk = take(dir.path(), CLUSTER).unwrap();
            fs::create_dir(dir.path().join(LOG)).unwrap();
            fs::write(dir.path().join(documents::STARTS), "{}").unwrap();
            assert!(nodes.insert(disk.actor.node), "a new one each time");
            let aside = disk.give_up().unwrap();
            assert!(aside.join(FILE).is_file() && aside.join(LOG).is_dir());
            assert!(!dir.path().join(LOG).exists() && !dir.path().join(documents::STARTS).exists());
        }
        assert_eq!(gone(dir.path()).unwrap().len(), GONE_MAX);
    }

    #[test]
    fn a_crash_in_the_middle_of_giving_up_is_made_good() {
        let dir = tempfile::tempdir().unwrap();
        let first = take(dir.path(), CLUSTER).unwrap();
        let (node, aside) = (first.actor.node, first.give_up().unwrap());
        fs::rename(aside.join(FILE), dir.path().join(FILE)).unwrap();
        fs::create_dir(dir.path().join(LOG)).unwrap();
        assert_eq!(take(dir.path(), CLUSTER).unwrap().actor.node, node, "nothing was given up yet");
        fs::rename(dir.path().join(FILE), aside.join(FILE)).unwrap();
        assert_ne!(take(dir.path(), CLUSTER).unwrap().actor.node, node);
        assert!(aside.join(LOG).is_dir() && !dir.path().join(LOG).exists());
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
