//! Small documents beside the log: the live epochs, and the newest starts of other nodes.
//!
//! Invariant: a document is on the disk, whole, before the replica hears that it is kept; and they are written in the
//! order in which the replica asked. It has at most one of each kind on its way, which bounds the queue.

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::{Arc, mpsc};
use std::thread;

use anyhow::Context as _;
use quorate_core::NodeId;
use quorate_core::ring::Epoch;
use quorate_core::transition::{self, Chain, Transition};
use quorate_replica::{Completion, KnownStart, Record, Remembered};
use serde::de::DeserializeOwned;

use crate::identity::write_durably;
use crate::inbox::{Inbox, Input};

pub(crate) const RING: &str = "ring.json";
/// What version 0.1 kept: the newest epoch alone.
pub(crate) const EPOCH: &str = "epoch.json";
pub(crate) const STARTS: &str = "starts.json";

/// Reads what earlier starts kept.
pub(crate) fn read(dir: &Path) -> anyhow::Result<Remembered> {
    let starts: Option<BTreeMap<NodeId, KnownStart>> = read_one(dir, STARTS, "peers tell the rest")?;
    let ring = match read_one(dir, RING, "the other members tell it")? {
        Some(ring) => Some(ring),
        None => read_one(dir, EPOCH, "the operator pushes it again")?.map(of_one_epoch),
    };
    Ok(Remembered { ring, starts: starts.unwrap_or_default() })
}

fn of_one_epoch(epoch: Epoch) -> transition::Remembered {
    Transition::new(NodeId::from_u128(0), Chain::of(Arc::new(epoch))).to_remember()
}

fn read_one<T: DeserializeOwned>(dir: &Path, name: &str, remedy: &str) -> anyhow::Result<Option<T>> {
    let path = dir.join(name);
    match std::fs::read(&path) {
        Ok(bytes) => {
            let damaged = || format!("{} is damaged; remove it, {remedy}", path.display());
            serde_json::from_slice(&bytes).with_context(damaged).map(Some)
        }
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error).with_context(|| format!("cannot read {}", path.display())),
    }
}

/// The thread that writes documents. It ends when this is dropped.
pub(crate) struct Keeper(mpsc::Sender<(u64, Record)>);

impl Keeper {
    pub(crate) fn start(dir: PathBuf, inbox: Arc<Inbox>) -> anyhow::Result<Self> {
        let (queue, queued) = mpsc::channel::<(u64, Record)>();
        let run = move || {
            for (ticket, record) in queued {
                let result = write(&dir, &record).map_err(|error| format!("{error:#}"));
                inbox.push(Input::Completed(Completion::kept(ticket, result)));
            }
        };
        thread::Builder::new().name("documents".into()).spawn(run).context("cannot start a thread")?;
        Ok(Self(queue))
    }

    pub(crate) fn keep(&self, ticket: u64, record: Record) {
        let _ = self.0.send((ticket, record)); // The thread ends after this, never before.
    }
}

fn write(dir: &Path, record: &Record) -> anyhow::Result<()> {
    let (name, bytes) = match record {
        Record::Ring(ring) => (RING, serde_json::to_vec(&**ring)?),
        Record::Starts(starts) => (STARTS, serde_json::to_vec(&**starts)?),
    };
    write_durably(dir, name, &bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_kept_is_read_at_the_next_start() {
        let dir = tempfile::tempdir().unwrap();
        assert!(read(dir.path()).unwrap().starts.is_empty());
        let known = KnownStart { start: u64::MAX, nonce: u64::MAX - 1, position: 3 };
        let starts = BTreeMap::from([(NodeId::from_u128(7), known)]);
        write(dir.path(), &Record::Starts(Arc::new(starts.clone()))).unwrap();
        assert_eq!(read(dir.path()).unwrap().starts, starts);
    }

    #[test]
    fn a_damaged_document_is_told_with_what_to_do() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join(RING), "{").unwrap();
        let error = read(dir.path()).unwrap_err().to_string();
        assert!(error.contains("ring.json is damaged; remove it"), "{error}");
    }
}
