//! What is asked of keys: reads and writes through the replica, last write wins.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use futures::StreamExt as _;
use quorate_core::causality::{Context, Expiry, Policy};
use quorate_core::limits::KEY_BYTES_MAX;
use quorate_core::quorum::Consistency;
use quorate_replica::Found;
use quorate_wire::peer::{ClientWrite, Refusal};
use quorate_wire::resp::change::{Change, Held, Write};
use quorate_wire::resp::command::Data;
use quorate_wire::resp::reply::Reply;

use super::RespServer;
use super::failure::Failure;
use crate::config::ReadModifyWrite;
use crate::engine::unix_ms;
use crate::room::Taken;

/// Keys of one command that are worked on at the same time.
const WINDOW: usize = 64;
/// Replies up to this length are not accounted for while they wait for their turn: there are few of them.
const SMALL_BYTES_MAX: usize = 1024;
/// Bytes of values that one answer may have.
const ANSWER_BYTES_MAX: usize = 32 << 20;

/// A reply, and the room that it takes until it is sent.
pub(super) struct Answer {
    pub(super) reply: Reply,
    pub(super) room: Vec<Taken>,
}

impl From<Reply> for Answer {
    fn from(reply: Reply) -> Self {
        Self { reply, room: Vec::new() }
    }
}

/// What a reader sees of a key.
struct Seen {
    held: Option<Held>,
    room: Option<Taken>,
}

impl RespServer {
    /// Does what a command asks; `name` is the command's.
    pub(super) async fn do_data(&self, name: &'static str, data: Data) -> Result<Answer, Failure> {
        let at_once = data.key_count().min(WINDOW);
        let _permit = self.requests.try_acquire_many(at_once as u32).map_err(|_| Refusal::Busy)?;
        match data {
            Data::Look { key, look } => {
                let Seen { held, room } = self.look(key).await?;
                let reply = look.tell(held.as_ref(), unix_ms());
                Ok(Answer { reply, room: room.into_iter().collect() })
            }
            Data::GetMany(keys) => self.get_many(keys).await,
            Data::Exists(keys) => {
                let count = |seen: Vec<Seen>| seen.iter().filter(|seen| seen.held.is_some()).count();
                Ok(Reply::Integer(count(self.look_at_all(keys).await?) as i64).into())
            }
            Data::Set { key, value, ends } => {
                let now = unix_ms();
                let ends = ends.map(|moment| moment.unix_ms(now));
                let value = Some(value).filter(|_| ends.is_none_or(|ends| ends > now));
                self.put(key, last_write(Context::default(), value, ends)).await?;
                Ok(Reply::OK.into())
            }
            Data::SetMany(pairs) => {
                // Of a key that is given twice the last value counts.
                let pairs: BTreeMap<Bytes, Bytes> = pairs.into_iter().collect();
                let put = |(key, value)| async {
                    self.put(key, last_write(Context::default(), Some(value), None)).await
                };
                each(pairs, put).await?;
                Ok(Reply::OK.into())
            }
            Data::Delete(keys) => {
                let keys: BTreeSet<Bytes> = keys.into_iter().collect();
                let held = each(keys, |key| self.delete(key)).await?;
                Ok(Reply::Integer(held.into_iter().filter(|held| *held).count() as i64).into())
            }
            Data::Change { key, change } => self.change(name, key, &change).await,
        }
    }

    /// A reply that may be long, such as a list of connections.
    pub(super) fn with_room(&self, reply: Reply) -> Result<Answer, Failure> {
        let room = self.room_for(reply.bytes())?;
        Ok(Answer { reply, room: room.into_iter().collect() })
    }

    fn room_for(&self, bytes: usize) -> Result<Option<Taken>, Failure> {
        match bytes {
            0..=SMALL_BYTES_MAX => Ok(None),
            bytes => Ok(Some(self.answers.take(bytes).ok_or(Refusal::Busy)?)),
        }
    }

    async fn get_many(&self, keys: Vec<Bytes>) -> Result<Answer, Failure> {
        let seen = self.look_at_all(keys).await?;
        let mut answer = Answer { reply: Reply::Null, room: Vec::new() };
        let mut replies = Vec::with_capacity(seen.len());
        for Seen { held, room } in seen {
            replies.push(Reply::maybe(held.map(|held| held.value)));
            answer.room.extend(room);
        }
        answer.reply = Reply::Array(replies);
        Ok(answer)
    }

    /// All of these, in order, or none.
    async fn look_at_all(&self, keys: Vec<Bytes>) -> Result<Vec<Seen>, Failure> {
        let (mut all, mut bytes) = (Vec::new(), 0);
        let mut looks = futures::stream::iter(keys).map(|key| self.look(key)).buffered(WINDOW);
        while let Some(seen) = looks.next().await {
            let seen = seen?;
            bytes += seen.held.as_ref().map_or(0, |held| held.value.len());
            if bytes > ANSWER_BYTES_MAX {
                return Err(Failure::AnswerTooLong { bytes_max: ANSWER_BYTES_MAX });
            }
            all.push(seen);
        }
        Ok(all)
    }

    async fn look(&self, key: Bytes) -> Result<Seen, Failure> {
        let held = held(&self.read(key).await?, unix_ms());
        let room = self.room_for(held.as_ref().map_or(0, |held| held.value.len()))?;
        Ok(Seen { held, room })
    }

    async fn read(&self, key: Bytes) -> Result<Found, Failure> {
        expect_short(&key)?;
        Ok(self.node.read(key, Consistency::Configured).await?)
    }

    async fn put(&self, key: Bytes, write: ClientWrite) -> Result<(), Failure> {
        expect_short(&key)?;
        self.node.write(key, write).await?;
        Ok(())
    }

    /// Deletes a key, and says whether it held a value just before. It is deleted in any case: a write whose outcome
    /// nobody knows may come to light later, and must not outlive what was deleted after it.
    async fn delete(&self, key: Bytes) -> Result<bool, Failure> {
        let found = self.read(key.clone()).await?;
        let existed = held(&found, unix_ms()).is_some();
        self.put(key, last_write(found.set.context().clone(), None, None)).await?;
        Ok(existed)
    }

    /// Two steps: what another client writes between them is not seen.
    async fn change(&self, name: &'static str, key: Bytes, change: &Change) -> Result<Answer, Failure> {
        if self.read_modify_write == ReadModifyWrite::Refuse {
            return Err(Failure::NotAtomic(name));
        }
        let (found, now) = (self.read(key.clone()).await?, unix_ms());
        let outcome = change.apply(held(&found, now).as_ref(), now)?;
        if let Some(write) = outcome.write {
            let (value, ends) = match write {
                Write::Put(Held { value, ends_unix_ms }) => (Some(value), ends_unix_ms),
                Write::Delete => (None, None),
            };
            // What was not seen is not replaced, where the cluster keeps siblings: HTTP still shows it.
            let policy = self.node.conflicts;
            self.put(key, ClientWrite { policy, ..last_write(found.set.context().clone(), value, ends) })
                .await?;
        }
        Ok(outcome.reply.into())
    }
}

fn expect_short(key: &Bytes) -> Result<(), Failure> {
    if key.len() > KEY_BYTES_MAX { Err(Failure::KeyTooLong { bytes: key.len() }) } else { Ok(()) }
}

/// What a key holds by last write wins.
fn held(found: &Found, now_unix_ms: u64) -> Option<Held> {
    let last = found.set.last()?;
    let value = last.live_value(now_unix_ms)?.clone();
    Some(Held { value, ends_unix_ms: last.expires.map(Expiry::unix_ms) })
}

/// A write that replaces whatever the key holds.
fn last_write(context: Context, value: Option<Bytes>, ends_unix_ms: Option<u64>) -> ClientWrite {
    ClientWrite {
        context,
        value,
        expires: ends_unix_ms.map(Expiry::at_ms),
        policy: Policy::LastWriteWins,
        consistency: Consistency::Configured,
    }
}

/// Does the same to each; what failed of several is told together.
async fn each<T, R, F: Future<Output = Result<R, Failure>>>(
    all: impl IntoIterator<Item = T, IntoIter: ExactSizeIterator>,
    work: impl Fn(T) -> F,
) -> Result<Vec<R>, Failure> {
    let all = all.into_iter();
    let keys = all.len();
    let (mut done, mut unknown, mut first) = (Vec::new(), 0, None);
    let mut results = futures::stream::iter(all).map(work).buffered(WINDOW);
    while let Some(result) = results.next().await {
        match result {
            Ok(result) => done.push(result),
            Err(failure) => {
                unknown += usize::from(failure.is_unknown());
                first.get_or_insert(failure);
            }
        }
    }
    match first {
        None => Ok(done),
        Some(first) if keys == 1 => Err(first),
        Some(first) => Err(Failure::Several { done: done.len(), keys, unknown, first: Box::new(first) }),
    }
}
