//! Frames: a little-endian `u32` of the body's bytes, then the body (postcard).
//!
//! The length is checked against a bound before a byte of the body is waited for, so a stranger's garbage
//! costs a closed connection and never memory (INV-BOUND).

use bytes::{Buf, BytesMut};
use quorate_core::limits::{KEY_BYTES_MAX, VERSION_SET_BYTES_MAX};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// The longest frame after the handshake: one version set, its causal contexts and its key.
pub const FRAME_BYTES_MAX: usize = VERSION_SET_BYTES_MAX + KEY_BYTES_MAX + 256 * 1024;

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

/// Appends a message as a frame.
pub fn encode(message: &impl Serialize, out: &mut BytesMut) {
    let start = out.len();
    out.extend_from_slice(&[0; HEADER_BYTES]);
    postcard::to_io(message, BytesMutWriter(out)).expect("writing to memory does not fail");
    let bytes = (out.len() - start - HEADER_BYTES) as u32;
    out[start..start + HEADER_BYTES].copy_from_slice(&bytes.to_le_bytes());
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

    use super::*;

    #[test]
    fn a_length_out_of_bounds_is_refused_before_its_body_comes() {
        let mut buffer = BytesMut::from(&u32::MAX.to_le_bytes()[..]);
        let error = FrameError::TooLong { bytes: u32::MAX as usize, max: 10 };
        assert_eq!(decode::<String>(&mut buffer, 10), Err(error));
    }

    #[test]
    fn trailing_bytes_in_a_frame_are_refused() {
        let mut buffer = BytesMut::new();
        encode(&("a", "b"), &mut buffer);
        assert_eq!(decode::<String>(&mut buffer, 100), Err(FrameError::Malformed));
    }

    proptest! {
        #[test]
        fn frames_survive_any_cutting(messages in prop::collection::vec(".{0,40}", 0..10), cut in 1usize..20) {
            let mut stream = BytesMut::new();
            messages.iter().for_each(|message| encode(message, &mut stream));
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

        #[test]
        fn garbage_never_panics(bytes in prop::collection::vec(any::<u8>(), 0..100)) {
            let mut buffer = BytesMut::from(&bytes[..]);
            while let Ok(Some(_)) = decode::<crate::peer::Frame>(&mut buffer, 1000) {}
        }
    }
}
