//! What the target `frame` asserts: bytes yield the same items however they are cut, and a frame that was decoded comes
//! back from its own encoding.

use agent_core::config::Limits;
use agent_core::encoding::Encoding;
use agent_core::frame::{BadFrame, Frame, FrameDecoder, FrameEncoder, FrameError, Item};
use bytes::BytesMut;
use tokio_util::codec::{Decoder, Encoder};

/// Decodes one wire in several ways.
pub fn wire(data: &[u8]) {
    for limits in [Limits::default(), Limits { head: 256, body: 64, ..Limits::default() }] {
        let whole = decode(&limits, std::iter::once(data));
        assert_eq!(whole, decode(&limits, data.chunks(1)), "byte by byte");
        assert_eq!(whole, decode(&limits, Uneven(data)), "in uneven pieces");
        for item in &whole {
            match item {
                Item::Frame(frame) => survives(&limits, frame),
                Item::Bad(bad) => is_tellable(bad),
            }
        }
    }
}

fn decode<'a>(limits: &Limits, pieces: impl Iterator<Item = &'a [u8]>) -> Vec<Item> {
    let (mut decoder, mut buffer, mut items) = (FrameDecoder::new(limits), BytesMut::new(), Vec::new());
    for piece in pieces {
        buffer.extend_from_slice(piece);
        while let Some(item) = decoder.decode(&mut buffer).expect("it never fails") {
            items.push(item);
        }
        assert!(buffer.len() < limits.head + limits.body, "{} bytes are kept", buffer.len());
    }
    items
}

/// Pieces whose lengths the data itself chooses.
struct Uneven<'a>(&'a [u8]);

impl<'a> Iterator for Uneven<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        let length = usize::from(*self.0.first()? & 0x3f).max(1).min(self.0.len());
        let (piece, rest) = self.0.split_at(length);
        self.0 = rest;
        Some(piece)
    }
}

fn survives(limits: &Limits, frame: &Frame) {
    assert!(!frame.body.is_empty() && frame.body.len() <= limits.body);
    assert!(frame.encoding == Encoding::Cbor || !frame.body.contains(&0xff), "a sentinel in a text body");
    let mut wire = BytesMut::new();
    FrameEncoder.encode(frame.clone(), &mut wire).expect("it never fails");
    // Our heads may take a few bytes more than the sender's.
    let roomy = Limits { head: 64 << 10, body: limits.body, ..Limits::default() };
    let mut expected = frame.clone();
    let heads = &mut expected.heads;
    for text in [&mut heads.username, &mut heads.version, &mut heads.boot_id, &mut heads.nonce].into_iter().flatten() {
        *text = text.split(char::is_control).next().unwrap_or_default().trim().to_owned();
    }
    assert_eq!(decode(&roomy, std::iter::once(&wire[..])), [Item::Frame(expected)]);
}

/// A refusal goes into a log and into a fault: short, and on one line.
fn is_tellable(bad: &BadFrame) {
    let message = bad.error.to_string();
    assert!(message.len() < 1024 && !message.contains(char::is_control), "not one line: {message:?}");
    let answered = bad.kind.is_some() && bad.tag.is_some();
    assert!(answered || !matches!(bad.error, FrameError::BodyTooLong { .. }), "a long body of nobody's: {bad:?}");
}
