//! virtagent's core: everything that a daemon, a module or the host's command shares.
//!
//! # Layout
//! | module | what it owns |
//! |---|---|
//! | [`rpc`] | the vocabulary: values, calls, faults; no I/O |
//! | [`encoding`] | XML-RPC, JSON-RPC and CBOR: bytes to vocabulary and back; no I/O |
//! | [`frame`] | the frame codec; no I/O |
//! | [`link`] | transports, reader and writer tasks, calls in flight |
//! | [`module`] | what a feature module implements, and how it registers |
//! | [`policy`] | the guest owner's word: what may run |
//! | [`audit`] | the record of everything that ran |
//! | [`identity`] | users, sessions and the boot |
//! | [`config`] | the TOML that all of the above read; `document` is one such file |
//! | [`router`] | the actor that owns the host link and the session registry |
//!
//! An arrow points down only: `router -> link -> frame -> encoding -> rpc`.
//! Nothing here knows a shipped module by name.
#![deny(unsafe_code)]
#![warn(missing_docs)]

pub mod audit;
pub mod config;
mod document;
pub mod encoding;
pub mod frame;
pub mod identity;
pub mod link;
pub mod module;
pub mod policy;
pub mod router;
pub mod rpc;
