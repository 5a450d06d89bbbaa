//! Numbers that another conversation will not guess or repeat.

/// Four bytes from the kernel's random source.
pub fn random_u32() -> u32 {
    // The source exists on every kernel that has getrandom(2) (3.17) or /dev/urandom; should it fail, the clock still
    // tells this conversation from the one before, which is all that a tag's prefix is for.
    getrandom::u32().unwrap_or_else(|_| {
        let since_epoch = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
        since_epoch.subsec_nanos() ^ std::process::id().rotate_left(16)
    })
}
