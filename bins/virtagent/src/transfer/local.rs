//! The local file's side: a thread that writes or reads, and digests in order.

use std::io::{Read, Write};
use std::path::{Path, PathBuf};

use bytes::Bytes;
use tokio::sync::{mpsc, oneshot};

use super::BLOCK;
use super::digest::Digest;
use crate::failure::{Failure, Result};

/// How many blocks may lie between the link and the disk.
const AHEAD: usize = 4;

/// What has passed.
pub struct Passed {
    /// How many bytes this time.
    pub bytes: u64,
    /// The digest, with what it held before.
    pub digest: Digest,
}

/// Writes what it is sent, in order.
pub struct Sink {
    blocks: mpsc::Sender<Bytes>,
    outcome: oneshot::Receiver<std::io::Result<Passed>>,
    path: PathBuf,
}

impl Sink {
    /// Starts the thread; `path` is for messages.
    pub fn start(mut writer: impl Write + Send + 'static, mut digest: Digest, path: &Path) -> Self {
        let (blocks, mut queue) = mpsc::channel::<Bytes>(AHEAD);
        let (done, outcome) = oneshot::channel();
        std::thread::spawn(move || {
            let mut bytes = 0;
            let mut run = || {
                while let Some(block) = queue.blocking_recv() {
                    writer.write_all(&block)?;
                    digest.update(&block);
                    bytes += block.len() as u64;
                }
                writer.flush()
            };
            let outcome = run();
            drop(queue);
            let _ = done.send(outcome.map(|()| Passed { bytes, digest }));
        });
        Self { blocks, outcome, path: path.to_owned() }
    }

    /// Queues a block; fails when writing has failed.
    pub async fn send(&mut self, block: Bytes) -> Result<()> {
        match self.blocks.send(block).await {
            Ok(()) => Ok(()),
            Err(_) => Err(self.failure().await),
        }
    }

    /// Waits until everything is written.
    pub async fn finish(self) -> Result<Passed> {
        let Self { blocks, outcome, path } = self;
        drop(blocks);
        match outcome.await {
            Ok(Ok(passed)) => Ok(passed),
            Ok(Err(error)) => Err(Failure::local("write", &path, &error)),
            Err(_) => Err(Failure::usage(format!("writing {} stopped", path.display()))),
        }
    }

    async fn failure(&mut self) -> Failure {
        match (&mut self.outcome).await {
            Ok(Err(error)) => Failure::local("write", &self.path, &error),
            _ => Failure::usage(format!("writing {} stopped", self.path.display())),
        }
    }
}

/// Reads blocks, in order.
pub struct Source {
    blocks: mpsc::Receiver<std::io::Result<Bytes>>,
    outcome: oneshot::Receiver<Passed>,
    path: PathBuf,
}

impl Source {
    /// Starts the thread; `path` is for messages.
    pub fn start(mut reader: impl Read + Send + 'static, mut digest: Digest, path: &Path) -> Self {
        let (queue, blocks) = mpsc::channel(AHEAD);
        let (done, outcome) = oneshot::channel();
        // The thread may stay in read(2) of a pipe when the command ends, and dies with it.
        std::thread::spawn(move || {
            let mut bytes = 0;
            loop {
                let mut block = Vec::with_capacity(BLOCK);
                // Whole blocks from a pipe too.
                match (&mut reader).take(BLOCK as u64).read_to_end(&mut block) {
                    Ok(0) => break,
                    Ok(length) => {
                        digest.update(&block);
                        bytes += length as u64;
                        if queue.blocking_send(Ok(block.into())).is_err() {
                            return;
                        }
                    }
                    Err(error) => {
                        let _ = queue.blocking_send(Err(error));
                        return;
                    }
                }
            }
            let _ = done.send(Passed { bytes, digest });
        });
        Self { blocks, outcome, path: path.to_owned() }
    }

    /// The next block, or nothing at the end.
    pub async fn next(&mut self) -> Result<Option<Bytes>> {
        match self.blocks.recv().await {
            Some(Ok(block)) => Ok(Some(block)),
            Some(Err(error)) => Err(Failure::local("read", &self.path, &error)),
            None => Ok(None),
        }
    }

    /// What has passed, once there was no next block.
    pub async fn finish(self) -> Result<Passed> {
        let path = self.path;
        self.outcome.await.map_err(|_| Failure::usage(format!("reading {} stopped", path.display())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_goes_in_comes_out_with_the_same_digest() {
        let bytes: Vec<u8> = (0..3 * BLOCK + 7).map(|i| i as u8).collect();
        let mut source = Source::start(std::io::Cursor::new(bytes.clone()), Digest::new(), Path::new("in"));
        let file = tempfile::NamedTempFile::new().unwrap();
        let mut sink = Sink::start(file.reopen().unwrap(), Digest::new(), file.path());
        while let Some(block) = source.next().await.unwrap() {
            sink.send(block).await.unwrap();
        }
        let (read, written) = (source.finish().await.unwrap(), sink.finish().await.unwrap());
        assert_eq!(read.bytes, bytes.len() as u64);
        assert_eq!(read.digest.text(), written.digest.text());
        assert_eq!(std::fs::read(file.path()).unwrap(), bytes);
    }

    #[tokio::test]
    async fn a_full_disk_ends_the_transfer_and_says_so() {
        let full = std::fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
        let mut sink = Sink::start(full, Digest::new(), Path::new("/dev/full"));
        let failure = loop {
            match sink.send(Bytes::from_static(b"x")).await {
                Ok(()) => tokio::task::yield_now().await,
                Err(failure) => break failure,
            }
        };
        assert!(failure.to_string().contains("No space left on device"), "{failure}");
    }
}
