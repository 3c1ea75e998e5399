//! What a seed stands for: a cluster, its network, what goes wrong when, and what clients do.
//!
//! All of it is drawn before anything runs, fault by fault and client by client with dice of their own, so that a failing
//! schedule can be shrunk: what is left out changes nothing of the rest.

use std::fmt;
use std::time::Duration;

use quorate_core::causality::{CLOCK_AHEAD_MAX_MS, Policy};
use quorate_core::quorum::QuorumKind;
use quorate_core::ring::Replication;

use crate::changes::{MACHINES_MAX, RingPlan};
use crate::dice::Dice;

const fn ms(count: u64) -> Duration {
    Duration::from_millis(count)
}

const fn us(count: u64) -> Duration {
    Duration::from_micros(count)
}

/// Faults end by then: the safety mode is over, and the liveness mode begins.
pub(crate) const SAFETY: Duration = Duration::from_secs(34);
/// By then every request must succeed.
pub(crate) const SETTLED: Duration = Duration::from_secs(44);
/// Clients stop.
pub(crate) const CLIENTS_END: Duration = Duration::from_secs(49);
/// Everything is looked at.
pub(crate) const END: Duration = Duration::from_secs(60);
/// By then every request must succeed in a run in which nothing goes wrong: nodes have found each other.
pub(crate) const CALM: Duration = Duration::from_millis(2500);
/// When clients begin.
const CLIENTS_BEGIN: Duration = Duration::from_secs(1);
/// Faults begin.
const FAULTS_BEGIN: Duration = Duration::from_secs(2);

/// What clocks that run too fast gain in a run, and then some.
const DRIFT_MS_MAX: u64 = 100;

/// A whole run.
#[derive(Clone, Debug)]
pub struct Scenario {
    pub(crate) seed: u64,
    /// Members of the ring at the start: the first machines.
    pub(crate) nodes: usize,
    pub(crate) machines: usize,
    pub(crate) partitions: u32,
    pub(crate) replication: Replication,
    pub(crate) kind: QuorumKind,
    pub(crate) policy: Policy,
    pub(crate) request_timeout: Duration,
    pub(crate) detect_after: Duration,
    /// Zero for never.
    pub(crate) anti_entropy: Duration,
    pub(crate) segment_bytes: u32,
    pub(crate) operations_max: usize,
    pub(crate) network: NetworkPlan,
    pub(crate) sync_takes: Duration,
    /// Per thousand of the reads of the disk that have to wait.
    pub(crate) cold_per_mille: u64,
    pub(crate) faults: Vec<Fault>,
    pub(crate) clients: Vec<ClientPlan>,
    pub(crate) ring: RingPlan,
    /// Nothing goes wrong but that the ring changes.
    pub(crate) is_calm: bool,
}

/// The network while nobody disturbs it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct NetworkPlan {
    pub(crate) delay: Duration,
    pub(crate) lost_per_mille: u64,
    pub(crate) doubled_per_mille: u64,
    /// Of messages that are late by up to a second.
    pub(crate) late_per_mille: u64,
    pub(crate) bytes_per_second: u64,
}

/// Something that goes wrong.
#[derive(Clone, Debug)]
pub(crate) struct Fault {
    pub(crate) at: Duration,
    pub(crate) lasts: Duration,
    pub(crate) kind: FaultKind,
    /// For what is drawn when it happens.
    pub(crate) dice: u64,
}

/// What.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum FaultKind {
    /// The power goes, and comes back at the end; after so many operations of the disk, when it can.
    Crash { node: usize, operations: u64 },
    /// The process stops, with the disk's cache left.
    Kill { node: usize },
    /// Nothing moves.
    Pause { node: usize },
    /// Everything takes longer.
    SlowNode { node: usize, factor: u32 },
    /// Syncs take longer.
    SlowDisk { node: usize, factor: u32 },
    /// There is no more room.
    FullDisk { node: usize },
    /// Some syncs fail, and soon after the power goes.
    FailingSyncs { node: usize, count: u32 },
    /// Some writes fail, halfway.
    FailingWrites { node: usize, count: u32 },
    /// Bits of a sealed segment change; the node starts anew.
    Rot { node: usize },
    /// The disk is lost with the node, which comes back with an empty one.
    LostDisk { node: usize },
    /// The node comes back with a copy of its disk that was made this long before.
    RestoredDisk { node: usize, age: Duration },
    /// The wall clock jumps.
    ClockJump { node: usize, offset_ms: i64 },
    /// Nodes of one side (bits) do not hear the other side.
    Partition { sides: u32, one_way: bool },
    /// Many messages are lost.
    Loss { per_mille: u64 },
    /// Many messages are late.
    Delay { per_mille: u64 },
    /// Every connection of a node breaks.
    Break { node: usize },
}

impl FaultKind {
    /// Whether a disk loses what was on it, or some of it.
    pub(crate) fn loses(self) -> bool {
        matches!(self, Self::Rot { .. } | Self::LostDisk { .. } | Self::RestoredDisk { .. })
    }

    /// For counting.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Crash { .. } => "crash",
            Self::Kill { .. } => "kill",
            Self::Pause { .. } => "pause",
            Self::SlowNode { .. } => "slow-node",
            Self::SlowDisk { .. } => "slow-disk",
            Self::FullDisk { .. } => "full-disk",
            Self::FailingSyncs { .. } => "failing-sync",
            Self::FailingWrites { .. } => "failing-write",
            Self::Rot { .. } => "rot",
            Self::LostDisk { .. } => "lost-disk",
            Self::RestoredDisk { .. } => "restored-disk",
            Self::ClockJump { .. } => "clock-jump",
            Self::Partition { one_way: true, .. } => "one-way-partition",
            Self::Partition { .. } => "partition",
            Self::Loss { .. } => "loss",
            Self::Delay { .. } => "delay",
            Self::Break { .. } => "break",
        }
    }
}

/// A client.
#[derive(Clone, Debug)]
pub(crate) struct ClientPlan {
    pub(crate) dice: u64,
    /// The node that it likes.
    pub(crate) home: usize,
    /// Between an answer and the next request.
    pub(crate) think: Duration,
    /// Requests at the same time.
    pub(crate) width: u64,
    /// Keys that it uses: the first are everybody's.
    pub(crate) keys: u64,
    pub(crate) large_per_mille: u64,
    pub(crate) mix: Mix,
}

/// Weights of what a client does.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Mix {
    pub(crate) read: u64,
    pub(crate) blind_put: u64,
    pub(crate) modify: u64,
    pub(crate) delete: u64,
    pub(crate) blind_delete: u64,
    pub(crate) stale: u64,
    pub(crate) expiring: u64,
}

impl Scenario {
    /// What this seed stands for.
    pub fn draw(seed: u64) -> Self {
        Self::draw_with(seed, draw_ring)
    }

    /// A calm run with what this seed stands for: nothing goes wrong, but the ring changes, and no request may fail.
    pub fn draw_calm(seed: u64) -> Self {
        let mut scenario = Self::draw_with(seed, draw_calm_ring);
        scenario.faults.clear();
        (scenario.network.lost_per_mille, scenario.network.late_per_mille) = (0, 0);
        scenario.is_calm = true;
        scenario
    }

    fn draw_with(seed: u64, draw_ring: DrawRing) -> Self {
        let mut dice = Dice::new(seed ^ 0x5175_6f72_6174_6521);
        let mut nodes = dice.between(5, 9) as usize;
        let replication = dice.pick(&[
            replication(3, 2, 2),
            replication(3, 2, 2),
            replication(3, 2, 2),
            replication(5, 3, 3),
            replication(3, 1, 3),
            replication(3, 3, 1),
            replication(5, 2, 4),
            replication(2, 1, 2),
        ]);
        let mut machines = nodes;
        let ring = draw_ring(seed, &mut nodes, &mut machines, replication);
        let kind = if dice.chance(650) { QuorumKind::Strict } else { QuorumKind::Sloppy };
        let policy = if dice.chance(700) { Policy::Siblings } else { Policy::LastWriteWins };
        let anti_entropy = if dice.chance(750) { ms(dice.between(500, 3000)) } else { Duration::ZERO };
        let network = draw_network(&mut dice);
        let mut scenario = Self {
            seed,
            nodes,
            machines,
            partitions: dice.pick(&[8, 16, 16, 32]),
            replication,
            kind,
            policy,
            request_timeout: ms(dice.pick(&[500, 1000, 2000])),
            detect_after: ms(dice.pick(&[1000, 2000, 3000])),
            anti_entropy,
            segment_bytes: dice.pick(&[16 * 1024, 64 * 1024, 1024 * 1024]),
            operations_max: dice.pick(&[32, 1024, 16 * 1024]),
            network,
            sync_takes: us(dice.pick(&[100, 300, 2000, 8000])),
            cold_per_mille: dice.pick(&[0, 0, 100, 900]),
            faults: Vec::new(),
            clients: Vec::new(),
            ring,
            is_calm: false,
        };
        scenario.faults = draw_faults(&mut dice.fork(), &scenario);
        scenario.clients = draw_clients(&mut dice.fork(), machines);
        scenario
    }

    /// How far a clock is ever ahead of the truth.
    pub(crate) fn clock_ahead_ms(&self) -> u64 {
        let ahead = self.faults.iter().map(|fault| match fault.kind {
            FaultKind::ClockJump { offset_ms, .. } => offset_ms.max(0) as u64,
            _ => 0,
        });
        ahead.max().unwrap_or(0) + DRIFT_MS_MAX
    }

    /// Whether all clocks stay so close to each other that they believe each other.
    pub(crate) fn clocks_are_believed(&self) -> bool {
        let behind = self.faults.iter().map(|fault| match fault.kind {
            FaultKind::ClockJump { offset_ms, .. } => offset_ms.min(0).unsigned_abs(),
            _ => 0,
        });
        self.clock_ahead_ms() + behind.max().unwrap_or(0) + DRIFT_MS_MAX < CLOCK_AHEAD_MAX_MS
    }

    /// Disks that may be lost so that what was acknowledged is still there, and can still be read.
    pub(crate) fn losses_max(&self) -> u64 {
        let Replication { factor, read_quorum, write_quorum } = self.replication;
        let spare = factor - read_quorum.max(write_quorum);
        u64::from(spare.min(write_quorum - 1))
    }
}

/// For people: the cluster, then a line for each fault and client.
impl fmt::Display for Scenario {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Replication { factor, read_quorum, write_quorum } = self.replication;
        writeln!(
            f,
            "  {} nodes on {} machines, {} partitions, N={factor} R={read_quorum} W={write_quorum}, {:?}, {:?}, anti-entropy every \
             {:?}, time-out {:?}, detection {:?}, sync {:?}, {:?}",
            self.nodes,
            self.machines,
            self.partitions,
            self.kind,
            self.policy,
            self.anti_entropy,
            self.request_timeout,
            self.detect_after,
            self.sync_takes,
            self.network
        )?;
        for fault in &self.faults {
            writeln!(f, "  at {:?} for {:?}: {:?}", fault.at, fault.lasts, fault.kind)?;
        }
        if self.is_calm {
            writeln!(f, "  nothing goes wrong, and no request may fail")?;
        }
        if self.ring.is_live() {
            let RingPlan { replace_after, untold_per_mille, told_within, unanswered_per_mille, .. } =
                &self.ring;
            writeln!(
                f,
                "  members are told of an epoch within {told_within:?}, {untold_per_mille}/1000 not at all; of the \
                 operator's questions {unanswered_per_mille}/1000 get no answer; whoever is gone is replaced after \
                 {replace_after:?}"
            )?;
        }
        for change in &self.ring.changes {
            writeln!(f, "  at {:?}: {:?}", change.at, change.kind)?;
        }
        for client in &self.clients {
            let ClientPlan { home, think, width, keys, .. } = client;
            writeln!(
                f,
                "  a client of n{home}, {width} at once, {keys} keys, thinks {think:?}: {:?}",
                client.mix
            )?;
        }
        Ok(())
    }
}

/// Draws how the ring changes, from a seed, for so many nodes; it says how many nodes and machines there are with that.
type DrawRing = fn(u64, &mut usize, &mut usize, Replication) -> RingPlan;

/// Half of the seeds have a ring that changes, with machines that are no members at first. These dice are apart, so that the
/// other half does not depend on them.
fn draw_ring(seed: u64, nodes: &mut usize, machines: &mut usize, replication: Replication) -> RingPlan {
    let dice = &mut Dice::new(seed ^ 0x7269_6e67_7269_6e67);
    if dice.chance(500) {
        return RingPlan::none();
    }
    *machines = (*nodes + 1).min(MACHINES_MAX);
    let plan = RingPlan::draw(dice, *machines, usize::from(replication.factor));
    *nodes = *machines - plan.spares;
    plan
}

fn draw_calm_ring(seed: u64, nodes: &mut usize, machines: &mut usize, replication: Replication) -> RingPlan {
    let dice = &mut Dice::new(seed ^ 0x6361_6c6d_6361_6c6d);
    *machines = (*nodes + 1).min(MACHINES_MAX);
    let plan = RingPlan::draw_calm(dice, *machines, usize::from(replication.factor));
    *nodes = *machines - plan.spares;
    plan
}

fn replication(factor: u8, read_quorum: u8, write_quorum: u8) -> Replication {
    Replication { factor, read_quorum, write_quorum }
}

fn draw_network(dice: &mut Dice) -> NetworkPlan {
    NetworkPlan {
        delay: us(dice.pick(&[100, 300, 1000, 5000])),
        lost_per_mille: dice.pick(&[0, 0, 2, 20]),
        doubled_per_mille: dice.pick(&[0, 2, 20]),
        late_per_mille: dice.pick(&[0, 1, 10]),
        bytes_per_second: dice.pick(&[20, 100, 1000]) << 20,
    }
}

fn draw_faults(dice: &mut Dice, scenario: &Scenario) -> Vec<Fault> {
    let mut faults = Vec::new();
    // Where members are replaced, more may be lost in all: how many at a time is seen when it happens.
    let mut losses_left = if scenario.ring.is_live() { u64::MAX } else { scenario.losses_max() };
    for _ in 0..dice.pick(&[2, 6, 12, 20]) {
        let dice = &mut dice.fork();
        let at = dice.time(FAULTS_BEGIN, SAFETY - ms(500));
        let node = dice.below(scenario.machines as u64) as usize;
        let (mut kind, lasts) = draw_fault(dice, scenario.machines, node);
        if kind.loses() && losses_left == 0 {
            kind = FaultKind::Crash { node, operations: dice.below(6) };
        } else if kind.loses() {
            losses_left -= 1;
        }
        faults.push(Fault { at, lasts, kind, dice: dice.roll() });
    }
    if losses_left > 0 && dice.chance(400) {
        faults.push(draw_late_rot(&mut dice.fork(), scenario.nodes));
    }
    faults.sort_by_key(|fault| fault.at);
    faults
}

/// Rot when much was written, deleted and forgotten: then it has the most to bring back.
fn draw_late_rot(dice: &mut Dice, nodes: usize) -> Fault {
    let kind = FaultKind::Rot { node: dice.below(nodes as u64) as usize };
    Fault {
        at: dice.time(SAFETY / 2, SAFETY - ms(500)),
        lasts: ms(dice.between(100, 5000)),
        kind,
        dice: dice.roll(),
    }
}

fn draw_fault(dice: &mut Dice, nodes: usize, node: usize) -> (FaultKind, Duration) {
    let short = dice.time(ms(100), ms(5000));
    let long = dice.time(ms(1000), ms(12_000));
    match dice.below(100) {
        0..18 => (FaultKind::Crash { node, operations: dice.below(6) }, short),
        18..24 => (FaultKind::Kill { node }, short),
        24..32 => (FaultKind::Pause { node }, short),
        32..37 => (FaultKind::SlowNode { node, factor: dice.between(5, 200) as u32 }, long),
        37..43 => (FaultKind::SlowDisk { node, factor: dice.between(5, 200) as u32 }, long),
        43..46 => (FaultKind::FullDisk { node }, long),
        46..50 => (FaultKind::FailingSyncs { node, count: dice.between(1, 2) as u32 }, short / 4),
        50..52 => (FaultKind::FailingWrites { node, count: dice.between(1, 3) as u32 }, ms(1)),
        52..56 => (FaultKind::Rot { node }, short),
        56..60 => (FaultKind::LostDisk { node }, short),
        60..64 => (FaultKind::RestoredDisk { node, age: dice.time(ms(3000), ms(15_000)) }, short),
        64..73 => {
            let offset_ms = dice.between(0, 120_000) as i64 - 60_000;
            (FaultKind::ClockJump { node, offset_ms }, long)
        }
        73..88 => {
            let sides = dice.between(1, (1 << nodes) - 2) as u32;
            (FaultKind::Partition { sides, one_way: dice.chance(400) }, long)
        }
        88..92 => (FaultKind::Loss { per_mille: dice.between(20, 300) }, long),
        92..96 => (FaultKind::Delay { per_mille: dice.between(20, 300) }, long),
        _ => (FaultKind::Break { node }, ms(1)),
    }
}

fn draw_clients(dice: &mut Dice, nodes: usize) -> Vec<ClientPlan> {
    let keys = dice.pick(&[4, 20, 60, 200]);
    (0..dice.between(3, 10))
        .map(|_| {
            let dice = &mut dice.fork();
            let mix = dice.pick(&[
                Mix {
                    read: 40,
                    blind_put: 25,
                    modify: 20,
                    delete: 5,
                    blind_delete: 2,
                    stale: 5,
                    expiring: 3,
                },
                Mix { read: 30, blind_put: 5, modify: 60, delete: 3, blind_delete: 0, stale: 2, expiring: 0 },
                Mix {
                    read: 40,
                    blind_put: 10,
                    modify: 20,
                    delete: 25,
                    blind_delete: 5,
                    stale: 0,
                    expiring: 0,
                },
                Mix {
                    read: 20,
                    blind_put: 10,
                    modify: 10,
                    delete: 20,
                    blind_delete: 5,
                    stale: 15,
                    expiring: 20,
                },
            ]);
            let width = dice.pick(&[1, 1, 1, 1, 2, 16]);
            ClientPlan {
                dice: dice.roll(),
                home: dice.below(nodes as u64) as usize,
                think: ms(dice.pick(&[40, 100, 200, 500]) * width),
                width,
                keys,
                large_per_mille: dice.pick(&[0, 5, 30]),
                mix,
            }
        })
        .collect()
}

/// When a client begins.
pub(crate) fn client_begins(dice: &mut Dice) -> Duration {
    dice.time(CLIENTS_BEGIN, CLIENTS_BEGIN + ms(500))
}
