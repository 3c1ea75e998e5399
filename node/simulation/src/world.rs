//! The world: machines, the network between them, clients, and what goes wrong, one event after the other.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use bytes::Bytes;
use quorate_core::ring::{Epoch, planner};
use quorate_core::{ClusterId, NodeId};
use quorate_replica::{Answer, Record, Sender};
use quorate_storage::disk::simulated::SimulatedDisk;

use crate::check::fence::Fence;
use crate::check::hint::Hints;
use crate::check::outdated::Held;
use crate::client::{Client, Pending};
use crate::clock::Clock;
use crate::dice::Dice;
use crate::history::{History, KeyId, OpId, Verdict, Violation};
use crate::losses::Losses;
use crate::machine::{Documents, Machine};
use crate::network::Network;
use crate::operator::{Operator, member};
use crate::queue::Queue;
use crate::scenario::{CLIENTS_END, END, SAFETY, Scenario, client_begins};
use crate::trace::Trace;

/// The cluster that is simulated.
pub(crate) const CLUSTER: ClusterId = ClusterId::from_u128(0x51);
/// What a disk holds when nobody disturbs it.
pub(crate) const DISK_BYTES: u64 = 4 << 30;
/// How long after the last request of clients keys are read at all owners.
const SWEEP_AFTER: Duration = Duration::from_secs(3);
/// When the operator looks for the first time whether the ring shall change.
const OPERATOR_BEGINS: Duration = Duration::from_secs(2);
/// A run that takes more events than this is stuck.
const EVENTS_MAX: u64 = 30_000_000;

/// What happens.
pub(crate) enum Event {
    /// A machine starts its process.
    Start { machine: usize },
    /// Something happens to a process: it waits while the process is busy.
    Process { machine: usize, run: u64, input: Input },
    /// A process that was busy goes on.
    Wake { machine: usize },
    /// A group reached the disk.
    Commit { machine: usize, run: u64 },
    /// The next slow read is done.
    SlowRead { machine: usize, run: u64 },
    /// Segments are prepared and merged.
    Background { machine: usize, run: u64 },
    /// A document reached the disk.
    Kept { machine: usize, run: u64, ticket: u64, record: Record },
    /// The operator tells whoever lacks the epoch.
    Push,
    /// The operator tells a member of an epoch.
    Tell { machine: usize, epoch: u64 },
    /// The operator looks whether the ring shall change.
    Operate,
    /// A request reaches its machine.
    Request { op: OpId },
    /// An answer reaches its client.
    Answered { op: OpId, answer: Reply },
    /// By now a request must be answered.
    Deadline { op: OpId, run: u64, accepted: Duration },
    /// A client may ask for something.
    Client { client: usize },
    /// Something goes wrong.
    FaultBegins { fault: usize },
    /// And is over.
    FaultEnds { fault: usize },
    /// A copy of a disk is made, for the fault that will restore it.
    Copy { fault: usize },
    /// A connection is given up.
    Break { one: usize, other: usize },
    /// Nothing goes wrong any more.
    SafetyEnds,
    /// What only reads repair is read.
    Sweep,
    /// All is looked at.
    End,
}

/// What a process is told.
pub(crate) enum Input {
    Frame { sender: Sender, from: usize, session: u64, bytes: Bytes },
    Unsent { request: u64 },
    Disconnected { peer: NodeId },
    Inbox,
    Tick { at: Duration },
    Client { op: OpId },
    Adopt { epoch: u64 },
}

/// What a client hears.
pub(crate) enum Reply {
    Answer(Answer),
    /// The connection was refused: nothing was sent.
    Refused,
    /// The connection broke.
    Broken,
}

/// What a run was like.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// The hash of everything that happened.
    pub hash: String,
    /// What was broken, if anything.
    pub violation: Option<Violation>,
    /// How long it lasted, in simulated time.
    pub lasted: Duration,
    /// Requests of clients.
    pub operations: u64,
    /// Of them answered as asked.
    pub succeeded: u64,
    /// Messages between nodes.
    pub messages: u64,
    /// Faults that happened, by kind.
    pub faults: BTreeMap<&'static str, u64>,
    /// What happened, for people; only when it was asked for.
    pub lines: Vec<String>,
}

pub(crate) struct World {
    pub(crate) scenario: Scenario,
    pub(crate) now: Duration,
    pub(crate) queue: Queue<Event>,
    pub(crate) dice: Dice,
    pub(crate) trace: Trace,
    pub(crate) machines: Vec<Machine>,
    pub(crate) network: Network,
    /// Sessions of which one side has ended: when the other side hears of it.
    pub(crate) ending: Vec<(Duration, usize, usize, u64)>,
    pub(crate) history: History,
    pub(crate) hints: Hints,
    pub(crate) fence: Fence,
    pub(crate) operator: Operator,
    pub(crate) clients: Vec<Client>,
    /// Requests that are not answered.
    pub(crate) pending: BTreeMap<OpId, Pending>,
    /// Nodes whose disk is gone, or lost something.
    pub(crate) losses: Losses,
    /// Of them those that serve on and do not know it.
    pub(crate) forgetful: BTreeSet<NodeId>,
    pub(crate) faults: BTreeMap<&'static str, u64>,
    pub(crate) succeeded: u64,
    /// Keys that were read at all owners at the end.
    pub(crate) swept: BTreeSet<KeyId>,
    /// Faults are over.
    pub(crate) is_safe: bool,
}

/// Runs a scenario.
pub fn run(scenario: &Scenario, lines: bool) -> Report {
    World::new(scenario.clone(), lines).run()
}

/// The same; a panic of the code that runs in it is a violation too.
pub fn run_guarded(scenario: &Scenario, lines: bool) -> Report {
    let ran = std::panic::catch_unwind(|| run(scenario, lines));
    ran.unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().cloned();
        let text = text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
        let violation = Some(Violation::new("panic", text.unwrap_or_default()));
        Report { violation, ..Report::default() }
    })
}

impl World {
    fn new(scenario: Scenario, lines: bool) -> Self {
        let mut dice = Dice::new(scenario.seed);
        let machines: Vec<Machine> = (0..scenario.machines).map(|_| machine(&mut dice)).collect();
        let operator = Operator::new(first_epoch(&scenario, &machines), scenario.seed);
        let network = Network::new(scenario.network, dice.fork());
        let clients = scenario.clients.iter().map(|plan| Client::new(plan.clone())).collect();
        let mut world = Self {
            history: History::new(scenario.policy, scenario.clock_ahead_ms(), scenario.clocks_are_believed()),
            now: Duration::ZERO,
            queue: Queue::new(),
            trace: Trace::new(lines),
            dice,
            machines,
            network,
            ending: Vec::new(),
            hints: Hints::default(),
            fence: Fence::default(),
            operator,
            clients,
            pending: BTreeMap::new(),
            losses: Losses::default(),
            forgetful: BTreeSet::new(),
            faults: BTreeMap::new(),
            succeeded: 0,
            swept: BTreeSet::new(),
            is_safe: false,
            scenario,
        };
        world.plan();
        world
    }

    /// What is known from the start to happen.
    fn plan(&mut self) {
        // Machines that are no members begin when they join, if nothing starts them before. The real operator waits until they
        // run: so it does in calm runs.
        let begin = if self.scenario.is_calm { self.scenario.machines } else { self.scenario.nodes };
        for machine in 0..begin {
            let at = self.dice.time(Duration::ZERO, Duration::from_millis(100));
            self.queue.push(at, Event::Start { machine });
        }
        self.queue.push(Duration::from_millis(300), Event::Push);
        if self.scenario.ring.is_live() {
            self.queue.push(OPERATOR_BEGINS, Event::Operate);
        }
        for client in 0..self.clients.len() {
            for _ in 0..self.clients[client].plan.width {
                let at = client_begins(&mut self.clients[client].dice);
                self.queue.push(at, Event::Client { client });
            }
        }
        self.plan_faults();
        self.queue.push(SAFETY, Event::SafetyEnds);
        self.queue.push(CLIENTS_END + SWEEP_AFTER, Event::Sweep);
        self.queue.push(END, Event::End);
    }

    fn run(mut self) -> Report {
        let violation = self.happen().err();
        if let Some(Violation { invariant, what }) = &violation {
            self.trace.say(|| format!("VIOLATION {invariant}: {what}"));
        }
        let (hash, lines) = self.trace.finish();
        Report {
            hash,
            violation,
            lasted: self.now,
            operations: self.history.len() as u64,
            succeeded: self.succeeded,
            messages: self.network.messages,
            faults: self.faults,
            lines,
        }
    }

    fn happen(&mut self) -> Verdict {
        let mut events = 0;
        while let Some((at, event)) = self.queue.pop() {
            self.now = at;
            self.trace.set_now(at);
            events += 1;
            if events > EVENTS_MAX {
                return Err(Violation::new("INV-BOUND", "the nodes never come to rest"));
            }
            if matches!(event, Event::End) {
                return self.check_end();
            }
            self.handle(event)?;
        }
        Ok(())
    }

    fn handle(&mut self, event: Event) -> Verdict {
        match event {
            Event::Start { machine } => self.start(machine),
            Event::Process { machine, run, input } => self.arrive(machine, run, input),
            Event::Wake { machine } => self.wake(machine),
            Event::Commit { machine, run } => self.commit(machine, run),
            Event::SlowRead { machine, run } => self.slow_read(machine, run),
            Event::Background { machine, run } => self.background(machine, run),
            Event::Kept { machine, run, ticket, record } => self.kept(machine, run, ticket, record),
            Event::Push => self.push(),
            Event::Tell { machine, epoch } => self.tell(machine, epoch),
            Event::Operate => self.operate(),
            Event::Request { op } => self.request(op),
            Event::Answered { op, answer } => self.answered(op, answer),
            Event::Deadline { op, run, accepted } => self.deadline(op, run, accepted),
            Event::Client { client } => self.ask_something(client),
            Event::FaultBegins { fault } => self.fault_begins(fault),
            Event::FaultEnds { fault } => self.fault_ends(fault),
            Event::Copy { fault } => self.copy_disk(fault),
            Event::Break { one, other } => {
                self.break_connection(one, other);
                Ok(())
            }
            Event::SafetyEnds => self.safety_ends(),
            Event::Sweep => self.sweep(),
            Event::End => Ok(()),
        }
    }

    pub(crate) fn after(&mut self, delay: Duration, event: Event) {
        self.queue.push(self.now + delay, event);
    }
}

fn machine(dice: &mut Dice) -> Machine {
    let drift = dice.between(0, 200) as i64 - 100;
    Machine {
        disk: SimulatedDisk::new(dice.roll(), DISK_BYTES),
        documents: Documents::empty(new_node(dice)),
        clock: Clock::new(drift),
        process: None,
        runs: 0,
        busy_until: Duration::ZERO,
        paused_until: Duration::ZERO,
        stalled_until: Duration::ZERO,
        slow: 1,
        disk_slow: 1,
        backlog: Default::default(),
        waking: false,
        copies: BTreeMap::new(),
        restored: None,
        held_before: Held::new(),
    }
}

/// The identity of an empty disk.
pub(crate) fn new_node(dice: &mut Dice) -> NodeId {
    NodeId::from_u128(u128::from(dice.roll()) << 64 | u128::from(dice.roll()))
}

/// How a machine is reached.
pub(crate) fn address(machine: usize) -> String {
    format!("n{machine}:5000")
}

/// The machine that is reached so.
pub(crate) fn machine_at(address: &str) -> Option<usize> {
    address.strip_prefix('n')?.strip_suffix(":5000")?.parse().ok()
}

/// The zone of a machine.
pub(crate) fn zone(machine: usize) -> String {
    format!("z{}", machine % 3)
}

fn first_epoch(scenario: &Scenario, machines: &[Machine]) -> Epoch {
    let members = machines.iter().take(scenario.nodes).enumerate();
    let members = members.map(|(at, machine)| member(machine.documents.node, at)).collect();
    planner::first_epoch(CLUSTER, scenario.partitions, scenario.replication, members)
        .expect("scenarios have at least as many nodes as replicas")
}
