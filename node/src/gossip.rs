//! Drives the failure detector: its messages to and from the peers, its clock and its dice; and shares what it
//! believes with the rest of the node.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use quorate_admin::types::{self, MemberView};
use quorate_core::NodeId;
use quorate_core::membership::{Action, Membership, Message, NodeInfo, State};
use quorate_core::ring::Member;
use quorate_wire::peer::{Frame, Request, Response};
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, sleep_until, timeout};

use crate::config::Config;
use crate::node::Node;
use crate::seldom::Seldom;

/// Gossip messages that may wait to be taken in; more are dropped.
pub(crate) const HEARD_MAX: usize = 1024;
/// How long a peer may take to hand over its epoch.
const FETCH_TIMEOUT: Duration = Duration::from_secs(5);

/// A gossip message that a peer sent.
pub(crate) struct Heard {
    pub(crate) from: NodeId,
    pub(crate) epoch: u64,
    pub(crate) message: Message,
}

#[derive(Clone)]
struct Known {
    node: Arc<NodeInfo>,
    state: State,
}

/// What the failure detector believes, for everybody to read.
#[derive(Default)]
pub(crate) struct Liveness {
    known: RwLock<BTreeMap<NodeId, Known>>,
    fetching: AtomicBool,
}

impl Liveness {
    fn with<T>(&self, read: impl FnOnce(&BTreeMap<NodeId, Known>) -> T) -> T {
        read(&self.known.read().unwrap_or_else(PoisonError::into_inner))
    }

    fn set(&self, node: Arc<NodeInfo>, state: State) {
        let mut known = self.known.write().unwrap_or_else(PoisonError::into_inner);
        known.insert(node.id, Known { node, state });
    }

    /// Whether a node answers probes, or missed some and may still refute.
    pub(crate) fn is_up(&self, id: NodeId) -> bool {
        self.with(|known| known.get(&id).is_some_and(|known| known.state.is_live()))
    }

    /// Where a member is reached: where it says, else where the epoch says.
    pub(crate) fn address(&self, member: &Member) -> String {
        let heard = self.with(|known| known.get(&member.id).map(|known| known.node.address.clone()));
        heard.unwrap_or_else(|| member.address.clone())
    }

    /// The nodes that are up, but for one, and where.
    pub(crate) fn up_peers(&self, but: NodeId) -> Vec<(NodeId, String)> {
        self.with(|known| {
            let up = known.iter().filter(|(id, known)| **id != but && known.state.is_live());
            up.map(|(id, known)| (*id, known.node.address.clone())).collect()
        })
    }

    /// How many nodes are in each state.
    pub(crate) fn counts(&self) -> Vec<(&'static str, i64)> {
        let states =
            [("up", State::Up), ("suspect", State::Suspect), ("down", State::Down), ("left", State::Left)];
        self.with(|known| {
            let count = |wanted| known.values().filter(|known| known.state == wanted).count() as i64;
            states.map(|(name, state)| (name, count(state))).to_vec()
        })
    }

    /// Every node, for the admin API.
    pub(crate) fn views(&self, in_ring: impl Fn(NodeId) -> bool) -> Vec<MemberView> {
        let view = |known: &Known| MemberView {
            id: known.node.id,
            name: known.node.name.clone(),
            address: known.node.address.clone(),
            zone: known.node.zone.clone(),
            liveness: match known.state {
                State::Up => types::Liveness::Up,
                State::Suspect => types::Liveness::Suspect,
                State::Down => types::Liveness::Down,
                State::Left => types::Liveness::Left,
            },
            in_ring: in_ring(known.node.id),
        };
        self.with(|known| known.values().map(view).collect())
    }
}

/// Runs the failure detector until `leave` is said; then tells the peers, and ends.
pub(crate) async fn run(
    node: Arc<Node>,
    config: Config,
    start: u64,
    mut heard: mpsc::Receiver<Heard>,
    mut leave: oneshot::Receiver<()>,
) {
    let began = Instant::now();
    let us = NodeInfo { id: node.id, name: config.name, address: config.advertise, zone: config.zone };
    node.liveness.set(Arc::new(us.clone()), State::Up);
    let detector = quorate_core::membership::Config::new(config.detect_after);
    let mut membership = match Membership::new(us, start, detector, Duration::ZERO) {
        Ok(membership) => membership,
        Err(error) => return tracing::error!(%error, "this node cannot introduce itself"),
    };
    // After a restart the ring's members are as good as seeds: one that is alive is enough.
    let members = node.ring.current().map(|epoch| epoch.members().to_vec()).unwrap_or_default();
    let addresses = config.seeds.into_iter().chain(members.into_iter().map(|member| member.address));
    membership.join(addresses, Duration::ZERO);
    let mut dice = rand::random::<u64>;
    loop {
        let actions = tokio::select! {
            biased; // What has arrived counts before a deadline that has passed.
            message = heard.recv() => match message {
                Some(heard) => take_in(&node, &mut membership, heard, began.elapsed(), &mut dice),
                None => return,
            },
            () = sleep_until(began + membership.next_tick()) => membership.tick(began.elapsed(), &mut dice),
            _ = &mut leave => break,
        };
        carry_out(&node, actions);
    }
    carry_out(&node, membership.leave(&mut dice));
}

fn take_in(
    node: &Arc<Node>,
    membership: &mut Membership,
    heard: Heard,
    now: Duration,
    dice: &mut dyn FnMut() -> u64,
) -> Vec<Action> {
    if heard.message.from() != heard.from {
        static LOG: Seldom = Seldom::new();
        if LOG.due() {
            tracing::warn!(peer = %heard.from, says = %heard.message.from(), "a peer speaks in another's name");
        }
        return Vec::new();
    }
    if heard.epoch > node.ring.number() {
        fetch_epoch(node, heard.from);
    }
    membership.handle(heard.message, now, dice).unwrap_or_else(|error| {
        static LOG: Seldom = Seldom::new();
        if LOG.due() {
            tracing::warn!(peer = %heard.from, %error, "refused a gossip message");
        }
        Vec::new()
    })
}

fn carry_out(node: &Arc<Node>, actions: Vec<Action>) {
    let epoch = node.ring.number();
    for action in actions {
        match action {
            Action::Send { to, message } => node.peers.tell(&to.address, Frame::Gossip { epoch, message }),
            Action::Changed(view) => {
                tracing::info!(peer = view.node.name, node = %view.node.id, state = ?view.state, "a node changed");
                if view.state == State::Down {
                    node.peers.reset(&view.node.address);
                }
                node.liveness.set(view.node, view.state);
            }
        }
    }
}

/// Gets the newer epoch of a peer, one at a time; the next message of a peer that is ahead tries again.
fn fetch_epoch(node: &Arc<Node>, from: NodeId) {
    let Some((_, address)) = node.liveness.up_peers(node.id).into_iter().find(|(id, _)| *id == from) else {
        return;
    };
    if node.liveness.fetching.swap(true, Ordering::Relaxed) {
        return;
    }
    let node = node.clone();
    tokio::spawn(async move {
        let call = node.peers.call(from, &address, Request::FetchEpoch);
        if let Ok(Ok(Response::Epoch(Some(epoch)))) = timeout(FETCH_TIMEOUT, call).await {
            let adopting = node.clone();
            let adopted = tokio::task::spawn_blocking(move || adopting.ring.adopt(epoch)).await;
            if let Ok(Err(error)) = adopted {
                static LOG: Seldom = Seldom::new();
                if LOG.due() {
                    tracing::error!(peer = %from, %error, "cannot adopt a peer's epoch");
                }
            }
        }
        node.liveness.fetching.store(false, Ordering::Relaxed);
    });
}
