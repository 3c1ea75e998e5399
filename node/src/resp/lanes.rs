//! Which requests of a connection may go side by side: those of different keys, and those that only read.
//!
//! A client that sends `SET k 1` and `GET k` in one go means the one before the other, as Redis does it.

use std::collections::VecDeque;

use quorate_core::ring::key_hash;
use quorate_wire::resp::command::Data;

/// A request with more keys than this goes alone: comparing them all would cost more than waiting.
const KEYS_MAX: usize = 16;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Lane {
    Key { hash: u64, writes: bool },
    All,
}

impl Lane {
    fn crosses(self, other: Self) -> bool {
        match (self, other) {
            (Self::Key { hash, writes }, Self::Key { hash: other, writes: or_writes }) => {
                hash == other && (writes || or_writes)
            }
            _ => true,
        }
    }
}

/// The keys of what a connection has in progress, in the order in which it began.
#[derive(Default)]
pub(super) struct Lanes(VecDeque<Lane>);

fn lanes(data: &Data) -> impl Iterator<Item = Lane> {
    let (alone, writes) = (data.key_count() > KEYS_MAX, !data.is_read());
    let keys = data.keys().take(if alone { 0 } else { KEYS_MAX });
    alone
        .then_some(Lane::All)
        .into_iter()
        .chain(keys.map(move |key| Lane::Key { hash: key_hash(key), writes }))
}

impl Lanes {
    /// Takes the keys of a request in, unless it must wait for what is in progress. Says how many places it takes.
    pub(super) fn enter(&mut self, data: &Data) -> Option<usize> {
        let before = self.0.len();
        for lane in lanes(data) {
            if self.0.range(..before).any(|other| lane.crosses(*other)) {
                self.0.truncate(before);
                return None;
            }
            self.0.push_back(lane);
        }
        Some(self.0.len() - before)
    }

    /// The request that began first is done: it had so many places.
    pub(super) fn leave(&mut self, places: usize) {
        self.0.drain(..places.min(self.0.len()));
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use quorate_wire::resp::command::Look;

    use super::*;

    fn get(key: &'static str) -> Data {
        Data::Look { key: Bytes::from_static(key.as_bytes()), look: Look::Value }
    }

    fn set(key: &'static str) -> Data {
        let key = Bytes::from_static(key.as_bytes());
        Data::Set { key, value: Bytes::new(), ends: None }
    }

    #[test]
    fn a_write_waits_for_its_key_and_for_nothing_else() {
        let mut lanes = Lanes::default();
        assert_eq!(lanes.enter(&get("a")), Some(1));
        assert_eq!(lanes.enter(&get("a")), Some(1), "reads go side by side");
        assert_eq!(lanes.enter(&set("a")), None);
        assert_eq!(lanes.enter(&set("b")), Some(1));
        assert_eq!(lanes.enter(&get("b")), None);
        lanes.leave(2);
        assert_eq!(lanes.enter(&set("a")), Some(1));
    }

    #[test]
    fn one_with_a_key_twice_does_not_wait_for_itself_and_one_with_many_goes_alone() {
        let mut lanes = Lanes::default();
        let key = |number: usize| Bytes::from(number.to_string());
        assert_eq!(lanes.enter(&Data::Delete(vec![key(1), key(1)])), Some(2));
        assert_eq!(lanes.enter(&Data::GetMany((2..100).map(key).collect())), None);
        lanes.leave(2);
        assert_eq!(lanes.enter(&Data::GetMany((2..100).map(key).collect())), Some(1));
        assert_eq!(lanes.enter(&get("x")), None);
        lanes.leave(1);
        assert_eq!(lanes.enter(&get("x")), Some(1));
    }
}
