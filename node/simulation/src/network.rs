//! The network: sessions between processes, and what becomes of messages on their way.
//!
//! A session is bound to one run of either side. Within one, messages are lost, doubled, late and overtaken; when it
//! broke, or one side began anew, nothing of it arrives any more, as with sockets.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::dice::Dice;
use crate::scenario::NetworkPlan;

/// How late a late message is at most.
const LATE_MAX: Duration = Duration::from_millis(1200);

/// A connection between two machines.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Session {
    pub(crate) id: u64,
    /// The runs of the machine with the lower number, and of the other.
    pub(crate) runs: (u64, u64),
}

pub(crate) struct Network {
    plan: NetworkPlan,
    pub(crate) dice: Dice,
    sessions: BTreeMap<(usize, usize), Session>,
    /// How many faults keep what one says from another.
    blocked: BTreeMap<(usize, usize), u32>,
    pub(crate) more_lost_per_mille: u64,
    pub(crate) more_late_per_mille: u64,
    numbers: u64,
    pub(crate) messages: u64,
    pub(crate) bytes: u64,
}

impl Network {
    pub(crate) fn new(plan: NetworkPlan, dice: Dice) -> Self {
        Self {
            plan,
            dice,
            sessions: BTreeMap::new(),
            blocked: BTreeMap::new(),
            more_lost_per_mille: 0,
            more_late_per_mille: 0,
            numbers: 0,
            messages: 0,
            bytes: 0,
        }
    }

    fn pair(one: usize, other: usize) -> (usize, usize) {
        (one.min(other), one.max(other))
    }

    pub(crate) fn session(&self, one: usize, other: usize) -> Option<Session> {
        self.sessions.get(&Self::pair(one, other)).copied()
    }

    /// Connects two machines anew.
    pub(crate) fn connect(&mut self, one: (usize, u64), other: (usize, u64)) -> Session {
        let runs = if one.0 < other.0 { (one.1, other.1) } else { (other.1, one.1) };
        self.numbers += 1;
        let session = Session { id: self.numbers, runs };
        self.sessions.insert(Self::pair(one.0, other.0), session);
        session
    }

    /// Ends a session, if it is still that one.
    pub(crate) fn end(&mut self, one: usize, other: usize, id: u64) -> bool {
        let pair = Self::pair(one, other);
        let ends = self.sessions.get(&pair).is_some_and(|session| session.id == id);
        if ends {
            self.sessions.remove(&pair);
        }
        ends
    }

    pub(crate) fn block(&mut self, from: usize, to: usize) {
        *self.blocked.entry((from, to)).or_default() += 1;
    }

    pub(crate) fn unblock(&mut self, from: usize, to: usize) {
        if let Some(count) = self.blocked.get_mut(&(from, to)) {
            *count = count.saturating_sub(1);
        }
    }

    pub(crate) fn heal(&mut self) {
        self.blocked.clear();
        (self.more_lost_per_mille, self.more_late_per_mille) = (0, 0);
        (self.plan.lost_per_mille, self.plan.late_per_mille) = (0, 0);
    }

    pub(crate) fn is_blocked(&self, from: usize, to: usize) -> bool {
        self.blocked.get(&(from, to)).is_some_and(|count| *count > 0)
    }

    /// How long a way takes.
    pub(crate) fn delay(&mut self) -> Duration {
        self.dice.about(self.plan.delay)
    }

    /// After which times a message arrives: not at all, once, or twice.
    pub(crate) fn fate(&mut self, from: usize, to: usize, bytes: usize) -> Vec<Duration> {
        self.messages += 1;
        self.bytes += bytes as u64;
        if self.is_blocked(from, to) || self.dice.chance(self.plan.lost_per_mille + self.more_lost_per_mille)
        {
            return Vec::new();
        }
        let copies = if self.dice.chance(self.plan.doubled_per_mille) { 2 } else { 1 };
        (0..copies).map(|_| self.way(bytes)).collect()
    }

    fn way(&mut self, bytes: usize) -> Duration {
        let late = self.dice.chance(self.plan.late_per_mille + self.more_late_per_mille);
        let more = if late { self.dice.time(Duration::ZERO, LATE_MAX) } else { Duration::ZERO };
        let sending = Duration::from_nanos(bytes as u64 * 1_000_000_000 / self.plan.bytes_per_second);
        self.delay() + more + sending
    }
}
