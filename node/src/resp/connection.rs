//! One connection: takes in what is there, begins it, answers in order.
//!
//! It is one task, which polls what it has in progress itself. Whatever is ready together leaves in one write. It goes on
//! reading while answers wait to be sent, as long as there is room, because there are clients which send a long pipeline
//! before they read the first answer.

use std::pin::pin;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::{Buf as _, Bytes, BytesMut};
use futures::FutureExt as _;
use futures::StreamExt as _;
use futures::stream::FuturesOrdered;
use quorate_wire::resp::command::{Cluster, Command, Data, Server};
use quorate_wire::resp::reply::{Reply, Version};
use quorate_wire::resp::request::{Decoder, ProtocolError, Request};
use quorate_wire::resp::{Parsed, parse};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};

use super::clients::Client;
use super::failure::Failure;
use super::keys::Answer;
use super::lanes::Lanes;
use super::meters::{Counted, OK};
use super::session::Told;
use super::{PIPELINE_MAX, RespServer, cluster, info};
use crate::ledger::{Ledger, OWN_BYTES};
use crate::room::Taken;
use crate::seldom::Seldom;

/// How long a connection may take for its first request, and for any request that has begun to come.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(30);
/// How much is read at a time.
const READ_BYTES: usize = OWN_BYTES;
/// Less room than this in the buffer, and it grows.
const READ_BYTES_LEAST: usize = READ_BYTES / 4;
/// Bytes of answers that may wait to be sent before more requests are begun.
const WAITING_BYTES_MAX: usize = 16 << 20;
/// A buffer that grew beyond this is given back when it is empty.
const BUFFER_BYTES_KEPT: usize = 4 * OWN_BYTES;

/// What is to be done for a request.
enum Work {
    /// It is done already.
    Told(Reply),
    Failed(Failure),
    Info(Vec<Bytes>),
    Cluster(Cluster),
    Data(Data),
}

/// A request that has been understood, and waits for its turn.
struct Waiting<'a> {
    name: &'static str,
    work: Work,
    counted: Counted<'a>,
    /// The version that its reply is to be in.
    version: Version,
    /// What it takes in memory.
    room: Ledger,
}

/// A reply whose turn has come.
struct Done {
    reply: Reply,
    version: Version,
    /// Places that it had in the lanes.
    places: usize,
    /// Given back when the reply is in the buffer.
    _room: Vec<Taken>,
}

async fn work(server: &RespServer, waiting: Waiting<'_>, places: usize) -> Done {
    let Waiting { name, work, mut counted, version, room: _room } = waiting;
    let result = match work {
        Work::Told(reply) => server.with_room(reply),
        Work::Failed(failure) => Err(failure),
        Work::Info(sections) => server.with_room(info::sections(server, &sections).await),
        Work::Cluster(asked) => server.with_room(cluster::tell(server, &asked).await),
        Work::Data(data) => server.do_data(name, data).await,
    };
    counted.outcome = match &result {
        Ok(Answer { reply: Reply::Null, .. }) => "not_found",
        Ok(Answer { reply: Reply::Error(_), .. }) => "bad_request",
        Ok(_) => OK,
        Err(failure) => failure.code(),
    };
    let Answer { reply, room } = result.unwrap_or_else(|failure| failure.reply().into());
    Done { reply, version, places, _room: room }
}

/// What comes in.
struct Input {
    decoder: Decoder,
    buffer: BytesMut,
    room: Ledger,
    /// Nothing more is taken in: the client has said its last word, or said something wrong.
    ended: bool,
    /// The first request has come.
    spoke: bool,
}

impl Input {
    /// The next whole request that is here.
    fn next(&mut self, server: &RespServer) -> Result<Option<(Request, Ledger)>, ProtocolError> {
        if let Some(request) = self.decoder.decode(&mut self.buffer)? {
            self.spoke = true;
            return Ok(Some((request, std::mem::take(&mut self.room))));
        }
        // What has been announced is made room for before it comes.
        if !self.room.cover(&server.bodies, self.decoder.held_bytes()) {
            self.decoder.refuse();
            self.room = Ledger::default();
        }
        Ok(None)
    }

    /// Whether a request has begun to come.
    fn is_within(&self) -> bool {
        self.decoder.is_within() || !self.buffer.is_empty()
    }

    fn make_room(&mut self) {
        let (free, missing) =
            (self.buffer.capacity() - self.buffer.len(), self.decoder.missing_bytes(&self.buffer));
        if self.buffer.is_empty() && self.buffer.capacity() > BUFFER_BYTES_KEPT && missing <= READ_BYTES {
            self.buffer = BytesMut::with_capacity(READ_BYTES);
        } else if free < missing.max(READ_BYTES_LEAST) {
            self.buffer.reserve(missing.max(READ_BYTES));
        }
    }
}

/// What goes out.
struct Output {
    buffer: BytesMut,
    room: Ledger,
}

impl Output {
    fn push(&mut self, done: &Done) {
        done.reply.encode(done.version, &mut self.buffer);
    }

    /// Whether more may be asked for: what waits has room, and is not too much.
    fn has_room(&mut self, server: &RespServer) -> bool {
        self.buffer.len() <= WAITING_BYTES_MAX && self.room.cover(&server.answers, self.buffer.len())
    }

    fn sent(&mut self, bytes: usize) {
        self.buffer.advance(bytes);
        if self.buffer.is_empty() && self.buffer.capacity() > BUFFER_BYTES_KEPT {
            self.buffer = BytesMut::new();
        }
    }
}

pub(super) async fn serve(
    server: &RespServer,
    client: &Client,
    stream: &mut TcpStream,
    mut stop: watch::Receiver<bool>,
) {
    let (mut reader, mut writer) = stream.split();
    let mut input = Input {
        decoder: Decoder::default(),
        buffer: BytesMut::with_capacity(READ_BYTES),
        room: Ledger::default(),
        ended: false,
        spoke: false,
    };
    let mut output = Output { buffer: BytesMut::new(), room: Ledger::default() };
    let (mut working, mut lanes) = (FuturesOrdered::new(), Lanes::default());
    let mut waiting: Option<Waiting<'_>> = None;
    // Runs while a request is waited for that has begun, or that would be the first.
    let (mut patience, mut is_awaited) = (pin!(sleep_until(Instant::now())), false);
    let (mut stopped, mut is_over) = (pin!(stop.wait_for(|stop| *stop)), false);
    loop {
        // Begins what is here, as far as it may.
        while working.len() < PIPELINE_MAX && output.has_room(server) {
            let next = match waiting.take() {
                Some(next) => next,
                None if input.ended => break,
                None => match input.next(server) {
                    Ok(Some((request, room))) => {
                        is_awaited = false;
                        let Some((next, is_last)) = understand(server, client, request, room) else { return };
                        input.ended = is_last;
                        next
                    }
                    Ok(None) => {
                        // What has not come whole will never be done; the client sees that it was not answered.
                        input.ended = is_over;
                        break;
                    }
                    Err(error) => {
                        input.ended = true;
                        refuse(server, client, error)
                    }
                },
            };
            let places = match &next.work {
                Work::Data(data) => lanes.enter(data),
                _ => Some(0),
            };
            match places {
                Some(places) => working.push_back(work(server, next, places)),
                None => {
                    waiting = Some(next);
                    break;
                }
            }
        }
        if input.ended && working.is_empty() && waiting.is_none() && output.buffer.is_empty() {
            return;
        }
        // This protocol has no word for goodbye. A client that has its answer, and has asked for nothing more, notices that the
        // connection is closed when it comes again; in the middle of a request it could not know what became of that.
        let rests = working.is_empty() && waiting.is_none() && output.buffer.is_empty() && !input.is_within();
        if rests && input.spoke && server.goes() {
            return;
        }
        let may_read = !input.ended
            && !is_over
            && waiting.is_none()
            && working.len() < PIPELINE_MAX
            && output.has_room(server);
        if may_read {
            input.make_room();
        }
        let awaits = may_read && (!input.spoke || input.is_within());
        if awaits && !is_awaited {
            patience.as_mut().reset(Instant::now() + REQUEST_TIMEOUT);
        }
        is_awaited = awaits;
        tokio::select! {
            biased;
            Some(done) = working.next(), if !working.is_empty() => {
                let ready = std::iter::from_fn(|| working.next().now_or_never().flatten());
                for done in std::iter::once(done).chain(ready) {
                    lanes.leave(done.places);
                    output.push(&done);
                }
            }
            written = writer.write(&output.buffer), if !output.buffer.is_empty() => match written {
                Ok(bytes) if bytes > 0 => output.sent(bytes),
                _ => return,
            },
            read = reader.read_buf(&mut input.buffer), if may_read => match read {
                Ok(0) => is_over = true, // What it asked before is still answered.
                Ok(_) => {}
                Err(_) => return,
            },
            _ = &mut stopped, if !is_over => is_over = true,
            () = &mut patience, if is_awaited => return,
        }
    }
}

/// What is to be done for a request, and whether it is the last; none for somebody who speaks another protocol.
fn understand<'a>(
    server: &'a RespServer,
    client: &Client,
    request: Request,
    room: Ledger,
) -> Option<(Waiting<'a>, bool)> {
    server.commands.fetch_add(1, Ordering::Relaxed);
    if let Some(skipped) = request.skipped {
        let entry = parse(request.arguments).entry;
        let waiting = waiting(server, client, entry, Work::Failed(Failure::Skipped(skipped)), room);
        return Some((waiting, false));
    }
    let is_http = |name: &Bytes| name.eq_ignore_ascii_case(b"post") || name.eq_ignore_ascii_case(b"host:");
    if request.arguments.first().is_some_and(is_http) {
        // A web page may make a browser send this, with commands in the body.
        complain(server, "it speaks HTTP");
        return None;
    }
    let Parsed { entry, command } = parse(request.arguments);
    let ends_transaction =
        matches!(command, Ok(Command::Server(Server::Exec | Server::Discard | Server::Reset | Server::Quit)));
    if client.said().in_transaction && !ends_transaction {
        // Client libraries send a transaction in one piece: MULTI was refused, and the rest is here already.
        let work = Work::Failed(Failure::InTransaction);
        return Some((waiting(server, client, entry, work, room), false));
    }
    let command = command.map_err(Failure::from).and_then(|command| {
        server.allow(client, &command)?;
        Ok(command)
    });
    let (work, is_last) = match command {
        Ok(Command::Data(data)) => (Work::Data(data), false),
        Ok(Command::Server(asked)) => match server.tell(client, asked) {
            Told::Reply(reply) => (Work::Told(reply), false),
            Told::Last(reply) => (Work::Told(reply), true),
            Told::Info(sections) => (Work::Info(sections), false),
            Told::Cluster(asked) => (Work::Cluster(asked), false),
        },
        Err(failure) => (Work::Failed(failure), false),
    };
    Some((waiting(server, client, entry, work, room), is_last))
}

fn waiting<'a>(
    server: &'a RespServer,
    client: &Client,
    entry: Option<&'static quorate_wire::resp::table::Entry>,
    work: Work,
    room: Ledger,
) -> Waiting<'a> {
    let (counted, version) = (server.meters.begin(entry), client.said().version);
    Waiting { name: entry.map_or("", |entry| entry.name), work, counted, version, room }
}

/// What a client is told whose stream is not of this protocol, before it is closed.
fn refuse<'a>(server: &'a RespServer, client: &Client, error: ProtocolError) -> Waiting<'a> {
    complain(server, &error.to_string());
    let reply = Reply::Error(format!("ERR {error}").into());
    waiting(server, client, None, Work::Told(reply), Ledger::default())
}

fn complain(server: &RespServer, why: &str) {
    static LOG: Seldom = Seldom::new();
    server.node.metrics.refused_connections.with_label_values(&["resp"]).inc();
    if LOG.due() {
        tracing::info!(listener = "resp", error = why, "closed a connection");
    }
}
