//! The channel without an agent: an echo at the other end. What it takes is what nobody can be faster than.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::Result;

use crate::agent::Line;

/// As long as qemu-ga's ping.
const MESSAGE: [u8; 25] = [b'.'; 25];

/// A connection to an echo.
pub struct Raw(Line);

impl Raw {
    /// An echo in a thread of this process, over a pair of unix sockets.
    pub fn here() -> Result<Raw> {
        let (ours, mut theirs) = UnixStream::pair()?;
        // It ends with the pair.
        std::thread::spawn(move || -> std::io::Result<()> {
            let mut buffer = vec![0; 64 * 1024];
            loop {
                let count = theirs.read(&mut buffer)?;
                if count == 0 {
                    return Ok(());
                }
                theirs.write_all(&buffer[..count])?;
            }
        });
        Ok(Raw(Line::over(ours)?))
    }

    /// An echo in the guest, behind a port's socket.
    pub fn behind(socket: &Path) -> Result<Raw> {
        Ok(Raw(Line::connect(socket)?))
    }

    fn echo(&mut self, message: &[u8]) -> Result<()> {
        self.0.send(message)?;
        while self.0.buffer.len() < message.len() {
            self.0.more()?;
        }
        self.0.buffer.clear();
        Ok(())
    }

    pub fn ping(&mut self) -> Result<()> {
        self.echo(&MESSAGE)
    }

    /// Bytes there and back, both ways at once, and how long it took.
    pub fn stream(&mut self, size: usize) -> Result<Duration> {
        let mut writer = self.0.stream().try_clone()?;
        let begin = Instant::now();
        let writing = std::thread::spawn(move || {
            let piece = vec![0; 32 * 1024];
            (0..size / piece.len()).try_for_each(|_| writer.write_all(&piece))
        });
        let mut taken = 0;
        while taken < size {
            self.0.more()?;
            taken += self.0.buffer.len();
            self.0.buffer.clear();
        }
        let took = begin.elapsed();
        writing.join().map_err(|_| anyhow::anyhow!("the writer panicked"))??;
        Ok(took)
    }
}
