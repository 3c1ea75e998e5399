//! The load: so many clients at once, each asking again as soon as it is answered (closed loop), or all together so often a
//! second, answered or not (open loop). There a request that had to wait for the one before counts from when it was due, so
//! that a server that stands still does not make its own figures better.

use std::cell::Cell;
use std::fmt;
use std::rc::Rc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use futures::future::try_join_all;
use tokio::time::{Instant, sleep, sleep_until};

use super::client::Client;
use super::contestant::Contestant;
use super::keys::{Drawer, Keys, key};
use super::process::cpu_time;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Op {
    Read,
    Write,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Pace {
    Closed,
    Open { per_second: u32 },
}

/// What is asked for, and how.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Work {
    pub(crate) op: Op,
    pub(crate) clients: usize,
    /// Requests that a client sends together.
    pub(crate) pipeline: usize,
    pub(crate) value_bytes: usize,
    pub(crate) keys: Keys,
    pub(crate) pace: Pace,
}

/// What came of it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Figures {
    pub(crate) per_second: f64,
    pub(crate) p50: Duration,
    pub(crate) p99: Duration,
    pub(crate) p999: Duration,
    /// Processor time for each request, of all servers and of the load generator.
    pub(crate) server: Duration,
    pub(crate) client: Duration,
}

impl fmt::Display for Figures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { per_second, p50, p99, server, .. } = self;
        write!(f, "{per_second:.0}/s, p50 {p50:?}, p99 {p99:?}, server {server:?} each")
    }
}

const FILLERS: usize = 16;
const FILL_PIPELINE: usize = 64;

/// Writes each key once.
pub(crate) async fn fill(contestant: &Contestant, keys: u64, value_bytes: usize) -> Result<()> {
    let value = vec![b'x'; value_bytes];
    let fill = async |filler: usize| -> Result<()> {
        let mut client = Client::connect(contestant, filler).await?;
        let mut mine = (filler as u64..keys).step_by(FILLERS).peekable();
        while mine.peek().is_some() {
            let some = mine.by_ref().take(FILL_PIPELINE);
            let pairs: Vec<_> = some.map(|number| (key(number, value_bytes), &value[..])).collect();
            client.put(&pairs).await?;
        }
        Ok(())
    };
    try_join_all((0..FILLERS).map(fill)).await.with_context(|| format!("filling {}", contestant.name))?;
    Ok(())
}

/// What the clients of one measurement share.
struct Shared {
    work: Work,
    began: Instant,
    measures: Cell<bool>,
    stops: Cell<bool>,
}

/// Lets the clients work; what they do while it is getting warm does not count.
pub(crate) async fn run(
    contestant: &Contestant,
    work: Work,
    keys: u64,
    warm: Duration,
    measured: Duration,
) -> Result<Figures> {
    let connecting = (0..work.clients).map(|number| Client::connect(contestant, number));
    let clients = try_join_all(connecting).await?;
    let (measures, stops) = (Cell::new(false), Cell::new(false));
    let shared = Rc::new(Shared { work, began: Instant::now(), measures, stops });
    let working = clients.into_iter().enumerate().map(|(number, client)| {
        let drawer = Drawer::new(work.keys, keys, number as u64);
        work_on(client, number, drawer, shared.clone())
    });
    let watch = async {
        sleep(warm).await;
        let (server, client, began) = (contestant.cpu_time()?, cpu_time(std::process::id())?, Instant::now());
        shared.measures.set(true);
        sleep(measured).await;
        shared.measures.set(false);
        let lasted = began.elapsed();
        let used = (contestant.cpu_time()? - server, cpu_time(std::process::id())? - client);
        shared.stops.set(true);
        anyhow::Ok((lasted, used))
    };
    let (took, watched) = tokio::join!(try_join_all(working), watch);
    let mut took: Vec<Duration> = took.with_context(|| format!("asking {}", contestant.name))?.concat();
    let (lasted, (server, client)) = watched?;
    ensure!(!took.is_empty(), "no request was answered by {}", contestant.name);
    took.sort_unstable();
    let at = |part: f64| took[((took.len() - 1) as f64 * part) as usize];
    let requests = took.len() * work.pipeline;
    Ok(Figures {
        per_second: requests as f64 / lasted.as_secs_f64(),
        p50: at(0.5),
        p99: at(0.99),
        p999: at(0.999),
        server: server.div_f64(requests as f64),
        client: client.div_f64(requests as f64),
    })
}

/// How long each pipeline took that ended while it was measured.
async fn work_on(
    mut client: Client,
    number: usize,
    mut drawer: Drawer,
    shared: Rc<Shared>,
) -> Result<Vec<Duration>> {
    let Work { op, clients, pipeline, value_bytes, pace, .. } = shared.work;
    let value = vec![b'v'; value_bytes];
    let mut took = Vec::new();
    let mut due = Due::new(pace, shared.began, number, clients);
    while !shared.stops.get() {
        let begins = due.next().await;
        let names: Vec<String> = (0..pipeline).map(|_| key(drawer.draw(), value_bytes)).collect();
        match op {
            Op::Read => client.get(&names).await?,
            Op::Write => {
                let pairs: Vec<_> = names.into_iter().map(|name| (name, &value[..])).collect();
                client.put(&pairs).await?;
            }
        }
        if shared.measures.get() {
            took.push(begins.elapsed());
        }
    }
    Ok(took)
}

/// When requests of one client are due.
enum Due {
    Now,
    At { next: Instant, every: Duration },
}

impl Due {
    fn new(pace: Pace, began: Instant, number: usize, clients: usize) -> Self {
        match pace {
            Pace::Closed => Self::Now,
            Pace::Open { per_second } => {
                let every = Duration::from_secs(1) * clients as u32 / per_second;
                Self::At { next: began + every.mul_f64(number as f64 / clients as f64), every }
            }
        }
    }

    /// Waits until the next one is due, and says when that was.
    async fn next(&mut self) -> Instant {
        match self {
            Self::Now => Instant::now(),
            Self::At { next, every } => {
                let due = *next;
                *next += *every;
                sleep_until(due).await;
                due
            }
        }
    }
}
