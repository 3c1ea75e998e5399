//! Clients that write and read, and remember what was acknowledged.
//!
//! Invariant: a key is remembered only after its acknowledgement, and its value follows from the key, so
//! that every acknowledged write can be checked afterwards, by anybody, through any node.
//!
//! A client asks once more where its connection broke, and never where the store answered that it will not: what was
//! asked again and what failed are counted apart.

use std::future::Future;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use futures::stream::{self, StreamExt as _, TryStreamExt as _};
use tokio::runtime::Runtime;
use tokio::task::JoinHandle;

use crate::error::{Error, ensure};
use crate::store::Store;

/// How many requests are under way at once where many keys are written or checked.
const CONCURRENT_MAX: usize = 32;

/// How many clients write, and how many read, while something is done to the cluster.
const CLIENTS: usize = 8;

/// One writer and one reader in so many opens a connection for each request: the Service leads it to whatever node is ready,
/// new ones included. The others stay with the nodes that they met first.
const CONNECTING_ANEW_ONE_IN: usize = 4;

/// How long a client rests between two requests: a few hundred of each kind a second are load enough, and can all be
/// checked afterwards.
const PAUSE: Duration = Duration::from_millis(20);

/// How often a client tries to open a connection, until it calls its request failed. Where a machine died without a
/// word, the Service leads there until Kubernetes has noticed.
const OPEN_TRIES_MAX: u32 = 20;

/// How often a check asks again when a node answers with an error: it may be settling down.
const CHECK_TRIES_MAX: usize = 20;

/// How long a check rests between tries.
const CHECK_PAUSE: Duration = Duration::from_millis(250);

/// How long a copy may take to get where it belongs: longer than two rounds of anti-entropy.
const COPY_SECONDS_MAX: Duration = Duration::from_secs(150);

/// The one value that a key is ever given.
pub fn value_of(key: &str) -> String {
    format!("the value of {key}, and a little more to have some bytes to carry around")
}

/// Writes keys `prefix-0` to `prefix-(count-1)`, each of which must be acknowledged.
///
/// # Errors
/// The first refusal.
pub async fn write(store: &Store, prefix: &str, count: usize) -> Result<Vec<String>, Error> {
    let keys: Vec<String> = (0..count).map(|number| format!("{prefix}-{number}")).collect();
    stream::iter(keys.iter().map(|key| async move { store.put(key, &value_of(key)).await }))
        .buffer_unordered(CONCURRENT_MAX)
        .try_for_each(|()| async { Ok(()) })
        .await?;
    Ok(keys)
}

/// Checks that every key has its value.
///
/// # Errors
/// The first key that has not, or cannot be read.
pub async fn check(store: &Store, keys: &[String]) -> Result<(), Error> {
    stream::iter(keys.iter().map(|key| check_one(store, key)))
        .buffer_unordered(CONCURRENT_MAX)
        .try_for_each(|()| async { Ok(()) })
        .await
}

async fn check_one(store: &Store, key: &str) -> Result<(), Error> {
    let mut tries = 1;
    let values = loop {
        match store.get(key).await {
            Ok(values) => break values,
            Err(error) if tries == CHECK_TRIES_MAX => return Err(error),
            Err(_) => tries += 1,
        }
        tokio::time::sleep(CHECK_PAUSE).await;
    };
    ensure(values.contains(&value_of(key)), || {
        format!("an acknowledged write is lost: {key} was acknowledged, and reads give {values:?}")
    })
}

/// Checks that a node has every key itself, and waits for those that it lacks: an owner that was away when a key was
/// written gets it soon. Returns how many it lacked at first.
///
/// # Errors
/// When it lacks one for good, or does not answer.
pub async fn check_copies(node: &Store, keys: &[String]) -> Result<usize, Error> {
    let deadline = Instant::now() + COPY_SECONDS_MAX;
    let mut lacking = keys_lacking(node, keys).await?;
    let at_first = lacking.len();
    while !lacking.is_empty() {
        ensure(Instant::now() < deadline, || {
            format!(
                "{} of {} keys are not on a node that owns them, after {} s, such as {}",
                lacking.len(),
                keys.len(),
                COPY_SECONDS_MAX.as_secs(),
                lacking[0]
            )
        })?;
        tokio::time::sleep(CHECK_PAUSE).await;
        lacking = keys_lacking(node, &lacking).await?;
    }
    Ok(at_first)
}

async fn keys_lacking(node: &Store, keys: &[String]) -> Result<Vec<String>, Error> {
    let one = |key: &String| {
        let key = key.clone();
        async move {
            let found = node.get_from_one(&key).await?.contains(&value_of(&key));
            Ok::<_, Error>((!found).then_some(key))
        }
    };
    let found: Vec<Option<String>> =
        stream::iter(keys.iter().map(one)).buffer_unordered(CONCURRENT_MAX).try_collect().await?;
    Ok(found.into_iter().flatten().collect())
}

/// What the clients share.
#[derive(Debug, Default)]
struct Tally {
    stop: AtomicBool,
    written: Mutex<Vec<String>>,
    reads: AtomicU64,
    unopened: AtomicU64,
    repeated: AtomicU64,
    failed: AtomicU64,
    first_failure: Mutex<Option<String>>,
    lost: Mutex<Option<String>>,
}

/// How far the clients have come.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mark {
    /// Acknowledged writes.
    pub writes: u64,
    /// Reads that found what was written.
    pub reads: u64,
    /// Connections that could not be opened: nothing was asked.
    pub unopened: u64,
    /// Requests that were asked once more, because their connection broke.
    pub repeated: u64,
    /// Requests that the store refused, or that were not answered even then.
    pub failed: u64,
    /// The first of these.
    pub first_failure: Option<String>,
}

/// Clients at work.
#[derive(Debug)]
pub struct Load {
    tally: Arc<Tally>,
    clients: Vec<JoinHandle<()>>,
}

impl Load {
    /// Starts clients that write keys of this prefix and read back what was acknowledged.
    ///
    /// # Errors
    /// When the machine gives no client.
    pub fn start(runtime: &Runtime, store: &Store, prefix: &str) -> Result<Self, Error> {
        let tally = Arc::new(Tally::default());
        let mut clients = Vec::new();
        for client in 0..CLIENTS {
            let anew = client % CONNECTING_ANEW_ONE_IN == 0;
            let store = if anew { store.connecting_anew()? } else { store.clone() };
            clients.push(runtime.spawn(write_on(
                store.clone(),
                Arc::clone(&tally),
                format!("{prefix}-{client}"),
            )));
            clients.push(runtime.spawn(read_on(store, Arc::clone(&tally), client)));
        }
        Ok(Self { tally, clients })
    }

    /// How far they have come.
    pub fn mark(&self) -> Mark {
        let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Mark {
            writes: self.tally.written().len() as u64,
            reads: count(&self.tally.reads),
            unopened: count(&self.tally.unopened),
            repeated: count(&self.tally.repeated),
            failed: count(&self.tally.failed),
            first_failure: hold(&self.tally.first_failure).clone(),
        }
    }

    /// Stops them and returns every key that was acknowledged, and how it went.
    ///
    /// # Errors
    /// When a client read that an acknowledged write is lost.
    pub async fn finish(mut self) -> Result<(Vec<String>, Mark), Error> {
        self.tally.stop.store(true, Ordering::Relaxed);
        for client in std::mem::take(&mut self.clients) {
            client.await.map_err(|panic| Error::Unexpected(format!("a client ended early: {panic}")))?;
        }
        if let Some(sentence) = hold(&self.tally.lost).take() {
            return Err(Error::Unexpected(sentence));
        }
        let keys = self.tally.written().clone();
        Ok((keys, self.mark()))
    }
}

/// A client that panicked while it held the lock left what is behind it whole: it only ever adds or sets one thing.
fn hold<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn add_one(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

impl Tally {
    fn written(&self) -> MutexGuard<'_, Vec<String>> {
        hold(&self.written)
    }

    fn goes_on(&self) -> bool {
        !self.stop.load(Ordering::Relaxed)
    }

    fn failed(&self, error: &Error) {
        add_one(&self.failed);
        hold(&self.first_failure).get_or_insert_with(|| error.to_string());
    }

    /// Asks, and once more where the connection broke.
    async fn ask<T, F>(&self, request: impl Fn() -> F) -> Result<T, Error>
    where
        F: Future<Output = Result<T, Error>>,
    {
        match self.open_and_ask(&request).await {
            Err(Error::Http(_)) => {
                add_one(&self.repeated);
                self.open_and_ask(&request).await
            }
            answer => answer,
        }
    }

    /// A connection that does not open carries no request: the next one leads elsewhere.
    async fn open_and_ask<T, F>(&self, request: &impl Fn() -> F) -> Result<T, Error>
    where
        F: Future<Output = Result<T, Error>>,
    {
        let mut tries = 1;
        loop {
            match request().await {
                Err(Error::Http(error)) if error.is_connect() && tries < OPEN_TRIES_MAX => {
                    add_one(&self.unopened);
                    tries += 1;
                }
                answer => return answer,
            }
            tokio::time::sleep(PAUSE).await;
        }
    }
}

/// A key is written by one request: after a failure nobody knows, and the next write is another key's.
async fn write_on(store: Store, tally: Arc<Tally>, prefix: String) {
    let mut number = 0_u64;
    while tally.goes_on() {
        let key = format!("{prefix}-{number}");
        let value = value_of(&key);
        number += 1;
        match tally.ask(|| store.put(&key, &value)).await {
            Ok(()) => tally.written().push(key),
            Err(error) => tally.failed(&error),
        }
        tokio::time::sleep(PAUSE).await;
    }
}

async fn read_on(store: Store, tally: Arc<Tally>, client: usize) {
    let mut turn = client;
    while tally.goes_on() {
        tokio::time::sleep(PAUSE).await;
        turn = turn.wrapping_mul(31).wrapping_add(7);
        let key = {
            let written = tally.written();
            written.get(turn % written.len().max(1)).cloned()
        };
        let Some(key) = key else { continue };
        match tally.ask(|| store.get(&key)).await {
            Ok(values) if values.contains(&value_of(&key)) => add_one(&tally.reads),
            Ok(values) => {
                let sentence = format!("{key} was acknowledged, and a read under load gave {values:?}");
                *hold(&tally.lost) = Some(sentence);
                return;
            }
            Err(error) => tally.failed(&error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use base64::Engine as _;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpListener;

    /// A store that answers every read with this value, whatever was written.
    async fn store_of(value: &str) -> Store {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let value = base64::engine::general_purpose::STANDARD.encode(value);
        let body = format!(r#"{{"values": [{{"value": "{value}"}}]}}"#);
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let mut request = [0; 4096];
                let _length = stream.read(&mut request).await.unwrap();
                let head =
                    format!("HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: {}\r\n\r\n", body.len());
                stream.write_all(format!("{head}{body}").as_bytes()).await.unwrap();
            }
        });
        Store::new(&url).unwrap()
    }

    #[tokio::test]
    async fn a_check_finds_a_lost_write() {
        let keys = ["a".to_owned(), "b".to_owned()];
        let store = store_of(&value_of("a")).await;
        check(&store, &keys[..1]).await.unwrap();
        let error = check(&store, &keys).await.unwrap_err().to_string();
        assert!(error.contains("an acknowledged write is lost: b"), "{error}");
    }

    #[test]
    fn clients_find_a_lost_write() {
        let runtime = Runtime::new().unwrap();
        let store = runtime.block_on(store_of("something else"));
        let load = Load::start(&runtime, &store, "load").unwrap();
        let found = || load.tally.lost.lock().unwrap().is_some();
        crate::run::wait_until("a client to notice", Duration::from_secs(30), "", || Ok(found())).unwrap();
        assert!(runtime.block_on(load.finish()).is_err());
    }
}
