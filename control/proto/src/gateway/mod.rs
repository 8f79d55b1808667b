//! Browsers that speak SIP themselves (RFC 7118), sans-IO: a [`Phone`] is the user agent at the browser's side of a
//! connection, and turns its dialogs into calls of ours and back.
//!
//! The browser's dialogs end here, and so do offer and answer: what a phone says becomes [`PhoneCommand`]s, which are what
//! any other client of ours asks for too, and what becomes of them comes back as [`PhoneInput`]s.

mod auth;
mod called;
mod calling;
mod events;
mod offering;
mod refer;
mod register;
#[cfg(test)]
mod tests;
mod text;
mod timers;
mod within;
mod words;

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use sallyport_plan::CallId;

use crate::api::{CallFailure, EndCause};
use crate::random::{Random, Seed};
use crate::sip::{Dialog, Method, Request, Response, TransactionId};

use auth::Guard;
use refer::Subscription;
use register::{Asked, Registration};

pub use words::{PhoneAct, PhoneCommand, PhoneInput};

/// How long a browser whose connection is gone may take to come back, while its calls go on.
pub const GRACE: Duration = Duration::from_secs(30);
/// Dialogs that one browser may have.
const LEGS: usize = 32;
/// What a dialog here takes in.
const ALLOW: &str = "INVITE, ACK, BYE, CANCEL, OPTIONS, INFO, UPDATE, REFER";

/// A bearer token or a password; not shown by `Debug`.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(pub String);

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(..)")
    }
}

/// What all phones share.
#[derive(Debug)]
pub struct PhoneSettings {
    /// Value of Server and User-Agent.
    pub agent: String,
    /// Tokens that a browser's library may have as its password of digest authentication.
    pub secrets: Vec<Secret>,
    /// Whether a number takes something to be shown: a REGISTER without is challenged.
    pub challenges: bool,
}

/// Why something is not done: a final status with its phrase.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// 400..=699. 401 is given with challenges.
    pub status: u16,
    /// One sentence for people, for the Warning header (RFC 3261 section 20.43); empty for none.
    pub text: String,
    /// Seconds until another attempt is worth while.
    pub retry_after: Option<u32>,
}

impl Refusal {
    /// One without words.
    pub const fn plain(status: u16) -> Self {
        Self { status, text: String::new(), retry_after: None }
    }

    /// One with words.
    pub fn because(status: u16, text: impl Into<String>) -> Self {
        Self { status, text: text.into(), retry_after: None }
    }

    /// What a browser is told of a call that failed.
    pub fn of(failure: &CallFailure) -> Self {
        let named = failure.sip_status.filter(|status| (400..700).contains(status) && *status != 401);
        Self::because(named.unwrap_or_else(|| status_of(&failure.cause)), failure.text.clone())
    }
}

/// The status that fits the end of a call that was never answered.
const fn status_of(cause: &EndCause) -> u16 {
    match cause {
        EndCause::Rejected(status) if *status >= 400 && *status != 401 && *status != 407 => *status,
        EndCause::Rejected(401 | 407) => 403,
        EndCause::RingTimeout | EndCause::Rejected(_) => 480,
        EndCause::SipUnreachable => 504,
        EndCause::NoCodec => 488,
        EndCause::HangUp | EndCause::RemoteHangUp | EndCause::Abandoned | EndCause::Cancelled => 487,
        EndCause::Declined => 603,
        EndCause::Refused(_) | EndCause::RelayLost | EndCause::Restarted => 503,
        _ => 500,
    }
}

/// Where a dialog stands.
#[derive(Debug)]
enum State {
    /// The browser's INVITE waits for its final answer.
    Calling(Box<calling::Calling>),
    /// Our INVITE does.
    Ringing { transaction: TransactionId, cancelled: bool },
    /// The browser has answered our INVITE, and is not known to be the first.
    Taking,
    /// Established.
    Up,
}

/// One dialog with the browser.
#[derive(Debug)]
struct Leg {
    dialog: Dialog,
    state: State,
    /// The browser's re-INVITE or UPDATE that waits for its answer.
    offering: Option<(TransactionId, Request)>,
    /// What becomes of a picture that the far side wants to show.
    picture: offering::Picture,
    subscription: Option<Subscription>,
    timer: Option<timers::Timer>,
}

/// What a request of ours was for.
#[derive(Debug, Clone, Copy)]
enum Purpose {
    Invite(CallId),
    /// Our INVITE within a dialog.
    Picture(CallId),
    /// NOTIFY, INFO: a 481 ends the dialog (RFC 5057).
    Within(CallId),
    /// UPDATE that keeps a session (RFC 4028).
    Refresh(CallId),
    /// Nothing follows from its answer.
    Farewell,
}

/// A browser's user agent on one connection.
pub struct Phone {
    settings: Arc<PhoneSettings>,
    random: Random,
    guard: Guard,
    /// Host part of the browser's own address.
    host: String,
    token: Option<Secret>,
    /// What it was signed in with as a customer.
    entered: Option<Secret>,
    /// What it was signed in with under its number, and until when that is good.
    shown: Option<Secret>,
    until: Option<Instant>,
    registration: Option<Registration>,
    /// Sign-ins under way, oldest first; `None`: for the sake of calls.
    asked: VecDeque<Option<Asked>>,
    signed_in: bool,
    legs: BTreeMap<CallId, Leg>,
    clients: BTreeMap<TransactionId, Purpose>,
    next: u64,
    commands: VecDeque<PhoneCommand>,
    /// When a browser that is gone is given up.
    lost: Option<Instant>,
    /// When something happened last.
    now: Instant,
}

impl fmt::Debug for Phone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Phone").field("legs", &self.legs.len()).finish_non_exhaustive()
    }
}

impl Phone {
    /// A new connection, with the token that was shown when it was opened.
    pub fn new(settings: Arc<PhoneSettings>, seed: Seed, token: Option<Secret>) -> Self {
        let mut random = Random::new(seed);
        Self {
            guard: Guard::new(&mut random),
            settings,
            random,
            host: String::new(),
            token,
            entered: None,
            shown: None,
            until: None,
            registration: None,
            asked: VecDeque::new(),
            signed_in: false,
            legs: BTreeMap::new(),
            clients: BTreeMap::new(),
            next: 0,
            commands: VecDeque::new(),
            lost: None,
            now: Instant::now(),
        }
    }

    /// Takes in what happened.
    pub fn handle(&mut self, now: Instant, input: PhoneInput) {
        self.now = now;
        match input {
            PhoneInput::Request { transaction, request } => self.request(transaction, request, now),
            PhoneInput::Cancelled(transaction) => self.cancelled(transaction),
            PhoneInput::Response { transaction, response } => self.response(transaction, &response),
            PhoneInput::Silence(transaction) => self.silence(transaction),
            PhoneInput::SignedIn(outcome) => self.signed_in(outcome, now),
            PhoneInput::Created { call, outcome } => self.created(call, outcome),
            PhoneInput::Renegotiated { call, outcome } => self.renegotiated(call, outcome),
            PhoneInput::PictureOffer { call, offer } => self.offer_picture(call, offer.as_deref()),
            PhoneInput::Incoming { call, from, offer } => self.incoming(call, &from, &offer),
            PhoneInput::Took { call, outcome } => self.took(call, outcome),
            PhoneInput::Taken(call) => self.taken(call),
            PhoneInput::Event { call, event } => self.event(call, event),
            PhoneInput::Disconnected => self.disconnected(now),
            PhoneInput::SignedOut => {
                self.signed_in = false;
                self.registration = None;
                self.end_all(&EndCause::HangUp);
            }
        }
        self.settle();
    }

    /// The next thing to do.
    pub fn poll_command(&mut self) -> Option<PhoneCommand> {
        self.commands.pop_front()
    }

    /// When [`Self::handle_timeout`] wants to be called.
    pub fn poll_timeout(&self) -> Option<Instant> {
        [self.lost, self.registration.as_ref().map(|registration| registration.until), self.timers()]
            .into_iter()
            .flatten()
            .min()
    }

    /// Lets time pass.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.now = now;
        self.keep_time();
        if self.registration.as_ref().is_some_and(|registration| registration.until <= now) {
            self.registration = None;
        }
        if self.lost.is_some_and(|at| at <= now) {
            self.registration = None;
            let calls: Vec<CallId> = self.legs.keys().copied().collect();
            for call in calls {
                self.legs.remove(&call);
                self.commands.push_back(PhoneCommand::HangUp(call));
            }
        }
        self.settle();
    }

    /// Whether nothing is left of a phone whose connection is gone.
    pub fn is_over(&self) -> bool {
        self.lost.is_some() && !self.signed_in && self.asked.is_empty() && self.legs.is_empty()
    }

    /// Whether it has no call.
    pub fn is_idle(&self) -> bool {
        self.legs.is_empty()
    }

    /// The number and the instance under which it is registered: the same browser comes back under both.
    pub fn name(&self) -> Option<(&str, &str)> {
        let registration = self.registration.as_ref()?;
        (!registration.instance.is_empty())
            .then_some((registration.number.as_str(), registration.instance.as_str()))
    }

    /// The same browser was here before on another connection: its dialogs go on on this one, and it is signed in.
    pub fn adopt(&mut self, former: &mut Self) {
        // What waits on the former connection for an answer waits in vain.
        former.lose_unanswered();
        self.legs.append(&mut former.legs);
        self.signed_in |= former.signed_in;
        former.signed_in = false;
        former.registration = None;
        self.commands.append(&mut former.commands);
    }

    fn request(&mut self, transaction: TransactionId, request: Request, now: Instant) {
        let media = matches!(request.method, Method::Invite | Method::Update);
        if media && unsupported(&request).next().is_some() {
            self.refuse(transaction, &request, Refusal::plain(420));
            return;
        }
        if crate::sip::header::tag_of(&request.to).is_some() {
            self.within(transaction, request);
            return;
        }
        match request.method {
            Method::Ack => {}
            Method::Register => self.register(transaction, &request, now),
            Method::Invite => self.invited(transaction, request),
            Method::Options => {
                let mut response = self.answer(&request, 200);
                response.headers.push(("Accept".into(), "application/sdp".into()));
                self.reply(transaction, response);
            }
            Method::Bye | Method::Cancel | Method::Info | Method::Update | Method::Notify | Method::Prack => {
                self.refuse(transaction, &request, Refusal::plain(481));
            }
            Method::Refer => {
                let text = "transfers are asked for within the call's dialog";
                self.refuse(transaction, &request, Refusal::because(403, text));
            }
            Method::Subscribe | Method::Other(_) => self.refuse(transaction, &request, Refusal::plain(405)),
        }
    }

    /// The browser is gone. What is established waits for it.
    fn disconnected(&mut self, now: Instant) {
        self.lost = Some(now + GRACE);
        self.clients.clear();
        self.lose_unanswered();
    }

    /// Dialogs that are not established do not go over to another connection: their transactions are of this one.
    fn lose_unanswered(&mut self) {
        let lost: Vec<CallId> = self
            .legs
            .iter_mut()
            .filter_map(|(call, leg)| {
                leg.offering = None;
                leg.picture = offering::Picture::None;
                (!matches!(leg.state, State::Up | State::Taking)).then_some(*call)
            })
            .collect();
        for call in lost {
            match self.legs.remove(&call).map(|leg| leg.state) {
                Some(State::Ringing { cancelled: false, .. }) => {
                    self.commands.push_back(PhoneCommand::Decline { call, status: 480 });
                }
                Some(State::Calling(_)) => self.commands.push_back(PhoneCommand::Abandon(call)),
                _ => {}
            }
        }
    }

    /// Signs out where nothing is left to be told of.
    fn settle(&mut self) {
        if self.signed_in && self.registration.is_none() && self.legs.is_empty() && self.asked.is_empty() {
            self.signed_in = false;
            self.commands.push_back(PhoneCommand::SignOut);
        }
    }

    fn transaction(&mut self, purpose: Purpose) -> TransactionId {
        let transaction = TransactionId(self.next);
        self.next += 1;
        self.clients.insert(transaction, purpose);
        transaction
    }

    fn send(&mut self, purpose: Purpose, request: Request) {
        if self.lost.is_none() {
            let transaction = self.transaction(purpose);
            self.commands.push_back(PhoneCommand::Send { transaction, request });
        }
    }

    /// Our Contact.
    fn contact(&self) -> String {
        format!("<sip:sallyport@{};transport=ws>", text::host_or(&self.host))
    }

    /// An answer with what all of ours have.
    fn answer(&self, request: &Request, status: u16) -> Response {
        let mut response = Response::to_request(request, status, text::reason(status));
        response.headers.push(("Server".into(), self.settings.agent.clone()));
        if status == 200 || status == 405 {
            response.headers.push(("Allow".into(), ALLOW.into()));
        }
        response
    }

    fn reply(&mut self, transaction: TransactionId, mut response: Response) {
        if response.status > 100 && crate::sip::header::tag_of(&response.to).is_none() {
            response.to = format!("{};tag={}", response.to, self.random.hex(8));
        }
        self.commands.push_back(PhoneCommand::Reply { transaction, response });
    }

    fn refuse(&mut self, transaction: TransactionId, request: &Request, refusal: Refusal) {
        let mut response = self.answer(request, refusal.status);
        if refusal.status == 401 {
            response.headers.extend(self.guard.challenges());
        }
        if refusal.status == 422 {
            response.headers.push(("Min-SE".into(), timers::LEAST.to_string()));
        }
        if refusal.status == 420 {
            let unsupported: Vec<&str> = unsupported(request).collect();
            response.headers.push(("Unsupported".into(), unsupported.join(", ")));
        }
        if refusal.status == 423 {
            response.headers.push(("Min-Expires".into(), register::EXPIRES_MIN.to_string()));
        }
        if !refusal.text.is_empty() {
            let quoted = refusal.text.replace(['"', '\\', '\r', '\n'], "'");
            response.headers.push(("Warning".into(), format!("399 sallyport \"{quoted}\"")));
        }
        if let Some(seconds) = refusal.retry_after {
            response.headers.push(("Retry-After".into(), seconds.to_string()));
        }
        self.reply(transaction, response);
    }
}

/// Extensions that a request depends on and a phone's dialog does not have (RFC 3261 section 8.2.2.3): reliable provisional
/// answers and Replaces are telephony's only.
fn unsupported(request: &Request) -> impl Iterator<Item = &str> {
    let required = request.header("Require").flat_map(|value| value.split(',')).map(str::trim);
    required.filter(|extension| !extension.is_empty() && !extension.eq_ignore_ascii_case("timer"))
}
