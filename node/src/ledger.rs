//! What one connection holds of a room that all share, beyond a little that each has of its own: so that the books
//! cost nothing where there is little to count.

use crate::room::{Room, Taken};

/// What each connection has of each kind without asking.
pub(crate) const OWN_BYTES: usize = 16 * 1024;

/// An account with one room.
#[derive(Default)]
pub(crate) struct Ledger {
    taken: Vec<Taken>,
    bytes: usize,
}

impl Ledger {
    /// Makes sure that so many bytes are accounted for; false when there is no room. Fewer than before give room back
    /// when they fit into what each connection has.
    pub(crate) fn cover(&mut self, room: &Room, bytes: usize) -> bool {
        if bytes <= OWN_BYTES {
            *self = Self::default();
            return true;
        }
        if bytes <= self.bytes {
            return true;
        }
        // In growing steps, so that there are few of them.
        let more = (bytes - self.bytes).max(self.bytes / 2);
        let Some(taken) = room.take(more) else { return false };
        self.taken.push(taken);
        self.bytes += more;
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn little_is_free_and_much_comes_from_the_room_and_goes_back() {
        let room = Room::new(4 * OWN_BYTES);
        let (mut one, mut other) = (Ledger::default(), Ledger::default());
        assert!(one.cover(&room, OWN_BYTES) && other.cover(&room, OWN_BYTES));
        assert!(one.cover(&room, 3 * OWN_BYTES));
        assert!(!other.cover(&room, 2 * OWN_BYTES));
        assert!(one.cover(&room, 2 * OWN_BYTES), "it has that");
        assert!(one.cover(&room, 1));
        assert!(other.cover(&room, 4 * OWN_BYTES));
    }
}
