//! A few replicas on one thread, without faults: how a replica is driven, and that the main paths hold together. What
//! happens under faults is the simulator's matter.

use std::cell::RefCell;
use std::collections::{BTreeMap, VecDeque};
use std::rc::Rc;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use quorate_core::causality::{Actor, Context, Policy};
use quorate_core::membership::NodeInfo;
use quorate_core::quorum::{Consistency, QuorumKind};
use quorate_core::ring::{Epoch, Member, MemberState, Replication, planner};
use quorate_core::transition::{Chain, Transition};
use quorate_core::{ClusterId, NodeId};
use quorate_replica::{
    Answer, ClientRequest, Completion, Config, Effect, Found, Identity, Inbox, Now, Remembered, Replica,
    Sender, SlowRead, Storage,
};
use quorate_storage::disk::simulated::SimulatedDisk;
use quorate_storage::{Access, Engine, Options};
use quorate_wire::peer::{ClientWrite, Frame, Refusal, Response, Written};

const CLUSTER: ClusterId = ClusterId::from_u128(1);
/// How far time moves when nothing else happens.
const TICK: Duration = Duration::from_millis(10);
/// Simulated time within which everything is over.
const PATIENCE: Duration = Duration::from_secs(60);

/// The engine, and the reads that wait.
struct Disk {
    access: Access,
    reads: Rc<RefCell<VecDeque<SlowRead>>>,
}

impl Storage for Disk {
    fn access(&self) -> &Access {
        &self.access
    }

    fn read_later(&self, read: SlowRead) {
        self.reads.borrow_mut().push_back(read);
    }
}

struct Node {
    replica: Replica<Disk>,
    engine: Engine,
    reads: Rc<RefCell<VecDeque<SlowRead>>>,
    inbox: Arc<Mutex<VecDeque<Completion>>>,
    start: u64,
}

struct World {
    now: Now,
    disks: BTreeMap<NodeId, SimulatedDisk>,
    nodes: BTreeMap<NodeId, Node>,
    /// Frames on their way: from, to, what.
    wire: VecDeque<(NodeId, NodeId, Frame)>,
    answers: BTreeMap<u64, Answer>,
    amnesia: Vec<NodeId>,
    /// Its disk hangs: what its store accepts is not applied.
    hangs: Option<NodeId>,
    epoch: Epoch,
    config: Config,
    ticket: u64,
}

fn id(number: u128) -> NodeId {
    NodeId::from_u128(number)
}

fn member(number: u128) -> Member {
    Member {
        id: id(number),
        name: format!("n{number}"),
        address: format!("n{number}:1"),
        zone: None,
        weight: 1,
        state: MemberState::Active,
    }
}

impl World {
    /// A ring of nodes that has come together.
    fn new(count: u128, change: impl FnOnce(&mut Config)) -> Self {
        let members = (1..=count).map(member).collect();
        let replication = Replication { factor: 3, read_quorum: 2, write_quorum: 2 };
        let epoch = planner::first_epoch(CLUSTER, 16, replication, members).unwrap();
        let mut config = Config::new(vec!["n1:1".into(), "n2:1".into()]);
        change(&mut config);
        let mut world = Self {
            now: Now { mono: Duration::ZERO, unix_ms: 1_700_000_000_000 },
            disks: BTreeMap::new(),
            nodes: BTreeMap::new(),
            wire: VecDeque::new(),
            answers: BTreeMap::new(),
            amnesia: Vec::new(),
            hangs: None,
            epoch,
            config,
            ticket: 0,
        };
        (1..=count).for_each(|number| world.start(id(number), 1));
        world.until("the ring serves", |world| world.nodes.values().all(|n| n.replica.is_claimed()));
        world.until("everybody knows everybody", |world| {
            let ids: Vec<NodeId> = world.nodes.keys().copied().collect();
            world.nodes.values().all(|node| ids.iter().all(|id| node.replica.is_up(*id)))
        });
        world
    }

    fn start(&mut self, node: NodeId, start: u64) {
        let seed = u64::from_le_bytes(node.as_bytes()[8..].try_into().unwrap());
        let disk = self.disks.entry(node).or_insert_with(|| SimulatedDisk::new(seed, 256 << 20));
        let actor = Actor { node, start };
        let options = Options { free_space_reserve_bytes: 0, segment_bytes: 1 << 20, ..Options::default() };
        let (engine, _) = Engine::open(disk.attach(), actor, options).unwrap();
        let reads: Rc<RefCell<VecDeque<SlowRead>>> = Rc::default();
        let storage = Disk { access: engine.access(), reads: reads.clone() };
        let inbox: Arc<Mutex<VecDeque<Completion>>> = Arc::default();
        let shared = inbox.clone();
        let hears: Inbox = Arc::new(move |completion| shared.lock().unwrap().push_back(completion));
        let number = node.as_bytes()[15];
        let info =
            NodeInfo { id: node, name: format!("n{number}"), address: format!("n{number}:1"), zone: None };
        let identity = Identity { cluster: CLUSTER, actor, nonce: start * 1000 + seed, node: info };
        let mut state = seed + start;
        let dice = Box::new(move || {
            state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            state.rotate_left(29)
        });
        let chain = Chain::of(Arc::new(self.epoch.clone()));
        let is_member = self.epoch.member(node).is_some();
        let ring = is_member.then(|| Transition::new(node, chain).to_remember());
        let remembered = Remembered { ring, starts: BTreeMap::new() };
        let config = self.config.clone();
        let replica = Replica::new(identity, config, storage, hears, dice, remembered, self.now).unwrap();
        self.nodes.insert(node, Node { replica, engine, reads, inbox, start });
    }

    fn crash(&mut self, node: NodeId) {
        self.nodes.remove(&node);
        self.disks[&node].crash(3);
        self.wire.retain(|(from, to, _)| *from != node && *to != node);
        let now = self.now;
        self.nodes.values_mut().for_each(|other| other.replica.disconnected(now, node));
    }

    /// Lets everything that can happen now happen, and then time pass.
    fn step(&mut self) {
        let now = self.now;
        let mut effects = Vec::new();
        for (id, node) in &mut self.nodes {
            if self.hangs != Some(*id) && node.engine.prepare() {
                node.engine.commit();
            }
            let reads: Vec<SlowRead> = node.reads.borrow_mut().drain(..).collect();
            reads.into_iter().for_each(|read| read(&node.engine.access()));
            let done: Vec<Completion> = node.inbox.lock().unwrap().drain(..).collect();
            done.into_iter().for_each(|completion| node.replica.completed(now, completion));
            node.replica.tick(now);
            effects.extend(node.replica.effects().into_iter().map(|effect| (*id, effect)));
        }
        for (from, to, frame) in std::mem::take(&mut self.wire) {
            let start = self.nodes.get(&from).map_or(0, |node| node.start);
            if let Some(node) = self.nodes.get_mut(&to) {
                node.replica.peer(now, Sender { node: from, start }, frame);
            }
        }
        effects.into_iter().for_each(|(id, effect)| self.carry_out(id, effect));
        self.now.mono += TICK;
        self.now.unix_ms += TICK.as_millis() as u64;
    }

    fn carry_out(&mut self, us: NodeId, effect: Effect) {
        let now = self.now;
        match effect {
            Effect::Send { to, frame } => {
                let named = |node: &&Node| node.replica.identity().node.address == to.address;
                let at =
                    to.id.or_else(|| self.nodes.values().find(named).map(|n| n.replica.identity().node.id));
                match at.filter(|at| self.nodes.contains_key(at)) {
                    Some(at) => self.wire.push_back((us, at, frame)),
                    None => {
                        if let (Frame::Request { id, .. }, Some(node)) = (frame, self.nodes.get_mut(&us)) {
                            node.replica.unsent(now, id);
                        }
                    }
                }
            }
            Effect::Answer { ticket, answer } => {
                assert!(self.answers.insert(ticket, answer).is_none(), "answered twice");
            }
            Effect::Keep { ticket, .. } => {
                if let Some(node) = self.nodes.get_mut(&us) {
                    node.replica.completed(now, Completion::kept(ticket, Ok(())));
                }
            }
            Effect::Amnesia { .. } => self.amnesia.push(us),
            Effect::Adopted { .. } | Effect::Changed(_) => {}
        }
    }

    fn until(&mut self, what: &str, done: impl Fn(&World) -> bool) {
        let deadline = self.now.mono + PATIENCE;
        while !done(self) {
            let how = || {
                self.nodes
                    .values()
                    .map(|n| (n.replica.is_claimed(), n.replica.ring_status()))
                    .collect::<Vec<_>>()
            };
            assert!(self.now.mono < deadline, "not within {PATIENCE:?}: {what}: {:#?}", how());
            self.step();
        }
    }

    fn ask(&mut self, at: NodeId, request: ClientRequest) -> Answer {
        self.ticket += 1;
        let (ticket, now) = (self.ticket, self.now);
        self.nodes.get_mut(&at).unwrap().replica.client(now, ticket, request);
        self.until("an answer", |world| world.answers.contains_key(&ticket));
        self.answers.remove(&ticket).unwrap()
    }

    fn put(
        &mut self,
        at: NodeId,
        key: &str,
        value: Option<&str>,
        context: Context,
    ) -> Result<Written, Refusal> {
        let write = ClientWrite {
            context,
            value: value.map(|value| Bytes::copy_from_slice(value.as_bytes())),
            expires: None,
            policy: Policy::Siblings,
            consistency: Consistency::Configured,
        };
        match self.ask(at, ClientRequest::Write { key: Bytes::copy_from_slice(key.as_bytes()), write }) {
            Answer::Written(written) => Ok(written),
            Answer::Refused(refusal) => Err(refusal),
            Answer::Found(found) => panic!("a write found {found:?}"),
        }
    }

    fn get(&mut self, at: NodeId, key: &str, consistency: Consistency) -> Result<Found, Refusal> {
        match self.ask(at, ClientRequest::Read { key: Bytes::copy_from_slice(key.as_bytes()), consistency }) {
            Answer::Found(found) => Ok(found),
            Answer::Refused(refusal) => Err(refusal),
            Answer::Written(written) => panic!("a read wrote {written:?}"),
        }
    }

    fn values(&mut self, at: NodeId, key: &str) -> Vec<String> {
        let found = self.get(at, key, Consistency::Configured).unwrap();
        found.set.values().map(|(_, value)| String::from_utf8(value.to_vec()).unwrap()).collect()
    }

    /// Changes the ring: one node is told of it, the others hear.
    fn change(&mut self, through: NodeId, members: Vec<Member>) {
        self.epoch = planner::next(&self.epoch, members, self.epoch.replication()).unwrap();
        let (now, epoch) = (self.now, self.epoch.clone());
        self.nodes.get_mut(&through).unwrap().replica.adopt(now, 0, epoch);
    }

    /// Whether nothing of a change is left to do, as every member says.
    fn is_settled(&self) -> bool {
        let takes_part = |id: &&NodeId| self.epoch.member(**id).is_some_and(|m| m.state.takes_part());
        self.nodes.keys().filter(takes_part).all(|id| {
            let status = self.nodes[id].replica.ring_status();
            status.is_some_and(|ring| {
                let newest = self.epoch.number();
                (ring.oldest, ring.newest, ring.leaving, ring.settled) == (newest, newest, 0, true)
            })
        })
    }

    fn keys_owned_by(&self, node: NodeId, keys: usize) -> u64 {
        let partition = |at| self.epoch.partitions().of_key(format!("k{at}").as_bytes());
        (0..keys).filter(|at| self.epoch.owns(node, partition(*at))).count() as u64
    }

    fn keys_at(&self, node: NodeId) -> u64 {
        let access = self.nodes[&node].engine.access();
        self.epoch.partitions().iter().map(|p| access.partition_usage(p).keys).sum()
    }

    fn ids(&self) -> Vec<NodeId> {
        self.nodes.keys().copied().collect()
    }

    /// Whether the owners of a key hold the same.
    fn is_converged(&self, key: &str) -> bool {
        let partition = self.epoch.partitions().of_key(key.as_bytes());
        let owners: Vec<NodeId> = self.epoch.owners(partition).map(|owner| owner.id).collect();
        let held = |id: &NodeId| self.nodes[id].engine.access().get(partition, key.as_bytes()).unwrap();
        owners.iter().all(|owner| held(owner) == held(&owners[0]))
    }
}

#[test]
fn any_node_writes_and_reads_any_key() {
    let mut world = World::new(5, |_| {});
    let ids = world.ids();
    for (at, node) in ids.iter().enumerate() {
        let written = world.put(*node, &format!("k{at}"), Some("v"), Context::default()).unwrap();
        assert!(written.receipt.replicas >= 2 && written.receipt.hints == 0);
    }
    for node in &ids {
        for at in 0..ids.len() {
            assert_eq!(world.values(*node, &format!("k{at}")), ["v"]);
        }
    }
}

#[test]
fn the_ring_grows_and_shrinks_and_every_write_stays() {
    let mut world = World::new(3, |_| {});
    let key = |at: usize| format!("k{at}");
    (0..40).for_each(|at| drop(world.put(id(1), &key(at), Some("v"), Context::default()).unwrap()));
    world.start(id(4), 1);
    world.change(id(2), (1..=4).map(member).collect());
    for at in 40..80 {
        world.put(id(1 + at as u128 % 3), &key(at), Some("v"), Context::default()).unwrap();
    }
    world.until("the fourth has its share, and nobody more", World::is_settled);
    assert_eq!(world.keys_at(id(4)), world.keys_owned_by(id(4), 80));
    (0..80).for_each(|at| assert_eq!(world.values(id(4), &key(at)), ["v"], "{at}"));

    let leaving = |number: u128, state| Member { state, ..member(number) };
    let gone = |state| vec![member(1), leaving(2, state), member(3), member(4)];
    world.change(id(1), gone(MemberState::Leaving));
    for at in 80..120 {
        world.put(id(2), &key(at), Some("v"), Context::default()).unwrap();
    }
    world.until("the second has nothing left", World::is_settled);
    assert_eq!(world.keys_at(id(2)), 0);
    world.change(id(3), gone(MemberState::Removed));
    world.until("the others know", World::is_settled);
    let refused = world.get(id(2), "k1", Consistency::One);
    assert!(refused.is_err(), "{refused:?}");
    world.crash(id(2));
    (0..120).for_each(|at| assert_eq!(world.values(id(3), &key(at)), ["v"], "{at}"));
    world.until("all owners are equal", |world| (0..120).all(|at| world.is_converged(&key(at))));
}

/// A write is accepted by a node whose disk hangs, and then the ring changes. Says whether that node is compared with before the
/// write is applied, when who gains would take it for one that does not have the write.
fn is_compared_before_it_applies() -> bool {
    let mut world = World::new(3, |_| {});
    world.start(id(4), 1);
    world.until("the fourth is known", |world| world.nodes.values().all(|node| node.replica.is_up(id(4))));
    world.hangs = Some(id(1));
    world.put(id(2), "k", Some("v"), Context::default()).unwrap();
    world.change(id(2), (1..=4).map(member).collect());
    let (mut hanging, mut others) = (0, 0);
    let compared = |frame: &Frame| matches!(frame, Frame::Response { response: Response::Exchanged(_), .. });
    for _ in 0..1000 {
        world.step();
        let answers = world.wire.iter().filter(|(_, _, frame)| compared(frame));
        answers.for_each(|(from, ..)| *(if *from == id(1) { &mut hanging } else { &mut others }) += 1);
    }
    assert!(others > 0, "nobody is compared with");
    world.hangs = None;
    world.until("the change is over", World::is_settled);
    hanging > 0
}

#[test]
fn nobody_is_compared_with_before_what_it_accepted_is_applied() {
    assert!(!is_compared_before_it_applies());
}

#[cfg(feature = "planted-bugs")]
#[test]
fn a_node_that_does_not_wait_for_what_it_accepted_is_caught() {
    use quorate_core::planted::{Bug, plant};

    plant(Some(Bug::SkipBarrier));
    assert!(is_compared_before_it_applies());
    plant(None);
}

#[test]
fn a_lost_disk_is_replaced_by_an_empty_one() {
    let mut world = World::new(3, |_| {});
    let key = |at: usize| format!("k{at}");
    (0..40).for_each(|at| drop(world.put(id(1), &key(at), Some("v"), Context::default()).unwrap()));
    world.crash(id(2));
    world.start(id(4), 1);
    let lost = Member { state: MemberState::Removed, ..member(2) };
    world.change(id(3), vec![member(1), lost, member(3), member(4)]);
    world.until("the new one has everything", World::is_settled);
    assert_eq!(world.keys_at(id(4)), 40);
    world.crash(id(1));
    (0..40).for_each(|at| assert_eq!(world.values(id(4), &key(at)), ["v"], "{at}"));
}

#[test]
fn siblings_are_kept_until_a_write_that_saw_them() {
    let mut world = World::new(3, |_| {});
    world.put(id(1), "k", Some("a"), Context::default()).unwrap();
    world.put(id(2), "k", Some("b"), Context::default()).unwrap();
    let found = world.get(id(3), "k", Consistency::All).unwrap();
    assert_eq!(found.set.values().count(), 2);
    world.put(id(3), "k", Some("c"), found.set.context().clone()).unwrap();
    assert_eq!(world.values(id(1), "k"), ["c"]);
}

#[test]
fn the_ring_serves_while_a_node_is_away_and_heals_it_afterwards() {
    let mut world = World::new(3, |config| config.anti_entropy_interval = Duration::from_secs(2));
    world.put(id(1), "before", Some("1"), Context::default()).unwrap();
    world.crash(id(2));
    for at in 0..50 {
        world.put(id(1), &format!("k{at}"), Some("v"), Context::default()).unwrap();
    }
    assert_eq!(world.values(id(3), "before"), ["1"]);
    let all = world.get(id(1), "before", Consistency::All);
    assert!(matches!(all, Err(Refusal::Unavailable { needed: 3, .. })), "{all:?}");
    world.start(id(2), 2);
    world.until("all owners are equal", |world| (0..50).all(|at| world.is_converged(&format!("k{at}"))));
    assert_eq!(world.get(id(2), "k7", Consistency::All).unwrap().receipt.replicas, 3);
}

#[test]
fn too_few_owners_refuse_before_anything_is_written() {
    let mut world = World::new(3, |_| {});
    world.crash(id(2));
    world.crash(id(3));
    world.until("they are called down", |world| {
        let replica = &world.nodes[&id(1)].replica;
        !replica.is_up(id(2)) && !replica.is_up(id(3))
    });
    let refused = world.put(id(1), "k", Some("v"), Context::default());
    assert_eq!(refused, Err(Refusal::Unavailable { needed: 2, reachable: 1 }));
    assert!(world.get(id(1), "k", Consistency::One).unwrap().set.versions().is_empty());
}

#[test]
fn an_old_copy_of_a_disk_is_found_out() {
    let mut world = World::new(3, |_| {});
    let backup = world.disks[&id(1)].backup();
    for at in 0..20 {
        world.put(id(1), &format!("k{at}"), Some("v"), Context::default()).unwrap();
    }
    // Gossip carries how far the log is synced.
    (0..300).for_each(|_| world.step());
    world.crash(id(1));
    world.disks[&id(1)].restore(&backup);
    world.start(id(1), 2);
    world.until("it is found out", |world| world.amnesia.contains(&id(1)));
    assert!(!world.nodes[&id(1)].replica.is_claimed());
    let refused = world.put(id(1), "k", Some("v"), Context::default());
    assert_eq!(refused, Err(Refusal::Starting));
}

#[test]
fn sloppy_or_strict_the_kind_is_in_the_receipt() {
    for kind in [QuorumKind::Strict, QuorumKind::Sloppy] {
        let mut world = World::new(4, |config| config.kind = kind);
        let written = world.put(id(1), "k", Some("v"), Context::default()).unwrap();
        assert_eq!((written.receipt.kind, written.receipt.needed), (kind, 2));
    }
}

#[test]
fn a_deleted_key_is_forgotten_by_all_and_stays_deleted() {
    let mut world = World::new(5, |config| config.anti_entropy_interval = Duration::from_secs(2));
    for at in 0..20 {
        let key = format!("k{at}");
        let written = world.put(id(1), &key, Some("v"), Context::default()).unwrap();
        world.put(id(2), &key, None, written.context).unwrap();
    }
    world.until("nobody keeps a trace", |world| {
        world.nodes.values().all(|node| node.engine.access().usage().keys == 0)
    });
    assert!(world.values(id(3), "k7").is_empty());
    world.put(id(3), "k7", Some("again"), Context::default()).unwrap();
    assert_eq!(world.values(id(4), "k7"), ["again"]);
}

/// Three nodes that hold `kept`, and no trace of `deleted`. Then the disks of some lose the segment that says so.
fn ring_with_lost_segments(hurt: u128) -> World {
    let mut world = World::new(3, |config| config.anti_entropy_interval = Duration::from_secs(2));
    let roll = |world: &mut World, name| {
        world.nodes.values_mut().for_each(|node| {
            node.engine.snapshot(name).unwrap();
        });
    };
    world.put(id(1), "kept", Some("v"), Context::default()).unwrap();
    let written = world.put(id(1), "deleted", Some("v"), Context::default()).unwrap();
    world.until("all have both", |world| world.nodes.values().all(|n| n.engine.access().usage().keys == 2));
    roll(&mut world, "first");
    world.put(id(2), "deleted", None, written.context).unwrap();
    world.until("it is forgotten", |world| world.nodes.values().all(|n| n.engine.access().usage().keys == 1));
    roll(&mut world, "second");
    for node in (1..=hurt).map(id) {
        world.crash(node);
        assert!(world.disks[&node].rot("0000000000000002-0000000000000002.log", 20, 0));
    }
    for node in (1..=hurt).map(id) {
        world.start(node, 2);
        let access = world.nodes[&node].engine.access();
        assert!(!access.quarantined().is_empty());
        assert_eq!(access.usage().keys, 0, "nothing is sure");
    }
    world.until("all is served again", |world| {
        world.nodes.values().all(|node| {
            let quarantined = node.engine.access().quarantined();
            node.replica.is_claimed() && quarantined.is_empty()
        })
    });
    world.until("all have what is left", |world| world.is_converged("kept") && world.is_converged("deleted"));
    world
}

#[test]
fn a_lost_segment_brings_nothing_back_that_was_deleted() {
    let mut world = ring_with_lost_segments(1);
    assert!(world.nodes.values().all(|node| node.engine.access().usage().keys == 1));
    assert_eq!((world.values(id(1), "kept"), world.values(id(1), "deleted")), (vec!["v".into()], vec![]));
}

#[test]
fn owners_that_lost_segments_together_keep_what_is_left() {
    for hurt in 2..=3 {
        let mut world = ring_with_lost_segments(hurt);
        assert_eq!(world.values(id(1), "kept"), ["v"], "{hurt} of 3 were hurt");
    }
}

#[test]
fn a_sloppy_ring_writes_while_owners_are_away_and_hands_off_when_they_are_back() {
    let mut world = World::new(5, |config| {
        config.kind = QuorumKind::Sloppy;
        config.anti_entropy_interval = Duration::ZERO; // Hints alone shall do it.
    });
    let partition = world.epoch.partitions().of_key(b"k");
    let owners: Vec<NodeId> = world.epoch.owners(partition).map(|owner| owner.id).collect();
    world.crash(owners[1]);
    world.crash(owners[2]);
    world.until("they are called down", |world| {
        world.nodes.values().all(|node| owners[1..].iter().all(|owner| !node.replica.is_up(*owner)))
    });
    let written = world.put(owners[0], "k", Some("v"), Context::default()).unwrap();
    assert_eq!((written.receipt.replicas, written.receipt.hints), (1, 1));
    let kept = |world: &World| world.nodes.values().map(|n| n.replica.hints_owed().count()).sum::<usize>();
    world.until("both hints are kept", |world| kept(world) == 2);
    world.start(owners[1], 2);
    world.start(owners[2], 2);
    world.until("the hints are delivered", |world| kept(world) == 0 && world.is_converged("k"));
    assert!(world.nodes.values().all(|node| node.replica.hints_balance()));
}
