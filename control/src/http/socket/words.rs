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
        /// Of each, in milliseconds, 40 to 6000.
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
    /// To have a call again that a former control knew as its own.
    Claim {
        /// Which.
        call: String,
    },
    /// To stay signed in by another token.
    Renew {
        /// It.
        token: String,
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
        SessionEvent::Incoming { call, from, to, headers, video } => {
            if guest.enter(call).is_err() {
                return Vec::new();
            }
            let mut word = reply("incoming", &Value::Null, Some(call));
            word["from"] = from.into();
            word["to"] = to.into();
            word["video"] = video.into();
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
}
