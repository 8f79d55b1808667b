//! Who a browser is: anonymous customers and registered agents, proven by bearer tokens (JWT) or by a password that the
//! SIP server verifies, and how often one may try.
//!
//! This is the one door for all transports: [`Identities::admit`] judges [`Credentials`] before the owner of the calls
//! ([`crate::calls`]) signs the browser in, [`Identities::settle`] learns what became of it.

mod limits;
mod provider;
mod section;
mod token;

use std::net::IpAddr;
use std::time::{Duration, Instant};

use sallyport_proto::Party;
use subtle::ConstantTimeEq;

use crate::config::Config;
use crate::message::{Reach, Renewal, SignIn, SignInError};

pub use limits::Counts;
use limits::Limits;
pub use section::{Agents, Identity, Numbers};
use token::Tokens;

/// Characters that the texts of a sign-in may have.
const NUMBER_MAX: usize = 64;
const NAME_MAX: usize = 128;
const PASSWORD_MAX: usize = 256;

/// What a browser says of itself when it signs in.
#[derive(Clone, Default)]
pub struct Credentials {
    /// A directory number: an agent. `None`: the one that the token names, or a customer.
    pub number: Option<String>,
    /// What answers the SIP server's challenges; may be empty.
    pub password: String,
    /// Shown to those whom the agent calls; may be empty.
    pub display_name: String,
    /// A bearer token: a JWT (RFC 7519), or one of `[http] tokens`.
    pub token: Option<String>,
}

impl std::fmt::Debug for Credentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Credentials").field("number", &self.number).finish_non_exhaustive()
    }
}

/// Why a browser does not get in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Denied {
    /// Number, name or password cannot be one; which.
    Malformed(&'static str),
    /// The token is none of ours, or too old; why.
    Token(&'static str),
    /// There is none, and it takes one.
    NoToken,
    /// The token is of another number.
    OtherNumber,
    /// It takes a password.
    NoPassword,
    /// Too many attempts; how long to wait.
    Limited(Duration),
}

impl Denied {
    /// One sentence for people.
    pub const fn text(&self) -> &'static str {
        match self {
            Self::Malformed(text) | Self::Token(text) => text,
            Self::NoToken => "an agent signs in with a bearer token that names its number",
            Self::OtherNumber => "the token is of another number",
            Self::NoPassword => "an agent signs in with the number's SIP password",
            Self::Limited(_) => "too many sign-ins; wait a little",
        }
    }

    /// Status of RFC 3261 section 21 for a browser that speaks SIP.
    pub const fn sip_status(&self) -> u16 {
        match self {
            Self::Malformed(_) => 400,
            Self::Token(_) | Self::NoToken | Self::OtherNumber | Self::NoPassword => 403,
            Self::Limited(_) => 503,
        }
    }
}

/// What the configuration says of identities, and who tried how often.
pub struct Identities {
    numbers: Numbers,
    tokens: Tokens,
    /// Opaque ones: administrators.
    administrators: Vec<String>,
    anonymous: Vec<String>,
    limits: Limits,
}

/// Whom a token stands for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bearer {
    /// An agent's number; `None`: a customer, or an administrator, who may be anybody.
    pub number: Option<String>,
    /// Whom it may call.
    pub reach: Reach,
    /// Whether it is one of `[http] tokens`.
    pub administrator: bool,
    /// When it is worth nothing any more.
    pub until: Option<Instant>,
    name: String,
}

impl Identities {
    /// From `[identity]`, `[agents]` and `[http]`.
    ///
    /// # Errors
    /// Which key cannot be one.
    pub fn new(config: &Config) -> Result<Self, String> {
        Ok(Self {
            numbers: config.agents.numbers,
            tokens: Tokens::new(&config.identity)?,
            administrators: config.http.tokens.clone(),
            anonymous: config.http.anonymous.clone(),
            limits: Limits::new(config.agents.sign_ins_per_minute, config.agents.number_sign_ins_per_minute),
        })
    }

    /// Judges a sign-in from `client` (an address, of IPv6 its /64). What comes of it is told to [`Self::settle`], unless
    /// it is denied here.
    ///
    /// # Errors
    /// [`Denied`]; it is counted, and costs the client more than a sign-in that succeeds.
    pub fn admit(&self, client: IpAddr, credentials: &Credentials) -> Result<SignIn, Denied> {
        let now = Instant::now();
        self.limits.try_client(client, now).map_err(Denied::Limited)?;
        let outcome = self.judge(client, credentials, now);
        match &outcome {
            Ok(_) | Err(Denied::Limited(_)) => {}
            Err(_) => self.limits.failed(client, None, now),
        }
        outcome
    }

    fn judge(&self, client: IpAddr, credentials: &Credentials, now: Instant) -> Result<SignIn, Denied> {
        well_formed(credentials)?;
        let bearer = credentials.token.as_deref().map(|token| self.bearer(token)).transpose()?;
        let named = bearer.as_ref().and_then(|bearer| bearer.number.clone());
        let administrator = bearer.as_ref().is_some_and(|bearer| bearer.administrator);
        let proven = administrator || named.is_some();
        if let (Some(given), Some(named)) = (&credentials.number, &named)
            && given != named
        {
            return Err(Denied::OtherNumber);
        }
        let Some(number) = credentials.number.clone().or(named) else {
            let until = bearer.as_ref().and_then(|bearer| bearer.until);
            let reach = bearer.map_or_else(|| self.anybody(), |bearer| bearer.reach);
            let client = (!administrator).then_some(client);
            return Ok(SignIn { party: None, reach, client, verify: false, until });
        };
        let verify = match self.numbers {
            _ if proven => false,
            Numbers::Token if credentials.token.is_some() => return Err(Denied::OtherNumber),
            Numbers::Token => return Err(Denied::NoToken),
            Numbers::Password if credentials.password.is_empty() => return Err(Denied::NoPassword),
            Numbers::Password => true,
            Numbers::Open => false,
        };
        if !proven {
            self.limits.try_number(&number, now).map_err(Denied::Limited)?;
        }
        let (mut display_name, mut reach) = (credentials.display_name.clone(), Reach::Anybody);
        let mut until = None;
        if let Some(bearer) = bearer.filter(|bearer| bearer.number.is_some()) {
            (reach, until) = (bearer.reach, bearer.until);
            if !bearer.name.is_empty() {
                display_name = bearer.name;
            }
        }
        let party = Party { user: number, display_name, password: credentials.password.clone() };
        Ok(SignIn { party: Some(party), reach, client: None, verify, until })
    }

    /// Judges another token of a browser that is signed in, from `client` as in [`Self::admit`]; it counts as a sign-in.
    ///
    /// # Errors
    /// [`Denied`].
    pub fn renew(&self, client: IpAddr, token: &str) -> Result<Renewal, Denied> {
        let now = Instant::now();
        self.limits.try_client(client, now).map_err(Denied::Limited)?;
        match self.bearer(token) {
            Ok(Bearer { number, reach, administrator, until, .. }) => {
                self.limits.succeeded(client, true, now);
                Ok(Renewal { of: (!administrator).then_some(number), reach, until })
            }
            Err(denied) => {
                self.limits.failed(client, None, now);
                Err(denied)
            }
        }
    }

    /// What became of a sign-in that was admitted: a wrong password costs more than a right one, a token's holder hardly
    /// anything.
    pub fn settle(&self, client: IpAddr, credentials: &Credentials, outcome: Result<(), &SignInError>) {
        let now = Instant::now();
        match outcome {
            Ok(()) => self.limits.succeeded(client, credentials.token.is_some(), now),
            Err(SignInError::Refused { .. }) => {
                self.limits.failed(client, credentials.number.as_deref(), now);
            }
            Err(_) => self.limits.unsettled(),
        }
    }

    /// Whom a bearer token stands for.
    ///
    /// # Errors
    /// [`Denied::Token`].
    pub fn bearer(&self, token: &str) -> Result<Bearer, Denied> {
        if self.is_administrator(token) {
            let reach = Reach::Anybody;
            return Ok(Bearer { number: None, reach, administrator: true, until: None, name: String::new() });
        }
        let claims = self.tokens.verify(token).map_err(Denied::Token)?;
        let until = Some(claims.until());
        let number = claims.sub.filter(|sub| !sub.is_empty());
        if number.as_deref().is_some_and(|number| !is_number(number)) {
            return Err(Denied::Token("the token's sub is no directory number"));
        }
        let reach = match (claims.sallyport.to, &number) {
            (Some(to), _) => Reach::Only(to),
            (None, Some(_)) => Reach::Anybody,
            (None, None) => self.anybody(),
        };
        let name = claims.name.filter(|name| is_name(name)).unwrap_or_default();
        Ok(Bearer { number, reach, administrator: false, until, name })
    }

    /// Whether it is one of the configuration's opaque tokens.
    pub fn is_administrator(&self, token: &str) -> bool {
        // Every token is compared to its end, whatever the others were.
        let same = |have: &String| bool::from(have.as_bytes().ct_eq(token.as_bytes()));
        self.administrators.iter().fold(false, |known, have| known | same(have))
    }

    /// Whom those may call who have nothing to show.
    pub fn anybody(&self) -> Reach {
        Reach::Only(self.anonymous.clone())
    }

    /// Sign-ins by what became of them, since the start.
    pub fn counts(&self) -> Counts {
        self.limits.counts()
    }
}

fn well_formed(credentials: &Credentials) -> Result<(), Denied> {
    if credentials.number.as_deref().is_some_and(|number| !is_number(number)) {
        return Err(Denied::Malformed("a number has 1 to 64 letters, digits or any of + * . _ - ~"));
    }
    if !is_name(&credentials.display_name) {
        return Err(Denied::Malformed(
            "a display name has 128 octets at the most, and no control characters",
        ));
    }
    if credentials.password.len() > PASSWORD_MAX || credentials.password.chars().any(char::is_control) {
        return Err(Denied::Malformed("a password has 256 octets at the most, and no control characters"));
    }
    Ok(())
}

/// What may stand as user in a SIP URI without escapes (RFC 3261 section 25.1).
fn is_number(text: &str) -> bool {
    let fit = |octet: u8| octet.is_ascii_alphanumeric() || b"+*._-~".contains(&octet);
    (1..=NUMBER_MAX).contains(&text.len()) && text.bytes().all(fit)
}

fn is_name(text: &str) -> bool {
    text.len() <= NAME_MAX && !text.chars().any(char::is_control)
}

#[cfg(test)]
mod tests;
