//! Small valid things to make seeds of.

use bytes::Bytes;
use quorate_core::NodeId;
use quorate_core::causality::{Actor, Context, Dot, Event, Expiry, Policy, Stamp, VersionSet};

/// A node.
pub(crate) fn node(number: u8) -> NodeId {
    NodeId::from_u128(number.into())
}

/// A dot of a node's first start.
pub(crate) fn dot(number: u8, counter: u64) -> Dot {
    Dot { actor: Actor { node: node(number), start: 1 }, counter }
}

/// A blind write.
pub(crate) fn event(value: Option<&'static str>, expires: Option<u64>) -> Event {
    Event {
        context: Context::default(),
        stamp: Stamp::at_ms(1),
        value: value.map(|value| Bytes::from_static(value.as_bytes())),
        policy: Policy::Siblings,
        expires: expires.map(Expiry::at_ms),
    }
}

/// Sets with nothing, a value, a tombstone beside a value that expires.
pub(crate) fn sets() -> [VersionSet; 3] {
    let mut value = VersionSet::default();
    value.write(event(Some("value"), None), dot(1, 3)).expect("an empty set takes a write");
    let mut siblings = VersionSet::default();
    for (write, dot) in [(event(Some("x"), Some(7)), dot(1, 5)), (event(None, None), dot(2, 9))] {
        siblings.write(write, dot).expect("there is room for two");
    }
    [VersionSet::default(), value, siblings]
}

/// The bytes of anything that travels.
pub(crate) fn encoded(value: &impl serde::Serialize) -> Vec<u8> {
    postcard::to_stdvec(value).expect("what travels always encodes to memory")
}

/// What these bytes and no more say.
pub(crate) fn decoded<T: serde::de::DeserializeOwned>(bytes: &[u8]) -> Option<T> {
    match postcard::take_from_bytes(bytes) {
        Ok((value, [])) => Some(value),
        _ => None,
    }
}

/// Numbers that are always the same ones (splitmix64).
pub(crate) fn dice() -> impl FnMut() -> u64 {
    let mut state = 0u64;
    move || {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = state;
        mixed = (mixed ^ mixed >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ mixed >> 31
    }
}
