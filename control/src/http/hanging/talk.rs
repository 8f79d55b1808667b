//! Offers and answers in the manner of ROAP, for the calls of one browser.

use std::collections::BTreeMap;
use std::sync::{Arc, MutexGuard, PoisonError};

use axum::http::StatusCode;
use sallyport_plan::CallId;
use sallyport_proto::{CallEvent, Input};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::http::Shared;
use crate::http::calls::{Call, call_problem, create_problem};
use crate::http::checks::{check_info, data_headers};
use crate::http::guests::Guest;
use crate::http::problem::Problem;
use crate::message::{CreateError, Created, Handle, SessionEvent, Wish};
use crate::random;

/// Octets of a session id.
const ID_MAX: usize = 64;

/// A call as a page names it.
#[derive(Debug, Clone)]
pub struct Talk {
    call: CallId,
    /// The other party's number.
    peer: String,
    /// The page's id of the session; empty while an INVITE has no OFFER.
    offerer: String,
    /// Ours.
    answerer: String,
    seq: u32,
    state: State,
    /// The last ANSWER.
    answer: Option<Value>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// An INVITE waits for an OFFER.
    Invited,
    /// An OFFER waits for its ANSWER.
    Offered,
    /// Both sides agree.
    Settled,
}

/// What a page sends.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Said {
    message_type: Verb,
    #[serde(default)]
    offerer_session_id: String,
    #[serde(default)]
    answerer_session_id: String,
    #[serde(default)]
    seq: u32,
    /// Decides between two offers that cross; ours never do.
    #[serde(default, rename = "tieBreaker")]
    _tie_breaker: u32,
    sdp: Option<String>,
    /// Headers of the INVITE that the first offer becomes.
    #[serde(default)]
    data: BTreeMap<String, String>,
    status: Option<u16>,
    content_type: Option<String>,
    body: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
enum Verb {
    Offer,
    Answer,
    Ok,
    Error,
    Bye,
    Shutdown,
    Info,
    Stats,
}

impl Talk {
    fn word(&self, verb: &str) -> Value {
        json!({
            "messageType": verb,
            "offererSessionId": self.offerer,
            "answererSessionId": self.answerer,
            "seq": self.seq,
            "from": self.peer,
        })
    }

    fn told(&self, event: &CallEvent, progress: bool) -> Option<Value> {
        let mut word = match event {
            CallEvent::Asked { talk } => self.word(if *talk { "TALK" } else { "HOLD" }),
            CallEvent::Info { content_type, body } => {
                let mut word = self.word("INFO");
                word["contentType"] = content_type.as_str().into();
                word["body"] = String::from_utf8_lossy(body).into();
                word
            }
            CallEvent::Dtmf { digit, duration } => {
                let mut word = self.word("INFO");
                word["contentType"] = "application/dtmf-relay".into();
                word["body"] = format!("Signal={digit}\r\nDuration={duration}\r\n").into();
                word
            }
            CallEvent::Ended { cause } => {
                let mut word = self.word("BYE");
                word["cause"] = cause.name().into();
                word["detail"] = cause.text().into();
                word
            }
            _ if progress => self.word("EVENT"),
            _ => return None,
        };
        if word["messageType"] == "EVENT" {
            word["event"] = event.name().into();
        }
        Some(word)
    }

    fn error(&self, kind: &str, problem: &Problem) -> Value {
        let mut word = self.word("ERROR");
        word["errorType"] = kind.into();
        word["code"] = problem.kind.trim_start_matches("urn:sallyport:").into();
        word["detail"] = problem.detail.as_str().into();
        word["status"] = problem.sip_status.into();
        word
    }
}

fn talks(guest: &Guest) -> MutexGuard<'_, Vec<Talk>> {
    guest.talks.lock().unwrap_or_else(PoisonError::into_inner)
}

fn forget(guest: &Guest, call: CallId) -> Option<Talk> {
    guest.forget(call);
    let mut talks = talks(guest);
    let at = talks.iter().position(|talk| talk.call == call)?;
    Some(talks.remove(at))
}

/// What happened, as a page is told; `progress`: with steps of a call's life that ROAP has no word for.
pub fn told(guest: &Guest, event: SessionEvent, progress: bool) -> Vec<Value> {
    match event {
        SessionEvent::Incoming { call, from, to, headers, .. } => {
            if guest.enter(call).is_err() {
                return Vec::new();
            }
            let answerer = random::hex::<8>();
            let (offerer, state) = (String::new(), State::Invited);
            let talk = Talk { call, peer: from, offerer, answerer, seq: 0, state, answer: None };
            let mut word = talk.word("INVITE");
            word["to"] = to.into();
            word["headers"] = headers.iter().map(|(name, value)| json!([name, value])).collect();
            talks(guest).push(talk);
            vec![word]
        }
        SessionEvent::Taken { call } => {
            let bye = |talk: Talk| {
                let mut word = talk.word("BYE");
                word["cause"] = "taken".into();
                word
            };
            forget(guest, call).map(bye).into_iter().collect()
        }
        SessionEvent::Call { call, event } => {
            let ended = matches!(event, CallEvent::Ended { .. });
            let talk = if ended {
                forget(guest, call)
            } else {
                talks(guest).iter().find(|talk| talk.call == call).cloned()
            };
            // Whose first offer is not answered yet hears ERROR instead.
            let unanswered = |talk: &Talk| ended && talk.state == State::Offered && talk.answer.is_none();
            talk.filter(|talk| !unanswered(talk))
                .and_then(|talk| talk.told(&event, progress))
                .into_iter()
                .collect()
        }
        SessionEvent::Registration { state } if progress => {
            vec![json!({ "messageType": "EVENT", "event": "registration", "state": state.name() })]
        }
        SessionEvent::Registration { .. } => Vec::new(),
        SessionEvent::SignedOut { reason } => {
            guest.leave(reason);
            Vec::new()
        }
    }
}

/// One message of a page.
pub struct Errand<'a> {
    pub shared: &'a Shared,
    pub guest: &'a Arc<Guest>,
}

impl Errand<'_> {
    /// Obeys a message.
    ///
    /// # Errors
    /// The problem to answer the POST with.
    pub async fn obey(&self, said: Said, to: Option<String>) -> Result<(), Problem> {
        if said.offerer_session_id.len() > ID_MAX || said.answerer_session_id.len() > ID_MAX {
            return Err(bad("session ids have 64 octets at most"));
        }
        let talk = self.find(&said);
        match said.message_type {
            Verb::Offer => self.offer(said, talk, to),
            Verb::Answer => Err(bad("nothing was offered: we answer, and INVITE for an offer")),
            Verb::Ok => talk.map(drop).ok_or_else(no_match),
            Verb::Bye | Verb::Shutdown | Verb::Error => {
                self.bye(said.status, talk.ok_or_else(no_match)?).await
            }
            Verb::Info => {
                let talk = talk.ok_or_else(no_match)?;
                let (content_type, body) =
                    (said.content_type.unwrap_or_default(), said.body.unwrap_or_default());
                check_info(&content_type, &body)?;
                let input = Input::Info { content_type, body: body.into_bytes() };
                self.shared.calls.act(talk.call, input).await.map_err(call_problem)
            }
            Verb::Stats => self.stats(talk.ok_or_else(no_match)?),
        }
    }

    fn find(&self, said: &Said) -> Option<Talk> {
        let talks = talks(self.guest);
        let same = |talk: &&Talk| {
            let ours = said.answerer_session_id.is_empty() || said.answerer_session_id == talk.answerer;
            let theirs = talk.offerer == said.offerer_session_id
                || (talk.state == State::Invited && !said.answerer_session_id.is_empty());
            ours && theirs
        };
        talks.iter().find(same).cloned()
    }

    fn keep(&self, talk: &Talk) {
        let mut talks = talks(self.guest);
        match talks.iter_mut().find(|other| other.call == talk.call) {
            Some(other) => other.clone_from(talk),
            None => talks.push(talk.clone()),
        }
    }

    fn offer(&self, said: Said, talk: Option<Talk>, to: Option<String>) -> Result<(), Problem> {
        let sdp = said.sdp.ok_or_else(|| bad("an OFFER has an sdp"))?;
        if said.offerer_session_id.is_empty() {
            return Err(bad("an OFFER has an offererSessionId"));
        }
        let calls = self.shared.calls.clone();
        let Some(mut talk) = talk else {
            if !said.answerer_session_id.is_empty() {
                return Err(no_match());
            }
            let to = to.ok_or_else(|| bad("?to= is missing: whom to call"))?;
            let headers = data_headers(said.data)?;
            let (call, caller) = (Handle::name(), self.guest.caller());
            self.guest.enter(call)?;
            let answerer = random::hex::<8>();
            let (offerer, peer, seq) = (said.offerer_session_id, to.clone(), said.seq);
            let talk = Talk { call, peer, offerer, answerer, seq, state: State::Offered, answer: None };
            let wish = Wish { to, offer: sdp, caller, headers };
            return self.outcome(talk, async move { calls.create_as(call, wish).await });
        };
        if talk.state == State::Invited {
            (talk.offerer, talk.seq) = (said.offerer_session_id, said.seq);
            let (call, caller) = (talk.call, self.guest.caller());
            return self.outcome(talk, async move { calls.accept(call, sdp, caller).await });
        }
        if said.seq <= talk.seq {
            // It comes again: so does its answer, if there is one by now.
            if let Some(answer) = talk.answer.filter(|answer| answer["seq"] == said.seq) {
                self.guest.tell(answer);
            }
            return Ok(());
        }
        if talk.state == State::Offered {
            let text = "the last OFFER has no ANSWER yet";
            self.guest.tell(talk.error("CONFLICT", &Problem::new(StatusCode::CONFLICT, "conflict", text)));
            return Ok(());
        }
        talk.seq = said.seq;
        let call = talk.call;
        let answer =
            async move { calls.renegotiate(call, sdp).await.map(|answer| Created { id: call, answer }) };
        self.outcome(talk, answer)
    }

    /// Waits for the answer to an offer.
    fn outcome(
        &self,
        mut talk: Talk,
        answer: impl Future<Output = Result<Created, CreateError>> + Send + 'static,
    ) -> Result<(), Problem> {
        let (first, invited) = (talk.answer.is_none(), talk.state == State::Invited);
        talk.state = State::Offered;
        self.keep(&talk);
        let (guest, call) = (self.guest.clone(), talk.call);
        let deferred = self.guest.defer(async move {
            match answer.await {
                Ok(created) => {
                    let mut word = talk.word("ANSWER");
                    word["sdp"] = created.answer.into();
                    if let Some(kept) = talks(&guest).iter_mut().find(|kept| kept.call == talk.call) {
                        (kept.state, kept.answer) = (State::Settled, Some(word.clone()));
                    }
                    word
                }
                Err(error) => {
                    // An incoming call whose offer could not be used rings on.
                    let rings = invited && matches!(error, CreateError::Offer(_)) && guest.has(talk.call);
                    let kind = kind(&error);
                    if first && !rings {
                        forget(&guest, talk.call);
                    } else if let Some(kept) = talks(&guest).iter_mut().find(|kept| kept.call == talk.call) {
                        kept.state = if first { State::Invited } else { State::Settled };
                    }
                    talk.error(kind, &create_problem(error))
                }
            }
        });
        if deferred.is_err() && first && !invited {
            forget(self.guest, call);
        }
        deferred
    }

    async fn bye(&self, status: Option<u16>, talk: Talk) -> Result<(), Problem> {
        let calls = &self.shared.calls;
        let done = if talk.state == State::Invited {
            forget(self.guest, talk.call);
            let status = status.filter(|status| (400..=699).contains(status)).unwrap_or(486);
            calls.decline(talk.call, self.guest.id, status).await
        } else {
            forget(self.guest, talk.call);
            calls.hang_up(talk.call).await
        };
        self.guest.tell(talk.word("OK"));
        // It may have ended by itself a moment before.
        let _ = done;
        Ok(())
    }

    fn stats(&self, talk: Talk) -> Result<(), Problem> {
        let calls = self.shared.calls.clone();
        self.guest.defer(async move {
            match calls.show(talk.call).await {
                Ok(shown) => {
                    let mut word = talk.word("STATS");
                    word["stats"] =
                        serde_json::to_value(Call::new(&shown.view, &shown.directions)).unwrap_or_default();
                    word
                }
                Err(error) => talk.error("NOMATCH", &call_problem(error)),
            }
        })
    }
}

/// The draft's word for it (section 5.3.6).
fn kind(error: &CreateError) -> &'static str {
    match error {
        CreateError::Failed(failure) if failure.http_status() == 504 => "TIMEOUT",
        CreateError::Failed(failure) if failure.http_status() == 502 => "REFUSED",
        CreateError::Forbidden | CreateError::TooMany => "REFUSED",
        CreateError::Gone => "NOMATCH",
        _ => "FAILED",
    }
}

fn bad(text: &str) -> Problem {
    Problem::new(StatusCode::BAD_REQUEST, "message", text)
}

fn no_match() -> Problem {
    Problem::new(StatusCode::NOT_FOUND, "no_match", "there is no session of these ids")
}
