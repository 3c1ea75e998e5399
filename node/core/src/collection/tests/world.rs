//! A few nodes, a store each, and a network that loses, doubles, reorders and delays by any time, also over
//! restarts of the receiver. What a node has read it sends whenever it likes: that is what retries,
//! redirections and slow disks amount to.

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;

use super::super::*;
use crate::NodeId;
use crate::causality::{Actor, Context, Dot, Event, Policy, Stamp, VersionSet};
use crate::handoff::HintName;
use crate::ring::{Partition, PartitionCount};

/// A rule that is broken on purpose.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Hole {
    None,
    /// Content is counted when it is sent, not before it is read.
    CountAtSending,
    /// A new start takes content from senders whose mark it has not asked for.
    AdmitUnknown,
    /// An answer to an earlier start's question is believed.
    BelieveOldMark,
    /// Fallbacks are not asked.
    NoFence,
    /// Nobody raises floors before it looks for hints.
    NoFloorsAtFence,
    /// Owners do not.
    OwnersUnfenced,
    /// Marks that a leader passes on count as if their senders had told them.
    BelieveLeaders,
    /// Owners do not raise their floors.
    NoFloorsAtCollect,
    /// Owners raise their floors to those of owners alone.
    NoFloorsOfFallbacks,
    /// Fallbacks clear what they keep hints for.
    FallbackForgetsItsHints,
    /// Owners clear what they keep hints for.
    OwnerForgetsItsHints,
    /// Hints that are being stored do not count.
    ArrivingHintsUnseen,
    /// One owner is not asked to confirm.
    OneOwnerLess,
    /// Owners confirm any dead set.
    AnyDigest,
    /// Owners confirm what is not durable yet.
    ConfirmBeforeDurable,
    /// Owners forget whatever the key holds by then.
    ForgetWhatever,
    /// What was accepted enters the store after what is forgotten later.
    StoreOutOfOrder,
    /// Answers to other rounds count.
    AnyRound,
}

impl Hole {
    pub(super) const ALL: [Hole; 18] = [
        Hole::CountAtSending,
        Hole::AdmitUnknown,
        Hole::BelieveOldMark,
        Hole::NoFence,
        Hole::NoFloorsAtFence,
        Hole::OwnersUnfenced,
        Hole::BelieveLeaders,
        Hole::NoFloorsAtCollect,
        Hole::NoFloorsOfFallbacks,
        Hole::FallbackForgetsItsHints,
        Hole::OwnerForgetsItsHints,
        Hole::ArrivingHintsUnseen,
        Hole::OneOwnerLess,
        Hole::AnyDigest,
        Hole::ConfirmBeforeDurable,
        Hole::ForgetWhatever,
        Hole::StoreOutOfOrder,
        Hole::AnyRound,
    ];
}

const OWNERS: usize = 3;
const NODES: usize = 5;
const PARTITION: Partition = Partition(0);
const KEYS: [&str; 2] = ["a", "b"];
/// After something was forgotten, old messages come out for so many steps.
const HAUNTING_STEPS: usize = 60;
/// Messages that the network remembers.
const MESSAGES_MAX: usize = 60;
/// Reads that wait to be sent, at a node.
const READS_MAX: usize = 6;

fn id(node: usize) -> NodeId {
    NodeId::from_u128(node as u128 + 1)
}

fn number(id: NodeId) -> usize {
    (0..NODES).find(|&node| super::world::id(node) == id).expect("only nodes are named")
}

/// A set that was read, to be sent.
#[derive(Clone)]
struct Content {
    key: Bytes,
    set: VersionSet,
    sent: u64,
    /// The hint that it was read from.
    hint: Option<HintName>,
}

/// What waits in a store's queue.
enum Job {
    Write { key: Bytes, delete: bool, blind: bool, sent: u64 },
    Merge { content: Content, from: usize },
    Keep { name: HintName, set: VersionSet },
    Forget { candidate: Candidate, done: Option<(usize, RoundId)> },
    ForgetHint { name: HintName, digest: u64 },
}

#[derive(Clone)]
enum Body {
    Content(Content),
    Hint {
        name: HintName,
        content: Content,
    },
    /// The owner has what was read from a hint.
    Delivered {
        name: HintName,
        digest: u64,
    },
    /// "How far have you counted?", asked in this start.
    AskMark {
        start: u64,
    },
    Mark {
        asked_in: u64,
        mark: Mark,
    },
    Request(Request),
    Reply(Reply),
}

#[derive(Clone)]
struct Message {
    from: usize,
    /// The sender's.
    start: u64,
    to: usize,
    body: Body,
}

struct Node {
    hole: Hole,
    start: u64,
    sent: u64,
    dots: u64,
    floors: Floors,
    store: BTreeMap<Bytes, VersionSet>,
    hints: BTreeMap<HintName, VersionSet>,
    queue: VecDeque<Job>,
    reads: Vec<Content>,
    round: Option<Round>,
    rounds: u64,
}

impl Node {
    fn mark(&self) -> Mark {
        Mark { start: self.start, sent: self.sent }
    }

    fn count(&mut self) -> u64 {
        self.sent += 1;
        self.sent
    }

    fn is_dead(set: &VersionSet) -> bool {
        !set.versions().is_empty() && set.values().next().is_none()
    }

    /// What a key will hold when the queue is done.
    fn soon(&self, key: &Bytes) -> VersionSet {
        let mut set = self.store.get(key).cloned().unwrap_or_default();
        for job in &self.queue {
            if let Job::Merge { content, .. } = job
                && content.key == key
            {
                set.merge(&content.set);
            }
        }
        set
    }

    fn crash(&mut self) {
        self.start += 1;
        (self.sent, self.dots) = (0, 0);
        self.floors = Floors::new();
        self.queue.clear();
        self.reads.clear();
        self.round = None;
        // The next rounds are numbered anew: the start tells them apart.
        self.rounds = 0;
    }
}

impl Holder for (&Node, bool) {
    fn holds_dead(&self, _: Partition, candidate: &Candidate) -> bool {
        let (node, _) = self;
        let set = match node.hole {
            Hole::ConfirmBeforeDurable => Some(node.soon(&candidate.key)),
            _ => node.store.get(&candidate.key).cloned(),
        };
        let exact = |set: &VersionSet| set.digest() == candidate.digest || node.hole == Hole::AnyDigest;
        set.is_some_and(|set| Node::is_dead(&set) && exact(&set))
    }

    fn keeps_hint(&self, partition: Partition, key: &[u8]) -> bool {
        let (node, is_owner) = self;
        let unseen = if *is_owner { Hole::OwnerForgetsItsHints } else { Hole::FallbackForgetsItsHints };
        let this = |name: &HintName| name.partition == partition && name.key == key;
        let arriving = node.queue.iter().any(|job| matches!(job, Job::Keep { name, .. } if this(name)));
        node.hole != unseen
            && (node.hints.keys().any(this) || arriving && node.hole != Hole::ArrivingHintsUnseen)
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Mood {
    Write,
    Repair,
    Collect,
}

pub(super) struct World {
    hole: Hole,
    mood: Mood,
    /// Its store is slow for now.
    slow: usize,
    dice: u64,
    nodes: Vec<Node>,
    network: Vec<Message>,
    /// Copies of what was sent some time. They come out when it hurts.
    attic: Vec<Message>,
    /// For so many more steps.
    haunting: usize,
    /// For each key, all that was deleted and forgotten: none of it may come back.
    buried: BTreeMap<Bytes, Context>,
    forgotten: usize,
}

impl World {
    pub(super) fn new(seed: u64, hole: Hole) -> Self {
        let node = |_| Node {
            hole,
            start: 1,
            sent: 0,
            dots: 0,
            floors: Floors::new(),
            store: BTreeMap::new(),
            hints: BTreeMap::new(),
            queue: VecDeque::new(),
            reads: Vec::new(),
            round: None,
            rounds: 0,
        };
        Self {
            hole,
            mood: Mood::Write,
            slow: 0,
            dice: seed,
            nodes: (0..NODES).map(node).collect(),
            network: Vec::new(),
            attic: Vec::new(),
            haunting: 0,
            buried: BTreeMap::new(),
            forgotten: 0,
        }
    }

    pub(super) fn forgotten(&self) -> usize {
        self.forgotten
    }

    /// Splitmix64.
    fn below(&mut self, end: usize) -> usize {
        self.dice = self.dice.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let x = (self.dice ^ self.dice >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let x = (x ^ x >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((x ^ x >> 31) % end as u64) as usize
    }

    fn key(&mut self) -> Bytes {
        let other = usize::from(self.below(8) == 0);
        KEYS[other].into()
    }

    /// Anything happens; for a while rather writes, then rather repair, then rather rounds.
    pub(super) fn step(&mut self) -> Result<(), String> {
        if self.below(80) == 0 {
            self.mood = [Mood::Write, Mood::Repair, Mood::Collect][self.below(3)];
            self.slow = self.below(NODES);
        }
        self.haunting = self.haunting.saturating_sub(1);
        let rare = |mood: Mood, wanted: Mood, often: usize| if mood == wanted { often } else { 1 };
        let weights = [
            400,
            rare(self.mood, Mood::Write, 8),
            rare(self.mood, Mood::Repair, 100),
            rare(self.mood, Mood::Collect, 40),
            40,
            if self.mood == Mood::Write || self.haunting > 0 { 4 } else { 1 },
        ];
        let mut at = self.below(weights.iter().sum());
        let event = weights.iter().position(|&weight| at.checked_sub(weight).map(|rest| at = rest).is_none());
        match event.unwrap_or_default() {
            0 => {
                let node = self.below(NODES);
                if node != self.slow || self.below(30) == 0 {
                    self.store(node)?;
                }
                self.deliver(true)
            }
            1 => {
                self.write();
                Ok(())
            }
            2 => {
                self.repair();
                Ok(())
            }
            3 => {
                let leader = self.below(OWNERS);
                self.lead(leader);
                Ok(())
            }
            4 => {
                self.lose_patience();
                Ok(())
            }
            _ => {
                let node = self.below(NODES);
                self.nodes[node].crash();
                Ok(())
            }
        }
    }

    /// Something is read, or something that was read is sent.
    fn repair(&mut self) {
        match self.below(5) {
            0 => {
                let (node, key) = (self.below(OWNERS), self.key());
                self.read(node, &key);
                let read = self.nodes[node].reads.last().cloned();
                for (to, content) in (0..OWNERS).filter_map(|to| Some((to, read.clone()?))) {
                    self.send(node, to, Body::Content(content));
                }
            }
            1 => {
                let node = self.below(NODES);
                self.read_hint(node);
            }
            _ => self.send_read(),
        }
    }

    fn lose_patience(&mut self) {
        let leader = self.below(OWNERS);
        for silent in 0..NODES {
            let round = self.nodes[leader].round.as_mut();
            let actions = round.map(|round| round.expired(id(silent))).unwrap_or_default();
            self.act(leader, actions);
        }
    }

    fn send(&mut self, from: usize, to: usize, body: Body) {
        let message = Message { from, start: self.nodes[from].start, to, body };
        match self.below(3) {
            0 if self.attic.len() < MESSAGES_MAX => self.attic.push(message.clone()),
            0 => {
                let at = self.below(MESSAGES_MAX);
                self.attic[at] = message.clone();
            }
            _ => {}
        }
        if self.network.len() >= MESSAGES_MAX {
            let lost = self.below(self.network.len());
            self.network.swap_remove(lost);
        }
        self.network.push(message);
    }

    fn write(&mut self) {
        let (node, key) = (self.below(OWNERS), self.key());
        let (delete, blind) = (self.below(3) > 0, self.below(4) == 0);
        let node = &mut self.nodes[node];
        let sent = node.count();
        node.queue.push_back(Job::Write { key, delete, blind, sent });
    }

    fn read(&mut self, node_at: usize, key: &Bytes) {
        let node = &mut self.nodes[node_at];
        let sent = node.count();
        if let Some(set) = node.store.get(key).cloned() {
            node.reads.push(Content { key: key.clone(), set, sent, hint: None });
        }
        let many = node.reads.len() > READS_MAX;
        let at = self.below(READS_MAX);
        if many {
            self.nodes[node_at].reads.remove(at);
        }
    }

    fn read_hint(&mut self, node: usize) {
        let at = self.below(self.nodes[node].hints.len().max(1));
        let node = &mut self.nodes[node];
        let sent = node.count();
        if let Some((name, set)) = node.hints.iter().nth(at) {
            let (name, key, set) = (name.clone(), name.key.clone(), set.clone());
            node.reads.push(Content { key, set, sent, hint: Some(name) });
        }
    }

    /// What was read some time is sent: to an owner, or to somebody else as a hint for an owner.
    fn send_read(&mut self) {
        let node = self.below(NODES);
        if self.nodes[node].reads.is_empty() {
            return;
        }
        let at = self.below(self.nodes[node].reads.len());
        let mut content = self.nodes[node].reads[at].clone();
        if self.hole == Hole::CountAtSending {
            content.sent = self.nodes[node].count();
        }
        if let Some(name) = &content.hint {
            let target = number(name.target);
            return self.send(node, target, Body::Content(content));
        }
        let target = self.below(OWNERS);
        if self.below(10) > 0 {
            return self.send(node, target, Body::Content(content));
        }
        // Mostly to a fallback; now and then to an owner that is a fallback in another epoch.
        let keeper = if self.below(5) > 1 { OWNERS + self.below(NODES - OWNERS) } else { self.below(OWNERS) };
        if keeper != target {
            let name = HintName { partition: PARTITION, key: content.key.clone(), target: id(target) };
            self.send(node, keeper, Body::Hint { name, content });
        }
    }

    fn lead(&mut self, leader: usize) {
        let hole = self.hole;
        let node = &mut self.nodes[leader];
        let dead = node.store.iter().filter(|(_, set)| Node::is_dead(set));
        let candidates: Vec<Candidate> =
            dead.map(|(key, set)| Candidate { key: key.clone(), digest: set.digest() }).collect();
        if candidates.is_empty() || node.round.is_some() {
            return;
        }
        node.rounds += 1;
        let round = RoundId { start: node.start, number: node.rounds };
        let round = if hole == Hole::AnyRound { RoundId { start: 0, number: 0 } } else { round };
        let others = if hole == Hole::OneOwnerLess { OWNERS - 1 } else { OWNERS };
        let owners = (0..others).chain([leader]).map(id);
        let fallbacks = if hole == Hole::NoFence { OWNERS..OWNERS } else { OWNERS..NODES };
        let mut round = Round::new(round, PARTITION, owners, fallbacks.map(id), candidates);
        let actions = round.begin();
        node.round = Some(round);
        self.act(leader, actions);
    }

    fn act(&mut self, leader: usize, actions: Vec<Action>) {
        for action in actions {
            match action {
                Action::Ask { to, request } => self.send(leader, number(to), Body::Request(request)),
                Action::Finished(_) => self.nodes[leader].round = None,
            }
        }
    }

    /// Some message arrives; with faults it may do so again, or be lost.
    fn deliver(&mut self, faults: bool) -> Result<(), String> {
        let old = if self.haunting > 0 { 2 } else { 12 };
        if faults && !self.attic.is_empty() && self.below(old) == 0 {
            let at = self.below(self.attic.len());
            return self.handle(self.attic[at].clone());
        }
        if self.network.is_empty() {
            return Ok(());
        }
        // Mostly what was sent just now; else any, and so old ones again and again.
        let among = if self.below(6) > 0 { self.network.len().min(6) } else { self.network.len() };
        let at = self.network.len() - 1 - self.below(among);
        let fate = self.below(20);
        let message = match fate {
            0..5 if faults => self.network[at].clone(),
            _ => self.network.swap_remove(at),
        };
        if faults && fate == 19 { Ok(()) } else { self.handle(message) }
    }

    fn handle(&mut self, Message { from, start, to, body }: Message) -> Result<(), String> {
        match body {
            Body::Content(content) => {
                if self.admit(from, start, to, content.sent) {
                    self.enqueue(to, Job::Merge { content, from });
                }
            }
            Body::Hint { name, content } => {
                if self.admit(from, start, to, content.sent) {
                    self.enqueue(to, Job::Keep { name, set: content.set });
                }
            }
            Body::Delivered { name, digest } => self.enqueue(to, Job::ForgetHint { name, digest }),
            Body::AskMark { start: asked_in } => {
                let mark = self.nodes[to].mark();
                self.send(to, from, Body::Mark { asked_in, mark });
            }
            Body::Mark { asked_in, mark } => {
                let node = &mut self.nodes[to];
                if node.start == asked_in || self.hole == Hole::BelieveOldMark {
                    let _ = node.floors.raise(id(from), mark);
                }
            }
            Body::Request(request) => self.answer(from, to, request),
            Body::Reply(reply) => {
                // A connection of the leader's present start: but for that, the round's id must do.
                let actions = self.nodes[to]
                    .round
                    .as_mut()
                    .map(|round| round.replied(id(from), reply))
                    .unwrap_or_default();
                self.act(to, actions);
            }
        }
        Ok(())
    }

    fn admit(&mut self, from: usize, start: u64, to: usize, sent: u64) -> bool {
        match self.nodes[to].floors.admit(id(from), Mark { start, sent }) {
            Ok(()) => true,
            Err(Turned::Unknown) if self.hole == Hole::AdmitUnknown => true,
            Err(Turned::Unknown) => {
                let start = self.nodes[to].start;
                self.send(to, from, Body::AskMark { start });
                false
            }
            Err(Turned::Late) => false,
        }
    }

    fn enqueue(&mut self, node: usize, job: Job) {
        let queue = &mut self.nodes[node].queue;
        if self.hole == Hole::StoreOutOfOrder && matches!(job, Job::Forget { .. }) {
            queue.push_front(job);
        } else {
            queue.push_back(job);
        }
    }

    fn answer(&mut self, leader: usize, to: usize, mut request: Request) {
        match (&mut request, self.hole) {
            (Request::Fence { floors, .. }, Hole::NoFloorsAtFence)
            | (Request::Collect { floors, .. }, Hole::NoFloorsAtCollect) => floors.clear(),
            (Request::Fence { floors, .. }, Hole::OwnersUnfenced) if to < OWNERS => floors.clear(),
            (Request::Fence { floors, .. } | Request::Collect { floors, .. }, Hole::BelieveLeaders) => {
                let known = |(node, mark): &(NodeId, Mark)| self.nodes[to].floors.raise(*node, *mark);
                assert!(floors.iter().all(known));
            }
            (Request::Collect { floors, .. }, Hole::NoFloorsOfFallbacks) => {
                floors.retain(|(node, _)| number(*node) < OWNERS);
            }
            _ => {}
        }
        let ring = PartitionCount::try_from(1).expect("a power of two");
        let node = &mut self.nodes[to];
        let (mine, mut floors) = (node.mark(), std::mem::take(&mut node.floors));
        let answer = answer(request, ring, mine, &mut floors, &(&*node, to < OWNERS));
        node.floors = floors;
        match answer.expect("leaders keep to the protocol") {
            Answer::Reply(reply) => self.send(to, leader, Body::Reply(reply)),
            Answer::Forget { round, candidates, .. } => {
                let last = candidates.len() - 1;
                for (at, candidate) in candidates.into_iter().enumerate() {
                    let done = (at == last).then_some((leader, round));
                    self.enqueue(to, Job::Forget { candidate, done });
                }
            }
        }
    }

    /// A node's store does the next thing, durably.
    fn store(&mut self, at: usize) -> Result<(), String> {
        let node = &mut self.nodes[at];
        match node.queue.pop_front() {
            None => {}
            Some(Job::Write { key, delete, blind, sent }) => {
                node.dots += 1;
                let dot = Dot { actor: Actor { node: id(at), start: node.start }, counter: node.dots };
                let mut set = node.store.get(&key).cloned().unwrap_or_default();
                let context = if blind { Context::default() } else { set.context().clone() };
                let value = (!delete).then(|| Bytes::from_static(b"value"));
                let event =
                    Event { context, stamp: Stamp::at_ms(1), value, expires: None, policy: Policy::Siblings };
                if set.write(event, dot).is_ok() {
                    node.reads.push(Content { key: key.clone(), set: set.clone(), sent, hint: None });
                    node.store.insert(key.clone(), set);
                }
                self.check(at, &key)?;
            }
            Some(Job::Merge { content: Content { key, set, hint, .. }, from }) => {
                let digest = set.digest();
                node.store.entry(key.clone()).or_default().merge(&set);
                if let Some(name) = hint {
                    self.send(at, from, Body::Delivered { name, digest });
                }
                self.check(at, &key)?;
            }
            Some(Job::Keep { name, set }) => {
                node.hints.entry(name).or_default().merge(&set);
            }
            Some(Job::ForgetHint { name, digest })
                if node.hints.get(&name).is_some_and(|set| set.digest() == digest) =>
            {
                node.hints.remove(&name);
            }
            Some(Job::ForgetHint { .. }) => {}
            Some(Job::Forget { candidate, done }) => self.forget(at, &candidate, done)?,
        }
        Ok(())
    }

    fn forget(
        &mut self,
        at: usize,
        candidate: &Candidate,
        done: Option<(usize, RoundId)>,
    ) -> Result<(), String> {
        let whatever = self.hole == Hole::ForgetWhatever;
        let held = self.nodes[at].store.get(&candidate.key);
        if let Some(set) = held.filter(|set| set.digest() == candidate.digest || whatever).cloned() {
            if !Node::is_dead(&set) {
                return Err(format!("node {at} forgot a live value of {:?}", candidate.key));
            }
            self.nodes[at].store.remove(&candidate.key);
            self.buried.entry(candidate.key.clone()).or_default().merge(set.context());
            self.forgotten += 1;
            self.haunting = HAUNTING_STEPS;
            // That very moment nobody may have what was deleted.
            (0..OWNERS).try_for_each(|node| self.check(node, &candidate.key))?;
        }
        if let Some((leader, round)) = done {
            self.send(at, leader, Body::Reply(Reply::Collected { round, forgotten: 0 }));
        }
        Ok(())
    }

    /// INV-NOZOMBIE.
    fn check(&self, at: usize, key: &Bytes) -> Result<(), String> {
        let (Some(set), Some(buried)) = (self.nodes[at].store.get(key), self.buried.get(key)) else {
            return Ok(());
        };
        match set.values().find(|(version, _)| buried.covers(version.dot)) {
            Some((version, _)) => Err(format!("{:?} of {key:?} is back on node {at}", version.dot)),
            None => Ok(()),
        }
    }

    /// Faults stop: replicas become equal, and all that is dead goes.
    pub(super) fn settle(&mut self) -> Result<(), String> {
        for _ in 0..60 {
            for node in 0..NODES {
                for _ in 0..self.nodes[node].hints.len() {
                    self.read_hint(node);
                }
            }
            for (node, key) in (0..OWNERS).flat_map(|node| KEYS.map(|key| (node, Bytes::from(key)))) {
                self.read(node, &key);
            }
            for node in 0..NODES {
                for content in std::mem::take(&mut self.nodes[node].reads) {
                    let targets = match &content.hint {
                        Some(name) => number(name.target)..number(name.target) + 1,
                        None => 0..OWNERS,
                    };
                    for target in targets.filter(|&target| target != node) {
                        self.send(node, target, Body::Content(content.clone()));
                        self.calm_down()?;
                    }
                }
            }
            for leader in 0..OWNERS {
                self.nodes[leader].round = None;
                self.lead(leader);
                self.calm_down()?;
            }
        }
        let left =
            self.nodes.iter().flat_map(|node| node.store.values()).filter(|set| Node::is_dead(set)).count();
        let equal = (1..OWNERS).all(|node| self.nodes[node].store == self.nodes[0].store);
        let hints: usize = self.nodes.iter().map(|node| node.hints.len()).sum();
        if left == 0 && equal && hints == 0 {
            Ok(())
        } else {
            Err(format!("{left} dead sets and {hints} hints are left; the owners are equal: {equal}"))
        }
    }

    /// Until nothing is under way any more.
    fn calm_down(&mut self) -> Result<(), String> {
        while !self.network.is_empty() || self.nodes.iter().any(|node| !node.queue.is_empty()) {
            self.deliver(false)?;
            for node in 0..NODES {
                while !self.nodes[node].queue.is_empty() {
                    self.store(node)?;
                }
            }
        }
        Ok(())
    }
}
