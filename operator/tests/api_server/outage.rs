//! The API server is gone for a while, and comes back.

use std::net::SocketAddr;

use kube::Config;
use quorate_core::ring::Epoch;
use quorate_operator::crd::Phase;
use serde_json::json;
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::leading::Running;
use crate::world::{LOOKS_MAX, PAUSE, World, config, eventually, operator, operator_with};

/// Passes that fail before it comes back.
const FAILURES: u64 = 3;

/// Stands between an operator and the API server.
struct Proxy {
    is_gone: watch::Sender<bool>,
    task: JoinHandle<()>,
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Proxy {
    /// Starts it, and has `config` go through it.
    async fn start(config: &mut Config) -> Self {
        let url = &config.cluster_url;
        let server: SocketAddr = url.authority().unwrap().as_str().parse().unwrap();
        let listener = TcpListener::bind(SocketAddr::from(([127, 0, 0, 1], 0))).await.unwrap();
        config.cluster_url = format!("https://{}", listener.local_addr().unwrap()).parse().unwrap();
        let (is_gone, gone) = watch::channel(false);
        let task = tokio::spawn(async move {
            loop {
                let (client, _) = listener.accept().await.unwrap();
                tokio::spawn(pass_on(client, server, gone.clone()));
            }
        });
        Self { is_gone, task }
    }
}

/// Connections end, and new ones are closed at once, while it is gone.
async fn pass_on(mut client: TcpStream, server: SocketAddr, mut gone: watch::Receiver<bool>) {
    if *gone.borrow() {
        return;
    }
    let Ok(mut server) = TcpStream::connect(server).await else { return };
    tokio::select! {
        // However it ends, the client makes another.
        _ = copy_bidirectional(&mut client, &mut server) => {}
        _ = gone.wait_for(|gone| *gone) => {}
    }
}

/// In the middle of a scale-up, with the pods on their way.
#[tokio::test(flavor = "multi_thread")]
async fn while_it_is_gone_nothing_is_decided_and_after_that_all_goes_on() {
    let mut world = World::new().await;
    world.ready(&operator().await, "demo").await;
    let mut config = config().await;
    let proxy = Proxy::start(&mut config).await;
    let operator = operator_with(config);
    let metrics = operator.metrics.clone();
    let running = Running::start(operator, &world.namespace);
    world.change("demo", json!({"nodes": 5})).await;
    eventually("the pods are asked for", || async {
        let set: k8s_openapi::api::apps::v1::StatefulSet = world.get("demo").await?;
        set.spec.replicas.filter(|replicas| *replicas == 5)
    })
    .await;

    proxy.is_gone.send_replace(true);
    let failed = metrics.reconciles.with_label_values(&["observe"]);
    eventually("passes fail", || async { (failed.get() >= FAILURES).then_some(()) }).await;
    while world.controllers("demo").await {}
    let epoch = world.epoch("demo").await;
    assert_eq!(epoch.as_ref().map(Epoch::number), Some(1), "all five answer, and nobody decides");
    assert!(world.nodes[..3].iter().all(|node| node.disk().epoch == epoch), "they serve on");

    proxy.is_gone.send_replace(false);
    for _ in 0..LOOKS_MAX {
        let status = world.status("demo").await;
        if (status.phase, status.ready_nodes) == (Some(Phase::Ready), 5) {
            running.stop().await;
            assert_eq!(world.epoch("demo").await.unwrap().number(), 2);
            return;
        }
        world.controllers("demo").await;
        world.settle();
        tokio::time::sleep(PAUSE).await;
    }
    panic!("it does not go on: {:?}", world.status("demo").await.conditions);
}
