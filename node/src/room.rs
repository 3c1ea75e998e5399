//! Room in memory for values: taken before something is kept, given back by whoever lets go of it last
//! (INV-BOUND).

use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// The grain of the books.
const GRAIN_BYTES: usize = 1024;

/// So many bytes, shared by all who keep something of one kind.
pub(crate) struct Room {
    free: Arc<Semaphore>,
    grains: usize,
}

/// A part of a room, until it is dropped.
pub(crate) type Taken = OwnedSemaphorePermit;

impl Room {
    pub(crate) fn new(bytes: usize) -> Self {
        let grains = bytes / GRAIN_BYTES;
        Self { free: Arc::new(Semaphore::new(grains)), grains }
    }

    /// Takes so many bytes, now or not at all. What is larger than the whole room fits when that is empty.
    pub(crate) fn take(&self, bytes: usize) -> Option<Taken> {
        let grains = bytes.div_ceil(GRAIN_BYTES).min(self.grains);
        self.free.clone().try_acquire_many_owned(u32::try_from(grains).ok()?).ok()
    }
}

/// The same bytes, which hold on to `room` for as long as anybody holds on to them.
pub(crate) fn keep(bytes: Bytes, room: impl Send + 'static) -> Bytes {
    struct Kept<T>(Bytes, T);
    impl<T> AsRef<[u8]> for Kept<T> {
        fn as_ref(&self) -> &[u8] {
            &self.0
        }
    }
    Bytes::from_owner(Kept(bytes, room))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn room_comes_back_with_the_last_holder() {
        let room = Room::new(10 * GRAIN_BYTES);
        let bytes = keep(Bytes::from_static(b"x"), room.take(9 * GRAIN_BYTES + 1));
        assert!(room.take(1).is_none());
        assert!(room.take(0).is_some(), "nothing takes no room");
        let other = bytes.clone();
        drop(bytes);
        assert!(room.take(1).is_none());
        drop(other);
        assert!(room.take(usize::MAX).is_some(), "one that is too large goes alone");
    }
}
