//! What can go wrong, one enum an operation.
//!
//! Invariant: only [`WriteError::Indeterminate`] leaves open whether the write happened; every other error of a
//! write means that it did not.

use std::io;
use std::sync::Arc;

use quorate_core::NodeId;
use quorate_core::causality::WriteRefused;
use quorate_core::ring::Partition;

/// The log cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another process, or another store of this one, has the directory.
    #[error("the log's directory is in use: another process has it open; stop that one first")]
    Locked,
    /// The segment belongs to another disk.
    #[error(
        "segment {name} was written by node {found}, this is node {expected}: the directory mixes two disks, give each node its own"
    )]
    Foreign {
        /// The file.
        name: String,
        /// Who wrote it.
        found: NodeId,
        /// Who opens it.
        expected: NodeId,
    },
    /// A newer program wrote it.
    #[error(
        "segment {name} has format {found}, this program knows format {known}: start the version that wrote it, or a newer one"
    )]
    Format {
        /// The file.
        name: String,
        /// Its format.
        found: u32,
        /// What is known here.
        known: u32,
    },
    /// The disk answered with an error.
    #[error("the log cannot be opened: {action} failed: {source}")]
    Io {
        /// What was tried.
        action: String,
        /// The disk's answer.
        source: io::Error,
    },
}

/// The key's value cannot be told. It is never "absent" instead.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum ReadError {
    /// A part of the log that may have held the key's newest value was lost to rot.
    #[error(
        "{partition:?} lost a part of its log on this disk: what this key holds cannot be told until it is resynchronised"
    )]
    Quarantined {
        /// Where the key belongs.
        partition: Partition,
    },
    /// The disk answered with an error.
    #[error("the disk cannot be read: {reason}")]
    Io {
        /// The disk's answer.
        reason: String,
    },
}

/// A write that was not taken, or whose outcome is unknown.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum WriteError {
    /// The key cannot take it. Not written.
    #[error(transparent)]
    Refused(#[from] WriteRefused),
    /// The disk has less free space than the reserve, or none for a segment. Not written; writes resume by themselves.
    #[error(
        "the disk is full: {free_bytes} bytes are free, {reserve_bytes} are kept in reserve; writes resume when there is space"
    )]
    Full {
        /// Free on the disk.
        free_bytes: u64,
        /// What writes must leave.
        reserve_bytes: u64,
    },
    /// Too many writes wait. Not written.
    #[error("too many writes wait for the disk: try again later")]
    Busy,
    /// What the key holds cannot be read here, so nothing may be built on it. Not written.
    #[error("not written: {0}")]
    Unreadable(ReadError),
    /// The log cannot be written. Not written.
    #[error("not written, the log cannot be written: {reason}")]
    Failed {
        /// Why.
        reason: Arc<str>,
    },
    /// It may be on the disk or not, and peers may have it.
    #[error("it is not known whether the write is on the disk: {reason}")]
    Indeterminate {
        /// Why.
        reason: Arc<str>,
    },
    /// The store is closed. Not written.
    #[error("the store is closed")]
    Closed,
}
