//! Which partitions were resynchronised since segments were lost as a whole.
//!
//! ```text
//! lifted = magic "quorlift" | (partition u16 | newest lost segment of then u64)* | checksum of all before u64
//! ```
//!
//! Invariant: a partition is served again only after this is durable. A file that is missing or damaged says that none
//! was: they are resynchronised once more.

use std::collections::BTreeMap;
use std::io;
use std::sync::Mutex;

use quorate_core::ring::Partition;
use xxhash_rust::xxh3::xxh3_64;

use crate::disk::Disk;
use crate::segment::read_prefix;
use crate::spare::{Names, remove};
use crate::sync::lock;

const NAME: &str = "lifted";
const MAGIC: &[u8; 8] = b"quorlift";
const ENTRY_BYTES: usize = 10;
const CHECKSUM_BYTES: usize = 8;

/// By partition: through which lost segment it was resynchronised.
#[derive(Default)]
pub(crate) struct Lifted(Mutex<BTreeMap<Partition, u64>>);

impl Lifted {
    pub(crate) fn load(disk: &dyn Disk) -> Self {
        let bytes = disk.open(NAME).and_then(|file| read_prefix(&*file, file.length()?));
        Self(Mutex::new(bytes.ok().and_then(|bytes| decode(&bytes)).unwrap_or_default()))
    }

    pub(crate) fn through(&self, partition: Partition) -> u64 {
        lock(&self.0).get(&partition).copied().unwrap_or(0)
    }

    /// Takes note, durably.
    pub(crate) fn lift(
        &self,
        disk: &dyn Disk,
        names: &Names,
        partition: Partition,
        through: u64,
    ) -> io::Result<()> {
        let mut lifted = lock(&self.0);
        let mut wanted = lifted.clone();
        wanted.insert(partition, through);
        let name = names.next();
        let written = disk.create(&name).and_then(|file| {
            file.write_at(0, &encode(&wanted))?;
            file.sync()?;
            disk.rename(&name, NAME)?;
            disk.sync_directory()
        });
        written.inspect_err(|_| remove(disk, &name))?;
        *lifted = wanted;
        Ok(())
    }
}

fn encode(lifted: &BTreeMap<Partition, u64>) -> Vec<u8> {
    let mut bytes = MAGIC.to_vec();
    for (partition, through) in lifted {
        bytes.extend_from_slice(&partition.0.to_le_bytes());
        bytes.extend_from_slice(&through.to_le_bytes());
    }
    bytes.extend_from_slice(&xxh3_64(&bytes).to_le_bytes());
    bytes
}

fn decode(bytes: &[u8]) -> Option<BTreeMap<Partition, u64>> {
    let (content, checksum) = bytes.split_at_checked(bytes.len().checked_sub(CHECKSUM_BYTES)?)?;
    let entries = content.strip_prefix(MAGIC)?;
    let sound = checksum == xxh3_64(content).to_le_bytes() && entries.len().is_multiple_of(ENTRY_BYTES);
    let entry = |bytes: &[u8]| {
        let (partition, through) = bytes.split_at(2);
        Some((
            Partition(u16::from_le_bytes(partition.try_into().ok()?)),
            u64::from_le_bytes(through.try_into().ok()?),
        ))
    };
    if sound { entries.chunks_exact(ENTRY_BYTES).map(entry).collect() } else { None }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn it_round_trips_and_no_byte_of_it_can_change(
            lifted in prop::collection::btree_map(any::<u16>().prop_map(Partition), any::<u64>(), 0..9),
            at: prop::sample::Index, bit in 0..8u8,
        ) {
            let bytes = encode(&lifted);
            prop_assert_eq!(decode(&bytes), Some(lifted));
            let at = at.index(bytes.len());
            prop_assert_eq!(decode(&bytes[..at]), None);
            let mut changed = bytes;
            changed[at] ^= 1 << bit;
            prop_assert_eq!(decode(&changed), None);
        }

        #[test]
        fn no_bytes_crash_the_reader(bytes in prop::collection::vec(any::<u8>(), 0..100)) {
            prop_assert_eq!(decode(&bytes), None);
        }
    }
}
