//! Browsers that are signed in, as the owner of the calls knows them.

use std::net::IpAddr;
use std::time::Instant;

use sallyport_plan::CallId;
use sallyport_proto::{CallEvent, Party, RegistrationState};
use tokio::sync::mpsc;

/// Names a browser that signed in; a secret of its, as a call's name is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct SessionId(pub u128);

impl std::fmt::Display for SessionId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

impl std::str::FromStr for SessionId {
    type Err = std::num::ParseIntError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        u128::from_str_radix(text, 16).map(Self)
    }
}

/// Whom a browser may call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reach {
    /// Everybody.
    Anybody,
    /// These, letter by letter; `*` stands for everybody.
    Only(Vec<String>),
}

impl Reach {
    /// Whether `to` may be called.
    pub fn allows(&self, to: &str) -> bool {
        match self {
            Self::Anybody => true,
            Self::Only(list) => list.iter().any(|one| one == "*" || one == to),
        }
    }
}

/// A browser that wants to sign in, as [`crate::identity::Identities::admit`] judged it.
#[derive(Debug)]
pub struct SignIn {
    /// An agent under its number; `None`: a customer, who can call but not be called.
    pub party: Option<Party>,
    /// Whom it may call.
    pub reach: Reach,
    /// Whose calls are counted as one client's; `None` for those who have a token.
    pub client: Option<IpAddr>,
    /// Whether the SIP server has to take number and password before the browser is signed in.
    pub verify: bool,
    /// When its token is worth nothing any more.
    pub until: Option<Instant>,
}

/// Another token of a browser that is signed in, as [`crate::identity::Identities::renew`] judged it.
#[derive(Debug)]
pub struct Renewal {
    /// Whose it is: a number, or a customer's; `None`: an administrator's, who may be anybody.
    pub of: Option<Option<String>>,
    /// Whom its bearer may call.
    pub reach: Reach,
    /// When it is worth nothing any more.
    pub until: Option<Instant>,
}

/// Why a token does not renew a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RenewError {
    /// Nobody is signed in under this name.
    Unknown,
    /// It is another number's.
    OtherNumber,
}

/// Why a browser was not signed in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SignInError {
    /// There are as many as there may be.
    Full,
    /// There are as many under this number, or of this client without a token, as there may be.
    TooMany,
    /// We are on our way down.
    Draining,
    /// The SIP server does not take the number, or not with this password.
    Refused {
        /// Its final status; `None` where another browser is signed in with this number and another password.
        status: Option<u16>,
    },
    /// The SIP server does not answer, or takes nobody now.
    Unreachable,
}

/// A browser that is signed in until [`Message::SignOut`], or until its receiver is dropped or full.
#[derive(Debug)]
pub struct SignedIn {
    /// Its name.
    pub id: SessionId,
    /// What it is told.
    pub events: mpsc::Receiver<SessionEvent>,
    /// When its token is worth nothing any more.
    pub until: Option<Instant>,
}

/// What a browser that is signed in is told.
#[derive(Debug, Clone)]
pub enum SessionEvent {
    /// A call rings.
    Incoming {
        /// Its name.
        call: CallId,
        /// Who calls: a number.
        from: String,
        /// Which number was called.
        to: String,
        /// Headers of the INVITE that the configuration lets pass: names and values.
        headers: Vec<(String, String)>,
        /// Whether it offers a picture.
        video: bool,
    },
    /// A call that rang was taken by another browser.
    Taken {
        /// Its name.
        call: CallId,
    },
    /// Something happened to a call of this browser, or to one that rings there.
    Call {
        /// Its name.
        call: CallId,
        /// What.
        event: CallEvent,
    },
    /// The number's registration with the SIP server stands elsewhere.
    Registration {
        /// Where.
        state: RegistrationState,
    },
    /// The browser is signed out by us. The last event.
    SignedOut {
        /// Why: `ending`, or `expired`.
        reason: &'static str,
    },
}
