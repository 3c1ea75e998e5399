//! The few lines of HTTP that reading `/metrics` and `/readyz` takes.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

/// How long one request may take.
const REQUEST_SECONDS_MAX: u64 = 5;
/// How long an answer may be.
const ANSWER_BYTES_MAX: u64 = 16 << 20;

/// Asks a server of this machine (`127.0.0.1:5000`); the body of a 200, an error for all else.
pub(crate) fn get(address: &str, path: &str) -> Result<String> {
    send(address, &format!("GET {path} HTTP/1.0\r\nHost: {address}\r\n\r\n"))
}

/// Puts a short body.
pub(crate) fn put(address: &str, path: &str, body: &str) -> Result<String> {
    let length = body.len();
    send(
        address,
        &format!("PUT {path} HTTP/1.0\r\nHost: {address}\r\nContent-Length: {length}\r\n\r\n{body}"),
    )
}

fn send(address: &str, request: &str) -> Result<String> {
    let mut stream = TcpStream::connect(address).with_context(|| format!("cannot connect to {address}"))?;
    let timeout = Some(Duration::from_secs(REQUEST_SECONDS_MAX));
    stream.set_read_timeout(timeout)?;
    stream.set_write_timeout(timeout)?;
    stream.write_all(request.as_bytes())?;
    let mut answer = Vec::new();
    stream.take(ANSWER_BYTES_MAX).read_to_end(&mut answer)?;
    let answer = String::from_utf8(answer).context("the answer is no text")?;
    let (head, body) = answer.split_once("\r\n\r\n").context("the answer is no HTTP")?;
    let status = head.lines().next().unwrap_or_default();
    let code = status.split(' ').nth(1).unwrap_or_default();
    ensure!(code.starts_with('2'), "{address} answered: {status}");
    Ok(body.to_owned())
}
