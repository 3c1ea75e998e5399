//! Exchanges between replicas in memory.

mod replica;

use proptest::collection::{btree_set, vec};
use proptest::prelude::*;

use super::*;
use crate::ring::Partition;
use replica::{Faults, Replica, exchange, name, ring, spread};

/// Two replicas that hold the same `n` keys.
fn equal(n: u64, partitions: u32) -> (Replica, Replica) {
    let mut left = Replica::new(ring(partitions));
    (0..n).for_each(|key| left.write(key, 1));
    (left.clone(), left)
}

/// What the best tree of fanout 16 costs its reader: 16 cells of 8 bytes for each differing path and level, and
/// 16 bytes for each entry of the leaves at its end; at the depth for which that is the least.
fn best_tree_bytes(entries: u64, differing: &[u64], partition_bits: u32) -> usize {
    let cost = |depth: u8| {
        let paths = |level| {
            let mut at: Vec<_> =
                differing.iter().map(|&hash| Prefix::of(hash, level, partition_bits)).collect();
            at.sort_unstable();
            at.dedup();
            at.len()
        };
        let cells: usize = (0..depth).map(paths).sum();
        let leaf_entries = (entries as usize >> (4 * u32::from(depth))).max(1);
        cells * FANOUT * 8 + paths(depth) * leaf_entries * 16
    };
    (0..=7).map(cost).min().unwrap()
}

#[test]
fn finding_what_differs_costs_little_more_than_the_best_tree() {
    for (n, k) in [(1, 1), (300, 1), (5_000, 1), (5_000, 30), (20_000, 1), (20_000, 100), (20_000, 2_000)] {
        let (mut left, mut right) = equal(n, 1);
        let changed: Vec<u64> = (0..k).map(|i| i * (n / k)).collect();
        for (i, &key) in changed.iter().enumerate() {
            if i % 2 == 0 { left.write(key, 2) } else { right.write(key, 2) }
        }
        let bytes = exchange(&mut left, &mut right, Faults::none()).bytes;
        let hashes: Vec<u64> = changed.iter().map(|&key| spread(key)).collect();
        let best = best_tree_bytes(n, &hashes, 0);
        println!("n={n} k={k}: {} bytes to find them, the best tree {best}; {bytes:?}", bytes.finding);
        assert_eq!(left, right);
        // A constant for the first message of one and the other.
        assert!(bytes.finding <= 4 * best + 64, "n={n} k={k}: {bytes:?}, the best tree {best}");
        assert_eq!(bytes.keys_fetched, k as usize, "nothing that is equal was fetched");
        assert_eq!(bytes.keys_pushed, k.div_ceil(2) as usize, "only what the peer lacked was pushed");
    }
}

#[test]
fn replicas_that_are_equal_say_so_with_their_roots() {
    let (mut left, mut right) = equal(2_000, 256);
    let run = exchange(&mut left, &mut right, Faults::none());
    assert!(run.reports.iter().all(|report| report.synced && report.differing == 0));
    assert_eq!(run.reports.len(), 256);
    assert_eq!(run.messages, 2);
    println!("256 equal partitions: {} bytes", run.bytes.finding);
}

#[test]
fn a_wiped_replica_heals_for_little_more_than_its_data() {
    for wiped_asks in [true, false] {
        let (full, _) = equal(20_000, 4);
        let empty = Replica::new(ring(4));
        let (mut left, mut right) = if wiped_asks { (empty, full) } else { (full, empty) };
        let run = exchange(&mut left, &mut right, Faults::none());
        assert_eq!(left, right);
        assert!(run.reports.iter().all(|report| report.synced));
        println!("20000 keys to an empty replica (it asks: {wiped_asks}): {:?}", run.bytes);
        assert!(run.bytes.finding < 20_000 * 40, "{:?}", run.bytes);
        assert_eq!(run.bytes.keys_fetched + run.bytes.keys_pushed, 20_000, "each key went once");
    }
}

#[test]
fn keys_that_share_a_hash_are_exchanged_together() {
    let mut left = Replica::new(ring(1));
    let mut right = left.clone();
    for n in 0..3_000 {
        left.write_sharing(&format!("left {n}"), 1);
        right.write_sharing(&format!("right {n}"), 1);
    }
    left.write_sharing("both", 1);
    right.write_sharing("both", 2);
    let run = exchange(&mut left, &mut right, Faults::none());
    assert_eq!(left, right);
    assert!(run.reports[0].synced);
    assert_eq!(run.reports[0].differing, 1);
}

#[test]
fn big_sets_travel_alone() {
    let mut left = Replica::new(ring(1));
    let right = left.clone();
    for key in 0..5 {
        left.write_value(key, vec![7; CONTENT_BYTES_MAX]);
    }
    for (mut left, mut right) in [(left.clone(), right.clone()), (right, left)] {
        let run = exchange(&mut left, &mut right, Faults::none());
        assert_eq!(left, right);
        assert!(run.largest < CONTENT_BYTES_MAX + 1024, "{}", run.largest);
    }
}

#[test]
fn a_silent_peer_ends_the_exchange_and_the_next_one_goes_on() {
    let (mut left, mut right) = equal(3_000, 4);
    (0..2_000).for_each(|key| right.write(key, 2));
    let run = exchange(&mut left, &mut right, Faults { dead_after: Some(9), ..Faults::none() });
    assert_eq!(run.reports.len(), 4, "each partition is reported");
    assert!(run.reports.iter().any(|report| !report.synced));
    let done: u64 = run.reports.iter().map(|report| report.pulled).sum();
    assert!((1..2_000).contains(&done), "{done} came");
    let rest = exchange(&mut left, &mut right, Faults::none());
    assert_eq!(left, right);
    assert!(rest.reports.iter().all(|report| report.synced));
    assert_eq!(rest.bytes.keys_fetched as u64, 2_000 - done, "what came before does not come again");
}

#[test]
fn what_cannot_be_stored_is_not_called_synced() {
    let (mut left, mut right) = equal(100, 1);
    right.write(7, 2);
    let full = Faults { initiator_full: true, ..Faults::none() };
    assert!(!exchange(&mut left, &mut right, full).reports[0].synced);
    left.write(7, 3);
    let full = Faults { responder_full: true, ..Faults::none() };
    assert!(!exchange(&mut left, &mut right, full).reports[0].synced);
    assert!(exchange(&mut left, &mut right, Faults::none()).reports[0].synced);
    assert_eq!(left, right);
}

#[test]
fn sets_are_counted_before_they_are_read_also_when_they_are_sent_again() {
    let (mut left, mut right) = equal(100, 1);
    left.write(7, 2);
    let lossy = Faults { seed: 3, lose_percent: 40, ..Faults::none() };
    // The replica panics when a set that is older than its count arrives.
    exchange(&mut left, &mut right, lossy);
}

#[test]
fn an_answer_that_breaks_the_protocol_is_refused() {
    let view = Replica::new(ring(1));
    let place = Partition(0);
    let begin = || {
        let mut exchange = Exchange::new(ring(1), [place]);
        let Step::Ask { sequence, .. } = exchange.step(&view) else { panic!("roots are asked for first") };
        (exchange, sequence)
    };
    let (mut exchange, sequence) = begin();
    assert!(exchange.replied(sequence + 1, Reply::Pushed { stored: true }, &view).is_ok(), "late: ignored");
    assert!(exchange.replied(sequence, Reply::Pushed { stored: true }, &view).is_err());
    let (mut exchange, sequence) = begin();
    assert!(
        exchange
            .replied(sequence, Reply::Roots { roots: vec![Shown::All(1), Shown::All(2)] }, &view)
            .is_err()
    );
    let (mut exchange, sequence) = begin();
    exchange.replied(sequence, Reply::Roots { roots: vec![Shown::All(1)] }, &view).unwrap();
    let Step::Ask { sequence, request: Request::Entries { .. } } = exchange.step(&view) else {
        panic!("a flat tree is listed")
    };
    let entry = |key_hash| Entry { key_hash, digest: 0 };
    let disorder = Reply::Entries { entries: vec![entry(2), entry(1)], through: u64::MAX };
    assert!(exchange.replied(sequence, disorder, &view).is_err());
}

#[test]
fn a_request_beyond_its_bounds_is_refused() {
    let view = Replica::new(ring(4));
    let partition = Partition(0);
    let refused = |request: Request| answer(request, ring(4), &view, |_| true).unwrap_err();
    let prefixes = vec![Prefix::ROOT; PREFIXES_MAX + 1];
    refused(Request::Children { partition, prefixes });
    let prefixes = vec![Prefix { depth: 9, path: 0 }];
    assert_eq!(refused(Request::Entries { partition, prefixes, from: 0 }), Refused::Place);
    refused(Request::Roots { partitions: vec![Partition(4)] });
    refused(Request::Fetch { partition, hashes: vec![u64::MAX], after: None });
    let item = |key: Vec<u8>| Item { key: key.into(), set: Default::default() };
    let push = |items| Request::Push { partition, items: Items { sent: 1, items } };
    refused(push(vec![item(vec![0; crate::limits::KEY_BYTES_MAX + 1])]));
    let stray = (0..9u8).find(|&key| ring(4).of_key(&[key]) != partition).unwrap();
    refused(push(vec![item(vec![stray])]));
    refused(push(vec![item(vec![0]); ITEMS_MAX + 1]));
}

/// Two replicas that differ in some keys, with trees of any depth.
fn replicas() -> impl Strategy<Value = (Replica, Replica)> {
    let keys = |most: usize| btree_set(0..4000u64, 0..most);
    (prop_oneof![Just(1u32), Just(4), Just(256)], 0..2000u64, keys(40), keys(40), keys(600), keys(600))
        .prop_map(|(partitions, common, left_new, right_new, left_lacks, right_lacks)| {
            let (mut left, mut right) = equal(common, partitions);
            left_lacks.iter().for_each(|&key| left.lose(key));
            right_lacks.iter().for_each(|&key| right.lose(key));
            left_new.iter().for_each(|&key| left.write(key, 2));
            right_new.iter().for_each(|&key| right.write(key, 3));
            (left, right)
        })
        .prop_flat_map(|replicas| (Just(replicas), 0..=3u8, 0..=3u8, any::<bool>()))
        .prop_map(|((mut left, mut right), left_depth, right_depth, natural)| {
            if !natural {
                left.rebuild(left_depth);
                right.rebuild(right_depth);
            }
            (left, right)
        })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    #[test]
    fn one_exchange_makes_replicas_equal((mut left, mut right) in replicas()) {
        let differing = left.differing(&right);
        let run = exchange(&mut left, &mut right, Faults::none());
        prop_assert_eq!(&left, &right);
        prop_assert!(run.reports.iter().all(|report| report.synced));
        prop_assert_eq!(run.reports.iter().map(|report| report.differing).sum::<u64>(), differing as u64);
        prop_assert!(run.bytes.keys_fetched + run.bytes.keys_pushed <= 2 * differing);
    }

    #[test]
    fn exchanges_over_a_bad_network_end_and_make_replicas_equal_in_the_end(
        (mut left, mut right) in replicas(), seed: u64, lose in 0..30u64, double in 0..30u64, writes in any::<bool>(),
    ) {
        for round in 0.. {
            let seed = seed.wrapping_add(round);
            let faults = Faults { seed, lose_percent: lose, double_percent: double, writes, ..Faults::none() };
            let faults = if round < 3 { faults } else { Faults::none() };
            let run = exchange(&mut left, &mut right, faults);
            if run.reports.iter().all(|report| report.synced) && (round >= 3 || !writes) {
                break;
            }
            prop_assert!(round < 5, "an exchange without faults leaves nothing to do");
        }
        prop_assert_eq!(&left, &right);
    }

    #[test]
    fn a_parcel_takes_every_key_once(
        sizes in vec(0..200_000usize, 0..12), shared in 1..4u64,
    ) {
        let mut replica = Replica::new(ring(1));
        for (n, &size) in sizes.iter().enumerate() {
            replica.write_as(n as u64 % shared, format!("{n}").into(), vec![0; size]);
        }
        let hashes: Vec<u64> = (0..shared).collect();
        let (mut rest, mut after, mut keys) = (&hashes[..], None, 0);
        loop {
            let Parcel { items, next, .. } = pack(1, rest, after.as_deref(), |hash| replica.load(hash));
            prop_assert!(items.items.len() <= 1 || items.bytes() <= CONTENT_BYTES_MAX);
            keys += items.items.len();
            let Some(next) = next else { break };
            prop_assert!(!items.items.is_empty(), "it goes on");
            rest = &rest[rest.iter().position(|&hash| hash == next.key_hash).unwrap()..];
            after = next.after;
        }
        prop_assert_eq!(keys, sizes.len());
    }
}

/// Whatever a peer may say, right or wrong.
fn shown(root: Option<u64>) -> Shown {
    root.map_or(Shown::Part, Shown::All)
}

fn any_reply() -> impl Strategy<Value = Reply> {
    // Hashes of keys that are there, and any.
    let hash = || prop_oneof![(0..300u64).prop_map(spread), any::<u64>(), Just(u64::MAX)];
    let entries = vec((hash(), 0..3u64), 0..40).prop_map(|entries| {
        let mut entries: Vec<Entry> =
            entries.into_iter().map(|(key_hash, digest)| Entry { key_hash, digest }).collect();
        entries.sort_unstable();
        entries.dedup_by_key(|entry| entry.key_hash);
        entries
    });
    let through = prop_oneof![3 => Just(u64::MAX), 1 => any::<u64>()];
    let items = vec((0..300u64).prop_map(|key| Item { key: name(key), set: Default::default() }), 0..5);
    let after = proptest::option::of((0..300u64).prop_map(name));
    let next = proptest::option::of((hash(), after).prop_map(|(key_hash, after)| Cursor { key_hash, after }));
    prop_oneof![
        vec(any::<Option<u64>>().prop_map(shown), 0..3).prop_map(|roots| Reply::Roots { roots }),
        vec(proptest::option::of(any::<[u64; FANOUT]>()), 0..20).prop_map(|cells| Reply::Children { cells }),
        (entries, through).prop_map(|(entries, through)| Reply::Entries { entries, through }),
        (items, next, any::<bool>()).prop_map(|(items, next, missing)| {
            Reply::Fetched(Parcel { items: Items { sent: 1, items }, next, missing })
        }),
        any::<bool>().prop_map(|stored| Reply::Pushed { stored }),
    ]
}

proptest! {
    #[test]
    fn a_peer_that_says_anything_does_no_harm(replies in vec(any_reply(), 1..200), stored: bool) {
        let mut view = Replica::new(ring(1));
        (0..300).for_each(|key| view.write(key, 1));
        let mut exchange = Exchange::new(ring(1), [Partition(0)]);
        let mut replies = replies.into_iter();
        loop {
            match exchange.step(&view) {
                Step::Ask { sequence, request } => {
                    prop_assert_eq!(request.check(ring(1)), Ok(()));
                    // Mostly an answer of the right kind, or the exchange would end at once.
                    let fits = |reply: &Reply| match reply {
                        Reply::Roots { roots } => matches!(request, Request::Roots { .. }) && roots.len() == 1,
                        Reply::Children { .. } => matches!(request, Request::Children { .. }),
                        Reply::Entries { .. } => matches!(request, Request::Entries { .. }),
                        Reply::Fetched(_) => matches!(request, Request::Fetch { .. }),
                        Reply::Pushed { .. } => matches!(request, Request::Push { .. }),
                    };
                    let Some(mut reply) = replies.find(|reply| fits(reply)) else { break };
                    if let (Reply::Children { cells }, Request::Children { prefixes, .. }) = (&mut reply, &request) {
                        cells.resize(prefixes.len(), None);
                    }
                    if exchange.replied(sequence, reply, &view).is_err() {
                        break;
                    }
                }
                Step::Merge { .. } => exchange.merged(stored, &view),
                Step::Load { hashes, after, .. } => {
                    exchange.loaded(pack(1, &hashes, after.as_deref(), |hash| view.load(hash)));
                }
                Step::Report(report) => prop_assert_eq!(report.partition, Partition(0)),
                Step::Wait => panic!("nothing is under way"),
                Step::Finished => break,
            }
        }
    }
}
