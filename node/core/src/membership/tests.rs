//! The membership protocol on a simulated network: what it notices, forgives and survives.

mod acceptance;
mod network;

use proptest::prelude::*;

use super::*;
use network::{DETECT_AFTER, Network, dice, id, info, ms};

const SECOND: Duration = Duration::from_secs(1);

fn claim(number: usize, start: u64, refutation: u64, state: State) -> Claim {
    let incarnation = Incarnation { start, refutation };
    Claim { node: Arc::new(info(number)), incarnation, state, by: id(number) }
}

fn message(from: Claim, gossip: Vec<Claim>, body: Body) -> Message {
    Message { from, gossip, body }
}

fn lone() -> Membership {
    Membership::new(info(0), 1, Config::new(DETECT_AFTER), Duration::ZERO).unwrap()
}

fn sends(actions: Vec<Action>) -> Vec<(Peer, Message)> {
    let only_sends = |action| match action {
        Action::Send { to, message } => Some((to, message)),
        Action::Changed(_) => None,
    };
    actions.into_iter().filter_map(only_sends).collect()
}

#[test]
fn everybody_learns_everybody_from_one_seed_that_starts_late() {
    let mut network = Network::new(1);
    for number in 1..8 {
        network.start(info(number), 1, &[0]);
    }
    network.run(20 * SECOND);
    assert!(network.processes.iter().all(|p| p.membership.members().count() == 0));
    network.start(info(0), 1, &[]);
    network.run_until_whole(2 * DETECT_AFTER);
}

#[test]
fn two_clusters_that_share_a_seed_address_become_one() {
    let mut network = Network::new(2);
    for number in 0..3 {
        network.start(info(number), 1, &[0]);
    }
    for number in 3..6 {
        network.start(info(number), 1, &[3, 0]);
    }
    for number in 3..6 {
        network.processes[number].side = 1;
    }
    network.run(20 * SECOND);
    assert!(!network.is_whole());
    network.processes.iter_mut().for_each(|p| p.side = 0);
    network.run_until_whole(8 * DETECT_AFTER);
}

#[test]
fn a_quiet_cluster_stays_quiet() {
    let mut network = Network::cluster(5, 8);
    network.run(10 * SECOND);
    let (sights, sent) = (network.sights.len(), network.sent);
    network.run(60 * SECOND);
    assert_eq!(network.sights.len(), sights);
    // A ping and an answer per node and interval, and a little for the exchanges.
    let probes = 5.0 * 60.0 / (DETECT_AFTER / 12).as_secs_f64();
    assert!(((network.sent - sent) as f64) < 2.0 * probes * 1.2, "{}", network.sent - sent);
}

#[test]
fn a_short_interruption_is_refuted() {
    let mut network = Network::cluster(5, 9);
    network.run(2 * SECOND);
    network.processes[3].side = 1;
    assert!(network.run_until(network.now + 3 * SECOND, |n| n.view(0, 3).unwrap().state == State::Suspect));
    network.processes[3].side = 0;
    network.run_until_whole(3 * SECOND);
    assert!(network.sights.iter().all(|s| s.seen != id(3) || s.state != State::Down));
    assert!(network.view(0, 3).unwrap().incarnation.refutation > 0);
}

#[test]
fn a_paused_node_does_not_take_its_pause_for_the_death_of_the_others() {
    let mut network = Network::cluster(5, 10);
    network.run(2 * SECOND);
    network.pause(2, 30 * SECOND);
    network.run(29 * SECOND);
    assert!(network.all_see(2, State::Down), "the others saw it go");
    network.run_until_whole(2 * DETECT_AFTER);
    assert!(network.sights.iter().all(|s| s.seen == id(2) || s.state != State::Down));
}

#[test]
fn a_restarted_node_supersedes_its_earlier_self_at_once() {
    for start in [2, 1, 0] {
        // A start that did not grow is corrected: the clock went back.
        let mut network = Network::cluster(5, 11);
        network.crash(4);
        let moved = NodeInfo { address: "10.9.9.9:5000".into(), ..info(4) };
        network.start(moved, start, &[0]);
        network.run_until_whole(SECOND);
        assert!(network.sights.iter().all(|s| s.state != State::Down), "start {start}");
    }
}

#[test]
fn a_node_that_was_down_rejoins_after_its_restart() {
    let mut network = Network::cluster(5, 13);
    for flaps in 1..=2 {
        network.crash(network.processes.len() - 1);
        assert!(network.run_until(network.now + 2 * DETECT_AFTER, |n| n.all_see(4, State::Down)));
        network.start(info(4), 1 + u64::from(flaps), &[0]);
        network.run_until_whole(SECOND);
        assert_eq!(network.view(0, 4).unwrap().flaps, flaps, "down and back");
    }
    assert_eq!(network.view(0, 3).unwrap().flaps, 0);
}

#[test]
fn a_suspicion_is_no_flap() {
    let mut node = lone();
    for refutation in 0..3 {
        node.absorb(claim(1, 1, refutation, State::Up), SECOND, &mut dice(1));
        node.absorb(claim(1, 1, refutation, State::Suspect), SECOND, &mut dice(1));
    }
    assert_eq!(node.get(id(1)).unwrap().flaps, 0);
}

#[test]
fn clocks_that_are_apart_are_reported() {
    let mut network = Network::cluster(4, 14);
    let clocks_ms = [0, 0, 70_000, -3_000];
    for (process, clock_ms) in network.processes.iter_mut().zip(clocks_ms) {
        process.clock_ms = clock_ms;
    }
    network.run(20 * SECOND);
    for (number, process) in network.processes.iter().enumerate() {
        for other in (0..4).filter(|other| *other != number) {
            let skew_ms = process.membership.skew(id(other)).unwrap();
            let expected_ms = clocks_ms[other] - clocks_ms[number];
            // One way takes up to 20 ms.
            assert!((skew_ms - expected_ms).abs() <= 20, "{other} seen by {number}: {skew_ms}");
        }
    }
    assert_eq!(lone().skew(id(1)), None);
}

/// Whoever is known by hearsay has no skew, nor has a later life of one that had.
#[test]
fn a_skew_is_that_of_a_life_that_answered() {
    let mut network = Network::cluster(3, 15);
    network.run(20 * SECOND);
    let node = &mut network.processes[0].membership;
    assert!(node.skew(id(1)).is_some());
    node.absorb(claim(1, 1, 9, State::Up), 60 * SECOND, &mut dice(1));
    assert!(node.skew(id(1)).is_some(), "a refutation is no new life");
    node.absorb(claim(1, 2, 0, State::Up), 60 * SECOND, &mut dice(1));
    node.absorb(claim(7, 1, 0, State::Up), 60 * SECOND, &mut dice(1));
    assert_eq!((node.skew(id(1)), node.skew(id(7))), (None, None));
}

#[test]
fn a_new_disk_at_an_old_address_does_not_answer_for_the_old_one() {
    let mut network = Network::cluster(5, 12);
    network.crash(4);
    network.start(NodeInfo { id: id(77), ..info(4) }, 1, &[0]);
    let end = network.now + 2 * DETECT_AFTER;
    assert!(network.run_until(end, |n| n.all_see(4, State::Down) && n.all_see(77, State::Up)));
}

#[test]
fn a_partition_heals_without_declaring_anybody_down_again() {
    for seed in 0..5 {
        let mut network = Network::cluster(10, 20 + seed);
        for host in 0..5 {
            network.processes[host].side = 1;
        }
        network.run(120 * SECOND);
        assert_eq!(network.view(0, 9).unwrap().state, State::Down);
        assert_eq!(network.view(9, 0).unwrap().state, State::Down);
        assert_eq!(network.view(0, 1).unwrap().state, State::Up);
        let healed = network.now;
        network.processes.iter_mut().for_each(|p| p.side = 0);
        network.run_until_whole(2 * DETECT_AFTER);
        network.run(20 * SECOND);
        assert!(network.is_whole());
        assert!(network.sights.iter().all(|s| s.at <= healed || s.state != State::Down), "seed {seed}");
    }
}

#[test]
fn a_leaving_node_is_seen_to_leave_and_not_to_die() {
    let mut network = Network::cluster(6, 30);
    network.leave(2);
    assert!(network.run_until(network.now + SECOND, |n| n.all_see(2, State::Left)));
    network.crash(2);
    network.run(6 * DETECT_AFTER);
    assert!(network.all_see(2, State::Left));
    assert!(network.sights.iter().all(|s| s.state != State::Down));
    network.start(info(2), 2, &[0]);
    network.run_until_whole(SECOND);
}

#[test]
fn a_forgotten_node_stays_forgotten() {
    let mut network = Network::cluster(4, 31);
    for host in 0..3 {
        assert!(network.processes[host].membership.forget(id(3)));
        assert!(!network.processes[host].membership.forget(id(3)));
    }
    network.run(60 * SECOND);
    assert!((0..3).all(|host| network.view(host, 3).is_none()));
}

#[test]
fn one_seed_gives_one_history() {
    let history = || {
        let mut network = Network::cluster(6, 50);
        network.loss_permille = 50;
        network.crash(1);
        network.run(20 * SECOND);
        network.sights.iter().map(|s| (s.at, s.seen, s.state)).collect::<Vec<_>>()
    };
    assert_eq!(history(), history());
}

#[test]
fn a_suspicion_about_oneself_is_refuted_in_the_next_message() {
    let mut node = lone();
    let dice: Dice<'_> = &mut dice(1);
    let accusation = claim(0, 1, 4, State::Suspect);
    let ping = Body::Ping { sequence: 9, target: id(0) };
    let answers =
        sends(node.handle(message(claim(1, 1, 0, State::Up), vec![accusation], ping), SECOND, dice).unwrap());
    let [(to, Message { from, body, .. })] = answers.as_slice() else { panic!("one answer: {answers:?}") };
    assert_eq!(to, &Peer { id: Some(id(1)), address: info(1).address });
    assert_eq!(body, &Body::Ack { sequence: 9, target: id(0), unix_ms: None });
    assert_eq!((from.incarnation, from.state), (Incarnation { start: 1, refutation: 5 }, State::Up));
    assert_eq!(node.slowness(), 1);
}

#[test]
fn a_suspect_is_told_of_the_suspicion_with_the_probe() {
    let mut node = lone();
    let dice: Dice<'_> = &mut dice(1);
    node.handle(message(claim(1, 1, 0, State::Up), vec![], Body::Gossip), Duration::ZERO, dice).unwrap();
    node.absorb(claim(1, 1, 0, State::Suspect), Duration::ZERO, dice);
    node.news = News::default();
    let actions = sends(node.tick(ms(1), dice));
    let ping = actions.iter().find(|(_, m)| matches!(m.body, Body::Ping { .. })).unwrap();
    assert_eq!(ping.1.gossip[0].state, State::Suspect);
}

#[test]
fn a_probe_for_another_node_is_not_acknowledged() {
    let mut node = lone();
    let ping = Body::Ping { sequence: 1, target: id(5) };
    let answers =
        sends(node.handle(message(claim(1, 1, 0, State::Up), vec![], ping), SECOND, &mut dice(1)).unwrap());
    assert_eq!(answers[0].1.body, Body::NotMe { target: id(5) });
}

#[test]
fn confirmations_shorten_a_suspicion_and_copies_do_not() {
    let config = Config::new(DETECT_AFTER);
    let mut suspicion = Suspicion::new(id(1), Duration::ZERO);
    let alone = suspicion.ends(&config, 8);
    assert_eq!(alone, config.suspicion_max);
    assert!(!suspicion.confirm(id(1)));
    assert_eq!(suspicion.ends(&config, 8), alone);
    for (accuser, counts) in [(2, true), (3, true), (4, true), (5, false)] {
        assert_eq!(suspicion.confirm(id(accuser)), counts);
    }
    assert_eq!(suspicion.ends(&config, 8), config.suspicion_min);
    assert!(suspicion.ends(&config, 1000) > config.suspicion_min);
}

#[test]
fn a_full_table_makes_room_for_the_living_only() {
    let mut node = lone();
    let dice: Dice<'_> = &mut dice(1);
    for number in 1..=KNOWN_MAX {
        let state = if number == 5 {
            State::Left
        } else if number == 3 {
            State::Down
        } else {
            State::Up
        };
        node.absorb(claim(number, 1, 0, state), ms(number as u64), dice);
    }
    let knows = |node: &Membership, number| node.get(id(number)).is_some();
    node.absorb(claim(5000, 1, 0, State::Down), SECOND, dice);
    assert!(!knows(&node, 5000) && knows(&node, 5));
    node.absorb(claim(5001, 1, 0, State::Up), SECOND, dice);
    assert!(knows(&node, 5001) && !knows(&node, 5) && knows(&node, 3));
    node.absorb(claim(5002, 1, 0, State::Up), SECOND, dice);
    assert!(knows(&node, 5002) && !knows(&node, 3));
    node.absorb(claim(5003, 1, 0, State::Up), SECOND, dice);
    assert!(!knows(&node, 5003));
    assert_eq!(node.members().count(), KNOWN_MAX);
}

#[test]
fn messages_out_of_bounds_are_refused_whole() {
    let mut node = lone();
    let long = "x".repeat(254);
    let mut refused = |message| node.handle(message, SECOND, &mut dice(1)).unwrap_err();
    let up = |number| claim(number, 1, 0, State::Up);
    let wordy = Claim { node: Arc::new(NodeInfo { zone: Some(long.clone()), ..info(2) }), ..up(2) };
    assert_eq!(refused(message(wordy.clone(), vec![], Body::Gossip)), Refused::Text);
    assert_eq!(refused(message(up(1), vec![wordy.clone()], Body::Gossip)), Refused::Text);
    assert_eq!(refused(message(up(1), vec![], Body::View { claims: vec![wordy] })), Refused::Text);
    let ping = Body::PingFor { sequence: 1, target: id(3), address: long };
    assert_eq!(refused(message(up(1), vec![], ping)), Refused::Text);
    let many = vec![up(2); GOSSIP_CLAIMS_MAX + 1];
    let error = Refused::Claims { count: GOSSIP_CLAIMS_MAX + 1, most: GOSSIP_CLAIMS_MAX };
    assert_eq!(refused(message(up(1), many, Body::Gossip)), error);
    let down = claim(1, 1, 0, State::Down);
    let error = Refused::Sender { from: id(1), state: State::Down };
    assert_eq!(refused(message(down, vec![], Body::Gossip)), error);
    assert_eq!(node.members().count(), 0);
}

/// A confirmation by the node's own probe and the death of another suspect both bring the end of a suspicion forward,
/// maybe into the past.
#[test]
fn a_suspicion_ends_in_the_tick_in_which_it_is_over() {
    let (mut node, mut dice) = (lone(), dice(0));
    let dice: Dice<'_> = &mut dice;
    let up = (1..=3).map(|number| claim(number, 1, 0, State::Up));
    let suspect = |number, by| Claim { by: id(by), ..claim(number, 1, 0, State::Suspect) };
    for claim in up.chain([suspect(1, 2), suspect(1, 3), suspect(2, 1), suspect(2, 3)]) {
        node.absorb(claim, Duration::ZERO, dice);
    }
    while node.live_count() > 1 {
        let now = node.next_tick();
        assert!(now < ms(60_000));
        node.tick(now, dice);
        assert!(node.next_tick() > now, "the shell would spin at {now:?}");
    }
}

#[test]
fn the_largest_view_fits_the_bounds() {
    let mut node = lone();
    let dice: Dice<'_> = &mut dice(1);
    for number in 1..=KNOWN_MAX + 10 {
        node.absorb(claim(number, 1, 0, State::Up), ms(1), dice);
    }
    let exchange = message(claim(1, 1, 0, State::Up), vec![], Body::Exchange { claims: vec![] });
    for (_, answer) in sends(node.handle(exchange, SECOND, dice).unwrap()) {
        assert_eq!(answer.check(), Ok(()));
    }
    for (_, sent) in sends(node.tick(SECOND, dice)) {
        assert_eq!(sent.check(), Ok(()));
    }
}

fn any_claim() -> impl Strategy<Value = Claim> + Clone {
    let states = prop::sample::select(vec![State::Up, State::Suspect, State::Down, State::Left]);
    (0..3usize, 0..3u64, 0..3u64, states, 0..2usize).prop_map(|(number, start, refutation, state, host)| {
        let node = NodeInfo { address: network::address(host), ..info(number) };
        Claim { node: Arc::new(node), ..claim(number, start, refutation, state) }
    })
}

fn merged(claims: &[Claim]) -> Vec<Claim> {
    let mut table = Table::default();
    for claim in claims {
        table.absorb(claim, Duration::ZERO);
    }
    assert_eq!(table.live_count(), table.live().count());
    table.iter().map(MemberView::claim).collect()
}

fn any_body() -> impl Strategy<Value = Body> {
    let target = (0..4usize).prop_map(id);
    let claims = prop::collection::vec(any_claim(), 0..6);
    prop_oneof![
        (0..4u64, target.clone()).prop_map(|(sequence, target)| Body::Ping { sequence, target }),
        (0..4u64, target.clone(), prop::option::of(any::<u64>()))
            .prop_map(|(sequence, target, unix_ms)| Body::Ack { sequence, target, unix_ms }),
        (0..4u64, target.clone()).prop_map(|(sequence, target)| Body::PingFor {
            sequence,
            target,
            address: "a:1".into()
        }),
        (0..4u64, target.clone()).prop_map(|(sequence, target)| Body::Nack { sequence, target }),
        target.prop_map(|target| Body::NotMe { target }),
        claims.clone().prop_map(|claims| Body::Exchange { claims }),
        claims.prop_map(|claims| Body::View { claims }),
        Just(Body::Gossip),
    ]
}

proptest! {
    #[test]
    fn the_merge_is_commutative_associative_and_idempotent(
        (claims, shuffled) in prop::collection::vec(any_claim(), 0..20)
            .prop_flat_map(|claims| (Just(claims.clone()), Just(claims).prop_shuffle())),
        split in 0..20usize,
    ) {
        let all = merged(&claims);
        prop_assert_eq!(&merged(&shuffled), &all);
        let (left, right) = claims.split_at(split.min(claims.len()));
        prop_assert_eq!(&merged(&[merged(left), merged(right)].concat()), &all);
        prop_assert_eq!(&merged(&[all.clone(), claims].concat()), &all);
    }

    #[test]
    fn no_message_shakes_a_node_and_it_always_speaks_well_of_itself(
        script in prop::collection::vec((any_claim(), prop::collection::vec(any_claim(), 0..5), any_body(), 0..9000u64), 1..30),
        seed in any::<u64>(),
    ) {
        let mut node = lone();
        let (mut now, mut dice) = (Duration::ZERO, dice(seed));
        for (from, gossip, body, wait) in script {
            now += ms(wait);
            let heard = message(from, gossip, body);
            let bytes = postcard::to_stdvec(&heard).unwrap();
            let heard = postcard::from_bytes::<Message>(&bytes).unwrap();
            let mut actions = node.handle(heard, now, &mut dice).unwrap_or_default();
            actions.extend(node.tick(now, &mut dice));
            prop_assert!(node.next_tick() > now, "the shell would spin");
            for (_, sent) in sends(actions) {
                prop_assert_eq!(sent.check(), Ok(()));
                prop_assert_eq!(sent.from.state, State::Up);
            }
            let me = node.me();
            prop_assert_eq!((me.node.id, me.state), (id(0), State::Up));
        }
    }

    #[test]
    fn garbage_is_no_message_or_a_harmless_one(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        if let Ok(message) = postcard::from_bytes::<Message>(&bytes) {
            let _ = lone().handle(message, SECOND, &mut dice(1));
        }
    }
}
