//! REGISTER (RFC 3261 section 10.3): one binding a connection, that the browser renews.

use std::time::{Duration, Instant};

use super::text::{host_of, unescaped};
use super::{Phone, PhoneCommand, Refusal, Secret};
use crate::sip::header::{address_parameter_of, tag_of, uri_of, user_of};
use crate::sip::{Request, TransactionId};

/// Seconds that a binding lasts: unless the browser says, at least, at most.
const EXPIRES: u32 = 600;
pub const EXPIRES_MIN: u32 = 60;
const EXPIRES_MAX: u32 = 3600;

/// A number that the browser is reached by.
#[derive(Debug, Clone)]
pub struct Registration {
    pub number: String,
    /// The browser's URI: Request-URI of what we send.
    pub contact: String,
    /// `+sip.instance` with `reg-id`; empty for none.
    pub instance: String,
    pub until: Instant,
    call_id: String,
    cseq: u32,
    /// Contact as in the REGISTER, without `expires`.
    shown: String,
}

/// A REGISTER that waits for its sign-in.
#[derive(Debug)]
pub struct Asked {
    transaction: TransactionId,
    request: Request,
    expires: u32,
    shown: Option<Secret>,
}

impl Phone {
    pub(super) fn register(&mut self, transaction: TransactionId, request: &Request, now: Instant) {
        if let Err(refusal) = self.registers(transaction, request, now) {
            self.refuse(transaction, request, refusal);
        }
    }

    fn registers(
        &mut self,
        transaction: TransactionId,
        request: &Request,
        now: Instant,
    ) -> Result<(), Refusal> {
        let uri = uri_of(&request.to);
        let number = unescaped(user_of(uri));
        if number.is_empty() {
            return Err(Refusal::because(404, "the address of record has no user part"));
        }
        if user_of(uri_of(&request.from)) != user_of(uri) {
            return Err(Refusal::because(403, "nobody is registered by somebody else"));
        }
        let own = self.registration.as_ref();
        if own.is_some_and(|own| own.number != number) {
            return Err(Refusal::because(403, "a connection has one number"));
        }
        if own.is_some_and(|own| own.call_id == request.call_id && request.cseq <= own.cseq) {
            return Err(Refusal::because(500, "the CSeq is not higher than the last one"));
        }
        let Some(contact) = request.contact.as_deref().map(str::trim) else {
            self.shown(request)?;
            self.registered(transaction, request, now);
            return Ok(());
        };
        let expires = expires(request, contact)?;
        let token = self.shown(request)?;
        if token.is_none() && self.settings.challenges && self.registration.is_none() {
            return Err(Refusal::plain(401));
        }
        host_of(uri).clone_into(&mut self.host);
        if expires == 0 {
            self.registration = None;
            self.registered(transaction, request, now);
        } else if self.registration.is_some() && self.signed_in && token == self.shown {
            self.bind(request, contact, expires, now);
            self.registered(transaction, request, now);
        } else {
            let instance = instance(contact);
            // Another token than before has to be judged, and may be good for longer (RFC 8898).
            let asked = Asked { transaction, request: request.clone(), expires, shown: token.clone() };
            self.asked.push_back(Some(asked));
            self.commands.push_back(PhoneCommand::SignIn { number: Some(number), instance, token });
        }
        Ok(())
    }

    fn bind(&mut self, request: &Request, contact: &str, expires: u32, now: Instant) {
        self.registration = Some(Registration {
            number: unescaped(user_of(uri_of(&request.to))),
            contact: uri_of(contact).to_owned(),
            instance: instance(contact),
            until: self.until.into_iter().fold(now + Duration::from_secs(expires.into()), Instant::min),
            call_id: request.call_id.clone(),
            cseq: request.cseq,
            shown: without_expires(contact),
        });
    }

    /// 200 with the bindings that there are.
    fn registered(&mut self, transaction: TransactionId, request: &Request, now: Instant) {
        let mut response = self.answer(request, 200);
        if let Some(own) = &self.registration {
            let left = own.until.saturating_duration_since(now).as_secs();
            response.contact = Some(format!("{};expires={left}", own.shown));
        }
        self.reply(transaction, response);
    }

    pub(super) fn signed_in(&mut self, outcome: Result<Option<Instant>, Refusal>, now: Instant) {
        self.signed_in |= outcome.is_ok();
        match (self.asked.pop_front().flatten(), outcome) {
            (Some(asked), Ok(until)) => {
                (self.shown, self.until) = (asked.shown, until);
                let contact = asked.request.contact.clone().unwrap_or_default();
                self.bind(&asked.request, contact.trim(), asked.expires, now);
                self.registered(asked.transaction, &asked.request, now);
                self.begin_calls();
            }
            (Some(asked), Err(refusal)) => {
                // What was shown is worth nothing.
                self.token = None;
                self.refuse(asked.transaction, &asked.request, refusal);
            }
            (None, Ok(_)) => self.begin_calls(),
            (None, Err(refusal)) => {
                self.token = None;
                self.entered = None;
                self.refuse_calls(&refusal);
            }
        }
    }
}

/// Seconds that the browser wants (RFC 3261 section 10.2.1.1); 0 to be forgotten.
fn expires(request: &Request, contact: &str) -> Result<u32, Refusal> {
    let header = request.header("Expires").next().map(str::trim);
    if contact == "*" || contact.starts_with("*;") {
        return if header == Some("0") {
            Ok(0)
        } else {
            Err(Refusal::because(400, "Contact: * needs Expires: 0"))
        };
    }
    if tag_of(contact).is_some() || user_of(uri_of(contact)).is_empty() {
        return Err(Refusal::because(400, "the Contact has no user part"));
    }
    let given = address_parameter_of(contact, "expires").or(header);
    let seconds = given.and_then(|text| text.trim().parse().ok()).unwrap_or(EXPIRES);
    match seconds {
        0 => Ok(0),
        1..EXPIRES_MIN => Err(Refusal::plain(423)),
        _ => Ok(seconds.min(EXPIRES_MAX)),
    }
}

fn instance(contact: &str) -> String {
    match address_parameter_of(contact, "+sip.instance") {
        Some(urn) => format!("{urn} {}", address_parameter_of(contact, "reg-id").unwrap_or_default()),
        None => String::new(),
    }
}

/// A Contact with all its parameters but `expires`.
fn without_expires(contact: &str) -> String {
    let end = contact.rfind('>').map_or(0, |at| at + 1);
    let (address, tail) = contact.split_at(end);
    let kept = tail.split(';').filter(|part| !part.trim().to_ascii_lowercase().starts_with("expires="));
    let kept: Vec<&str> = kept.collect();
    if end == 0 {
        // Without brackets all parameters are the header's.
        return format!("<{}>", uri_of(contact));
    }
    format!("{address}{}", kept.join(";"))
}
