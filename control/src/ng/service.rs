//! From a request to its answer.

use std::collections::HashSet;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use sallyport_plan::Refusal;
use sallyport_proto::EndCause;
use sallyport_proto::ng::{DecodeError, Frame, Request, Value, Verb, error, ok, pong, unknown_call};

use super::ask::Described;
use super::report::{self, Tallies};
use super::section::Section;
use crate::message::{CreateError, Handle};

/// A client has asked again by then.
const PATIENCE: Duration = Duration::from_secs(10);
/// What is said where there is no room for a call.
const FULL: &str = "Parallel session limit reached";
/// Names that are complained about, once each.
const COMPLAINTS_MAX: usize = 256;

/// Answers requests, from whatever listener.
#[derive(Debug)]
pub struct Service {
    calls: Handle,
    delete_delay: Duration,
    begun: Instant,
    complained: Mutex<HashSet<String>>,
    tallies: Mutex<Tallies>,
}

impl Service {
    /// Asks the owner of the calls.
    pub fn new(section: &Section, calls: Handle) -> Self {
        Self {
            calls,
            delete_delay: Duration::from_secs(section.delete_delay_s.into()),
            begun: Instant::now(),
            complained: Mutex::default(),
            tallies: Mutex::default(),
        }
    }

    /// The answer to a message, and who sent it; every message has one.
    pub async fn serve(&self, proxy: &str, frame: &Frame) -> Value {
        let asked = Instant::now();
        let (verb, reply) = match &frame.body {
            Err(error) => (None, self::error(error.to_string())),
            Ok(body) => match Request::parse(body) {
                Err(reason) => (None, error(reason)),
                Ok(request) => {
                    self.complain(&request);
                    let verb = request.verb;
                    let obeyed = tokio::time::timeout(PATIENCE, self.obey(request)).await;
                    (Some(verb), obeyed.unwrap_or_else(|_| error("The relay does not answer")))
                }
            },
        };
        let failed = reply.get("result").and_then(Value::as_str) == Some("error");
        let reason = reply.get("error-reason").and_then(Value::as_str).unwrap_or_default();
        if failed {
            tracing::debug!(request = ?verb, reason, "NG request refused");
        }
        let rejected = verb == Some(Verb::Offer) && reason == FULL;
        let mut tallies = self.tallies.lock().unwrap_or_else(PoisonError::into_inner);
        tallies.count(proxy, verb, asked.elapsed(), failed, rejected);
        reply
    }

    /// What closes a stream is answered before.
    pub fn broken(error: DecodeError) -> Value {
        self::error(error.to_string())
    }

    async fn obey(&self, request: Request) -> Value {
        match request.verb {
            Verb::Ping => pong(),
            Verb::Offer | Verb::Answer => match self.calls.ng_media(request).await {
                Ok(created) => ok([("sdp", Value::text(created.answer))]),
                Err(failure) => error(reason(failure)),
            },
            Verb::Delete => self.delete(request).await,
            Verb::Query => {
                let found = self.calls.ng_find(request.clone()).await;
                if found.is_empty() { unknown_call(&request) } else { self.describe(&found).await }
            }
            Verb::List => {
                let names = self.calls.ng_list(request.limit).await;
                ok([("calls", Value::List(names.into_iter().map(Value::text).collect()))])
            }
            Verb::Statistics => self.statistics().await,
        }
    }

    async fn delete(&self, request: Request) -> Value {
        let found = self.calls.ng_find(request.clone()).await;
        if found.is_empty() {
            return unknown_call(&request);
        }
        let told = self.describe(&found).await;
        let delay =
            request.delete_delay.map_or(self.delete_delay, |seconds| Duration::from_secs(seconds.into()));
        self.calls.ng_delete(found.iter().map(|call| call.id).collect(), delay).await;
        told
    }

    /// Sides and numbers of a call, branches together.
    async fn describe(&self, found: &[Described]) -> Value {
        let mut shown = Vec::new();
        for call in found {
            let directions = self.calls.show(call.id).await.map(|shown| shown.directions).unwrap_or_default();
            shown.push((call, directions));
        }
        report::calls(&shown)
    }

    async fn statistics(&self) -> Value {
        let Some(overview) = self.calls.overview().await else { return error("Going down") };
        let tallies = self.tallies.lock().unwrap_or_else(PoisonError::into_inner);
        report::statistics(&overview, &tallies, self.begun.elapsed())
    }

    /// Each name that means nothing to us is told once.
    fn complain(&self, request: &Request) {
        if request.flags.unknown.is_empty() {
            return;
        }
        let mut complained = self.complained.lock().unwrap_or_else(PoisonError::into_inner);
        for name in &request.flags.unknown {
            if complained.len() < COMPLAINTS_MAX && complained.insert(name.clone()) {
                // A stray value may hold anything: what is no name is not told.
                let plain =
                    name.bytes().all(|octet| octet.is_ascii_alphabetic() || b"-_ =/".contains(&octet));
                let name = if plain { name.as_str() } else { "(not a plain name)" };
                tracing::warn!(name, "an NG flag that means nothing here is ignored");
            }
        }
    }
}

/// `error-reason`, in rtpengine's words where it has some.
fn reason(failure: CreateError) -> String {
    match failure {
        CreateError::Failed(failure) => match failure.cause {
            EndCause::Refused(Refusal::NoPorts) => "Ran out of ports".into(),
            EndCause::Refused(Refusal::Full) => FULL.into(),
            _ => failure.text,
        },
        CreateError::Offer(error) => error.to_string(),
        CreateError::NoRelay => "The relay is away".into(),
        CreateError::Gone
        | CreateError::Forbidden
        | CreateError::UnknownSession
        | CreateError::Expired
        | CreateError::NoServer => "The relay has no media address".into(),
        CreateError::Draining => "Going down".into(),
        CreateError::Full | CreateError::TooMany => FULL.into(),
    }
}
