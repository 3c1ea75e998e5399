//! The epoch that this node serves by: in memory and, before it is used, on disk.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use anyhow::Context as _;
use quorate_core::ClusterId;
use quorate_core::ring::{Epoch, EpochError, EpochMark};

use crate::identity::write_durably;

const FILE: &str = "epoch.json";

/// Holds the newest epoch.
pub(crate) struct Ring {
    dir: PathBuf,
    cluster: ClusterId,
    current: RwLock<Option<Arc<Epoch>>>,
    /// One adoption at a time, so that the disk never goes back.
    adopting: Mutex<()>,
}

/// Why an epoch was not adopted.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AdoptError {
    #[error(transparent)]
    Epoch(#[from] EpochError),
    #[error("the epoch could not be kept: {0:#}")]
    Disk(anyhow::Error),
}

impl Ring {
    /// Reads what an earlier start adopted.
    pub(crate) fn open(dir: &Path, cluster: ClusterId) -> anyhow::Result<Self> {
        let path = dir.join(FILE);
        let current = match std::fs::read(&path) {
            Ok(bytes) => {
                let damaged =
                    || format!("{} is damaged; remove it and the operator pushes it again", path.display());
                Some(Arc::new(serde_json::from_slice(&bytes).with_context(damaged)?))
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => None,
            Err(error) => return Err(error).with_context(|| format!("cannot read {}", path.display())),
        };
        Ok(Self { dir: dir.to_owned(), cluster, current: RwLock::new(current), adopting: Mutex::new(()) })
    }

    /// The newest epoch, if any was ever pushed.
    pub(crate) fn current(&self) -> Option<Arc<Epoch>> {
        self.current.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The number of the newest epoch, 0 for none.
    pub(crate) fn number(&self) -> u64 {
        self.current().map_or(0, |epoch| epoch.number())
    }

    /// Takes an epoch that may be newer, and says which one is held now (INV-EPOCH). Blocks on the disk.
    pub(crate) fn adopt(&self, epoch: Epoch) -> Result<EpochMark, AdoptError> {
        let _one = self.adopting.lock().unwrap_or_else(PoisonError::into_inner);
        if epoch.cluster() != self.cluster {
            let (pushed, found) = (epoch.number(), epoch.cluster());
            return Err(EpochError::Cluster { pushed, found, expected: self.cluster }.into());
        }
        if let Some(known) = self.current()
            && !epoch.follows(&known)?
        {
            return Ok(known.mark());
        }
        let bytes = serde_json::to_vec(&epoch).map_err(|error| AdoptError::Disk(error.into()))?;
        write_durably(&self.dir, FILE, &bytes).map_err(AdoptError::Disk)?;
        let mark = epoch.mark();
        *self.current.write().unwrap_or_else(PoisonError::into_inner) = Some(Arc::new(epoch));
        tracing::info!(epoch = mark.number, hash = %mark.hash, "adopted an epoch");
        Ok(mark)
    }
}

#[cfg(test)]
mod tests {
    use quorate_core::NodeId;
    use quorate_core::ring::{Member, MemberState, Replication};

    use super::*;

    const CLUSTER: ClusterId = ClusterId::from_u128(1);

    fn epoch(cluster: ClusterId, name: &str, previous: Option<EpochMark>) -> Epoch {
        let member = Member {
            id: NodeId::from_u128(1),
            name: name.into(),
            address: "a:1".into(),
            zone: None,
            weight: 1,
            state: MemberState::Active,
        };
        let replication = Replication { factor: 1, read_quorum: 1, write_quorum: 1 };
        Epoch::new(cluster, previous, replication, vec![member], vec![vec![0]; 4]).unwrap()
    }

    #[test]
    fn one_number_one_epoch_also_after_a_restart() {
        let dir = tempfile::tempdir().unwrap();
        let ring = Ring::open(dir.path(), CLUSTER).unwrap();
        assert_eq!(ring.number(), 0);
        let first = epoch(CLUSTER, "a", None);
        assert_eq!(ring.adopt(first.clone()).unwrap(), first.mark());
        let ring = Ring::open(dir.path(), CLUSTER).unwrap();
        assert_eq!(ring.adopt(first.clone()).unwrap(), first.mark(), "again is no error");
        let conflict = ring.adopt(epoch(CLUSTER, "b", None)).unwrap_err();
        assert!(matches!(conflict, AdoptError::Epoch(EpochError::Conflict { number: 1, .. })), "{conflict}");
        let second = epoch(CLUSTER, "b", Some(first.mark()));
        assert_eq!(ring.adopt(second.clone()).unwrap(), second.mark());
        assert_eq!(ring.adopt(first).unwrap(), second.mark(), "an older one changes nothing");
    }

    #[test]
    fn an_epoch_of_another_cluster_or_chain_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let ring = Ring::open(dir.path(), CLUSTER).unwrap();
        assert!(ring.adopt(epoch(ClusterId::from_u128(2), "a", None)).is_err());
        ring.adopt(epoch(CLUSTER, "a", None)).unwrap();
        let stranger = epoch(CLUSTER, "b", Some(epoch(CLUSTER, "c", None).mark()));
        assert!(matches!(ring.adopt(stranger), Err(AdoptError::Epoch(EpochError::Predecessor { .. }))));
    }
}
