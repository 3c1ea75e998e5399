//! What a client asks about its connection and about the node.

use std::borrow::Cow;

use bytes::Bytes;
use quorate_wire::resp::command::{self, Command, Credentials, Data, Hello, Server};
use quorate_wire::resp::reply::{Reply, Version};
use quorate_wire::resp::table::NO_TRANSACTIONS;

use super::clients::{Client, Said};
use super::{RespServer, describe, info};
use crate::users::{DEFAULT, Denied, Fingerprint, Login, Need};

/// What a server of Redis would have to be to do what this one does: clients decide by it what they may ask.
pub(super) const REDIS_VERSION: &str = "7.4.0";

/// What comes of a request about the connection or the node.
pub(super) enum Told {
    Reply(Reply),
    /// And nothing more.
    Last(Reply),
    /// These sections, for which the replica must be asked.
    Info(Vec<Bytes>),
    /// What only the replica knows.
    Cluster(command::Cluster),
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
            Server::Hello(hello) => self.greet(client, hello).into(),
            Server::Auth(credentials) => {
                self.log_in(client, &credentials).map_or_else(error, |()| Reply::OK).into()
            }
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
            Server::Cluster(asked) => Told::Cluster(asked),
            Server::Agree => Reply::OK.into(),
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

    /// Whether a client may do that. Who has not said who it is may say it, and leave.
    pub(super) fn allow(&self, client: &Client, command: &Command) -> Result<(), Denied> {
        let Some(users) = self.node.access.users() else { return Ok(()) };
        let data = match command {
            Command::Server(Server::Auth(_) | Server::Hello(_) | Server::Quit | Server::Reset) => {
                return Ok(());
            }
            Command::Server(_) => None,
            Command::Data(data) => Some(data),
        };
        let said = client.said();
        let rights = users.rights(said.login.as_ref())?;
        let allowed = data.is_none_or(|data| data.keys().all(|key| rights.allow(need(data), key)));
        if allowed { Ok(()) } else { Err(Denied::NoRight) }
    }

    fn log_in(&self, client: &Client, said: &Credentials) -> Result<(), &'static str> {
        let users = self.node.access.users().ok_or(no_users(said.user.is_some()))?;
        let name = said.user.as_deref().map_or(DEFAULT.into(), String::from_utf8_lossy).into_owned();
        let login = Login { name, password: Fingerprint::of(&said.password) };
        users.rights(Some(&login)).map_err(|_| WRONG_PASSWORD)?;
        client.said().login = Some(login);
        Ok(())
    }

    /// All that a client wishes, or nothing of it.
    fn greet(&self, client: &Client, hello: Hello) -> Reply {
        let version = match hello.version {
            None => client.said().version,
            Some(2) => Version::Resp2,
            Some(3) => Version::Resp3,
            Some(_) => return error("NOPROTO unsupported protocol version"),
        };
        let name = match hello.name.map(|name| printable(&name)) {
            Some(None) => return error(BAD_NAME),
            Some(name) => name,
            None => None,
        };
        let logged_in = match &hello.credentials {
            Some(credentials) => self.log_in(client, credentials),
            None => self.allow(client, &Command::Server(Server::Time)).map_err(|_| HELLO_FIRST),
        };
        if let Err(words) = logged_in {
            return error(words);
        }
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
            ("mode", Reply::text("cluster")),
            ("role", Reply::text("master")),
            ("modules", Reply::Array(Vec::new())),
        ];
        Reply::Map(told.into_iter().map(|(name, value)| (Reply::text(name), value)).collect())
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
            command::Client::Redirection => Reply::Integer(-1),
        }
    }
}

const WRONG_PASSWORD: &str = "WRONGPASS invalid username-password pair or user is disabled.";
const HELLO_FIRST: &str = "NOAUTH HELLO must be called with the client already authenticated, otherwise the HELLO <proto> AUTH \
                           <user> <pass> option can be used to authenticate the client and select the RESP protocol version at the \
                           same time";
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
        "ERR this cluster has no users: connect without AUTH"
    } else {
        "ERR AUTH <password> called without any password configured for the default user. Are you sure your \
         configuration is correct?"
    }
}

/// What a command needs of its keys.
fn need(data: &Data) -> Need {
    match data {
        Data::Change { .. } => Need::ReadAndWrite,
        data if data.is_read() => Need::Read,
        _ => Need::Write,
    }
}

fn time() -> Reply {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    Reply::Array(vec![Reply::text(now.as_secs().to_string()), Reply::text(now.subsec_micros().to_string())])
}
