//! `query`, `delete` and `statistics` in the shape that rtpengine gives them. What we do not know is left out; numbers of
//! things that we never do (transcoding, recording) are 0.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use sallyport_plan::{DirectionReport, Medium, Status, Zone};
use sallyport_proto::ng::{BridgeMedium, BridgeTag, Protection, Value, Verb, ok};
use sallyport_proto::quality::{loss_percent, mos};

use super::ask::Described;
use crate::message::Overview;

/// Proxies that are told apart; what further ones ask is in the totals only.
const PROXIES_MAX: usize = 64;

/// Verbs under the names that statistics have for them.
const VERBS: [(Verb, &str); 7] = [
    (Verb::Ping, "ping"),
    (Verb::Offer, "offer"),
    (Verb::Answer, "answer"),
    (Verb::Delete, "delete"),
    (Verb::Query, "query"),
    (Verb::List, "list"),
    (Verb::Statistics, "stats"),
];

/// What one proxy has asked, or all of them.
#[derive(Debug, Default)]
struct Tally {
    by_verb: BTreeMap<&'static str, (u64, Duration)>,
    errors: u64,
}

impl Tally {
    fn count(&mut self, verb: Option<Verb>, took: Duration, failed: bool) {
        if let Some((_, name)) = VERBS.into_iter().find(|(own, _)| Some(*own) == verb) {
            let (count, duration) = self.by_verb.entry(name).or_default();
            *count += 1;
            *duration += took;
        }
        self.errors += u64::from(failed);
    }
}

/// Requests so far.
#[derive(Debug, Default)]
pub struct Tallies {
    all: Tally,
    proxies: BTreeMap<String, Tally>,
    rejected: u64,
}

impl Tallies {
    /// A request was answered; `verb`: where it was one at all, `rejected`: an offer for which there was no room.
    pub fn count(&mut self, proxy: &str, verb: Option<Verb>, took: Duration, failed: bool, rejected: bool) {
        self.all.count(verb, took, failed);
        self.rejected += u64::from(rejected);
        if self.proxies.contains_key(proxy) || self.proxies.len() < PROXIES_MAX {
            self.proxies.entry(proxy.to_owned()).or_default().count(verb, took, failed);
        }
    }

    fn value(&self) -> Value {
        let proxy = |(name, tally): (&String, &Tally)| {
            let mut members = vec![("proxy".to_owned(), Value::text(name))];
            for (_, verb) in VERBS {
                let (count, duration) = tally.by_verb.get(verb).copied().unwrap_or_default();
                members.push((format!("{verb}count"), Value::count(count)));
                members.push((format!("{verb}duration"), seconds(duration)));
            }
            members.push(("errorcount".to_owned(), Value::count(tally.errors)));
            dict(members)
        };
        let mut members = vec![("proxies".to_owned(), Value::List(self.proxies.iter().map(proxy).collect()))];
        for (_, verb) in VERBS {
            let count = self.all.by_verb.get(verb).map_or(0, |(count, _)| *count);
            members.push((format!("total{verb}count"), Value::count(count)));
        }
        dict(members)
    }
}

fn dict(members: Vec<(String, Value)>) -> Value {
    Value::Dict(members.into_iter().map(|(key, value)| (key.into_bytes(), value)).collect())
}

/// As text: bencode has no fractions.
fn seconds(duration: Duration) -> Value {
    Value::text(format!("{:.6}", duration.as_secs_f64()))
}

/// Calls that a query or delete meant: branches together.
pub fn calls(shown: &[(&Described, Vec<DirectionReport>)]) -> Value {
    let mut tags = BTreeMap::new();
    let mut totals = [0, 0, 0];
    let mut sources = BTreeMap::new();
    for (call, directions) in shown {
        for report in directions {
            if let Some(source) = report.quality.source {
                let reverse = directions.iter().find(|other| other.index.0 == report.index.0 ^ 1);
                let heard = heard(report, reverse);
                sources.insert(source.0.to_string().into_bytes(), heard);
            }
            totals.iter_mut().zip(numbers(report)).for_each(|(total, number)| *total += number);
        }
        for (at, tag) in call.tags.iter().enumerate() {
            tags.insert(tag.tag.clone().into_bytes(), side(call, at, tag, directions));
        }
    }
    let created = shown.iter().map(|(call, _)| call.created).min().unwrap_or_default();
    let signalled = shown.iter().map(|(call, _)| call.signalled).max().unwrap_or_default();
    ok([
        ("created", Value::count(created / 1000)),
        ("created_us", Value::count(created % 1000 * 1000)),
        ("last signal", Value::count(signalled / 1000)),
        ("SSRC", Value::Dict(sources)),
        ("tags", Value::Dict(tags)),
        ("totals", Value::dict([("RTP", stats(totals)), ("RTCP", stats([0, 0, 0]))])),
    ])
}

/// One source as rtpengine tells of it: scores are tenths, losses percent, jitter milliseconds, round trips microseconds. Scores
/// are not kept over time, so the average is the one that there is.
fn heard(report: &DirectionReport, reverse: Option<&DirectionReport>) -> Value {
    let quality = &report.quality;
    let mut members = vec![("cumulative loss", Value::count(u64::try_from(report.lost).unwrap_or_default()))];
    if let Some(score) = mos(report, reverse, None) {
        let mut average = vec![
            ("MOS", whole(score * 10.0)),
            ("jitter", Value::count(quality.jitter_us / 1000)),
            ("packet loss", whole(loss_percent(report))),
            ("samples", Value::count(1u32)),
        ];
        average.extend(quality.round_trip_us.map(|trip| ("round-trip time", Value::count(trip))));
        members.push(("average MOS", Value::dict(average)));
    }
    Value::dict(members)
}

/// The nearest whole number of what is neither negative nor large.
fn whole(value: f64) -> Value {
    #[allow(clippy::cast_possible_truncation, reason = "a score or a percentage")]
    Value::Int(value.round() as i64)
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

fn words(words: &[&str]) -> Value {
    Value::List(words.iter().map(Value::text).collect())
}

/// One side of a section.
fn medium(tag: &BridgeTag, medium: &BridgeMedium, directions: &[DirectionReport]) -> Value {
    let report = directions.iter().find(|report| report.index.0 == medium.direction);
    let mut streams = vec![stream(medium, if medium.mux { &["RTP", "RTCP"] } else { &["RTP"] }, report)];
    if !medium.mux {
        let rtcp = |pair: Option<(SocketAddr, SocketAddr)>| pair.map(|(_, rtcp)| (rtcp, rtcp));
        let odd = BridgeMedium { local: rtcp(medium.local), remote: rtcp(medium.remote), ..medium.clone() };
        streams.push(stream(&odd, &["RTCP"], None));
    }
    Value::dict([
        ("index", Value::count(u64::try_from(medium.place + 1).unwrap_or_default())),
        (
            "type",
            Value::text(match medium.medium {
                Medium::Audio => "audio",
                Medium::Video => "video",
            }),
        ),
        ("protocol", Value::text(medium.profile.name())),
        ("interface", Value::text(if tag.zone == Zone::Outside { "external" } else { "internal" })),
        ("streams", Value::List(streams)),
        ("flags", medium_flags(tag, medium)),
    ])
}

/// One side with its sections.
fn side(call: &Described, at: usize, tag: &BridgeTag, directions: &[DirectionReport]) -> Value {
    let other = call.tags.get(1 - at.min(1)).map(|other| other.tag.as_str()).unwrap_or_default();
    let dialogue = || {
        let one = [("tag", Value::text(other)), ("type", Value::text("offer/answer"))];
        Value::List(if other.is_empty() { Vec::new() } else { vec![Value::dict(one)] })
    };
    Value::dict([
        ("tag", Value::text(&tag.tag)),
        ("created", Value::count(call.created / 1000)),
        ("in dialogue with", Value::text(other)),
        ("subscriptions", dialogue()),
        ("subscribers", dialogue()),
        ("medias", Value::List(tag.medias.iter().map(|one| medium(tag, one, directions)).collect())),
    ])
}

fn medium_flags(tag: &BridgeTag, medium: &BridgeMedium) -> Value {
    let outside = tag.zone == Zone::Outside;
    let flags = [
        ("initialized", true),
        ("send", medium.receives),
        ("recv", medium.sends),
        ("rtcp-mux", medium.mux),
        ("DTLS-SRTP", medium.profile.protection == Protection::Dtls),
        ("SDES", medium.profile.protection == Protection::Sdes),
        ("ICE", outside),
    ];
    Value::List(flags.into_iter().filter(|(_, is)| *is).map(|(name, _)| Value::text(name)).collect())
}

fn stream(medium: &BridgeMedium, flags: &[&str], report: Option<&DirectionReport>) -> Value {
    let mut members = vec![
        ("stats", stats(report.map(numbers).unwrap_or_default())),
        (
            "flags",
            words(&if medium.remote.is_some() { [flags, &["filled"]].concat() } else { flags.to_vec() }),
        ),
    ];
    if let Some((local, _)) = medium.local {
        members.push(("local port", Value::count(local.port())));
        members.push(("local address", Value::text(local.ip().to_string())));
        members.push(("family", Value::text(family(local))));
    }
    if let Some((remote, _)) = medium.remote {
        let endpoint = || {
            Value::dict([
                ("family", Value::text(family(remote))),
                ("address", Value::text(remote.ip().to_string())),
                ("port", Value::count(remote.port())),
            ])
        };
        members.push(("endpoint", endpoint()));
        members.push(("advertised endpoint", endpoint()));
    }
    Value::dict(members)
}

const fn family(address: SocketAddr) -> &'static str {
    if address.is_ipv4() { "IPv4" } else { "IPv6" }
}

/// All numbers. Calls of REST are in them: they are sessions too.
pub fn statistics(overview: &Overview, tallies: &Tallies, uptime: Duration) -> Value {
    let none = || Value::Int(0);
    let sessions = || Value::count(overview.active + overview.setup);
    let ended = |causes: &[&str]| -> u64 {
        let of = |(cause, count): &(&str, u64)| if causes.contains(cause) { *count } else { 0 };
        overview.ended.iter().map(of).sum()
    };
    let managed: u64 = overview.ended.iter().map(|(_, count)| count).sum();
    let (silent, offers) = (ended(&["ice_timeout", "consent_lost", "dtls_failed"]), ended(&["ring_timeout"]));
    let regular = ended(&["hang_up", "remote_hang_up", "dtls_closed"]);
    let counter = |name: &str| {
        let counters = overview.relay.iter().flat_map(|status| &status.counters);
        counters.filter(|counter| counter.name == name).map(|counter| counter.value).sum::<u64>()
    };
    let current = Value::dict([
        ("sessionsown", sessions()),
        ("sessionsforeign", none()),
        ("sessionstotal", sessions()),
        ("sessionssetup", Value::count(overview.setup)),
        ("transcodedmedia", none()),
    ]);
    let total = Value::dict([
        ("uptime", Value::text(uptime.as_secs().to_string())),
        ("managedsessions", Value::count(managed)),
        ("begunsessions", Value::count(overview.begun)),
        ("rejectedsessions", Value::count(tallies.rejected)),
        ("timeoutsessions", Value::count(silent)),
        ("silenttimeoutsessions", none()),
        ("finaltimeoutsessions", none()),
        ("offertimeoutsessions", Value::count(offers)),
        ("regularterminatedsessions", Value::count(regular)),
        ("forcedterminatedsessions", Value::count(managed - silent - offers - regular)),
        ("relayedpackets", Value::count(counter("forward_rtp") + counter("forward_rtcp"))),
    ]);
    let relay = overview.relay.iter().flat_map(|status| &status.counters);
    let relay = relay.map(|counter| (counter.name.clone(), Value::count(counter.value))).collect();
    ok([(
        "statistics",
        Value::dict([
            ("currentstatistics", current),
            ("totalstatistics", total),
            ("controlstatistics", tallies.value()),
            ("interfaces", overview.relay.as_ref().map_or_else(|| Value::List(Vec::new()), interfaces)),
            ("transcoders", Value::List(Vec::new())),
            ("relay", dict(relay)),
        ]),
    )])
}

/// Media addresses with their ports. Pairs are taken inside only, and told of its first address.
fn interfaces(status: &Status) -> Value {
    let mut inside = u64::from(status.ports) * 2;
    let mut interfaces = Vec::new();
    for interface in &status.interfaces {
        let outside = interface.zone == Zone::Outside;
        for address in &interface.addresses {
            let totals = u64::from(interface.port_max - interface.port_min.min(interface.port_max)) + 1;
            let used = if outside { 1 } else { std::mem::take(&mut inside) };
            #[allow(clippy::cast_precision_loss, reason = "ports are few")]
            let share = used as f64 * 100.0 / totals as f64;
            let ports = Value::dict([
                ("min", Value::count(interface.port_min)),
                ("max", Value::count(interface.port_max)),
                ("used", Value::count(used)),
                ("used_pct", Value::text(format!("{share:.2}"))),
                ("free", Value::count(totals.saturating_sub(used))),
                ("totals", Value::count(totals)),
            ]);
            interfaces.push(Value::dict([
                ("name", Value::text(if outside { "external" } else { "internal" })),
                ("address", Value::text(address.to_string())),
                ("ports", ports),
            ]));
        }
    }
    Value::List(interfaces)
}
