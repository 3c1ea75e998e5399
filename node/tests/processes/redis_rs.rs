//! redis-rs, as a program uses it: with one node, and as a client of a cluster while a node dies.

use std::collections::BTreeMap;

use redis::cluster::ClusterClient;
use redis::{Commands as _, RedisResult, SetExpiry, SetOptions};
use tokio::task::block_in_place;

use crate::harness::{TestCluster, eventually};
use crate::redis::cluster;

fn url(cluster: &TestCluster, node: usize) -> String {
    format!("redis://{}:7002", cluster.nodes[node].host)
}

/// What it asks of one node, in both versions of the protocol.
#[tokio::test(flavor = "multi_thread")]
async fn a_program_with_redis_rs_is_served() {
    let cluster = cluster(&["--resp-read-modify-write", "best-effort"]).await;
    for protocol in ["resp2", "resp3"] {
        let connect = |node| {
            let client = redis::Client::open(format!("{}?protocol={protocol}", url(&cluster, node)));
            client.and_then(|client| client.get_connection()).unwrap()
        };
        block_in_place(|| commands(connect(0), connect(1)));
    }
}

fn commands(mut r: redis::Connection, mut other: redis::Connection) {
    let () = r.set("k", b"\0\xff\r\n").unwrap();
    assert_eq!(other.get("k"), Ok(b"\0\xff\r\n".to_vec()));
    assert_eq!(r.get("nothing"), Ok(None::<String>));
    let options = SetOptions::default().with_expiration(SetExpiry::EX(1000));
    let () = r.set_options("t", "v", options).unwrap();
    let ttl: i64 = r.ttl("t").unwrap();
    assert!((990..=1000).contains(&ttl), "{ttl}");
    let () = r.mset(&[("a", 1), ("b", 2)]).unwrap();
    assert_eq!(r.mget(&["a", "nothing", "b"]), Ok((Some(1), None::<i64>, Some(2))));
    assert_eq!(r.incr("a", 9), Ok(10));
    assert_eq!(r.del(&["a", "b", "nothing"]), Ok(2));
    let mut pipeline = redis::pipe();
    for number in 0..1000 {
        pipeline.set(format!("p{number}"), number).ignore();
    }
    let () = pipeline.query(&mut r).unwrap();
    let keys: Vec<String> = (0..1000).map(|number| format!("p{number}")).collect();
    assert_eq!(other.mget(&keys), Ok((0..1000).collect::<Vec<i64>>()));
    let refused = r.lpush::<_, _, ()>("k", "v").unwrap_err();
    assert!(refused.to_string().contains("unknown command 'lpush'"), "{refused}");
}

/// INV-ACK through a client that goes by slots. It asks for them once, so a program makes a new one when a request fails.
#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_client_goes_on_when_a_node_dies() {
    const WRITES: usize = 600;
    let mut cluster = cluster(&["--detect-after", "2s"]).await;
    let client = ClusterClient::new((0..3).map(|node| url(&cluster, node)).collect::<Vec<_>>()).unwrap();
    eventually("all nodes have slots", || {
        let slots: RedisResult<Vec<redis::Value>> = block_in_place(|| {
            let mut one = redis::Client::open(url(&cluster, 0))?.get_connection()?;
            redis::cmd("CLUSTER").arg("SLOTS").query(&mut one)
        });
        async move { slots.is_ok_and(|slots| slots.len() == 3) }
    })
    .await;

    let mut r = block_in_place(|| client.get_connection()).unwrap();
    let (mut acknowledged, mut errors) = (Vec::new(), BTreeMap::<String, usize>::new());
    for number in 0..WRITES {
        if number == WRITES / 3 {
            cluster.nodes[2].kill();
        }
        let key = format!("slots:{number}");
        match block_in_place(|| r.set::<_, _, ()>(&key, number)) {
            Ok(()) => acknowledged.push((key, number)),
            Err(error) => {
                *errors.entry(error.to_string()).or_default() += 1;
                r = block_in_place(|| client.get_connection()).unwrap_or(r);
            }
        }
    }
    assert!(acknowledged.len() > WRITES / 2, "two of three serve on: {errors:?}");
    eventually("every slot is served again", || {
        let all = block_in_place(|| {
            let mut fresh = client.get_connection()?;
            (0..100).try_for_each(|number| fresh.set(format!("again:{number}"), 1))?;
            RedisResult::Ok(fresh)
        });
        let all = all.map(|fresh| r = fresh).is_ok();
        async move { all }
    })
    .await;
    for (key, number) in acknowledged {
        assert_eq!(block_in_place(|| r.get(&key)), Ok(Some(number)), "{key}");
    }
}
