//! `INV-NOZOMBIE`, after rot: an owner shows nothing older than what it held before its disk lost something, but what it
//! was sent since.

use std::collections::BTreeMap;

use bytes::Bytes;
use quorate_core::antientropy::Items;
use quorate_core::antientropy::Reply::Fetched;
use quorate_core::antientropy::Request::Push;
use quorate_core::causality::{Actor, VersionSet};
use quorate_wire::peer::{Frame, Request, Response};

use crate::history::{History, KeyId, Verdict, Violation, key_of};

/// What an owner held when its disk lost something, of the keys of which nobody has sent it anything since.
pub(crate) type Held = BTreeMap<KeyId, VersionSet>;

/// The sets in a message, with their keys as far as those are said or known.
pub(crate) fn content<'a>(history: &History, frame: &'a Frame) -> Vec<(KeyId, &'a VersionSet)> {
    let of = |key: &Bytes, set: &'a VersionSet| key_of(key).map(|key| (key, set));
    let of_items = |items: &'a Items| items.items.iter().filter_map(|i| of(&i.key, &i.set)).collect();
    match frame {
        Frame::Request { request: Request::Replicate { key, set, .. }, .. } => {
            of(key, set).into_iter().collect()
        }
        Frame::Request { request: Request::Exchange { request: Push { items, .. }, .. }, .. } => {
            of_items(items)
        }
        Frame::Response { response: Response::Exchanged(Fetched(parcel)), .. } => of_items(&parcel.items),
        Frame::Response { response: Response::Stored(set), .. } => {
            let write = set.versions().first().and_then(|version| history.write_of(version.dot));
            write.map(|write| (history.op(write).key, set)).into_iter().collect()
        }
        _ => Vec::new(),
    }
}

/// A node, in this start, sends what it holds.
pub(crate) fn shown(held: &mut Held, by: Actor, content: &[(KeyId, &VersionSet)]) -> Verdict {
    for (key, set) in content {
        if set.versions().iter().any(|version| version.dot.actor == by) {
            held.remove(key); // It wrote the key anew.
        }
        let older = held.get(key).is_some_and(|before| (*set).clone().merge(before));
        if older {
            let what =
                format!("{} shows an older state of key-{key} than it held before its disk lost it", by.node);
            return Err(Violation::new("INV-NOZOMBIE", what));
        }
    }
    Ok(())
}
