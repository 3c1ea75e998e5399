//! What a hint is called in the store.

use bytes::Bytes;

use crate::id::NodeId;
use crate::ring::Partition;

/// Bytes before the key: the target and the partition.
const HEAD_BYTES: usize = 16 + 2;

/// Which hint: one for each key and owner that is away.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct HintName {
    /// Of the key.
    pub partition: Partition,
    /// What was written.
    pub key: Bytes,
    /// The owner that was away.
    pub target: NodeId,
}

impl HintName {
    /// The key of its record: the target, the partition (big-endian), the key.
    pub fn to_record_key(&self) -> Bytes {
        let head = [self.target.as_bytes().as_slice(), &self.partition.0.to_be_bytes()];
        [head[0], head[1], &self.key].concat().into()
    }

    /// The name in a record's key; none when it is no hint's.
    pub fn from_record_key(record_key: &Bytes) -> Option<Self> {
        let (target, rest) = record_key.split_first_chunk::<16>()?;
        let (partition, _) = rest.split_first_chunk::<2>()?;
        Some(Self {
            partition: Partition(u16::from_be_bytes(*partition)),
            key: record_key.slice(HEAD_BYTES..),
            target: NodeId::from_u128(u128::from_be_bytes(*target)),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_survives_the_store() {
        let name =
            HintName { partition: Partition(258), key: "k".into(), target: NodeId::from_u128(1 << 64 | 7) };
        let record_key = name.to_record_key();
        assert_eq!(record_key.len(), 19);
        assert_eq!(record_key[16..], [1, 2, b'k']);
        assert_eq!(HintName::from_record_key(&record_key), Some(name));
        assert_eq!(HintName::from_record_key(&record_key.slice(..17)), None);
    }
}
