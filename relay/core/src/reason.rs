//! Why a packet died. Every drop counts exactly one.

/// Reasons, in the order in which a packet meets them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Reason {
    /// No flow has this 5-tuple.
    UnknownFlow,
    /// STUN or DTLS for control beyond the rate of its source or flow, or a picture asked for too soon after another.
    RateLimited,
    /// The flow's direction has been replaced, or fed by other flows, since the packet was tagged.
    StaleFlow,
    /// From the signalled address, but another port, and not shown to be the peer's, or not yet.
    Unlatched,
    /// Not what its first octets promise.
    Malformed,
    /// A kind of packet that this leg does not carry.
    Unexpected,
    /// STUN whose integrity is wrong.
    StunIntegrity,
    /// Consent of the pair has lapsed (RFC 7675 section 5.1).
    ConsentLost,
    /// Media before the handshake has ended.
    Early,
    /// Media while the direction is held.
    Held,
    /// A wrong tag.
    BadTag,
    /// Seen before.
    Replay,
    /// Below the replay window.
    TooOld,
    /// SRTCP without encryption.
    NotEncrypted,
    /// A payload type that the plan does not map.
    PayloadType,
    /// Far from the sequence of its source, or of the source before it: the first of a restart, or a straggler (`bad_seq` of
    /// RFC 3550 appendix A.1).
    OutOfSequence,
    /// Older than the point at which the outgoing stream was re-based.
    Late,
    /// A retransmission of a packet that came, or of none.
    Repeated,
    /// A sender report of a source that is not this direction's.
    RtcpSource,
    /// Nothing of the compound belongs on the other leg.
    RtcpEmpty,
    /// The outgoing index was sealed before.
    IndexReuse,
    /// All indices of the key are used up.
    Exhausted,
    /// No room behind the packet for the tag.
    NoRoom,
}

impl Reason {
    /// All of them, in order.
    pub const ALL: [Self; 23] = [
        Self::UnknownFlow,
        Self::RateLimited,
        Self::StaleFlow,
        Self::Unlatched,
        Self::Malformed,
        Self::Unexpected,
        Self::StunIntegrity,
        Self::ConsentLost,
        Self::Early,
        Self::Held,
        Self::BadTag,
        Self::Replay,
        Self::TooOld,
        Self::NotEncrypted,
        Self::PayloadType,
        Self::OutOfSequence,
        Self::Late,
        Self::Repeated,
        Self::RtcpSource,
        Self::RtcpEmpty,
        Self::IndexReuse,
        Self::Exhausted,
        Self::NoRoom,
    ];

    /// Name of the counter, stable.
    pub const fn name(self) -> &'static str {
        match self {
            Self::UnknownFlow => "drop_unknown_flow",
            Self::RateLimited => "drop_rate_limited",
            Self::StaleFlow => "drop_stale_flow",
            Self::Unlatched => "drop_unlatched",
            Self::Malformed => "drop_malformed",
            Self::Unexpected => "drop_unexpected",
            Self::StunIntegrity => "drop_stun_integrity",
            Self::ConsentLost => "drop_consent_lost",
            Self::Early => "drop_early",
            Self::Held => "drop_held",
            Self::BadTag => "drop_bad_tag",
            Self::Replay => "drop_replay",
            Self::TooOld => "drop_too_old",
            Self::NotEncrypted => "drop_not_encrypted",
            Self::PayloadType => "drop_payload_type",
            Self::OutOfSequence => "drop_out_of_sequence",
            Self::Late => "drop_late",
            Self::Repeated => "drop_repeated",
            Self::RtcpSource => "drop_rtcp_source",
            Self::RtcpEmpty => "drop_rtcp_empty",
            Self::IndexReuse => "drop_index_reuse",
            Self::Exhausted => "drop_exhausted",
            Self::NoRoom => "drop_no_room",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_list_is_complete_and_in_order() {
        for (at, reason) in Reason::ALL.iter().enumerate() {
            assert_eq!(*reason as usize, at);
            assert!(reason.name().starts_with("drop_"));
        }
    }
}
