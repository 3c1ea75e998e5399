//! The state of one node, and the doors into it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use quorate_core::NodeId;
use quorate_core::causality::{Clock, Stamp};
use quorate_core::membership::{Membership, Refused};
use quorate_core::ring::{Epoch, Partition};
use quorate_wire::peer::{Frame, Refusal};

use crate::calls::{Calls, Ending};
use crate::claim::Claim;
use crate::collect::Collector;
use crate::content::Content;
use crate::heal::Healing;
use crate::hints::Handoff;
use crate::interface::{
    Answer, ClientRequest, Completion, Config, Done, Effect, Identity, Inbox, MemberStatus, Now, Remembered,
    Sender,
};
use crate::leave::Leaving;
use crate::once::Once;
use crate::read::ReadOperation;
use crate::repair::Repairs;
use crate::ring::Ring;
use crate::stats::Stats;
use crate::storage::Storage;
use crate::sync::Sync;
use crate::timers::{Timer, Timers};
use crate::write::{Origin, WriteOperation};

/// Random numbers, uniform over all 64 bits.
pub type Dice = Box<dyn FnMut() -> u64 + Send>;

/// One node.
///
/// Every method takes the time, does what follows, and leaves what it wants done for [`Replica::effects`].
pub struct Replica<S> {
    pub(crate) identity: Identity,
    pub(crate) config: Config,
    pub(crate) storage: S,
    pub(crate) inbox: Inbox,
    pub(crate) dice: Dice,
    pub(crate) now: Now,
    pub(crate) ring: Ring,
    pub(crate) claim: Claim,
    /// Where the log ended when this start began.
    pub(crate) claim_position: u64,
    pub(crate) membership: Membership,
    pub(crate) clock: Clock,
    pub(crate) calls: Calls,
    pub(crate) timers: Timers,
    pub(crate) writes: BTreeMap<u64, WriteOperation>,
    pub(crate) reads: BTreeMap<u64, ReadOperation>,
    pub(crate) repairs: Repairs,
    pub(crate) sync: Sync,
    pub(crate) content: Content,
    pub(crate) handoff: Handoff,
    pub(crate) leaving: Leaving,
    pub(crate) collector: Collector,
    pub(crate) healing: Healing,
    pub(crate) once: Once,
    pub(crate) stats: Stats,
    pub(crate) effects: Vec<Effect>,
    pub(crate) stopping: bool,
    /// Bytes that operations hold.
    pub(crate) held_bytes: usize,
    /// Raised for a partition when what was read of it before must neither be sent nor merged any more.
    generations: BTreeMap<Partition, u64>,
    /// The last number given to an operation, call or document.
    number: u64,
}

impl<S: Storage> Replica<S> {
    /// A node as it starts.
    pub fn new(
        identity: Identity,
        config: Config,
        storage: S,
        inbox: Inbox,
        dice: Dice,
        remembered: Remembered,
        now: Now,
    ) -> Result<Self, Refused> {
        let Remembered { ring, starts } = remembered;
        let actor = identity.actor;
        let mut membership = Membership::new(identity.node.clone(), actor.start, config.failure, now.mono)?;
        // After a restart the ring's members are as good as seeds: one that is alive is enough.
        let epochs = ring.iter().flat_map(|ring| ring.chain.epochs());
        let members = epochs.flat_map(|epoch| epoch.members().iter().map(|m| m.address.clone()));
        membership.join(config.seeds.iter().cloned().chain(members), now.mono);
        let handoff = Handoff::new(&config);
        let mut replica = Self {
            ring: Ring::new(actor.node, identity.cluster, ring),
            claim: Claim::new(starts),
            claim_position: 0,
            identity,
            config,
            storage,
            inbox,
            dice,
            now,
            membership,
            clock: Clock::default(),
            calls: Calls::default(),
            timers: Timers::default(),
            writes: BTreeMap::new(),
            reads: BTreeMap::new(),
            repairs: Repairs::default(),
            sync: Sync::default(),
            content: Content::default(),
            handoff,
            leaving: Leaving::default(),
            collector: Collector::default(),
            healing: Healing::default(),
            once: Once::default(),
            stats: Stats::default(),
            effects: Vec::new(),
            stopping: false,
            held_bytes: 0,
            generations: BTreeMap::new(),
            number: 0,
        };
        replica.claim_position = replica.synced_position();
        if replica.ring.current().is_some() {
            replica.epoch_changed();
        }
        replica.recover_hints(None);
        replica.begin_collecting();
        Ok(replica)
    }

    /// A client asks; the answer comes as [`Effect::Answer`] with the same ticket.
    pub fn client(&mut self, now: Now, ticket: u64, request: ClientRequest) {
        self.now = now;
        self.serves_clients();
        match request {
            ClientRequest::Write { key, write } => {
                self.begin_write(Origin::Client { ticket }, key, write, self.config.request_timeout);
            }
            ClientRequest::Read { key, consistency } => self.begin_read(ticket, key, consistency),
        }
    }

    /// A peer says something.
    pub fn peer(&mut self, now: Now, from: Sender, frame: Frame) {
        self.now = now;
        match frame {
            Frame::Request { id, request } => self.serve(from, id, request),
            Frame::Response { id, response } => self.answered(from, id, response),
            Frame::Gossip { epoch, position, message } => self.hear(from, epoch, position, message),
        }
    }

    /// A request, by its number, was certainly not sent.
    pub fn unsent(&mut self, now: Now, request: u64) {
        self.now = now;
        self.end_call(request, Ending::NotSent);
    }

    /// The connection to a node broke: what was asked over it may have arrived, and answers will not come.
    pub fn disconnected(&mut self, now: Now, peer: NodeId) {
        self.now = now;
        self.lose_calls(peer);
    }

    /// The storage or the disk has done something.
    pub fn completed(&mut self, now: Now, completion: Completion) {
        self.now = now;
        match completion.0 {
            Done::Prepared { operation, set } => self.prepared(operation, set),
            Done::Stored { operation, result } => self.stored(operation, result),
            Done::Merged { purpose, result } => self.merged(purpose, result),
            Done::Loaded { purpose, result } => {
                let operation = purpose.operation();
                self.loaded(purpose, result);
                if let Some(operation) = operation {
                    self.ask_more(operation);
                }
            }
            Done::Kept { ticket, result } => self.kept(ticket, result),
            Done::Packed { purpose, parcel } => self.packed(purpose, parcel),
            Done::Lifted { partition, lifted } => self.lifted(partition, lifted),
            Done::Candidates { partition, candidates } => self.candidates_read(partition, candidates),
            Done::LeavingRead { partition, era, page } => self.leaving_read(partition, era, page),
            Done::HintsRead { page } => self.hints_read(page),
            Done::HintRead { delivery, resends, sent, result } => {
                self.hint_read(delivery, resends, sent, result);
            }
        }
    }

    /// Somebody pushes an epoch; the answer comes as [`Effect::Adopted`] with the same ticket.
    pub fn adopt(&mut self, now: Now, ticket: u64, epoch: Epoch) {
        self.now = now;
        self.adopt_epoch(ticket, epoch);
    }

    /// Does what is due.
    pub fn tick(&mut self, now: Now) {
        self.now = now;
        while let Some(timer) = self.timers.take_due(now.mono) {
            match timer {
                Timer::Write(operation) => self.write_expired(operation),
                Timer::Read(operation) => self.read_expired(operation),
                Timer::Hedge(operation) => self.hedge(operation),
                Timer::WriteHedge(operation) => self.write_hedge(operation),
                Timer::Call(call) => self.end_call(call, Ending::Lost),
                Timer::Claim => self.ask_for_claims(),
                Timer::KeepPositions => self.keep_positions(),
                Timer::Exchange => self.exchange_due(),
                Timer::Reroute(operation) => self.reroute(operation),
                Timer::Ring => self.ring_due(),
                Timer::Leaving => self.drop_more(),
                Timer::Handoff => self.handoff_due(),
                Timer::Collect => self.collect_due(),
            }
        }
        if self.membership.next_tick() <= now.mono {
            self.membership.time_of_day(now.unix_ms);
            let actions = self.membership.tick(now.mono, &mut self.dice);
            self.carry_out(actions);
        }
    }

    /// When [`Replica::tick`] wants to be called; to be asked anew after each call of anything.
    pub fn next_tick(&self) -> Duration {
        let membership = self.membership.next_tick();
        self.timers.next().map_or(membership, |timer| timer.min(membership))
    }

    /// Tells the peers that this node goes. It serves on until it is dropped, but coordinates nothing new for peers.
    pub fn leave(&mut self, now: Now) {
        self.now = now;
        self.stopping = true;
        let actions = self.membership.leave(&mut self.dice);
        self.carry_out(actions);
    }

    /// Takes what is to be done, in order.
    pub fn effects(&mut self) -> Vec<Effect> {
        std::mem::take(&mut self.effects)
    }

    /// Who this node is.
    pub fn identity(&self) -> &Identity {
        &self.identity
    }

    /// The newest epoch.
    pub fn epoch(&self) -> Option<&Arc<Epoch>> {
        self.ring.current()
    }

    /// Whether this start was claimed: before, no data is served.
    pub fn is_claimed(&self) -> bool {
        self.claim.is_won()
    }

    /// Whether a node answers probes, or missed some and may still refute. This node always does.
    pub fn is_up(&self, id: NodeId) -> bool {
        id == self.id() || self.membership.get(id).is_some_and(|known| known.state.is_live())
    }

    /// Every other node that is known.
    pub fn members(&self) -> impl Iterator<Item = MemberStatus> {
        self.membership.members().map(|view| MemberStatus {
            view: view.clone(),
            latency: self.calls.latency(view.node.id),
            last_full_sync_unix_ms: self.sync.last_full(view.node.id),
        })
    }

    /// What was done since the start.
    pub fn stats(&self) -> Stats {
        self.stats
    }

    /// Operations, calls and repairs in progress: all bounded.
    pub fn in_progress(&self) -> usize {
        self.writes.len() + self.reads.len() + self.calls.open_count() + self.repairs.len()
    }

    pub(crate) fn id(&self) -> NodeId {
        self.identity.actor.node
    }

    /// How far the log is synced: grows over the disk's whole life, and never by a crash goes back.
    pub(crate) fn synced_position(&self) -> u64 {
        self.storage.access().synced_position()
    }

    pub(crate) fn next_number(&mut self) -> u64 {
        self.number += 1;
        self.number
    }

    pub(crate) fn generation(&self, partition: Partition) -> u64 {
        self.generations.get(&partition).copied().unwrap_or(0)
    }

    pub(crate) fn next_generation(&mut self, partition: Partition) {
        *self.generations.entry(partition).or_default() += 1;
    }

    /// A stamp for a write that is taken now.
    pub(crate) fn stamp(&mut self) -> Stamp {
        self.clock.tick(self.now.unix_ms)
    }

    /// Where a node is reached: where it says, else where the epoch says.
    pub(crate) fn address(&self, id: NodeId) -> String {
        let heard = self.membership.get(id).map(|known| known.node.address.clone());
        let named =
            || self.ring.current().and_then(|epoch| epoch.member(id)).map(|member| member.address.clone());
        heard.or_else(named).unwrap_or_default()
    }

    /// Whether one more operation may begin.
    pub(crate) fn has_room(&self, bytes: usize) -> Result<(), Refusal> {
        let operations = self.writes.len() + self.reads.len();
        let full = operations >= self.config.operations_max
            || self.held_bytes + bytes > self.config.operation_bytes_max;
        if full { Err(Refusal::Busy) } else { Ok(()) }
    }

    pub(crate) fn answer(&mut self, ticket: u64, answer: Answer) {
        self.effects.push(Effect::Answer { ticket, answer });
    }
}
