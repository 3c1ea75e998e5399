//! Hints beside a store in memory.

use std::collections::BTreeMap;
use std::time::Duration;

use proptest::collection::vec;
use proptest::prelude::*;

use super::*;
use crate::id::NodeId;
use crate::ring::Partition;

const NOW: Duration = Duration::from_secs(100);

fn node(number: u8) -> NodeId {
    NodeId::from_u128(u128::from(number) + 1)
}

fn name(target: u8, key: u8) -> HintName {
    HintName { partition: Partition(0), key: vec![key].into(), target: node(target) }
}

fn limits() -> Limits {
    Limits { target_bytes_max: 1 << 20, bytes_max: 3 << 19, delivery_bytes_per_second: 1 << 30 }
}

fn keep(hints: &mut Hints, name: HintName, bytes: usize) {
    hints.reserve(&name, bytes).unwrap();
    hints.stored(name, bytes, bytes, 1);
}

fn to_target(_: NodeId, _: Partition) -> Route {
    Route::Target
}

#[test]
fn a_hint_goes_out_once_and_leaves_when_its_record_is_gone() {
    let mut hints = Hints::new(limits());
    keep(&mut hints, name(0, 7), 100);
    assert!(
        hints.keeps(Partition(0), &[7])
            && !hints.keeps(Partition(0), &[6])
            && !hints.keeps(Partition(1), &[7])
    );
    let [Delivery { name, to, revision }] = hints.next(NOW, to_target).try_into().unwrap();
    assert_eq!(to, [node(0)]);
    assert_eq!(hints.next(NOW, to_target), [], "it is under way");
    assert_eq!(
        hints.ended(&name, revision, node(5), Ended::Acknowledged, NOW),
        Settle::Nothing,
        "a stranger"
    );
    assert_eq!(hints.ended(&name, revision, node(0), Ended::Acknowledged, NOW), Settle::Forget);
    assert!(hints.keeps(Partition(0), &[7]), "until the store has removed it");
    hints.forgotten(&name, true, NOW);
    assert!(!hints.keeps(Partition(0), &[7]));
    assert_eq!(hints.books(), Books { written: 1, delivered: 1, ..Books::default() });
    assert_eq!(hints.owed().count(), 0);
}

#[test]
fn a_newer_hint_supersedes_and_outlives_the_acknowledgement_of_the_older() {
    let mut hints = Hints::new(limits());
    keep(&mut hints, name(0, 7), 100);
    let [Delivery { name: sent, revision, .. }] = hints.next(NOW, to_target).try_into().unwrap();
    keep(&mut hints, name(0, 7), 200);
    assert_eq!(hints.ended(&sent, revision, node(0), Ended::Acknowledged, NOW), Settle::Nothing);
    let [Delivery { name: sent, revision, .. }] = hints.next(NOW, to_target).try_into().unwrap();
    assert_eq!(hints.ended(&sent, revision, node(0), Ended::Acknowledged, NOW), Settle::Forget);
    // Another one comes while the record is being removed, and the store finds it changed.
    keep(&mut hints, name(0, 7), 300);
    hints.forgotten(&sent, false, NOW);
    assert_eq!(hints.next(NOW, to_target).len(), 1);
    assert_eq!(hints.books(), Books { written: 3, superseded: 2, ..Books::default() });
    assert!(hints.balances());
}

#[test]
fn what_is_being_stored_is_kept_already() {
    let mut hints = Hints::new(limits());
    hints.reserve(&name(0, 7), 10).unwrap();
    assert!(hints.keeps(Partition(0), &[7]));
    hints.not_stored(&name(0, 7), 10);
    assert!(!hints.keeps(Partition(0), &[7]));
    assert_eq!((hints.owed().count(), hints.books()), (0, Books::default()));
}

#[test]
fn a_full_target_is_refused_and_others_are_not_until_all_is_full() {
    let mut hints = Hints::new(limits());
    let big = (1 << 20) - HINT_BYTES_MORE as usize;
    keep(&mut hints, name(0, 1), big);
    assert!(matches!(hints.reserve(&name(0, 2), 1), Err(Full::Target { .. })));
    keep(&mut hints, name(1, 2), big / 4);
    assert!(matches!(hints.reserve(&name(2, 3), big / 2), Err(Full::All { .. })));
    assert_eq!(hints.books().refused, 2);
    // What is reserved counts too.
    hints.reserve(&name(2, 3), 1000).unwrap();
    assert!(matches!(hints.reserve(&name(2, 4), big / 4), Err(Full::All { .. })));
}

#[test]
fn a_failed_delivery_waits_and_the_return_of_the_target_ends_the_wait() {
    let mut hints = Hints::new(limits());
    (0..40).for_each(|key| keep(&mut hints, name(0, key), 10));
    let sent = hints.next(NOW, to_target);
    assert_eq!(sent.len(), IN_FLIGHT_MAX);
    for Delivery { name, revision, .. } in &sent {
        hints.ended(name, *revision, node(0), Ended::Failed, NOW);
    }
    assert_eq!(hints.next(NOW, to_target), []);
    let due = hints.next_due().unwrap();
    assert!(
        due > NOW && due <= NOW + Duration::from_secs(1),
        "failures that come together count once: {due:?}"
    );
    hints.hurry(node(0));
    let again = hints.next(NOW, to_target);
    assert_eq!(again.len(), IN_FLIGHT_MAX);
    assert!(
        again.iter().all(|delivery| !sent.contains(delivery)),
        "one that fails does not hold up the others"
    );
}

#[test]
fn a_target_that_is_away_is_not_asked_again_at_once() {
    let mut hints = Hints::new(limits());
    keep(&mut hints, name(0, 1), 10);
    keep(&mut hints, name(1, 1), 10);
    let only_one = |target, _| if target == node(1) { Route::Target } else { Route::Wait };
    assert_eq!(hints.next(NOW, only_one).len(), 1);
    assert!(hints.next_due().unwrap() > NOW);
    assert_eq!(hints.next(NOW, |_, _| panic!("asked again")), []);
}

#[test]
fn hints_for_one_that_owns_no_more_are_handed_over_to_all_who_do() {
    let mut hints = Hints::new(limits());
    keep(&mut hints, name(0, 1), 10);
    let owners = vec![node(3), node(4)];
    let [Delivery { name, to, revision }] =
        hints.next(NOW, |_, _| Route::HandOver(owners.clone())).try_into().unwrap();
    assert_eq!(to, owners);
    assert_eq!(hints.ended(&name, revision, node(3), Ended::Acknowledged, NOW), Settle::Nothing);
    assert_eq!(hints.ended(&name, revision, node(3), Ended::Acknowledged, NOW), Settle::Nothing, "doubled");
    assert_eq!(hints.ended(&name, revision, node(4), Ended::Acknowledged, NOW), Settle::Forget);
    hints.forgotten(&name, true, NOW);
    assert_eq!(hints.books(), Books { written: 1, handed_over: 1, ..Books::default() });
}

#[test]
fn delivery_is_throttled_in_bytes() {
    let mut hints = Hints::new(Limits { delivery_bytes_per_second: 10_000, ..limits() });
    for key in 0..200 {
        keep(&mut hints, name(key % 20, key), 1000 - HINT_BYTES_MORE as usize);
    }
    assert_eq!(hints.next(NOW, to_target).len(), 11, "a second's worth, and what overdraws it");
    assert_eq!(hints.next(NOW + Duration::from_millis(500), to_target).len(), 5);
    assert!(hints.next_due().unwrap() > NOW + Duration::from_millis(500));
}

#[test]
fn a_restart_recovers_all_also_beyond_the_bounds() {
    let mut hints = Hints::new(limits());
    (0..5).for_each(|key| hints.recover(name(0, key), 1 << 20, 1000 + u64::from(key)));
    let owed: Vec<Owed> = hints.owed().collect();
    assert_eq!((owed[0].hints, owed[0].oldest_unix_ms), (5, Some(1000)));
    assert!(hints.balances());
    assert!(hints.reserve(&name(0, 9), 1).is_err());
    hints.lost(&name(0, 3));
    assert_eq!(hints.books(), Books { recovered: 5, lost: 1, refused: 1, ..Books::default() });
    assert!(hints.balances());
}

/// What may happen to a node that keeps hints.
#[derive(Clone, Debug)]
enum Event {
    Keep {
        target: u8,
        key: u8,
        bytes: u16,
    },
    /// The store finishes the oldest thing that it was given.
    Store,
    Send {
        route: u8,
    },
    /// A delivery under way ends.
    End {
        at: usize,
        acknowledged: bool,
    },
    Wait {
        ms: u16,
    },
    Hurry {
        target: u8,
    },
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        4 => (0..3u8, 0..6u8, 0..2000u16).prop_map(|(target, key, bytes)| Event::Keep { target, key, bytes }),
        6 => Just(Event::Store),
        3 => (0..4u8).prop_map(|route| Event::Send { route }),
        4 => (0..64usize, any::<bool>()).prop_map(|(at, acknowledged)| Event::End { at, acknowledged }),
        2 => (0..5000u16).prop_map(|ms| Event::Wait { ms }),
        1 => (0..3u8).prop_map(|target| Event::Hurry { target }),
    ]
}

/// A node: its index, and a store in which a hint is the set of the writes that it stands for.
struct Node {
    hints: Hints,
    now: Duration,
    writes: u64,
    store: BTreeMap<HintName, Vec<u64>>,
    queue: Vec<Job>,
    under_way: Vec<(Delivery, NodeId, Vec<u64>)>,
    /// What nodes have acknowledged.
    arrived: BTreeMap<NodeId, Vec<u64>>,
}

enum Job {
    Merge { name: HintName, bytes: usize, write: u64 },
    Forget { name: HintName, content: Vec<u64> },
}

impl Node {
    fn new() -> Self {
        let limits = Limits { target_bytes_max: 6000, bytes_max: 9000, delivery_bytes_per_second: 8000 };
        Self {
            hints: Hints::new(limits),
            now: NOW,
            writes: 0,
            store: BTreeMap::new(),
            queue: Vec::new(),
            under_way: Vec::new(),
            arrived: BTreeMap::new(),
        }
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::Keep { target, key, bytes } => {
                let (name, bytes) = (name(target, key), usize::from(bytes));
                if self.hints.reserve(&name, bytes).is_ok() {
                    self.writes += 1;
                    self.queue.push(Job::Merge { name, bytes, write: self.writes });
                }
            }
            Event::Store if self.queue.is_empty() => {}
            Event::Store => match self.queue.remove(0) {
                Job::Merge { name, bytes, write } => {
                    self.store.entry(name.clone()).or_default().push(write);
                    self.hints.stored(name, bytes, bytes, 1);
                }
                Job::Forget { name, content } => {
                    let removed = self.store.get(&name) == Some(&content);
                    if removed {
                        self.store.remove(&name);
                    }
                    self.hints.forgotten(&name, removed, self.now);
                }
            },
            Event::Send { route } => {
                let routes = |_: NodeId, _: Partition| match route {
                    0 => Route::Wait,
                    1 => Route::HandOver(vec![node(8), node(9)]),
                    _ => Route::Target,
                };
                for delivery in self.hints.next(self.now, routes) {
                    let content = self.store[&delivery.name].clone();
                    let each = delivery.to.iter().map(|&to| (delivery.clone(), to, content.clone()));
                    self.under_way.extend(each.collect::<Vec<_>>());
                }
            }
            Event::End { .. } if self.under_way.is_empty() => {}
            Event::End { at, acknowledged } => {
                let (delivery, to, content) = self.under_way.remove(at % self.under_way.len());
                let ended = if acknowledged { Ended::Acknowledged } else { Ended::Failed };
                if acknowledged {
                    self.arrived.entry(to).or_default().extend(&content);
                }
                let Delivery { name, revision, .. } = delivery;
                if self.hints.ended(&name, revision, to, ended, self.now) == Settle::Forget {
                    self.queue.push(Job::Forget { name, content });
                }
            }
            Event::Wait { ms } => self.now += Duration::from_millis(ms.into()),
            Event::Hurry { target } => self.hints.hurry(node(target)),
        }
    }

    /// Every write that was stored is still there, or has arrived.
    fn check(&self) {
        assert!(self.hints.balances(), "{:?}", self.hints.books());
        assert!(self.hints.owed().all(|owed| owed.bytes <= 6000 + 2 * (2000 + HINT_BYTES_MORE)));
        assert_eq!(self.hints.held(), self.store.len() as u64);
        let waiting = self.queue.iter().filter_map(|job| match job {
            Job::Merge { write, .. } => Some(write),
            Job::Forget { .. } => None,
        });
        let everywhere = self.arrived.values().flatten().chain(self.store.values().flatten()).chain(waiting);
        let mut seen: Vec<u64> = everywhere.copied().collect();
        seen.sort_unstable();
        seen.dedup();
        assert_eq!(seen, (1..=self.writes).collect::<Vec<_>>(), "a hint is gone");
    }
}

proptest! {
    #[test]
    fn no_hint_is_ever_lost_and_the_books_balance(events in vec(event(), 0..300)) {
        let mut node = Node::new();
        for event in events {
            node.happen(event);
            node.check();
        }
        // With time, and targets that answer, all go.
        for _ in 0..2000 {
            if node.store.is_empty() && node.queue.is_empty() {
                break;
            }
            node.happen(Event::Wait { ms: 1000 });
            node.happen(Event::Send { route: 3 });
            while !node.under_way.is_empty() || !node.queue.is_empty() {
                node.happen(Event::End { at: 0, acknowledged: true });
                node.happen(Event::Store);
            }
            node.check();
        }
        prop_assert_eq!(node.hints.held(), 0);
        prop_assert_eq!(node.hints.owed().count(), 0);
        prop_assert_eq!(node.hints.next_due(), None);
    }
}
