//! Why a call cannot begin or be adopted.

use thiserror::Error;

/// Why an offer cannot become a call. The texts are for the one who wrote the client.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum OfferError {
    /// Longer than [`crate::sdp::OFFER_MAX`].
    #[error("the offer is longer than {} octets", crate::sdp::OFFER_MAX)]
    TooLong,
    /// Not an SDP.
    #[error("the offer is not an SDP: {0}")]
    Malformed(String),
    /// No `m=audio` that can be used.
    #[error("the offer has no audio section")]
    NoAudio,
    /// The profile of `m=audio` is not DTLS-SRTP.
    #[error("the audio section uses {0}, not DTLS-SRTP (UDP/TLS/RTP/SAVPF)")]
    NotDtlsSrtp(String),
    /// Keys in the SDP (RFC 4568) without a fingerprint.
    #[error("the offer has keys in a=crypto only; DTLS-SRTP (a=fingerprint) is needed")]
    SdesOnly,
    /// No `a=fingerprint` with SHA-256.
    #[error("the offer has no usable a=fingerprint: one with sha-256 is needed")]
    NoFingerprint,
    /// No user fragment or password, or one outside RFC 8839's lengths and characters.
    #[error("the offer has no usable a=ice-ufrag and a=ice-pwd")]
    NoIceCredentials,
    /// A user fragment that leaves no room for ours in USERNAME.
    #[error("the offer's a=ice-ufrag has more than {} characters", crate::sdp::UFRAG_MAX)]
    LongUfrag,
    /// RTP and RTCP apart (RFC 8834 section 4.5 demands one port).
    #[error("the audio section has no a=rtcp-mux")]
    NoRtcpMux,
    /// A role in DTLS that cannot be answered.
    #[error("the offer's a=setup:{0} cannot be answered")]
    Setup(String),
    /// No codec that telephony knows.
    #[error("the offer has none of the codecs PCMU, PCMA and opus")]
    NoCodec,
    /// Another certificate than the connection's, with its credentials of ICE (RFC 8842 section 5.5).
    #[error("the fingerprint has changed in the middle of the call, and a=ice-ufrag has not")]
    ChangedFingerprint,
    /// An earlier offer waits for the relay to obey, or, where it adds a picture, for what the inside says of it.
    #[error("an earlier offer has not been answered yet")]
    Pending,
    /// A destination that is neither a user, nor user@host, nor a SIP URI of those.
    #[error("the destination is not a user, user@host or sip: URI")]
    Destination,
}

impl OfferError {
    /// HTTP status: 400 where the text is broken, 422 where it asks for what we do not do.
    pub const fn http_status(&self) -> u16 {
        match self {
            Self::TooLong => 413,
            Self::Malformed(_) | Self::Destination => 400,
            Self::Pending => 409,
            Self::NoAudio
            | Self::NotDtlsSrtp(_)
            | Self::SdesOnly
            | Self::NoFingerprint
            | Self::NoIceCredentials
            | Self::LongUfrag
            | Self::NoRtcpMux
            | Self::Setup(_)
            | Self::ChangedFingerprint
            | Self::NoCodec => 422,
        }
    }
}

/// Why a call that rings was not taken.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum AcceptError {
    /// It does not ring: it never did, somebody else took it, or it is over.
    #[error("the call does not ring any more")]
    Gone,
    /// The offer cannot be used; the call rings on.
    #[error("{0}")]
    Offer(#[from] OfferError),
}

/// Why a running plan cannot become a call again. Such a call should be removed from the relay.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum RestoreError {
    /// Written by another version of this crate.
    #[error("the call record has another version")]
    Version,
    /// Not a record.
    #[error("the call record is malformed")]
    Malformed,
    /// The record does not belong to the plan.
    #[error("the call record and the plan contradict each other")]
    Contradiction,
}

/// Why a body is not a fragment of an SDP with candidates (RFC 8840 section 9).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum FragmentError {
    /// Longer than [`crate::sdp::OFFER_MAX`].
    #[error("the fragment is longer than {} octets", crate::sdp::OFFER_MAX)]
    TooLong,
    /// A line that is not `letter=value`.
    #[error("line {0} of the fragment is not an SDP line")]
    Malformed(usize),
}
