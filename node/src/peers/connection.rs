//! One established connection: frames in, frames out, each direction at its own pace in one task.
//!
//! Frames that wait together leave in one write. Reading stops while the owner of the connection says so, so
//! a fast peer is slowed by TCP and not by our memory (INV-BOUND).

use std::io;

use bytes::{Buf as _, BytesMut};
use quorate_wire::frame::{self, FRAME_BYTES_MAX, FrameError};
use quorate_wire::peer::Frame;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::sync::mpsc;

use super::handshake::Established;

/// Once so many bytes wait to be written, no more frames are taken from the queue.
const WRITE_BUFFER_BYTES: usize = 256 * 1024;

/// What the owner of a connection does with it.
pub(super) trait Owner {
    /// What is put into the queue.
    type Outgoing;

    /// The frame of a queued item; `None` sends nothing.
    fn outgoing(&mut self, item: Self::Outgoing) -> Option<Frame>;

    /// A frame is too long for the other end: what is sent instead, if anything.
    fn too_long(&mut self, frame: Frame, error: FrameError) -> Option<Frame>;

    /// A frame came. An error closes the connection.
    fn incoming(&mut self, frame: Frame) -> io::Result<()>;

    /// All frames that came together were handed over.
    fn flush(&mut self);

    /// Whether more frames may come now.
    fn open(&self) -> bool;
}

/// Runs a connection until either end closes it, the queue's senders are gone, or something is wrong.
pub(super) async fn run<O: Owner>(
    established: Established,
    queue: &mut mpsc::Receiver<O::Outgoing>,
    first: Option<O::Outgoing>,
    owner: &mut O,
) -> io::Result<()> {
    let Established { mut stream, unread: mut input, .. } = established;
    let (mut reader, mut writer) = stream.split();
    let mut output = BytesMut::new();
    let put = |owner: &mut O, output: &mut BytesMut, item| {
        let mut next = owner.outgoing(item);
        while let Some(frame) = next.take() {
            if let Err(error) = frame::encode(&frame, FRAME_BYTES_MAX, output) {
                next = owner.too_long(frame, error);
            }
        }
    };
    first.into_iter().for_each(|item| put(owner, &mut output, item));
    loop {
        take_in(&mut input, owner)?;
        while output.len() < WRITE_BUFFER_BYTES {
            match queue.try_recv() {
                Ok(item) => put(owner, &mut output, item),
                Err(_) => break,
            }
        }
        tokio::select! {
            written = writer.write(&output), if !output.is_empty() => match written? {
                0 => return Err(io::ErrorKind::WriteZero.into()),
                bytes => output.advance(bytes),
            },
            read = reader.read_buf(&mut input), if owner.open() => if read? == 0 {
                return Ok(());
            },
            item = queue.recv(), if output.len() < WRITE_BUFFER_BYTES => match item {
                Some(item) => put(owner, &mut output, item),
                None => return writer.write_all(&output).await,
            },
        }
    }
}

/// Hands over the frames that are whole. Those before a broken one count.
fn take_in<O: Owner>(input: &mut BytesMut, owner: &mut O) -> io::Result<()> {
    let result = loop {
        if !owner.open() {
            break Ok(());
        }
        match frame::decode(input, FRAME_BYTES_MAX) {
            Ok(Some(frame)) => {
                if let Err(error) = owner.incoming(frame) {
                    break Err(error);
                }
            }
            Ok(None) => break Ok(()),
            Err(error) => break Err(io::Error::other(error)),
        }
    };
    owner.flush();
    result
}
