//! The failure detector among peers that say anything: it stays bounded, and says only what others take.

use std::collections::VecDeque;
use std::time::Duration;

use quorate_core::membership::{Action, Config, KNOWN_MAX, Membership, Message, NodeInfo, SEEDS_MAX};
use serde::{Deserialize, Serialize};

use crate::samples::{decoded, dice, encoded, node};

/// Nodes whose talk makes the seeds.
const TALKERS: u8 = 3;
/// Rounds of that talk.
const ROUNDS: u64 = 12;
const ROUND: Duration = Duration::from_millis(300);

/// Something happens after a while.
#[derive(Clone, Serialize, Deserialize)]
struct Event {
    after_ms: u16,
    /// Whether this node knows the time of day.
    unix_ms: Option<u64>,
    /// None: only time passes.
    message: Option<Message>,
}

pub(crate) fn run(bytes: &[u8]) -> bool {
    let Some(events) = decoded::<Vec<Event>>(bytes) else { return false };
    let (mut membership, mut judge) = (membership(1), membership(100));
    let (mut dice, mut other_dice) = (dice(), dice());
    let mut now = Duration::ZERO;
    for Event { after_ms, unix_ms, message } in events {
        now += Duration::from_millis(after_ms.into());
        if let Some(unix_ms) = unix_ms {
            membership.time_of_day(unix_ms);
            judge.time_of_day(unix_ms);
        }
        let mut actions = membership.tick(now, &mut dice);
        if let Some(message) = message {
            assert_eq!(decoded(&encoded(&message)).as_ref(), Some(&message));
            actions.extend(membership.handle(message, now, &mut dice).unwrap_or_default());
        }
        for action in actions {
            let Action::Send { message, .. } = action else { continue };
            assert!(judge.handle(message, now, &mut other_dice).is_ok(), "we say what nobody takes");
        }
        stays_itself(&membership);
    }
    true
}

fn stays_itself(membership: &Membership) {
    assert!(membership.members().count() <= KNOWN_MAX);
    assert_eq!(membership.me().node.id, node(1));
    assert!(membership.get(node(1)).is_none(), "a node is a peer of its own");
    let _ = membership.next_tick();
}

fn membership(number: u8) -> Membership {
    let info = NodeInfo {
        id: node(number),
        name: format!("node-{number}"),
        address: address(number),
        zone: Some("a".to_owned()),
    };
    let mut membership = Membership::new(info, 1, Config::new(Duration::from_secs(1)), Duration::ZERO)
        .expect("a name, an address and a zone");
    membership.join((1..=TALKERS).map(address).take(SEEDS_MAX), Duration::ZERO);
    membership
}

fn address(number: u8) -> String {
    format!("node-{number}:5000")
}

/// What node 1 hears when three nodes find each other, one goes silent, and another leaves.
pub(crate) fn messages() -> Vec<Message> {
    let mut nodes: Vec<Membership> = (1..=TALKERS).map(membership).collect();
    let mut dice = dice();
    let mut heard = Vec::new();
    for round in 0..ROUNDS {
        let now = ROUND * round as u32;
        let silent = if round > ROUNDS / 2 { TALKERS } else { 0 };
        let mut actions = VecDeque::new();
        for member in &mut nodes {
            member.time_of_day(1_000_000 + now.as_millis() as u64);
            actions.extend(member.tick(now, &mut dice));
        }
        if round == ROUNDS - 1 {
            actions.extend(nodes[1].leave(&mut dice));
        }
        while let Some(action) = actions.pop_front() {
            let Action::Send { to, message } = action else { continue };
            let Some(at) = (1..=TALKERS).position(|number| address(number) == to.address) else { continue };
            if at + 1 == usize::from(silent) || message.from() == node(silent) {
                continue;
            }
            if at == 0 {
                heard.push(message.clone());
            }
            actions.extend(
                nodes[at].handle(message, now, &mut dice).expect("honest nodes understand each other"),
            );
        }
    }
    heard
}

pub(crate) fn seeds() -> Vec<Vec<u8>> {
    let event = |message| Event { after_ms: 300, unix_ms: Some(1_000_000), message: Some(message) };
    let pause = Event { after_ms: 900, unix_ms: None, message: None };
    let events: Vec<Event> = messages().into_iter().map(event).collect();
    let mut seeds: Vec<Vec<u8>> =
        events.chunks(3).map(|few| encoded(&[few, std::slice::from_ref(&pause)].concat())).collect();
    seeds.push(encoded(&vec![pause; 8]));
    seeds
}
