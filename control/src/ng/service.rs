//! From a request to its answer.

use std::collections::{BTreeMap, HashSet};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use sallyport_plan::{DirectionReport, Refusal, Zone};
use sallyport_proto::EndCause;
use sallyport_proto::ng::{DecodeError, Frame, Request, Value, Verb, error, ok, pong, unknown_call};

use super::ask::{Described, Tag};
use super::section::Section;
use crate::message::{CreateError, Handle};

/// A client has asked again by then.
const PATIENCE: Duration = Duration::from_secs(10);
/// Names that are complained about, once each.
const COMPLAINTS_MAX: usize = 256;

/// Answers requests, from whatever listener.
#[derive(Debug)]
pub struct Service {
    calls: Handle,
    delete_delay: Duration,
    begun: Instant,
    complained: Mutex<HashSet<String>>,
    counts: Mutex<BTreeMap<&'static str, [u64; 2]>>,
}

impl Service {
    /// Asks the owner of the calls.
    pub fn new(section: &Section, calls: Handle) -> Self {
        Self {
            calls,
            delete_delay: Duration::from_secs(section.delete_delay_s.into()),
            begun: Instant::now(),
            complained: Mutex::default(),
            counts: Mutex::default(),
        }
    }

    /// The answer to a message; every message has one.
    pub async fn serve(&self, frame: &Frame) -> Value {
        let (name, reply) = match &frame.body {
            Err(error) => ("invalid", self::error(error.to_string())),
            Ok(body) => match Request::parse(body) {
                Err(reason) => ("invalid", error(reason)),
                Ok(request) => {
                    self.complain(&request);
                    let name = name(request.verb);
                    let obeyed = tokio::time::timeout(PATIENCE, self.obey(request)).await;
                    (name, obeyed.unwrap_or_else(|_| error("The relay does not answer")))
                }
            },
        };
        let failed = reply.get("result").and_then(Value::as_str) == Some("error");
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        let [asked, refused] = counts.entry(name).or_default();
        *asked += 1;
        *refused += u64::from(failed);
        if failed {
            let reason = reply.get("error-reason").and_then(Value::as_str).unwrap_or_default();
            tracing::debug!(request = name, reason, "NG request refused");
        }
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
        let mut tags = BTreeMap::new();
        let mut totals = [0, 0, 0];
        for call in found {
            let directions = self.calls.show(call.id).await.map(|shown| shown.directions).unwrap_or_default();
            for report in &directions {
                let numbers = numbers(report);
                totals.iter_mut().zip(numbers).for_each(|(total, number)| *total += number);
            }
            for (at, tag) in call.tags.iter().enumerate() {
                let report = directions.iter().find(|report| usize::from(report.index.0) == at);
                tags.insert(tag.tag.clone().into_bytes(), side(call, at, tag, report));
            }
        }
        let created = found.iter().map(|call| call.created).min().unwrap_or_default();
        ok([
            ("created", Value::count(created / 1000)),
            ("created_us", Value::count(created * 1000)),
            ("tags", Value::Dict(tags)),
            ("totals", Value::dict([("RTP", stats(totals)), ("RTCP", stats([0, 0, 0]))])),
        ])
    }

    async fn statistics(&self) -> Value {
        let Some(overview) = self.calls.overview().await else { return error("Going down") };
        let count = |number: u64| Value::count(number);
        let mut requests = BTreeMap::new();
        for (name, [asked, refused]) in self.counts.lock().unwrap_or_else(PoisonError::into_inner).iter() {
            let numbers = Value::dict([("requests", count(*asked)), ("errors", count(*refused))]);
            requests.insert(name.as_bytes().to_vec(), numbers);
        }
        let relay = overview.relay.map(|status| status.counters).unwrap_or_default();
        let relay =
            relay.into_iter().map(|counter| (counter.name.into_bytes(), count(counter.value))).collect();
        let ended: u64 = overview.ended.iter().map(|(_, number)| number).sum();
        let statistics = Value::dict([
            (
                "currentstatistics",
                Value::dict([
                    ("sessionsown", count(overview.active + overview.setup)),
                    ("sessionstotal", count(overview.active + overview.setup)),
                    ("sessionssetup", count(overview.setup)),
                ]),
            ),
            (
                "totalstatistics",
                Value::dict([
                    ("uptime", count(self.begun.elapsed().as_secs())),
                    ("managedsessions", count(ended)),
                    ("begunsessions", count(overview.begun)),
                ]),
            ),
            ("controlstatistics", Value::Dict(requests)),
            ("relay", Value::Dict(relay)),
        ]);
        ok([("statistics", statistics)])
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

const fn name(verb: Verb) -> &'static str {
    match verb {
        Verb::Ping => "ping",
        Verb::Offer => "offer",
        Verb::Answer => "answer",
        Verb::Delete => "delete",
        Verb::Query => "query",
        Verb::List => "list",
        Verb::Statistics => "statistics",
    }
}

/// `error-reason`, in rtpengine's words where it has some.
fn reason(failure: CreateError) -> String {
    match failure {
        CreateError::Failed(failure) => match failure.cause {
            EndCause::Refused(Refusal::NoPorts) => "Ran out of ports".into(),
            EndCause::Refused(Refusal::Full) => "Parallel session limit reached".into(),
            _ => failure.text,
        },
        CreateError::Offer(error) => error.to_string(),
        CreateError::NoRelay => "The relay is away".into(),
        CreateError::NoServer => "The relay has no media address".into(),
        CreateError::Draining => "Going down".into(),
        CreateError::Full | CreateError::TooMany => "Parallel session limit reached".into(),
    }
}

/// Packets, octets, errors.
fn numbers(report: &DirectionReport) -> [u64; 3] {
    [report.packets, report.octets, report.drops.iter().map(|drop| drop.value).sum()]
}

fn stats([packets, octets, errors]: [u64; 3]) -> Value {
    Value::dict([
        ("packets", Value::count(packets)),
        ("bytes", Value::count(octets)),
        ("errors", Value::count(errors)),
    ])
}

/// One side with its one medium.
fn side(call: &Described, at: usize, tag: &Tag, report: Option<&DirectionReport>) -> Value {
    let mut stream = vec![("stats", stats(report.map(numbers).unwrap_or_default()))];
    if let Some(local) = tag.local {
        stream.push(("local port", Value::count(local.port())));
    }
    if let Some(remote) = tag.remote {
        let family = if remote.is_ipv4() { "IPv4" } else { "IPv6" };
        let endpoint = [
            ("family", Value::text(family)),
            ("address", Value::text(remote.ip().to_string())),
            ("port", Value::count(remote.port())),
        ];
        stream.push(("endpoint", Value::dict(endpoint)));
    }
    let medium = Value::dict([
        ("index", Value::Int(1)),
        ("type", Value::text("audio")),
        ("protocol", Value::text(tag.profile)),
        ("interface", Value::text(if tag.zone == Zone::Outside { "external" } else { "internal" })),
        ("streams", Value::List(vec![Value::dict(stream)])),
    ]);
    let other = call.tags.get(1 - at.min(1)).map(|other| other.tag.clone()).unwrap_or_default();
    Value::dict([
        ("tag", Value::text(&tag.tag)),
        ("created", Value::count(call.created / 1000)),
        ("in dialogue with", Value::text(other)),
        ("medias", Value::List(vec![medium])),
    ])
}
