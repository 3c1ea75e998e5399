//! Bodies of requests: read in time, within bounds, and out of the way when they are refused.

use std::time::Duration;

use axum::body::{BodyDataStream, Bytes};
use bytes::BytesMut;
use futures::StreamExt as _;
use http::{HeaderMap, header};
use quorate_core::limits::VALUE_BYTES_MAX;
use quorate_wire::peer::Refusal;
use tokio::time::timeout;

use super::error::HttpError;
use crate::room::{Room, Taken};

/// Bytes of a refused body that are still read, so that the client gets to see the answer.
const DISCARD_BYTES_MAX: usize = 64 << 20;

/// The whole body, at most as long as a value, and the room that it takes in memory while it is held.
pub(super) async fn whole(
    headers: &HeaderMap,
    body: &mut BodyDataStream,
    room: &Room,
    time: Duration,
) -> Result<(Bytes, Taken), HttpError> {
    let announced = headers.get(header::CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse().ok());
    let bytes: usize = announced.unwrap_or(VALUE_BYTES_MAX);
    if bytes > VALUE_BYTES_MAX {
        return Err(HttpError::ValueTooLong);
    }
    let room = room.take(bytes).ok_or(Refusal::Busy)?;
    let value = timeout(time, read(body)).await.map_err(|_| HttpError::SlowBody)??;
    Ok((value, room))
}

async fn read(body: &mut BodyDataStream) -> Result<Bytes, HttpError> {
    let mut value = BytesMut::new();
    while let Some(chunk) = body.next().await {
        let chunk = chunk.map_err(|error| HttpError::BrokenBody(error.to_string()))?;
        if value.len() + chunk.len() > VALUE_BYTES_MAX {
            return Err(HttpError::ValueTooLong);
        }
        value.extend_from_slice(&chunk);
    }
    Ok(value.freeze())
}

/// Reads what is left of a body into nowhere, as far as politeness goes: a client that is still sending would see a
/// broken connection instead of the answer.
pub(super) async fn discard(body: &mut BodyDataStream, time: Duration) {
    let all = async {
        let mut left = DISCARD_BYTES_MAX;
        while let Some(Ok(chunk)) = body.next().await {
            match left.checked_sub(chunk.len()) {
                Some(rest) => left = rest,
                None => return,
            }
        }
    };
    let _ = timeout(time, all).await; // Then it sees that.
}
