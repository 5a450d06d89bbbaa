//! The three encodings against each other, against other people's XML-RPC, and against hostile input.

mod cbor;
mod dxr_peer;
mod json;
mod limits;
mod properties;
mod python_peer;
mod support;
mod xml;
