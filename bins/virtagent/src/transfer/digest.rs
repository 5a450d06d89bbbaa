//! The digest of what passes: xxh3-128, as the guest writes it.

use std::io::Read;

use xxhash_rust::xxh3::Xxh3;

/// What the guest puts before the hexadecimal digits.
const PREFIX: &str = "xxh3-128:";

/// A digest that grows.
#[derive(Clone, Default)]
pub struct Digest(Box<Xxh3>);

impl Digest {
    pub fn new() -> Self {
        Self(Box::new(Xxh3::new()))
    }

    pub fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    /// `xxh3-128:` and 32 hexadecimal digits.
    pub fn text(&self) -> String {
        format!("{PREFIX}{:032x}", self.0.digest128())
    }

    /// Takes exactly `length` bytes of a stream.
    pub fn read(&mut self, mut stream: impl Read, length: u64) -> std::io::Result<()> {
        let mut buffer = vec![0; 1 << 18];
        let mut left = length;
        while left > 0 {
            let wanted = buffer.len().min(usize::try_from(left).unwrap_or(usize::MAX));
            match stream.read(&mut buffer[..wanted])? {
                0 => return Err(std::io::ErrorKind::UnexpectedEof.into()),
                length => {
                    self.update(&buffer[..length]);
                    left -= length as u64;
                }
            }
        }
        Ok(())
    }
}

/// Whether a digest that the guest sent is one that we can compare with.
pub fn comparable(text: &str) -> bool {
    text.starts_with(PREFIX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_digest_is_the_published_one_of_nothing() {
        assert_eq!(Digest::new().text(), "xxh3-128:99aa06d3014798d86001c324468d497f");
    }

    #[test]
    fn a_stream_that_ends_early_is_an_error() {
        let mut digest = Digest::new();
        assert!(digest.read(&b"abc"[..], 4).is_err());
    }
}
