//! The reference model of version sets: every event remembers exactly which others it replaced, every replica which
//! events it has heard of. A value stands where nothing that was heard of replaced it. No version vectors, no
//! dots: those are what is tested.
//!
//! The world around one key: replicas with clocks that are apart, clients that read here and write there with old
//! contexts, messages that come late, twice, in any order or never, crashes that forget what was not synced.

use std::collections::BTreeSet;

use bytes::Bytes;
use proptest::prelude::*;

use super::{
    Actor, CLOCK_AHEAD_MAX_MS, Clock, Context, DotMaker, Event, Expiry, Policy, Version, VersionSet,
};
use crate::id::NodeId;

const REPLICAS: usize = 4;
/// When the world begins, by a true clock.
const BEGIN_UNIX_MS: u64 = 1_000_000;

/// Events by their number.
type History = BTreeSet<usize>;

/// What happened once, and what it replaced.
struct Happened {
    version: Version,
    replaced: History,
}

/// What somebody knows of the key: as the program keeps it, and as the model does.
#[derive(Clone, Default)]
struct Known {
    set: VersionSet,
    heard: History,
}

struct Replica {
    known: Known,
    synced: Known,
    dots: DotMaker,
    clock: Clock,
    /// How far its clock is ahead.
    ahead_ms: u64,
}

#[derive(Clone, Debug)]
enum Step {
    /// A client writes at a replica, with what it read before or blindly.
    Write { at: usize, read: Option<usize>, delete: bool, wins: bool, ttl_ms: Option<u64> },
    /// A client reads at a replica, and keeps the context.
    Read { at: usize },
    /// A replica sends its set.
    Send { from: usize },
    /// One of the messages that were ever sent arrives.
    Deliver { message: usize, to: usize },
    /// What a replica holds reaches its disk.
    Sync { at: usize },
    /// A replica forgets what it did not sync, and starts again.
    Crash { at: usize },
    /// Time passes.
    Wait { ms: u64 },
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let at = || 0..REPLICAS;
    let ttl_ms = prop::option::weighted(0.3, 0..3 * CLOCK_AHEAD_MAX_MS);
    let write = (at(), prop::option::weighted(0.6, any::<prop::sample::Index>()), any::<[bool; 2]>(), ttl_ms)
        .prop_map(|(at, read, [delete, wins], ttl_ms)| {
            let read = read.map(|read| read.index(usize::MAX));
            Step::Write { at, read, delete, wins, ttl_ms }
        });
    let deliver = (any::<prop::sample::Index>(), at())
        .prop_map(|(message, to)| Step::Deliver { message: message.index(usize::MAX), to });
    let step = prop_oneof![
        4 => write,
        2 => at().prop_map(|at| Step::Read { at }),
        2 => at().prop_map(|from| Step::Send { from }),
        4 => deliver,
        1 => at().prop_map(|at| Step::Sync { at }),
        1 => at().prop_map(|at| Step::Crash { at }),
        1 => (0..CLOCK_AHEAD_MAX_MS).prop_map(|ms| Step::Wait { ms }),
    ];
    prop::collection::vec(step, 0..80)
}

struct World {
    happened: Vec<Happened>,
    replicas: Vec<Replica>,
    reads: Vec<(Context, History)>,
    messages: Vec<Known>,
    unix_ms: u64,
}

impl World {
    fn new(ahead_ms: [u64; REPLICAS]) -> Self {
        let replica = |(at, ahead_ms)| Replica {
            known: Known::default(),
            synced: Known::default(),
            dots: DotMaker::new(Actor { node: NodeId::from_u128(at), start: 1 }),
            clock: Clock::default(),
            ahead_ms,
        };
        let (happened, reads, messages) = (Vec::new(), Vec::new(), Vec::new());
        let replicas = (0..).zip(ahead_ms).map(replica).collect();
        Self { happened, replicas, reads, messages, unix_ms: BEGIN_UNIX_MS }
    }

    fn run(&mut self, steps: &[Step]) {
        for step in steps {
            match *step {
                Step::Write { at, read, delete, wins, ttl_ms } => {
                    let seen = read.filter(|_| !self.reads.is_empty()).map(|read| read % self.reads.len());
                    let seen = seen.map(|read| self.reads[read].clone()).unwrap_or_default();
                    self.write(at, seen, delete, wins, ttl_ms);
                }
                Step::Read { at } => {
                    let Known { set, heard } = self.replicas[at].known.clone();
                    self.reads.push((set.context().clone(), heard));
                }
                Step::Send { from } => self.messages.push(self.replicas[from].known.clone()),
                Step::Deliver { message, to } if !self.messages.is_empty() => {
                    let message = self.messages[message % self.messages.len()].clone();
                    let replica = &mut self.replicas[to];
                    // A clock that is too far ahead is not followed, and that is all right here.
                    let _ = replica.clock.observe_all(&message.set, self.unix_ms + replica.ahead_ms);
                    replica.known.hear(&message);
                }
                Step::Deliver { .. } => {}
                Step::Sync { at } => self.replicas[at].synced = self.replicas[at].known.clone(),
                Step::Crash { at } => self.replicas[at].crash(),
                Step::Wait { ms } => self.unix_ms += ms,
            }
            self.check();
        }
    }

    fn write(&mut self, at: usize, seen: (Context, History), delete: bool, wins: bool, ttl_ms: Option<u64>) {
        let number = self.happened.len();
        let (context, mut replaced) = seen;
        let stands = self.standing(&self.replicas[at].known.heard);
        let replica = &mut self.replicas[at];
        let now = self.unix_ms + replica.ahead_ms;
        let (taken, dot) = (replica.clock.tick(now), replica.dots.make());
        let value = (!delete).then(|| Bytes::from(format!("value {number}")));
        let expires = ttl_ms.map(|ttl_ms| Expiry::after_ms(now, ttl_ms));
        let policy = if wins { Policy::LastWriteWins } else { Policy::Siblings };
        let event = Event { context, stamp: taken, value: value.clone(), policy, expires };
        replica.known.set.write(event, dot).unwrap();

        // The same in the model's words.
        let mut stamp = taken;
        if wins {
            let last = stands.iter().map(|&e| self.happened[e].version.stamp).max().unwrap_or_default();
            if last >= taken && last.unix_ms() <= taken.unix_ms() + CLOCK_AHEAD_MAX_MS {
                stamp = last.next();
            }
            replaced.extend(&replica.known.heard);
        }
        let long_gone = |e: &&usize| match self.happened[**e].version.expires {
            Some(expires) => expires.unix_ms() + CLOCK_AHEAD_MAX_MS <= taken.unix_ms(),
            None => false,
        };
        replaced.extend(stands.iter().filter(long_gone));
        replica.known.heard.extend(replaced.iter().copied().chain([number]));
        self.happened.push(Happened { version: Version { dot, stamp, value, expires }, replaced });
    }

    /// What nothing in a history replaced.
    fn standing(&self, heard: &History) -> History {
        let replaced: History = heard.iter().flat_map(|&e| &self.happened[e].replaced).copied().collect();
        heard - &replaced
    }

    /// Every replica shows exactly what stands.
    fn check(&self) {
        for Replica { known: Known { set, heard }, ahead_ms, .. } in &self.replicas {
            let stands = self.standing(heard);
            let mut versions: Vec<&Version> = stands.iter().map(|&e| &self.happened[e].version).collect();
            versions.sort_by_key(|version| version.dot);
            assert_eq!(set.versions().iter().collect::<Vec<_>>(), versions);
            for (number, Happened { version, .. }) in self.happened.iter().enumerate() {
                assert_eq!(set.context().covers(version.dot), heard.contains(&number), "event {number}");
            }
            let now = self.unix_ms + ahead_ms;
            let shown = versions
                .iter()
                .filter(|v| v.value.is_some() && v.expires.is_none_or(|at| now < at.unix_ms()));
            assert_eq!(
                set.live(now).map(|(version, _)| version.dot).collect::<Vec<_>>(),
                shown.map(|v| v.dot).collect::<Vec<_>>()
            );
            assert_eq!(set.is_dead_at(now), set.live(now).next().is_none());
            let last = versions.iter().max_by_key(|version| (version.stamp, version.dot));
            assert_eq!(set.last(), last.copied());
        }
    }
}

impl Known {
    fn hear(&mut self, other: &Known) {
        let changed = self.set.merge(&other.set);
        assert_eq!(changed, !other.heard.is_subset(&self.heard), "a change is what was not heard of before");
        self.heard.extend(&other.heard);
    }
}

impl Replica {
    fn crash(&mut self) {
        self.known = self.synced.clone();
        let Actor { node, start } = self.dots.make().actor;
        self.dots = DotMaker::new(Actor { node, start: start + 1 });
        self.clock = Clock::default();
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    /// Values stand until a write that saw them, on every replica at any time; and replicas that heard the same
    /// are the same, to the byte.
    #[test]
    fn what_stands_is_what_nothing_replaced(
        steps in steps(),
        ahead_ms in prop::array::uniform(prop_oneof![Just(0), 0..CLOCK_AHEAD_MAX_MS / 2]),
        order in Just((0..REPLICAS).collect::<Vec<_>>()).prop_shuffle(),
    ) {
        let mut world = World::new(ahead_ms);
        world.run(&steps);
        let mut all = Known::default();
        for &at in &order {
            all.hear(&world.replicas[at].known);
        }
        for at in order.into_iter().rev() {
            world.replicas[at].known.hear(&all);
            let set = &world.replicas[at].known.set;
            prop_assert_eq!((set, set.digest()), (&all.set, all.set.digest()));
            prop_assert_eq!(&VersionSet::decode(&set.encode()).unwrap(), set);
        }
        world.check();
    }
}
