//! Links over real sockets: two of ours, and one of ours with a peer in the test's own hands.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod calls;
mod careful;
mod limits;
mod support;
