//! Who is connected, as `CLIENT LIST` tells it.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use quorate_wire::resp::reply::Version;
use tokio::net::TcpStream;

use crate::users::{DEFAULT, Login};

/// One connection.
pub(super) struct Client {
    pub(super) id: u64,
    peer: String,
    local: String,
    since: Instant,
    said: Mutex<Said>,
}

/// What a client says of itself.
#[derive(Clone, Default)]
pub(super) struct Said {
    pub(super) name: String,
    pub(super) library: String,
    pub(super) library_version: String,
    pub(super) version: Version,
    /// It has said `MULTI`, was refused, and may have sent more that it believes to be a part of that.
    pub(super) in_transaction: bool,
    /// Who it has shown to be.
    pub(super) login: Option<Login>,
}

impl Client {
    pub(super) fn said(&self) -> MutexGuard<'_, Said> {
        self.said.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// One line, as Redis writes it.
    pub(super) fn line(&self) -> String {
        let Said { name, library, library_version, version, login, .. } = self.said().clone();
        let user = login.map_or_else(|| DEFAULT.to_owned(), |login| login.name);
        let version = if version == Version::Resp3 { 3 } else { 2 };
        format!(
            "id={} addr={} laddr={} name={name} age={} db=0 user={user} resp={version} lib-name={library} \
             lib-ver={library_version}",
            self.id,
            self.peer,
            self.local,
            self.since.elapsed().as_secs(),
        )
    }
}

/// All connections; the listener bounds their number.
#[derive(Default)]
pub(super) struct Clients(Mutex<BTreeMap<u64, Arc<Client>>>);

impl Clients {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<u64, Arc<Client>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn add(&self, id: u64, stream: &TcpStream) -> Arc<Client> {
        let text =
            |address: std::io::Result<SocketAddr>| address.map_or_else(|_| "?".into(), |a| a.to_string());
        let (peer, local) = (text(stream.peer_addr()), text(stream.local_addr()));
        let client = Arc::new(Client { id, peer, local, since: Instant::now(), said: Mutex::default() });
        self.lock().insert(id, client.clone());
        client
    }

    pub(super) fn remove(&self, id: u64) {
        self.lock().remove(&id);
    }

    pub(super) fn count(&self) -> usize {
        self.lock().len()
    }

    pub(super) fn list(&self) -> String {
        let clients: Vec<Arc<Client>> = self.lock().values().cloned().collect();
        clients.iter().map(|client| client.line() + "\n").collect()
    }
}
