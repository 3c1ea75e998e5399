//! The way through one partition: what is compared, and what is left to fetch and to push.

use std::collections::VecDeque;
use std::mem;

use bytes::Bytes;

use super::answer::{Place, View, list};
use super::exchange::Report;
use super::message::{ENTRIES_MAX, Entry, Items, PREFIXES_MAX, Refused, Reply, Request};
use super::parcel::{Cursor, PARCEL_ITEMS_MAX, Parcel};
use super::{FANOUT, Prefix};
use crate::ring::Partition;

/// What a walk needs next.
pub(super) enum Need {
    Ask(Request),
    Merge(Items),
    Load {
        hashes: Vec<u64>,
        after: Option<Bytes>,
    },
    /// Nothing: all is compared, and what differed is repaired as far as it could be.
    Nothing,
}

/// Where a comparison stands.
enum Phase {
    /// Going down: cells below these are wanted, when there are any.
    Descending { asked: Vec<Prefix> },
    /// The peer's entries are wanted.
    Listing { prefixes: Vec<Prefix>, from: u64 },
    /// The peer's entries are here, and compared chunk by chunk.
    Comparing { prefixes: Vec<Prefix>, page: VecDeque<Entry>, from: u64, through: u64 },
}

/// What the peer has differently, and what only this side has; both ascending.
fn differences(
    ours: Vec<Entry>,
    theirs: impl Iterator<Item = Entry>,
    pulls: &mut VecDeque<Entry>,
    pushes: &mut VecDeque<u64>,
) {
    let mut ours = ours.into_iter().peekable();
    for their in theirs {
        while let Some(our) = ours.next_if(|our| our.key_hash < their.key_hash) {
            pushes.push_back(our.key_hash);
        }
        if ours.next_if(|our| our.key_hash == their.key_hash) != Some(their) {
            pulls.push_back(their);
        }
    }
    pushes.extend(ours.map(|our| our.key_hash));
}

/// One partition's comparison and repair. It never asks for anything that it has not room for: places wait on
/// a stack whose deepest are taken first, entries come in pages, and what differs in a page is repaired before
/// the next.
pub(super) struct Walk {
    place: Place,
    phase: Phase,
    /// Differing places that nobody has looked into yet; the next ones last.
    places: Vec<Prefix>,
    /// Differing places without finer cells on one of the sides.
    leaves: Vec<Prefix>,
    /// What the peer has differently; fetched in this order.
    pulls: VecDeque<Entry>,
    /// Of the first of them, keys up to this came already.
    pulled_after: Option<Bytes>,
    /// What came and is to be merged.
    incoming: Option<Items>,
    /// Where the peer goes on after that.
    incoming_next: Option<Cursor>,
    /// Hashes whose sets the peer lacks.
    pushes: VecDeque<u64>,
    /// Of the first of them, keys up to this went already.
    pushed_after: Option<Bytes>,
    /// What to send now.
    outgoing: Option<Parcel>,
    /// What is sent: how many keys, and where this node goes on after them.
    pushing: Option<(usize, Option<Cursor>)>,
    report: Report,
}

impl Walk {
    pub(super) fn new(place: Place, whole: bool) -> Self {
        let report = Report { synced: true, whole, ..Report::of(place.partition) };
        Self {
            place,
            phase: Phase::Descending { asked: Vec::new() },
            places: vec![Prefix::ROOT],
            leaves: Vec::new(),
            pulls: VecDeque::new(),
            pulled_after: None,
            incoming: None,
            incoming_next: None,
            pushes: VecDeque::new(),
            pushed_after: None,
            outgoing: None,
            pushing: None,
            report,
        }
    }

    pub(super) fn partition(&self) -> Partition {
        self.place.partition
    }

    /// How it went, so far.
    pub(super) fn report(&self) -> Report {
        self.report
    }

    /// What to do now. Asked again without an answer in between, it says the same of what the index holds now.
    pub(super) fn next(&mut self, view: &impl View) -> Need {
        loop {
            if let Some(need) = self.repair() {
                return need;
            }
            match &mut self.phase {
                Phase::Descending { .. } => match self.descend(view) {
                    Some(need) => return need,
                    None if matches!(self.phase, Phase::Listing { .. }) => {}
                    None => return Need::Nothing,
                },
                Phase::Listing { prefixes, from } => {
                    let (partition, prefixes, from) = (self.place.partition, prefixes.clone(), *from);
                    return Need::Ask(Request::Entries { partition, prefixes, from });
                }
                Phase::Comparing { .. } => self.compare(view),
            }
        }
    }

    /// What was found to differ comes first.
    fn repair(&mut self) -> Option<Need> {
        let partition = self.place.partition;
        if let Some(items) = self.incoming.take() {
            return Some(Need::Merge(items));
        }
        if let Some(Parcel { items, next, .. }) = self.outgoing.take() {
            self.pushing = Some((items.items.len(), next));
            return Some(Need::Ask(Request::Push { partition, items }));
        }
        if !self.pulls.is_empty() {
            // No more than one answer holds: what is left out of it would be asked for again.
            let hashes = self.pulls.iter().take(PARCEL_ITEMS_MAX).map(|entry| entry.key_hash).collect();
            return Some(Need::Ask(Request::Fetch { partition, hashes, after: self.pulled_after.clone() }));
        }
        if !self.pushes.is_empty() {
            let hashes = self.pushes.iter().take(PARCEL_ITEMS_MAX).copied().collect();
            return Some(Need::Load { hashes, after: self.pushed_after.clone() });
        }
        None
    }

    /// The next cells to ask for. None when there are none: then either entries are to be listed, or all is done.
    fn descend(&mut self, view: &impl View) -> Option<Need> {
        let Phase::Descending { asked } = &mut self.phase else { return None };
        let partition = self.place.partition;
        while asked.len() < PREFIXES_MAX
            && self.leaves.len() < PREFIXES_MAX
            && let Some(prefix) = self.places.pop()
        {
            match view.children(partition, prefix) {
                Some(_) => asked.push(prefix),
                None => self.leaves.push(prefix),
            }
        }
        if !asked.is_empty() {
            return Some(Need::Ask(Request::Children { partition, prefixes: asked.clone() }));
        }
        if !self.leaves.is_empty() {
            let place = self.place;
            self.leaves.sort_unstable_by_key(|&prefix| *place.hashes(prefix).start());
            let prefixes = self.leaves.drain(..self.leaves.len().min(PREFIXES_MAX)).collect();
            self.phase = Phase::Listing { prefixes, from: 0 };
        }
        None
    }

    /// Compares the next chunk of the page with what is held here.
    fn compare(&mut self, view: &impl View) {
        let Phase::Comparing { prefixes, page, from, through } = &mut self.phase else { return };
        let (ours, cut) = list(view, self.place, prefixes, *from, *through, ENTRIES_MAX);
        let chunk = page.partition_point(|entry| entry.key_hash <= cut);
        differences(ours, page.drain(..chunk), &mut self.pulls, &mut self.pushes);
        self.report.differing += (self.pulls.len() + self.pushes.len()) as u64;
        if cut < *through {
            *from = cut + 1;
            return;
        }
        // The page is done; there may be more pages.
        let place = self.place;
        let mut prefixes = mem::take(prefixes);
        prefixes.retain(|&prefix| place.hashes(prefix).end() > &cut);
        self.phase = match cut.checked_add(1).filter(|_| !prefixes.is_empty()) {
            Some(from) => Phase::Listing { prefixes, from },
            None => Phase::Descending { asked: Vec::new() },
        };
    }

    /// Takes in the answer to what was asked last.
    pub(super) fn replied(&mut self, reply: Reply, view: &impl View) -> Result<(), Refused> {
        reply.check(self.place.partition, self.place.partitions)?;
        match reply {
            Reply::Children { cells } => self.children(cells, view),
            Reply::Entries { entries, through } => self.entries(entries, through),
            Reply::Fetched(parcel) => self.fetched(parcel),
            Reply::Pushed { stored } => self.pushed(stored),
            Reply::Roots { .. } => Err(Refused::Answer { why: "roots were not asked for" }),
        }
    }

    fn children(&mut self, cells: Vec<Option<[u64; FANOUT]>>, view: &impl View) -> Result<(), Refused> {
        let Phase::Descending { asked } = &mut self.phase else {
            return Err(Refused::Answer { why: "cells were not asked for" });
        };
        if cells.len() != asked.len() {
            return Err(Refused::Answer { why: "cells of other places than those asked for" });
        }
        for (prefix, theirs) in mem::take(asked).into_iter().zip(cells) {
            match (view.children(self.place.partition, prefix), theirs) {
                (Some(ours), Some(theirs)) => {
                    let differing = (0..FANOUT).filter(|&index| ours[index] != theirs[index]);
                    self.places.extend(differing.map(|index| prefix.child(index)));
                }
                _ => self.leaves.push(prefix),
            }
        }
        Ok(())
    }

    fn entries(&mut self, entries: Vec<Entry>, through: u64) -> Result<(), Refused> {
        let Phase::Listing { prefixes, from } = &mut self.phase else {
            return Err(Refused::Answer { why: "entries were not asked for" });
        };
        let within = entries.first().is_none_or(|first| first.key_hash >= *from)
            && entries.last().is_none_or(|last| last.key_hash <= through);
        if !within || through < *from || !entries.is_sorted_by(|a, b| a.key_hash < b.key_hash) {
            return Err(Refused::Answer { why: "entries that are not in order" });
        }
        let (prefixes, from) = (mem::take(prefixes), *from);
        self.phase = Phase::Comparing { prefixes, page: entries.into(), from, through };
        Ok(())
    }

    fn fetched(&mut self, Parcel { items, next, missing }: Parcel) -> Result<(), Refused> {
        if self.pulls.is_empty() {
            return Err(Refused::Answer { why: "sets were not asked for" });
        }
        if let Some(next) = &next {
            let goes_on = match self.pulls.iter().position(|pull| pull.key_hash == next.key_hash) {
                Some(0) => next.after > self.pulled_after,
                Some(at) => at < PARCEL_ITEMS_MAX,
                None => false,
            };
            if !goes_on {
                return Err(Refused::Answer { why: "sets that do not go on where they were asked to" });
            }
        }
        self.report.synced &= !missing;
        self.report.pulled += items.items.len() as u64;
        self.incoming = Some(items);
        self.incoming_next = next;
        Ok(())
    }

    /// What was fetched is merged. Whatever differs from the peer's even so, the peer lacks.
    pub(super) fn merged(&mut self, stored: bool, view: &impl View) {
        self.report.synced &= stored;
        let next = self.incoming_next.take();
        let answered = match &next {
            Some(next) => self.pulls.iter().take_while(|pull| pull.key_hash != next.key_hash).count(),
            None => self.pulls.len().min(PARCEL_ITEMS_MAX),
        };
        self.pulled_after = next.and_then(|next| next.after);
        for pull in self.pulls.drain(..answered) {
            let digest = view.digest(self.place.partition, pull.key_hash);
            if digest.is_some_and(|digest| digest != pull.digest) {
                self.pushes.push_back(pull.key_hash);
            }
        }
    }

    /// The sets for the peer are read.
    pub(super) fn loaded(&mut self, parcel: Parcel) {
        self.report.synced &= !parcel.missing;
        if parcel.items.items.is_empty() {
            self.advance(parcel.next);
        } else {
            self.outgoing = Some(parcel);
        }
    }

    fn pushed(&mut self, stored: bool) -> Result<(), Refused> {
        let Some((keys, next)) = self.pushing.take() else {
            return Err(Refused::Answer { why: "nothing was pushed" });
        };
        self.report.synced &= stored;
        self.report.pushed += keys as u64;
        self.advance(next);
        Ok(())
    }

    /// Goes on with the pushes.
    fn advance(&mut self, next: Option<Cursor>) {
        let done = match &next {
            Some(next) => self.pushes.iter().take_while(|&&hash| hash != next.key_hash).count(),
            None => self.pushes.len().min(PARCEL_ITEMS_MAX),
        };
        self.pushes.drain(..done);
        self.pushed_after = next.and_then(|next| next.after);
    }

    /// The last request was lost. What is pushed is read again: a set must not be older than the count that it
    /// is sent with.
    pub(super) fn lost(&mut self) {
        self.pushing = None;
    }
}
