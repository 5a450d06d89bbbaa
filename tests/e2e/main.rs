//! virtagent end to end.
#![allow(clippy::disallowed_methods, reason = "tests start programs and wait for them, outside of any event loop")]

mod channels;
mod daemon;
mod floods;
mod leaving;
mod limits;
mod modules;
mod policy;
mod policy_paths;
mod recording;
mod routing;
mod support;
mod takeover;
mod vm;
mod wire;
mod wire_2011;
mod wire_methods;
