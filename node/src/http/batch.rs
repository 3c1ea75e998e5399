//! `POST /v1/batch`: many operations in one request, one JSON document a line, and one line of answer for each.
//!
//! Lines are worked on while more of them come, [`WINDOW`] at a time, and answered in their order. Each ends for itself: an
//! answer says what became of its line, and of no other.

use std::sync::Arc;

use axum::body::{Body, BodyDataStream, Bytes};
use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use bytes::BytesMut;
use futures::StreamExt as _;
use futures::stream;
use http::{Method, StatusCode, header};
use quorate_admin::types::ErrorDetail;
use quorate_core::causality::Context;
use quorate_core::limits::{KEY_BYTES_MAX, VALUE_BYTES_MAX};
use quorate_replica::Found;
use quorate_wire::peer::{ClientWrite, Receipt, Refusal, Written, set_bytes};
use serde::{Deserialize, Serialize};
use tokio::time::timeout;

use super::error::HttpError;
use super::parameters::{Parameters, Takes, time_to_live};
use super::{Api, HasStatus, body, checked, expiry, siblings};
use crate::engine::unix_ms;
use crate::ledger::Ledger;
use crate::room::{Taken, keep};
use crate::users::{Login, Need};

/// Lines of one batch that are worked on at the same time.
const WINDOW: usize = 32;
/// A line with the longest key and value, and room for the rest.
const LINE_BYTES_MAX: usize = VALUE_BYTES_MAX.div_ceil(3) * 4 + KEY_BYTES_MAX * 6 + 16 * 1024;
/// What answers are made of.
const MEDIA_TYPE: &str = "application/x-ndjson";

/// A line, as it is written.
#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct Line {
    op: Op,
    key: Option<String>,
    key_base64: Option<String>,
    value: Option<String>,
    text: Option<String>,
    ttl: Option<Ttl>,
    context: Option<String>,
}

#[derive(Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Op {
    Get,
    Put,
    Delete,
}

/// Whole seconds, or with a unit.
#[derive(Deserialize)]
#[serde(untagged)]
enum Ttl {
    Seconds(u64),
    Text(String),
}

/// What became of a line.
#[derive(Serialize, Default)]
#[serde(rename_all = "camelCase")]
struct Told {
    line: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    key: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    key_base64: Option<String>,
    status: u16,
    #[serde(skip_serializing_if = "Option::is_none")]
    context: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    replicas: Option<u8>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    values: Vec<siblings::Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<ErrorDetail>,
    /// What the values take in memory.
    #[serde(skip)]
    room: Option<Taken>,
}

impl HasStatus for Told {
    fn status(&self) -> StatusCode {
        StatusCode::from_u16(self.status).unwrap_or_default()
    }
}

pub(super) async fn serve(State(api): State<Arc<Api>>, request: Request) -> Response {
    if request.method() != Method::POST {
        return HttpError::Method("POST").into_response();
    }
    let takes = Takes { read: true, write: true, ttl: false };
    let parameters = Parameters::parse(request.uri().query(), takes).map_err(HttpError::from);
    let asked = parameters
        .and_then(|parameters| Ok(Arc::new(Asked { parameters, login: api.login(request.headers())? })));
    let asked = match asked {
        Ok(asked) => asked,
        Err(error) => return error.into_response(),
    };
    let lines = stream::unfold(Lines::new(api.clone(), request.into_body()), |mut lines| async {
        let next = lines.next().await?;
        Some((next, lines))
    });
    let answers = lines.map(move |(number, line)| {
        let (api, asked) = (api.clone(), asked.clone());
        async move { Ok::<_, std::convert::Infallible>(api.line(number, line, &asked).await) }
    });
    ([(header::CONTENT_TYPE, MEDIA_TYPE)], Body::from_stream(answers.buffered(WINDOW))).into_response()
}

/// What holds for all lines.
struct Asked {
    parameters: Parameters,
    login: Option<Login>,
}

/// The lines of a body.
struct Lines {
    api: Arc<Api>,
    body: BodyDataStream,
    buffer: BytesMut,
    /// So much of the buffer has no end of a line.
    looked_at: usize,
    /// What the buffer takes in memory.
    room: Ledger,
    number: u64,
    ended: bool,
    /// What is left of the body is not understood any more.
    broken: bool,
}

/// A line that has come, and what it takes in memory.
type Come = Result<(Bytes, Ledger), HttpError>;

impl Lines {
    fn new(api: Arc<Api>, body: Body) -> Self {
        Self {
            api,
            body: body.into_data_stream(),
            buffer: BytesMut::new(),
            looked_at: 0,
            room: Ledger::default(),
            number: 0,
            ended: false,
            broken: false,
        }
    }

    /// The next line that is not empty, with its number.
    async fn next(&mut self) -> Option<(u64, Come)> {
        loop {
            let Some(line) = self.take_line() else {
                if self.ended {
                    if self.broken {
                        body::discard(&mut self.body, self.api.node.request_timeout).await;
                    }
                    return None;
                }
                if let Err(error) = self.read().await {
                    // What follows is not looked for: nobody can tell where it begins.
                    (self.ended, self.broken, self.buffer) = (true, true, BytesMut::new());
                    self.looked_at = 0;
                    return Some((self.number + 1, Err(error)));
                }
                continue;
            };
            self.number += 1;
            if !line.trim_ascii().is_empty() {
                let mut room = Ledger::default();
                let has_room = room.cover(&self.api.bodies, line.len());
                let line = if has_room { Ok((line, room)) } else { Err(Refusal::Busy.into()) };
                return Some((self.number, line));
            }
        }
    }

    /// The next whole line of the buffer; the last one of a body needs no end.
    fn take_line(&mut self) -> Option<Bytes> {
        let end = self.buffer[self.looked_at..].iter().position(|byte| *byte == b'\n');
        let bytes = match end {
            Some(end) => self.looked_at + end + 1,
            None if self.ended && !self.buffer.is_empty() => self.buffer.len(),
            None => {
                self.looked_at = self.buffer.len();
                return None;
            }
        };
        self.looked_at = 0;
        Some(self.buffer.split_to(bytes).freeze())
    }

    async fn read(&mut self) -> Result<(), HttpError> {
        let chunk = timeout(self.api.node.request_timeout, self.body.next()).await;
        match chunk.map_err(|_| HttpError::SlowBody)? {
            None => self.ended = true,
            Some(Err(error)) => return Err(HttpError::BrokenBody(error.to_string())),
            Some(Ok(chunk)) => self.buffer.extend_from_slice(&chunk),
        }
        if self.buffer.len() > LINE_BYTES_MAX && !self.buffer.contains(&b'\n') {
            return Err(HttpError::ValueTooLong);
        }
        let has_room = self.room.cover(&self.api.bodies, self.buffer.len());
        if has_room { Ok(()) } else { Err(Refusal::Busy.into()) }
    }
}

/// What a line asks for.
enum Task {
    Get,
    Put { value: Bytes, context: Context },
    Delete { context: Option<Context> },
}

impl Api {
    /// Does a line; the answer is a line too.
    async fn line(&self, number: u64, come: Come, asked: &Asked) -> Bytes {
        let mut told = match come {
            Ok((line, _room)) => self.told(&line, asked).await,
            Err(error) => failed(error),
        };
        told.line = number;
        let room = told.room.take();
        let mut text = serde_json::to_vec(&told).expect("strings and numbers always encode to memory");
        text.push(b'\n');
        // A client that is slow to fetch its answer holds room until it has it.
        keep(text.into(), room)
    }

    async fn told(&self, line: &[u8], asked: &Asked) -> Told {
        let line: Line = match serde_json::from_slice(line) {
            Ok(line) => line,
            Err(error) => return failed(HttpError::BadJson(format!("{error} (of this line)"))),
        };
        let (key, key_base64) = (line.key.clone(), line.key_base64.clone());
        let operation = match line.op {
            Op::Get => "get",
            Op::Put => "put",
            Op::Delete => "delete",
        };
        let told = self.count(operation, self.carry_out(line, asked)).await.unwrap_or_else(failed);
        Told { key, key_base64, ..told }
    }

    async fn carry_out(&self, line: Line, asked: &Asked) -> Result<Told, HttpError> {
        let Asked { parameters, login } = asked;
        let key = line.key()?;
        let need = if line.op == Op::Get { Need::Read } else { Need::Write };
        self.node.access.check(login.as_ref(), need, &key)?;
        let ttl = line.ttl()?;
        let context = line.context.as_deref().map(|token| self.open(&key, token.as_bytes())).transpose()?;
        let task = line.task(context)?;
        let (context, value) = match task {
            Task::Get => return self.find(key, *parameters).await,
            Task::Put { value, context } => (context, Some(value)),
            Task::Delete { context: Some(context) } => (context, None),
            Task::Delete { context: None } => {
                let Found { set, .. } = self.node.read(key.clone(), parameters.read).await?;
                (set.context().clone(), None)
            }
        };
        let write = ClientWrite {
            context,
            value,
            expires: expiry(ttl),
            policy: self.node.conflicts,
            consistency: parameters.write,
        };
        let Written { context, receipt, .. } = self.node.write(key.clone(), write).await?;
        Ok(self.done(StatusCode::NO_CONTENT, &key, &context, receipt))
    }

    async fn find(&self, key: Bytes, parameters: Parameters) -> Result<Told, HttpError> {
        let Found { set, receipt } = self.node.read(key.clone(), parameters.read).await?;
        // Base64 makes four bytes of three.
        let room = self.answers.take(set_bytes(&set).div_ceil(3) * 4).ok_or(Refusal::Busy)?;
        let context = set.context().clone();
        let set = self.seen(set);
        let values: Vec<_> = set.live(unix_ms()).collect();
        let (status, error) = match values.len() {
            0 => (StatusCode::NOT_FOUND, Some(HttpError::NoKey.detail())),
            1 => (StatusCode::OK, None),
            _ => (StatusCode::MULTIPLE_CHOICES, None),
        };
        let told = self.done(status, &key, &context, receipt);
        Ok(Told { values: siblings::said(&values), error, room: Some(room), ..told })
    }

    fn done(&self, status: StatusCode, key: &[u8], context: &Context, receipt: Receipt) -> Told {
        let context = (!context.is_empty()).then(|| self.token(key, context));
        Told { status: status.as_u16(), context, replicas: Some(receipt.replicas), ..Told::default() }
    }
}

fn failed(error: HttpError) -> Told {
    Told { status: error.status().as_u16(), error: Some(error.detail()), ..Told::default() }
}

impl Line {
    fn key(&self) -> Result<Bytes, HttpError> {
        match (&self.key, &self.key_base64) {
            (Some(key), None) => checked(Bytes::from(key.clone())),
            (None, Some(key)) => checked(decoded("keyBase64", key)?),
            _ => Err(bad("a line has one key: write \"key\" with a text, or \"keyBase64\" with any bytes")),
        }
    }

    fn ttl(&self) -> Result<Option<std::time::Duration>, HttpError> {
        let text = match (&self.ttl, self.op) {
            (None, _) => return Ok(None),
            (Some(_), Op::Get | Op::Delete) => return Err(bad("\"ttl\" is for put")),
            (Some(Ttl::Seconds(seconds)), Op::Put) => seconds.to_string(),
            (Some(Ttl::Text(text)), Op::Put) => text.clone(),
        };
        Ok(Some(time_to_live(&text)?))
    }

    fn task(self, context: Option<Context>) -> Result<Task, HttpError> {
        let value = match (self.value, self.text) {
            (None, None) => None,
            (Some(value), None) => Some(decoded("value", &value)?),
            (None, Some(text)) => Some(Bytes::from(text)),
            (Some(_), Some(_)) => return Err(bad(ONE_VALUE)),
        };
        match (self.op, value) {
            (Op::Put, Some(value)) if value.len() > VALUE_BYTES_MAX => Err(HttpError::ValueTooLong),
            (Op::Put, Some(value)) => Ok(Task::Put { value, context: context.unwrap_or_default() }),
            (Op::Put, None) => Err(bad(ONE_VALUE)),
            (_, Some(_)) => Err(bad("a value is for put")),
            (Op::Get, None) if context.is_some() => Err(bad("\"context\" is for put and delete")),
            (Op::Get, None) => Ok(Task::Get),
            (Op::Delete, None) => Ok(Task::Delete { context }),
        }
    }
}

const ONE_VALUE: &str = "put has one value: write \"value\" in base64, or \"text\"";

fn bad(what: &str) -> HttpError {
    HttpError::BadJson(what.to_owned())
}

fn decoded(name: &str, text: &str) -> Result<Bytes, HttpError> {
    let bytes = BASE64_STANDARD.decode(text);
    bytes.map(Bytes::from).map_err(|error| HttpError::BadJson(format!("{name:?} is not base64: {error}")))
}
