//! The causal context as clients carry it: an opaque token.
//!
//! A context decides which values a write replaces, so a wrong one destroys data. The token therefore names
//! its key and carries a keyed hash: a mangled, invented or misplaced token is an error, never a write.

use quorate_core::causality::Context;
use quorate_core::ring::key_hash;
use serde::{Deserialize, Serialize};

use crate::handshake::Secret;

const PURPOSE: &str = "quorate.dev 2026 context token";
const TAG_BYTES: usize = 8;
/// The most actors that a token may name; as many starts of nodes can have written one key.
const ACTORS_MAX: usize = 4096;

/// A token that cannot be used.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum TokenError {
    /// Mangled or invented.
    #[error("the context is damaged: send back exactly what a read or a write returned")]
    Damaged,
    /// Of another key.
    #[error("the context belongs to another key: send the one that a read of this key returned")]
    OtherKey,
}

#[derive(Serialize, Deserialize)]
struct Token {
    key_hash: u64,
    context: Context,
}

/// The token's bytes for a context of a key.
pub fn seal(secret: &Secret, key: &[u8], context: &Context) -> Vec<u8> {
    let token = Token { key_hash: key_hash(key), context: context.clone() };
    let mut bytes = postcard::to_stdvec(&token).expect("maps of integers always encode to memory");
    let tag = secret.tag(PURPOSE, &bytes);
    bytes.extend_from_slice(&tag[..TAG_BYTES]);
    bytes
}

/// The context of a token for a key.
pub fn open(secret: &Secret, key: &[u8], token: &[u8]) -> Result<Context, TokenError> {
    let (body, tag) = token.split_last_chunk::<TAG_BYTES>().ok_or(TokenError::Damaged)?;
    if secret.tag(PURPOSE, body)[..TAG_BYTES] != tag[..] {
        return Err(TokenError::Damaged);
    }
    let token: Token = postcard::from_bytes(body).map_err(|_| TokenError::Damaged)?;
    if token.key_hash != key_hash(key) {
        return Err(TokenError::OtherKey);
    }
    if token.context.len() > ACTORS_MAX { Err(TokenError::Damaged) } else { Ok(token.context) }
}

#[cfg(test)]
mod tests {
    use quorate_core::NodeId;
    use quorate_core::causality::{Actor, Dot};

    use super::*;

    #[test]
    fn only_the_whole_token_of_the_same_key_opens() {
        let secret = Secret::new(b"secret");
        let mut context = Context::default();
        context.include(Dot { actor: Actor { node: NodeId::from_u128(7), start: 1 }, counter: 300 });
        let token = seal(&secret, b"k", &context);
        assert_eq!(open(&secret, b"k", &token), Ok(context));
        assert_eq!(open(&secret, b"other", &token), Err(TokenError::OtherKey));
        assert_eq!(open(&Secret::new(b"x"), b"k", &token), Err(TokenError::Damaged));
        for at in 0..token.len() {
            let mut mangled = token.clone();
            mangled[at] ^= 1;
            assert_eq!(open(&secret, b"k", &mangled), Err(TokenError::Damaged), "byte {at}");
            assert_eq!(open(&secret, b"k", &token[..at]), Err(TokenError::Damaged), "cut at {at}");
        }
    }
}
