//! As many sets as fit into one message, and where the next message goes on.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::message::{Item, Items};
use crate::causality::VersionSet;

/// What is sent at once is less than what is taken: clients wait behind what one step reads, sends and merges.
const PARCEL_BYTES_MAX: usize = 64 * 1024;
/// As above.
pub(super) const PARCEL_ITEMS_MAX: usize = 256;

/// A place among the keys of a list of hashes.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Cursor {
    /// The hash that comes next.
    pub key_hash: u64,
    /// Of its keys, only those greater than this.
    pub after: Option<Bytes>,
}

/// Sets for one message.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Parcel {
    /// The sets that fitted.
    pub items: Items,
    /// Where to go on, when these are not all.
    pub next: Option<Cursor>,
    /// Of some hash there was nothing: it cannot be read, or was collected meanwhile.
    pub missing: bool,
}

/// Loads the sets of hashes until a message is full. It always holds at least one, if there is any.
///
/// `sent` is the sender's next count of content messages, drawn before this is called. `load` gives all keys of
/// a hash with their sets, in the order of the keys; those that cannot be read are left out. Of the first hash
/// only keys greater than `after` are taken.
pub fn pack(
    sent: u64,
    hashes: &[u64],
    after: Option<&[u8]>,
    mut load: impl FnMut(u64) -> Vec<(Bytes, VersionSet)>,
) -> Parcel {
    let mut parcel = Parcel { items: Items { sent, items: Vec::new() }, next: None, missing: false };
    let mut bytes = 0;
    let mut after = after.map(Bytes::copy_from_slice);
    for &key_hash in hashes {
        let sets = load(key_hash);
        parcel.missing |= sets.is_empty();
        // Of the first hash, what went before; of the others, nothing.
        let mut last = after.take();
        for (key, set) in sets {
            if last.as_ref().is_some_and(|last| key <= *last) {
                continue;
            }
            let item = Item { key, set };
            bytes += item.bytes();
            let items = &mut parcel.items.items;
            if !items.is_empty() && (items.len() >= PARCEL_ITEMS_MAX || bytes > PARCEL_BYTES_MAX) {
                parcel.next = Some(Cursor { key_hash, after: last });
                return parcel;
            }
            last = Some(item.key.clone());
            items.push(item);
        }
    }
    parcel
}
