//! Which partitions were resynchronised since segments were lost as a whole.
//!
//! ```text
//! lifted = magic "quorlif2" | (partition u16 | lost u64 | dropped u64)* | checksum of all before u64
//! ```
//!
//! `lost` is the newest lost segment of then. Up to `dropped` the log's records of the partition are none any more: whatever
//! peers had of them was written anew, behind.
//!
//! Invariant: a partition is served again only after this is durable. A file that is missing or damaged says that none
//! was: they are resynchronised once more. (So does one of "quorlift", which did not say what was dropped.)

use std::collections::BTreeMap;
use std::io;
use std::sync::Mutex;

use quorate_core::ring::Partition;
use xxhash_rust::xxh3::xxh3_64;

use crate::disk::Disk;
use crate::segment::read_prefix;
use crate::spare::{Names, remove};
use crate::sync::lock;
use crate::write::Leftover;

const NAME: &str = "lifted";
const MAGIC: &[u8; 8] = b"quorlif2";
const ENTRY_BYTES: usize = 18;
const CHECKSUM_BYTES: usize = 8;

/// Through which segment.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
struct Through {
    lost: u64,
    dropped: u64,
}

/// The partitions that were resynchronised.
#[derive(Default)]
pub(crate) struct Lifted(Mutex<BTreeMap<Partition, Through>>);

impl Lifted {
    pub(crate) fn load(disk: &dyn Disk) -> Self {
        let bytes = disk.open(NAME).and_then(|file| read_prefix(&*file, file.length()?));
        Self(Mutex::new(bytes.ok().and_then(|bytes| decode(&bytes)).unwrap_or_default()))
    }

    fn through(&self, partition: Partition) -> Through {
        lock(&self.0).get(&partition).copied().unwrap_or_default()
    }

    /// Of the newest segment that was lost: whether it still counts for this partition. 0 when it does not.
    pub(crate) fn not_lifted(&self, partition: Partition, lost_through: u64) -> u64 {
        // The usual case needs no lock.
        if lost_through == 0 || lost_through <= self.through(partition).lost { 0 } else { lost_through }
    }

    /// Up to which segment the partition's records are none any more.
    pub(crate) fn dropped_through(&self, partition: Partition) -> u64 {
        self.through(partition).dropped
    }

    /// Takes note, durably.
    pub(crate) fn lift(
        &self,
        disk: &dyn Disk,
        names: &Names,
        partition: Partition,
        lost: u64,
        leftover: Leftover,
    ) -> io::Result<()> {
        let mut lifted = lock(&self.0);
        let mut wanted = lifted.clone();
        let before = lifted.get(&partition).copied().unwrap_or_default();
        let dropped = if leftover == Leftover::Drop { lost } else { before.dropped };
        wanted.insert(partition, Through { lost, dropped });
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

fn encode(lifted: &BTreeMap<Partition, Through>) -> Vec<u8> {
    let mut bytes = MAGIC.to_vec();
    for (partition, through) in lifted {
        bytes.extend_from_slice(&partition.0.to_le_bytes());
        bytes.extend_from_slice(&through.lost.to_le_bytes());
        bytes.extend_from_slice(&through.dropped.to_le_bytes());
    }
    bytes.extend_from_slice(&xxh3_64(&bytes).to_le_bytes());
    bytes
}

fn decode(bytes: &[u8]) -> Option<BTreeMap<Partition, Through>> {
    let (content, checksum) = bytes.split_at_checked(bytes.len().checked_sub(CHECKSUM_BYTES)?)?;
    let entries = content.strip_prefix(MAGIC)?;
    let sound = checksum == xxh3_64(content).to_le_bytes() && entries.len().is_multiple_of(ENTRY_BYTES);
    let entry = |bytes: &[u8]| {
        let (partition, through) = bytes.split_first_chunk()?;
        let (lost, dropped) = through.split_first_chunk()?;
        let (lost, dropped) = (u64::from_le_bytes(*lost), u64::from_le_bytes(dropped.try_into().ok()?));
        Some((Partition(u16::from_le_bytes(*partition)), Through { lost, dropped }))
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
            lifted in prop::collection::btree_map(any::<u16>().prop_map(Partition), any::<[u64; 2]>(), 0..9),
            at: prop::sample::Index, bit in 0..8u8,
        ) {
            let through = |[lost, dropped]: [u64; 2]| Through { lost, dropped };
            let lifted = lifted.into_iter().map(|(partition, each)| (partition, through(each))).collect();
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
