//! A version set as bytes, for disks and digests.
//!
//! Canonical: equal sets have equal bytes, so that replicas compare digests. The first byte names the
//! encoding. Only the newest is written; the older ones are read, so that a disk survives an upgrade.

use bytes::Bytes;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use xxhash_rust::xxh3::xxh3_64;

use super::set::Parts;
use super::{Context, Dot, Stamp, Version, VersionSet};

/// The encoding that is written: versions have an expiry.
const ENCODING: u8 = 2;
/// Room for what is usually beside the values: an actor or two in the context, a version or two.
const BYTES_BESIDE_VALUES: usize = 128;
/// The one before: they had none.
const ENCODING_BEFORE_EXPIRY: u8 = 1;

/// Bytes that are no version set.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum VersionSetError {
    /// A newer program wrote them.
    #[error("version sets of encoding {0} are not known here (this program knows 1 to {ENCODING})")]
    Encoding(u8),
    /// They are damaged.
    #[error("not a version set")]
    Malformed,
}

impl VersionSet {
    /// The canonical encoding: equal sets have equal bytes.
    pub fn encode(&self) -> Vec<u8> {
        let values: usize = self.values().map(|(_, value)| value.len()).sum();
        let mut bytes = Vec::with_capacity(values + BYTES_BESIDE_VALUES);
        bytes.push(ENCODING);
        postcard::to_extend(self, bytes).expect("maps, vectors and integers always encode to memory")
    }

    /// The hash of the canonical encoding; equal on replicas that hold equal sets, at any time.
    pub fn digest(&self) -> u64 {
        xxh3_64(&self.encode())
    }

    /// The digest of the set that these bytes encode, without decoding them where that can be spared. Bytes
    /// that are no set have the hash of the bytes.
    pub fn digest_of(bytes: &[u8]) -> u64 {
        match bytes.first() {
            Some(&ENCODING_BEFORE_EXPIRY) => Self::decode(bytes).map_or(xxh3_64(bytes), |set| set.digest()),
            _ => xxh3_64(bytes),
        }
    }

    /// Reads what [`VersionSet::encode`] wrote, in this program or an older one. Bytes from a disk or a peer
    /// may be anything: whatever comes back holds this type's invariant.
    pub fn decode(bytes: &[u8]) -> Result<Self, VersionSetError> {
        match bytes.split_first() {
            Some((&ENCODING, rest)) => whole::<Self>(rest),
            Some((&ENCODING_BEFORE_EXPIRY, rest)) => whole::<PartsBeforeExpiry>(rest)?.upgrade(),
            Some((&other, _)) => Err(VersionSetError::Encoding(other)),
            None => Err(VersionSetError::Malformed),
        }
    }
}

/// One value and nothing behind it.
fn whole<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, VersionSetError> {
    let (value, rest) = postcard::take_from_bytes(bytes).map_err(|_| VersionSetError::Malformed)?;
    if rest.is_empty() { Ok(value) } else { Err(VersionSetError::Malformed) }
}

#[derive(Deserialize)]
#[cfg_attr(test, derive(serde::Serialize))]
struct PartsBeforeExpiry {
    context: Context,
    versions: Vec<VersionBeforeExpiry>,
}

#[derive(Deserialize)]
#[cfg_attr(test, derive(serde::Serialize))]
struct VersionBeforeExpiry {
    dot: Dot,
    stamp: Stamp,
    value: Option<Bytes>,
}

impl PartsBeforeExpiry {
    fn upgrade(self) -> Result<VersionSet, VersionSetError> {
        let upgrade =
            |VersionBeforeExpiry { dot, stamp, value }| Version { dot, stamp, value, expires: None };
        let versions = self.versions.into_iter().map(upgrade).collect();
        Parts { context: self.context, versions }.try_into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::NodeId;
    use crate::causality::{Actor, Event, Expiry, Policy};

    fn dot(counter: u64) -> Dot {
        Dot { actor: Actor { node: NodeId::from_u128(0x0102), start: 3 }, counter }
    }

    /// A value and a tombstone beside it.
    fn set(expires: Option<Expiry>) -> VersionSet {
        let mut set = VersionSet::default();
        for (counter, value, expires) in [(4, Some("hi"), expires), (5, None, None)] {
            let context = Context::default();
            let (value, stamp) = (value.map(Bytes::from), Stamp::at_ms(1));
            set.write(Event { context, stamp, value, policy: Policy::Siblings, expires }, dot(counter))
                .unwrap();
        }
        set
    }

    /// The context {actor: 5}, and the number of versions: the same in every encoding so far.
    const HEAD: [u8; 21] = [1, 16, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 2, 3, 5, 2];
    /// The actor that both versions name.
    const ACTOR: [u8; 18] = [16, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 2, 3];

    /// The bytes are on disks: they never change.
    fn golden(encoding: u8, first: &[u8], second: &[u8]) -> Vec<u8> {
        [&[encoding], &HEAD[..], &ACTOR, first, &ACTOR, second].concat()
    }

    #[test]
    fn encoding_1_is_read_for_ever() {
        let bytes = golden(1, &[4, 128, 128, 4, 1, 2, b'h', b'i'], &[5, 128, 128, 4, 0]);
        assert_eq!(VersionSet::decode(&bytes), Ok(set(None)));
        assert_eq!(
            VersionSet::digest_of(&bytes),
            set(None).digest(),
            "an upgrade makes no difference to peers"
        );
    }

    #[test]
    fn encoding_2_is_what_is_written() {
        let set = set(Some(Expiry::at_ms(7)));
        let bytes = golden(2, &[4, 128, 128, 4, 1, 2, b'h', b'i', 1, 7], &[5, 128, 128, 4, 0, 0]);
        assert_eq!(set.encode(), bytes);
        assert_eq!(VersionSet::decode(&bytes).as_ref(), Ok(&set));
        assert_eq!(VersionSet::digest_of(&bytes), set.digest());
    }

    #[test]
    fn damaged_bytes_are_refused() {
        let old = golden(1, &[4, 128, 128, 4, 1, 2, b'h', b'i'], &[5, 128, 128, 4, 0]);
        for bytes in [old, set(Some(Expiry::at_ms(7))).encode()] {
            for cut in 0..bytes.len() {
                assert!(VersionSet::decode(&bytes[..cut]).is_err(), "cut at {cut}");
            }
            let trailing = [bytes.as_slice(), &[0]].concat();
            assert_eq!(VersionSet::decode(&trailing), Err(VersionSetError::Malformed));
        }
        assert_eq!(VersionSet::decode(&[9, 0]), Err(VersionSetError::Encoding(9)));
    }

    #[test]
    fn a_set_without_its_invariant_does_not_decode_wherever_it_comes_from() {
        let mut context = Context::default();
        context.include(dot(2));
        let stamp = Stamp::at_ms(1);
        let read = |counters: &[u64]| {
            let now = counters.iter().map(|&n| Version { dot: dot(n), stamp, value: None, expires: None });
            let now: Vec<_> = now.collect();
            let then = counters.iter().map(|&n| VersionBeforeExpiry { dot: dot(n), stamp, value: None });
            let then = PartsBeforeExpiry { context: context.clone(), versions: then.collect() };
            let peer = postcard::to_stdvec(&(&context, now)).unwrap();
            let disk = [&[2], &peer[..]].concat();
            let old_disk = postcard::to_extend(&then, vec![1]).unwrap();
            let read = postcard::from_bytes::<VersionSet>(&peer).is_ok();
            assert_eq!(VersionSet::decode(&disk).is_ok(), read);
            assert_eq!(VersionSet::decode(&old_disk).is_ok(), read);
            read
        };
        assert!(read(&[1, 2]));
        assert!(!read(&[2, 1]), "unsorted");
        assert!(!read(&[1, 1]), "twice");
        assert!(!read(&[3]), "not covered");
    }
}
