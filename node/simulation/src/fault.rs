//! What goes wrong, and how it ends.

use std::time::Duration;

use quorate_storage::State;
use quorate_storage::disk::simulated::SimulatedDisk;

use crate::check::outdated::Held;
use crate::dice::Dice;
use crate::history::{Verdict, Violation};
use crate::machine::{Copied, Documents, Restored};
use crate::scenario::{Fault, FaultKind, SAFETY};
use crate::world::{DISK_BYTES, Event, World, new_node};

/// How long a node is away that finds out that its disk went back in time.
const BEGIN_ANEW: Duration = Duration::from_millis(500);
/// Where a segment begins.
const HEADER_BYTES: u64 = 96;
/// How long a connection stands that carries nothing in one direction.
const CONNECTION_STANDS: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(4));

impl World {
    pub(crate) fn plan_faults(&mut self) {
        for fault in 0..self.scenario.faults.len() {
            let Fault { at, kind, .. } = self.scenario.faults[fault];
            self.queue.push(at, Event::FaultBegins { fault });
            if let FaultKind::RestoredDisk { age, .. } = kind {
                self.queue.push(at.saturating_sub(age), Event::Copy { fault });
            }
        }
    }

    pub(crate) fn copy_disk(&mut self, fault: usize) -> Verdict {
        if let FaultKind::RestoredDisk { node, .. } = self.scenario.faults[fault].kind {
            let at = &mut self.machines[node];
            let copied = Copied { disk: at.disk.backup(), documents: at.documents.clone() };
            at.copies.insert(fault, copied);
        }
        Ok(())
    }

    pub(crate) fn fault_begins(&mut self, number: usize) -> Verdict {
        let Fault { lasts, mut kind, dice, .. } = self.scenario.faults[number].clone();
        if let FaultKind::Rot { node } | FaultKind::LostDisk { node } | FaultKind::RestoredDisk { node, .. } =
            kind
            && self.scenario.ring.is_live()
            && !self.may_lose(self.machines[node].documents.node)
        {
            kind = FaultKind::Crash { node, operations: dice % 6 };
        }
        *self.faults.entry(kind.name()).or_default() += 1;
        self.trace.add(20, number as u64, 0, kind.name().as_bytes());
        self.trace.say(|| format!("FAULT {kind:?} for {lasts:?}"));
        let dice = &mut Dice::new(dice);
        match kind {
            FaultKind::Crash { node, operations } => self.crash(node, operations, dice),
            FaultKind::Kill { node } => {
                self.stop(node);
                self.machines[node].disk.kill_process();
            }
            FaultKind::Pause { node } => {
                let until = self.now + lasts;
                let at = &mut self.machines[node];
                at.paused_until = at.paused_until.max(until);
                at.stalled_until = at.stalled_until.max(until);
            }
            FaultKind::SlowNode { node, factor } => {
                self.machines[node].slow = factor;
                self.stall(node, lasts);
            }
            FaultKind::SlowDisk { node, factor } => {
                self.machines[node].disk_slow = factor;
            }
            FaultKind::FullDisk { node } => {
                let disk = &self.machines[node].disk;
                disk.set_capacity_bytes(disk.used_bytes() + dice.below(2 << 20));
            }
            FaultKind::FailingSyncs { node, count } => self.machines[node].disk.fail_syncs(count),
            FaultKind::FailingWrites { node, count } => self.machines[node].disk.fail_writes(count),
            FaultKind::Rot { node } => self.rot(node, dice),
            FaultKind::LostDisk { node } => {
                self.stop(node);
                self.lose_disk(node);
            }
            FaultKind::RestoredDisk { node, .. } => self.restore_disk(node, number),
            FaultKind::ClockJump { node, offset_ms } => self.machines[node].clock.set_offset_ms(offset_ms),
            FaultKind::Partition { sides, one_way } => self.cut(sides, one_way, dice),
            FaultKind::Loss { per_mille } => self.network.more_lost_per_mille += per_mille,
            FaultKind::Delay { per_mille } => self.network.more_late_per_mille += per_mille,
            FaultKind::Break { node } => self.break_all(node),
        }
        let ends = (self.now + lasts).min(SAFETY).max(self.now);
        self.queue.push(ends, Event::FaultEnds { fault: number });
        Ok(())
    }

    pub(crate) fn fault_ends(&mut self, number: usize) -> Verdict {
        if self.is_safe {
            return Ok(());
        }
        let kind = self.scenario.faults[number].kind;
        self.trace.say(|| format!("fault ends: {kind:?}"));
        match kind {
            FaultKind::Crash { node, .. }
            | FaultKind::Kill { node }
            | FaultKind::Rot { node }
            | FaultKind::LostDisk { node }
            | FaultKind::RestoredDisk { node, .. } => return self.start(node),
            FaultKind::SlowNode { node, .. } => self.machines[node].slow = 1,
            FaultKind::SlowDisk { node, .. } => self.machines[node].disk_slow = 1,
            FaultKind::FullDisk { node } => self.machines[node].disk.set_capacity_bytes(DISK_BYTES),
            FaultKind::ClockJump { node, .. } => self.machines[node].clock.set_offset_ms(0),
            FaultKind::Partition { sides, one_way } => self.each_cut(sides, one_way, |world, from, to| {
                world.network.unblock(from, to);
            }),
            FaultKind::Loss { per_mille } => {
                self.network.more_lost_per_mille = self.network.more_lost_per_mille.saturating_sub(per_mille);
            }
            FaultKind::Delay { per_mille } => {
                self.network.more_late_per_mille = self.network.more_late_per_mille.saturating_sub(per_mille);
            }
            FaultKind::FailingSyncs { node, .. } => {
                let mut dice = Dice::new(self.scenario.faults[number].dice);
                self.crash(node, 0, &mut dice);
                self.after(BEGIN_ANEW, Event::Start { machine: node });
            }
            FaultKind::Pause { .. } | FaultKind::FailingWrites { .. } | FaultKind::Break { .. } => {}
        }
        Ok(())
    }

    /// Everything that can be made good is.
    pub(crate) fn safety_ends(&mut self) -> Verdict {
        self.is_safe = true;
        self.trace.say(|| "faults are over".into());
        self.network.heal();
        for node in 0..self.machines.len() {
            let at = &mut self.machines[node];
            at.clock.set_offset_ms(0);
            at.disk.set_capacity_bytes(DISK_BYTES);
            at.disk.fail_syncs(0);
            at.disk.fail_writes(0);
            (at.slow, at.disk_slow) = (1, 1);
            at.paused_until = at.paused_until.min(self.now);
            // A store that failed for good is started anew, as whoever runs the node would.
            let failed =
                at.process.as_ref().is_some_and(|process| process.engine.usage().state == State::Failed);
            if failed {
                self.stop(node);
                self.machines[node].disk.kill_process();
            }
            self.start(node)?;
        }
        Ok(())
    }

    /// A node may take longer for a while.
    fn stall(&mut self, node: usize, lasts: Duration) {
        let at = &mut self.machines[node];
        at.stalled_until = at.stalled_until.max(self.now + lasts);
    }

    /// The power goes, at once or in the middle of what the disk does next.
    fn crash(&mut self, node: usize, operations: u64, dice: &mut Dice) {
        let at = &mut self.machines[node];
        if let Some(process) = &mut at.process {
            at.disk.cut_power_after(operations);
            match dice.below(4) {
                0 => {
                    process.engine.spare_step();
                }
                1 => {
                    process.engine.merge_step();
                }
                _ => {
                    process.engine.prepare();
                    process.engine.commit();
                }
            }
        }
        self.stop(node);
        self.machines[node].disk.crash(dice.roll());
    }

    /// Bits of a segment change, often one of its header too, so that it is lost as a whole; and the node starts anew. The
    /// groups at the end of the log are left alone: there rot cannot be told from a write that the power cut tore.
    fn rot(&mut self, node: usize, dice: &mut Dice) {
        self.remember_held(node);
        self.stop(node);
        let disk = self.machines[node].disk.clone();
        disk.kill_process();
        let mut names: Vec<String> = disk.attach().list().unwrap_or_default();
        names.retain(|name| name.len() > 33 && name.as_bytes()[16] == b'-' && name.ends_with(".log"));
        names.sort();
        let whole = dice.chance(700);
        if !whole {
            names.pop();
        }
        if names.is_empty() {
            return;
        }
        // What the newest segments replaced is often still there.
        let newest = names.len() - 1;
        let at = if dice.chance(600) { newest } else { dice.below(names.len() as u64) as usize };
        let name = &names[at];
        let length = disk.bytes(name).map_or(0, |bytes| bytes.len() as u64);
        let count = dice.pick(&[1, 10, 100]);
        let mut rot = |below| {
            if below > 0 && disk.rot(name, dice.below(below) as usize, dice.below(8) as u8) {
                self.losses.add(self.machines[node].documents.node);
            }
        };
        (0..count).for_each(|_| rot(length));
        if whole {
            rot(HEADER_BYTES.min(length));
        }
    }

    fn remember_held(&mut self, machine: usize) {
        let node = self.machines[machine].documents.node;
        let held = |key| Some((key, self.held(node, key)?.1));
        let held: Held = self.history.keys().filter_map(held).collect();
        self.machines[machine].held_before = held;
    }

    /// The disk is gone: what comes back is another node.
    pub(crate) fn lose_disk(&mut self, node: usize) {
        self.losses.add(self.machines[node].documents.node);
        self.wipe(node);
    }

    /// An empty disk: what starts from it is another node.
    pub(crate) fn wipe(&mut self, node: usize) {
        let (disk_dice, id) = (self.dice.roll(), new_node(&mut self.dice));
        let at = &mut self.machines[node];
        at.disk = SimulatedDisk::new(disk_dice, DISK_BYTES);
        at.documents = Documents::empty(id);
        at.copies.clear();
        at.restored = None;
        at.held_before.clear();
    }

    fn restore_disk(&mut self, node: usize, fault: usize) {
        self.stop(node);
        let at = &mut self.machines[node];
        at.disk.kill_process();
        // Without a copy, or with one of a disk that is gone by now, it is a restart like others.
        let Some(Copied { disk, documents }) = at.copies.remove(&fault) else { return };
        let id = at.documents.node;
        let starts =
            |machine: &crate::machine::Machine| machine.documents.starts.get(&id).map(|known| known.position);
        at.disk.restore(&disk);
        at.held_before.clear();
        at.documents = documents;
        let known = self.machines.iter().enumerate().filter(|(other, _)| *other != node);
        let known =
            known.filter_map(|(_, machine)| Some((machine.documents.node, starts(machine)?))).collect();
        self.losses.add(id);
        // What it knew of others may be gone as well.
        for restored in self.machines.iter_mut().filter_map(|machine| machine.restored.as_mut()) {
            restored.known.remove(&id);
        }
        self.machines[node].restored = Some(Restored { node: id, ended: None, known });
    }

    /// A node found out that its disk went back in time.
    pub(crate) fn forget_identity(&mut self, machine: usize, known_start: u64) -> Verdict {
        let id = self.machines[machine].documents.node;
        self.trace.say(|| format!("n{machine} gives up its identity: start {known_start} is known"));
        *self.faults.entry("found-out").or_default() += 1;
        if !self.losses.contains(id) {
            let what =
                format!("n{machine} ({id}) gave up its identity, and its disk never went back in time");
            return Err(Violation::new("INV-AMNESIA", what));
        }
        self.stop(machine);
        self.lose_disk(machine);
        self.after(BEGIN_ANEW, Event::Start { machine });
        Ok(())
    }

    fn each_cut(&mut self, sides: u32, one_way: bool, mut each: impl FnMut(&mut Self, usize, usize)) {
        let side = |node: usize| sides >> node & 1;
        for from in 0..self.machines.len() {
            for to in 0..self.machines.len() {
                let apart = side(from) != side(to) && (!one_way || side(from) == 1);
                if from != to && apart {
                    each(self, from, to);
                }
            }
        }
    }

    fn cut(&mut self, sides: u32, one_way: bool, dice: &mut Dice) {
        let mut cuts = Vec::new();
        self.each_cut(sides, one_way, |world, from, to| {
            world.network.block(from, to);
            cuts.push((from, to));
        });
        for (from, to) in cuts {
            // Connections that carry nothing are given up sooner or later.
            if dice.chance(600) {
                let stands = dice.time(CONNECTION_STANDS.0, CONNECTION_STANDS.1);
                self.after(stands, Event::Break { one: from, other: to });
            }
        }
    }

    fn break_all(&mut self, node: usize) {
        for other in 0..self.machines.len() {
            if other != node {
                self.break_connection(node, other);
            }
        }
    }
}
