//! Epochs in JSON, as the admin API is told them and as they lie on disks.

use std::collections::BTreeSet;

use quorate_core::ClusterId;
use quorate_core::ring::{Epoch, EpochMark, Member, MemberState, Replication};

use crate::samples::{decoded, encoded, node};

/// As many who stand in are asked for.
const FALLBACKS: usize = 3;

pub(crate) fn run(bytes: &[u8]) -> bool {
    let Ok(epoch) = serde_json::from_slice::<Epoch>(bytes) else { return false };
    let text = serde_json::to_vec(&epoch).expect("what was JSON can be JSON");
    let back: Epoch = serde_json::from_slice(&text).expect("what we write can be read");
    assert_eq!((&back, back.mark()), (&epoch, epoch.mark()));
    assert_eq!(decoded::<Epoch>(&encoded(&epoch)).as_ref(), Some(&epoch), "peers get another one");
    assert_eq!(epoch.follows(&back), Ok(false), "an epoch follows itself");
    everybody_has_a_place(&epoch);
    for known in samples() {
        let _ = (epoch.follows(&known), known.follows(&epoch));
    }
    true
}

fn everybody_has_a_place(epoch: &Epoch) {
    let Replication { factor, read_quorum, write_quorum } = epoch.replication();
    assert!((1..=factor).contains(&read_quorum) && (1..=factor).contains(&write_quorum));
    for partition in epoch.partitions().iter().take(16) {
        let owners: BTreeSet<_> = epoch.owners(partition).map(|member| member.id).collect();
        assert_eq!(owners.len(), usize::from(factor));
        let fallbacks = epoch.fallbacks(partition, FALLBACKS);
        assert!(fallbacks.len() <= FALLBACKS);
        assert!(fallbacks.iter().all(|member| !owners.contains(&member.id)), "an owner stands in for itself");
        assert!(fallbacks.iter().all(|member| member.state == MemberState::Active));
    }
}

/// The first epoch of a ring and the next.
pub(crate) fn samples() -> Vec<Epoch> {
    let members = [MemberState::Active, MemberState::Active, MemberState::Active, MemberState::Leaving];
    let member = |(at, state)| Member {
        id: node(at as u8 + 1),
        name: format!("node-{at}"),
        address: format!("node-{at}:5000"),
        zone: (at > 0).then(|| "a".to_owned()),
        weight: 1,
        state,
    };
    let members: Vec<Member> = members.into_iter().enumerate().map(member).collect();
    let replication = Replication { factor: 2, read_quorum: 1, write_quorum: 2 };
    let make = |previous: Option<EpochMark>, replicas| {
        Epoch::new(ClusterId::from_u128(9), previous, replication, members.clone(), replicas)
            .expect("two replicas of two partitions")
    };
    let first = make(None, vec![vec![0, 1], vec![1, 2]]);
    let second = make(Some(first.mark()), vec![vec![2, 1], vec![1, 0]]);
    vec![first, second]
}

pub(crate) fn seeds() -> Vec<Vec<u8>> {
    samples().iter().map(|epoch| serde_json::to_vec(epoch).expect("an epoch is JSON")).collect()
}
