//! Makes sure that this disk did not go back in time (INV-AMNESIA).
//!
//! A start may serve only when a majority of the ring's members (itself included) has it on disk that this start
//! exists. Two majorities share a member; that may be this node alone, whose disk is no witness, so it goes on asking
//! until every member has it. Then, if this disk is an old copy, and the node has served from a newer state since,
//! somebody who is asked knows it, be it late: a start that is not earlier than ours, or a position in our log that we
//! had synced and that the log no longer reaches. (What was written and not synced may be gone after a crash; that
//! is no reason to give up an identity, since nobody was told that it was durable.) The random nonce tells two copies
//! of one disk apart that count on from the same number.
//!
//! Positions are heard with gossip and kept on disk lazily, so a copy that is only seconds old may slip through when
//! its peers restarted as well. Then still no dot is made twice, since a start's number is never used twice.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use quorate_core::NodeId;
use quorate_core::limits::MEMBERS_MAX;
use quorate_core::planted::{self, Bug};
use quorate_wire::peer::{Claimed, Refusal, Request, Response};
use serde::{Deserialize, Serialize};

use crate::calls::{Ending, Purpose};
use crate::interface::{Effect, Kept, Record, Sender};
use crate::replica::Replica;
use crate::ring::takes_part;
use crate::storage::Storage;
use crate::timers::Timer;

/// Between two rounds of asking those who have not answered.
const ASK_AGAIN: Duration = Duration::from_millis(250);

/// The same, when a majority has it: the others are to know it too.
const ASK_REST_AGAIN: Duration = Duration::from_secs(2);

/// The same, when one of them only had to hear of the epoch first: until it is claimed a new member holds up writes.
const ASK_AGAIN_SOON: Duration = Duration::from_millis(50);

/// Positions that were heard are put on the disk this often.
const KEEP_POSITIONS: Duration = Duration::from_secs(5);
/// Claims that may wait for the disk.
const WAITING_MAX: usize = MEMBERS_MAX;

/// A start of another node, as it claimed it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct KnownStart {
    /// Its number.
    pub start: u64,
    /// What it drew.
    pub nonce: u64,
    /// How far its log is known to be synced.
    pub position: u64,
}

type Starts = BTreeMap<NodeId, KnownStart>;

/// Starts that are being put on the disk, and the requests that wait for that.
struct Keeping {
    document: u64,
    starts: Arc<Starts>,
    waiting: Vec<(NodeId, u64)>,
}

pub(crate) struct Claim {
    won: bool,
    /// Whether a majority of the newest epoch's members knows it.
    renewed: bool,
    /// Who has our start on disk.
    witnesses: BTreeSet<NodeId>,
    /// When those that have not answered are asked again.
    ask_at: Option<Duration>,
    /// The starts of others that are on disk; their positions may be newer than there.
    known: Arc<Starts>,
    keeping: Option<Keeping>,
    /// Claims that came while others were being put on the disk: who, what, and the request.
    next: Vec<(NodeId, KnownStart, u64)>,
    /// Whether positions were heard that are not on disk.
    positions_changed: bool,
}

impl Claim {
    pub(crate) fn new(known: Starts) -> Self {
        Self {
            won: false,
            renewed: false,
            witnesses: BTreeSet::new(),
            ask_at: None,
            known: Arc::new(known),
            keeping: None,
            next: Vec::new(),
            positions_changed: false,
        }
    }

    pub(crate) fn is_won(&self) -> bool {
        self.won
    }
}

impl<S: Storage> Replica<S> {
    /// Claims this start from the members of the epoch that was just read or adopted. A start that was claimed before
    /// serves on, and is made known to the majority that may be asked from now on.
    pub(crate) fn begin_claim(&mut self) {
        if planted::is(Bug::SkipClaim) {
            self.claim.won = true;
            return;
        }
        self.claim.renewed = false;
        self.claim.witnesses.clear();
        self.ask_for_claims();
    }

    /// Asks every member that has not answered. A majority is enough to serve, but not to stop asking: this node is in
    /// every majority that it asks, and an old copy of its disk is no witness of what came later. So as soon as may be,
    /// every other member is one.
    pub(crate) fn ask_for_claims(&mut self) {
        let Some(epoch) = self.ring.current().filter(|epoch| takes_part(epoch, self.id())).cloned() else {
            return;
        };
        self.count_claims();
        let others: Vec<NodeId> = epoch.members().iter().map(|member| member.id).collect();
        let (start, nonce) = (self.identity.actor.start, self.identity.nonce);
        let epoch_number = epoch.number();
        let position = self.claim_position;
        let request = Request::Claim { epoch: epoch_number, start, nonce, position };
        let mut all = true;
        for id in others {
            let silent = id != self.id() && takes_part(&epoch, id) && !self.claim.witnesses.contains(&id);
            if silent {
                all = false;
                self.call(id, request.clone(), Purpose::Claim);
            }
        }
        if !all {
            let pause = if self.claim.renewed { ASK_REST_AGAIN } else { ASK_AGAIN };
            self.ask_for_claims_at(self.now.mono + pause);
        }
    }

    fn ask_for_claims_at(&mut self, at: Duration) {
        if let Some(before) = self.claim.ask_at.replace(at) {
            self.timers.cancel(before, Timer::Claim);
        }
        self.timers.set(at, Timer::Claim);
    }

    fn ask_for_claims_soon(&mut self) {
        let at = self.now.mono + ASK_AGAIN_SOON;
        if !self.claim.renewed && self.claim.ask_at.is_none_or(|set| set > at) {
            self.ask_for_claims_at(at);
        }
    }

    fn count_claims(&mut self) {
        let Some(epoch) = self.ring.current() else { return };
        let members = epoch.members().iter().filter(|member| member.state.takes_part()).count();
        let witnesses = self.claim.witnesses.iter().filter(|id| takes_part(epoch, **id)).count();
        self.claim.renewed |= witnesses + 1 > members / 2;
        self.claim.won |= self.claim.renewed;
    }

    pub(crate) fn claim_ended(&mut self, from: NodeId, ending: &Ending) {
        match ending {
            Ending::Response(Response::Claimed(Claimed::Yes)) => {
                self.claim.witnesses.insert(from);
                let before = self.claim.won;
                self.count_claims();
                if self.claim.won && !before {
                    self.ring_step();
                }
            }
            Ending::Response(Response::Refused(Refusal::EpochRetired { known, .. }))
                if *known > self.ring.number() =>
            {
                self.fetch_epoch(from);
            }
            Ending::Response(Response::Refused(Refusal::EpochUnknown { .. })) => self.ask_for_claims_soon(),
            // Also when others, who know less, have let it win.
            Ending::Response(Response::Claimed(Claimed::Known { start })) => {
                self.effects.push(Effect::Amnesia { known_start: *start });
            }
            _ => {}
        }
    }

    /// Another node claims a start.
    pub(crate) fn serve_claim(
        &mut self,
        from: NodeId,
        request: u64,
        routed: u64,
        claimed: KnownStart,
    ) -> Result<(), Refusal> {
        let known = self.ring.number();
        let is_member = self.ring.current().is_some_and(|epoch| takes_part(epoch, from));
        if routed > known {
            self.fetch_epoch(from);
            return Err(Refusal::EpochUnknown { routed, known });
        }
        if routed < known {
            return Err(Refusal::EpochRetired { routed, known });
        }
        if !is_member {
            return Err(Refusal::NotMember { known });
        }
        if self.claim.next.len() >= WAITING_MAX {
            return Err(Refusal::Busy);
        }
        self.claim.next.push((from, claimed, request));
        self.decide_claims();
        Ok(())
    }

    /// A node says how far its log is synced. What a start says that has claimed nothing here is no news of the one that is
    /// known: its claim, when it comes, tells where it began.
    pub(crate) fn hear_position(&mut self, from: Sender, position: u64) {
        let is_news = |known: &KnownStart| known.start == from.start && known.position < position;
        let known = self.claim.known.get(&from.node).is_some_and(is_news);
        if known && let Some(known) = Arc::make_mut(&mut self.claim.known).get_mut(&from.node) {
            known.position = position;
            if !std::mem::replace(&mut self.claim.positions_changed, true) {
                self.timers.set(self.now.mono + KEEP_POSITIONS, Timer::KeepPositions);
            }
        }
    }

    pub(crate) fn keep_positions(&mut self) {
        if self.claim.keeping.is_none() && std::mem::take(&mut self.claim.positions_changed) {
            self.keep_starts(self.claim.known.clone(), Vec::new());
        }
    }

    /// Decides about the claims that wait, unless the disk is busy with earlier ones: then when it is done.
    fn decide_claims(&mut self) {
        if self.claim.keeping.is_some() || self.claim.next.is_empty() {
            return;
        }
        let mut starts = self.claim.known.clone();
        let mut waiting = Vec::new();
        for (node, claimed, request) in std::mem::take(&mut self.claim.next) {
            match starts.get(&node).copied() {
                Some(known) if (known.start, known.nonce) == (claimed.start, claimed.nonce) => {
                    waiting.push((node, request));
                }
                Some(known) if known.start >= claimed.start || known.position > claimed.position => {
                    let start = known.start;
                    self.respond(node, request, Response::Claimed(Claimed::Known { start }));
                }
                _ => {
                    Arc::make_mut(&mut starts).insert(node, claimed);
                    waiting.push((node, request));
                }
            }
        }
        if waiting.is_empty() {
            return;
        }
        self.keep_starts(starts, waiting);
    }

    fn keep_starts(&mut self, starts: Arc<Starts>, waiting: Vec<(NodeId, u64)>) {
        let document = self.next_number();
        self.effects.push(Effect::Keep { ticket: document, record: Record::Starts(starts.clone()) });
        self.claim.keeping = Some(Keeping { document, starts, waiting });
    }

    pub(crate) fn starts_kept(&mut self, document: u64, result: Kept) {
        let Some(keeping) = self.claim.keeping.take_if(|keeping| keeping.document == document) else {
            return;
        };
        if result.is_ok() {
            // Positions that were heard meanwhile are kept next time.
            self.claim.known = keeping.starts;
        }
        for (node, request) in keeping.waiting {
            let response = match &result {
                Ok(()) => Response::Claimed(Claimed::Yes),
                Err(reason) => Response::Refused(Refusal::StorageFailed { reason: reason.clone() }),
            };
            self.respond(node, request, response);
        }
        self.decide_claims();
    }
}
