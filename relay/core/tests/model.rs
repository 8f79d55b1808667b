//! Generated histories: the core and a slow obvious model agree on every verdict, every octet and every counter.
//!
//! What the model stands for: a packet leaves only if it was sealed by the peer and is new, under keys, with consent, not
//! held; nothing is sealed twice under an index; what leaves is one monotonic stream.

#![allow(clippy::unwrap_used, clippy::panic, clippy::cast_possible_truncation)]

mod common;
mod slow;
mod table;

use std::collections::BTreeMap;

use common::{Bench, Out};
use proptest::prelude::*;
use proptest::test_runner::FileFailurePersistence;
use sallyport_core::{CoreEvent, Reason};
use sallyport_plan::{CallId, Mute, Plan, Profile, Protection};
use sallyport_wire::stun::Message;
use slow::{Numbers, Sealed, Seen, Stream};
use table::world::*;

const LAPSE: u64 = 30_000_000;
/// How long a former key is kept where nothing comes under the new one, and once something has.
const PATIENCE: u64 = 32_000_000;
const REORDER: u64 = 500_000;

#[derive(Debug, Clone)]
enum Op {
    /// The browser seals a packet; it arrives at once, or stays on its way.
    Speak { source: u8, gap: u16, kind: usize, arrives: bool },
    /// One of the packets that the browser has ever sealed arrives (again).
    Again { back: u8 },
    /// The same, with a bit turned over behind the header.
    Forge { back: u8, at: u16, bit: u8 },
    /// The browser seals a report, and one of the last reports arrives.
    Report { back: u8 },
    /// The agent speaks.
    Agent { source: u8, step: i32, kind: usize, clock: u8 },
    /// The agent reports.
    AgentReport,
    /// Somebody else sends what the browser would.
    Stranger { back: u8 },
    /// Time passes; the timer runs where it is due, and the browser answers or does not.
    Wait { micros: u32, answers: bool },
    /// A newer plan.
    Install { held: [bool; 2], rekey: bool, ice: bool },
}

fn op() -> impl Strategy<Value = Op> {
    let gap = prop_oneof![12 => Just(1u16), 3 => 2u16..200, 1 => 200u16..3000];
    let step = prop_oneof![12 => Just(1i32), 3 => -140i32..140, 1 => -3000i32..3000, 1 => -32768i32..32768];
    let kind = prop_oneof![12 => Just(0usize), 2 => 0usize..KINDS.len()];
    prop_oneof![
        10 => (0u8..3, gap, kind.clone(), prop::bool::weighted(0.7))
            .prop_map(|(source, gap, kind, arrives)| Op::Speak { source, gap, kind, arrives }),
        5 => (0u8..40).prop_map(|back| Op::Again { back }),
        3 => (0u8..40, any::<u16>(), 0u8..8).prop_map(|(back, at, bit)| Op::Forge { back, at, bit }),
        2 => (0u8..4).prop_map(|back| Op::Report { back }),
        10 => (0u8..3, step, kind, prop_oneof![9 => Just(0u8), 1 => 0u8..4])
            .prop_map(|(source, step, kind, clock)| Op::Agent { source, step, kind, clock }),
        1 => Just(Op::AgentReport),
        1 => (0u8..40).prop_map(|back| Op::Stranger { back }),
        4 => (0u32..9_000_000, prop::bool::weighted(0.6)).prop_map(|(micros, answers)| Op::Wait { micros, answers }),
        2 => (any::<[bool; 2]>(), prop::bool::weighted(0.3), any::<bool>())
            .prop_map(|([a, b], rekey, ice)| Op::Install { held: [a && b, a && !b], rekey, ice }),
    ]
}

/// What a packet carries: its type outside and inside, the clock of its timestamps, and of an event, the clocks of its
/// durations.
struct Kind {
    types: (u8, u8),
    clock: i64,
    event: Option<(f64, f64)>,
}

const KINDS: [Kind; 5] = [
    Kind { types: (0, 0), clock: 8000, event: None },
    Kind { types: (111, 96), clock: 48_000, event: None },
    Kind { types: (126, 101), clock: 8000, event: Some((8000.0, 8000.0)) },
    Kind { types: (110, 102), clock: 8000, event: Some((48_000.0, 8000.0)) },
    // Comfort noise, which neither side knows of the other.
    Kind { types: (13, 13), clock: 8000, event: None },
];
const UNKNOWN: usize = 4;

impl Kind {
    fn numbers(&self, rtp: &Rtp) -> Numbers {
        let Rtp { ssrc: source, sequence, timestamp, .. } = *rtp;
        Numbers { source, sequence, timestamp, clock: self.clock, event: self.event.is_some() }
    }

    /// The packet as it leaves.
    fn leaves(&self, rtp: &Rtp, inward: bool, ssrc: u32, (sequence, timestamp): (u16, u32)) -> Rtp {
        let (outside, inside) = self.types;
        let mut leaves = rtp.leaves(ssrc, sequence, timestamp);
        leaves.payload_type = if inward { inside } else { outside };
        if let Some((outside, inside)) = self.event {
            let (from, to) = if inward { (outside, inside) } else { (inside, outside) };
            leaves.payload = slow::scale(&rtp.payload, from, to);
        }
        leaves
    }
}

/// A packet that the browser sealed once.
#[derive(Clone)]
struct Sent {
    epoch: u8,
    kind: usize,
    rtp: Rtp,
    index: i64,
    bytes: Vec<u8>,
}

/// What was opened under the key of an epoch.
#[derive(Default)]
struct Opened {
    epoch: u8,
    rtp: Seen,
    rtcp: Seen,
}

impl Opened {
    fn judge(&mut self, report: bool, packet: &Packet) -> Result<(), Reason> {
        let (seen, bits) = if report { (&mut self.rtcp, 31) } else { (&mut self.rtp, 16) };
        let index = packet.index.filter(|_| packet.epoch == self.epoch);
        seen.judge(packet.ssrc, packet.sequence, bits, index)
    }
}

/// A sealed packet as it arrives; `index`: `None` where it was changed on the way.
struct Packet {
    epoch: u8,
    ssrc: u32,
    sequence: i64,
    index: Option<i64>,
}

struct World {
    bench: Bench,
    profile: Profile,
    version: u32,
    /// Generation of keys, 0 for none, and of ICE credentials.
    epoch: u8,
    generation: u32,
    held: [bool; 2],
    browser: Option<Peer>,
    sent: Vec<Sent>,
    /// The browser's next index by source.
    spoken: BTreeMap<u8, i64>,
    reports: Vec<(u8, i64, Vec<u8>)>,
    agent: BTreeMap<u8, u16>,
    // What the model knows.
    opened: Opened,
    /// Of the key before, until when; the new one has opened nothing before that is known.
    former: Option<(Opened, u64)>,
    met: bool,
    sealed: Sealed,
    streams: [Stream; 2],
    confirmed: u64,
    lapsed: bool,
    drops: BTreeMap<&'static str, u64>,
    passed: [u64; 2],
    reported: u64,
    /// When each direction's peer last reported, and reports of the relay's own.
    last_report: [Option<u64>; 2],
    own_reports: u64,
}

impl World {
    fn new(profile: Profile) -> Self {
        let mut world = Self {
            bench: Bench::new(1, 2),
            profile,
            version: 0,
            epoch: 0,
            generation: 0,
            held: [false; 2],
            browser: None,
            sent: vec![],
            spoken: BTreeMap::new(),
            reports: vec![],
            agent: BTreeMap::new(),
            opened: Opened::default(),
            former: None,
            met: false,
            sealed: Sealed::default(),
            streams: [Stream::new(INWARD_START), Stream::new(OUTWARD_START)],
            confirmed: 1_000_000,
            lapsed: false,
            drops: BTreeMap::new(),
            passed: [0; 2],
            reported: 0,
            last_report: [None; 2],
            own_reports: 0,
        };
        world.install([false; 2], false, false);
        world
    }

    fn install(&mut self, held: [bool; 2], rekey: bool, ice: bool) {
        self.version += 1;
        for (stream, (was, is)) in self.streams.iter_mut().zip(self.held.into_iter().zip(held)) {
            if was && !is {
                stream.reopen();
            }
        }
        self.held = held;
        if rekey && self.epoch < 100 {
            self.epoch += 1;
            let keys = [2 * self.epoch, 2 * self.epoch + 1].map(|octet| key(self.profile, octet));
            self.browser = Some(Peer::new(&keys[0], &keys[1]));
            let opened =
                std::mem::replace(&mut self.opened, Opened { epoch: self.epoch, ..Opened::default() });
            let until = self.bench.now.0 + PATIENCE;
            if self.met {
                self.former = Some((opened, until));
            } else if let Some((_, former)) =
                self.former.as_mut().filter(|(_, former)| *former > self.bench.now.0)
            {
                *former = until;
            } else {
                self.former = (self.epoch > 1).then_some((opened, until));
            }
            self.met = false;
            self.sealed = Sealed::default();
            self.spoken.clear();
        }
        if ice {
            self.generation += 1;
            self.confirmed = self.bench.now.0;
            self.lapsed = false;
        }
        let mut plan = plan(None, paths());
        plan.version = self.version;
        if self.epoch > 0 {
            plan.directions[0].open = Some(Protection::Srtp(key(self.profile, 2 * self.epoch)));
            plan.directions[1].seal = Some(Protection::Srtp(key(self.profile, 2 * self.epoch + 1)));
        }
        for (direction, held) in plan.directions.iter_mut().zip(held) {
            direction.mute = if held { Mute::Held } else { Mute::Open };
        }
        let local_ufrag = format!("ufrag{}", self.generation);
        let mut consents = vec![consent(paths().outside)];
        consents[0].local_ufrag = local_ufrag;
        self.bench.core.install(Plan { consents, ..plan }, self.bench.now).unwrap();
    }

    /// Compares a verdict; the model's drop is counted.
    fn agree(&mut self, seen: Out, wanted: Result<Out, Reason>) {
        let wanted = wanted.unwrap_or_else(Out::Drop);
        if let Out::Drop(reason) = &wanted {
            *self.drops.entry(reason.name()).or_default() += 1;
        }
        assert_eq!(seen, wanted);
    }

    fn speak(&mut self, source: u8, gap: u16, kind: usize) -> Sent {
        // Every source begins in its first turn, as all do that follow RFC 3711.
        let next = self.spoken.entry(source).or_insert(1000 * i64::from(source));
        *next += i64::from(gap);
        let index = *next;
        // The packets of an event have one timestamp.
        let began = if KINDS[kind].event.is_some() { index / 8 * 8 } else { index };
        let timestamp = u32::try_from(began * 160 % (1 << 32)).unwrap();
        let mut rtp = g711(source.into(), (index & 0xffff) as u16, timestamp);
        rtp.payload_type = KINDS[kind].types.0;
        let bytes = rtp.bytes();
        let bytes = self.browser.as_mut().map_or_else(|| bytes.clone(), |browser| browser.seal(&bytes));
        let sent = Sent { epoch: self.epoch, kind, rtp, index, bytes };
        self.sent.push(sent.clone());
        sent
    }

    fn pick(&self, back: u8) -> Option<Sent> {
        self.sent.iter().rev().nth(back.into()).cloned()
    }

    /// Under one key or the other: the former one first until something has come under the new one.
    fn open(&mut self, report: bool, packet: &Packet) -> Result<(), Reason> {
        let now = self.bench.now.0;
        if self.former.as_ref().is_some_and(|(_, until)| *until <= now) {
            (self.former, self.met) = (None, true);
        }
        let (mut outcomes, met) = (Vec::new(), self.met || self.former.is_none());
        for new in [met, !met] {
            let opened =
                if new { Some(&mut self.opened) } else { self.former.as_mut().map(|(former, _)| former) };
            let Some(opened) = opened else { continue };
            outcomes.push(opened.judge(report, packet));
            if outcomes.last() == Some(&Ok(())) {
                if new && !self.met {
                    self.met = true;
                    if let Some((_, until)) = &mut self.former {
                        *until = (*until).min(now + REORDER);
                    }
                }
                return Ok(());
            }
        }
        outcomes.iter().copied().find(|one| *one != Err(Reason::BadTag)).unwrap_or(Err(Reason::BadTag))
    }

    /// What must become of a packet from the browser's pair.
    fn inward(&mut self, sent: &Sent, authentic: bool) -> Result<Out, Reason> {
        if self.lapsed {
            return Err(Reason::ConsentLost);
        }
        if self.epoch == 0 {
            return Err(Reason::Early);
        }
        let Rtp { ssrc, sequence, .. } = sent.rtp;
        let index = authentic.then_some(sent.index);
        self.open(false, &Packet { epoch: sent.epoch, ssrc, sequence: sequence.into(), index })?;
        if sent.kind == UNKNOWN {
            self.streams[0].skip(ssrc, sequence);
            return Err(Reason::PayloadType);
        }
        if self.held[0] {
            self.streams[0].hold(ssrc, sequence);
            return Err(Reason::Held);
        }
        let kind = &KINDS[sent.kind];
        let (out, timestamp) = self.streams[0].place(kind.numbers(&sent.rtp), self.bench.now.0)?;
        self.passed[0] += 1;
        let place = ((out & 0xffff) as u16, timestamp);
        Ok(Out::Rtp(paths().rtp, kind.leaves(&sent.rtp, true, INSIDE_SSRC, place).bytes()))
    }

    fn arrives(&mut self, sent: &Sent) {
        let wanted = self.inward(sent, true);
        let seen = self.bench.send(paths().outside, &sent.bytes);
        self.agree(seen, wanted);
    }

    fn forge(&mut self, sent: &Sent, at: u16, bit: u8) {
        let mut bytes = sent.bytes.clone();
        let behind = bytes.len() - 12;
        bytes[12 + usize::from(at) % behind] ^= 1 << bit;
        let wanted = self.inward(sent, false);
        let seen = self.bench.send(paths().outside, &bytes);
        self.agree(seen, wanted);
    }

    fn report(&mut self, back: u8) {
        let Some(browser) = &mut self.browser else { return };
        let index = self.reports.iter().filter(|(epoch, ..)| *epoch == self.epoch).count() as i64;
        let bytes = browser.seal_rtcp(&receiver_report(5, &[]));
        self.reports.push((self.epoch, index, bytes));
        let Some((epoch, index, bytes)) = self.reports.iter().rev().nth(back.into()).cloned() else { return };
        let wanted = if self.lapsed {
            Err(Reason::ConsentLost)
        } else {
            self.open(true, &Packet { epoch, ssrc: 5, sequence: index, index: Some(index) }).map(|()| {
                self.reported += 1;
                self.last_report[0] = Some(self.bench.now.0);
                let out = [receiver_report(INSIDE_SSRC, &[]), description(INSIDE_SSRC, "11110001")].concat();
                Out::Rtcp(paths().rtcp, out)
            })
        };
        let seen = self.bench.send(paths().outside, &bytes);
        self.agree(seen, wanted);
    }

    /// What must become of a packet of the agent: outgoing sequence and timestamp.
    fn outward(&mut self, rtp: &Rtp, kind: usize) -> Result<(u16, u32), Reason> {
        if self.lapsed {
            return Err(Reason::ConsentLost);
        }
        if kind == UNKNOWN {
            self.streams[1].skip(rtp.ssrc, rtp.sequence);
            return Err(Reason::PayloadType);
        }
        if self.epoch == 0 || self.held[1] {
            self.streams[1].hold(rtp.ssrc, rtp.sequence);
            return Err(if self.epoch == 0 { Reason::Early } else { Reason::Held });
        }
        let now = self.bench.now.0;
        let (out, timestamp) = self.streams[1].place(KINDS[kind].numbers(rtp), now)?;
        self.sealed.seal(out)?;
        self.passed[1] += 1;
        Ok(((out & 0xffff) as u16, timestamp))
    }

    fn agent(&mut self, source: u8, step: i32, kind: usize, clock: u8) {
        let sequence = self.agent.entry(source).or_insert(65_500);
        *sequence = sequence.wrapping_add((step & 0xffff) as u16);
        let began = u32::from(if KINDS[kind].event.is_some() { *sequence / 8 * 8 } else { *sequence });
        // Its clock may run by the packets, too fast, slowly from elsewhere, or stand.
        let timestamp = [began * 160, began << 14, began + 0x4000_0000, 7][usize::from(clock)];
        let mut rtp = g711(100 + u32::from(source), *sequence, timestamp);
        rtp.payload_type = KINDS[kind].types.1;
        let wanted = self.outward(&rtp, kind);
        let seen = self.bench.send(paths().rtp, &rtp.bytes());
        match wanted {
            Err(reason) => self.agree(seen, Err(reason)),
            Ok(place) => {
                // The browser's own replay window: it takes no index twice.
                let heard = self.browser.as_mut().unwrap().open(&seen.forwarded());
                assert_eq!(heard, KINDS[kind].leaves(&rtp, false, OUTSIDE_SSRC, place).bytes());
            }
        }
    }

    fn agent_report(&mut self) {
        let seen = self.bench.send(paths().rtcp, &receiver_report(100, &[]));
        if self.lapsed || self.epoch == 0 {
            let reason = if self.lapsed { Reason::ConsentLost } else { Reason::Early };
            self.agree(seen, Err(reason));
            return;
        }
        self.reported += 1;
        self.last_report[1] = Some(self.bench.now.0);
        let heard = self.browser.as_mut().unwrap().open_rtcp(&seen.forwarded());
        assert_eq!(
            heard,
            [receiver_report(OUTSIDE_SSRC, &[]), description(OUTSIDE_SSRC, "22220002")].concat()
        );
    }

    fn wait(&mut self, micros: u32, answers: bool) {
        self.bench.elapse(micros.into());
        let now = self.bench.now.0;
        let lapses = !self.lapsed && now - self.confirmed >= LAPSE;
        let checks = self.bench.timeout();
        let lost = CoreEvent::ConsentLost { call: CallId(1), flow: paths().outside };
        assert_eq!(self.bench.events(), if lapses { vec![lost] } else { vec![] });
        self.lapsed |= lapses;
        assert!(!self.lapsed || checks.is_empty(), "nothing is sent without consent");
        self.hear_reports();
        for (flow, check) in checks.into_iter().filter(|_| answers) {
            let id = Message::parse(&check).unwrap().transaction_id();
            assert_eq!(self.bench.send(flow, &answer(id, flow.local, REMOTE_PWD)), Out::Consumed);
            self.confirmed = now;
        }
    }

    /// Reports of the relay's own, to whom nobody else reports: the browser's last ones, and what they tell.
    fn hear_reports(&mut self) {
        let now = self.bench.now.0;
        for (flow, bytes) in self.bench.reports() {
            self.own_reports += 1;
            assert!(!self.lapsed, "nothing is sent without consent");
            let (at, ssrc, bytes) = if flow == paths().outside {
                (1, OUTSIDE_SSRC, self.browser.as_mut().unwrap().open_rtcp(&bytes))
            } else {
                (0, INSIDE_SSRC, bytes)
            };
            assert!(
                self.last_report[at].is_none_or(|last| now - last >= 12_500_000),
                "its peer reports itself"
            );
            let word = |at: usize| u32::from_be_bytes(bytes[at..at + 4].try_into().unwrap());
            assert_eq!(word(4), ssrc);
            let fixed = if bytes[1] == 200 { 28 } else { 8 };
            if fixed == 28 {
                assert_eq!((word(20), word(24)), (self.passed[at] as u32, 16 * self.passed[at] as u32));
            }
            if bytes[0] & 1 == 1 {
                let (source, numbers) = self.streams[1 - at].source().unwrap();
                assert_eq!((word(fixed), i64::from(word(fixed + 8))), (source, *numbers.last().unwrap()));
            }
        }
    }

    fn obey(&mut self, op: Op) {
        match op {
            Op::Speak { source, gap, kind, arrives } => {
                let sent = self.speak(source, gap, kind);
                if arrives {
                    self.arrives(&sent);
                }
            }
            Op::Again { back } => self.pick(back).iter().for_each(|sent| self.arrives(sent)),
            Op::Forge { back, at, bit } => self.pick(back).iter().for_each(|sent| self.forge(sent, at, bit)),
            Op::Report { back } => self.report(back),
            Op::Agent { source, step, kind, clock } => self.agent(source, step, kind, clock),
            Op::AgentReport => self.agent_report(),
            Op::Stranger { back } => {
                if let Some(sent) = self.pick(back) {
                    let seen = self.bench.send(stranger(), &sent.bytes);
                    self.agree(seen, Err(Reason::UnknownFlow));
                }
            }
            Op::Wait { micros, answers } => self.wait(micros, answers),
            Op::Install { held, rekey, ice } => self.install(held, rekey, ice),
        }
    }

    /// Every counter is what the model has counted.
    fn agree_on_numbers(&self) {
        for (name, value) in self.bench.core.counters() {
            let wanted = match name {
                "forward_rtp" => self.passed.iter().sum(),
                "forward_rtcp" => self.reported,
                "report_rtcp" => self.own_reports,
                "consume_stun" => value,
                _ => self.drops.get(name).copied().unwrap_or_default(),
            };
            assert_eq!(value, wanted, "{name}");
        }
        for (at, stream) in self.streams.iter().enumerate() {
            let report = self.bench.report(at);
            assert_eq!((report.packets, report.lost), (self.passed[at], stream.expected - stream.received));
            assert_eq!(report.octets, 16 * self.passed[at]);
            let quality = report.quality;
            assert_eq!((quality.received as i64, quality.missed as i64), (stream.received, stream.missed));
            assert_eq!((quality.reordered, quality.duplicates), (stream.reordered, stream.duplicates));
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig {
        failure_persistence: Some(Box::new(FileFailurePersistence::WithSource("regressions"))),
        ..ProptestConfig::default()
    })]

    #[test]
    fn the_core_does_what_the_model_says(ops in prop::collection::vec(op(), 1..400), gcm: bool) {
        let profile = if gcm { Profile::AeadAes128Gcm } else { Profile::AesCm128HmacSha1_80 };
        let mut world = World::new(profile);
        for op in ops {
            world.obey(op);
        }
        world.agree_on_numbers();
    }

    /// Whatever octets come by any flow: no panic, exactly one counter moves, and of a sealed leg nothing leaves.
    #[test]
    fn arbitrary_octets_are_survived(
        packets in prop::collection::vec((0usize..4, prop::collection::vec(any::<u8>(), 0..120), any::<u8>()), 1..60),
    ) {
        let mut bench = Bench::new(1, 2);
        bench.core.install(plan_with_consent(Some(Profile::AeadAes128Gcm), paths()), bench.now).unwrap();
        let flows = [paths().outside, paths().rtp, paths().rtcp, stranger()];
        for (from, mut bytes, kind) in packets {
            // Mostly something that gets further than its first octet.
            let head: &[u8] = match kind % 6 {
                0 => &[0x80, 0],
                1 => &[0xb1, 0x80],
                2 => &[0x81, 200, 0, 6],
                3 => &[0x80, 201, 0, 1],
                4 => &[0, 1, 0, 0, 0x21, 0x12, 0xa4, 0x42],
                _ => &[],
            };
            bytes.splice(..head.len().min(bytes.len()), head.iter().copied());
            if kind % 6 == 4 && bytes.len() >= 20 {
                let length = (bytes.len() - 20) / 4 * 4;
                bytes.truncate(20 + length);
                bytes[2..4].copy_from_slice(&(length as u16).to_be_bytes());
            }
            let before: u64 = bench.core.counters().map(|(_, value)| value).sum();
            let out = bench.send(flows[from], &bytes);
            let after: u64 = bench.core.counters().map(|(_, value)| value).sum();
            prop_assert_eq!(after, before + 1);
            let leaves = matches!(out, Out::Rtp(..) | Out::Rtcp(..));
            prop_assert!(!leaves || from == 1 || from == 2, "only the plain leg can be spoken to without a key");
        }
    }
}
