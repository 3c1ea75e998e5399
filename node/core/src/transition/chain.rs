//! The epochs that are live, the oldest first.
//!
//! Invariant: one to [`LIVE_MAX`] epochs of one cluster; each names the hash of the one before (INV-EPOCH).

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::ring::{Epoch, EpochError};

/// The most epochs that may be live at once.
///
/// Changes that somebody wishes for wait while three are live. The rest is room for members whose disks are lost while they
/// gain partitions: nothing older can be retired before they are replaced, and that takes an epoch each time.
pub const LIVE_MAX: usize = 8;

/// The live epochs.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(try_from = "Vec<Epoch>", into = "Vec<Epoch>")]
pub struct Chain(Vec<Arc<Epoch>>);

/// Why epochs are no chain, or cannot go on from one.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
#[allow(missing_docs)] // The messages are the documentation.
pub enum ChainError {
    #[error(transparent)]
    Epoch(#[from] EpochError),
    #[error("{count} live epochs: there are 1 to {LIVE_MAX}")]
    Count { count: usize },
    #[error(
        "epoch {pushed} does not follow epoch {known} directly: the epochs between are asked of the members"
    )]
    Gap { pushed: u64, known: u64 },
    #[error(
        "epoch {pushed} must wait: epochs {oldest} to {newest} are live, and no more than {LIVE_MAX} may be"
    )]
    Full { pushed: u64, oldest: u64, newest: u64 },
}

impl Chain {
    /// A ring in its first epoch, or one in which nothing older is live.
    pub fn of(epoch: Arc<Epoch>) -> Self {
        Self(vec![epoch])
    }

    /// The epochs, the oldest first.
    pub fn epochs(&self) -> &[Arc<Epoch>] {
        &self.0
    }

    /// The newest.
    pub fn newest(&self) -> &Arc<Epoch> {
        self.0.last().expect("a chain is never empty")
    }

    /// The oldest.
    pub fn oldest(&self) -> &Arc<Epoch> {
        &self.0[0]
    }

    /// The epoch with this number, if it is live.
    pub fn get(&self, number: u64) -> Option<&Arc<Epoch>> {
        self.0.iter().find(|epoch| epoch.number() == number)
    }

    /// The chain with one more epoch; `None` when that is known already.
    pub fn with(&self, epoch: Arc<Epoch>) -> Result<Option<Self>, ChainError> {
        if let Some(known) = self.get(epoch.number()) {
            epoch.follows(known)?;
        }
        let newest = self.newest();
        if !epoch.follows(newest)? {
            return Ok(None);
        }
        let (pushed, known) = (epoch.number(), newest.number());
        if pushed > known + 1 {
            return Err(ChainError::Gap { pushed, known });
        }
        if self.0.len() == LIVE_MAX {
            return Err(ChainError::Full { pushed, oldest: self.oldest().number(), newest: known });
        }
        Ok(Some(Self(self.0.iter().cloned().chain([epoch]).collect())))
    }

    /// What this chain and another's say together: whatever either has left behind is retired, and the newest of
    /// both is known. `None` when the other says nothing new.
    pub fn joined(&self, other: &Self) -> Result<Option<Self>, ChainError> {
        for epoch in &other.0 {
            match self.get(epoch.number()) {
                Some(known) => drop(epoch.follows(known)?),
                None => drop(epoch.follows(self.newest())?),
            }
        }
        let from = self.oldest().number().max(other.oldest().number());
        let own = self.0.iter().filter(|epoch| epoch.number() >= from);
        let newest = self.newest().number();
        let theirs = other.0.iter().filter(|epoch| epoch.number() >= from && epoch.number() > newest);
        let epochs: Vec<Arc<Epoch>> = own.chain(theirs).cloned().collect();
        let joined = if epochs.is_empty() { return Ok(None) } else { Self::try_from_epochs(epochs)? };
        Ok((joined != *self).then_some(joined))
    }

    fn try_from_epochs(epochs: Vec<Arc<Epoch>>) -> Result<Self, ChainError> {
        if epochs.is_empty() || epochs.len() > LIVE_MAX {
            return Err(ChainError::Count { count: epochs.len() });
        }
        for pair in epochs.windows(2) {
            let (known, pushed) = (pair[0].number(), pair[1].number());
            if !pair[1].follows(&pair[0])? || pushed != known + 1 {
                return Err(ChainError::Gap { pushed, known });
            }
        }
        Ok(Self(epochs))
    }

    /// Leaves the oldest behind.
    pub(super) fn drop_oldest(&mut self, count: usize) {
        self.0.drain(..count.min(self.0.len() - 1));
    }
}

impl TryFrom<Vec<Epoch>> for Chain {
    type Error = ChainError;

    fn try_from(epochs: Vec<Epoch>) -> Result<Self, ChainError> {
        Self::try_from_epochs(epochs.into_iter().map(Arc::new).collect())
    }
}

impl From<Chain> for Vec<Epoch> {
    fn from(chain: Chain) -> Self {
        chain.0.into_iter().map(|epoch| (*epoch).clone()).collect()
    }
}
