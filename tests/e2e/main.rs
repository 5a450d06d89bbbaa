//! virtagent end to end.
#![allow(clippy::disallowed_methods, reason = "tests start programs and wait for them, outside of any event loop")]

mod floods;
mod leaving;
mod routing;
mod support;
mod takeover;
mod vm;
