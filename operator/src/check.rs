//! `quorate-operator check`: does an operator answer, and does the API server serve KVClusters to this account?
//!
//! For `helm test`: the image has no shell and no other program.

use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use kube::api::ListParams;
use kube::{Api, Client};
use quorate_operator::crd::KVCluster;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep, timeout};

/// How long an operator that has just been started may take to answer.
const WITHIN: Duration = Duration::from_secs(30);
/// How long to wait before the next try.
const PAUSE: Duration = Duration::from_millis(500);
/// How long one try may take.
const TRY_TIMEOUT: Duration = Duration::from_secs(5);
/// As much of an answer as is read: its first line is what counts.
const ANSWER_BYTES_MAX: u64 = 4096;

/// Checks both, and says each as it holds.
pub(crate) async fn check(url: Option<&str>, namespace: Option<&str>) -> anyhow::Result<()> {
    if let Some(url) = url {
        answers(url).await?;
        println!("{url}: ready");
    }
    let client =
        Client::try_default().await.context("finding the API server (in a pod, or by KUBECONFIG)")?;
    let clusters: Api<KVCluster> =
        namespace.map_or_else(|| Api::all(client.clone()), |name| Api::namespaced(client.clone(), name));
    clusters.list(&ListParams::default().limit(1)).await.context("listing KVClusters")?;
    println!("kvclusters.quorate.dev: served");
    Ok(())
}

/// Waits until a URL is answered with 200.
async fn answers(url: &str) -> anyhow::Result<()> {
    let deadline = Instant::now() + WITHIN;
    loop {
        let error = match timeout(TRY_TIMEOUT, get(url)).await {
            Ok(Ok(())) => return Ok(()),
            Ok(Err(error)) => error,
            Err(_) => anyhow::anyhow!("no answer within {} s", TRY_TIMEOUT.as_secs()),
        };
        if Instant::now() > deadline {
            bail!("{url}: {error:#}");
        }
        sleep(PAUSE).await;
    }
}

async fn get(url: &str) -> anyhow::Result<()> {
    let (address, path) = parts(url)?;
    let mut stream = TcpStream::connect(address).await.with_context(|| format!("connecting to {address}"))?;
    stream.write_all(format!("GET /{path} HTTP/1.0\r\nHost: {address}\r\n\r\n").as_bytes()).await?;
    let mut answer = Vec::new();
    stream.take(ANSWER_BYTES_MAX).read_to_end(&mut answer).await?;
    let answer = String::from_utf8_lossy(&answer);
    let status = answer.lines().next().unwrap_or_default();
    ensure!(status.split(' ').nth(1) == Some("200"), "the answer is {status:?}");
    Ok(())
}

/// `host:port` and path of an `http://` URL.
fn parts(url: &str) -> anyhow::Result<(&str, &str)> {
    let rest = url.strip_prefix("http://").with_context(|| format!("{url} does not begin with http://"))?;
    let (address, path) = rest.split_once('/').unwrap_or((rest, ""));
    ensure!(address.contains(':'), "{url} names no port");
    Ok((address, path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_has_an_address_and_a_path() {
        assert_eq!(parts("http://a.b.svc:8080/readyz").unwrap(), ("a.b.svc:8080", "readyz"));
        assert_eq!(parts("http://a:1").unwrap(), ("a:1", ""));
        for wrong in ["https://a:1/", "a:1/readyz", "http://a/readyz"] {
            assert!(parts(wrong).is_err(), "{wrong}");
        }
    }

    #[tokio::test]
    async fn only_200_is_ready() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/readyz", listener.local_addr().unwrap());
        let server = axum::Router::new().route("/readyz", axum::routing::get(|| async { "ok" }));
        let server = tokio::spawn(axum::serve(listener, server).into_future());
        get(&url).await.unwrap();
        get(&url.replace("readyz", "other")).await.unwrap_err();
        server.abort();
    }
}
