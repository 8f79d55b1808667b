//! A call of a former control, from the plan that the relay runs.

use std::sync::Arc;
use std::time::Instant;

use sallyport_plan::{FlowKey, Plan, Protection};

use super::Call;
use super::plan::Keys;
use super::record::Record;
use super::recording::Recording;
use super::secrecy::Secrets;
use crate::api::{CallEvent, EndCause, StepState};
use crate::error::RestoreError;
use crate::random::{Random, Seed};
use crate::relayed::Relayed;
use crate::settings::Settings;
use crate::sources::Sources;

impl Call {
    /// Goes on with a call that the relay runs, from the record in its plan. One that was answered but has no keys yet,
    /// or whose plan makes no sense, cannot go on: it comes back as one that ends, so that the called side hears a BYE.
    ///
    /// # Errors
    /// [`RestoreError`]; the plan should be removed then.
    pub fn restore(
        plan: &Plan,
        settings: Arc<Settings>,
        seed: Seed,
        now: Instant,
    ) -> Result<Self, RestoreError> {
        let record = Record::decode(&plan.record)?;
        if !record.answered {
            // An INVITE without its answer cannot be followed any more: its transaction died with the old control.
            return Err(RestoreError::Contradiction);
        }
        let (random, dialog) = (Random::new(seed), record.dialog.clone());
        let party = settings.sip.party();
        let mut call =
            Self::bare(plan.call, (record.to.clone(), party), record.created, settings, random, dialog);
        call.incoming = record.incoming;
        call.party.user.clone_from(&record.from);
        let crypto = record.crypto.clone();
        call.inside.sdes = Secrets::restored(plan, crypto, (&record.answer, record.video.profile()));
        // The ACK may have come while nobody was there.
        call.deadlines.rekeyed = call.inside.sdes.keep_back().then_some(now);
        call.fill(plan.version, record, now);
        call.inside.sources = Sources::of(plan, &call.signalled());
        match outside(plan) {
            Some((flow, keys)) => call.outside_of(plan, flow, keys),
            None => call.end(EndCause::Restarted, now),
        }
        call.recording_resumes(now);
        Ok(call)
    }

    fn fill(&mut self, version: u32, record: Record, now: Instant) {
        (self.ssrc, self.video) = (record.ssrc, record.video.restored());
        let outside = &mut self.outside;
        (outside.profile, outside.codecs) = (record.profile, record.outside);
        (outside.version, outside.direction) = (record.outside_version, record.direction);
        (outside.fingerprint, outside.identity) = (record.fingerprint, record.identity);
        (outside.setup, outside.agreed) = (record.setup, record.agreed);
        self.session = record.session;
        let inside = &mut self.inside;
        (inside.offer, inside.version) = (Some(record.inside), record.inside_version);
        (inside.answer, inside.chosen) = (Some(record.answer), record.chosen);
        (inside.answered, inside.status) = (true, record.sip_status);
        (inside.told, inside.owner) = (record.told, record.owner);
        inside.held = inside.holds();
        self.resume_timer(record.timer, now);
        self.relayed = Relayed { sent: version, installed: version, ..Relayed::default() };
        self.past = record.past;
        self.recording = Recording::restored(record.recording);
        self.replied = true;
    }

    fn outside_of(&mut self, plan: &Plan, flow: FlowKey, keys: Keys) {
        let consent = plan.consents.first().cloned();
        if let Some(consent) = &consent {
            self.outside.ufrags = (consent.local_ufrag.clone(), consent.remote_ufrag.clone());
        }
        self.outside.consent = consent;
        self.outside.nominated = Some(flow);
        self.outside.zone = flow.zone;
        // The association runs, though nobody here could speak in it.
        self.outside.dtls_begun = true;
        self.outside.dtls = StepState::Connected;
        self.outside.keys = Some(keys);
        self.relayed.complete = true;
        self.connected = true;
        // The plan with the keys went out before this could be told.
        if !self.past.contains(&CallEvent::Connected) {
            self.past.push(CallEvent::Connected);
        }
    }
}

/// The nominated pair and its keys; `None` where the plan has none, or is not one of ours.
fn outside(plan: &Plan) -> Option<(FlowKey, Keys)> {
    let [inward, outward, ..] = plan.directions.as_slice() else { return None };
    let flow = inward.ingress.first()?;
    plan.consents.first().filter(|consent| consent.flow == *flow)?;
    match (&inward.open, &outward.seal) {
        (Some(Protection::Srtp(receive)), Some(Protection::Srtp(send))) => {
            Some((*flow, Keys { receive: receive.clone(), send: send.clone() }))
        }
        _ => None,
    }
}
