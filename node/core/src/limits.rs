//! Bounds that every part of the system agrees on (INV-BOUND): units last in the name.

/// The longest key. Keys live in peer frames and log records, never in the index.
pub const KEY_BYTES_MAX: usize = 4096;
/// The largest value of one version.
pub const VALUE_BYTES_MAX: usize = 4 * 1024 * 1024;
/// From this many siblings on, a key is reported.
pub const SIBLINGS_WARN: usize = 25;
/// A write that would leave more siblings than this is refused.
pub const SIBLINGS_MAX: usize = 100;
/// The most bytes that all siblings of one key may hold together; a write beyond is refused.
pub const VERSION_SET_BYTES_MAX: usize = 16 * 1024 * 1024;
/// The most members one epoch may name.
pub const MEMBERS_MAX: usize = 1000;
/// The most partitions a ring may have.
pub const PARTITIONS_MAX: u32 = 4096;
/// The most replicas a partition may have.
pub const FACTOR_MAX: u8 = 9;
/// The longest name, address or zone of a member, in bytes.
pub const NAME_BYTES_MAX: usize = 253;
