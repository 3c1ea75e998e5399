//! The order within each replica set.
//!
//! Position by position, each candidate comes to stand there in its even share of the sets that it is in,
//! rounded up or down. Such an order always exists (every candidate standing there in exactly that fraction
//! is one in fractions, and flows have whole solutions), and shortest paths find it: "here you stand first
//! instead of me, there another instead of you".

use std::collections::VecDeque;

use super::layout::Layout;

/// Orders the sets of a layout, and names their candidates by position among the members.
pub(super) fn order(layout: Layout<'_>, positions: &[u16]) -> Vec<Vec<u16>> {
    let mut sets = layout.into_sets();
    let factor = sets.first().map_or(0, Vec::len);
    // The last position follows from the others.
    for rank in 0..factor.saturating_sub(1) {
        even_out(&mut sets, rank, positions.len());
    }
    sets.into_iter().map(|set| set.into_iter().map(|candidate| positions[candidate]).collect()).collect()
}

/// Evens out who stands at `rank`, leaving the positions before it alone.
fn even_out(sets: &mut [Vec<usize>], rank: usize, candidates: usize) {
    let mut present = vec![0; candidates];
    for &candidate in sets.iter().flat_map(|set| &set[rank..]) {
        present[candidate] += 1;
    }
    let places = sets[0].len() - rank;
    let most: Vec<usize> = present.iter().map(|&n| usize::div_ceil(n, places)).collect();
    let least: Vec<usize> = present.iter().map(|&n| n / places).collect();
    // First nobody above the most, then nobody below the least; the second undoes nothing of the first.
    while shift(sets, rank, &most) {}
    while shift(sets, rank, &least) {}
}

/// Takes one head position from someone above its level to someone below, over as few others as possible.
fn shift(sets: &mut [Vec<usize>], rank: usize, level: &[usize]) -> bool {
    let mut heads: Vec<Vec<usize>> = vec![Vec::new(); level.len()];
    for (partition, set) in sets.iter().enumerate() {
        heads[set[rank]].push(partition);
    }
    let above = (0..level.len()).filter(|&c| heads[c].len() > level[c]);
    let mut queue: VecDeque<usize> = above.collect();
    let mut reached = vec![false; level.len()];
    let mut taken_from: Vec<Option<(usize, usize)>> = vec![None; level.len()];
    queue.iter().for_each(|&c| reached[c] = true);
    while let Some(from) = queue.pop_front() {
        for &partition in &heads[from] {
            for &to in &sets[partition][rank + 1..] {
                if std::mem::replace(&mut reached[to], true) {
                    continue;
                }
                taken_from[to] = Some((partition, from));
                if heads[to].len() < level[to] {
                    swap_along(sets, rank, &taken_from, to);
                    return true;
                }
                queue.push_back(to);
            }
        }
    }
    false
}

/// Each on the path steps forward in the set where the one before it stood.
fn swap_along(sets: &mut [Vec<usize>], rank: usize, taken_from: &[Option<(usize, usize)>], last: usize) {
    let mut to = last;
    while let Some((partition, from)) = taken_from[to] {
        let set = &mut sets[partition];
        if let Some(place) = set.iter().position(|&c| c == to) {
            set.swap(rank, place);
        }
        to = from;
    }
}
