//! The responder's side: a function of the request and of what the replica holds.

use std::ops::RangeInclusive;

use bytes::Bytes;

use super::message::{ENTRIES_MAX, Entry, Items, Refused, Reply, Request, Shown};
use super::{FANOUT, Prefix};
use crate::ring::{Partition, PartitionCount};

/// What a replica's index knows, from memory.
pub trait View {
    /// Whether all that this replica ever acknowledged of a partition is shown; not while it heals from a loss.
    fn is_whole(&self, partition: Partition) -> bool {
        let _ = partition;
        true
    }

    /// The root of a partition's tree.
    fn root(&self, partition: Partition) -> u64;

    /// The cells below a place; none where the tree keeps no finer ones. See [`super::Tree::children`].
    fn children(&self, partition: Partition, prefix: Prefix) -> Option<[u64; FANOUT]>;

    /// The entries of a range, ascending, each hash once; the first `limit` of them.
    fn entries(&self, partition: Partition, hashes: RangeInclusive<u64>, limit: usize) -> Vec<Entry>;

    /// The digest under one hash.
    fn digest(&self, partition: Partition, key_hash: u64) -> Option<u64> {
        self.entries(partition, key_hash..=key_hash, 1).first().map(|entry| entry.digest)
    }
}

/// How a request is answered.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Answer {
    /// With this.
    Reply(Reply),
    /// With [`Reply::Fetched`], from what [`super::pack`] makes of these.
    Load {
        /// Where.
        partition: Partition,
        /// Of which hashes.
        hashes: Vec<u64>,
        /// Of the first of them, only keys greater than this.
        after: Option<Bytes>,
    },
    /// With [`Reply::Pushed`], when these are merged and durable.
    Merge {
        /// Where.
        partition: Partition,
        /// What.
        items: Items,
    },
}

/// Answers a request from what the replica holds, of the partitions that it may speak of: of others it tells no root,
/// and what else is asked of them is for the caller to refuse.
pub fn answer(
    request: Request,
    partitions: PartitionCount,
    view: &impl View,
    may_speak_of: impl Fn(Partition) -> bool,
) -> Result<Answer, Refused> {
    request.check(partitions)?;
    Ok(match request {
        Request::Roots { partitions } => {
            let shown = |partition| match partition {
                _ if !may_speak_of(partition) => Shown::Nothing,
                _ if !view.is_whole(partition) => Shown::Part,
                _ => Shown::All(view.root(partition)),
            };
            Answer::Reply(Reply::Roots { roots: partitions.into_iter().map(shown).collect() })
        }
        Request::Children { partition, prefixes } => {
            let cells = prefixes.into_iter().map(|prefix| view.children(partition, prefix)).collect();
            Answer::Reply(Reply::Children { cells })
        }
        Request::Entries { partition, prefixes, from } => {
            let (entries, through) =
                list(view, Place { partition, partitions }, &prefixes, from, u64::MAX, ENTRIES_MAX);
            Answer::Reply(Reply::Entries { entries, through })
        }
        Request::Fetch { partition, hashes, after } => Answer::Load { partition, hashes, after },
        Request::Push { partition, items } => Answer::Merge { partition, items },
    })
}

/// A partition of a ring.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place {
    pub(super) partition: Partition,
    pub(super) partitions: PartitionCount,
}

impl Place {
    /// The hashes below a prefix.
    pub(super) fn hashes(self, prefix: Prefix) -> RangeInclusive<u64> {
        prefix.hashes(self.partition, self.partitions.get().trailing_zeros())
    }
}

/// The entries below some prefixes in the order of their hashes, of hashes `from` to `to`: at most `limit`, and
/// up to which hash these are all.
pub(super) fn list(
    view: &impl View,
    place: Place,
    prefixes: &[Prefix],
    from: u64,
    to: u64,
    limit: usize,
) -> (Vec<Entry>, u64) {
    let mut entries: Vec<Entry> = Vec::new();
    for &prefix in prefixes {
        let hashes = place.hashes(prefix);
        let (first, last) = (from.max(*hashes.start()), to.min(*hashes.end()));
        if first > last {
            continue;
        }
        entries.extend(view.entries(place.partition, first..=last, limit - entries.len()));
        if let Some(last) = entries.last().filter(|_| entries.len() >= limit) {
            let through = last.key_hash;
            return (entries, through);
        }
    }
    (entries, to)
}
