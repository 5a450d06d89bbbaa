//! Where things are in the repository.

use std::path::{Path, PathBuf};

/// The repository's root.
pub fn root() -> PathBuf {
    // bins/xtask/../..
    Path::new(env!("CARGO_MANIFEST_DIR")).components().rev().skip(2).collect::<Vec<_>>().into_iter().rev().collect()
}

/// `target/`, where all that this tool makes goes: cargo's own, wherever that is set to.
pub fn target() -> PathBuf {
    match std::env::var_os("CARGO_TARGET_DIR") {
        Some(dir) => root().join(dir),
        None => root().join("target"),
    }
}

/// Generated files that the packages carry.
pub fn assets() -> PathBuf {
    // Cargo.toml's lists of assets name this place, so it does not follow CARGO_TARGET_DIR.
    root().join("target/assets")
}
