//! What goes into a call and what comes out of it.

mod event;

use std::net::{IpAddr, SocketAddr};

use serde::{Deserialize, Serialize};

use sallyport_plan::{CallId, DirectionIndex, FlowKey, KeyMaterial, Plan, PortPair, Profile, Refusal, Zone};

use crate::sip::{Request, Response, TransactionId};

pub use event::CallEvent;

/// What happens to a call.
#[derive(Debug)]
pub enum Input {
    /// More candidates of the browser (RFC 8840); [`crate::sdp::parse_fragment`] makes it from a request's body.
    Trickle {
        /// Of which ICE generation; one that is not the offer's is ignored.
        ufrag: Option<String>,
        /// Values of `a=candidate`, each beginning with `candidate:`.
        candidates: Vec<String>,
        /// No more will come.
        end: bool,
    },
    /// Our side ends the call: `DELETE`, or a drain.
    HangUp,
    /// The HTTP client went away before it had an answer, be there one or not.
    Abandoned,
    /// The relay reserved what [`Command::Reserve`] asked for.
    Reserved(Vec<PortPair>),
    /// The relay runs this version of the plan.
    Installed(u32),
    /// The relay refused the reservation, or the plan in flight.
    Refused(Refusal),
    /// A STUN datagram that came with our user fragment, or on a flow of this call.
    Stun {
        /// Where it came from (`remote`) and to (`local`).
        path: FlowKey,
        /// UDP payload.
        payload: Vec<u8>,
    },
    /// The relay's consent on a nominated pair lapsed, perhaps while control was away.
    ConsentLost(FlowKey),
    /// The TCP connection of a nominated pair has ended: the browser may come by another one before consent lapses.
    Disconnected(FlowKey),
    /// A digit came as a named event (RFC 4733) of which the plan has the relay tell.
    Digit {
        /// On which direction of the plan.
        direction: DirectionIndex,
        /// Its code: 0 to 9, 10 for star, 11 for hash, 12 to 15 for A to D (RFC 4733 section 3.2).
        event: u8,
        /// How long it lasted, in milliseconds.
        duration: u16,
    },
    /// Whoever sends on this direction of the plan wants a whole picture of the other side; the relay has asked for it by RTCP.
    Picture(DirectionIndex),
    /// A peer inside is heard by this flow, which the plan does not name.
    Source(FlowKey),
    /// The relay is away: nothing can be told to it. What it runs goes on, for a while at least.
    RelayAway,
    /// The relay is back and runs this version of the plan.
    RelayBack(u32),
    /// The relay holds nothing of this call any more.
    RelayLost,
    /// The DTLS handshake ended well. No key is used before the fingerprint is found to be the offer's.
    DtlsDone {
        /// SRTP profile agreed on.
        profile: Profile,
        /// Key of what the browser sends us.
        receive: KeyMaterial,
        /// Key of what we send the browser.
        send: KeyMaterial,
        /// SHA-256 over the certificate that the browser showed, in DER.
        peer_fingerprint: [u8; 32],
    },
    /// The DTLS handshake failed; one sentence for people.
    DtlsFailed(String),
    /// The browser closed the DTLS association.
    DtlsClosed {
        /// Whether it may come back with another connection: it is signed in.
        returns: bool,
    },
    /// The handshake that [`Command::NextDtls`] began has ended well; as of [`Input::DtlsDone`].
    NextDtlsDone {
        /// SRTP profile agreed on.
        profile: Profile,
        /// Key of what the browser sends us.
        receive: KeyMaterial,
        /// Key of what we send the browser.
        send: KeyMaterial,
        /// SHA-256 over the certificate that the browser showed, in DER.
        peer_fingerprint: [u8; 32],
    },
    /// It failed, or the browser closed it; one sentence for people.
    NextDtlsFailed(String),
    /// A response to a request of ours; each retransmission of a 2xx to INVITE too, under the INVITE's transaction.
    SipResponse {
        /// The request's.
        transaction: TransactionId,
        /// The response.
        response: Response,
    },
    /// No final response came in time (RFC 3261 sections 17.1.1.2 and 17.1.2.2).
    SipTimeout(TransactionId),
    /// The request could not be sent.
    SipTransportError(TransactionId),
    /// The inside cancelled its INVITE of this number (RFC 3261 section 9.2); the CANCEL has its answer.
    SipCancelled(TransactionId),
    /// No browser takes the call that rings: the INVITE gets this status, 400..=699.
    Decline(u16),
    /// Send these digits (`0-9A-D*#`) to the inside, each so long, in milliseconds.
    Dtmf {
        /// Digits in order.
        digits: String,
        /// Length of each.
        duration: u16,
    },
    /// Send a body to the inside in an INFO (RFC 6086): user data.
    Info {
        /// Its type.
        content_type: String,
        /// Its octets.
        body: Vec<u8>,
    },
    /// Transfer the inside to somebody else (RFC 5589).
    Transfer(Transfer),
    /// Have the call recorded, or not any more; what becomes of it is told as [`CallEvent::Recording`].
    Record(Recorded),
    /// A request with our Call-ID; ACK to a 2xx of ours as well, whose transaction is not answered.
    SipRequest {
        /// The daemon's number for it.
        transaction: TransactionId,
        /// The request.
        request: Request,
    },
}

/// Who is to get copies of a call's sound.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Recorded {
    /// The configured recorder, which is invited (RFC 7866).
    Server,
    /// These addresses, without a word: RTP of the browser's sound and of the far end's, RTCP one port above each.
    To([SocketAddr; 2]),
    /// Nobody any more.
    Stop,
}

/// Where a transfer leads to (RFC 5589).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Transfer {
    /// Blind: a user, `user@host`, or a `sip:` URI of those.
    To(String),
    /// Attended: the far end of another call of the same browser (RFC 3891).
    Onto(Replaces),
}

/// Names a dialog to be replaced, as its far end sees it (RFC 3891 section 6.1).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Replaces {
    /// The far end's Contact.
    pub uri: String,
    /// Call-ID of that dialog.
    pub call_id: String,
    /// The far end's tag.
    pub to_tag: String,
    /// Ours.
    pub from_tag: String,
}

/// Who calls: their number and name, and what answers challenges.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Party {
    /// User part of From, and user name of digest authentication.
    pub user: String,
    /// Display name; may be empty.
    pub display_name: String,
    /// Password of digest authentication; empty: a challenge ends the call.
    pub password: String,
}

impl std::fmt::Debug for Party {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Party").field("user", &self.user).finish_non_exhaustive()
    }
}

/// A call that a browser places.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Placing {
    /// Whom to call: a user, `user@host` or a `sip:` URI of those.
    pub to: String,
    /// Who calls; `None`: [`crate::SipSettings`] says.
    pub from: Option<Party>,
    /// At which interface the browser is.
    pub zone: Zone,
    /// Route headers of the INVITE; empty: it goes to the configured server.
    pub route: Vec<String>,
    /// More headers of the INVITE: user data that the configuration lets pass.
    pub headers: Vec<(String, String)>,
}

/// Who sends the ClientHello (RFC 5763 section 5).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DtlsRole {
    /// We do.
    Active,
    /// The browser does.
    Passive,
}

/// Begin a DTLS handshake.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DtlsStart {
    /// Our role.
    pub role: DtlsRole,
    /// The flow that it runs on until [`Command::DtlsPath`] names another.
    pub path: FlowKey,
}

/// What a call wants done, in this order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    /// Reserve port pairs inside. Comes back as [`Input::Reserved`] or [`Input::Refused`].
    Reserve {
        /// Decides the family.
        toward: IpAddr,
        /// How many.
        pairs: u8,
    },
    /// Install this plan. Comes back as [`Input::Installed`] or [`Input::Refused`]. One is in flight at a time.
    Install(Plan),
    /// Have the relay send digits as named events on a direction of the plan. Nothing comes back.
    Dial {
        /// On which one.
        direction: DirectionIndex,
        /// Codes as of [`Input::Digit`], and milliseconds.
        digits: Vec<(u8, u16)>,
    },
    /// Have the relay ask whoever sends on a direction of the plan for a whole picture, by RTCP. Nothing comes back.
    Picture {
        /// Which one.
        direction: DirectionIndex,
    },
    /// Remove the call from the relay. Nothing has to come back.
    Remove,
    /// Send a STUN datagram.
    Send {
        /// From `local` to `remote`.
        path: FlowKey,
        /// UDP payload.
        payload: Vec<u8>,
    },
    /// Begin DTLS. Once per call.
    Dtls(DtlsStart),
    /// DTLS goes on by another flow.
    DtlsPath(FlowKey),
    /// Send close_notify and drop the DTLS state.
    DtlsClose,
    /// Begin DTLS with another connection of the browser, beside the association that runs (RFC 8842 section 5.5). Once before
    /// [`Command::NextDtlsSucceeds`] or [`Command::NextDtlsClose`].
    NextDtls(DtlsStart),
    /// That goes on by another flow.
    NextDtlsPath(FlowKey),
    /// It takes the place of the association that runs, if any does, which gets a close_notify.
    NextDtlsSucceeds,
    /// Send close_notify on it and drop it.
    NextDtlsClose,
    /// Send a request in a new client transaction. An INVITE without a tag in To goes to the configured server.
    Sip {
        /// Names the transaction.
        transaction: TransactionId,
        /// The request.
        request: Request,
    },
    /// Cancel an INVITE (RFC 3261 section 9.1): the branch of its Via is the INVITE's. Its own response is of no
    /// interest; the INVITE's is.
    SipCancel {
        /// The INVITE's transaction.
        invite: TransactionId,
        /// The CANCEL.
        request: Request,
    },
    /// Send an ACK to a 2xx: no transaction, never retransmitted by itself.
    SipAck(Request),
    /// Answer a request; to an INVITE also more than once, the final answer last. A 2xx to INVITE is retransmitted by the daemon until the ACK (RFC 3261 section 13.3.1.4).
    SipReply {
        /// The daemon's number of the request.
        transaction: TransactionId,
        /// The response.
        response: Response,
    },
    /// The browser's answer, an SDP. A call gives exactly one `Answer` or one `Fail`.
    Answer(String),
    /// There will be no answer.
    Fail(CallFailure),
    /// Our answer to another offer of the browser in the middle of a call ([`crate::Call::renegotiate`]), an SDP.
    Renegotiated(String),
    /// Tell those who watch the call.
    Notify(CallEvent),
    /// The last command: the call can be forgotten.
    Ended,
}

/// Why a call ended, or never began.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum EndCause {
    /// Our side hung up.
    HangUp,
    /// The other side hung up.
    RemoteHangUp,
    /// The HTTP client went away before the answer.
    Abandoned,
    /// The called side refused with this final status.
    Rejected(u16),
    /// Nobody answered in time.
    RingTimeout,
    /// The SIP server did not answer, or could not be reached.
    SipUnreachable,
    /// The other side broke the protocol; one sentence for people.
    Protocol(String),
    /// Offer and answer have no codec in common.
    NoCodec,
    /// No pair of addresses worked in time (RFC 8445).
    IceTimeout,
    /// The browser stopped answering checks (RFC 7675).
    ConsentLost,
    /// The DTLS handshake failed or took too long; one sentence for people.
    DtlsFailed(String),
    /// The browser's certificate is not the one that its offer named.
    FingerprintMismatch,
    /// The browser closed the DTLS association.
    DtlsClosed,
    /// The relay refused a reservation or a plan.
    Refused(Refusal),
    /// The relay did not answer, or lost the call.
    RelayLost,
    /// Control was replaced while the call was being set up.
    Restarted,
    /// The calling side inside gave up before an answer.
    Cancelled,
    /// No browser took the call.
    Declined,
    /// The far end was transferred and talks to somebody else.
    Transferred,
    /// It could not be recorded, or not any more, and may not go on unrecorded.
    NotRecorded,
}

impl EndCause {
    /// Snake case and stable, for REST and metrics.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::HangUp => "hang_up",
            Self::RemoteHangUp => "remote_hang_up",
            Self::Abandoned => "abandoned",
            Self::Rejected(_) => "rejected",
            Self::RingTimeout => "ring_timeout",
            Self::SipUnreachable => "sip_unreachable",
            Self::Protocol(_) => "protocol",
            Self::NoCodec => "no_codec",
            Self::IceTimeout => "ice_timeout",
            Self::ConsentLost => "consent_lost",
            Self::DtlsFailed(_) => "dtls_failed",
            Self::FingerprintMismatch => "fingerprint_mismatch",
            Self::DtlsClosed => "dtls_closed",
            Self::Refused(_) => "relay_refused",
            Self::RelayLost => "relay_lost",
            Self::Restarted => "control_restarted",
            Self::Cancelled => "cancelled",
            Self::Declined => "declined",
            Self::Transferred => "transferred",
            Self::NotRecorded => "not_recorded",
        }
    }

    /// One sentence for people, without addresses or secrets.
    pub fn text(&self) -> String {
        match self {
            Self::HangUp => "the call was hung up".to_owned(),
            Self::RemoteHangUp => "the other side hung up".to_owned(),
            Self::Abandoned => "the client went away before the answer".to_owned(),
            Self::Rejected(status) => format!("the called side answered {status}"),
            Self::RingTimeout => "nobody answered in time".to_owned(),
            Self::SipUnreachable => "the SIP server does not answer".to_owned(),
            Self::Protocol(text) => text.clone(),
            Self::NoCodec => "the two sides have no codec in common".to_owned(),
            Self::IceTimeout => "no network path to the browser was found in time".to_owned(),
            Self::ConsentLost => "the browser stopped answering".to_owned(),
            Self::DtlsFailed(text) => format!("the DTLS handshake failed: {text}"),
            Self::FingerprintMismatch => {
                "the browser's certificate is not the one its offer named".to_owned()
            }
            Self::DtlsClosed => "the browser closed the media association".to_owned(),
            Self::Refused(refusal) => format!("the relay refused: {}", refusal.text()),
            Self::RelayLost => "the relay does not hold the call".to_owned(),
            Self::Restarted => "control was replaced while the call was being set up".to_owned(),
            Self::Cancelled => "the caller gave up".to_owned(),
            Self::Declined => "the call was declined".to_owned(),
            Self::Transferred => "the call was transferred".to_owned(),
            Self::NotRecorded => "the call cannot be recorded".to_owned(),
        }
    }
}

/// Why there is no answer for the browser.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CallFailure {
    /// Why.
    pub cause: EndCause,
    /// The final SIP status, where there was one.
    pub sip_status: Option<u16>,
    /// One sentence for people.
    pub text: String,
}

impl CallFailure {
    /// HTTP status of the problem document (RFC 9457).
    pub const fn http_status(&self) -> u16 {
        match self.cause {
            EndCause::Rejected(_) | EndCause::Protocol(_) | EndCause::NoCodec | EndCause::RemoteHangUp => 502,
            EndCause::RingTimeout | EndCause::SipUnreachable => 504,
            EndCause::Refused(_)
            | EndCause::RelayLost
            | EndCause::Restarted
            | EndCause::HangUp
            | EndCause::Cancelled
            | EndCause::Declined
            | EndCause::Transferred
            | EndCause::NotRecorded
            | EndCause::Abandoned => 503,
            EndCause::IceTimeout
            | EndCause::ConsentLost
            | EndCause::DtlsFailed(_)
            | EndCause::FingerprintMismatch
            | EndCause::DtlsClosed => 500,
        }
    }
}

/// Where a call stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum CallState {
    /// Ports are being reserved.
    Reserving,
    /// The INVITE is out.
    Calling,
    /// The called side rings.
    Ringing,
    /// The browser has its answer; the called side has not answered yet.
    Early,
    /// The called side answered; media does not pass yet.
    Answered,
    /// Media passes.
    Connected,
    /// Over, but for the last SIP messages.
    Ending,
    /// Over.
    Ended,
}

impl CallState {
    /// Snake case, for REST.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Reserving => "reserving",
            Self::Calling => "calling",
            Self::Ringing => "ringing",
            Self::Early => "early",
            Self::Answered => "answered",
            Self::Connected => "connected",
            Self::Ending => "ending",
            Self::Ended => "ended",
        }
    }
}

/// Where ICE or DTLS stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum StepState {
    /// Not begun.
    New,
    /// Under way.
    Checking,
    /// Done and in use.
    Connected,
    /// Failed or closed.
    Failed,
}

impl StepState {
    /// Snake case, for REST.
    pub const fn name(self) -> &'static str {
        match self {
            Self::New => "new",
            Self::Checking => "checking",
            Self::Connected => "connected",
            Self::Failed => "failed",
        }
    }
}

/// A call as REST shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CallView {
    /// Its name.
    pub id: CallId,
    /// Where it stands.
    pub state: CallState,
    /// Whether it came from the inside.
    pub incoming: bool,
    /// Who calls: a number.
    pub from: String,
    /// Whom it calls, as asked for.
    pub to: String,
    /// When it began, in milliseconds since the Unix epoch.
    pub created: u64,
    /// Codec, as in `a=rtpmap`, e.g. `PCMU/8000`; `None` before an answer.
    pub codec: Option<String>,
    /// Encoding of the picture, e.g. `VP8/90000`; `None` without one.
    pub video: Option<String>,
    /// ICE outside.
    pub ice: StepState,
    /// DTLS outside.
    pub dtls: StepState,
    /// SRTP profile outside.
    pub profile: Option<Profile>,
    /// Whether copies of its sound are sent.
    pub recording: bool,
    /// Last status of the INVITE.
    pub sip_status: Option<u16>,
    /// The browser's address of the nominated pair.
    pub outside: Option<SocketAddr>,
    /// Version of the plan that runs; 0 before the first.
    pub version: u32,
}
