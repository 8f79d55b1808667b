//! What others may know of a call.

use sallyport_plan::CallId;

use super::Call;
use super::inside::Calling;
use crate::api::{CallEvent, CallState, CallView, StepState};

impl Call {
    /// The call as REST shows it.
    pub fn view(&self) -> CallView {
        let outside = &self.outside;
        let sound = self.inside.chosen.iter().find(|codec| codec.kind.is_sound());
        CallView {
            id: self.id,
            state: self.state(),
            incoming: self.incoming,
            from: self.party.user.clone(),
            to: self.to.clone(),
            created: self.created,
            codec: sound.map(|codec| codec.kind.rtpmap().to_owned()),
            video: self.video.name().map(str::to_owned),
            ice: match (&outside.nominated, self.replied) {
                (Some(_), _) => StepState::Connected,
                (None, true) => StepState::Checking,
                (None, false) => StepState::New,
            },
            dtls: outside.dtls,
            profile: outside.profile,
            recording: self.recording.is_on(),
            sip_status: self.inside.status,
            outside: outside.nominated.map(|flow| flow.remote),
            version: self.relayed.installed,
        }
    }

    fn state(&self) -> CallState {
        if self.over {
            CallState::Ended
        } else if self.cause.is_some() {
            CallState::Ending
        } else if self.connected {
            CallState::Connected
        } else if self.inside.answered {
            CallState::Answered
        } else if self.replied {
            CallState::Early
        } else if self.rang || self.inside.invited.is_some() {
            CallState::Ringing
        } else if self.inside.invite.as_ref().is_some_and(Calling::is_sent) {
            CallState::Calling
        } else {
            CallState::Reserving
        }
    }

    /// What those who watch were told so far, by a former control as well.
    pub fn past(&self) -> &[CallEvent] {
        &self.past
    }

    /// Whether the inside, whose call rings here, offers a picture that a browser may take.
    pub fn rings_with_picture(&self) -> bool {
        let offer = self.inside.invited.as_ref().and_then(|invited| invited.offer.as_ref());
        self.pairs(true) > 1 && offer.is_some_and(|offer| offer.video.is_some())
    }

    /// Whether media goes on, and another control can go on with the call, should this one end.
    pub const fn outlives_control(&self) -> bool {
        self.connected && self.cause.is_none()
    }

    /// Whether it waits for a relay that is away.
    pub const fn waits_for_relay(&self) -> bool {
        self.relayed.away
    }

    /// Names the call.
    pub const fn id(&self) -> CallId {
        self.id
    }

    /// Our tag of the call's first SIP dialog: those of others are this, a hyphen and a number.
    pub fn sip_tag(&self) -> &str {
        let tag = self.inside.dialog.local_tag();
        tag.split_once('-').map_or(tag, |(base, _)| base)
    }

    /// Our ICE user fragment: what stands left of the colon in USERNAME of the browser's checks.
    pub fn ice_ufrag(&self) -> &str {
        &self.outside.ufrags.0
    }

    /// The browser's ICE user fragment.
    pub fn remote_ufrag(&self) -> &str {
        &self.outside.ufrags.1
    }

    /// Whether one of its SIP dialogs has this Call-ID.
    pub fn has_call_id(&self, call_id: &str) -> bool {
        if self.records_as(call_id) {
            return true;
        }
        let inside = &self.inside;
        let referred = inside.referral.iter().map(|referral| &referral.calling.dialog);
        inside.former.iter().chain(referred).chain([&inside.dialog]).any(|dialog| dialog.call_id == call_id)
    }
}
