//! What a replica asks of its store.

use bytes::Bytes;
use quorate_core::causality::VersionSet;
use quorate_core::ring::Partition;
use quorate_storage::{ReadError, Store, Write};

/// Hears what a key holds.
pub type LoadDone = Box<dyn FnOnce(Result<Option<VersionSet>, ReadError>) + Send>;

/// A store of version sets: the real one on its threads, or the engine that the simulator steps.
pub trait Storage {
    /// Hands a write to the committer. Never waits.
    fn submit(&self, write: Write);

    /// What a key holds, if that can be said without waiting for the disk.
    fn get(&self, partition: Partition, key: &[u8]) -> Option<Result<Option<VersionSet>, ReadError>>;

    /// What a key holds, as soon as the disk has said it.
    fn get_later(&self, partition: Partition, key: Bytes, done: LoadDone);

    /// How far the log is synced: grows over the disk's whole life, and never by a crash goes back.
    fn synced_position(&self) -> u64;
}

impl Storage for Store {
    fn submit(&self, write: Write) {
        Store::submit(self, write);
    }

    fn get(&self, partition: Partition, key: &[u8]) -> Option<Result<Option<VersionSet>, ReadError>> {
        Some(Store::get(self, partition, key))
    }

    fn get_later(&self, partition: Partition, key: Bytes, done: LoadDone) {
        done(Store::get(self, partition, &key));
    }

    fn synced_position(&self) -> u64 {
        0
    }
}
