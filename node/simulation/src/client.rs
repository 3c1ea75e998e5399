//! Clients: each asks, waits for the answer, thinks, and asks again; some with many requests at once.

use std::collections::BTreeMap;
use std::time::Duration;

use quorate_core::causality::{Context, Expiry};
use quorate_core::quorum::{Consistency, QuorumKind};
use quorate_core::ring::MemberState;
use quorate_replica::{Answer, ClientRequest};
use quorate_wire::peer::{ClientWrite, Refusal};

use crate::check::answers;
use crate::check::overlap::{self, Overlap};
use crate::clock::unix_ms;
use crate::dice::Dice;
use crate::history::{KeyId, Op, OpId, Outcome, Verdict, What, key_name, mark_of_delete, value};
use crate::scenario::{CALM, CLIENTS_END, ClientPlan, SETTLED};
use crate::trace::shown;
use crate::world::{Event, Input, Reply, World};

/// Contexts of a key that a client remembers.
const CONTEXTS_MAX: usize = 4;

pub(crate) struct Client {
    pub(crate) plan: ClientPlan,
    pub(crate) dice: Dice,
    contexts: BTreeMap<KeyId, Vec<Context>>,
}

/// What follows a read.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Then {
    Nothing,
    /// Write back with what was read as the context.
    Write(What),
}

/// A request on its way.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pending {
    machine: usize,
    /// The process that works on it.
    pub(crate) run: Option<u64>,
    then: Then,
}

impl Client {
    pub(crate) fn new(plan: ClientPlan) -> Self {
        Self { dice: Dice::new(plan.dice), plan, contexts: BTreeMap::new() }
    }

    fn remember(&mut self, key: KeyId, context: Context) {
        let contexts = self.contexts.entry(key).or_default();
        if contexts.len() == CONTEXTS_MAX {
            contexts.remove(0);
        }
        contexts.push(context);
    }

    /// Everybody's keys are asked for most.
    fn key(&mut self) -> KeyId {
        let keys = self.plan.keys;
        let among = if self.dice.chance(500) { keys.min(3) } else { keys };
        self.dice.below(among) as KeyId
    }

    fn value_bytes(&mut self) -> usize {
        if !self.dice.chance(self.plan.large_per_mille) {
            return self.dice.between(12, 200) as usize;
        }
        match self.dice.below(40) {
            0 => self.dice.between(400 << 10, 2 << 20) as usize,
            1..8 => self.dice.between(32 << 10, 400 << 10) as usize,
            _ => self.dice.between(1 << 10, 32 << 10) as usize,
        }
    }

    fn consistency(&mut self) -> Consistency {
        match self.dice.below(100) {
            0..80 => Consistency::Configured,
            80..88 => Consistency::One,
            88..95 => Consistency::Quorum,
            _ => Consistency::All,
        }
    }
}

impl World {
    /// A client decides what to ask for.
    pub(crate) fn ask_something(&mut self, client: usize) -> Verdict {
        if !self.is_open() {
            return Ok(());
        }
        let now_unix_ms = unix_ms(self.now);
        let asker = &mut self.clients[client];
        let key = asker.key();
        let mix = asker.plan.mix;
        let bytes = asker.value_bytes();
        let put = What::Put { bytes, expires: None };
        let weights =
            [mix.read, mix.blind_put, mix.modify, mix.delete, mix.blind_delete, mix.stale, mix.expiring];
        let mut drawn = asker.dice.below(weights.iter().sum());
        let chosen = weights
            .iter()
            .position(|weight| {
                let here = drawn < *weight;
                drawn = drawn.saturating_sub(*weight);
                here
            })
            .unwrap_or(0);
        let blind = Context::default();
        match chosen {
            1 => self.issue(client, key, put, blind, Then::Nothing),
            2 => self.issue(client, key, What::Read, blind, Then::Write(put)),
            3 => self.issue(client, key, What::Read, blind, Then::Write(What::Delete)),
            4 => self.issue(client, key, What::Delete, blind, Then::Nothing),
            5 => {
                let old = asker.contexts.get(&key).and_then(|known| known.first()).cloned();
                self.issue(client, key, put, old.unwrap_or_default(), Then::Nothing)
            }
            6 => {
                let expires = Some(Expiry::after_ms(now_unix_ms, asker.dice.between(100, 20_000)));
                let what = What::Put { bytes, expires };
                if asker.dice.chance(500) {
                    self.issue(client, key, What::Read, blind, Then::Write(what))
                } else {
                    self.issue(client, key, what, blind, Then::Nothing)
                }
            }
            _ => self.issue(client, key, What::Read, blind, Then::Nothing),
        }
    }

    fn issue(&mut self, client: usize, key: KeyId, what: What, context: Context, then: Then) -> Verdict {
        let settled = self.now >= SETTLED;
        let machine = self.choose_machine(client);
        let asker = &mut self.clients[client];
        let consistency = match settled {
            true if self.now >= CLIENTS_END => Consistency::All,
            true => Consistency::Configured,
            false => asker.consistency(),
        };
        let op = self.history.begin(Op {
            client,
            key,
            what,
            context,
            consistency,
            began: self.now,
            ended: None,
            outcome: Outcome::Open,
            events: Vec::new(),
        });
        self.trace
            .say(|| format!("client {client} asks n{machine}: #{op} key-{key} {what:?} at {consistency:?}"));
        self.pending.insert(op, Pending { machine, run: None, then });
        let takes = self.network.delay();
        self.after(takes, Event::Request { op });
        Ok(())
    }

    /// Reads a key at all of its owners.
    pub(crate) fn sweep_key(&mut self, key: KeyId) -> Verdict {
        self.issue(0, key, What::Read, Context::default(), Then::Nothing)
    }

    /// Mostly the node that a client likes; when faults are over, a member that serves.
    fn choose_machine(&mut self, client: usize) -> usize {
        let asker = &mut self.clients[client];
        let any = asker.dice.below(self.machines.len() as u64) as usize;
        let chosen = if asker.dice.chance(600) { asker.plan.home } else { any };
        let is_member = |at: &usize| self.serves(*at);
        let from = (0..self.machines.len()).map(|step| (chosen + step) % self.machines.len());
        match self.now >= SETTLED || self.scenario.is_calm {
            true => from.into_iter().find(is_member).unwrap_or(chosen),
            false => chosen,
        }
    }

    /// Whether a node serves, and the operator knows it as a member: clients are led to such.
    fn serves(&self, machine: usize) -> bool {
        let id = self.machines[machine].documents.node;
        if !self.scenario.ring.is_live() {
            return self.operator.takes_part(id);
        }
        let claimed = self.machines[machine].process.as_ref().filter(|process| process.replica.is_claimed());
        let member =
            claimed.and_then(|process| process.replica.epoch()?.member(id).map(|member| member.state));
        let is_led_to = !self.scenario.is_calm || self.operator.leads_clients_to(id, self.now);
        self.operator.takes_part(id) && member.is_some_and(MemberState::takes_part) && is_led_to
    }

    /// A request reaches its machine.
    pub(crate) fn request(&mut self, op: OpId) -> Verdict {
        let Some(pending) = self.pending.get_mut(&op) else { return Ok(()) };
        let machine = pending.machine;
        let Some(process) = &self.machines[machine].process else {
            return self.answered(op, Reply::Refused);
        };
        pending.run = Some(process.run);
        let run = process.run;
        self.arrive(machine, run, Input::Client { op })
    }

    /// The node takes it.
    pub(crate) fn begin_request(&mut self, machine: usize, id: OpId) {
        let at = &mut self.machines[machine];
        let now = at.clock.at(self.now);
        let Some(process) = &mut at.process else { return };
        let op = self.history.op(id);
        let key = key_name(op.key);
        let request = match op.what {
            What::Read => ClientRequest::Read { key, consistency: op.consistency },
            What::Put { .. } | What::Delete => {
                let (value, expires) = match op.what {
                    What::Put { bytes, expires } => (Some(value(id, bytes)), expires),
                    _ => (None, Some(mark_of_delete(id))),
                };
                let (context, consistency) = (op.context.clone(), op.consistency);
                let write =
                    ClientWrite { context, value, expires, policy: self.scenario.policy, consistency };
                ClientRequest::Write { key, write }
            }
        };
        process.replica.client(now, id, request);
        let (run, accepted) = (process.run, self.now);
        let limit = self.scenario.request_timeout + answers::SLACK;
        self.after(limit, Event::Deadline { op: id, run, accepted });
    }

    /// A request must be answered by now, if its node could work.
    pub(crate) fn deadline(&mut self, op: OpId, run: u64, accepted: Duration) -> Verdict {
        let Some(pending) = self.pending.get(&op).filter(|pending| pending.run == Some(run)) else {
            return Ok(());
        };
        let at = &self.machines[pending.machine];
        let limit = self.scenario.request_timeout + answers::SLACK;
        let works_since = at.stalled_until.max(at.paused_until).max(accepted);
        if works_since + limit > self.now {
            self.queue.push(works_since + limit, Event::Deadline { op, run, accepted });
            return Ok(());
        }
        Err(answers::late(op, self.now - accepted))
    }

    /// The process that worked on them is gone.
    pub(crate) fn lose_requests(&mut self, machine: usize, run: u64) {
        let lost: Vec<OpId> = self
            .pending
            .iter()
            .filter(|(_, pending)| pending.machine == machine && pending.run == Some(run))
            .map(|(op, _)| *op)
            .collect();
        for op in lost {
            if let Some(pending) = self.pending.get_mut(&op) {
                pending.run = None;
            }
            self.after(Duration::from_millis(1), Event::Answered { op, answer: Reply::Broken });
        }
    }

    /// An answer reaches its client.
    pub(crate) fn answered(&mut self, id: OpId, reply: Reply) -> Verdict {
        let Some(Pending { then, .. }) = self.pending.remove(&id) else { return Ok(()) };
        let op = self.history.op(id);
        let (client, key, is_write, began) = (op.client, op.key, op.is_write(), op.began);
        self.trace.say(|| format!("client {client} hears of #{id}: {}", told(&reply)));
        if self.must_succeed(began) {
            match &reply {
                Reply::Answer(answer) if self.is_excused(answer) => {}
                Reply::Answer(answer) => answers::when_nothing_is_wrong(id, answer)?,
                Reply::Refused | Reply::Broken if self.scenario.is_calm => return Err(answers::cut(id)),
                Reply::Refused | Reply::Broken => {}
            }
        }
        let outcome = match (&reply, is_write) {
            (Reply::Answer(Answer::Written(written)), _) => {
                let owners = self.owners_of(id, written.receipt.replicas);
                self.clients[client].remember(key, written.context.clone());
                Outcome::Acknowledged { owners, epoch: written.receipt.epoch }
            }
            (Reply::Answer(Answer::Found(_)), _) => Outcome::Found,
            (_, false) => Outcome::NotFound,
            (Reply::Refused, _) => Outcome::NotWritten,
            (Reply::Answer(Answer::Refused(Refusal::Indeterminate { .. })) | Reply::Broken, _) => {
                Outcome::Indeterminate
            }
            (Reply::Answer(Answer::Refused(_)), _) => Outcome::NotWritten,
        };
        self.succeeded += u64::from(matches!(outcome, Outcome::Acknowledged { .. } | Outcome::Found));
        self.history.end(id, self.now, outcome);
        if let Reply::Answer(Answer::Found(found)) = reply {
            self.check_read(id, &found.set)?;
            if began >= CLIENTS_END {
                self.swept.insert(key);
            }
            let context = found.set.context().clone();
            self.clients[client].remember(key, context.clone());
            if let Then::Write(what) = then
                && self.is_open()
            {
                return self.issue(client, key, what, context, Then::Nothing);
            }
        }
        let think = self.clients[client].plan.think;
        let pause = self.clients[client].dice.about(think);
        self.after(pause, Event::Client { client });
        Ok(())
    }

    /// How many owners certainly hold an acknowledged write.
    fn owners_of(&self, id: OpId, told: u8) -> u8 {
        match self.scenario.kind {
            QuorumKind::Strict => self.needed(id),
            QuorumKind::Sloppy => told.min(self.needed(id)),
        }
    }

    /// How many replies a request asks for.
    fn needed(&self, id: OpId) -> u8 {
        let op = self.history.op(id);
        let replication = self.scenario.replication;
        let configured = if op.is_write() { replication.write_quorum } else { replication.read_quorum };
        op.consistency.needed(configured, replication.factor).unwrap_or(configured)
    }

    fn check_read(&mut self, id: OpId, set: &quorate_core::causality::VersionSet) -> Verdict {
        let (needed, key) = (self.needed(id), self.history.op(id).key);
        let (lost, _) = self.losses_of(self.partition_of(key));
        let overlap = Overlap {
            replication: self.scenario.replication,
            forgetful: self.count_forgetful(key),
            was_handed_over: self.operator.newest().number() > 1 || lost > 0,
        };
        overlap::read(&mut self.history, id, set, needed, &overlap, self.now)
    }

    /// Whether a request that began then must be answered as asked: faults are long over, or there never were any.
    fn must_succeed(&self, began: Duration) -> bool {
        let since = if self.scenario.is_calm { CALM } else { SETTLED };
        (since..CLIENTS_END).contains(&began)
    }

    /// Answers that a good day may bring as well.
    fn is_excused(&self, answer: &Answer) -> bool {
        match answer {
            Answer::Refused(Refusal::Busy) => self.scenario.operations_max < 100,
            // Its node was removed meanwhile: the client goes to another one.
            Answer::Refused(Refusal::NotMember { .. }) => {
                self.scenario.ring.is_live() && !self.scenario.is_calm
            }
            _ => false,
        }
    }
}

fn told(reply: &Reply) -> String {
    match reply {
        Reply::Answer(Answer::Found(found)) => {
            let versions: Vec<_> = found.set.versions().iter().map(|v| (v.dot, v.value.is_some())).collect();
            format!("found {versions:?}")
        }
        Reply::Answer(answer) => shown(answer, 300),
        Reply::Refused => "connection refused".into(),
        Reply::Broken => "connection broke".into(),
    }
}
