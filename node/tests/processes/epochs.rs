//! Epochs as an operator pushes them: twice, late, and those that members join, leave and are removed by.

use quorate_core::ring::{Epoch, Member, MemberState, Replication, planner};
use reqwest::{StatusCode, header};

use crate::harness::load::{Load, verify};
use crate::harness::{CLUSTER, Setup, TestCluster, eventually};

/// The members, those from a position on in another state.
fn with_state_from(epoch: &Epoch, first: &str, state: MemberState) -> Vec<Member> {
    let members = epoch.members().iter().cloned();
    members.map(|member| if *member.name >= *first { Member { state, ..member } } else { member }).collect()
}

/// The epoch after `known`, in which the member of this name is removed and the others own everything.
fn without(known: &Epoch, name: &str) -> Epoch {
    let mut members = known.members().to_vec();
    let position = members.iter().position(|member| member.name == name).unwrap();
    members[position].state = MemberState::Removed;
    let others =
        (0..members.len() as u16).filter(|&other| usize::from(other) != position).collect::<Vec<_>>();
    let replicas = vec![others; known.partitions().get() as usize];
    Epoch::new(CLUSTER, Some(known.mark()), known.replication(), members, replicas).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_removed_member_is_fenced_and_says_so() {
    let cluster = TestCluster::without_ring(4, Setup::default());
    let first = cluster.make_ring().await;
    cluster.whole().await;
    let second = without(&first, "node-3");
    // Only the others hear of it; the removed one still believes that it belongs to the ring.
    let push = async |index: usize, epoch: &Epoch| {
        cluster.admin.push_epoch(&cluster.nodes[index].peer(), epoch).await.unwrap()
    };
    for index in 0..3 {
        assert_eq!(push(index, &second).await, second.mark());
    }
    assert_eq!(push(0, &second).await, second.mark(), "again is no error");
    assert_eq!(push(0, &first).await, second.mark(), "late: the newer one stays");
    eventually("gossip tells the removed one", || async {
        cluster.status(3).await.unwrap().epoch == Some(second.mark())
    })
    .await;
    let ready = cluster.http.get(cluster.nodes[3].admin_url("/readyz")).send().await.unwrap();
    assert_eq!(ready.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert!(ready.text().await.unwrap().contains("no active member"));
    let refused = cluster.put(3, "k", "x").await;
    assert_eq!(refused.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert!(refused.text().await.unwrap().contains("not_ready"));
    assert_eq!(cluster.get(0, "k").await.status(), StatusCode::NOT_FOUND);
    assert_eq!(cluster.put(0, "k", "x").await.status(), StatusCode::NO_CONTENT, "the others serve on");
}

/// A member that has left is not ready any more, so that clients are led elsewhere; it serves those that come all the same,
/// and closes their connections.
#[tokio::test(flavor = "multi_thread")]
async fn a_member_that_has_left_sends_its_clients_away_and_serves_them_until_it_is_removed() {
    let cluster = TestCluster::without_ring(4, Setup::default());
    let first = cluster.make_ring().await;
    cluster.whole().await;
    let members = with_state_from(&first, "node-3", MemberState::Leaving);
    let second = planner::next(&first, members, first.replication()).unwrap();
    cluster.push(0..4, &second).await;
    let ready = || async { cluster.http.get(cluster.nodes[3].admin_url("/readyz")).send().await.unwrap() };
    eventually("it is not ready", || async { ready().await.status() == StatusCode::SERVICE_UNAVAILABLE })
        .await;
    assert!(ready().await.text().await.unwrap().contains("it has left the ring"));
    let served = cluster.put(3, "k", "x").await;
    assert_eq!(served.status(), StatusCode::NO_CONTENT);
    assert_eq!(served.headers()[header::CONNECTION], "close");
    let third = planner::next(&second, first.members().to_vec(), first.replication()).unwrap();
    cluster.push(0..4, &third).await;
    eventually("it is taken back", || async { ready().await.status() == StatusCode::OK }).await;
    assert!(!cluster.put(3, "k", "x").await.headers().contains_key(header::CONNECTION));
}

/// Nobody tells the newcomers of their epoch but whoever needs them.
#[tokio::test(flavor = "multi_thread")]
async fn no_request_fails_while_the_ring_grows_and_shrinks() {
    let cluster = TestCluster::without_ring(5, Setup::default());
    let replication = Replication { factor: 3, read_quorum: 2, write_quorum: 2 };
    let members = cluster.members(0..3).await;
    let mut epoch = planner::first_epoch(CLUSTER, 64, replication, members).unwrap();
    cluster.push(0..3, &epoch).await;
    for index in 0..5 {
        eventually("it reaches all others", || async {
            let Some(status) = cluster.status(index).await else { return false };
            status.members.members.iter().filter(|member| member.is_reached()).count() == 4
        })
        .await;
    }
    cluster.settled(0..3, &epoch).await;
    let load = Load::start_on(&cluster, 0..3, 2);
    load.progress(200).await;
    let mut change = async |members: Vec<Member>| {
        epoch = planner::next(&epoch, members, replication).unwrap();
        cluster.push(0..3, &epoch).await;
        load.progress(200).await;
        cluster.settled(0..5, &epoch).await;
        epoch.clone()
    };
    let newcomers = cluster.members(3..5).await;
    let grown = change(cluster.members(0..3).await.into_iter().chain(newcomers).collect()).await;
    change(with_state_from(&grown, "node-3", MemberState::Leaving)).await;
    let written = load.finish().await;
    let failures: Vec<&String> = written.iter().flat_map(|writer| &writer.failures).collect();
    assert!(
        failures.is_empty(),
        "{} requests failed: {:?}",
        failures.len(),
        &failures[..failures.len().min(5)]
    );
    verify(&cluster, 0, &written).await;
}
