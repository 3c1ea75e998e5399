//! A network of a few lines: seeded delays, losses and doubles, partitions, crashes, pauses; no threads, no
//! clock.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use super::*;

/// When the network begins.
const BEGIN_UNIX_MS: u64 = 1_800_000_000_000;

pub(super) const DETECT_AFTER: Duration = Duration::from_secs(5);

pub(super) fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

pub(super) fn id(number: usize) -> NodeId {
    NodeId::from_u128(number as u128 + 1)
}

pub(super) fn address(number: usize) -> String {
    format!("10.0.{}.{}:5000", number / 256, number % 256)
}

pub(super) fn info(number: usize) -> NodeInfo {
    let zone = Some(format!("zone-{}", number % 3));
    NodeInfo { id: id(number), name: format!("node-{number}"), address: address(number), zone }
}

/// Splitmix64.
pub(super) fn dice(seed: u64) -> impl FnMut() -> u64 {
    let mut state = seed;
    move || {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let x = (state ^ state >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let x = (x ^ x >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        x ^ x >> 31
    }
}

/// One process. Its position in the network is its host; the address says where it is reached.
pub(super) struct Process {
    pub(super) membership: Membership,
    address: String,
    running: bool,
    /// Nodes of different sides do not reach each other.
    pub(super) side: u8,
    /// How far its clock is ahead of the true time, negative when behind.
    pub(super) clock_ms: i64,
    paused_until: Duration,
}

impl Process {
    fn tell_time(&mut self, now: Duration) {
        let true_unix_ms = BEGIN_UNIX_MS + now.as_millis() as u64;
        self.membership.time_of_day(true_unix_ms.saturating_add_signed(self.clock_ms));
    }
}

enum Event {
    Tick { host: usize },
    Deliver { side: u8, address: String, message: Message },
}

/// What some node saw happen to another.
pub(super) struct Sight {
    pub(super) at: Duration,
    pub(super) seen: NodeId,
    pub(super) state: State,
}

pub(super) struct Network {
    pub(super) now: Duration,
    pub(super) processes: Vec<Process>,
    pub(super) loss_permille: u64,
    pub(super) sights: Vec<Sight>,
    pub(super) sent: usize,
    dice: Box<dyn FnMut() -> u64>,
    events: BTreeMap<(Duration, usize), Event>,
    /// The hosts that ever had an address.
    hosts: HashMap<String, Vec<usize>>,
    next_event: usize,
}

impl Network {
    pub(super) fn new(seed: u64) -> Self {
        Self {
            now: Duration::ZERO,
            processes: Vec::new(),
            loss_permille: 0,
            sights: Vec::new(),
            sent: 0,
            dice: Box::new(dice(seed)),
            events: BTreeMap::new(),
            hosts: HashMap::new(),
            next_event: 0,
        }
    }

    /// A cluster where everybody was told of the first node only, after a while.
    pub(super) fn cluster(count: usize, seed: u64) -> Self {
        let mut network = Self::new(seed);
        for number in 0..count {
            network.start(info(number), 1, &[0]);
        }
        network.run_until_whole(Duration::from_secs(30));
        network
    }

    /// Starts a process on a new host, told of the seeds with these numbers.
    pub(super) fn start(&mut self, node: NodeInfo, start: u64, seeds: &[usize]) -> usize {
        let address = node.address.clone();
        let mut membership = Membership::new(node, start, Config::new(DETECT_AFTER), self.now).unwrap();
        membership.join(seeds.iter().map(|&seed| super::network::address(seed)), self.now);
        self.processes.push(Process {
            membership,
            address,
            running: true,
            side: 0,
            clock_ms: 0,
            paused_until: Duration::ZERO,
        });
        let host = self.processes.len() - 1;
        self.hosts.entry(self.processes[host].address.clone()).or_default().push(host);
        self.push(self.now, Event::Tick { host });
        host
    }

    pub(super) fn crash(&mut self, host: usize) {
        self.processes[host].running = false;
    }

    pub(super) fn pause(&mut self, host: usize, time: Duration) {
        self.processes[host].paused_until = self.now + time;
    }

    pub(super) fn leave(&mut self, host: usize) {
        let actions = self.processes[host].membership.leave(&mut *self.dice);
        self.perform(host, actions);
    }

    pub(super) fn running(&self) -> impl Iterator<Item = &Process> {
        self.processes.iter().filter(|p| p.running)
    }

    pub(super) fn view(&self, host: usize, of: usize) -> Option<&MemberView> {
        self.processes[host].membership.get(id(of))
    }

    /// Whether every running node sees every other one up, at its address.
    pub(super) fn is_whole(&self) -> bool {
        self.running().all(|p| {
            self.running().filter(|q| q.address != p.address).all(|q| {
                let seen = p.membership.get(q.membership.me().node.id);
                seen.is_some_and(|seen| seen.state == State::Up && seen.node.address == q.address)
            })
        })
    }

    /// Whether every other running node sees a node in a state.
    pub(super) fn all_see(&self, of: usize, state: State) -> bool {
        let others = self.running().filter(|p| p.membership.me().node.id != id(of));
        others.map(|p| p.membership.get(id(of)).map(|seen| seen.state)).all(|seen| seen == Some(state))
    }

    pub(super) fn run(&mut self, time: Duration) {
        let end = self.now + time;
        self.run_until(end, |_| false);
        self.now = end;
    }

    pub(super) fn run_until_whole(&mut self, limit: Duration) -> Duration {
        let begin = self.now;
        assert!(self.run_until(begin + limit, Self::is_whole), "not whole after {limit:?}");
        self.now - begin
    }

    /// Runs until the condition holds (checked every 10 ms); false when the time is over first.
    pub(super) fn run_until(&mut self, end: Duration, condition: impl Fn(&Self) -> bool) -> bool {
        let mut check_at = self.now;
        loop {
            if self.now >= check_at {
                if condition(self) {
                    return true;
                }
                check_at = self.now + ms(10);
            }
            match self.events.first_entry() {
                Some(entry) if entry.key().0 <= end => {
                    let ((at, _), event) = entry.remove_entry();
                    self.now = at;
                    self.happen(event);
                }
                _ => return condition(self),
            }
        }
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::Tick { host } => {
                let process = &mut self.processes[host];
                if !process.running {
                    return;
                }
                if process.paused_until > self.now {
                    let later = process.paused_until + ms(1);
                    return self.push(later, Event::Tick { host });
                }
                process.tell_time(self.now);
                let actions = process.membership.tick(self.now, &mut *self.dice);
                let next = process.membership.next_tick().max(self.now + ms(1));
                self.push(next, Event::Tick { host });
                self.perform(host, actions);
            }
            Event::Deliver { side, address, message } => {
                let reached = |&&host: &&usize| {
                    let process = &self.processes[host];
                    process.running && process.side == side
                };
                let hosts = self.hosts.get(&address).into_iter().flatten();
                let Some(&host) = hosts.rev().find(reached) else { return };
                let process = &mut self.processes[host];
                if process.paused_until > self.now {
                    let later = process.paused_until;
                    return self.push(later, Event::Deliver { side, address, message });
                }
                process.tell_time(self.now);
                let actions = process.membership.handle(message, self.now, &mut *self.dice).unwrap();
                self.perform(host, actions);
            }
        }
    }

    fn perform(&mut self, host: usize, actions: Vec<Action>) {
        for action in actions {
            match action {
                Action::Send { to, message } => self.send(host, to.address, message),
                Action::Changed(MemberView { node, state, .. }) => {
                    self.sights.push(Sight { at: self.now, seen: node.id, state });
                }
            }
        }
    }

    fn send(&mut self, host: usize, address: String, message: Message) {
        self.sent += 1;
        let side = self.processes[host].side;
        // One message in fifty arrives twice.
        let copies = if (self.dice)().is_multiple_of(50) { 2 } else { 1 };
        for _ in 0..copies {
            if (self.dice)() % 1000 >= self.loss_permille {
                let delay = ms(1 + (self.dice)() % 20);
                let (address, message) = (address.clone(), message.clone());
                self.push(self.now + delay, Event::Deliver { side, address, message });
            }
        }
    }

    fn push(&mut self, at: Duration, event: Event) {
        self.next_event += 1;
        self.events.insert((at, self.next_event), event);
    }
}
