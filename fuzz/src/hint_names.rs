//! The keys of hints in the store, which a disk gives back.

use bytes::Bytes;
use quorate_core::handoff::HintName;
use quorate_core::ring::Partition;

use crate::samples::node;

pub(crate) fn run(bytes: &[u8]) -> bool {
    let record_key = Bytes::copy_from_slice(bytes);
    let Some(name) = HintName::from_record_key(&record_key) else { return false };
    assert_eq!(name.to_record_key(), record_key);
    true
}

pub(crate) fn seeds() -> Vec<Vec<u8>> {
    let name = |key| HintName { partition: Partition(258), key: Bytes::from_static(key), target: node(1) };
    [&b"key"[..], b""].map(|key| name(key).to_record_key().to_vec()).into()
}
