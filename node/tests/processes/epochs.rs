//! Epochs as an operator pushes them: twice, late, and one that removes a member.

use quorate_core::ring::{Epoch, MemberState};
use reqwest::StatusCode;

use crate::harness::{CLUSTER, Setup, TestCluster, eventually};

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
