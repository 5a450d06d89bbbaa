//! The three encodings against each other, against other people's XML-RPC, and against hostile input.

// Helpers of tests fail tests, too.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod cbor;
mod dxr_peer;
mod json;
mod limits;
mod properties;
mod python_peer;
mod support;
mod xml;
