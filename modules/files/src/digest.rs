//! Digests of bytes, as they pass and of whole files. Does no I/O but [`digest_of`].

use std::fmt;
use std::fmt::Write as _;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::str::FromStr;

use schemars::JsonSchema;
use serde::Deserialize;
use sha2::Digest as _;
use xxhash_rust::xxh3::Xxh3;

use crate::error::{Error, Result};

/// How much is read and digested at a time.
const CHUNK: usize = 1 << 20;

/// A digest's algorithm.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
pub enum Algorithm {
    /// As fast as memory; against accidents, not against attackers.
    #[default]
    #[serde(rename = "xxh3-128")]
    Xxh3,
    /// Against attackers too.
    #[serde(rename = "sha256")]
    Sha256,
}

impl Algorithm {
    fn name(self) -> &'static str {
        match self {
            Self::Xxh3 => "xxh3-128",
            Self::Sha256 => "sha256",
        }
    }

    fn hex_digits(self) -> usize {
        match self {
            Self::Xxh3 => 32,
            Self::Sha256 => 64,
        }
    }
}

/// An algorithm with its value: `sha256:HEX`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Digest {
    pub(crate) algorithm: Algorithm,
    hex: String,
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.algorithm.name(), self.hex)
    }
}

impl FromStr for Digest {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let parsed = text.split_once(':').and_then(|(name, hex)| {
            let algorithm = [Algorithm::Xxh3, Algorithm::Sha256].into_iter().find(|one| one.name() == name)?;
            let well_formed = hex.len() == algorithm.hex_digits() && hex.bytes().all(|b| b.is_ascii_hexdigit());
            well_formed.then(|| Self { algorithm, hex: hex.to_ascii_lowercase() })
        });
        parsed.ok_or_else(|| {
            let shown: String = text.chars().take(80).collect();
            Error::Invalid(format!("digest {shown:?}: want sha256: and 64 hexadecimal digits, or xxh3-128: and 32"))
        })
    }
}

/// A digest that is still growing.
#[derive(Clone)]
pub(crate) enum Hasher {
    Xxh3(Box<Xxh3>),
    Sha256(Box<sha2::Sha256>),
}

impl Hasher {
    pub(crate) fn new(algorithm: Algorithm) -> Self {
        match algorithm {
            Algorithm::Xxh3 => Self::Xxh3(Box::default()),
            Algorithm::Sha256 => Self::Sha256(Box::default()),
        }
    }

    pub(crate) fn update(&mut self, bytes: &[u8]) {
        match self {
            Self::Xxh3(state) => state.update(bytes),
            Self::Sha256(state) => state.update(bytes),
        }
    }

    pub(crate) fn finish(self) -> Digest {
        match self {
            Self::Xxh3(state) => Digest { algorithm: Algorithm::Xxh3, hex: format!("{:032x}", state.digest128()) },
            Self::Sha256(state) => {
                let mut hex = String::with_capacity(64);
                for byte in state.finalize() {
                    let _ = write!(hex, "{byte:02x}");
                }
                Digest { algorithm: Algorithm::Sha256, hex }
            }
        }
    }
}

/// The digest of what passed through a handle, as long as it passed in order.
pub(crate) struct Transfer {
    hasher: Option<Hasher>,
    algorithm: Option<Algorithm>,
    start: u64,
    next: Option<u64>,
}

impl Transfer {
    pub(crate) fn new(algorithm: Option<Algorithm>) -> Self {
        Self { hasher: algorithm.map(Hasher::new), algorithm, start: 0, next: None }
    }

    /// Bytes that passed, and the offset that they passed at.
    pub(crate) fn passed(&mut self, offset: u64, bytes: &[u8]) {
        if bytes.is_empty() {
            return;
        }
        match self.next {
            None => self.start = offset,
            Some(next) if next != offset => self.hasher = None,
            Some(_) => {}
        }
        self.next = Some(offset + bytes.len() as u64);
        if let Some(hasher) = &mut self.hasher {
            hasher.update(bytes);
        }
    }

    /// A part may have passed, nobody knows how much: there is no digest any more.
    pub(crate) fn broken(&mut self) {
        self.hasher = None;
    }

    /// Whether this is the digest by that algorithm of a whole file of `size` bytes.
    pub(crate) fn covers(&self, size: u64, algorithm: Algorithm) -> bool {
        let whole = self.start == 0 && self.next.unwrap_or(0) == size;
        whole && self.hasher.is_some() && self.algorithm == Some(algorithm)
    }

    /// The digest so far, if everything passed in order.
    pub(crate) fn peek(&self) -> Option<Digest> {
        self.hasher.clone().map(Hasher::finish)
    }

    /// The digest, if everything passed in order and anything passed.
    pub(crate) fn finish(&mut self) -> Option<Digest> {
        self.next?;
        self.hasher.take().map(Hasher::finish)
    }
}

/// The digest of at most `length` bytes of a file from `offset`, and how many they were. Blocks; `stop` is asked between
/// chunks.
pub(crate) fn digest_of(
    file: &File,
    algorithm: Algorithm,
    mut offset: u64,
    length: Option<u64>,
    stop: impl Fn() -> bool,
) -> Result<(Digest, u64)> {
    let mut hasher = Hasher::new(algorithm);
    let mut buffer = vec![0; CHUNK];
    let mut left = length.unwrap_or(u64::MAX);
    let mut size = 0;
    while left > 0 {
        if stop() {
            return Err(Error::Cancelled);
        }
        let most = usize::try_from(left).unwrap_or(CHUNK).min(CHUNK);
        let came = match file.read_at(&mut buffer[..most], offset) {
            Ok(0) => break,
            Ok(came) => came,
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(Error::io("read the file to digest", error)),
        };
        hasher.update(&buffer[..came]);
        (offset, left, size) = (offset + came as u64, left - came as u64, size + came as u64);
    }
    Ok((hasher.finish(), size))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn passed(parts: &[(u64, &[u8])]) -> Option<String> {
        let mut transfer = Transfer::new(Some(Algorithm::Sha256));
        for (offset, bytes) in parts {
            transfer.passed(*offset, bytes);
        }
        transfer.finish().map(|digest| digest.to_string())
    }

    const ABC: &str = "sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";

    #[test]
    fn bytes_that_pass_in_order_have_a_digest_wherever_they_began() {
        assert_eq!(passed(&[(0, b"ab"), (2, b"c")]).unwrap(), ABC);
        assert_eq!(passed(&[(100, b"a"), (101, b"bc")]).unwrap(), ABC);
    }

    #[test]
    fn bytes_that_pass_out_of_order_have_none() {
        assert_eq!(passed(&[(0, b"ab"), (3, b"c")]), None);
        assert_eq!(passed(&[(0, b"abc"), (0, b"abc")]), None);
    }

    #[test]
    fn a_digest_is_an_algorithm_that_we_have_and_as_many_digits_as_it_makes() {
        assert_eq!(ABC.to_uppercase().replace("SHA256", "sha256").parse::<Digest>().unwrap().to_string(), ABC);
        for wrong in ["", "sha256", "sha256:", "sha256:12", "md5:00112233445566778899aabbccddeeff", &ABC[..70]] {
            assert!(wrong.parse::<Digest>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn xxh3_is_written_as_its_canonical_32_digits() {
        let mut hasher = Hasher::new(Algorithm::Xxh3);
        hasher.update(b"");
        assert_eq!(hasher.finish().to_string(), "xxh3-128:99aa06d3014798d86001c324468d497f");
    }
}
