//! The context tokens that clients carry: as they come, and as an attacker with the secret would make them.

use quorate_wire::context;
use quorate_wire::handshake::Secret;

use crate::samples::{encoded, sets};

const KEY: &[u8] = b"key";
/// As in `quorate_wire::context`; were it another one, the seeds would not open.
const PURPOSE: &str = "quorate.dev 2026 context token";
const TAG_BYTES: usize = 8;

pub(crate) fn run(bytes: &[u8]) -> bool {
    let secret = Secret::new(b"a secret of the cluster");
    assert!(context::open(&secret, KEY, bytes).is_err(), "a token was guessed");
    let tag = secret.tag(PURPOSE, bytes);
    let token = [bytes, &tag[..TAG_BYTES]].concat();
    let Ok(context) = context::open(&secret, KEY, &token) else { return false };
    let sealed = context::seal(&secret, KEY, &context);
    assert_eq!(context::open(&secret, KEY, &sealed), Ok(context));
    assert!(context::open(&secret, b"another", &sealed).is_err());
    true
}

/// Without their tags.
pub(crate) fn seeds() -> Vec<Vec<u8>> {
    let hash = quorate_core::ring::key_hash(KEY);
    sets().iter().map(|set| encoded(&(hash, set.context()))).collect()
}
