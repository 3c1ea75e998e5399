//! What a replica asks of its store.

use quorate_storage::Access;

/// A read that may have to wait for the disk. It says itself what it found, to the replica's inbox.
pub type SlowRead = Box<dyn FnOnce(&Access) + Send>;

/// A store: the real one on its threads, or the engine that the simulator steps.
pub trait Storage {
    /// The store. What waits for the disk is asked of it in [`Storage::read_later`] only.
    fn access(&self) -> &Access;

    /// Runs a read elsewhere, or later.
    fn read_later(&self, read: SlowRead);
}
