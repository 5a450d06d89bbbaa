//! Frames to bytes.

use std::fmt::Write as _;

use bytes::{BufMut, BytesMut};
use tokio_util::codec::Encoder;

use super::{Frame, Heads, Kind, SENTINEL, name};

/// Writes frames whole; a writer that wants to spare the body's copy uses [`FrameEncoder::head`].
#[derive(Clone, Copy, Debug, Default)]
pub struct FrameEncoder;

impl FrameEncoder {
    /// Appends everything that stands before the body.
    pub fn head(frame: &Frame, to: &mut BytesMut) {
        to.reserve(256);
        to.put_u8(SENTINEL);
        to.put_slice(match frame.kind {
            Kind::Call => b"POST /RPC2 HTTP/1.1\r\n",
            Kind::Reply => b"HTTP/1.1 200 OK\r\n",
        });
        // The first three in this order and case: a 2011 reader knows no other.
        put(to, name::TYPE, frame.encoding.content_type());
        put(to, name::LENGTH, frame.body.len());
        put(to, name::TAG, &frame.tag);
        let Heads { username, timeout_ms, version, boot_id, nonce } = &frame.heads;
        let texts =
            [(name::USERNAME, username), (name::VERSION, version), (name::BOOT_ID, boot_id), (name::NONCE, nonce)];
        for (name, text) in texts {
            if let Some(text) = text {
                put(to, name, clean(text));
            }
        }
        if let Some(timeout_ms) = timeout_ms {
            put(to, name::TIMEOUT, timeout_ms);
        }
        to.put_slice(b"\r\n");
    }
}

impl Encoder<Frame> for FrameEncoder {
    type Error = std::io::Error;

    fn encode(&mut self, frame: Frame, to: &mut BytesMut) -> Result<(), Self::Error> {
        Self::head(&frame, to);
        to.extend_from_slice(&frame.body);
        Ok(())
    }
}

fn put(to: &mut BytesMut, name: &str, value: impl std::fmt::Display) {
    // Writing to a BytesMut grows it; it can't fail.
    let _ = write!(to, "{name}: {value}\r\n");
}

/// A head's value ends at the first control character: nobody smuggles a head inside a name.
fn clean(text: &str) -> &str {
    text.split(|c: char| c.is_control()).next().unwrap_or_default()
}
