//! Registrations with the SIP server: one per number that is signed in, and sign-ins that wait for what the server says.

use std::collections::{BTreeMap, HashMap};
use std::time::{Duration, Instant};

use sallyport_plan::CallId;
use sallyport_proto::{
    Party, Registration, RegistrationCommand, RegistrationSettings, RegistrationState, Seed,
};
use subtle::ConstantTimeEq;
use tokio::sync::oneshot;

use super::Calls;
use crate::message::{SessionEvent, SignIn, SignInError, SignedIn, SipEvent};
use crate::random;

/// Within which time numbers are registered anew when the SIP servers have changed; the more there are, the longer.
const RENEWAL: Duration = Duration::from_secs(1);
const RENEWAL_EACH: Duration = Duration::from_millis(10);

/// Answers a sign-in.
type Reply = oneshot::Sender<Result<SignedIn, SignInError>>;

/// One number.
#[derive(Debug)]
struct Entry {
    machine: Registration,
    /// Sign-ins that wait for the first outcome.
    waiting: Vec<(SignIn, Reply)>,
}

/// All numbers that are registered, or about to be.
#[derive(Debug, Default)]
pub struct Registrations {
    /// Each has a name as calls have one: SIP knows it as the owner of its transactions.
    all: HashMap<CallId, Entry>,
    numbers: HashMap<String, CallId>,
}

impl Registrations {
    /// Whether none is left.
    pub fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    /// How many there are by state.
    pub fn states(&self) -> Vec<(&'static str, u64)> {
        let mut states: BTreeMap<&'static str, u64> = BTreeMap::new();
        for entry in self.all.values() {
            *states.entry(entry.machine.state().name()).or_default() += 1;
        }
        states.into_iter().collect()
    }
}

/// What a password says about a sign-in.
enum Verdict {
    Right,
    Wrong,
    Ask,
}

impl Calls {
    /// Whether numbers are registered.
    fn registers(&self) -> bool {
        self.config.agents.register.unwrap_or(!self.config.sip.server.is_empty())
    }

    pub(super) fn sign_in(&mut self, sign_in: SignIn, reply: Reply) {
        let room = if self.leaving() { Err(SignInError::Draining) } else { self.sessions.has_room(&sign_in) };
        if let Err(error) = room {
            // Whoever is gone by now has signed in nowhere.
            let _ = reply.send(Err(error));
            return;
        }
        let Some(party) = sign_in.party.clone().filter(|_| self.registers()) else {
            return self.let_in(sign_in, reply);
        };
        let verdict = if sign_in.verify { self.verdict(&party) } else { Verdict::Right };
        match verdict {
            Verdict::Right => {
                self.let_in(sign_in, reply);
                self.register(party, None);
            }
            Verdict::Ask => self.register(party, Some((sign_in, reply))),
            Verdict::Wrong => {
                let _ = reply.send(Err(SignInError::Refused { status: None }));
            }
        }
    }

    fn let_in(&mut self, sign_in: SignIn, reply: Reply) {
        let outcome = self.sessions.sign_in(sign_in);
        if let Err(Ok(unheard)) = reply.send(outcome) {
            self.sign_out(unheard.id);
        }
    }

    /// A password is compared with the one that the server has taken, or waits beside the same one; another one is not
    /// tried while that one works, lest strangers undo a registration.
    fn verdict(&self, party: &Party) -> Verdict {
        let entry = self.registrations.numbers.get(&party.user).and_then(|id| self.registrations.all.get(id));
        let Some(entry) = entry else { return Verdict::Ask };
        let known = entry.machine.party().password.as_bytes();
        let same = bool::from(known.ct_eq(party.password.as_bytes()));
        match entry.machine.state() {
            RegistrationState::Registered if same => Verdict::Right,
            RegistrationState::Registered | RegistrationState::Registering if !same => Verdict::Wrong,
            _ => Verdict::Ask,
        }
    }

    /// A number rings at a browser again that it did not ring at for a while.
    pub(super) fn register_again(&mut self, party: Party) {
        if self.registers() && !self.leaving() {
            self.register(party, None);
        }
    }

    fn register(&mut self, party: Party, waits: Option<(SignIn, Reply)>) {
        let id = match self.registrations.numbers.get(&party.user).copied() {
            Some(id) => {
                if let Some(entry) = self.registrations.all.get_mut(&id) {
                    entry.waiting.extend(waits);
                    entry.machine.want(&party.password);
                }
                id
            }
            None => {
                let id = CallId(u128::from_be_bytes(random::octets()));
                let number = party.user.clone();
                let machine = Registration::new(self.registration_settings(), party, Seed(random::octets()));
                self.registrations.all.insert(id, Entry { machine, waiting: waits.into_iter().collect() });
                self.registrations.numbers.insert(number, id);
                id
            }
        };
        self.work(id);
    }

    fn registration_settings(&self) -> RegistrationSettings {
        RegistrationSettings {
            domain: self.sip_domain(),
            place: self.sip_place(),
            expires: Duration::from_secs(self.config.agents.expires_s.into()),
            user_agent: concat!("sallyport/", env!("CARGO_PKG_VERSION")).into(),
        }
    }

    /// Does what a registration wants done.
    fn work(&mut self, id: CallId) {
        while let Some(command) =
            self.registrations.all.get_mut(&id).and_then(|entry| entry.machine.poll_command())
        {
            match command {
                RegistrationCommand::Send { transaction, request } => {
                    self.sip.request(id, transaction, *request);
                }
                RegistrationCommand::State(state) => self.registration_is(id, state),
            }
        }
    }

    fn registration_is(&mut self, id: CallId, state: RegistrationState) {
        let Some(entry) = self.registrations.all.get_mut(&id) else { return };
        let number = entry.machine.party().user.clone();
        tracing::debug!(number, state = state.name(), "registration");
        for session in self.sessions.by_number(&number) {
            self.sessions.tell(*session, SessionEvent::Registration { state });
        }
        let waiting = match state {
            RegistrationState::Registering | RegistrationState::Unregistering => return,
            _ => std::mem::take(&mut entry.waiting),
        };
        for (sign_in, reply) in waiting {
            match state {
                RegistrationState::Registered => self.let_in(sign_in, reply),
                RegistrationState::Failed { status } if state.is_refusal() => {
                    let _ = reply.send(Err(SignInError::Refused { status }));
                }
                _ => {
                    let _ = reply.send(Err(SignInError::Unreachable));
                }
            }
        }
        if state == RegistrationState::Ended {
            self.registrations.all.remove(&id);
            self.registrations.numbers.remove(&number);
            self.settle();
        } else {
            self.unregister_if_unused(&number);
        }
    }

    /// Takes a number back with which nobody is signed in, or about to be.
    pub(super) fn unregister_if_unused(&mut self, number: &str) {
        let Some(id) = self.registrations.numbers.get(number).copied() else { return };
        let Some(entry) = self.registrations.all.get_mut(&id) else { return };
        entry.waiting.retain(|(_, reply)| !reply.is_closed());
        if self.sessions.by_number(number).is_empty() && entry.waiting.is_empty() {
            entry.machine.unwant();
            self.work(id);
        }
    }

    /// Takes all numbers back: we end.
    pub(super) fn unregister_all(&mut self) {
        let all: Vec<CallId> = self.registrations.all.keys().copied().collect();
        for id in all {
            if let Some(entry) = self.registrations.all.get_mut(&id) {
                for (_, reply) in entry.waiting.drain(..) {
                    let _ = reply.send(Err(SignInError::Draining));
                }
                entry.machine.unwant();
            }
            self.work(id);
        }
    }

    /// The SIP servers are not what they were: each number is registered anew, soon, wherever REGISTER goes now.
    fn renew_all(&mut self, now: Instant) {
        let within = RENEWAL + RENEWAL_EACH * u32::try_from(self.registrations.all.len()).unwrap_or(u32::MAX);
        for entry in self.registrations.all.values_mut() {
            entry.machine.renew(now, within);
        }
    }

    /// What SIP says of a registration; gives back what it says of a call.
    pub(super) fn registration_event(&mut self, event: SipEvent) -> Option<SipEvent> {
        let (SipEvent::Response { call: id, .. }
        | SipEvent::Timeout { call: id, .. }
        | SipEvent::TransportError { call: id, .. }) = &event
        else {
            if matches!(event, SipEvent::PeersChanged) {
                self.renew_all(Instant::now());
                return None;
            }
            return Some(event);
        };
        let id = *id;
        let Some(entry) = self.registrations.all.get_mut(&id) else { return Some(event) };
        let now = Instant::now();
        match event {
            SipEvent::Response { transaction, response, .. } => {
                entry.machine.handle_response(now, transaction, &response);
            }
            SipEvent::Timeout { transaction, .. } | SipEvent::TransportError { transaction, .. } => {
                entry.machine.handle_lost(now, transaction);
            }
            _ => {}
        }
        self.work(id);
        None
    }

    /// Lets time pass for all of them.
    pub(super) fn registration_time(&mut self, now: Instant) {
        let due = |entry: &Entry| entry.machine.poll_timeout().is_some_and(|at| at <= now);
        let due: Vec<CallId> =
            self.registrations.all.iter().filter(|(_, entry)| due(entry)).map(|(id, _)| *id).collect();
        for id in due {
            if let Some(entry) = self.registrations.all.get_mut(&id) {
                entry.machine.handle_timeout(now);
            }
            self.work(id);
        }
    }
}
