//! Messages of the JSON WebSocket.

use std::collections::BTreeMap;

use axum::http::StatusCode;
use sallyport_plan::CallId;
use sallyport_proto::{CallEvent, RegistrationState};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::http::calls::describe;
use crate::http::guests::{Guest, Names};
use crate::http::problem::Problem;
use crate::message::{SessionEvent, SessionId};

/// Octets of a `ref`.
const REF_MAX: usize = 64;
/// Headers that a call may bring along, and octets of each.
const DATA_MAX: usize = 16;
const VALUE_MAX: usize = 2048;

/// What a browser sends.
#[derive(Debug, Deserialize)]
pub struct Said {
    /// Echoed in what answers it: text, or a whole number.
    #[serde(rename = "ref", default)]
    pub name: Value,
    /// What it wants.
    #[serde(flatten)]
    pub wants: Wants,
}

/// What a browser wants.
#[derive(Debug, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum Wants {
    /// To sign in, or to go on with a session.
    SignIn(SignInWords),
    /// To call somebody.
    Call {
        /// Whom.
        to: String,
        /// Its offer.
        sdp: String,
        /// Headers of the INVITE.
        #[serde(default)]
        data: BTreeMap<String, String>,
    },
    /// To tell candidates (RFC 8840).
    Candidate {
        /// Of which call.
        call: String,
        /// An `application/trickle-ice-sdpfrag`.
        fragment: String,
    },
    /// To take a call that rings.
    Accept {
        /// Which.
        call: String,
        /// Its offer.
        sdp: String,
    },
    /// Not to take it.
    Decline {
        /// Which.
        call: String,
        /// What the caller hears, 400 to 699.
        #[serde(default = "busy")]
        status: u16,
    },
    /// To hold, to resume, to restart ICE.
    Offer {
        /// Which call.
        call: String,
        /// Its offer.
        sdp: String,
    },
    /// To end a call.
    Hangup {
        /// Which.
        call: String,
    },
    /// To have digits sent.
    Dtmf {
        /// In which call.
        call: String,
        /// `0-9A-D*#`.
        digits: String,
        /// Of each, in milliseconds, 70 to 6000.
        #[serde(default = "tenth")]
        duration: u16,
    },
    /// To have user data sent.
    Info {
        /// In which call.
        call: String,
        /// Its type.
        content_type: String,
        /// Text.
        body: String,
    },
    /// To connect the far end with somebody else.
    Transfer {
        /// Which call.
        call: String,
        /// With a number,
        to: Option<String>,
        /// or with the far end of another call.
        onto: Option<String>,
    },
    /// Figures.
    Stats {
        /// Of which call.
        call: String,
    },
    /// To go.
    SignOut,
    /// A sign of life.
    Ping,
}

/// A sign-in.
#[derive(Debug, Deserialize)]
pub struct SignInWords {
    /// Who.
    #[serde(flatten)]
    pub names: Names,
    /// The session to go on with.
    pub session: Option<String>,
    /// The last message that the browser got of it.
    #[serde(default)]
    pub seq: u64,
}

const fn busy() -> u16 {
    486
}

const fn tenth() -> u16 {
    100
}

impl Said {
    /// Reads a message.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(text: &str) -> Result<Self, Problem> {
        let bad = |text: String| Problem::new(StatusCode::BAD_REQUEST, "message", text);
        let said: Self = serde_json::from_str(text).map_err(|error| bad(error.to_string()))?;
        let good = match &said.name {
            Value::Null => true,
            Value::String(name) => name.len() <= REF_MAX,
            Value::Number(name) => name.is_u64(),
            _ => false,
        };
        if good {
            Ok(said)
        } else {
            Err(bad(format!("ref must be text of {REF_MAX} octets at most, or a number")))
        }
    }
}

/// A message in answer to `name`.
pub fn reply(kind: &str, name: &Value, call: Option<CallId>) -> Value {
    let mut word = json!({ "type": kind });
    if !name.is_null() {
        word["ref"] = name.clone();
    }
    if let Some(call) = call {
        word["call"] = call.to_string().into();
    }
    word
}

/// A problem in answer to `name`: the same codes as over REST.
pub fn error(name: &Value, call: Option<CallId>, problem: &Problem) -> Value {
    let mut word = reply("error", name, call);
    word["code"] = problem.kind.trim_start_matches("urn:sallyport:").into();
    word["detail"] = problem.detail.as_str().into();
    if let Some(status) = problem.sip_status {
        word["status"] = status.into();
    }
    if let Some(seconds) = problem.retry_after {
        word["retry_after"] = seconds.into();
    }
    word
}

/// A browser is signed in.
pub fn signed_in(name: &Value, session: SessionId, number: Option<&str>, resumed: bool) -> Value {
    let mut word = reply("signed_in", name, None);
    word["session"] = session.to_string().into();
    word["number"] = number.into();
    word["resumed"] = resumed.into();
    word
}

/// What happened, as a browser is told.
pub fn told(guest: &Guest, event: SessionEvent) -> Vec<Value> {
    match event {
        SessionEvent::Incoming { call, from, to, headers } => {
            if guest.enter(call).is_err() {
                return Vec::new();
            }
            let mut word = reply("incoming", &Value::Null, Some(call));
            word["from"] = from.into();
            word["to"] = to.into();
            word["headers"] = headers.iter().map(|(name, value)| serde_json::json!([name, value])).collect();
            vec![word]
        }
        SessionEvent::Taken { call } => {
            guest.forget(call);
            vec![reply("taken", &Value::Null, Some(call))]
        }
        SessionEvent::Call { call, event } => {
            if matches!(event, CallEvent::Ended { .. }) {
                guest.forget(call);
            }
            vec![happened(call, &event)]
        }
        SessionEvent::Registration { state } => {
            let mut word = reply("registration", &Value::Null, None);
            word["state"] = state.name().into();
            if let RegistrationState::Failed { status: Some(status) } = state {
                word["status"] = status.into();
            }
            vec![word]
        }
        // Said when the session's events end, in the same words for all reasons.
        SessionEvent::SignedOut { reason } => {
            guest.leave(reason);
            Vec::new()
        }
        SessionEvent::Registration { state } => {
            let mut word = reply("registration", &Value::Null, None);
            word["state"] = state.name().into();
            vec![word]
        }
        SessionEvent::SignedOut { reason } => {
            let mut word = reply("signed_out", &Value::Null, None);
            word["reason"] = reason.into();
            vec![word]
        }
    }
}

/// An event of a call.
pub fn happened(call: CallId, event: &CallEvent) -> Value {
    let mut word = reply("event", &Value::Null, Some(call));
    word["event"] = event.name().into();
    if let Value::Object(more) = describe(event) {
        word.as_object_mut().into_iter().for_each(|word| word.extend(more.clone()));
    }
    word
}

fn wrong(kind: &str, text: &str) -> Problem {
    Problem::new(StatusCode::BAD_REQUEST, kind, text)
}

/// Digits that telephony knows.
///
/// # Errors
/// The problem to answer with.
pub fn check_digits(digits: &str, duration: u16) -> Result<(), Problem> {
    let digit = |digit: u8| digit.is_ascii_digit() || b"ABCD*#".contains(&digit);
    let good =
        (1..=64).contains(&digits.len()) && digits.bytes().all(digit) && (70..=6000).contains(&duration);
    let text = "digits are 1 to 64 of 0-9A-D*#, each 70 to 6000 ms long";
    good.then_some(()).ok_or_else(|| wrong("digits", text))
}

/// A media type without parameters or with plain ones, and a body of 8 KiB at most.
///
/// # Errors
/// The problem to answer with.
pub fn check_info(content_type: &str, body: &str) -> Result<(), Problem> {
    let octet = |octet: u8| (b' '..=b'~').contains(&octet);
    let typed = content_type.split_once('/').is_some_and(|(a, b)| is_token(a) && !b.is_empty());
    let good = typed && content_type.len() <= 128 && content_type.bytes().all(octet) && body.len() <= 8192;
    good.then_some(())
        .ok_or_else(|| wrong("info", "content_type is a media type, body has 8192 octets at most"))
}

/// A user, `user@host` or a `sip:` URI of those, as far as its octets go; whoever obeys it reads it in full.
///
/// # Errors
/// The problem to answer with.
pub fn check_destination(to: &str) -> Result<(), Problem> {
    let octet = |octet: u8| octet.is_ascii_graphic() && !b"<>\"?,".contains(&octet);
    let good = (1..=256).contains(&to.len()) && to.bytes().all(octet);
    good.then_some(())
        .ok_or_else(|| wrong("destination", "to is a number, user@host, or a sip: URI of those"))
}

/// Data that goes along as headers of the INVITE.
///
/// # Errors
/// The problem to answer with.
pub fn headers(data: BTreeMap<String, String>) -> Result<Vec<(String, String)>, Problem> {
    let named = |name: &str| {
        let known = name.get(..2).is_some_and(|start| start.eq_ignore_ascii_case("x-"));
        (known && is_token(name)) || name.eq_ignore_ascii_case("user-to-user")
    };
    let printable = |value: &str| !value.chars().any(char::is_control) && value.len() <= VALUE_MAX;
    let good = data.len() <= DATA_MAX && data.iter().all(|(name, value)| named(name) && printable(value));
    let text = "data holds 16 headers at most, named X-... or User-to-User, of one line each";
    if good { Ok(data.into_iter().collect()) } else { Err(wrong("data", text)) }
}

fn is_token(text: &str) -> bool {
    let octet = |octet: u8| octet.is_ascii_alphanumeric() || b"-.!%*_+`'~".contains(&octet);
    (1..=64).contains(&text.len()) && text.bytes().all(octet)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_message_is_refused() {
        for text in [
            "",
            "{}",
            "[]",
            "{\"type\":\"dance\"}",
            "{\"type\":\"call\"}",
            "{\"type\":\"ping\",\"ref\":[]}",
            "{\"type\":\"ping\",\"ref\":-1}",
            "{\"type\":\"decline\",\"call\":\"1\",\"status\":70000}",
        ] {
            let problem = Said::parse(text).unwrap_err();
            assert!(problem.kind == "urn:sallyport:message" && !problem.detail.is_empty(), "{text}");
        }
        let long = format!("{{\"type\":\"ping\",\"ref\":\"{}\"}}", "x".repeat(65));
        assert!(Said::parse(&long).is_err());
        assert!(
            Said::parse("{\"type\":\"ping\",\"ref\":7,\"new\":1}").is_ok(),
            "more members are for later versions"
        );
    }

    #[test]
    fn data_becomes_headers_and_nothing_else() {
        let one = |name: &str, value: &str| headers(BTreeMap::from([(name.to_owned(), value.to_owned())]));
        assert!(one("X-Basket", "7 books").is_ok() && one("User-to-User", "56a390;encoding=hex").is_ok());
        for (name, value) in
            [("Via", "x"), ("X-", "a\r\nVia: b"), ("X-A:", "b"), ("", ""), ("X-Ä", "x"), ("X-A", "a\u{85}b")]
        {
            assert!(one(name, value).is_err(), "{name:?} {value:?}");
        }
    }

    #[test]
    fn digits_types_and_destinations_are_what_they_should_be() {
        assert!(check_digits("0159*#AD", 70).is_ok());
        assert!(
            check_digits("", 100).is_err()
                && check_digits("E", 100).is_err()
                && check_digits("1", 69).is_err()
        );
        assert!(check_info("application/json; charset=utf-8", "{}").is_ok());
        assert!(check_info("json", "").is_err() && check_info("a/b\r\nVia: x", "").is_err());
        assert!(check_destination("sip:1000@example.com").is_ok() && check_destination("+4930123").is_ok());
        assert!(check_destination("1 2").is_err() && check_destination("a>\r\n").is_err());
    }
}
