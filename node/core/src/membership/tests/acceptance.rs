//! What the protocol promises in numbers.

use super::*;

/// So many rounds of gossip until all know.
const ROUNDS_MAX: u32 = 12;

#[test]
fn a_thousand_members_that_start_together_converge_within_twelve_gossip_rounds() {
    let mut network = Network::new(41);
    for number in 0..1000 {
        network.start(info(number), 1, &[0]);
    }
    let round = Config::new(DETECT_AFTER).gossip_interval;
    let whole = (1..=ROUNDS_MAX).any(|_| {
        network.run(round);
        network.is_whole()
    });
    assert!(whole);
}

#[test]
fn news_reach_a_thousand_members_within_twelve_gossip_rounds() {
    let count = 1000;
    let mut network = Network::new(40);
    let everybody: Vec<Claim> = (0..count).map(|number| claim(number, 1, 0, State::Up)).collect();
    for number in 0..count {
        let host = network.start(info(number), 1, &[]);
        let others = everybody.iter().filter(|c| c.node.id != id(number)).cloned().collect();
        let view =
            message(everybody[(number + 1) % count].clone(), Vec::new(), Body::View { claims: others });
        let membership = &mut network.processes[host].membership;
        membership.handle(view, Duration::ZERO, &mut dice(number as u64)).unwrap();
        // They have known each other for long: there are no news.
        membership.news = News::default();
    }
    network.run(SECOND);
    network.processes[17].membership.leave(&mut dice(1));
    let rounds = Config::new(DETECT_AFTER).gossip_interval * ROUNDS_MAX;
    assert!(network.run_until(network.now + rounds, |n| n.all_see(17, State::Left)));
}

#[test]
fn nobody_is_falsely_down_in_an_hour_of_ten_percent_loss() {
    let mut network = Network::cluster(20, 7);
    network.loss_permille = 100;
    network.run(3600 * SECOND);
    let suspected = network.sights.iter().filter(|s| s.state == State::Suspect).count();
    let down = network.sights.iter().filter(|s| s.state == State::Down).count();
    assert!(suspected > 0, "the loss did not even cause a suspicion: the test tests nothing");
    assert_eq!(down, 0, "of {suspected} suspicions");
}

#[test]
fn a_crash_is_noticed_by_all_within_detect_after_at_the_99th_percentile() {
    let trials = 100;
    for (count, loss_permille) in [(2, 0), (3, 0), (5, 0), (10, 0), (20, 0), (5, 100), (20, 100)] {
        let mut times: Vec<Duration> =
            (0..trials).map(|seed| time_to_notice(count, loss_permille, seed)).collect();
        times.sort();
        let p99 = times[times.len() * 99 / 100 - 1];
        assert!(p99 <= DETECT_AFTER, "{count} nodes, {loss_permille} permille lost: {p99:?}");
    }
}

/// From a crash until all others see that node down.
fn time_to_notice(count: usize, loss_permille: u64, seed: u64) -> Duration {
    let mut network = Network::cluster(count, 1000 + seed);
    network.loss_permille = loss_permille;
    network.run(ms(2000 + seed * 37));
    let (crashed, begin) = (seed as usize % count, network.now);
    network.crash(crashed);
    assert!(network.run_until(begin + 4 * DETECT_AFTER, |n| n.all_see(crashed, State::Down)), "seed {seed}");
    let downs = network.sights.iter().filter(|s| s.state == State::Down);
    assert!(downs.into_iter().all(|s| s.seen == id(crashed)), "only the crashed node is down, seed {seed}");
    network.now - begin
}
