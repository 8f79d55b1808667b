//! The parsers against vectors of the RFCs, slow obvious models, and any octets at all.

#![allow(clippy::unwrap_used, reason = "a test's helpers fail as the test does")]

mod checksum;
mod extension;
mod fragment;
mod frame;
mod rtcp;
mod rtp;
mod stun;
mod total;

/// Octets from hexadecimal digits; white space does not count.
fn hex(digits: &str) -> Vec<u8> {
    let digits: Vec<u8> = digits.bytes().filter(u8::is_ascii_hexdigit).collect();
    digits.chunks(2).map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap()).collect()
}
