//! What nodes say to each other. Every message is bounded, and refused as a whole when it is not.

use serde::{Deserialize, Serialize};

use super::claim::{Claim, State, is_bounded};
use crate::id::NodeId;
use crate::limits::MEMBERS_MAX;

/// Nodes known at once, this one not counted: those of the largest ring, and room for those that replace
/// them.
pub const KNOWN_MAX: usize = MEMBERS_MAX + 256;
/// The most claims that ride along with a message.
pub const GOSSIP_CLAIMS_MAX: usize = 64;

/// One message of the membership protocol.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Message {
    /// The sender about itself: each message is an announcement.
    pub(super) from: Claim,
    /// News about others.
    pub(super) gossip: Vec<Claim>,
    /// The matter.
    pub(super) body: Body,
}

/// What a message is about.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(super) enum Body {
    /// "Are you there?", to a node and not to whoever has its address by now.
    Ping { sequence: u64, target: NodeId },
    /// "`target` answered": itself, with its time of day when it knows it; or through a helper, whose answer
    /// takes too many ways to compare clocks by.
    Ack { sequence: u64, target: NodeId, unix_ms: Option<u64> },
    /// "You have reached another node": the sender. The one that was meant does not answer here.
    NotMe { target: NodeId },
    /// "Ping this node for me."
    PingFor { sequence: u64, target: NodeId, address: String },
    /// "I pinged `target` for you, and it did not answer": so at least the asker's own line is fine.
    Nack { sequence: u64, target: NodeId },
    /// Nothing but the news that ride along.
    Gossip,
    /// "This is all I know; tell me all that you know."
    Exchange { claims: Vec<Claim> },
    /// The answer to [`Body::Exchange`].
    View { claims: Vec<Claim> },
}

/// Why a message (or a node's own description) is refused. The sender breaks the protocol: worth a line in
/// the log and the end of the connection.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[allow(missing_docs)] // The messages are the documentation.
pub enum Refused {
    #[error("a name, address or zone is empty or longer than 253 bytes")]
    Text,
    #[error("a message carries {count} claims, more than {most}")]
    Claims { count: usize, most: usize },
    #[error("node {from} calls itself {state:?}: a node that speaks is up or leaves")]
    Sender { from: NodeId, state: State },
}

impl Message {
    /// Who says that it sent this; the connection should agree.
    pub fn from(&self) -> NodeId {
        self.from.node.id
    }

    /// Whether every part is within its bounds.
    pub(super) fn check(&self) -> Result<(), Refused> {
        let (view, most): (&[Claim], _) = match &self.body {
            Body::Exchange { claims } | Body::View { claims } => (claims, KNOWN_MAX),
            _ => (&[], 0),
        };
        for (count, most) in [(self.gossip.len(), GOSSIP_CLAIMS_MAX), (view.len(), most)] {
            if count > most {
                return Err(Refused::Claims { count, most });
            }
        }
        let mut claims = std::iter::once(&self.from).chain(&self.gossip).chain(view);
        let address_is_bounded = match &self.body {
            Body::PingFor { address, .. } => is_bounded(address),
            _ => true,
        };
        if !address_is_bounded || !claims.all(|claim| claim.node.is_bounded()) {
            return Err(Refused::Text);
        }
        if !matches!(self.from.state, State::Up | State::Left) {
            return Err(Refused::Sender { from: self.from(), state: self.from.state });
        }
        Ok(())
    }
}
