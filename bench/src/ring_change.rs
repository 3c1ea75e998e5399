//! What clients notice of a change of the ring: how long requests take while nothing else happens, and while data moves.
//!
//! Requests come at a fixed rate, whether or not those before were answered. One that had to wait for its client, because
//! the one before took long, counts from when it should have been sent.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use futures::stream::{self, StreamExt as _, TryStreamExt as _};
use tokio::runtime::Runtime;
use tokio::task::JoinHandle;
use tokio::time::{Instant as Due, sleep_until};

use crate::ring::Ring;

const CLIENTS: u64 = 32;
const FILLERS: usize = 32;
const MEMBERS: usize = 3;
const NEWCOMERS: usize = 2;

#[derive(Clone, Copy)]
pub(crate) struct RingChange {
    /// In the ring before anything is measured.
    pub(crate) keys: u64,
    pub(crate) value_bytes: usize,
    /// Half of them reads.
    pub(crate) requests_per_second: u64,
    /// How long is measured while nothing else happens.
    pub(crate) seconds: u64,
}

pub(crate) fn run(program: &Path, directory: &Path, task: RingChange) -> Result<()> {
    let runtime = Runtime::new()?;
    let mut ring = Ring::start(&runtime, program, directory, MEMBERS + NEWCOMERS, MEMBERS)?;
    let urls = Arc::new(ring.urls());
    let begun = Instant::now();
    runtime.block_on(fill(&urls, task))?;
    eprintln!("{} keys of {} bytes in {:.1} s", task.keys, task.value_bytes, begun.elapsed().as_secs_f64());
    println!(
        "{} keys of {} bytes, 3 copies; {} requests a second, half of them reads, from {CLIENTS} clients\n\n{:<24}{:>10}\
         {:>12}{:>12}{:>12}{:>10}{:>14}",
        task.keys,
        task.value_bytes,
        task.requests_per_second,
        "",
        "requests",
        "median",
        "99 %",
        "99.9 %",
        "failed",
        "moved"
    );
    let mut measure = |what: &str, count: Option<usize>| -> Result<Figures> {
        let load = Load::start(&runtime, &urls, task);
        let moved_bytes = match count {
            None => {
                thread::sleep(Duration::from_secs(task.seconds));
                0
            }
            Some(count) => {
                ring.resize(&runtime, count)?;
                ring.settle(&runtime)?;
                ring.is_settled(&runtime).unwrap_or(0)
            }
        };
        let figures = Figures::of(load.finish(&runtime)?, moved_bytes)?;
        figures.print(what);
        Ok(figures)
    };
    let before = measure("nothing happens", None)?;
    let grown = measure("3 to 5 nodes", Some(MEMBERS + NEWCOMERS))?;
    let shrunk = measure("5 to 3 nodes", Some(MEMBERS))?;
    let after = measure("nothing happens again", None)?;
    let idle = before.at_99.max(after.at_99);
    for (what, figures) in [("3 to 5", grown), ("5 to 3", shrunk)] {
        println!("99 % while {what}: {:.2}x idle", figures.at_99.as_secs_f64() / idle.as_secs_f64());
    }
    Ok(())
}

/// What came out of one stretch of time.
struct Figures {
    requests: usize,
    failed: usize,
    median: Duration,
    at_99: Duration,
    at_999: Duration,
    lasted: Duration,
    moved_bytes: u64,
}

impl Figures {
    fn of(Answers { mut took, failed, lasted }: Answers, moved_bytes: u64) -> Result<Self> {
        ensure!(!took.is_empty(), "no request was answered");
        took.sort_unstable();
        let at = |part: f64| took[((took.len() - 1) as f64 * part) as usize];
        let (median, at_99, at_999) = (at(0.5), at(0.99), at(0.999));
        Ok(Self { requests: took.len() + failed, failed, median, at_99, at_999, lasted, moved_bytes })
    }

    fn print(&self, what: &str) {
        let ms = |took: Duration| format!("{:.2} ms", took.as_secs_f64() * 1e3);
        let moved = format!("{} MiB/{:.0} s", self.moved_bytes >> 20, self.lasted.as_secs_f64());
        println!(
            "{what:<24}{:>10}{:>12}{:>12}{:>12}{:>10}{moved:>14}",
            self.requests,
            ms(self.median),
            ms(self.at_99),
            ms(self.at_999),
            self.failed
        );
    }
}

/// How long requests took, and how many were not answered as they should be.
#[derive(Default)]
struct Answers {
    took: Vec<Duration>,
    failed: usize,
    lasted: Duration,
}

/// Clients at work.
struct Load {
    begun: Instant,
    stop: Arc<AtomicBool>,
    clients: Vec<JoinHandle<Answers>>,
}

impl Load {
    fn start(runtime: &Runtime, urls: &Arc<Vec<String>>, task: RingChange) -> Self {
        let stop = Arc::<AtomicBool>::default();
        let begun = Instant::now();
        let clients = (0..CLIENTS).map(|number| {
            let client = Client { number, begun: Due::from_std(begun), task, urls: urls.clone() };
            runtime.spawn(client.run(stop.clone()))
        });
        Self { begun, clients: clients.collect(), stop }
    }

    fn finish(self, runtime: &Runtime) -> Result<Answers> {
        self.stop.store(true, Ordering::Relaxed);
        let mut all = Answers { lasted: self.begun.elapsed(), ..Answers::default() };
        for client in self.clients {
            let Answers { took, failed, .. } = runtime.block_on(client).context("a client panicked")?;
            all.took.extend(took);
            all.failed += failed;
        }
        Ok(all)
    }
}

struct Client {
    number: u64,
    begun: Due,
    task: RingChange,
    urls: Arc<Vec<String>>,
}

impl Client {
    async fn run(self, stop: Arc<AtomicBool>) -> Answers {
        let (http, mut answers) =
            (reqwest::Client::builder().no_proxy().build().unwrap_or_default(), Answers::default());
        let between =
            Duration::from_secs(1) / u32::try_from(self.task.requests_per_second).unwrap_or(1).max(1);
        let mut free = Due::now();
        for request in (self.number..).step_by(CLIENTS as usize) {
            let due = self.begun + between * request as u32;
            sleep_until(due).await;
            if stop.load(Ordering::Relaxed) {
                break;
            }
            // A timer that fires late is nobody's fault; a client that was busy is.
            let from = if free > due { due } else { Due::now() };
            match self.ask(&http, request).await {
                true => answers.took.push(from.elapsed()),
                false => answers.failed += 1,
            }
            free = Due::now();
        }
        answers
    }

    /// Whether it was answered as it should be.
    async fn ask(&self, http: &reqwest::Client, request: u64) -> bool {
        // Neighbouring requests go to keys far apart, each time to others, and to each node in turn.
        let key = request.wrapping_mul(0x9e37_79b9_7f4a_7c15) % self.task.keys;
        let url = url(&self.urls, request / CLIENTS, key);
        let sent = match (request / CLIENTS).is_multiple_of(2) {
            true => http.get(url).send().await,
            false => put(http, url, self.task.value_bytes).send().await,
        };
        let Ok(answer) = sent else { return false };
        answer.status().is_success() && answer.bytes().await.is_ok()
    }
}

fn url(urls: &[String], turn: u64, key: u64) -> String {
    format!("{}/v1/kv/key-{key}", urls[turn as usize % urls.len()])
}

fn put(http: &reqwest::Client, url: String, bytes: usize) -> reqwest::RequestBuilder {
    http.put(url).body(vec![b'v'; bytes])
}

async fn fill(urls: &[String], task: RingChange) -> Result<()> {
    let http = reqwest::Client::builder().no_proxy().build()?;
    let one = |key| {
        let sent = put(&http, url(urls, key, key), task.value_bytes).send();
        async move { sent.await?.error_for_status().map(drop) }
    };
    let written = stream::iter((0..task.keys).map(one)).buffer_unordered(FILLERS);
    Ok(written.try_for_each(|()| async { Ok(()) }).await?)
}
