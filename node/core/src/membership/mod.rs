//! Who is alive: gossip membership and failure detection, as a state machine without IO.
//!
//! SWIM (Das, Gupta, Motivala, 2002: random probes, probes through helpers, suspicion, news that ride along)
//! with Lifeguard (Dadgar, Phillips, Currey, 2018: doubt yourself first, let others confirm, tell a suspect
//! first) and push-pull exchange of whole views (Demers et al., 1987), so that partitions heal.
//!
//! The shell carries messages and time: it calls [`Membership::handle`] with what arrives and
//! [`Membership::tick`] when [`Membership::next_tick`] says so, and does the [`Action`]s that come back.
//! Messages may be lost, doubled, reordered. `now` is the time since any fixed moment, on a clock that never
//! goes back; it is nobody else's business. Times of day are compared to report clocks that are wrong, and
//! decide nothing.
//!
//! Invariants: a node is its [`NodeId`], never a name or an address. Only a node itself raises its
//! incarnation, so no claim about it outlives its word. The table, the news, the seeds and each message are
//! bounded (INV-BOUND).

mod claim;
mod config;
mod gossip;
mod health;
mod message;
mod probe;
mod suspicion;
mod table;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

pub use claim::{Claim, Incarnation, NodeInfo, State};
pub use config::Config;
pub use message::{GOSSIP_CLAIMS_MAX, KNOWN_MAX, Message, Refused};
pub use table::MemberView;

use crate::id::NodeId;
use crate::limits::MEMBERS_MAX;
use gossip::News;
use health::Health;
use message::Body;
use probe::{Probe, Relay, Relays, Turns, choose};
use suspicion::Suspicion;
use table::{Outcome, Table};

/// Random numbers, uniform over all 64 bits. They need not be secret.
pub type Dice<'a> = &'a mut dyn FnMut() -> u64;

/// Seed addresses that are kept.
pub const SEEDS_MAX: usize = 64;
/// Seeds that are asked at once.
const SEEDS_ASKED_MAX: usize = 3;
/// The first wait between two tries to reach the seeds; it doubles from there.
const SEEDS_INTERVAL_MIN: Duration = Duration::from_millis(250);
/// Helpers that are asked to probe a node that did not answer (SWIM's k).
const HELPERS_MAX: usize = 3;
/// Nodes that hear the news of one round.
const GOSSIP_FANOUT: usize = 3;
/// Exchanges in a row that teach nothing until a node that is flooded with news believes that it knows all.
const IDLE_EXCHANGES_MAX: u32 = 3;
/// Nodes that a leaving node tells by itself.
const FAREWELLS_MAX: usize = 32;
/// Forgotten nodes that are remembered as such; the oldest are let go.
const FORGOTTEN_MAX: usize = 2 * MEMBERS_MAX;

/// Where a message goes.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Peer {
    /// Who is meant. None: whoever listens at the address of a seed.
    pub id: Option<NodeId>,
    /// `host:port`.
    pub address: String,
}

/// What the shell shall do.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Action {
    /// Send a message, once, without waiting: when it cannot be delivered soon, drop it.
    Send {
        /// To whom.
        to: Peer,
        /// What.
        message: Message,
    },
    /// A node appeared, or its state, address or start changed.
    Changed(MemberView),
}

/// One node's knowledge of who is alive.
pub struct Membership {
    config: Config,
    /// What this node says about itself: up, or left.
    me: Claim,
    table: Table,
    suspicions: BTreeMap<NodeId, Suspicion>,
    forgotten: Forgotten,
    news: News,
    health: Health,
    turns: Turns,
    probe: Option<Probe>,
    relays: Relays,
    sequence: u64,
    /// Exchanges that this node began since it last learned anything.
    idle_exchanges: u32,
    /// The time of day, when the shell tells it.
    unix_ms: Option<u64>,
    seeds: Vec<String>,
    seeds_interval: Duration,
    due: Due,
    actions: Vec<Action>,
}

/// When the periodic duties are due.
struct Due {
    probe: Duration,
    gossip: Duration,
    exchange: Duration,
    revive: Duration,
    seeds: Duration,
}

impl Membership {
    /// A node that knows nobody yet. `start` must be greater than at its process's last start (the time of
    /// day does; when it is not, the node finds out from its peers and corrects itself).
    pub fn new(node: NodeInfo, start: u64, config: Config, now: Duration) -> Result<Self, Refused> {
        if !node.is_bounded() {
            return Err(Refused::Text);
        }
        let by = node.id;
        let incarnation = Incarnation { start, refutation: 0 };
        Ok(Self {
            config,
            me: Claim { node: Arc::new(node), incarnation, state: State::Up, by },
            table: Table::default(),
            suspicions: BTreeMap::new(),
            forgotten: Forgotten::default(),
            news: News::default(),
            health: Health::default(),
            turns: Turns::default(),
            probe: None,
            relays: Relays::default(),
            sequence: 0,
            idle_exchanges: 0,
            unix_ms: None,
            seeds: Vec::new(),
            seeds_interval: SEEDS_INTERVAL_MIN,
            due: Due { probe: now, gossip: now, exchange: now, revive: now, seeds: now },
            actions: Vec::new(),
        })
    }

    /// Where other nodes may be found, `host:port` each (at most [`SEEDS_MAX`]); replaces what was given
    /// before. They need not answer yet: they are asked again and again, often while nobody is known and now
    /// and then later, so that a cluster that began in two parts becomes one.
    pub fn join(&mut self, seeds: impl IntoIterator<Item = String>, now: Duration) {
        let foreign =
            seeds.into_iter().filter(|seed| claim::is_bounded(seed) && *seed != self.me.node.address);
        self.seeds = foreign.take(SEEDS_MAX).collect();
        self.seeds_interval = SEEDS_INTERVAL_MIN;
        self.due.seeds = now;
    }

    /// Tells the time of day, Unix milliseconds by this node's own clock; to be said before each
    /// [`Membership::handle`]. Nothing is decided by it: it is told to those who probe, who find out how far the
    /// clocks are apart.
    pub fn time_of_day(&mut self, unix_ms: u64) {
        self.unix_ms = Some(unix_ms);
    }

    /// Takes in a message.
    pub fn handle(
        &mut self,
        message: Message,
        now: Duration,
        dice: Dice<'_>,
    ) -> Result<Vec<Action>, Refused> {
        message.check()?;
        let Message { from, gossip, body } = message;
        let sender = from.node.clone();
        if self.forgotten.contains(sender.id) {
            return Ok(Vec::new());
        }
        let unaware = self.unaware_of(&from, &gossip);
        self.absorb(from, now, dice);
        // A seed's address may be our own: that message has nothing more to say.
        if sender.id == self.me.node.id {
            return Ok(self.take_actions());
        }
        for claim in gossip {
            self.absorb(claim, now, dice);
        }
        self.correct(&sender, &unaware);
        self.answer(&sender, body, now, dice);
        Ok(self.take_actions())
    }

    /// Does what is due.
    pub fn tick(&mut self, now: Duration, dice: Dice<'_>) -> Vec<Action> {
        self.allow_for_pause(now);
        self.end_relays(now);
        self.ask_helpers(now, dice);
        self.next_probe(now, dice);
        // After the probes: one that failed may be the confirmation that ends a suspicion.
        self.end_suspicions(now, dice);
        if self.me.state == State::Up {
            self.exchange(now, dice);
            self.revive(now, dice);
            self.ask_seeds(now, dice);
        }
        self.gossip(now, dice);
        self.take_actions()
    }

    /// When [`Membership::tick`] wants to be called; in the past when at once. To be asked anew after each
    /// call of anything. Later is tolerated (a late tick counts as this node's slowness), earlier is
    /// harmless.
    pub fn next_tick(&self) -> Duration {
        let nodes = self.live_count();
        let suspicions = self.suspicions.values().map(|s| s.ends(&self.config, nodes));
        let gossip = (!self.news.is_empty()).then_some(self.due.gossip);
        let helpers = self.probe.as_ref().and_then(|probe| probe.helpers_due);
        let Due { probe, exchange, revive, seeds, .. } = self.due;
        let regular =
            if self.me.state == State::Up { probe.min(exchange).min(revive).min(seeds) } else { probe };
        suspicions.chain(gossip).chain(helpers).chain(self.relays.next_end()).fold(regular, Duration::min)
    }

    /// Says farewell. The node answers and gossips on until it stops, and probes nobody.
    pub fn leave(&mut self, dice: Dice<'_>) -> Vec<Action> {
        if self.me.state != State::Left {
            self.me.state = State::Left;
            self.me.incarnation = self.me.incarnation.next();
            self.probe = None;
            for peer in self.some_live(FAREWELLS_MAX, None, dice) {
                self.send(peer, Body::Gossip);
            }
            self.news.add(self.me.node.id);
        }
        self.take_actions()
    }

    /// Drops a node for good: whatever it says, and whatever is said about it, is ignored from now on.
    /// Whether it was known. For members that an epoch names as removed; saying it again is harmless.
    pub fn forget(&mut self, id: NodeId) -> bool {
        if id == self.me.node.id {
            return false;
        }
        self.forgotten.insert(id);
        self.suspicions.remove(&id);
        self.news.remove(id);
        self.table.remove(id)
    }

    /// This node as it describes itself.
    pub fn me(&self) -> &Claim {
        &self.me
    }

    /// Every other node that is known, in the order of their ids.
    pub fn members(&self) -> impl Iterator<Item = &MemberView> {
        self.table.iter()
    }

    /// Another node.
    pub fn get(&self, id: NodeId) -> Option<&MemberView> {
        self.table.get(id)
    }

    /// How far a node's clock is ahead of this node's, in milliseconds; negative when it is behind. As of the
    /// last probe that it answered itself, give or take half of that probe's round trip; none before it did so in this
    /// life. So one that has a skew is one that this node reached, and that reached this node: whether an epoch names it
    /// or not.
    pub fn skew(&self, id: NodeId) -> Option<i64> {
        self.get(id)?.skew_ms
    }

    /// How slow this node finds itself: 0 (fine) to 8. A lasting score above 0 means a starved process or a
    /// bad network.
    pub fn slowness(&self) -> u32 {
        self.health.score()
    }
}

/// Claims.
impl Membership {
    fn absorb(&mut self, claim: Claim, now: Duration, dice: Dice<'_>) {
        let (id, by) = (claim.node.id, claim.by);
        if id == self.me.node.id {
            return self.defend(&claim);
        }
        if self.forgotten.contains(id) {
            return;
        }
        match self.table.absorb(&claim, now) {
            Outcome::Ignored => {}
            Outcome::Repeated => self.confirm(id, by),
            Outcome::Stands { visible } => {
                self.idle_exchanges = 0;
                self.news.add(id);
                self.suspicions.remove(&id);
                match claim.state {
                    State::Up if visible => self.turns.insert(id, dice),
                    State::Up => {}
                    State::Suspect => {
                        self.suspicions.insert(id, Suspicion::new(by, now));
                        // Everybody looks for themselves, at once: a living suspect refutes sooner, a dead
                        // one is confirmed sooner.
                        self.turns.hasten(id);
                    }
                    State::Down | State::Left => {}
                }
                if visible && let Some(member) = self.table.get(id) {
                    self.actions.push(Action::Changed(member.clone()));
                }
            }
        }
    }

    /// Takes in a whole view. It may come from beyond a partition that has just healed, where everybody here
    /// is down; so what it calls down is only suspected if it is up here, and gets the chance to refute.
    fn absorb_view(&mut self, claims: Vec<Claim>, now: Duration, dice: Dice<'_>) {
        for mut claim in claims {
            let live_here = self.table.get(claim.node.id).is_some_and(|known| known.state.is_live());
            if claim.state == State::Down && live_here {
                claim.state = State::Suspect;
            }
            self.absorb(claim, now, dice);
        }
    }

    /// Refutes whatever is said about this node but what it says itself.
    fn defend(&mut self, claim: &Claim) {
        if !claim.beats(&self.me) {
            return;
        }
        if matches!(claim.state, State::Suspect | State::Down) {
            self.health.worse(1);
        }
        self.me.incarnation = claim.incarnation.next();
        self.news.add(self.me.node.id);
    }

    /// Another node suspects a suspect too: passed on as news of its own, so that others can count it.
    fn confirm(&mut self, id: NodeId, by: NodeId) {
        if self.suspicions.get_mut(&id).is_some_and(|suspicion| suspicion.confirm(by)) {
            self.table.said_by(id, by);
            self.news.add(id);
        }
    }

    /// This node's own word about another one.
    fn accuse(&mut self, id: NodeId, incarnation: Incarnation, state: State, now: Duration, dice: Dice<'_>) {
        if let Some(known) = self.table.get(id) {
            let claim = Claim { state, incarnation, by: self.me.node.id, ..known.claim() };
            self.absorb(claim, now, dice);
        }
    }

    /// One by one: whoever is down leaves a smaller cluster behind, in which suspicions last less long.
    fn end_suspicions(&mut self, now: Duration, dice: Dice<'_>) {
        while let Some(id) = self.ended_suspicion(now) {
            if let Some(incarnation) = self.table.get(id).map(|known| known.incarnation) {
                self.accuse(id, incarnation, State::Down, now, dice);
            }
            self.suspicions.remove(&id);
        }
    }

    fn ended_suspicion(&self, now: Duration) -> Option<NodeId> {
        let nodes = self.live_count();
        self.suspicions.iter().find(|(_, s)| s.ends(&self.config, nodes) <= now).map(|(id, _)| *id)
    }

    /// A tick that comes late means that this node slept: it was deaf for so long, which is no evidence
    /// against others.
    fn allow_for_pause(&mut self, now: Duration) {
        // There always is a next probe.
        let late = now.saturating_sub(self.due.probe);
        if late > self.config.probe_interval {
            self.suspicions.values_mut().for_each(|suspicion| suspicion.postpone(late));
            self.probe = None;
            self.health.worse(1);
        }
    }
}

/// Probes.
impl Membership {
    fn answer(&mut self, sender: &NodeInfo, body: Body, now: Duration, dice: Dice<'_>) {
        match body {
            Body::Ping { sequence, target } if target == self.me.node.id => {
                let unix_ms = self.unix_ms;
                self.send(Peer::of(sender), Body::Ack { sequence, target, unix_ms });
            }
            Body::Ping { target, .. } => self.send(Peer::of(sender), Body::NotMe { target }),
            Body::Exchange { claims } => {
                self.absorb_view(claims, now, dice);
                let claims = self.view();
                self.send(Peer::of(sender), Body::View { claims });
            }
            Body::View { claims } => self.absorb_view(claims, now, dice),
            Body::PingFor { sequence, target, address } => {
                let ends = now + self.config.relay_timeout;
                let relay = Relay { asker: Peer::of(sender), sequence, target, ends };
                let sequence = self.next_sequence();
                if self.relays.open(sequence, relay) {
                    self.send(Peer { id: Some(target), address }, Body::Ping { sequence, target });
                }
            }
            Body::Ack { sequence, target, unix_ms } => {
                if let Some(theirs) = unix_ms {
                    self.compare_clocks(sequence, target, theirs, now);
                }
                self.acknowledged(sequence, target);
            }
            Body::Nack { sequence, .. } => {
                if let Some(probe) = self.probe.as_mut().filter(|probe| probe.sequence == sequence) {
                    probe.nacks_awaited = probe.nacks_awaited.saturating_sub(1);
                }
            }
            // The sender has said who it is; the one that was meant has not answered.
            Body::NotMe { .. } | Body::Gossip => {}
        }
    }

    /// The answer was written half a round trip ago, give or take as much (Cristian, "Probabilistic clock
    /// synchronization", 1989).
    fn compare_clocks(&mut self, sequence: u64, target: NodeId, theirs_unix_ms: u64, now: Duration) {
        let probe = self.probe.as_ref().filter(|probe| probe.sequence == sequence && probe.target == target);
        let (Some(probe), Some(ours)) = (probe, self.unix_ms) else { return };
        let on_its_way_ms = now.saturating_sub(probe.sent).as_millis() as u64 / 2;
        let then_unix_ms = ours.saturating_sub(on_its_way_ms);
        self.table.compared(target, signed_difference(theirs_unix_ms, then_unix_ms));
    }

    fn acknowledged(&mut self, sequence: u64, target: NodeId) {
        if self.probe.take_if(|probe| probe.sequence == sequence && probe.target == target).is_some() {
            self.health.better();
            // It lives and has not refuted yet: ask again, which tells it again.
            if self.table.get(target).is_some_and(|known| known.state == State::Suspect) {
                self.turns.hasten(target);
            }
        }
        if let Some(relay) = self.relays.close(sequence, target) {
            self.send(relay.asker, Body::Ack { sequence: relay.sequence, target, unix_ms: None });
        }
    }

    fn end_relays(&mut self, now: Duration) {
        for Relay { asker, sequence, target, .. } in self.relays.expired(now) {
            self.send(asker, Body::Nack { sequence, target });
        }
    }

    /// The direct probe was not answered soon: it may be the line, so others try.
    fn ask_helpers(&mut self, now: Duration, dice: Dice<'_>) {
        let Some(probe) = self.probe.as_mut().filter(|probe| probe.helpers_due.is_some_and(|due| due <= now))
        else {
            return;
        };
        probe.helpers_due = None;
        let (sequence, target) = (probe.sequence, probe.target);
        // Asked late, the helpers still have their whole time.
        let time = self.health.stretch(self.config.probe_interval - self.config.probe_timeout);
        self.due.probe = self.due.probe.max(now + time);
        let Some(address) = self.table.get(target).map(|known| known.node.address.clone()) else { return };
        let helpers = self.some_live(HELPERS_MAX, Some(target), dice);
        if let Some(probe) = &mut self.probe {
            probe.nacks_awaited = helpers.len() as u32;
        }
        for helper in helpers {
            self.send(helper, Body::PingFor { sequence, target, address: address.clone() });
        }
    }

    fn next_probe(&mut self, now: Duration, dice: Dice<'_>) {
        if now < self.due.probe {
            return;
        }
        if let Some(probe) = self.probe.take() {
            self.probe_failed(&probe, now, dice);
        }
        self.due.probe = now + self.health.stretch(self.config.probe_interval);
        if self.me.state == State::Left {
            return;
        }
        let table = &self.table;
        let live = || table.live().map(|m| m.node.id).collect();
        let is_live = |id| table.get(id).is_some_and(|m| m.state.is_live());
        let Some(member) = self.turns.next(live, is_live, dice).and_then(|id| self.table.get(id)) else {
            return;
        };
        let (peer, target, incarnation) = (Peer::of(&member.node), member.node.id, member.incarnation);
        let sequence = self.next_sequence();
        let helpers_due = Some(now + self.health.stretch(self.config.probe_timeout));
        self.probe = Some(Probe { target, incarnation, sequence, sent: now, helpers_due, nacks_awaited: 0 });
        self.send(peer, Body::Ping { sequence, target });
    }

    fn probe_failed(&mut self, probe: &Probe, now: Duration, dice: Dice<'_>) {
        let alone = self.live_count() <= 2;
        // Helpers that were silent too speak against this node; without helpers nobody knows whose fault it
        // is.
        self.health.worse(if alone { 1 } else { probe.nacks_awaited });
        match self.table.get(probe.target).map(|known| known.state) {
            // Soon again, and every second time others: this node may be the only one that missed the
            // refutation, and its answer is the surest way to hear it.
            Some(State::Suspect) => self.turns.repeat(probe.target),
            Some(State::Up) => {}
            Some(State::Down | State::Left) | None => return,
        }
        self.accuse(probe.target, probe.incarnation, State::Suspect, now, dice);
    }
}

/// Spreading what is known.
impl Membership {
    fn gossip(&mut self, now: Duration, dice: Dice<'_>) {
        if self.news.is_empty() || now < self.due.gossip {
            return;
        }
        self.due.gossip = now + self.config.gossip_interval;
        // More news than fit into a message, as when a large cluster starts at once: whole views carry them
        // all, and as long as they teach anything there may be more to learn.
        if self.news.len() > GOSSIP_CLAIMS_MAX && self.idle_exchanges < IDLE_EXCHANGES_MAX {
            self.due.exchange = self.due.exchange.min(now);
        }
        for peer in self.some_live(GOSSIP_FANOUT, None, dice) {
            self.send(peer, Body::Gossip);
        }
    }

    /// Whole views, with one live node.
    fn exchange(&mut self, now: Duration, dice: Dice<'_>) {
        if now < self.due.exchange {
            return;
        }
        let peers = self.some_live(1, None, dice);
        if peers.is_empty() {
            // Soon after the first others are known, since they may know more by then.
            self.due.exchange = now + self.config.probe_interval;
            return;
        }
        self.idle_exchanges = self.idle_exchanges.saturating_add(1);
        let interval = self.config.exchange_interval(self.live_count());
        // Spread out, so that nodes that started together do not exchange together.
        self.due.exchange = now + interval / 2 + interval * ((dice() % 1000) as u32) / 1000;
        for peer in peers {
            self.send_exchange(peer);
        }
    }

    /// Whole views with one node that is down: if it lives, beyond a partition that has healed, it answers.
    fn revive(&mut self, now: Duration, dice: Dice<'_>) {
        if now < self.due.revive {
            return;
        }
        self.due.revive = now + self.config.revive_interval;
        let down = self.table.iter().filter(|m| m.state == State::Down).map(|m| Peer::of(&m.node)).collect();
        for peer in choose(down, 1, dice) {
            self.send_exchange(peer);
        }
    }

    fn ask_seeds(&mut self, now: Duration, dice: Dice<'_>) {
        if now < self.due.seeds {
            return;
        }
        let known: BTreeSet<&String> = self.table.live().map(|m| &m.node.address).collect();
        let longest = if known.is_empty() { self.config.detect_after } else { self.config.seeds_interval };
        self.due.seeds = now + self.seeds_interval.min(longest);
        self.seeds_interval = (self.seeds_interval * 2).min(longest);
        let unknown = self.seeds.iter().filter(|seed| !known.contains(seed)).cloned().collect();
        for address in choose(unknown, SEEDS_ASKED_MAX, dice) {
            self.send_exchange(Peer { id: None, address });
        }
    }

    fn send_exchange(&mut self, peer: Peer) {
        let claims = self.view();
        self.send(peer, Body::Exchange { claims });
    }

    /// Whom the sender speaks about without knowing what is known here: about itself, which it can refute; and
    /// about those that it accuses although they live. News are told a few times only, so one node may miss a
    /// refutation; its own accusation, once told, brings it the word.
    fn unaware_of(&self, sender: &Claim, gossip: &[Claim]) -> Vec<NodeId> {
        let better = |claim: &Claim| self.get(claim.node.id).filter(|known| known.claim().beats(claim));
        let itself = better(sender).into_iter();
        let accused = gossip.iter().filter(|claim| matches!(claim.state, State::Suspect | State::Down));
        let alive = accused.filter_map(better).filter(|known| known.state.is_live());
        itself.chain(alive).map(|known| known.node.id).collect()
    }

    /// Tells a node what is known about others of which it spoke without knowing it.
    fn correct(&mut self, node: &NodeInfo, about: &[NodeId]) {
        let known = about.iter().filter_map(|id| self.table.get(*id)).map(MemberView::claim);
        let gossip: Vec<Claim> = known.take(GOSSIP_CLAIMS_MAX).collect();
        if !gossip.is_empty() {
            let message = Message { from: self.me.clone(), gossip, body: Body::Gossip };
            self.actions.push(Action::Send { to: Peer::of(node), message });
        }
    }

    fn view(&self) -> Vec<Claim> {
        self.table.iter().map(MemberView::claim).collect()
    }

    /// Sends a body with the news that ride along.
    fn send(&mut self, to: Peer, body: Body) {
        let carries_view = matches!(body, Body::Exchange { .. } | Body::View { .. });
        let gossip = if carries_view { Vec::new() } else { self.news_for(to.id, &body) };
        let message = Message { from: self.me.clone(), gossip, body };
        self.actions.push(Action::Send { to, message });
    }

    /// What is said against the receiver, so that it can refute; what is known about the node that the
    /// message is about, so that a helper carries an accusation to the suspect and its refutation back, whether
    /// it has just reached the suspect or knows better from before; and the news.
    fn news_for(&mut self, receiver: Option<NodeId>, body: &Body) -> Vec<Claim> {
        let known = |id| self.table.get(id).map(MemberView::claim);
        let accusation = receiver.and_then(known).filter(|claim| claim.state != State::Up);
        let subject = match body {
            Body::Ack { target, .. } | Body::Nack { target, .. } | Body::PingFor { target, .. } => {
                known(*target)
            }
            _ => None,
        };
        let mut claims: Vec<Claim> = accusation.into_iter().chain(subject).collect();
        for id in self.news.take(GOSSIP_CLAIMS_MAX - claims.len(), self.live_count()) {
            // The sender's own claim is in every message anyway.
            claims.extend(self.table.get(id).filter(|_| Some(id) != receiver).map(MemberView::claim));
        }
        claims
    }

    /// Some live nodes at random, but not this one.
    fn some_live(&self, count: usize, but: Option<NodeId>, dice: Dice<'_>) -> Vec<Peer> {
        let live = self.table.live().filter(|m| Some(m.node.id) != but).collect();
        choose(live, count, dice).into_iter().map(|m| Peer::of(&m.node)).collect()
    }

    /// Nodes that take part, this one included.
    fn live_count(&self) -> usize {
        self.table.live_count() + 1
    }

    fn next_sequence(&mut self) -> u64 {
        self.sequence += 1;
        self.sequence
    }

    fn take_actions(&mut self) -> Vec<Action> {
        std::mem::take(&mut self.actions)
    }
}

impl Peer {
    fn of(node: &NodeInfo) -> Self {
        Self { id: Some(node.id), address: node.address.clone() }
    }
}

/// `a - b`, or as near to it as 64 bits allow.
fn signed_difference(a: u64, b: u64) -> i64 {
    let size = i64::try_from(a.abs_diff(b)).unwrap_or(i64::MAX);
    if a >= b { size } else { -size }
}

/// The nodes that were dropped for good, oldest first.
#[derive(Default)]
struct Forgotten {
    ids: BTreeSet<NodeId>,
    order: VecDeque<NodeId>,
}

impl Forgotten {
    fn contains(&self, id: NodeId) -> bool {
        self.ids.contains(&id)
    }

    fn insert(&mut self, id: NodeId) {
        if self.ids.insert(id) {
            self.order.push_back(id);
        }
        if self.order.len() > FORGOTTEN_MAX
            && let Some(oldest) = self.order.pop_front()
        {
            self.ids.remove(&oldest);
        }
    }
}

#[cfg(test)]
mod tests;
