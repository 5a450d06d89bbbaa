//! A peer in the test's own hands, and a server that does with calls what the test says.

use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use agent_core::config::Limits;
use agent_core::encoding::{Encoding, decode_call, decode_outcome, encode_call, encode_outcome};
use agent_core::frame::{BadFrame, Frame, FrameDecoder, FrameEncoder, FrameError, Heads, Item, Kind};
use agent_core::link::{Incoming, Link, LinkOptions, Serve};
use agent_core::rpc::{Call, Outcome, Tag, Value};
use bytes::{Bytes, BytesMut};
use futures_util::StreamExt;
use tokio::io::AsyncWriteExt;
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::mpsc;
use tokio_util::codec::{Encoder, FramedRead};

/// How long anything may take before a test fails.
pub const LIMIT: Duration = Duration::from_secs(20);

/// Waits for the future as long as a test may.
pub async fn soon<F: Future>(what: &str, future: F) -> F::Output {
    match tokio::time::timeout(LIMIT, future).await {
        Ok(output) => output,
        Err(_) => panic!("{what} did not happen within {} s", LIMIT.as_secs()),
    }
}

/// Waits until that is true.
pub async fn until(what: &str, mut condition: impl FnMut() -> bool) {
    soon(what, async {
        while !condition() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    })
    .await;
}

/// Hands every call to the test, which answers as it likes, and keeps what else the link tells.
pub struct Inbox {
    calls: mpsc::UnboundedSender<Incoming>,
    pub strays: Mutex<Vec<Tag>>,
    pub bad: Mutex<Vec<FrameError>>,
}

impl Inbox {
    pub fn new() -> (Arc<Self>, mpsc::UnboundedReceiver<Incoming>) {
        let (calls, inbox) = mpsc::unbounded_channel();
        (Arc::new(Self { calls, strays: Mutex::default(), bad: Mutex::default() }), inbox)
    }
}

impl Serve for Inbox {
    fn incoming(&self, call: Incoming) -> Pin<Box<dyn Future<Output = ()> + Send + '_>> {
        let _ = self.calls.send(call);
        Box::pin(std::future::ready(()))
    }

    fn stray_reply(&self, tag: &Tag) {
        self.strays.lock().unwrap().push(tag.clone());
    }

    fn bad_frame(&self, bad: &BadFrame) {
        self.bad.lock().unwrap().push(bad.error.clone());
    }
}

pub fn options(trusted_peer: bool) -> LinkOptions {
    LinkOptions { limits: Limits::default(), calls: 64, trusted_peer }
}

/// A link of ours with its inbox, and the other end in the test's hands.
pub struct Bench {
    pub link: Link,
    pub inbox: mpsc::UnboundedReceiver<Incoming>,
    pub serve: Arc<Inbox>,
    pub peer: Peer,
}

/// A link towards a peer that is known to be ours.
pub fn trusted() -> Bench {
    bench(options(true))
}

/// A link towards a peer that may be of 2011.
pub fn careful() -> Bench {
    bench(options(false))
}

pub fn bench(options: LinkOptions) -> Bench {
    let (ours, theirs) = UnixStream::pair().unwrap();
    let (serve, inbox) = Inbox::new();
    let link = Link::start(ours, options, serve.clone());
    Bench { link, inbox, serve, peer: Peer::new(theirs) }
}

/// The other end as frames.
pub struct Peer {
    reader: FramedRead<OwnedReadHalf, FrameDecoder>,
    writer: OwnedWriteHalf,
}

impl Peer {
    pub fn new(stream: UnixStream) -> Self {
        let (reader, writer) = stream.into_split();
        let limits = Limits { body: Limits::BODY_MAX, ..Limits::default() };
        Self { reader: FramedRead::new(reader, FrameDecoder::new(&limits)), writer }
    }

    pub async fn bytes(&mut self, bytes: &[u8]) {
        soon("writing", self.writer.write_all(bytes)).await.unwrap();
    }

    pub async fn send(&mut self, frame: Frame) {
        self.bytes(&wire(frame)).await;
    }

    pub async fn call(&mut self, tag: &str, method: &str) {
        self.send(call(tag, method, Heads::default())).await;
    }

    pub async fn reply(&mut self, tag: &Tag, value: Value) {
        self.send(reply(tag, &Ok(value), Heads::default())).await;
    }

    /// The next frame.
    pub async fn next(&mut self) -> Frame {
        match soon("a frame", self.reader.next()).await {
            Some(Ok(Item::Frame(frame))) => frame,
            other => panic!("{other:?}"),
        }
    }

    /// The next frame, which has to be a call.
    pub async fn next_call(&mut self) -> (Frame, Call) {
        let frame = self.next().await;
        assert_eq!(frame.kind, Kind::Call);
        let call = decode_call(frame.encoding, &frame.body).unwrap();
        (frame, call)
    }

    /// The next frame, which has to be a reply to that.
    pub async fn next_reply(&mut self, tag: &str) -> Outcome {
        let frame = self.next().await;
        assert_eq!((frame.kind, frame.tag.as_str()), (Kind::Reply, tag));
        decode_outcome(frame.encoding, &frame.body).unwrap()
    }

    /// Asserts that nothing comes before the answer to a call that the test's server answers at once.
    pub async fn nothing_before_the_answer_to(&mut self, tag: &str) {
        let frame = self.next().await;
        assert_eq!((frame.kind, frame.tag.as_str()), (Kind::Reply, tag), "something came that should not");
    }

    pub fn into_writer(self) -> (FramedRead<OwnedReadHalf, FrameDecoder>, OwnedWriteHalf) {
        (self.reader, self.writer)
    }
}

pub fn wire(frame: Frame) -> BytesMut {
    let mut bytes = BytesMut::new();
    FrameEncoder.encode(frame, &mut bytes).unwrap();
    bytes
}

pub fn call(tag: &str, method: &str, heads: Heads) -> Frame {
    let tag: Tag = tag.parse().unwrap();
    let call = Call { method: method.parse().unwrap(), params: Vec::new() };
    let body = encode_call(Encoding::Xml, &call, &tag).unwrap();
    Frame { kind: Kind::Call, tag, encoding: Encoding::Xml, heads, body }
}

pub fn reply(tag: &Tag, outcome: &Outcome, heads: Heads) -> Frame {
    let body = encode_outcome(Encoding::Xml, outcome, tag).unwrap();
    Frame { kind: Kind::Reply, tag: tag.clone(), encoding: Encoding::Xml, heads, body }
}

pub fn bytes(size: usize) -> Value {
    Value::Bytes(Bytes::from(vec![0xff; size]))
}

pub fn version() -> Heads {
    Heads { version: Some("9.9.9".into()), ..Heads::default() }
}
