//! `CLUSTER …`: where clients of Redis Cluster find the nodes.
//!
//! Any node answers for any key, so nobody is ever redirected: the slots are shared out evenly among the members that are up and
//! serve Redis clients, and who goes by them spreads its requests. Where the others serve them each node asks the others.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::StreamExt as _;
use quorate_core::NodeId;
use quorate_core::membership::State;
use quorate_wire::resp::command::Cluster;
use quorate_wire::resp::reply::Reply;
use quorate_wire::resp::slots;
use tokio::time::{Instant, MissedTickBehavior, interval};

use super::RespServer;

/// How often is looked whether there are members that were not asked yet.
const LOOK: Duration = Duration::from_secs(1);
/// When a member that has answered is asked again: it may have been started with other options.
const ASK_AGAIN: Duration = Duration::from_secs(60);
/// For how long one of them is waited for.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(1);
/// Members that are asked at the same time.
const ASKED_MAX: usize = 16;

/// Where the other members serve Redis clients, as they have said.
pub(crate) struct Doors {
    client: quorate_admin::Client,
    known: Mutex<BTreeMap<NodeId, Door>>,
}

struct Door {
    asked: Instant,
    /// None for one that serves none.
    place: Option<Place>,
}

/// Where a node serves Redis clients.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Place {
    id: NodeId,
    host: String,
    port: u16,
}

impl Doors {
    pub(crate) fn new(secret: &str) -> anyhow::Result<Self> {
        let client = quorate_admin::Client::new(secret, ANSWER_TIMEOUT)?;
        Ok(Self { client, known: Mutex::default() })
    }

    fn known(&self) -> MutexGuard<'_, BTreeMap<NodeId, Door>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Forgets who is gone, and says who is to be asked.
    fn due(&self, others: Vec<(NodeId, String)>, now: Instant) -> Vec<(NodeId, String)> {
        let mut known = self.known();
        known.retain(|id, _| others.iter().any(|(other, _)| other == id));
        let is_due = |id: &NodeId| known.get(id).is_none_or(|door| now >= door.asked + ASK_AGAIN);
        others.into_iter().filter(|(id, _)| is_due(id)).collect()
    }

    /// Asks one where it serves. Who does not answer is asked again soon, and is where it was meanwhile.
    async fn ask(&self, id: NodeId, address: String) {
        let asked = Instant::now();
        if let Ok(identity) = self.client.identity(&address).await
            && identity.node_id == id
        {
            let place = identity.redis_address.and_then(|address| place(id, &address));
            self.known().insert(id, Door { asked, place });
        }
    }
}

fn place(id: NodeId, address: &str) -> Option<Place> {
    let (host, port) = address.rsplit_once(':')?;
    let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
    Some(Place { id, host, port: port.parse().ok()? })
}

impl RespServer {
    /// Keeps up with where the others serve Redis clients; ends with the engine.
    pub(crate) async fn follow_doors(&self) {
        let mut looks = interval(LOOK);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            looks.tick().await;
            let Some(view) = self.view().await else { return std::future::pending().await };
            let due = self.doors.due(view.up, Instant::now());
            let asked = futures::stream::iter(due).map(|(id, address)| self.doors.ask(id, address));
            asked.buffer_unordered(ASKED_MAX).collect::<()>().await;
        }
    }

    /// Nothing when the engine has ended.
    async fn view(&self) -> Option<View> {
        let view = self.node.ask(|replica| {
            let epoch = replica.epoch().cloned();
            let takes_part = |id: NodeId| {
                let member = epoch.as_ref().and_then(|epoch| epoch.member(id));
                member.is_some_and(|member| member.state.takes_part())
            };
            let up = replica.members().filter(|member| member.view.state == State::Up);
            let up = up.map(|member| (member.view.node.id, member.view.node.address.clone()));
            View {
                epoch: epoch.as_ref().map_or(0, |epoch| epoch.number()),
                up: up.filter(|(id, _)| takes_part(*id)).collect(),
                us: replica.is_claimed() && takes_part(replica.identity().actor.node),
            }
        });
        view.await.ok()
    }

    /// Where clients are served now, in the same order on every node.
    fn places(&self, view: &View) -> Vec<Place> {
        let id = self.node.identity.actor.node;
        let us = self.node.redis_address.as_deref().and_then(|address| place(id, address));
        let us = us.filter(|_| view.us && !self.goes());
        let known = self.doors.known();
        let others = view.up.iter().filter_map(|(id, _)| known.get(id)?.place.clone());
        let mut places: Vec<Place> = others.chain(us).collect();
        places.sort_by_key(|place| place.id);
        places
    }
}

/// What the replica knows.
struct View {
    epoch: u64,
    /// The other members that are up, and where their peers reach them.
    up: Vec<(NodeId, String)>,
    /// Whether this node serves.
    us: bool,
}

/// The answer.
pub(super) async fn tell(server: &RespServer, asked: &Cluster) -> Reply {
    let us = server.node.identity.actor.node;
    match asked {
        Cluster::KeySlot(key) => return Reply::Integer(i64::from(slots::of_key(key))),
        Cluster::Id => return Reply::text(name(us)),
        Cluster::Info | Cluster::Nodes | Cluster::Shards | Cluster::Slots => {}
    }
    let Some(view) = server.view().await else {
        return Reply::Error("ERR this node stops".into());
    };
    let places = server.places(&view);
    let shares = || slots::shares(places.len()).zip(&places);
    match asked {
        Cluster::Info => Reply::Verbatim(info(&view, places.len())),
        Cluster::Nodes => {
            let line = |(slots, place)| node_line(slots, place, us, view.epoch);
            Reply::Verbatim(shares().map(line).collect())
        }
        Cluster::Shards => Reply::Array(shares().map(|(slots, place)| shard(slots, place)).collect()),
        _ => Reply::Array(shares().map(|(slots, place)| slot_range(slots, place)).collect()),
    }
}

/// Forty digits, as long as the names that nodes of Redis have.
fn name(id: NodeId) -> String {
    format!("{:0<40}", id.to_string().replace('-', ""))
}

fn info(view: &View, places: usize) -> String {
    let (state, assigned) = if places > 0 { ("ok", slots::SLOTS) } else { ("fail", 0) };
    let epoch = view.epoch;
    [
        format!("cluster_enabled:1\r\ncluster_state:{state}\r\ncluster_slots_assigned:{assigned}\r\n"),
        format!("cluster_slots_ok:{assigned}\r\ncluster_slots_pfail:0\r\ncluster_slots_fail:0\r\n"),
        format!("cluster_known_nodes:{places}\r\ncluster_size:{places}\r\n"),
        format!("cluster_current_epoch:{epoch}\r\ncluster_my_epoch:{epoch}\r\n"),
    ]
    .concat()
}

/// Peers are reached otherwise than in Redis: where the port of its bus would stand is a zero.
fn node_line((first, last): (u16, u16), place: &Place, us: NodeId, epoch: u64) -> String {
    let Place { id, host, port } = place;
    let myself = if *id == us { "myself," } else { "" };
    format!("{} {host}:{port}@0 {myself}master - 0 0 {epoch} connected {first}-{last}\n", name(*id))
}

fn slot_range((first, last): (u16, u16), place: &Place) -> Reply {
    let node = vec![
        Reply::text(&*place.host),
        Reply::Integer(i64::from(place.port)),
        Reply::text(name(place.id)),
        Reply::Array(Vec::new()),
    ];
    Reply::Array(vec![number(first), number(last), Reply::Array(node)])
}

fn shard((first, last): (u16, u16), place: &Place) -> Reply {
    let node = [
        ("id", Reply::text(name(place.id))),
        ("port", Reply::Integer(i64::from(place.port))),
        ("ip", Reply::text(&*place.host)),
        ("endpoint", Reply::text(&*place.host)),
        ("role", Reply::text("master")),
        ("replication-offset", Reply::Integer(0)),
        ("health", Reply::text("online")),
    ];
    let node = Reply::Map(node.into_iter().map(|(name, value)| (Reply::text(name), value)).collect());
    Reply::Map(vec![
        (Reply::text("slots"), Reply::Array(vec![number(first), number(last)])),
        (Reply::text("nodes"), Reply::Array(vec![node])),
    ])
}

fn number(slot: u16) -> Reply {
    Reply::Integer(i64::from(slot))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn here(port: u16) -> Place {
        Place { id: NodeId::from_u128(0xab), host: "10.0.0.1".into(), port }
    }

    #[test]
    fn an_address_is_a_host_and_a_port() {
        let id = NodeId::from_u128(0xab);
        assert_eq!(place(id, "10.0.0.1:7002"), Some(here(7002)));
        assert_eq!(place(id, "[::1]:7002").unwrap().host, "::1");
        assert_eq!(place(id, "demo-0.demo-peers.shop.svc:7002").unwrap().host, "demo-0.demo-peers.shop.svc");
        assert!(["", "host", "host:", "host:port"].iter().all(|address| place(id, address).is_none()));
    }

    #[test]
    fn a_node_has_a_line() {
        let line = node_line((0, 16_383), &here(7002), NodeId::from_u128(0xab), 7);
        let name = name(NodeId::from_u128(0xab));
        assert_eq!(line, format!("{name} 10.0.0.1:7002@0 myself,master - 0 0 7 connected 0-16383\n"));
        assert_eq!(name.len(), 40);
    }

    #[test]
    fn members_are_asked_once_in_a_while_and_forgotten_when_they_go() {
        let doors = Doors::new("secret").unwrap();
        let (us, now) = (NodeId::from_u128(1), Instant::now());
        let others = || vec![(us, "node-1:5000".to_owned())];
        assert_eq!(doors.due(others(), now), others());
        doors.known().insert(us, Door { asked: now, place: Some(here(7002)) });
        assert_eq!(doors.due(others(), now), []);
        assert_eq!(doors.due(others(), now + ASK_AGAIN), others());
        assert_eq!(doors.due(Vec::new(), now), []);
        assert!(doors.known().is_empty());
    }
}
