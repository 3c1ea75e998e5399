//! Drives the replica: one task owns it, hands it what happened with the time, and carries out what it wants done.
//!
//! It works in batches: whatever waits is taken in, then all effects leave together, so that requests which come
//! together share their messages' writes and the storage's syncs. Nothing here decides anything about data.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use quorate_core::NodeId;
use quorate_core::membership::{MemberView, State};
use quorate_core::ring::EpochMark;
use quorate_replica::{AdoptError, Answer, Effect, Now, Replica};
use quorate_wire::peer::{Frame, Response};
use tokio::sync::oneshot;
use tokio::time::{Instant, sleep_until, timeout};

use crate::documents::Keeper;
use crate::inbox::{Inbox, Input};
use crate::peers::{Links, NotSent, Reply, Sessions};
use crate::readers::Library;

/// How long a node that goes waits for a peer to confirm that it heard.
const FAREWELL_TIMEOUT: Duration = Duration::from_millis(500);

/// Wall-clock milliseconds, the only reading of it.
pub(crate) fn unix_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// Why the engine ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum End {
    /// It was told to.
    Stopped,
    /// The disk went back in time: it must never speak for its node again (INV-AMNESIA).
    Amnesia { known_start: u64 },
}

/// Who waits for the result of a pushed epoch.
type Adopting = oneshot::Sender<Result<EpochMark, AdoptError>>;

pub(crate) struct Engine {
    inbox: Arc<Inbox>,
    replica: Replica<Library>,
    links: Links,
    sessions: Sessions,
    keeper: Keeper,
    /// The last ticket given.
    ticket: u64,
    clients: HashMap<u64, oneshot::Sender<Answer>>,
    adopting: HashMap<u64, Adopting>,
    /// Requests of peers that have no answer yet.
    asked: HashMap<(NodeId, u64), Reply>,
    began: Instant,
    /// What was last said in the log.
    said: Said,
}

#[derive(Default, PartialEq, Eq)]
struct Said {
    epoch: u64,
    claimed: bool,
}

impl Engine {
    pub(crate) fn new(
        inbox: Arc<Inbox>,
        replica: Replica<Library>,
        links: Links,
        keeper: Keeper,
        began: Instant,
    ) -> Self {
        Self {
            inbox,
            replica,
            links,
            sessions: Sessions::default(),
            keeper,
            ticket: 0,
            clients: HashMap::new(),
            adopting: HashMap::new(),
            asked: HashMap::new(),
            began,
            said: Said::default(),
        }
    }

    /// Runs until it is stopped, or must stop.
    pub(crate) async fn run(mut self) -> End {
        let mut inputs = Vec::new();
        let mut timer = Box::pin(sleep_until(self.began));
        let end = loop {
            self.inbox.take(&mut inputs);
            let now = self.now();
            let mut end = None;
            for input in inputs.drain(..) {
                end = end.or(self.take_in(now, input));
            }
            if self.replica.next_tick() <= now.mono {
                self.replica.tick(now);
            }
            if let Some(end) = self.carry_out(now).or(end) {
                break end;
            }
            self.say();
            // A timer that is too early costs one idle round; moving it costs more, on every round.
            let next = self.began + self.replica.next_tick();
            if timer.is_elapsed() || next < timer.deadline() {
                timer.as_mut().reset(next);
            }
            tokio::select! {
                biased;
                () = self.inbox.filled() => tokio::task::yield_now().await, // Whoever was just answered goes first.
                () = &mut timer => {}
            }
        };
        self.inbox.close();
        end
    }

    fn now(&self) -> Now {
        Now { mono: self.began.elapsed(), unix_ms: unix_ms() }
    }

    fn ticket(&mut self) -> u64 {
        self.ticket += 1;
        self.ticket
    }

    fn take_in(&mut self, now: Now, input: Input) -> Option<End> {
        let replica = &mut self.replica;
        match input {
            Input::Client { request, answer } => {
                let ticket = self.ticket();
                self.clients.insert(ticket, answer);
                self.replica.client(now, ticket, request);
            }
            Input::Asked { from, request, reply } if self.sessions.admits(from) => {
                let id = reply.id();
                self.asked.insert((from.node, id), reply);
                replica.peer(now, from, Frame::Request { id, request });
            }
            Input::Said { from, frame } if self.sessions.admits(from) => replica.peer(now, from, frame),
            // From an earlier start of the node: its connection is being closed.
            Input::Asked { .. } | Input::Said { .. } => {}
            Input::Opened(opened) => self.sessions.opened(opened),
            Input::Unsent { request } => replica.unsent(now, request),
            Input::Disconnected { peer } => replica.disconnected(now, peer),
            Input::Completed(completion) => replica.completed(now, completion),
            Input::Adopt { epoch, adopted } => {
                let ticket = self.ticket();
                self.adopting.insert(ticket, adopted);
                self.replica.adopt(now, ticket, *epoch);
            }
            Input::Question(question) => question(replica),
            Input::Leave { heard } => {
                replica.leave(now);
                // What it says to the peers goes first, over the same connections.
                let end = self.carry_out(now);
                let confirmations = futures::future::join_all(self.links.farewell());
                tokio::spawn(async move {
                    let _ = timeout(FAREWELL_TIMEOUT, confirmations).await;
                    let _ = heard.send(()); // Whoever waited may have given up.
                });
                return end;
            }
            Input::Stop => return Some(End::Stopped),
        }
        None
    }

    /// Does what the replica wants done, until it wants nothing more: a message that cannot be sent may lead to others,
    /// to as many nodes as an operation may try.
    fn carry_out(&mut self, now: Now) -> Option<End> {
        loop {
            let effects = self.replica.effects();
            if effects.is_empty() {
                return None;
            }
            for effect in effects {
                match effect {
                    Effect::Send { to, frame: Frame::Response { id, response } } => {
                        self.respond(to.id, id, response);
                    }
                    Effect::Send { to, frame } => {
                        let request = match &frame {
                            Frame::Request { id, .. } => Some(*id),
                            _ => None,
                        };
                        if let (Err(NotSent), Some(request)) = (self.links.send(&to, frame), request) {
                            self.replica.unsent(now, request);
                        }
                    }
                    Effect::Answer { ticket, answer } => {
                        if let Some(client) = self.clients.remove(&ticket) {
                            let _ = client.send(answer); // The client may be gone.
                        }
                    }
                    Effect::Keep { ticket, record } => self.keeper.keep(ticket, record),
                    Effect::Adopted { ticket, result } => {
                        if let Some(adopting) = self.adopting.remove(&ticket) {
                            let _ = adopting.send(result);
                        }
                    }
                    Effect::Changed(view) => self.changed(&view),
                    Effect::Amnesia { known_start } => return Some(End::Amnesia { known_start }),
                }
            }
        }
    }

    /// Over the connection that the request came over: it is lost with that.
    fn respond(&mut self, to: Option<NodeId>, id: u64, response: Response) {
        if let Some(reply) = to.and_then(|node| self.asked.remove(&(node, id))) {
            reply.send(response);
        }
    }

    fn changed(&mut self, view: &MemberView) {
        let MemberView { node, state, .. } = view;
        tracing::info!(peer = node.name, node = %node.id, state = ?state, "a node changed");
        if *state == State::Down {
            self.sessions.cut_outgoing(node.id);
        }
    }

    fn say(&mut self) {
        let epoch = self.replica.epoch().map_or(0, |epoch| epoch.number());
        let said = Said { epoch, claimed: self.replica.is_claimed() };
        if said == self.said {
            return;
        }
        if said.epoch != self.said.epoch {
            tracing::info!(epoch, "serves by an epoch");
        }
        if said.claimed && !self.said.claimed {
            tracing::info!("a majority of members remembers this start: data is served");
        }
        self.said = said;
    }
}
