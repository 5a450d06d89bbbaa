//! The writer task: empties the outbox into the stream.

use std::io::{self, IoSlice};

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncWrite, AsyncWriteExt, WriteHalf};

use super::outbox::Parcel;
use super::{CloseReason, Link};
use crate::frame::FrameEncoder;

/// Small frames that wait together are written together, up to about this much: one write to a virtio-serial port takes
/// at most 32 KiB.
const BATCH: usize = 32 * 1024;

pub(super) async fn run<S: AsyncWrite>(link: Link, stream: WriteHalf<S>) {
    let writing = write_all(&link, stream);
    tokio::select! {
        outcome = writing => if let Err(error) = outcome {
            link.end(CloseReason::Io(format!("writing to the link: {error}")));
        },
        () = link.0.stop.cancelled() => {}
    }
}

async fn write_all<S: AsyncWrite>(link: &Link, mut stream: WriteHalf<S>) -> io::Result<()> {
    let mut buffer = BytesMut::new();
    while let Some(parcel) = link.0.outbox.next().await {
        let mut frames = 1;
        let mut last = parcel;
        let mut held = std::mem::take(&mut last.held);
        // More of the peer's calls are at work: what is ready to run may end some of them, and those go in this write.
        if link.is_ours() && link.0.serving.len() > 0 {
            tokio::task::yield_now().await;
        }
        // A careful link's frames go alone: a 2011 peer takes what comes in one read for one frame.
        if !link.is_ours() {
            link.0.pace.wait(last.frame.kind).await;
            link.0.pace.writing(&last.frame);
        }
        FrameEncoder::head(&last.frame, &mut buffer);
        while link.is_ours() && buffer.len() + last.frame.body.len() < BATCH {
            let Some(mut next) = link.0.outbox.next_now() else { break };
            buffer.extend_from_slice(&last.frame.body);
            FrameEncoder::head(&next.frame, &mut buffer);
            held.append(&mut next.held);
            last = next;
            frames += 1;
        }
        let Parcel { frame, .. } = last;
        let written = write_two(&mut stream, &mut buffer, frame.body).await;
        link.0.outbox.written(frames);
        written?;
        stream.flush().await?;
        drop(held);
        if buffer.capacity() > 2 * BATCH {
            buffer = BytesMut::new();
        }
        buffer.clear();
    }
    Ok(())
}

/// Writes both without copying one behind the other.
async fn write_two(
    stream: &mut (impl AsyncWrite + Unpin),
    first: &mut BytesMut,
    mut second: impl Buf,
) -> io::Result<()> {
    while first.has_remaining() || second.has_remaining() {
        let written = if first.has_remaining() && second.has_remaining() {
            stream.write_vectored(&[IoSlice::new(first.chunk()), IoSlice::new(second.chunk())]).await?
        } else if first.has_remaining() {
            stream.write(first.chunk()).await?
        } else {
            stream.write(second.chunk()).await?
        };
        if written == 0 {
            return Err(io::ErrorKind::WriteZero.into());
        }
        let from_first = written.min(first.remaining());
        first.advance(from_first);
        second.advance(written - from_first);
    }
    Ok(())
}
