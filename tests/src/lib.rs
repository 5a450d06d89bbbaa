//! What virtagent's end-to-end tests, demo and bench stand on: waiting, programs with a limit, and a real virtual machine.
//!
//! # Layout
//! | module | what it owns |
//! |---|---|
//! | [`wait`] | waiting for a condition, with a limit |
//! | [`peer2011`] | the agent of January 2011, both ends, as a script |
//! | [`process`] | running a program with a limit; where the built programs are |
//! | [`local`] | a guest without a VM: real daemons, real users, the host's end |
//! | [`image`] | where the VM image is, and whether KVM works here |
//! | [`vm`] | one booted guest |
//! | [`qga`] | qemu-guest-agent in that guest: a second way in, independent of what is tested |
#![forbid(unsafe_code)]
#![allow(clippy::disallowed_methods, reason = "tests start programs and wait for them, outside of any event loop")]

pub mod image;
pub mod local;
pub mod peer2011;
pub mod process;
pub mod qga;
pub mod vm;
pub mod wait;
