//! Frames: a little-endian `u32` of the body's bytes, then the body (postcard).
//!
//! The length is checked against a bound before a byte of the body is waited for, so a stranger's garbage
//! costs a closed connection and never memory (INV-BOUND).

use bytes::{Buf, BytesMut};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// The longest frame after the handshake. It holds whatever one record of a store holds: merging what several
/// replicas took at the same time can exceed what one write may make, and such a key must stay readable.
pub const FRAME_BYTES_MAX: usize = 64 * 1024 * 1024 + 64 * 1024;

const HEADER_BYTES: usize = 4;

/// A stream that is not of this protocol.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum FrameError {
    /// The length is out of bounds.
    #[error("a frame of {bytes} bytes; at most {max} are taken here")]
    TooLong {
        /// What the header says.
        bytes: usize,
        /// The bound.
        max: usize,
    },
    /// The body is not a message.
    #[error("a frame that holds no known message")]
    Malformed,
}

/// Appends a message as a frame. One that the other end would refuse, and close the connection for, is not
/// appended.
pub fn encode(message: &impl Serialize, max: usize, out: &mut BytesMut) -> Result<(), FrameError> {
    let start = out.len();
    out.extend_from_slice(&[0; HEADER_BYTES]);
    postcard::to_io(message, BytesMutWriter(out)).expect("writing to memory does not fail");
    let bytes = out.len() - start - HEADER_BYTES;
    if bytes > max {
        out.truncate(start);
        return Err(FrameError::TooLong { bytes, max });
    }
    out[start..start + HEADER_BYTES].copy_from_slice(&(bytes as u32).to_le_bytes());
    Ok(())
}

/// Takes the first whole frame from a buffer; `None` when more bytes are needed.
pub fn decode<T: DeserializeOwned>(buffer: &mut BytesMut, bytes_max: usize) -> Result<Option<T>, FrameError> {
    let Some(header) = buffer.first_chunk::<HEADER_BYTES>() else { return Ok(None) };
    let bytes = u32::from_le_bytes(*header) as usize;
    if bytes > bytes_max {
        return Err(FrameError::TooLong { bytes, max: bytes_max });
    }
    if buffer.len() < HEADER_BYTES + bytes {
        return Ok(None);
    }
    buffer.advance(HEADER_BYTES);
    let body = buffer.split_to(bytes);
    match postcard::take_from_bytes(&body) {
        Ok((message, [])) => Ok(Some(message)),
        _ => Err(FrameError::Malformed),
    }
}

struct BytesMutWriter<'a>(&'a mut BytesMut);

impl std::io::Write for BytesMutWriter<'_> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use quorate_core::NodeId;
    use quorate_core::causality::{Actor, Context, Dot, Event, Policy, Stamp, VersionSet};

    use super::*;
    use crate::peer::{Cause, Frame, Request};

    fn replicate(value: Vec<u8>) -> Frame {
        let mut set = VersionSet::default();
        for counter in 1..4 {
            let (context, stamp) = (Context::default(), Stamp::at_ms(counter));
            let event = Event {
                context,
                stamp,
                value: Some(value.clone().into()),
                policy: Policy::Siblings,
                expires: None,
            };
            let actor = Actor { node: NodeId::from_u128(7), start: 1 };
            set.write(event, Dot { actor, counter }).unwrap();
        }
        Frame::Request {
            id: 1,
            request: Request::Replicate { epoch: 1, sent: 1, cause: Cause::Write, key: vec![1].into(), set },
        }
    }

    #[test]
    fn a_length_out_of_bounds_is_refused_before_its_body_comes() {
        let mut buffer = BytesMut::from(&u32::MAX.to_le_bytes()[..]);
        let error = FrameError::TooLong { bytes: u32::MAX as usize, max: 10 };
        assert_eq!(decode::<String>(&mut buffer, 10), Err(error));
    }

    #[test]
    fn trailing_bytes_in_a_frame_are_refused() {
        let mut buffer = BytesMut::new();
        encode(&("a", "b"), 100, &mut buffer).unwrap();
        assert_eq!(decode::<String>(&mut buffer, 100), Err(FrameError::Malformed));
    }

    #[test]
    fn a_frame_that_nobody_would_take_is_not_made() {
        let mut buffer = BytesMut::from(&b"before"[..]);
        assert_eq!(encode(&[0u8; 11], 10, &mut buffer), Err(FrameError::TooLong { bytes: 11, max: 10 }));
        assert_eq!(buffer, b"before"[..]);
    }

    proptest! {
        #[test]
        fn frames_survive_any_cutting(messages in prop::collection::vec(".{0,40}", 0..10), cut in 1usize..20) {
            let mut stream = BytesMut::new();
            messages.iter().for_each(|message| encode(message, 1000, &mut stream).unwrap());
            let (mut buffer, mut seen) = (BytesMut::new(), Vec::new());
            for piece in stream.chunks(cut) {
                buffer.extend_from_slice(piece);
                while let Some(message) = decode::<String>(&mut buffer, 1000).unwrap() {
                    seen.push(message);
                }
            }
            prop_assert_eq!(seen, messages);
            prop_assert!(buffer.is_empty());
        }

        /// Almost right is where decoders break: a real frame with some bytes changed.
        #[test]
        fn damaged_frames_never_panic(
            value in prop::collection::vec(any::<u8>(), 0..40),
            damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
        ) {
            let mut buffer = BytesMut::new();
            encode(&replicate(value), 1000, &mut buffer).unwrap();
            for (at, byte) in damage {
                let at = HEADER_BYTES + at.index(buffer.len() - HEADER_BYTES);
                buffer[at] = byte;
            }
            if let Ok(Some(Frame::Request { request: Request::Replicate { set, .. }, .. })) =
                decode::<Frame>(&mut buffer, 1000)
            {
                prop_assert_eq!(VersionSet::decode(&set.encode()), Ok(set), "what a peer sends can be stored");
            }
        }

        #[test]
        fn garbage_never_panics(bytes in prop::collection::vec(any::<u8>(), 0..100)) {
            let mut buffer = BytesMut::from(&bytes[..]);
            while let Ok(Some(_)) = decode::<crate::peer::Frame>(&mut buffer, 1000) {}
        }
    }
}
