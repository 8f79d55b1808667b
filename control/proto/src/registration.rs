//! A directory number's registration with the SIP server (RFC 3261 section 10), sans-IO as a call is.
//!
//! One per number, however many browsers are signed in with it. It registers at once, refreshes in time, answers
//! challenges, waits as it is told or longer and longer (RFC 5626 section 4.5), and un-registers in the end.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use crate::api::Party;
use crate::random::{Random, Seed};
use crate::sip::header::uri_of;
use crate::sip::{Account, Attempts, Credentials, Method, Request, Response, TransactionId};

/// First and longest wait after a failure (RFC 5626 section 4.5).
const WAIT_FIRST: Duration = Duration::from_secs(30);
const WAIT_MAX: Duration = Duration::from_secs(1800);
/// Wait after a refusal of the number or its password: asking again does not help, and may lock the number.
const WAIT_REFUSED: Duration = Duration::from_secs(600);
/// Longest Retry-After that is obeyed, and longest expiry that is taken.
const RETRY_MAX: u64 = 3600;
const EXPIRES_MAX: u64 = 86_400;
/// Shortest time to a refresh.
const REFRESH_MIN: Duration = Duration::from_secs(1);

/// What a registration takes from the configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RegistrationSettings {
    /// Host part of URIs: `example.com` or `10.0.0.5:5060`.
    pub domain: String,
    /// Our own place, behind the number and an `@` in Contact: `10.0.0.1:5060;transport=tcp`.
    pub place: String,
    /// How long a registration is asked for.
    pub expires: Duration,
    /// Value of User-Agent.
    pub user_agent: String,
}

/// Where a registration stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum RegistrationState {
    /// The first REGISTER, or the first after a failure, is under way.
    Registering,
    /// The SIP server has taken it.
    Registered,
    /// It has not; another attempt comes.
    Failed {
        /// Final status; `None`: no answer.
        status: Option<u16>,
    },
    /// The last REGISTER is under way.
    Unregistering,
    /// Over.
    Ended,
}

impl RegistrationState {
    /// Snake case, for REST and metrics.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Registering => "registering",
            Self::Registered => "registered",
            Self::Failed { .. } => "failed",
            Self::Unregistering => "unregistering",
            Self::Ended => "ended",
        }
    }

    /// Whether the SIP server refused the number or its password, rather than the moment.
    pub const fn is_refusal(self) -> bool {
        matches!(self, Self::Failed { status: Some(401 | 403 | 404 | 405 | 407 | 410 | 416 | 484 | 604) })
    }
}

/// What a registration wants done, in this order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RegistrationCommand {
    /// Send a REGISTER in a new client transaction.
    Send {
        /// Its number.
        transaction: TransactionId,
        /// The request.
        request: Box<Request>,
    },
    /// It stands elsewhere now. After [`RegistrationState::Ended`] it can be forgotten.
    State(RegistrationState),
}

/// One number's registration.
#[derive(Debug)]
pub struct Registration {
    settings: RegistrationSettings,
    party: Party,
    random: Random,
    call_id: String,
    tag: String,
    cseq: u32,
    next: u64,
    credentials: Credentials,
    attempts: Attempts,
    expires: Duration,
    state: RegistrationState,
    /// Whether the server may hold a binding of ours.
    bound: bool,
    /// Whether the number is to be registered.
    wanted: bool,
    /// The REGISTER under way, and whether it takes the binding away.
    pending: Option<(TransactionId, bool)>,
    failures: u32,
    due: Option<Instant>,
    commands: VecDeque<RegistrationCommand>,
}

impl Registration {
    /// Registers at once.
    pub fn new(settings: RegistrationSettings, party: Party, seed: Seed) -> Self {
        let mut random = Random::new(seed);
        let (call_id, tag) = (random.hex(16), random.hex(8));
        let expires = settings.expires;
        let mut registration = Self {
            settings,
            party,
            random,
            call_id,
            tag,
            cseq: 0,
            next: 0,
            credentials: Credentials::default(),
            attempts: Attempts::default(),
            expires,
            state: RegistrationState::Registering,
            bound: false,
            wanted: true,
            pending: None,
            failures: 0,
            due: None,
            commands: VecDeque::new(),
        };
        registration.begin();
        registration
    }

    /// Where it stands.
    pub const fn state(&self) -> RegistrationState {
        self.state
    }

    /// Whose it is.
    pub const fn party(&self) -> &Party {
        &self.party
    }

    /// What is to be done next, if anything is.
    pub fn poll_command(&mut self) -> Option<RegistrationCommand> {
        self.commands.pop_front()
    }

    /// When time has to pass.
    pub const fn poll_timeout(&self) -> Option<Instant> {
        self.due
    }

    /// Time has passed: a refresh, or another attempt.
    pub fn handle_timeout(&mut self, now: Instant) {
        if self.due.is_some_and(|due| due <= now) && self.pending.is_none() {
            self.begin();
        }
    }

    /// What the server holds is uncertain: it is told anew at some moment within this time, or sooner where that is due.
    /// What failed is tried again as well, but for refusals.
    pub fn renew(&mut self, now: Instant, within: Duration) {
        let waits = matches!(self.state, RegistrationState::Registered | RegistrationState::Failed { .. });
        if !self.wanted || !waits || self.state.is_refusal() {
            return;
        }
        let at = now + within.mul_f64(f64::from(self.random.u32()) / f64::from(u32::MAX));
        self.due = self.due.map(|due| due.min(at));
    }

    /// A browser signs in with the number, maybe with another password. What failed is tried again at once; what is being
    /// taken back is registered anew.
    pub fn want(&mut self, password: &str) {
        let other = !password.is_empty() && password != self.party.password;
        if other {
            password.clone_into(&mut self.party.password);
            self.credentials = Credentials::default();
        }
        let again = !self.wanted || matches!(self.state, RegistrationState::Failed { .. });
        self.wanted = true;
        if again || other {
            if !matches!(self.state, RegistrationState::Registered) || !self.bound {
                self.go(RegistrationState::Registering);
            }
            if self.pending.is_none() {
                self.begin();
            }
        }
    }

    /// The last browser has signed out, or we end.
    pub fn unwant(&mut self) {
        if !self.wanted {
            return;
        }
        self.wanted = false;
        self.due = None;
        self.go(RegistrationState::Unregistering);
        if self.pending.is_none() {
            self.begin();
        }
    }

    /// A response to a REGISTER.
    pub fn handle_response(&mut self, now: Instant, transaction: TransactionId, response: &Response) {
        let Some((_, takes_away)) = self.pending.filter(|(pending, _)| *pending == transaction) else {
            return;
        };
        if response.status < 200 {
            return;
        }
        self.pending = None;
        match response.status {
            200..=299 => self.taken(now, response, takes_away),
            401 | 407 if self.credentials.learn(response, &mut self.attempts) => {
                if self.party.password.is_empty() {
                    self.failed(now, Some(response.status), None);
                } else {
                    self.send(takes_away);
                }
            }
            423 if !takes_away => self.too_brief(now, response),
            _ => self.failed(now, Some(response.status), retry_after(response)),
        }
    }

    /// There was no answer in time, or no way to the server.
    pub fn handle_lost(&mut self, now: Instant, transaction: TransactionId) {
        if self.pending.is_some_and(|(pending, _)| pending == transaction) {
            self.pending = None;
            self.failed(now, None, None);
        }
    }

    /// Begins the next REGISTER, or ends where none is needed.
    fn begin(&mut self) {
        self.due = None;
        self.attempts = Attempts::default();
        if self.wanted {
            self.send(false);
        } else if self.bound {
            self.send(true);
        } else {
            self.go(RegistrationState::Ended);
        }
    }

    fn send(&mut self, takes_away: bool) {
        let domain = &self.settings.domain;
        let uri = format!("sip:{domain}");
        let own = format!("<sip:{}@{domain}>", self.party.user);
        let account = Account { user: &self.party.user, password: &self.party.password };
        let random = &mut self.random;
        let proofs = self.credentials.headers(&account, "REGISTER", &uri, || random.hex(8));
        self.cseq += 1;
        let expires = if takes_away { 0 } else { self.expires.as_secs() };
        let mut headers = vec![
            ("Max-Forwards".into(), "70".into()),
            ("Expires".into(), expires.to_string()),
            ("Supported".into(), "path".into()),
            ("User-Agent".into(), self.settings.user_agent.clone()),
        ];
        headers.extend(proofs);
        let request = Request {
            method: Method::Register,
            uri,
            from: format!("{own};tag={}", self.tag),
            to: own,
            call_id: self.call_id.clone(),
            cseq: self.cseq,
            route: Vec::new(),
            record_route: Vec::new(),
            contact: Some(format!("<{}>", self.contact())),
            content_type: None,
            headers,
            body: Vec::new(),
        };
        let transaction = TransactionId(self.next);
        self.next += 1;
        self.pending = Some((transaction, takes_away));
        // Whatever comes of it, the server may have heard it.
        self.bound |= !takes_away;
        self.commands.push_back(RegistrationCommand::Send { transaction, request: Box::new(request) });
    }

    fn contact(&self) -> String {
        format!("sip:{}@{}", self.party.user, self.settings.place)
    }

    fn taken(&mut self, now: Instant, response: &Response, takes_away: bool) {
        self.failures = 0;
        self.bound = !takes_away;
        if !self.wanted || takes_away {
            return self.begin();
        }
        let granted = granted(response, &self.contact()).unwrap_or(self.expires.as_secs());
        self.due = Some(now + refresh(Duration::from_secs(granted.min(EXPIRES_MAX))));
        self.go(RegistrationState::Registered);
    }

    /// Asked for too short a time (RFC 3261 section 10.2.8).
    fn too_brief(&mut self, now: Instant, response: &Response) {
        let least = response.header("Min-Expires").find_map(|value| value.trim().parse::<u64>().ok());
        match least.filter(|least| *least > self.expires.as_secs() && *least <= EXPIRES_MAX) {
            Some(least) => {
                self.expires = Duration::from_secs(least);
                self.send(false);
            }
            None => self.failed(now, Some(423), None),
        }
    }

    fn failed(&mut self, now: Instant, status: Option<u16>, retry_after: Option<u64>) {
        if !self.wanted {
            // Nobody waits for it: what the server still holds expires.
            self.bound = false;
            return self.begin();
        }
        let state = RegistrationState::Failed { status };
        if state.is_refusal() {
            self.bound = false;
        }
        let wait = match retry_after {
            Some(seconds) => Duration::from_secs(seconds.clamp(1, RETRY_MAX)),
            None if state.is_refusal() => WAIT_REFUSED,
            None => self.backoff(),
        };
        self.failures = self.failures.saturating_add(1);
        self.due = Some(now + wait);
        self.go(state);
    }

    /// Half to all of a time that doubles with each failure (RFC 5626 section 4.5).
    fn backoff(&mut self) -> Duration {
        let longest = WAIT_FIRST.saturating_mul(1 << self.failures.min(6)).min(WAIT_MAX);
        longest / 2 + (longest / 2).mul_f64(f64::from(self.random.u32()) / f64::from(u32::MAX))
    }

    fn go(&mut self, state: RegistrationState) {
        if self.state != state {
            self.state = state;
            self.commands.push_back(RegistrationCommand::State(state));
        }
    }
}

/// How long the server holds our binding, in seconds: what it says of our Contact, else of all.
fn granted(response: &Response, own: &str) -> Option<u64> {
    let contacts = response.contact.as_deref().unwrap_or_default();
    // Servers leave out, or add, parameters of the URI.
    let place = |uri: &str| uri.split(';').next().unwrap_or_default().to_owned();
    let ours = contacts.split(',').find(|contact| place(uri_of(contact)) == place(own));
    let parameter = ours.and_then(|contact| {
        let tail = contact.rsplit('>').next().unwrap_or_default();
        let value = |part: &str| {
            let (name, value) = part.split_once('=')?;
            name.trim().eq_ignore_ascii_case("expires").then(|| value.trim().parse().ok())?
        };
        tail.split(';').find_map(value)
    });
    let all = || response.header("Expires").find_map(|value| value.trim().parse().ok());
    parameter.or_else(all)
}

/// At 80 %, or 30 s before, whichever comes first; at half of a short time.
fn refresh(granted: Duration) -> Duration {
    let margin = Duration::from_secs(30);
    let wait = if granted > 2 * margin { (granted * 4 / 5).min(granted - margin) } else { granted / 2 };
    wait.max(REFRESH_MIN)
}

/// Seconds of a Retry-After (RFC 3261 section 20.33).
fn retry_after(response: &Response) -> Option<u64> {
    let value = response.header("Retry-After").next()?;
    value.split([' ', ';', '(']).next()?.trim().parse().ok()
}

#[cfg(test)]
mod tests;
