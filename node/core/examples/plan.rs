//! Measures the ring planner: how even the shares are, what a join and a leave move, and how long a plan takes.
//!
//! `cargo run --release -p quorate-core --example plan`

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use quorate_core::ring::planner::{first_epoch, next};
use quorate_core::ring::{Epoch, Member, MemberState, Replication};
use quorate_core::{ClusterId, NodeId};

const REPLICATION: Replication = Replication { factor: 3, read_quorum: 2, write_quorum: 2 };

fn members(count: u128, zones: u128) -> Vec<Member> {
    let member = |id| Member {
        id: NodeId::from_u128(id),
        name: format!("node-{id}"),
        address: format!("node-{id}:5000"),
        zone: (zones > 0).then(|| format!("zone-{}", id % zones)),
        weight: 1,
        state: MemberState::Active,
    };
    (1..=count).map(member).collect()
}

fn timed<T>(make: impl FnOnce() -> T) -> (T, Duration) {
    let begin = Instant::now();
    let made = make();
    (made, begin.elapsed())
}

fn loads(epoch: &Epoch) -> BTreeMap<NodeId, usize> {
    let mut loads = BTreeMap::new();
    for owner in epoch.partitions().iter().flat_map(|p| epoch.owners(p)) {
        *loads.entry(owner.id).or_default() += 1;
    }
    loads
}

fn max_over_mean(epoch: &Epoch) -> f64 {
    let loads = loads(epoch);
    let total: usize = loads.values().sum();
    *loads.values().max().unwrap_or(&0) as f64 * loads.len() as f64 / total as f64
}

/// How many replicas have another owner than before.
fn moved(before: &Epoch, after: &Epoch) -> usize {
    let newcomers = |p| {
        let old: BTreeSet<NodeId> = before.owners(p).map(|owner| owner.id).collect();
        after.owners(p).filter(|owner| !old.contains(&owner.id)).count()
    };
    before.partitions().iter().map(newcomers).sum()
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!(
        "members zones partitions  max/mean   first  |  join: time moved optimum  |  leave: time moved optimum"
    );
    for (count, zones, partitions) in [
        (5, 0, 256),
        (5, 3, 256),
        (9, 3, 256),
        (100, 0, 1024),
        (100, 3, 1024),
        (100, 7, 1024),
        (999, 0, 4096),
        (999, 3, 4096),
        (999, 7, 4096),
    ] {
        let cluster = ClusterId::from_u128(1);
        let (before, first) = timed(|| first_epoch(cluster, partitions, REPLICATION, members(count, zones)));
        let before = before?;
        let mut more = members(count + 1, zones);
        let (joined, join) = timed(|| next(&before, more.clone(), REPLICATION));
        let joined = joined?;
        let share = loads(&joined)[&NodeId::from_u128(count + 1)];
        let lost = loads(&joined)[&NodeId::from_u128(1)];
        more[0].state = MemberState::Leaving;
        let (left, leave) = timed(|| next(&joined, more, REPLICATION));
        let left = left?;
        println!(
            "{count:7} {zones:5} {partitions:10} {:9.4} {:4} ms  | {:7} ms {:5} {share:7}  | {:8} ms {:5} {lost:7}",
            max_over_mean(&before),
            first.as_millis(),
            join.as_millis(),
            moved(&before, &joined),
            leave.as_millis(),
            moved(&joined, &left),
        );
    }
    Ok(())
}
