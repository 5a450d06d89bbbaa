//! Base64 as XML-RPC and JSON carry it.
//!
//! Written in the standard alphabet with padding, on one line; read with or without padding, and with white space
//! anywhere (XML-RPC libraries break lines at 76 characters).

use base64::Engine;
use base64::alphabet;
use base64::engine::DecodePaddingMode;
use base64::engine::general_purpose::{GeneralPurpose, GeneralPurposeConfig, STANDARD};
use bytes::Bytes;

use super::tree::invalid;
use crate::rpc::Fault;

const TOLERANT: GeneralPurpose = GeneralPurpose::new(
    &alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// The length of so many bytes in base64.
pub(super) const fn encoded_len(bytes: usize) -> usize {
    bytes.div_ceil(3).saturating_mul(4)
}

/// Appends bytes in base64.
pub(super) fn encode_into(bytes: &[u8], out: &mut String) {
    STANDARD.encode_string(bytes, out);
}

/// Bytes from base64.
pub(super) fn decode(text: &str) -> Result<Bytes, Fault> {
    let bad = |error| invalid(format!("not base64: {error}"));
    if text.bytes().any(|byte| byte.is_ascii_whitespace()) {
        let dense: Vec<u8> = text.bytes().filter(|byte| !byte.is_ascii_whitespace()).collect();
        return Ok(TOLERANT.decode(dense).map_err(bad)?.into());
    }
    Ok(TOLERANT.decode(text).map_err(bad)?.into())
}
