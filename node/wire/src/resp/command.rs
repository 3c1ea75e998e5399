//! What a client may ask for, once its words are understood.

use bytes::Bytes;

use super::change::Change;

/// One command.
#[derive(Clone, PartialEq, Debug)]
pub enum Command {
    /// About the connection or the server: answered without the ring.
    Server(Server),
    /// About keys.
    Data(Data),
}

/// About the connection or the server.
#[derive(Clone, PartialEq, Debug)]
pub enum Server {
    /// `PING`, with what to answer.
    Ping(Option<Bytes>),
    /// `ECHO`.
    Echo(Bytes),
    /// `HELLO`.
    Hello(Hello),
    /// `AUTH`.
    Auth(Credentials),
    /// `QUIT`.
    Quit,
    /// `RESET`.
    Reset,
    /// `SELECT`.
    Select(i64),
    /// `CLIENT …`.
    Client(Client),
    /// `COMMAND …`.
    Describe(Describe),
    /// `CLUSTER …`.
    Cluster(Cluster),
    /// `CONFIG GET`, with patterns.
    ConfigGet(Vec<Bytes>),
    /// `INFO`, with sections.
    Info(Vec<Bytes>),
    /// `TIME`.
    Time,
    /// `MULTI`: what follows must not be done, until `EXEC` or `DISCARD`.
    Multi,
    /// `EXEC`.
    Exec,
    /// `DISCARD`.
    Discard,
    /// A promise that costs nothing here, and so is given.
    Agree,
    /// `… HELP`: these lines.
    Help(&'static [&'static str]),
    /// What is always answered by this error.
    Refused(&'static str),
}

/// `HELLO`: what the client wants to speak.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Hello {
    /// The version of the protocol, as a number; none to leave it.
    pub version: Option<i64>,
    /// Who the client says it is.
    pub credentials: Option<Credentials>,
    /// How the connection is to be called.
    pub name: Option<Bytes>,
}

/// Who a client says it is.
#[derive(Clone, PartialEq, Eq)]
pub struct Credentials {
    /// None for the user `default`.
    pub user: Option<Bytes>,
    /// As it came.
    pub password: Bytes,
}

impl std::fmt::Debug for Credentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Credentials").field("user", &self.user).finish_non_exhaustive()
    }
}

/// `CLIENT …`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Client {
    /// The connection's number.
    Id,
    /// What it is called.
    GetName,
    /// What it is to be called.
    SetName(Bytes),
    /// What library speaks.
    SetLibrary {
        /// Its name, or else its version.
        is_name: bool,
        /// Which.
        value: Bytes,
    },
    /// All about this connection.
    Info,
    /// All about all connections.
    List,
    /// `GETREDIR`: nothing is tracked.
    Redirection,
}

/// `CLUSTER …`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Cluster {
    /// How the cluster is.
    Info,
    /// Who this node is.
    Id,
    /// The slot of a key.
    KeySlot(Bytes),
    /// The nodes, a line each.
    Nodes,
    /// Which slots are whose, with all that is known of the nodes.
    Shards,
    /// Which slots are whose.
    Slots,
}

/// `COMMAND …`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Describe {
    /// Every command in full.
    All,
    /// How many there are.
    Count,
    /// Their names.
    List,
    /// These in full.
    Info(Vec<Bytes>),
    /// These, or all, for people.
    Docs(Vec<Bytes>),
}

/// About keys.
#[derive(Clone, PartialEq, Debug)]
pub enum Data {
    /// Looks at a key.
    Look {
        /// Which.
        key: Bytes,
        /// For what.
        look: Look,
    },
    /// `MGET`.
    GetMany(Vec<Bytes>),
    /// `EXISTS`; a key that is named twice counts twice.
    Exists(Vec<Bytes>),
    /// Writes a key, whatever it holds.
    Set {
        /// Which.
        key: Bytes,
        /// What.
        value: Bytes,
        /// When it ends.
        ends: Option<Moment>,
    },
    /// `MSET`.
    SetMany(Vec<(Bytes, Bytes)>),
    /// `DEL`, `UNLINK`.
    Delete(Vec<Bytes>),
    /// Reads a key, and writes what it makes of that.
    Change {
        /// Which.
        key: Bytes,
        /// How.
        change: Change,
    },
}

impl Data {
    /// The keys that it reads or writes; one that is named twice comes twice.
    pub fn keys(&self) -> impl Iterator<Item = &Bytes> {
        let (one, many, pairs): (&[Bytes], &[Bytes], &[(Bytes, Bytes)]) = match self {
            Self::Look { key, .. } | Self::Set { key, .. } | Self::Change { key, .. } => {
                (std::slice::from_ref(key), &[], &[])
            }
            Self::GetMany(keys) | Self::Exists(keys) | Self::Delete(keys) => (&[], keys, &[]),
            Self::SetMany(pairs) => (&[], &[], pairs),
        };
        one.iter().chain(many).chain(pairs.iter().map(|(key, _)| key))
    }

    /// How many keys these are.
    pub fn key_count(&self) -> usize {
        match self {
            Self::Look { .. } | Self::Set { .. } | Self::Change { .. } => 1,
            Self::GetMany(keys) | Self::Exists(keys) | Self::Delete(keys) => keys.len(),
            Self::SetMany(pairs) => pairs.len(),
        }
    }

    /// Whether it writes nothing.
    pub fn is_read(&self) -> bool {
        matches!(self, Self::Look { .. } | Self::GetMany(_) | Self::Exists(_))
    }
}

/// What a key is looked at for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Look {
    /// `GET`.
    Value,
    /// `STRLEN`.
    Length,
    /// `TYPE`.
    Type,
    /// `GETRANGE`, both ends included; negative ones count from the end.
    Range {
        /// The first byte.
        start: i64,
        /// The last byte.
        end: i64,
    },
    /// `TTL` and the like.
    Ends {
        /// In milliseconds, or else in seconds.
        milliseconds: bool,
        /// Since 1970, or else from now.
        absolute: bool,
    },
}

/// A moment, in milliseconds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Moment {
    /// So long from now; it may be over.
    In(i64),
    /// Since 1970.
    At(i64),
}

impl Moment {
    /// Since 1970; 0 for whatever is before.
    pub fn unix_ms(self, now_unix_ms: u64) -> u64 {
        let now = i64::try_from(now_unix_ms).unwrap_or(i64::MAX);
        let at = match self {
            Self::In(from_now) => now.saturating_add(from_now),
            Self::At(at) => at,
        };
        u64::try_from(at).unwrap_or(0)
    }
}
