//! etcd's key-value service: gRPC by hand, two calls of it. A message is five bytes of frame and a few protobuf fields.

use std::net::SocketAddr;

use anyhow::{Context, Result, ensure};
use bytes::{BufMut as _, Bytes, BytesMut};
use http_body_util::{BodyExt as _, Full};
use hyper::client::conn::http2::{self, SendRequest};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpStream;

/// One connection.
pub(crate) struct Etcd {
    sender: SendRequest<Full<Bytes>>,
    address: SocketAddr,
}

impl Etcd {
    pub(crate) async fn connect(address: SocketAddr) -> Result<Self> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        let (sender, connection) = http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await?;
        tokio::spawn(connection);
        Ok(Self { sender, address })
    }

    pub(crate) async fn put(&mut self, key: &[u8], value: &[u8]) -> Result<()> {
        let mut message = BytesMut::new();
        field(&mut message, 1, key);
        field(&mut message, 2, value);
        self.call("Put", &message).await.map(drop)
    }

    /// Linearizable, as it is without further ado.
    pub(crate) async fn get(&mut self, key: &[u8]) -> Result<()> {
        let mut message = BytesMut::new();
        field(&mut message, 1, key);
        let answer = self.call("Range", &message).await?;
        // The header alone has less than 64 bytes.
        ensure!(answer.len() > 64, "etcd has no value for a key that was written");
        Ok(())
    }

    async fn call(&mut self, method: &str, message: &[u8]) -> Result<Bytes> {
        let mut body = BytesMut::with_capacity(5 + message.len());
        body.put_u8(0);
        body.put_u32(u32::try_from(message.len())?);
        body.put_slice(message);
        let request = http::Request::post(format!("http://{}/etcdserverpb.KV/{method}", self.address))
            .header("content-type", "application/grpc")
            .header("te", "trailers")
            .body(Full::new(body.freeze()))?;
        let answer = self.sender.send_request(request).await?.into_body().collect().await?;
        let status = answer.trailers().and_then(|trailers| trailers.get("grpc-status")).cloned();
        let status = status.context("etcd refused a request before it looked at it")?;
        ensure!(status == "0", "etcd answered with status {status:?}");
        Ok(answer.to_bytes())
    }
}

/// A field of bytes.
fn field(message: &mut BytesMut, number: u8, bytes: &[u8]) {
    message.put_u8(number << 3 | 2);
    let mut length = bytes.len();
    while length >= 0x80 {
        message.put_u8((length & 0x7f) as u8 | 0x80);
        length >>= 7;
    }
    message.put_u8(length as u8);
    message.put_slice(bytes);
}
