//! What a UDP payload is, by its first octets (RFC 7983 section 7, RFC 5761 section 4).

/// Kinds of datagram that share one port.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// First octet 0 to 3.
    Stun,
    /// First octet 20 to 63.
    Dtls,
    /// First octet 128 to 191, packet type outside 192 to 223.
    Rtp,
    /// First octet 128 to 191, packet type 192 to 223.
    Rtcp,
    /// Anything else, and what is too short to tell.
    Unknown,
}

/// Tells the kind of `payload` without looking further than its second octet.
pub fn classify(payload: &[u8]) -> Kind {
    match payload {
        [0..=3, ..] => Kind::Stun,
        [20..=63, ..] => Kind::Dtls,
        [128..=191, 192..=223, ..] => Kind::Rtcp,
        [128..=191, _, ..] => Kind::Rtp,
        _ => Kind::Unknown,
    }
}
