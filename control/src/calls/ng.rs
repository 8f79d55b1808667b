//! Calls under somebody else's signalling: begun, found, ended; those inside are watched, for nothing else would tell of
//! their end.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use sallyport_plan::{CallId, Command as RelayCommand, DirectionReport, Plan, Status, Zone};
use sallyport_proto::ng::{Bridge, Request, Verb};
use sallyport_proto::{
    Call, CallFailure, EndCause, Input, Policy, RestoreError, Seed, Settings, SipSettings, Timeouts,
};
use tokio::sync::oneshot;

use super::machine::Machine;
use super::settings::own;
use super::{Calls, Runtime};
use crate::config::Ice;
use crate::message::{CreateError, Created};
use crate::ng::{Ask, Described};
use crate::random;

/// How often calls inside are asked for their packets.
const WATCH: Duration = Duration::from_secs(30);

/// Bridges by the name that their signalling gives them.
#[derive(Debug, Default)]
pub struct Index {
    by_name: HashMap<String, Vec<CallId>>,
    watched: HashMap<CallId, Watched>,
    due: Option<Instant>,
}

/// A call inside: packets so far, and since when no more came.
#[derive(Debug)]
struct Watched {
    packets: u64,
    since: Instant,
}

impl Index {
    fn enter(&mut self, bridge: &Bridge) {
        self.by_name.entry(bridge.call_id().to_owned()).or_default().push(bridge.id());
        if bridge.is_plain() {
            self.watched.insert(bridge.id(), Watched { packets: 0, since: Instant::now() });
        }
    }

    /// A call has ended.
    pub fn forget(&mut self, ended: Option<&Runtime>) {
        let Some(bridge) = ended.and_then(|runtime| runtime.call.bridge()) else { return };
        self.watched.remove(&bridge.id());
        if let Some(calls) = self.by_name.get_mut(bridge.call_id()) {
            calls.retain(|id| *id != bridge.id());
            if calls.is_empty() {
                self.by_name.remove(bridge.call_id());
            }
        }
    }
}

impl Calls {
    pub(super) fn ng(&mut self, ask: Ask) {
        match ask {
            Ask::Media { request, reply } => self.ng_media(&request, reply),
            Ask::Find { request, reply } => {
                let found = self.ng_found(&request).into_iter().map(|(id, _)| id);
                let described = found.filter_map(|id| self.described(id)).collect();
                let _ = reply.send(described);
            }
            Ask::Delete { calls, delay, reply } => {
                for id in calls {
                    self.act(id, |runtime| {
                        if let Some(bridge) = runtime.call.bridge_mut() {
                            bridge.delete(Instant::now(), delay);
                        }
                    });
                }
                let _ = reply.send(());
            }
            Ask::List { limit, reply } => {
                let _ = reply.send(self.ng.by_name.keys().take(limit).cloned().collect());
            }
        }
    }

    fn ng_media(&mut self, request: &Request, reply: oneshot::Sender<Result<Created, CreateError>>) {
        let best = self.ng_found(request).into_iter().max_by_key(|(_, rank)| *rank);
        let fits = |id: CallId| self.calls.get(&id)?.call.bridge().map(|bridge| bridge.fits(request));
        let best = match best {
            Some((id, _)) if fits(id) == Some(false) => {
                self.input(id, Input::HangUp);
                None
            }
            best => best,
        };
        match best {
            Some((id, _)) => {
                let Some(runtime) = self.calls.get_mut(&id) else { return };
                if runtime.created.is_some() {
                    let _ = reply.send(Err(failed("The call is busy with another request")));
                    return;
                }
                runtime.created = Some(reply);
                self.act(id, |runtime| {
                    if let Some(bridge) = runtime.call.bridge_mut() {
                        bridge.request(Instant::now(), request);
                    }
                });
            }
            None if request.verb == Verb::Offer => match self.ng_begin(request) {
                Ok(bridge) => {
                    let id = bridge.id();
                    self.begun += 1;
                    self.ng.enter(&bridge);
                    self.calls.insert(id, Runtime::new(bridge, Some(reply)));
                    self.act(id, |_| {});
                }
                Err(error) => {
                    let _ = reply.send(Err(error));
                }
            },
            None => {
                let _ = reply.send(Err(failed("Unknown call-id")));
            }
        }
    }

    fn ng_begin(&self, request: &Request) -> Result<Bridge, CreateError> {
        if self.leaving() {
            return Err(CreateError::Draining);
        }
        if self.calls.len() >= self.config.http.max_calls {
            return Err(CreateError::Full);
        }
        let status = self.status.as_ref().ok_or(CreateError::NoRelay)?;
        let settings = self.ng_settings(status).ok_or(CreateError::NoServer)?;
        let id = CallId(u128::from_be_bytes(random::octets()));
        let created = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis());
        let created = u64::try_from(created).unwrap_or(u64::MAX);
        let options = Arc::new(self.config.ng.bridges());
        Bridge::new(id, settings, options, Seed(random::octets()), (Instant::now(), created), request)
            .map_err(|reason| failed(&reason))
    }

    /// The calls that a request means, with how sure that is.
    fn ng_found(&self, request: &Request) -> Vec<(CallId, u8)> {
        let named = self.ng.by_name.get(&request.call_id).map(Vec::as_slice).unwrap_or_default();
        let rank = |id: &CallId| Some((*id, self.calls.get(id)?.call.bridge()?.is_meant(request)?));
        let mut found: Vec<(CallId, u8)> = named.iter().filter_map(rank).collect();
        // One branch of several is meant where it is named; a BYE names none of them.
        if found.iter().any(|(_, rank)| rank & Bridge::SAME_BRANCH != 0) {
            found.retain(|(_, rank)| rank & Bridge::SAME_BRANCH != 0);
        }
        found
    }

    fn described(&self, id: CallId) -> Option<Described> {
        let bridge = self.calls.get(&id)?.call.bridge()?;
        let tags = bridge.tags().collect();
        Some(Described { id, created: bridge.created(), signalled: bridge.signalled(), tags })
    }

    /// As for calls of ours, but that nobody needs a SIP server.
    fn ng_settings(&self, status: &Status) -> Option<Arc<Settings>> {
        let inside = status.interfaces.iter().filter(|interface| interface.zone == Zone::Inside);
        let toward = *inside.flat_map(|interface| &interface.addresses).next()?;
        let none = String::new;
        Some(Arc::new(Settings {
            candidates: self.candidates(status),
            own: own(status, self.sip.local()),
            ice_lite: self.config.outside.ice == Ice::Lite,
            fingerprint: self.identity.fingerprint(),
            toward,
            video: self.config.sip.video,
            sip: SipSettings {
                domain: none(),
                user: none(),
                password: none(),
                display_name: none(),
                contact: none(),
                user_agent: none(),
                policy: Policy::default(),
            },
            recording: None,
            timeouts: Timeouts::default(),
        }))
    }

    /// The call of a plan that runs; `None` where what it needs is not configured.
    pub(super) fn restore(&mut self, plan: &Plan) -> Option<Result<Machine, RestoreError>> {
        let status = self.status.as_ref()?;
        let seed = Seed(random::octets());
        if !Bridge::is_record(&plan.record) {
            let settings = self.settings(status);
            return Some(Call::restore(plan, settings, seed, Instant::now()).map(Machine::from));
        }
        let settings = self.ng_settings(status)?;
        let restored = Bridge::restore(plan, settings, Arc::new(self.config.ng.bridges()), seed);
        if let Ok(bridge) = &restored {
            self.ng.enter(bridge);
        }
        Some(restored.map(Machine::from))
    }

    /// Asks for the packets of calls inside, and ends those that have had none for long.
    pub(super) fn ng_time(&mut self, now: Instant) {
        if self.ng.due.is_some_and(|due| due > now) || self.status.is_none() {
            return;
        }
        self.ng.due = Some(now + WATCH);
        let patience = Duration::from_secs(self.config.ng.media_timeout_s.into());
        let watched: Vec<(CallId, bool)> = self
            .ng
            .watched
            .iter()
            .map(|(id, watched)| (*id, now.saturating_duration_since(watched.since) >= patience))
            .collect();
        for (id, silent) in watched {
            let runs = self.calls.get(&id).is_some_and(|runtime| runtime.call.view().version > 0);
            if silent && runs {
                self.input(id, Input::HangUp);
            } else if runs {
                self.tell_relay(RelayCommand::Report { call: id });
            }
        }
    }

    /// What the relay tells of a call.
    pub(super) fn ng_report(&mut self, id: CallId, directions: &[DirectionReport]) {
        if let Some(watched) = self.ng.watched.get_mut(&id) {
            let packets = directions.iter().map(|direction| direction.packets).sum();
            if packets != watched.packets {
                *watched = Watched { packets, since: Instant::now() };
            }
        }
    }
}

fn failed(text: &str) -> CreateError {
    let cause = EndCause::Protocol(text.to_owned());
    CreateError::Failed(CallFailure { cause, sip_status: None, text: text.to_owned() })
}
