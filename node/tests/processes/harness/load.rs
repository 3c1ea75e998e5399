//! A load of writers, each of which remembers what the cluster acknowledged to it.
//!
//! A writer owns a counter that it raises by read, increment, write back with the context; and it leaves behind
//! one new key a step. Nobody else writes these keys. So afterwards: every key whose write was acknowledged holds
//! its value, and the counter holds at least the last acknowledged number.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use reqwest::StatusCode;
use tokio::task::JoinHandle;

use super::{TestCluster, eventually};

/// A load in progress.
pub(crate) struct Load {
    stop: Arc<AtomicBool>,
    acknowledged: Arc<AtomicUsize>,
    writers: Vec<JoinHandle<Written>>,
}

/// What one writer was told.
#[derive(Default)]
pub(crate) struct Written {
    writer: usize,
    /// The steps whose own key was acknowledged.
    pub(crate) keys: Vec<u64>,
    /// The last number that was acknowledged for the counter.
    pub(crate) counter: u64,
    /// What became of the requests that were not answered as asked.
    pub(crate) failures: Vec<String>,
}

impl Load {
    pub(crate) fn start(cluster: &TestCluster, writers: usize) -> Self {
        Self::start_on(cluster, 0..cluster.nodes.len(), writers)
    }

    /// A load of which nothing goes to other nodes than these.
    pub(crate) fn start_on(cluster: &TestCluster, nodes: Range<usize>, writers: usize) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let acknowledged = Arc::new(AtomicUsize::new(0));
        let bases: Vec<String> = cluster.nodes[nodes].iter().map(|node| node.url("/v1/kv/")).collect();
        let spawn = |writer| {
            let (http, bases) = (cluster.http.clone(), bases.clone());
            let (stop, acknowledged) = (stop.clone(), acknowledged.clone());
            tokio::spawn(async move { Writer { writer, http, bases }.run(&stop, &acknowledged).await })
        };
        let writers = (0..writers).map(spawn).collect();
        Self { stop, acknowledged, writers }
    }

    /// Waits until so many more writes were acknowledged.
    pub(crate) async fn progress(&self, more: usize) {
        let target = self.acknowledged.load(Ordering::Relaxed) + more;
        eventually("the load makes progress", || async {
            self.acknowledged.load(Ordering::Relaxed) >= target
        })
        .await;
    }

    pub(crate) async fn finish(self) -> Vec<Written> {
        self.stop.store(true, Ordering::Relaxed);
        let mut written = Vec::new();
        for writer in self.writers {
            written.push(writer.await.unwrap());
        }
        written
    }
}

struct Writer {
    writer: usize,
    http: reqwest::Client,
    bases: Vec<String>,
}

impl Writer {
    async fn run(self, stop: &AtomicBool, acknowledged: &AtomicUsize) -> Written {
        let mut written = Written { writer: self.writer, ..Written::default() };
        for step in 1.. {
            if stop.load(Ordering::Relaxed) {
                break;
            }
            // Another node each time, so that those that are down are met as well.
            let base = &self.bases[(step as usize + self.writer) % self.bases.len()];
            match self.put(&format!("{base}{}", key(self.writer, step)), step, None).await {
                Ok(()) => {
                    written.keys.push(step);
                    acknowledged.fetch_add(1, Ordering::Relaxed);
                }
                Err(failure) => written.failures.push(failure),
            }
            match self.raise(&format!("{base}{}", counter(self.writer))).await {
                Ok(number) => {
                    let before = std::mem::replace(&mut written.counter, number);
                    assert!(number > before, "a counter went back: {number} after {before}");
                    acknowledged.fetch_add(1, Ordering::Relaxed);
                }
                Err(failure) => written.failures.push(failure),
            }
        }
        written
    }

    async fn put(&self, url: &str, number: u64, context: Option<String>) -> Result<(), String> {
        let mut request = self.http.put(url).timeout(Duration::from_secs(10)).body(number.to_string());
        if let Some(context) = context {
            request = request.header("quorate-context", context);
        }
        let answer = request.send().await.map_err(|error| format!("PUT {url}: {error:?}"))?;
        if answer.status() == StatusCode::NO_CONTENT {
            Ok(())
        } else {
            Err(refused("PUT", url, answer).await)
        }
    }

    async fn raise(&self, url: &str) -> Result<u64, String> {
        let failed = |error| format!("GET {url}: {error:?}");
        let answer = self.http.get(url).header("accept", "application/json").send().await.map_err(failed)?;
        let context = answer.headers().get("quorate-context").map(|value| value.to_str().unwrap().to_owned());
        let number = match answer.status() {
            StatusCode::NOT_FOUND => 1,
            StatusCode::OK | StatusCode::MULTIPLE_CHOICES => {
                numbers(&answer.json().await.map_err(failed)?).into_iter().max().unwrap_or(0) + 1
            }
            _ => return Err(refused("GET", url, answer).await),
        };
        self.put(url, number, context).await.map(|()| number)
    }
}

async fn refused(method: &str, url: &str, answer: reqwest::Response) -> String {
    format!("{method} {url}: {} {}", answer.status(), answer.text().await.unwrap_or_default())
}

fn key(writer: usize, step: u64) -> String {
    format!("load/{writer}/{step}")
}

fn counter(writer: usize) -> String {
    format!("counter/{writer}")
}

/// The numbers in a JSON answer with one or several values.
fn numbers(document: &serde_json::Value) -> Vec<u64> {
    use base64::Engine as _;
    let values = document["values"].as_array().unwrap().iter();
    let decode =
        |value: &serde_json::Value| base64::prelude::BASE64_STANDARD.decode(value["value"].as_str().unwrap());
    values.map(|value| String::from_utf8(decode(value).unwrap()).unwrap().parse().unwrap()).collect()
}

/// Reads everything that was acknowledged through one node, and panics at the first loss. INV-ACK.
pub(crate) async fn verify(cluster: &TestCluster, through: usize, written: &[Written]) {
    for writer in written {
        for &step in &writer.keys {
            let key = key(writer.writer, step);
            let answer = cluster.get(through, &key).await;
            assert_eq!(answer.status(), StatusCode::OK, "{key}, acknowledged, through node {through}");
            assert_eq!(answer.text().await.unwrap(), step.to_string(), "{key}");
        }
        if writer.counter > 0 {
            let url = cluster.nodes[through].kv(&counter(writer.writer));
            let answer = cluster.http.get(url).header("accept", "application/json").send().await.unwrap();
            let most = numbers(&answer.json().await.unwrap()).into_iter().max().unwrap();
            assert!(
                most >= writer.counter,
                "counter {} fell from {} to {most}",
                writer.writer,
                writer.counter
            );
        }
    }
}
