//! One call.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Instant;

use sallyport_plan::{CallId, Plan};

use crate::api::{CallState, CallView, Command, Input, StepState};
use crate::error::{OfferError, RestoreError};
use crate::random::Seed;
use crate::settings::Settings;

/// A browser's leg and a SIP leg, from the offer to the last BYE.
#[derive(Debug)]
pub struct Call {
    id: CallId,
    to: String,
    created: u64,
    commands: VecDeque<Command>,
}

impl Call {
    /// Begins a call with the browser's offer. `to` is whom to call: a user, `user@host` or a `sip:` URI of those;
    /// `created` is the time in milliseconds since the Unix epoch, for [`CallView`] only.
    ///
    /// # Errors
    /// [`OfferError`]; nothing has begun then.
    pub fn new(
        id: CallId,
        _settings: Arc<Settings>,
        _seed: Seed,
        to: String,
        _now: Instant,
        created: u64,
        _offer: &str,
    ) -> Result<Self, OfferError> {
        Ok(Self { id, to, created, commands: VecDeque::new() })
    }

    /// Goes on with a call that the relay runs, from the record in its plan.
    ///
    /// # Errors
    /// [`RestoreError`]; the plan should be removed then.
    pub fn restore(
        _plan: &Plan,
        _settings: Arc<Settings>,
        _seed: Seed,
        _now: Instant,
    ) -> Result<Self, RestoreError> {
        Err(RestoreError::Malformed)
    }

    /// Takes in what happened.
    pub fn handle(&mut self, _now: Instant, _input: Input) {}

    /// The next thing to do, in order.
    pub fn poll_command(&mut self) -> Option<Command> {
        self.commands.pop_front()
    }

    /// When [`Self::handle_timeout`] wants to be called, unless something happens before.
    pub fn poll_timeout(&self) -> Option<Instant> {
        None
    }

    /// Lets time pass.
    pub fn handle_timeout(&mut self, _now: Instant) {}

    /// The call as REST shows it.
    pub fn view(&self) -> CallView {
        CallView {
            id: self.id,
            state: CallState::Reserving,
            to: self.to.clone(),
            created: self.created,
            codec: None,
            ice: StepState::New,
            dtls: StepState::New,
            profile: None,
            sip_status: None,
            outside: None,
            version: 0,
        }
    }

    /// Names the call.
    pub const fn id(&self) -> CallId {
        self.id
    }

    /// Our ICE user fragment: what stands left of the colon in USERNAME of the browser's checks.
    pub fn ice_ufrag(&self) -> &str {
        ""
    }

    /// The browser's ICE user fragment.
    pub fn remote_ufrag(&self) -> &str {
        ""
    }

    /// Call-ID of the SIP leg.
    pub fn sip_call_id(&self) -> &str {
        ""
    }
}
