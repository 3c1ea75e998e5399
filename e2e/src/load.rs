//! Clients that write and read without pause, and remember what was acknowledged.
//!
//! Invariant: a key is remembered only after its acknowledgement, and its value follows from the key, so
//! that every acknowledged write can be checked afterwards, by anybody, through any node.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures::stream::{self, StreamExt as _, TryStreamExt as _};
use tokio::runtime::Runtime;
use tokio::task::JoinHandle;

use crate::error::{Error, ensure};
use crate::store::Store;

/// How many requests are under way at once where many keys are written or checked.
const CONCURRENT_MAX: usize = 32;

/// How many clients write, and how many read, while something is done to the cluster.
const CLIENTS: usize = 8;

/// How long a client rests after an error.
const ERROR_PAUSE: Duration = Duration::from_millis(20);

/// How often a check asks again when a node answers with an error: it may be settling down.
const CHECK_TRIES_MAX: usize = 20;

/// How long a check rests between tries.
const CHECK_PAUSE: Duration = Duration::from_millis(250);

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

/// What the clients share.
#[derive(Debug, Default)]
struct Tally {
    stop: AtomicBool,
    written: Mutex<Vec<String>>,
    reads: AtomicU64,
    errors: AtomicU64,
    lost: Mutex<Option<String>>,
}

/// How far the clients have come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mark {
    /// Acknowledged writes.
    pub writes: u64,
    /// Reads that found what was written.
    pub reads: u64,
    /// Requests that were refused or not answered.
    pub errors: u64,
}

/// Clients at work.
#[derive(Debug)]
pub struct Load {
    tally: Arc<Tally>,
    clients: Vec<JoinHandle<()>>,
}

impl Load {
    /// Starts clients that write keys of this prefix and read back what was acknowledged.
    pub fn start(runtime: &Runtime, store: &Store, prefix: &str) -> Self {
        let tally = Arc::new(Tally::default());
        let mut clients = Vec::new();
        for client in 0..CLIENTS {
            clients.push(runtime.spawn(write_on(
                store.clone(),
                Arc::clone(&tally),
                format!("{prefix}-{client}"),
            )));
            clients.push(runtime.spawn(read_on(store.clone(), Arc::clone(&tally), client)));
        }
        Self { tally, clients }
    }

    /// How far they have come.
    pub fn mark(&self) -> Mark {
        Mark {
            writes: self.tally.written().len() as u64,
            reads: self.tally.reads.load(Ordering::Relaxed),
            errors: self.tally.errors.load(Ordering::Relaxed),
        }
    }

    /// Stops them and returns every key that was acknowledged.
    ///
    /// # Errors
    /// When a client read that an acknowledged write is lost.
    pub async fn finish(self) -> Result<Vec<String>, Error> {
        self.tally.stop.store(true, Ordering::Relaxed);
        for client in self.clients {
            client.await.map_err(|panic| Error::Unexpected(format!("a client ended early: {panic}")))?;
        }
        let lost = self.tally.lost.lock().unwrap_or_else(PoisonError::into_inner).take();
        lost.map_or_else(|| Ok(self.tally.written().clone()), |sentence| Err(Error::Unexpected(sentence)))
    }
}

impl Tally {
    fn written(&self) -> std::sync::MutexGuard<'_, Vec<String>> {
        // A client that panicked while it held the list left it whole: it only ever adds one key.
        self.written.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn goes_on(&self) -> bool {
        !self.stop.load(Ordering::Relaxed)
    }

    async fn error(&self) {
        self.errors.fetch_add(1, Ordering::Relaxed);
        tokio::time::sleep(ERROR_PAUSE).await;
    }
}

/// A key is written once: after an error nobody knows, and the next write is another key's.
async fn write_on(store: Store, tally: Arc<Tally>, prefix: String) {
    let mut number = 0_u64;
    while tally.goes_on() {
        let key = format!("{prefix}-{number}");
        number += 1;
        match store.put(&key, &value_of(&key)).await {
            Ok(()) => tally.written().push(key),
            Err(_) => tally.error().await,
        }
    }
}

async fn read_on(store: Store, tally: Arc<Tally>, client: usize) {
    let mut turn = client;
    while tally.goes_on() {
        turn = turn.wrapping_mul(31).wrapping_add(7);
        let key = {
            let written = tally.written();
            written.get(turn % written.len().max(1)).cloned()
        };
        let Some(key) = key else {
            tokio::time::sleep(ERROR_PAUSE).await;
            continue;
        };
        match store.get(&key).await {
            Ok(values) if values.contains(&value_of(&key)) => {
                tally.reads.fetch_add(1, Ordering::Relaxed);
            }
            Ok(values) => {
                let sentence = format!("{key} was acknowledged, and a read under load gave {values:?}");
                *tally.lost.lock().unwrap_or_else(PoisonError::into_inner) = Some(sentence);
                return;
            }
            Err(_) => tally.error().await,
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
        let load = Load::start(&runtime, &store, "load");
        let found = || load.tally.lost.lock().unwrap().is_some();
        crate::run::wait_until("a client to notice", Duration::from_secs(30), "", || Ok(found())).unwrap();
        assert!(runtime.block_on(load.finish()).is_err());
    }
}
