//! One running node, as its listeners see it: a door to the engine, and what needs no engine.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use bytes::Bytes;
use quorate_core::causality::Policy;
use quorate_core::quorum::Consistency;
use quorate_core::ring::{Epoch, EpochMark};
use quorate_replica::{AdoptError, Answer, ClientRequest, Found, Identity, Replica};
use quorate_storage::{Durability, Store};
use quorate_wire::handshake::Secret;
use quorate_wire::peer::{ClientWrite, Refusal, Written};
use tokio::sync::oneshot;

use crate::inbox::{Inbox, Input};
use crate::metrics::Metrics;
use crate::readers::Library;
use crate::users::Access;

/// What the parts of a node share.
pub(crate) struct Node {
    pub(crate) identity: Identity,
    /// `host:port` where Redis clients reach this node, if they are served.
    pub(crate) redis_address: Option<String>,
    pub(crate) secret: Secret,
    pub(crate) access: Arc<Access>,
    pub(crate) conflicts: Policy,
    pub(crate) durability: Durability,
    pub(crate) request_timeout: Duration,
    pub(crate) store: Store,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) stopping: AtomicBool,
    /// Whether the ring goes on without it, as of the last look: there is one with each probe of its readiness.
    pub(crate) departs: AtomicBool,
    pub(crate) inbox: Arc<Inbox>,
}

/// The engine has ended, or ends before it answers.
#[derive(Debug)]
pub(crate) struct Ended;

/// The engine ended while it worked on a write: what the owners made of it is not known.
const LOST_WRITE: Refusal = Refusal::Indeterminate { needed: 1, acknowledged: 0 };

/// Why an epoch was not adopted, as a sentence.
pub(crate) fn sentence(error: &AdoptError) -> String {
    match error {
        AdoptError::Epoch(error) => error.to_string(),
        AdoptError::Disk(reason) => format!("the epoch could not be kept: {reason}"),
        AdoptError::Busy => "another epoch is being kept: push this one again".to_owned(),
        AdoptError::Behind { known } => {
            format!(
                "this node is at epoch {known} and asks the members for the epochs between: push this one again"
            )
        }
        AdoptError::Full { oldest, newest } => {
            format!(
                "epochs {oldest} to {newest} are live, and no more may be: push this one when the oldest is retired"
            )
        }
    }
}

impl Node {
    /// Writes a key.
    pub(crate) async fn write(&self, key: Bytes, write: ClientWrite) -> Result<Written, Refusal> {
        match self.request(ClientRequest::Write { key, write }).await {
            Ok(Answer::Written(written)) => Ok(written),
            Ok(Answer::Refused(refusal)) => Err(refusal),
            Ok(Answer::Found(_)) | Err(Ended) => Err(LOST_WRITE),
        }
    }

    /// Reads a key.
    pub(crate) async fn read(&self, key: Bytes, consistency: Consistency) -> Result<Found, Refusal> {
        match self.request(ClientRequest::Read { key, consistency }).await {
            Ok(Answer::Found(found)) => Ok(found),
            Ok(Answer::Refused(refusal)) => Err(refusal),
            Ok(Answer::Written(_)) | Err(Ended) => Err(Refusal::Stopping),
        }
    }

    async fn request(&self, request: ClientRequest) -> Result<Answer, Ended> {
        self.call(|answer| Input::Client { request, answer }).await
    }

    /// Takes an epoch that may be newer, and says which one is held now (INV-EPOCH).
    pub(crate) async fn adopt(&self, epoch: Epoch) -> Result<Result<EpochMark, AdoptError>, Ended> {
        self.call(|adopted| Input::Adopt { epoch: Box::new(epoch), adopted }).await
    }

    /// Asks the replica something.
    pub(crate) async fn ask<T: Send + 'static>(
        &self,
        question: impl FnOnce(&Replica<Library>) -> T + Send + 'static,
    ) -> Result<T, Ended> {
        self.call(|answer| Input::Question(Box::new(move |replica| drop(answer.send(question(replica))))))
            .await
    }

    /// Tells the peers that this node goes, and waits until those that can be reached have heard.
    pub(crate) async fn leave(&self) {
        let _ = self.call(|heard| Input::Leave { heard }).await; // An engine that ended has nothing to say.
    }

    async fn call<T>(&self, input: impl FnOnce(oneshot::Sender<T>) -> Input) -> Result<T, Ended> {
        let (answer, answered) = oneshot::channel();
        self.inbox.push(input(answer));
        answered.await.map_err(|_| Ended)
    }
}
