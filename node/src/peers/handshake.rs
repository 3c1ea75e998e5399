//! Runs the handshake over a socket, from either side.

use std::time::Duration;

use bytes::BytesMut;
use quorate_core::ClusterId;
use quorate_replica::Sender;
use quorate_wire::frame::{self, FrameError};
use quorate_wire::handshake::{
    Acceptor, Challenge, HANDSHAKE_BYTES_MAX, Hello, MAGIC, Proof, Secret, Side, Welcome,
};
use serde::de::DeserializeOwned;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

/// Who we are to our peers.
#[derive(Clone)]
pub(crate) struct Credentials {
    pub(crate) cluster: ClusterId,
    /// This node, in this start.
    pub(crate) us: Sender,
    pub(crate) secret: Secret,
}

/// How long the other end may take for its part.
pub(super) const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(3);

/// A connection that is not opened.
#[derive(Debug, thiserror::Error)]
pub(crate) enum HandshakeError {
    #[error(transparent)]
    Io(#[from] std::io::Error),
    #[error("the peer protocol was broken: {0}")]
    Frame(#[from] FrameError),
    #[error("the other end did not finish the handshake within {} s", HANDSHAKE_TIMEOUT.as_secs())]
    Timeout,
    #[error("the other end does not know this cluster's secret")]
    Secret,
    #[error("the address is this node's own")]
    Ourselves,
    #[error("the other end belongs to cluster {0}")]
    OtherCluster(ClusterId),
}

impl HandshakeError {
    /// Whether the other end just went away; what it said was no mistake.
    pub(crate) fn is_departure(&self) -> bool {
        // What is wrong with a peer's messages comes as `Other`.
        matches!(self, Self::Io(error) if error.kind() != std::io::ErrorKind::Other)
    }
}

impl From<tokio::time::error::Elapsed> for HandshakeError {
    fn from(_: tokio::time::error::Elapsed) -> Self {
        Self::Timeout
    }
}

/// A connection over which both ends have proven that they know the secret.
pub(crate) struct Established {
    pub(crate) stream: TcpStream,
    /// Bytes that came behind the handshake.
    pub(crate) unread: BytesMut,
    /// Who is at the other end.
    pub(crate) peer: Sender,
}

/// From the side that connected.
pub(super) async fn connect(mut stream: TcpStream, us: &Credentials) -> Result<Established, HandshakeError> {
    stream.set_nodelay(true)?;
    let Sender { node, start } = us.us;
    let hello = Hello { cluster: us.cluster, node, start, challenge: rand::random() };
    let mut out = BytesMut::from(&MAGIC[..]);
    frame::encode(&hello, HANDSHAKE_BYTES_MAX, &mut out)?;
    stream.write_all(&out).await?;
    let mut unread = BytesMut::new();
    match receive(&mut stream, &mut unread).await? {
        Welcome::OtherCluster { cluster } => Err(HandshakeError::OtherCluster(cluster)),
        Welcome::Accepted { node, start, challenge, proof } => {
            let acceptor = Acceptor { node, start, challenge: &challenge };
            if !us.secret.proves(&proof, Side::Acceptor, &hello, acceptor) {
                return Err(HandshakeError::Secret);
            }
            out.clear();
            let proof = Proof(us.secret.proof(Side::Connector, &hello, acceptor));
            frame::encode(&proof, HANDSHAKE_BYTES_MAX, &mut out)?;
            stream.write_all(&out).await?;
            Ok(Established { stream, unread, peer: Sender { node, start } })
        }
    }
}

/// From the side that accepted, once [`MAGIC`] was seen and taken off.
pub(super) async fn accept(mut stream: TcpStream, us: &Credentials) -> Result<Established, HandshakeError> {
    stream.set_nodelay(true)?;
    let mut unread = BytesMut::new();
    let hello: Hello = receive(&mut stream, &mut unread).await?;
    let mut out = BytesMut::new();
    if hello.cluster != us.cluster {
        frame::encode(&Welcome::OtherCluster { cluster: us.cluster }, HANDSHAKE_BYTES_MAX, &mut out)?;
        stream.write_all(&out).await?;
        return Err(HandshakeError::OtherCluster(hello.cluster));
    }
    let challenge: Challenge = rand::random();
    let Sender { node, start } = us.us;
    let acceptor = Acceptor { node, start, challenge: &challenge };
    let proof = us.secret.proof(Side::Acceptor, &hello, acceptor);
    frame::encode(&Welcome::Accepted { node, start, challenge, proof }, HANDSHAKE_BYTES_MAX, &mut out)?;
    stream.write_all(&out).await?;
    let Proof(proof) = receive(&mut stream, &mut unread).await?;
    if !us.secret.proves(&proof, Side::Connector, &hello, acceptor) {
        return Err(HandshakeError::Secret);
    }
    Ok(Established { stream, unread, peer: Sender { node: hello.node, start: hello.start } })
}

async fn receive<T: DeserializeOwned>(
    stream: &mut TcpStream,
    unread: &mut BytesMut,
) -> Result<T, HandshakeError> {
    loop {
        if let Some(message) = frame::decode(unread, HANDSHAKE_BYTES_MAX)? {
            return Ok(message);
        }
        if stream.read_buf(unread).await? == 0 {
            return Err(std::io::Error::from(std::io::ErrorKind::UnexpectedEof).into());
        }
    }
}
