//! What a client asks about its connection and about the node.

use std::borrow::Cow;

use bytes::Bytes;
use quorate_wire::resp::command::{self, Hello, Server};
use quorate_wire::resp::reply::{Reply, Version};
use quorate_wire::resp::table::NO_TRANSACTIONS;

use super::clients::{Client, Said};
use super::{RespServer, describe, info};

/// What a server of Redis would have to be to do what this one does: clients decide by it what they may ask.
pub(super) const REDIS_VERSION: &str = "7.4.0";

/// What comes of a request about the connection or the node.
pub(super) enum Told {
    Reply(Reply),
    /// And nothing more.
    Last(Reply),
    /// These sections, for which the replica must be asked.
    Info(Vec<Bytes>),
}

impl From<Reply> for Told {
    fn from(reply: Reply) -> Self {
        Self::Reply(reply)
    }
}

fn error(words: impl Into<Cow<'static, str>>) -> Reply {
    Reply::Error(words.into())
}

impl RespServer {
    pub(super) fn tell(&self, client: &Client, asked: Server) -> Told {
        match asked {
            Server::Ping(None) => Reply::Simple("PONG").into(),
            Server::Ping(Some(words)) | Server::Echo(words) => Reply::Bulk(words).into(),
            Server::Hello(hello) => greet(client, hello).into(),
            Server::Auth { names_user } => error(no_users(names_user)).into(),
            Server::Quit => Told::Last(Reply::OK),
            Server::Reset => {
                *client.said() = Said::default();
                Reply::Simple("RESET").into()
            }
            Server::Select(0) => Reply::OK.into(),
            Server::Select(_) => error("ERR DB index is out of range").into(),
            Server::Client(asked) => self.tell_client(client, asked).into(),
            Server::Describe(asked) => describe::tell(&asked).into(),
            Server::ConfigGet(patterns) => info::settings(self, &patterns).into(),
            Server::Info(sections) => Told::Info(sections),
            Server::Time => time().into(),
            Server::Multi => {
                client.said().in_transaction = true;
                error(format!("ERR unknown command 'multi': {NO_TRANSACTIONS}")).into()
            }
            Server::Exec => match std::mem::take(&mut client.said().in_transaction) {
                true => error("EXECABORT Transaction discarded because of previous errors.").into(),
                false => error("ERR EXEC without MULTI").into(),
            },
            Server::Discard => match std::mem::take(&mut client.said().in_transaction) {
                true => Reply::OK.into(),
                false => error("ERR DISCARD without MULTI").into(),
            },
            Server::Help(lines) => {
                Reply::Array(lines.iter().map(|line| Reply::Simple(line)).collect()).into()
            }
            Server::Refused(words) => error(words).into(),
        }
    }

    fn tell_client(&self, client: &Client, asked: command::Client) -> Reply {
        match asked {
            command::Client::Id => Reply::Integer(client.id as i64),
            command::Client::GetName => match client.said().name.as_str() {
                "" => Reply::Null,
                name => Reply::text(name),
            },
            command::Client::SetName(name) => match printable(&name) {
                Some(name) => {
                    client.said().name = name;
                    Reply::OK
                }
                None => error(BAD_NAME),
            },
            command::Client::SetLibrary { is_name, value } => {
                let option = if is_name { "lib-name" } else { "lib-ver" };
                let Some(value) = printable(&value) else {
                    return error(format!(
                        "ERR {option} cannot contain spaces, newlines or special characters."
                    ));
                };
                let mut said = client.said();
                *(if is_name { &mut said.library } else { &mut said.library_version }) = value;
                Reply::OK
            }
            command::Client::Info => Reply::Verbatim(client.line() + "\n"),
            command::Client::List => Reply::Verbatim(self.clients.list()),
            command::Client::Agree => Reply::OK,
            command::Client::Redirection => Reply::Integer(-1),
        }
    }
}

const BAD_NAME: &str = "ERR Client names cannot contain spaces, newlines or special characters.";
/// The longest name of a client or a library.
const NAME_BYTES_MAX: usize = 256;

/// A name that can stand in a line of `CLIENT LIST`.
fn printable(name: &[u8]) -> Option<String> {
    let fits = name.len() <= NAME_BYTES_MAX && name.iter().all(u8::is_ascii_graphic);
    fits.then(|| String::from_utf8_lossy(name).into_owned())
}

/// The words of Redis; for a named user, what holds here.
fn no_users(names_user: bool) -> &'static str {
    if names_user {
        "ERR there are no users in this version: connect without AUTH, and let the network decide who may"
    } else {
        "ERR AUTH <password> called without any password configured for the default user. Are you sure your \
         configuration is correct?"
    }
}

/// All that a client wishes, or nothing of it.
fn greet(client: &Client, hello: Hello) -> Reply {
    let version = match hello.version {
        None => client.said().version,
        Some(2) => Version::Resp2,
        Some(3) => Version::Resp3,
        Some(_) => return error("NOPROTO unsupported protocol version"),
    };
    if hello.authenticates {
        return error(no_users(true));
    }
    let name = match hello.name.map(|name| printable(&name)) {
        Some(None) => return error(BAD_NAME),
        Some(name) => name,
        None => None,
    };
    let mut said = client.said();
    said.version = version;
    if let Some(name) = name {
        said.name = name;
    }
    let proto = if version == Version::Resp3 { 3 } else { 2 };
    let told = [
        ("server", Reply::text("redis")),
        ("version", Reply::text(REDIS_VERSION)),
        ("proto", Reply::Integer(proto)),
        ("id", Reply::Integer(client.id as i64)),
        ("mode", Reply::text("standalone")),
        ("role", Reply::text("master")),
        ("modules", Reply::Array(Vec::new())),
    ];
    Reply::Map(told.into_iter().map(|(name, value)| (Reply::text(name), value)).collect())
}

fn time() -> Reply {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    Reply::Array(vec![Reply::text(now.as_secs().to_string()), Reply::text(now.subsec_micros().to_string())])
}
