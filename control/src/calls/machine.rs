//! The state machine of a call: with signalling of ours, or under that of somebody else.

use std::time::Instant;

use sallyport_plan::{CallId, Zone};
use sallyport_proto::ng::Bridge;
use sallyport_proto::sip::{Request, Response, TransactionId};
use sallyport_proto::{AcceptError, Call, CallEvent, CallView, Command, Input, Recorded, Replaces, Wanted};

/// One or the other.
pub enum Machine {
    /// REST and SIP.
    Call(Box<Call>),
    /// NG.
    Bridge(Box<Bridge>),
}

impl From<Call> for Machine {
    fn from(call: Call) -> Self {
        Self::Call(Box::new(call))
    }
}

impl From<Bridge> for Machine {
    fn from(bridge: Bridge) -> Self {
        Self::Bridge(Box::new(bridge))
    }
}

impl Machine {
    /// The bridge, if it is one.
    pub fn bridge(&self) -> Option<&Bridge> {
        match self {
            Self::Call(_) => None,
            Self::Bridge(bridge) => Some(bridge),
        }
    }

    /// The bridge, if it is one.
    pub fn bridge_mut(&mut self) -> Option<&mut Bridge> {
        match self {
            Self::Call(_) => None,
            Self::Bridge(bridge) => Some(bridge),
        }
    }

    pub fn id(&self) -> CallId {
        match self {
            Self::Call(call) => call.id(),
            Self::Bridge(bridge) => bridge.id(),
        }
    }

    pub fn handle(&mut self, now: Instant, input: Input) {
        match self {
            Self::Call(call) => call.handle(now, input),
            Self::Bridge(bridge) => bridge.handle(now, input),
        }
    }

    pub fn poll_command(&mut self) -> Option<Command> {
        match self {
            Self::Call(call) => call.poll_command(),
            Self::Bridge(bridge) => bridge.poll_command(),
        }
    }

    pub fn poll_timeout(&self) -> Option<Instant> {
        match self {
            Self::Call(call) => call.poll_timeout(),
            Self::Bridge(bridge) => bridge.poll_timeout(),
        }
    }

    pub fn handle_timeout(&mut self, now: Instant) {
        match self {
            Self::Call(call) => call.handle_timeout(now),
            Self::Bridge(bridge) => bridge.handle_timeout(now),
        }
    }

    pub fn view(&self) -> CallView {
        match self {
            Self::Call(call) => call.view(),
            Self::Bridge(bridge) => bridge.view(),
        }
    }

    /// What those who watch were told.
    pub fn past(&self) -> &[CallEvent] {
        match self {
            Self::Call(call) => call.past(),
            Self::Bridge(bridge) => bridge.past(),
        }
    }

    pub fn outlives_control(&self) -> bool {
        match self {
            Self::Call(call) => call.outlives_control(),
            Self::Bridge(bridge) => bridge.outlives_control(),
        }
    }

    /// See [`Call::may_record`]; bridges' owners have recorders of their own.
    pub fn may_record(&self, wish: &Recorded) -> Result<(), bool> {
        match self {
            Self::Call(call) => call.may_record(wish),
            Self::Bridge(_) => Err(true),
        }
    }

    pub fn waits_for_relay(&self) -> bool {
        match self {
            Self::Call(call) => call.waits_for_relay(),
            Self::Bridge(bridge) => bridge.waits_for_relay(),
        }
    }

    pub fn ice_ufrag(&self) -> &str {
        match self {
            Self::Call(call) => call.ice_ufrag(),
            Self::Bridge(bridge) => bridge.ice_ufrag(),
        }
    }

    /// A browser takes a call that rings.
    ///
    /// # Errors
    /// [`AcceptError`].
    pub fn accept(&mut self, offer: &str, zone: Zone) -> Result<(), AcceptError> {
        match self {
            Self::Call(call) => call.accept(offer, zone, Instant::now()),
            Self::Bridge(_) => Err(AcceptError::Gone),
        }
    }

    /// Our offer to browsers that the call rings at.
    ///
    /// # Errors
    /// [`AcceptError`].
    pub fn offer(&mut self, zone: Zone) -> Result<String, AcceptError> {
        match self {
            Self::Call(call) => call.offer(zone),
            Self::Bridge(_) => Err(AcceptError::Gone),
        }
    }

    /// A browser takes a call that rings by its answer to our offer.
    ///
    /// # Errors
    /// [`AcceptError`].
    pub fn take(&mut self, answer: &str, zone: Zone) -> Result<(), AcceptError> {
        match self {
            Self::Call(call) => call.take(answer, zone, Instant::now()),
            Self::Bridge(_) => Err(AcceptError::Gone),
        }
    }

    /// The browser offers anew.
    ///
    /// # Errors
    /// [`AcceptError`].
    pub fn renegotiate(&mut self, offer: &str) -> Result<(), AcceptError> {
        match self {
            Self::Call(call) => call.renegotiate(offer, Instant::now()),
            Self::Bridge(_) => Err(AcceptError::Gone),
        }
    }

    /// Our tag of the SIP leg; empty for a bridge.
    pub fn sip_tag(&self) -> &str {
        match self {
            Self::Call(call) => call.sip_tag(),
            Self::Bridge(_) => "",
        }
    }

    /// Whether a dialog of the SIP leg has this Call-ID; those of a bridge are not ours to answer.
    pub fn has_call_id(&self, call_id: &str) -> bool {
        match self {
            Self::Call(call) => call.has_call_id(call_id),
            Self::Bridge(_) => false,
        }
    }

    /// Our user fragment of an ICE restart under way.
    pub fn next_ufrag(&self) -> Option<&str> {
        match self {
            Self::Call(call) => call.next_ufrag(),
            Self::Bridge(_) => None,
        }
    }

    /// Names the SIP leg for a transfer onto it.
    pub fn replaces(&self) -> Option<Replaces> {
        match self {
            Self::Call(call) => call.replaces(),
            Self::Bridge(_) => None,
        }
    }

    /// An INVITE that takes the place of the SIP leg.
    ///
    /// # Errors
    /// Its refusal.
    pub fn replace(
        &mut self,
        wanted: &Wanted,
        transaction: TransactionId,
        request: &Request,
    ) -> Result<(), Box<Response>> {
        match self {
            Self::Call(call) => call.replace(wanted, transaction, request, Instant::now()),
            Self::Bridge(_) => {
                Err(Box::new(Response::to_request(request, 481, "Call/Transaction Does Not Exist")))
            }
        }
    }
}
