//! What a call takes from the configuration and from the relay's status.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use sallyport_plan::Zone;

use crate::api::Party;
use crate::sdp::{Codec, Kind};

/// How we know an address of ours outside.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum CandidateKind {
    /// An address of the outside interface.
    Host,
    /// What a STUN server saw as our media port's source (RFC 8445 section 5.1.1.2).
    ServerReflexive,
    /// The public address of a static 1:1 NAT, from the configuration.
    Advertised,
}

/// One address at which browsers may reach the shared media port of a side.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct LocalCandidate {
    /// What the browser is told.
    pub address: SocketAddr,
    /// The relay's own address and port behind it; equal to `address` for a host candidate.
    pub base: SocketAddr,
    /// How we know it.
    pub kind: CandidateKind,
    /// At which interface.
    pub zone: Zone,
    /// Whether it is the port for TCP (RFC 6544), where browsers connect that UDP does not reach.
    pub tcp: bool,
}

/// Our side of SIP.
#[derive(Clone, PartialEq, Eq)]
pub struct SipSettings {
    /// Host part of URIs: `example.com` or `10.0.0.5:5060`.
    pub domain: String,
    /// Our user part, and the user name of digest authentication.
    pub user: String,
    /// Password of digest authentication; empty: a challenge ends the call.
    pub password: String,
    /// Shown to the called side; may be empty.
    pub display_name: String,
    /// Our Contact URI without brackets, e.g. `sip:sallyport@10.0.0.1:5060;transport=tcp`.
    pub contact: String,
    /// Value of User-Agent and Server.
    pub user_agent: String,
    /// What passes between browsers and the inside.
    pub policy: Policy,
}

/// What passes between browsers and the inside.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Policy {
    /// Whether calls go where a 3xx sends them, through the configured server; else a 3xx is a refusal.
    pub follow_redirects: bool,
    /// Whether P-Asserted-Identity of the inside says who calls (RFC 3325).
    pub trust_identity: bool,
    /// How our own INVITEs say it.
    pub assert_identity: Assertion,
    /// Names of headers of INVITEs that pass both ways.
    pub pass_headers: Vec<String>,
    /// Types of bodies of INFOs that pass both ways, beside digits.
    pub info_types: Vec<String>,
    /// Codecs that are spoken, the one that is preferred inside first: kinds of sound, and comfort noise.
    pub codecs: Vec<Kind>,
    /// How digits that a browser sends as named events go inside.
    pub dtmf: Dtmf,
    /// Whether our offers inside speak of how loud packets are (RFC 6464).
    pub audio_level: bool,
    /// Whether media inside is encrypted.
    pub srtp: Srtp,
    /// Whether peers inside are heard from the port that they signal only.
    pub strict_source: bool,
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            follow_redirects: false,
            trust_identity: false,
            assert_identity: Assertion::None,
            pass_headers: Vec::new(),
            info_types: Vec::new(),
            codecs: Kind::SPOKEN.to_vec(),
            audio_level: false,
            dtmf: Dtmf::Auto,
            srtp: Srtp::Off,
            strict_source: false,
        }
    }
}

impl Policy {
    /// Whether there is a codec for speech among these that may be used.
    pub fn has_sound(&self, codecs: &[Codec]) -> bool {
        codecs.iter().any(|codec| codec.kind.is_sound() && self.codecs.contains(&codec.kind))
    }
}

/// How digits that a browser sends as named events (RFC 4733) go inside.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Dtmf {
    /// As named events where the inside takes them and is not on hold, else by INFO.
    #[default]
    Auto,
    /// As named events only.
    Rfc4733,
    /// By INFO (`application/dtmf-relay`) only: named events are not offered inside.
    Info,
    /// Both ways at once, where the inside takes named events.
    Both,
}

/// Whether media inside is encrypted, under keys in the SDP (RFC 4568).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Srtp {
    /// Never: RTP/AVP is offered and taken.
    #[default]
    Off,
    /// Where the far end has keys, too (RFC 8643): RTP/AVP with keys is offered, RTP/SAVP taken as well.
    Optional,
    /// Always: RTP/SAVP is offered, and nothing without keys taken.
    Required,
}

/// Header that asserts who calls (RFC 3325 section 9).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Assertion {
    /// None.
    #[default]
    None,
    /// P-Asserted-Identity: the server trusts us.
    Asserted,
    /// P-Preferred-Identity: it may check.
    Preferred,
}

impl SipSettings {
    /// Whom calls are from that nobody signed in for.
    pub fn party(&self) -> Party {
        Party {
            user: self.user.clone(),
            display_name: self.display_name.clone(),
            password: self.password.clone(),
        }
    }
}

impl fmt::Debug for SipSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SipSettings")
            .field("domain", &self.domain)
            .field("user", &self.user)
            .finish_non_exhaustive()
    }
}

/// How long a call waits in each of its steps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timeouts {
    /// From the INVITE to its final answer.
    pub ring: Duration,
    /// From our answer to the browser until a pair is nominated.
    pub ice: Duration,
    /// From the start of the DTLS handshake to its end.
    pub dtls: Duration,
    /// For the relay to answer a reservation or a plan.
    pub relay: Duration,
    /// For a relay that is away to come back, while calls run.
    pub away: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            ring: Duration::from_secs(60),
            ice: Duration::from_secs(30),
            dtls: Duration::from_secs(30),
            relay: Duration::from_secs(5),
            away: Duration::from_secs(30),
        }
    }
}

/// A recorder (a session recording server, RFC 7866), and which calls it gets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RecordingSettings {
    /// Its URI, without brackets.
    pub uri: String,
    /// Route of our INVITE to it; empty: by the configured SIP server.
    pub route: Vec<String>,
    /// An address of its family, where that is known; else our ports are of the call's.
    pub family: Option<IpAddr>,
    /// Whether every call is recorded; else those for which somebody asks.
    pub all: bool,
    /// Whether no media passes before it agrees, and the call ends where it does not, or not any more.
    pub required: bool,
}

/// What all calls share. The daemon builds a new one when an address changes; calls keep the one they began with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// Where browsers reach us, best first; at least one with `base` in each family served.
    pub candidates: Vec<LocalCandidate>,
    /// Addresses where no browser can be: ours of either side. Candidates there are passed over.
    pub own: Vec<IpAddr>,
    /// Answer checks only, never send any (RFC 8445 section 2.5).
    pub ice_lite: bool,
    /// SHA-256 over our DTLS certificate in DER (RFC 8122 section 5).
    pub fingerprint: [u8; 32],
    /// An address inside that decides the family of our ports there: the SIP server's.
    pub toward: IpAddr,
    /// Whether video that browsers and the inside offer passes.
    pub video: bool,
    /// Our side of SIP.
    pub sip: SipSettings,
    /// Where calls are recorded; `None`: nowhere.
    pub recording: Option<RecordingSettings>,
    /// How long to wait.
    pub timeouts: Timeouts,
}
