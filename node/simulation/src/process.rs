//! Runs the node of a machine: time, messages and the disk go in, what it wants done is done.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use quorate_core::causality::Actor;
use quorate_core::membership::{self, NodeInfo, Peer};
use quorate_core::planted::{self, Bug};
use quorate_core::ring::Epoch;
use quorate_replica::{Answer, Completion, Config, Effect, Identity, Record, Remembered, Replica, Sender};
use quorate_storage::{Engine, Options, Step};
use quorate_wire::frame::{self, FRAME_BYTES_MAX};
use quorate_wire::peer::{Cause, Frame, Request};

use crate::check::{amnesia, answers, outdated};
use crate::cold::cold;
use crate::history::{Verdict, Violation};
use crate::machine::{Handle, Machine, Mailbox, Process};
use crate::network::Session;
use crate::scenario::CLIENTS_END;
use crate::trace::shown;
use crate::watch::{Lost, Seen};
use crate::world::{CLUSTER, Event, Input, Reply, World, address, machine_at, zone};

/// What the processor does for one message.
const STEP: Duration = Duration::from_micros(12);
/// What the committer leaves free on a disk.
const RESERVE_BYTES: u64 = 256 * 1024;
/// Between two looks at what the storage may do in the background.
const BACKGROUND_INTERVAL: Duration = Duration::from_millis(60);
/// Waiting for so long for the processor is more than being busy.
const STALL: Duration = Duration::from_millis(50);
/// How soon a storage that cannot be opened is tried again.
const OPEN_AGAIN: Duration = Duration::from_millis(500);
/// How much of a message is shown to people.
const SHOWN_CHARACTERS_MAX: usize = 300;

impl World {
    /// How the nodes of this world behave.
    pub(crate) fn config(&self) -> Config {
        let mut config = Config::new((0..self.seeds()).map(address).collect());
        config.request_timeout = self.scenario.request_timeout;
        config.kind = self.scenario.kind;
        config.failure = membership::Config::new(self.scenario.detect_after);
        config.operations_max = self.scenario.operations_max;
        config.anti_entropy_interval = self.scenario.anti_entropy;
        config
    }

    /// How many machines a node finds others by: where members come and go, any may be one.
    fn seeds(&self) -> usize {
        if self.scenario.ring.is_live() { self.machines.len() } else { 3 }
    }

    pub(crate) fn start(&mut self, machine: usize) -> Verdict {
        if self.machines[machine].process.is_some() {
            return Ok(());
        }
        let now = self.machines[machine].clock.at(self.now);
        let documents = &mut self.machines[machine].documents;
        if !(planted::is(Bug::ReuseStart) && documents.start > 0) {
            documents.start = now.unix_ms.max(documents.start + 1);
        }
        let actor = Actor { node: documents.node, start: documents.start };
        let remembered = Remembered { ring: documents.ring.clone(), starts: documents.starts.clone() };
        let (cold_dice, replica_dice, nonce) = (self.dice.fork(), self.dice.fork(), self.dice.roll());
        let at = &mut self.machines[machine];
        at.runs += 1;
        let run = at.runs;
        at.disk.set_now(self.now);
        let options = Options {
            free_space_reserve_bytes: RESERVE_BYTES,
            segment_bytes: self.scenario.segment_bytes,
            ..Options::default()
        };
        let disk = cold(at.disk.attach(), cold_dice, self.scenario.cold_per_mille);
        let (engine, recovery) = match Engine::open(disk, actor, options) {
            Ok(opened) => opened,
            Err(error) => {
                self.trace.say(|| format!("n{machine} cannot open its log: {error}"));
                self.after(OPEN_AGAIN, Event::Start { machine });
                return Ok(());
            }
        };
        self.trace.add(1, machine as u64, recovery.keys, &[]);
        self.trace.say(|| format!("n{machine} starts as {actor:?} with {recovery:?}"));
        let slow_reads = Rc::new(RefCell::new(Default::default()));
        let handle = Handle { access: engine.access(), slow_reads: Rc::clone(&slow_reads) };
        let inbox = Mailbox::default();
        let identity = Identity {
            cluster: CLUSTER,
            actor,
            nonce,
            node: NodeInfo {
                id: actor.node,
                name: format!("n{machine}"),
                address: address(machine),
                zone: Some(zone(machine)),
            },
        };
        let put = inbox.clone();
        let mut dice = replica_dice;
        let replica = Replica::new(
            identity,
            self.config(),
            handle,
            Arc::new(move |completion| put.put(completion)),
            Box::new(move || dice.roll()),
            remembered,
            now,
        );
        let replica = replica.map_err(|refused| Violation::new("liveness", format!("no node: {refused}")))?;
        let process = Process {
            run,
            replica,
            engine,
            inbox,
            slow_reads,
            committing: false,
            inbox_due: false,
            tick_at: None,
            written_at: self.now,
            seen: Seen::default(),
            lost: Lost::new(),
        };
        if let Some(restored) = &mut self.machines[machine].restored {
            restored.ended = Some(process.engine.synced_position());
        }
        self.machines[machine].process = Some(process);
        self.after(BACKGROUND_INTERVAL, Event::Background { machine, run });
        self.go_on(machine)
    }

    /// The process ends, and with it every connection and request.
    pub(crate) fn stop(&mut self, machine: usize) {
        let Some(process) = self.machines[machine].process.take() else { return };
        let (run, id) = (process.run, process.replica.identity().actor.node);
        drop(process);
        self.trace.say(|| format!("n{machine} stops"));
        self.machines[machine].backlog.clear();
        self.machines[machine].busy_until = self.now;
        for other in 0..self.machines.len() {
            if let Some(session) = self.network.session(machine, other) {
                // Mostly the other side hears of it at once; after a power cut only when it tries to speak.
                let soon = self.network.dice.chance(750);
                let most = Duration::from_millis(if soon { 20 } else { 3000 });
                let heard = self.network.dice.time(Duration::from_micros(100), most);
                if let Some(peer) = &self.machines[other].process {
                    let run = peer.run;
                    let input = Input::Disconnected { peer: id };
                    self.after(heard, Event::Process { machine: other, run, input });
                    self.ending.push((self.now + heard, machine, other, session.id));
                }
            }
        }
        self.lose_requests(machine, run);
    }

    /// Something happens to a process: now, or when it is free.
    pub(crate) fn arrive(&mut self, machine: usize, run: u64, input: Input) -> Verdict {
        let now = self.now;
        let at = &mut self.machines[machine];
        if at.process.as_ref().is_none_or(|process| process.run != run) {
            return Ok(());
        }
        if at.waking || at.busy_until.max(at.paused_until) > now {
            at.backlog.push_back((run, input));
            return self.sleep(machine);
        }
        self.take(machine, input)
    }

    fn sleep(&mut self, machine: usize) -> Verdict {
        let at = &mut self.machines[machine];
        let ready = at.busy_until.max(at.paused_until);
        if ready > self.now + STALL {
            at.stalled_until = at.stalled_until.max(ready);
        }
        if !std::mem::replace(&mut at.waking, true) {
            self.queue.push(ready.max(self.now), Event::Wake { machine });
        }
        Ok(())
    }

    pub(crate) fn wake(&mut self, machine: usize) -> Verdict {
        let now = self.now;
        let at = &mut self.machines[machine];
        at.waking = false;
        if at.busy_until.max(at.paused_until) > now {
            return if at.backlog.is_empty() { Ok(()) } else { self.sleep(machine) };
        }
        let Some((run, input)) = at.backlog.pop_front() else { return Ok(()) };
        let lives = at.process.as_ref().is_some_and(|process| process.run == run);
        if lives {
            self.take(machine, input)?;
        }
        if self.machines[machine].backlog.is_empty() { Ok(()) } else { self.sleep(machine) }
    }

    fn take(&mut self, machine: usize, input: Input) -> Verdict {
        let now = self.machines[machine].clock.at(self.now);
        let slow = self.machines[machine].slow;
        let mut work = STEP;
        match input {
            Input::Frame { sender, from, session, bytes } => {
                if self.network.session(machine, from).is_none_or(|current| current.id != session) {
                    return Ok(());
                }
                work += Duration::from_nanos(bytes.len() as u64);
                let mut buffer = BytesMut::from(&bytes[..]);
                let frame: Option<Frame> = frame::decode(&mut buffer, FRAME_BYTES_MAX)
                    .map_err(|error| Violation::new("wire", format!("a frame cannot be read: {error}")))?;
                let frame = frame.ok_or_else(|| Violation::new("wire", "a frame is not whole"))?;
                self.trace.add(2, machine as u64, from as u64, &[]);
                self.trace.say(|| format!("n{machine}<n{from} {}", shown(&frame, SHOWN_CHARACTERS_MAX)));
                if let Some(process) = &mut self.machines[machine].process {
                    if let Some(newest) = process.replica.epoch() {
                        self.fence.arrives(process.run, sender.node, &frame, newest);
                    }
                    process.replica.peer(now, sender, frame);
                }
            }
            Input::Unsent { request } => {
                self.trace.add(3, machine as u64, request, &[]);
                self.trace.say(|| format!("n{machine} could not send {request}"));
                if let Some(process) = &mut self.machines[machine].process {
                    process.replica.unsent(now, request);
                }
            }
            Input::Disconnected { peer } => {
                self.end_sessions();
                self.trace.add(4, machine as u64, 0, peer.as_bytes());
                self.trace.say(|| format!("n{machine} is disconnected from {peer}"));
                if let Some(process) = &mut self.machines[machine].process {
                    process.replica.disconnected(now, peer);
                }
            }
            Input::Inbox => {
                let Some(process) = &mut self.machines[machine].process else { return Ok(()) };
                process.inbox_due = false;
                for completion in process.inbox.take() {
                    work += STEP / 2;
                    process.replica.completed(now, completion);
                }
            }
            Input::Tick { at } => {
                let Some(process) = &mut self.machines[machine].process else { return Ok(()) };
                if process.tick_at != Some(at) {
                    return Ok(());
                }
                process.tick_at = None;
                process.replica.tick(now);
                self.trace.add(5, machine as u64, 0, &[]);
            }
            Input::Client { op } => self.begin_request(machine, op),
            Input::Adopt { epoch } => {
                let epoch = self.operator.epoch(epoch).unwrap_or(self.operator.newest());
                let epoch = Epoch::clone(epoch);
                if let Some(process) = &mut self.machines[machine].process {
                    process.replica.adopt(now, 0, epoch);
                }
            }
        }
        self.machines[machine].busy_until = self.now + work * slow;
        self.go_on(machine)
    }

    /// Does what follows from a step: effects, the storage, timers.
    fn go_on(&mut self, machine: usize) -> Verdict {
        let Some(process) = &mut self.machines[machine].process else { return Ok(()) };
        for effect in process.replica.effects() {
            self.perform(machine, effect)?;
        }
        self.step_storage(machine);
        self.set_timers(machine);
        self.watch(machine)
    }

    fn perform(&mut self, machine: usize, effect: Effect) -> Verdict {
        // An effect before this one may have ended the process.
        let Some(process) = &self.machines[machine].process else { return Ok(()) };
        let run = process.run;
        match effect {
            Effect::Send { to, frame } => self.send(machine, run, &to, &frame),
            Effect::Answer { ticket, answer } => self.answer(machine, run, ticket, answer),
            Effect::Keep { ticket, record } => {
                let takes = self.dice.about(self.scenario.sync_takes * 2) * self.machines[machine].disk_slow;
                self.after(takes, Event::Kept { machine, run, ticket, record });
                Ok(())
            }
            Effect::Amnesia { known_start } => self.forget_identity(machine, known_start),
            Effect::Adopted { result, .. } => self.adopted(machine, &result),
            Effect::Changed(_) => Ok(()),
        }
    }

    fn step_storage(&mut self, machine: usize) {
        let at = &mut self.machines[machine];
        let Some(process) = &mut at.process else { return };
        let run = process.run;
        at.disk.set_now(self.now);
        if !process.committing && process.engine.prepare() {
            process.committing = true;
            process.written_at = self.now;
            let takes = self.dice.about(self.scenario.sync_takes) * at.disk_slow;
            self.queue.push(self.now + takes, Event::Commit { machine, run });
        }
        if !process.slow_reads.borrow().is_empty() {
            let takes = self.dice.about(self.scenario.sync_takes) * at.disk_slow;
            self.queue.push(self.now + takes, Event::SlowRead { machine, run });
        }
        if process.inbox.len() > 0 && !std::mem::replace(&mut process.inbox_due, true) {
            self.after(Duration::from_micros(5), Event::Process { machine, run, input: Input::Inbox });
        }
    }

    fn set_timers(&mut self, machine: usize) {
        let at = &mut self.machines[machine];
        let Some(process) = &mut at.process else { return };
        let due = at.clock.truth_of(process.replica.next_tick()).max(self.now + Duration::from_micros(1));
        if process.tick_at.is_none_or(|set| due < set) {
            process.tick_at = Some(due);
            let run = process.run;
            self.queue.push(due, Event::Process { machine, run, input: Input::Tick { at: due } });
        }
    }

    pub(crate) fn commit(&mut self, machine: usize, run: u64) -> Verdict {
        let at = &mut self.machines[machine];
        if at.paused_until > self.now {
            let then = at.paused_until;
            self.queue.push(then, Event::Commit { machine, run });
            return Ok(());
        }
        at.disk.set_now(self.now);
        let Some(process) = at.process.as_mut().filter(|process| process.run == run) else { return Ok(()) };
        process.engine.commit();
        process.committing = false;
        self.trace.add(6, machine as u64, process.engine.synced_position(), &[]);
        self.step_storage(machine);
        Ok(())
    }

    pub(crate) fn slow_read(&mut self, machine: usize, run: u64) -> Verdict {
        let at = &mut self.machines[machine];
        let Some(process) = at.process.as_mut().filter(|process| process.run == run) else { return Ok(()) };
        let read = process.slow_reads.borrow_mut().pop_front();
        if let Some(read) = read {
            read(&process.engine.access());
        }
        self.step_storage(machine);
        Ok(())
    }

    pub(crate) fn background(&mut self, machine: usize, run: u64) -> Verdict {
        let at = &mut self.machines[machine];
        let paused = at.paused_until > self.now;
        at.disk.set_now(self.now);
        let Some(process) = at.process.as_mut().filter(|process| process.run == run) else { return Ok(()) };
        if !paused {
            let spare = process.engine.spare_step();
            let merge = process.engine.merge_step();
            let quiet = self.now - process.written_at;
            if !process.committing && process.engine.patience().is_some_and(|patience| quiet >= patience) {
                process.engine.tick();
            }
            let number = |step: Step| u64::from(step != Step::Idle);
            self.trace.add(7, machine as u64, number(spare) + 2 * number(merge), &[]);
        }
        self.step_storage(machine);
        self.after(BACKGROUND_INTERVAL, Event::Background { machine, run });
        Ok(())
    }

    pub(crate) fn kept(&mut self, machine: usize, run: u64, ticket: u64, record: Record) -> Verdict {
        let at = &mut self.machines[machine];
        let Some(process) = at.process.as_mut().filter(|process| process.run == run) else { return Ok(()) };
        match record {
            Record::Ring(ring) => at.documents.ring = Some((*ring).clone()),
            Record::Starts(starts) => at.documents.starts = (*starts).clone(),
        }
        process.inbox.put(Completion::kept(ticket, Ok(())));
        self.step_storage(machine);
        Ok(())
    }

    /// A node sends a frame.
    fn send(&mut self, machine: usize, run: u64, to: &Peer, frame: &Frame) -> Verdict {
        amnesia::message(&mut self.history, frame)?;
        self.hints.sends(machine, run, frame);
        if let Some(id) = to.id {
            self.fence.answers(machine, run, id, frame)?;
        }
        self.compare_with_before(machine, to, frame)?;
        let mut bytes = BytesMut::new();
        if frame::encode(frame, FRAME_BYTES_MAX, &mut bytes).is_err() {
            self.cannot_send(machine, run, frame, Duration::ZERO);
            return Ok(());
        }
        let bytes = bytes.freeze();
        let Some(target) = machine_at(&to.address).filter(|at| *at < self.machines.len() && *at != machine)
        else {
            self.cannot_send(machine, run, frame, Duration::ZERO);
            return Ok(());
        };
        self.trace.add(8, machine as u64, target as u64, &bytes);
        let Some((session, connecting)) = self.session(machine, run, target, frame) else {
            let blocked =
                self.network.is_blocked(machine, target) || self.network.is_blocked(target, machine);
            let most = Duration::from_millis(if blocked { 1000 } else { 2 });
            let takes = self.network.dice.time(Duration::from_micros(200), most);
            self.cannot_send(machine, run, frame, takes);
            return Ok(());
        };
        self.deliver(machine, run, target, (session, connecting), to, frame, bytes)
    }

    /// Of what a node held before its disk lost something nothing older is shown by it, until somebody sends it that.
    fn compare_with_before(&mut self, machine: usize, to: &Peer, frame: &Frame) -> Verdict {
        if self.machines.iter().all(|machine| machine.held_before.is_empty()) {
            return Ok(());
        }
        let content = outdated::content(&self.history, frame);
        if let Some(target) = machine_at(&to.address).and_then(|at| self.machines.get_mut(at)) {
            content.iter().for_each(|(key, _)| drop(target.held_before.remove(key)));
        }
        // A hint may be older than what its keeper owned when it kept it: it is in no set of the partition's.
        let handoff = |request: &Request| matches!(request, Request::Replicate { cause: Cause::Handoff, .. });
        if matches!(frame, Frame::Request { request, .. } if handoff(request)) {
            return Ok(());
        }
        let Machine { documents, held_before, .. } = &mut self.machines[machine];
        let by = Actor { node: documents.node, start: documents.start };
        outdated::shown(held_before, by, &content)
    }

    #[allow(clippy::too_many_arguments)]
    fn deliver(
        &mut self,
        machine: usize,
        run: u64,
        target: usize,
        (session, connecting): (Session, Duration),
        to: &Peer,
        frame: &Frame,
        bytes: Bytes,
    ) -> Verdict {
        let Some(sender) = self.sender(machine) else { return Ok(()) };
        let target_run = if machine < target { session.runs.1 } else { session.runs.0 };
        let meant = self.machines[target].process.as_ref().filter(|process| process.run == target_run);
        let is_other = meant.is_some_and(|p| to.id.is_some_and(|id| id != p.replica.identity().actor.node));
        // Whoever has the address by now is another node: only gossip may still be for it.
        if is_other && !matches!(frame, Frame::Gossip { .. }) {
            let takes = self.network.delay();
            self.cannot_send(machine, run, frame, takes);
            return Ok(());
        }
        self.hints.answers(sender.node, target, target_run, frame);
        let fate = self.network.fate(machine, target, bytes.len());
        self.trace.say(|| {
            format!("n{machine}>n{target} {} arrives after {fate:?}", shown(frame, SHOWN_CHARACTERS_MAX))
        });
        for delay in fate {
            let input = Input::Frame { sender, from: machine, session: session.id, bytes: bytes.clone() };
            self.after(connecting + delay, Event::Process { machine: target, run: target_run, input });
        }
        Ok(())
    }

    fn sender(&self, machine: usize) -> Option<Sender> {
        let actor = self.machines[machine].process.as_ref()?.replica.identity().actor;
        Some(Sender { node: actor.node, start: actor.start })
    }

    /// The session to send over, and how long it takes to make it; none when there is none and none can be made.
    fn session(
        &mut self,
        machine: usize,
        run: u64,
        target: usize,
        frame: &Frame,
    ) -> Option<(Session, Duration)> {
        self.end_sessions();
        let mine = |session: &Session| {
            let own = if machine < target { session.runs.0 } else { session.runs.1 };
            own == run
        };
        let current = self.network.session(machine, target);
        if let Some(session) = current.filter(mine) {
            return Some((session, Duration::ZERO));
        }
        if matches!(frame, Frame::Response { .. }) {
            return None;
        }
        let reachable =
            !self.network.is_blocked(machine, target) && !self.network.is_blocked(target, machine);
        let peer = self.machines[target].process.as_ref().filter(|_| reachable)?;
        let (peer_run, us) = (peer.run, self.sender(machine)?);
        if current.is_some() {
            // What the other side has of us is of an earlier run: it notices now.
            let input = Input::Disconnected { peer: us.node };
            self.after(Duration::ZERO, Event::Process { machine: target, run: peer_run, input });
        }
        let session = self.network.connect((machine, run), (target, peer_run));
        Some((session, self.network.delay() * 3))
    }

    /// Sessions end when a side was told.
    pub(crate) fn end_sessions(&mut self) {
        let now = self.now;
        let (due, rest) = std::mem::take(&mut self.ending).into_iter().partition(|(at, ..)| *at <= now);
        self.ending = rest;
        let due: Vec<(Duration, usize, usize, u64)> = due;
        for (_, one, other, id) in due {
            self.network.end(one, other, id);
        }
    }

    /// A request that was certainly not sent is told so; the rest is lost.
    fn cannot_send(&mut self, machine: usize, run: u64, frame: &Frame, takes: Duration) {
        if let Frame::Request { id, .. } = frame {
            let input = Input::Unsent { request: *id };
            self.after(takes + Duration::from_micros(1), Event::Process { machine, run, input });
        }
    }

    /// Breaks a connection: both sides are told, and what is on its way is lost.
    pub(crate) fn break_connection(&mut self, one: usize, other: usize) {
        let Some(session) = self.network.session(one, other) else { return };
        self.network.end(one, other, session.id);
        for (machine, peer) in [(one, other), (other, one)] {
            let Some(told) = self.machines[machine].process.as_ref().map(|process| process.run) else {
                continue;
            };
            let peer = self.machines[peer].documents.node;
            let takes = self.network.delay();
            let input = Input::Disconnected { peer };
            self.after(takes, Event::Process { machine, run: told, input });
        }
    }

    fn answer(&mut self, machine: usize, run: u64, ticket: u64, answer: Answer) -> Verdict {
        let takes = self.network.delay();
        let bytes = match &answer {
            Answer::Found(found) => found.set.encode(),
            Answer::Written(_) => Vec::new(),
            Answer::Refused(refusal) => refusal.to_string().into_bytes(),
        };
        self.trace.add(9, machine as u64, ticket, &bytes);
        let Some(pending) = self.pending.get_mut(&ticket).filter(|pending| pending.run == Some(run)) else {
            return Err(answers::twice(ticket));
        };
        pending.run = None;
        if matches!(answer, Answer::Written(_)) && self.history.is_unseen(ticket) {
            self.look_for(ticket)?;
        }
        self.after(takes, Event::Answered { op: ticket, answer: Reply::Answer(answer) });
        Ok(())
    }

    /// Whether clients may still ask.
    pub(crate) fn is_open(&self) -> bool {
        self.now < CLIENTS_END
    }
}
