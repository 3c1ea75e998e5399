//! The fewest replicas that can move, found in another way than the planner's: as a flow of least cost, from the
//! partitions through their zones to the members, where a replica that stays is a gain.

use std::collections::{BTreeMap, VecDeque};

use super::*;

/// What filling a zone's lower bound is worth: more than all replicas that could stay.
const BOUND_GAIN: i64 = 1_000_000;

#[derive(Default)]
struct Network {
    /// From, to, room, cost; each edge is followed by its reverse.
    edges: Vec<(usize, usize, usize, i64)>,
    at: Vec<Vec<usize>>,
}

impl Network {
    fn node(&mut self) -> usize {
        self.at.push(Vec::new());
        self.at.len() - 1
    }

    fn edge(&mut self, from: usize, to: usize, room: usize, cost: i64) {
        for (from, to, room, cost) in [(from, to, room, cost), (to, from, 0, -cost)] {
            self.at[from].push(self.edges.len());
            self.edges.push((from, to, room, cost));
        }
    }

    /// Sends one unit along a cheapest path (Bellman-Ford with a queue); its cost.
    fn send(&mut self, source: usize, sink: usize) -> Option<i64> {
        let mut cost = vec![i64::MAX; self.at.len()];
        let mut by = vec![usize::MAX; self.at.len()];
        cost[source] = 0;
        let mut queue = VecDeque::from([source]);
        while let Some(node) = queue.pop_front() {
            for &edge in &self.at[node] {
                let (_, to, room, step) = self.edges[edge];
                if room > 0 && cost[node] + step < cost[to] {
                    (cost[to], by[to]) = (cost[node] + step, edge);
                    if !queue.contains(&to) {
                        queue.push_back(to);
                    }
                }
            }
        }
        let mut node = sink;
        while node != source {
            let edge = *by.get(node).filter(|edge| **edge != usize::MAX)?;
            self.edges[edge].2 -= 1;
            self.edges[edge ^ 1].2 += 1;
            node = self.edges[edge].0;
        }
        Some(cost[sink])
    }
}

/// The fewest replicas that must get another owner than in `before`, when every member shall hold as many as in
/// `after` and every zone as many of each partition as it may there.
pub(super) fn moves(before: &Epoch, after: &Epoch) -> usize {
    let loads = loads(after);
    let mut zones: BTreeMap<&Option<String>, usize> = BTreeMap::new();
    for member in eligible(after) {
        *zones.entry(&member.zone).or_default() += loads[&member.id];
    }
    let (count, factor) = (after.partitions().get() as usize, usize::from(after.replication().factor));
    let mut network = Network::default();
    let (source, sink) = (network.node(), network.node());
    let members: Vec<(&Member, usize)> = eligible(after).map(|member| (member, network.node())).collect();
    for &(member, node) in &members {
        network.edge(node, sink, loads[&member.id], 0);
    }
    for p in after.partitions().iter() {
        let partition = network.node();
        network.edge(source, partition, factor, 0);
        for (zone, total) in &zones {
            let node = network.node();
            let (least, most) = (total / count, total.div_ceil(count));
            network.edge(partition, node, least, -BOUND_GAIN);
            network.edge(partition, node, most - least, 0);
            for (member, to) in members.iter().filter(|(member, _)| &&member.zone == zone) {
                network.edge(node, *to, 1, -i64::from(before.owns(member.id, p)));
            }
        }
    }
    let cost: i64 = (0..count * factor).map(|_| network.send(source, sink).unwrap()).sum();
    count * factor - (-cost % BOUND_GAIN) as usize
}
