//! A client of the admin API, one node at a time.

use std::time::Duration;

use quorate_core::ring::{Epoch, EpochMark};
use reqwest::{Method, RequestBuilder, StatusCode};
use serde::de::DeserializeOwned;

use crate::types::{ErrorBody, ErrorDetail, Identity, NodeStatus};

/// Talks to the nodes of one cluster.
#[derive(Clone)]
pub struct Client {
    http: reqwest::Client,
    secret: String,
}

/// Why a call gave no answer. *Unreachable* says nothing about the node's state: unknown is never done.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// No connection, no answer in time, or an answer that is not of this API.
    #[error("no answer from {address}: {source}")]
    Unreachable {
        /// Who was asked.
        address: String,
        /// What happened.
        source: reqwest::Error,
    },
    /// The node answered with an error.
    #[error("{address} answered {status}, {}: {}", detail.code, detail.message)]
    Refused {
        /// Who was asked.
        address: String,
        /// The HTTP status.
        status: StatusCode,
        /// What the node said.
        detail: ErrorDetail,
    },
}

impl ClientError {
    /// Whether the node refused an epoch because it knows another one of that number (INV-EPOCH).
    pub fn is_epoch_conflict(&self) -> bool {
        matches!(self, Self::Refused { detail, .. } if detail.code == "epoch_conflict")
    }

    /// Whether the same call may succeed in a moment: the node is busy or stops, or was not reached.
    pub fn is_passing(&self) -> bool {
        match self {
            Self::Unreachable { .. } => true,
            Self::Refused { status, .. } => *status == StatusCode::SERVICE_UNAVAILABLE,
        }
    }
}

impl Client {
    /// A client that proves itself with the cluster's secret and gives up on one call after `timeout`.
    pub fn new(secret: &str, timeout: Duration) -> reqwest::Result<Self> {
        let http = reqwest::Client::builder().timeout(timeout).connect_timeout(timeout).no_proxy().build()?;
        Ok(Self { http, secret: secret.to_owned() })
    }

    /// Who the node at `address` (`host:port`) is.
    pub async fn identity(&self, address: &str) -> Result<Identity, ClientError> {
        self.call(address, self.request(Method::GET, address, "identity")).await
    }

    /// Identity, epoch, health and members of the node at `address` (`host:port`).
    pub async fn status(&self, address: &str) -> Result<NodeStatus, ClientError> {
        self.call(address, self.request(Method::GET, address, "status")).await
    }

    /// The epoch that the node serves by, if it has one.
    pub async fn epoch(&self, address: &str) -> Result<Option<Epoch>, ClientError> {
        match self.call(address, self.request(Method::GET, address, "epoch")).await {
            Ok(epoch) => Ok(Some(epoch)),
            Err(ClientError::Refused { detail, .. }) if detail.code == "no_epoch" => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Pushes an epoch; answers the epoch that the node holds afterwards (a newer one, if it knew one).
    pub async fn push_epoch(&self, address: &str, epoch: &Epoch) -> Result<EpochMark, ClientError> {
        self.call(address, self.request(Method::PUT, address, "epoch").json(epoch)).await
    }

    fn request(&self, method: Method, address: &str, path: &str) -> RequestBuilder {
        self.http.request(method, format!("http://{address}/v1/{path}")).bearer_auth(&self.secret)
    }

    async fn call<T: DeserializeOwned>(
        &self,
        address: &str,
        request: RequestBuilder,
    ) -> Result<T, ClientError> {
        let unreachable = |source| ClientError::Unreachable { address: address.to_owned(), source };
        let response = request.send().await.map_err(unreachable)?;
        let status = response.status();
        if status.is_success() {
            return response.json().await.map_err(unreachable);
        }
        let body: ErrorBody = response.json().await.map_err(unreachable)?;
        Err(ClientError::Refused { address: address.to_owned(), status, detail: body.error })
    }
}
