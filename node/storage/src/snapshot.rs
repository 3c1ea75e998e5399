//! Snapshots for backup: hard links of the sealed segments, in a folder of their own.
//!
//! Invariants:
//! - A snapshot holds every write that was answered before it was asked for, and takes no space but for what is merged
//!   away later. Its folder can be opened as a store is.
//! - The manifest is written last: a folder without one is the rest of a snapshot that did not become one.

use std::io;

use xxhash_rust::xxh3::xxh3_64;

use crate::catalogue::CATALOGUE_SUFFIX;
use crate::error::WriteError;
use crate::segment::Segment;
use crate::shared::Shared;
use crate::sync::lock;

/// Where snapshots are, in the directory of the log.
pub const SNAPSHOTS: &str = "snapshots";
/// The file of a snapshot that says what belongs to it.
pub const MANIFEST: &str = "manifest";

const NAME_BYTES_MAX: usize = 100;

/// What was taken.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Snapshot {
    /// The folder, in the directory of the log.
    pub folder: String,
    /// How many segments it has.
    pub segments: usize,
    /// How many bytes they hold.
    pub bytes: u64,
}

/// There is no snapshot.
#[derive(Debug, thiserror::Error)]
pub enum SnapshotError {
    /// Not a name.
    #[error("{name:?} cannot name a snapshot: use up to {NAME_BYTES_MAX} letters, digits, '-' and '_'")]
    Name {
        /// What was asked for.
        name: String,
    },
    /// The name is taken.
    #[error(
        "there is a snapshot {name} already, or the rest of one: remove its folder, or choose another name"
    )]
    Exists {
        /// The name.
        name: String,
    },
    /// The segment that is written could not be sealed.
    #[error("what was written last cannot be put into a snapshot now: {0}")]
    Unsealed(#[from] WriteError),
    /// The disk answered with an error.
    #[error("the snapshot cannot be made: {action} failed: {source}")]
    Io {
        /// What was tried.
        action: &'static str,
        /// The disk's answer.
        source: io::Error,
    },
}

fn failed(action: &'static str) -> impl FnOnce(io::Error) -> SnapshotError {
    move |source| SnapshotError::Io { action, source }
}

/// Whether a snapshot may have this name.
pub(crate) fn check_name(name: &str) -> Result<(), SnapshotError> {
    let letters = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
    if (1..=NAME_BYTES_MAX).contains(&name.len()) && name.bytes().all(letters) {
        return Ok(());
    }
    Err(SnapshotError::Name { name: name.into() })
}

/// Links the segments up to a number, all of which are sealed.
pub(crate) fn take(shared: &Shared, name: &str, through: u64) -> Result<Snapshot, SnapshotError> {
    check_name(name)?;
    let folder = format!("{SNAPSHOTS}/{name}");
    let inside = shared.disk.folder(&folder).map_err(failed("making its folder"))?;
    if !inside.list().map_err(failed("looking into its folder"))?.is_empty() {
        return Err(SnapshotError::Exists { name: name.into() });
    }
    let _unchanged = lock(&shared.files);
    let mut segments = shared.segments.in_order();
    segments.retain(|segment| segment.range.last <= through);
    for segment in &segments {
        shared.disk.link(&segment.name, &folder).map_err(failed("linking a segment"))?;
        let catalogue = shared.disk.link(&segment.range.name(CATALOGUE_SUFFIX), &folder);
        // A copy: it may not be there yet, and nothing needs it.
        catalogue.or_else(ignore_missing).map_err(failed("linking a catalogue"))?;
    }
    inside.sync_directory().map_err(failed("syncing its folder"))?;
    let manifest = manifest(shared, &segments);
    let written = inside.create(MANIFEST).and_then(|file| {
        file.write_at(0, manifest.as_bytes())?;
        file.sync()?;
        inside.sync_directory()
    });
    written.map_err(failed("writing its manifest"))?;
    let bytes = segments.iter().map(|segment| segment.end()).sum();
    Ok(Snapshot { folder, segments: segments.len(), bytes })
}

fn ignore_missing(error: io::Error) -> io::Result<()> {
    if error.kind() == io::ErrorKind::NotFound { Ok(()) } else { Err(error) }
}

/// One line a file, and a checksum of them, for people and for tools that copy snapshots elsewhere.
fn manifest(shared: &Shared, segments: &[std::sync::Arc<Segment>]) -> String {
    let mut text = format!("quorate snapshot 1\nnode {}\n", shared.node);
    for segment in segments {
        text += &format!("segment {} {}\n", segment.name, segment.end());
    }
    let checksum = xxh3_64(text.as_bytes());
    text + &format!("checksum {checksum:016x}\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_stays_within_its_folder() {
        for name in ["", ".", "..", "a/b", "a b", "x".repeat(101).as_str()] {
            assert!(check_name(name).is_err(), "{name:?}");
        }
        check_name("nightly-2026_11").unwrap();
    }
}
