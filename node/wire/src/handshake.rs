//! How two nodes prove to each other that they know the cluster's secret, without sending it.
//!
//! `Hello` →, ← `Welcome`, `Proof` →. Each proof is a keyed BLAKE3 hash over both random challenges, both
//! identities and the prover's side, so it fits one connection and one direction only. Both name the start that
//! they are in: what is said on a connection is said in these two starts. This keeps strangers
//! out; it does not encrypt.

use quorate_core::{ClusterId, NodeId};
use serde::{Deserialize, Serialize};

/// The first bytes on a peer connection. No HTTP request begins so, and both share a port.
pub const MAGIC: &[u8; 4] = b"QRT\x02";

/// The longest frame before the secret is proven.
pub const HANDSHAKE_BYTES_MAX: usize = 512;

/// Random bytes, fresh for each connection.
pub type Challenge = [u8; 32];

/// The connecting node's opening.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Hello {
    /// Its cluster.
    pub cluster: ClusterId,
    /// Itself.
    pub node: NodeId,
    /// The start that it is in.
    pub start: u64,
    /// What the other must answer for.
    pub challenge: Challenge,
}

/// The accepting node's answer.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Welcome {
    /// It knows the secret too.
    Accepted {
        /// Itself.
        node: NodeId,
        /// The start that it is in.
        start: u64,
        /// What the connecting node must answer for.
        challenge: Challenge,
        /// That it knows the secret.
        proof: [u8; 32],
    },
    /// It belongs to another cluster.
    OtherCluster {
        /// Which.
        cluster: ClusterId,
    },
}

/// The connecting node's proof; the connection is open.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Proof(pub [u8; 32]);

/// Which end proves.
#[derive(Clone, Copy)]
pub enum Side {
    /// The one that connected.
    Connector,
    /// The one that accepted.
    Acceptor,
}

/// What the accepting node says of itself, and is proven with it.
#[derive(Clone, Copy)]
pub struct Acceptor<'a> {
    /// Itself.
    pub node: NodeId,
    /// The start that it is in.
    pub start: u64,
    /// What the connecting node must answer for.
    pub challenge: &'a Challenge,
}

/// The cluster's secret, as a key. It has no `Debug`: secrets stay out of logs.
#[derive(Clone)]
pub struct Secret([u8; 32]);

impl Secret {
    /// The key that a secret text stands for.
    pub fn new(text: &[u8]) -> Self {
        Self(blake3::derive_key("quorate.dev 2026 cluster secret", text))
    }

    /// What `side` sends to prove that it knows the secret.
    pub fn proof(&self, side: Side, hello: &Hello, acceptor: Acceptor<'_>) -> [u8; 32] {
        let mut hasher = blake3::Hasher::new_keyed(&self.0);
        let side: &[u8] = match side {
            Side::Connector => b"connector",
            Side::Acceptor => b"acceptor\0",
        };
        hasher.update(side).update(hello.cluster.as_bytes()).update(hello.node.as_bytes());
        hasher.update(&hello.start.to_le_bytes()).update(&hello.challenge);
        hasher.update(acceptor.node.as_bytes()).update(&acceptor.start.to_le_bytes());
        hasher.update(acceptor.challenge);
        *hasher.finalize().as_bytes()
    }

    /// Whether a proof is right; takes equally long whatever it is.
    pub fn proves(&self, proof: &[u8; 32], side: Side, hello: &Hello, acceptor: Acceptor<'_>) -> bool {
        blake3::Hash::from_bytes(self.proof(side, hello, acceptor)) == blake3::Hash::from_bytes(*proof)
    }

    /// A keyed hash for another purpose, which must be named and never be used for a second one.
    pub fn tag(&self, purpose: &str, bytes: &[u8]) -> [u8; 32] {
        let key = blake3::derive_key(purpose, &self.0);
        *blake3::keyed_hash(&key, bytes).as_bytes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_proof_fits_one_secret_one_side_and_one_connection() {
        let secret = Secret::new(b"a secret of the cluster");
        let (cluster, node) = (ClusterId::from_u128(1), NodeId::from_u128(2));
        let hello = Hello { cluster, node, start: 7, challenge: [3; 32] };
        let acceptor = Acceptor { node: NodeId::from_u128(4), start: 8, challenge: &[5; 32] };
        let proof = secret.proof(Side::Connector, &hello, acceptor);
        let proves =
            |secret: &Secret, side, hello: &Hello, acceptor| secret.proves(&proof, side, hello, acceptor);
        assert!(proves(&secret, Side::Connector, &hello, acceptor));
        assert!(!proves(&secret, Side::Acceptor, &hello, acceptor), "reflected");
        let replayed = Acceptor { challenge: &[6; 32], ..acceptor };
        assert!(!proves(&secret, Side::Connector, &hello, replayed), "replayed");
        assert!(
            !proves(&secret, Side::Connector, &hello, Acceptor { start: 9, ..acceptor }),
            "to a later start"
        );
        assert!(!proves(&Secret::new(b"another"), Side::Connector, &hello, acceptor));
        let (later, other) = (Hello { start: 8, ..hello.clone() }, Hello { node: acceptor.node, ..hello });
        assert!(!proves(&secret, Side::Connector, &later, acceptor), "of a later start");
        assert!(!proves(&secret, Side::Connector, &other, acceptor), "another's");
    }
}
