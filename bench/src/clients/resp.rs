//! The protocol of Redis, as far as a load generator needs it.

use std::net::SocketAddr;

use anyhow::{Result, bail};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

/// One connection.
pub(crate) struct Resp {
    stream: TcpStream,
    out: Vec<u8>,
    buffer: Vec<u8>,
    /// Whether writes wait until a replica has them: once behind all writes that are sent together.
    waits: bool,
}

impl Resp {
    pub(crate) async fn connect(address: SocketAddr, waits: bool) -> Result<Self> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        Ok(Self { stream, out: Vec::new(), buffer: Vec::new(), waits })
    }

    pub(crate) async fn put(&mut self, pairs: &[(String, &[u8])]) -> Result<()> {
        self.out.clear();
        for (key, value) in pairs {
            command(&mut self.out, &[b"SET", key.as_bytes(), value]);
        }
        if self.waits {
            command(&mut self.out, &[b"WAIT", b"1", b"0"]);
        }
        self.ask(pairs.len() + usize::from(self.waits)).await
    }

    pub(crate) async fn get(&mut self, keys: &[String]) -> Result<()> {
        self.out.clear();
        for key in keys {
            command(&mut self.out, &[b"GET", key.as_bytes()]);
        }
        self.ask(keys.len()).await
    }

    /// Whether so many replicas are there.
    pub(crate) async fn has_replicas(&mut self, count: u8) -> Result<bool> {
        self.out.clear();
        command(&mut self.out, &[b"WAIT", count.to_string().as_bytes(), b"100"]);
        self.stream.write_all(&self.out).await?;
        let mut reply = [0; 64];
        let bytes = self.stream.read(&mut reply).await?;
        Ok(reply[..bytes] == *format!(":{count}\r\n").as_bytes())
    }

    /// Sends what there is, and reads so many replies.
    async fn ask(&mut self, replies: usize) -> Result<()> {
        self.stream.write_all(&self.out).await?;
        let (mut left, mut at) = (replies, 0);
        loop {
            while let Some(bytes) = reply(&self.buffer[at..])? {
                at += bytes;
                left -= 1;
                if left == 0 {
                    self.buffer.clear();
                    return Ok(());
                }
            }
            if self.stream.read_buf(&mut self.buffer).await? == 0 {
                bail!("the connection was closed");
            }
        }
    }
}

fn command(out: &mut Vec<u8>, words: &[&[u8]]) {
    out.extend_from_slice(format!("*{}\r\n", words.len()).as_bytes());
    for word in words {
        out.extend_from_slice(format!("${}\r\n", word.len()).as_bytes());
        out.extend_from_slice(word);
        out.extend_from_slice(b"\r\n");
    }
}

/// The length of the first whole reply. A key that is not there is an error here: all were written before.
fn reply(buffer: &[u8]) -> Result<Option<usize>> {
    let Some(end) = buffer.windows(2).position(|two| two == b"\r\n") else { return Ok(None) };
    let line = &buffer[..end];
    match line.first() {
        Some(b'+' | b':') => Ok(Some(end + 2)),
        Some(b'$') => {
            let bytes: i64 = std::str::from_utf8(&line[1..])?.parse()?;
            let whole = end + 2 + usize::try_from(bytes)? + 2;
            Ok((buffer.len() >= whole).then_some(whole))
        }
        _ => bail!("a request was refused: {}", String::from_utf8_lossy(line)),
    }
}
