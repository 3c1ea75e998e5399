//! When an operation is decided: replies of replicas in, decisions out.
//!
//! Strict quorums: only owners count, each once. With R + W > N a decided read has a reply from at least one
//! replica that acknowledged any decided write (INV-OVERLAP). Sloppy quorums: an owner that did not
//! acknowledge may be stood for by a fallback that keeps a hint for it, so writes go on while owners are away,
//! and a read may miss them until the hints are delivered.
//!
//! Source: DeCandia et al., "Dynamo: Amazon's Highly Available Key-value Store" (2007), sections 4.5 and 4.6.

mod read;
#[cfg(test)]
mod tests;
mod write;

pub use read::{Ask, ReadDecision, ReadQuorum, Reply};
pub use write::{Failure, WriteDecision, WriteQuorum};

use serde::{Deserialize, Serialize};

/// How many owners a request asks for.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub enum Consistency {
    /// As the cluster is configured.
    #[default]
    Configured,
    /// One owner: the fastest, and the weakest.
    One,
    /// A majority of the owners.
    Quorum,
    /// Every owner: the request fails while one of them is away.
    All,
    /// So many.
    Exactly(u8),
}

/// A request asks for owners that there are not.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error, Serialize, Deserialize)]
#[error("the request asks for {asked} replicas, but each key has {factor}: ask for 1 to {factor}")]
pub struct OutOfRange {
    /// What it asks for.
    pub asked: u8,
    /// N.
    pub factor: u8,
}

impl Consistency {
    /// The number of owners, out of `factor`.
    pub fn needed(self, configured: u8, factor: u8) -> Result<u8, OutOfRange> {
        match self {
            Self::Configured => Ok(configured),
            Self::One => Ok(1),
            Self::Quorum => Ok(factor / 2 + 1),
            Self::All => Ok(factor),
            Self::Exactly(asked) if (1..=factor).contains(&asked) => Ok(asked),
            Self::Exactly(asked) => Err(OutOfRange { asked, factor }),
        }
    }
}

/// Whether fallbacks may stand for owners.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub enum QuorumKind {
    /// Only owners count.
    #[default]
    Strict,
    /// A fallback that keeps a hint counts for the owner that it is for.
    Sloppy,
}
