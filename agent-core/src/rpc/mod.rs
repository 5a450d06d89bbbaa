//! The vocabulary of every link: values, method names, calls and faults.
//!
//! Owns no I/O and knows no encoding. What [`crate::encoding`] decodes becomes these types once, at the edge;
//! everything behind the edge trusts them.

mod blob;
mod call;
mod datetime;
mod fault;
mod method;
mod serde;
mod value;

pub use self::blob::Blob;
pub use self::call::{Call, Outcome, Tag};
pub use self::datetime::DateTime;
pub use self::fault::{Fault, FaultCode};
pub use self::method::{BadMethodName, MethodName};
pub use self::serde::{from_value, to_value};
pub use self::value::{Struct, Value};

/// How deeply arrays and structs may nest, in every encoding.
pub const MAX_DEPTH: usize = 64;

/// How many values (counting every member of every array and struct) one body may hold.
///
/// A value takes about 40 bytes of memory however short it was on the wire, so this bounds what a small body can cost. A
/// struct that has members counts as nine, for the memory that its first member takes.
pub const MAX_VALUES: usize = 262_144;
