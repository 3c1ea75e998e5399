//! The initiator's side: one exchange with one peer.

use std::collections::VecDeque;

use bytes::Bytes;

use super::answer::{Place, View};
use super::message::{Items, Refused, Reply, Request, Shown};
use super::parcel::Parcel;
use super::walk::{Need, Walk};
use crate::limits::PARTITIONS_MAX;
use crate::planted::{self, Bug};
use crate::ring::{Partition, PartitionCount};

/// How often one step is asked before the exchange ends.
pub const TRIES_MAX: u32 = 4;

/// What the caller does next.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Step {
    /// Send this; then [`Exchange::replied`], or [`Exchange::expired`].
    Ask {
        /// To be given back with the answer.
        sequence: u64,
        /// What to send.
        request: Request,
    },
    /// Merge these durably, unless they are late ([`Items::sent`]); then [`Exchange::merged`].
    Merge {
        /// Where.
        partition: Partition,
        /// What.
        items: Items,
    },
    /// Make a parcel of these with [`super::pack`]; then [`Exchange::loaded`].
    Load {
        /// Where.
        partition: Partition,
        /// Of which hashes.
        hashes: Vec<u64>,
        /// Of the first of them, only keys greater than this.
        after: Option<Bytes>,
    },
    /// A partition is done; ask for the next step at once.
    Report(Report),
    /// Something is under way; nothing to do.
    Wait,
    /// The exchange is over: every partition was reported.
    Finished,
}

/// How the exchange of one partition ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Report {
    /// Which.
    pub partition: Partition,
    /// Whether both sides hold now at least all that either showed when the exchange began.
    pub synced: bool,
    /// Whether the peer showed all that it had: not after a loss that it heals from ([`View::is_whole`]).
    pub whole: bool,
    /// Hashes that were found to differ.
    pub differing: u64,
    /// Keys that came.
    pub pulled: u64,
    /// Keys that went.
    pub pushed: u64,
}

impl Report {
    /// Of a partition that was not looked into.
    pub(super) fn of(partition: Partition) -> Self {
        Self { partition, synced: false, whole: true, differing: 0, pulled: 0, pushed: 0 }
    }
}

/// What is under way.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Awaiting {
    Nothing,
    Reply,
    Merge,
    Load,
}

/// One exchange with one peer, over the partitions that both own.
///
/// The caller asks for a [`Step`], does it, says how it went, and asks again. It paces the exchange by waiting
/// between steps, and drops it when the peer is gone.
pub struct Exchange {
    ring: PartitionCount,
    awaiting: Awaiting,
    sequence: u64,
    tries: u32,
    /// Not compared yet; the roots are asked for all of them at once.
    roots: Vec<Partition>,
    /// Their roots differ; and whether the peer told its own.
    differing: VecDeque<(Partition, bool)>,
    walk: Option<Walk>,
    reports: VecDeque<Report>,
}

impl Exchange {
    /// An exchange over the partitions (at most [`PARTITIONS_MAX`], further ones are left out) that this node
    /// and the peer both own.
    pub fn new(ring: PartitionCount, shared: impl IntoIterator<Item = Partition>) -> Self {
        Self {
            ring,
            awaiting: Awaiting::Nothing,
            sequence: 0,
            tries: 0,
            roots: shared.into_iter().take(PARTITIONS_MAX as usize).collect(),
            differing: VecDeque::new(),
            walk: None,
            reports: VecDeque::new(),
        }
    }

    /// What to do now.
    pub fn step(&mut self, view: &impl View) -> Step {
        loop {
            if let Some(report) = self.reports.pop_front() {
                return Step::Report(report);
            }
            if self.awaiting != Awaiting::Nothing {
                return Step::Wait;
            }
            if !self.roots.is_empty() {
                return self.ask(Request::Roots { partitions: self.roots.clone() });
            }
            let Some(walk) = &mut self.walk else {
                let Some((partition, whole)) = self.differing.pop_front() else { return Step::Finished };
                self.walk = Some(Walk::new(Place { partition, partitions: self.ring }, whole));
                continue;
            };
            let partition = walk.partition();
            match walk.next(view) {
                Need::Ask(request) => return self.ask(request),
                Need::Merge(items) => {
                    self.awaiting = Awaiting::Merge;
                    return Step::Merge { partition, items };
                }
                Need::Load { hashes, after } => {
                    self.awaiting = Awaiting::Load;
                    return Step::Load { partition, hashes, after };
                }
                Need::Nothing => {
                    self.reports.push_back(walk.report());
                    self.walk = None;
                }
            }
        }
    }

    fn ask(&mut self, request: Request) -> Step {
        self.awaiting = Awaiting::Reply;
        self.sequence += 1;
        Step::Ask { sequence: self.sequence, request }
    }

    /// The peer answered. Answers to anything but the last question are late or doubled, and ignored. After an
    /// error the exchange is worth nothing any more.
    pub fn replied(&mut self, sequence: u64, reply: Reply, view: &impl View) -> Result<(), Refused> {
        if self.awaiting != Awaiting::Reply || sequence != self.sequence {
            return Ok(());
        }
        self.awaiting = Awaiting::Nothing;
        self.tries = 0;
        match (&mut self.walk, reply) {
            (Some(walk), reply) => walk.replied(reply, view),
            (None, Reply::Roots { roots }) => self.compare(roots, view),
            (None, _) => Err(Refused::Answer { why: "roots were asked for" }),
        }
    }

    fn compare(&mut self, theirs: Vec<Shown>, view: &impl View) -> Result<(), Refused> {
        if theirs.len() != self.roots.len() {
            return Err(Refused::Answer { why: "roots of other partitions than those asked for" });
        }
        for (partition, root) in std::mem::take(&mut self.roots).into_iter().zip(theirs) {
            let equal = matches!(root, Shown::All(root) if root == view.root(partition));
            if equal || root == Shown::Nothing || planted::is(Bug::SkipExchange) {
                let synced = equal || planted::is(Bug::SkipExchange);
                self.reports.push_back(Report { synced, ..Report::of(partition) });
            } else {
                self.differing.push_back((partition, root != Shown::Part));
            }
        }
        Ok(())
    }

    /// The items of [`Step::Merge`] are dealt with: `stored` when all of them are durable here.
    pub fn merged(&mut self, stored: bool, view: &impl View) {
        if let (Awaiting::Merge, Some(walk)) = (self.awaiting, &mut self.walk) {
            walk.merged(stored, view);
            self.awaiting = Awaiting::Nothing;
        }
    }

    /// The sets of [`Step::Load`] are here.
    pub fn loaded(&mut self, parcel: Parcel) {
        if let (Awaiting::Load, Some(walk)) = (self.awaiting, &mut self.walk) {
            walk.loaded(parcel);
            self.awaiting = Awaiting::Nothing;
        }
    }

    /// No answer came. The step is asked again; after [`TRIES_MAX`] times the exchange ends, and what is not
    /// done is reported as not synced.
    pub fn expired(&mut self, sequence: u64) {
        if self.awaiting != Awaiting::Reply || sequence != self.sequence {
            return;
        }
        self.awaiting = Awaiting::Nothing;
        self.tries += 1;
        if let Some(walk) = &mut self.walk {
            walk.lost();
        }
        if self.tries >= TRIES_MAX {
            self.give_up();
        }
    }

    fn give_up(&mut self) {
        let begun = self.walk.take().map(|walk| walk.report());
        let waiting = self.differing.drain(..).map(|(partition, _)| partition).chain(self.roots.drain(..));
        let untouched = waiting.map(Report::of);
        let begun = begun.map(|report| Report { synced: false, ..report });
        self.reports.extend(begun.into_iter().chain(untouched));
    }
}
