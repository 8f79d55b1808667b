//! Bursts of many calls against the same packets one after the other: same verdicts, same octets, same counters.

#![allow(clippy::unwrap_used, clippy::panic, clippy::cast_possible_truncation)]

mod common;
mod table;

use common::{Arrival, Bench, Out};
use proptest::prelude::*;
use sallyport_plan::{CallId, FlowKey, Plan, Profile, Protection};
use table::world::*;

const CALLS: u8 = 3;

/// The addresses of a call.
fn places(call: u8) -> Paths {
    let mut paths = paths();
    for flow in [&mut paths.outside, &mut paths.rtp, &mut paths.rtcp] {
        flow.remote.set_port(flow.remote.port() + 10 * u16::from(call));
    }
    paths
}

fn key_of(call: u8, side: u8) -> u8 {
    16 * call + side
}

fn bench(profile: Profile) -> Bench {
    let mut bench = Bench::new(CALLS.into(), 2 * usize::from(CALLS));
    for call in 0..CALLS {
        let mut plan = plan_with_consent(Some(profile), places(call));
        plan.directions[0].open = Some(Protection::Srtp(key(profile, key_of(call, 1))));
        plan.directions[1].seal = Some(Protection::Srtp(key(profile, key_of(call, 2))));
        bench.core.install(Plan { call: CallId(call.into()), ..plan }, bench.now).unwrap();
    }
    bench
}

/// What a network may bring.
#[derive(Debug, Clone)]
enum Op {
    Browser {
        call: u8,
        gap: u16,
        payload_type: u8,
    },
    BrowserReport {
        call: u8,
    },
    Again {
        back: u8,
    },
    Forged {
        back: u8,
        at: u16,
    },
    Agent {
        call: u8,
        ssrc: u8,
        step: i16,
    },
    AgentReport {
        call: u8,
        ssrc: u8,
    },
    Check {
        call: u8,
    },
    Stranger,
    Stale {
        call: u8,
    },
    Octets {
        call: u8,
        octets: Vec<u8>,
    },
    /// Time passes; the burst ends.
    Pause {
        micros: u32,
    },
}

fn op() -> impl Strategy<Value = Op> {
    let call = 0..CALLS;
    let gap = prop_oneof![8 => Just(1u16), 2 => 1u16..200, 1 => 1u16..3000];
    let step = prop_oneof![8 => Just(1i16), 2 => -140i16..140, 1 => any::<i16>()];
    prop_oneof![
        12 => (call.clone(), gap, prop_oneof![9 => Just(0u8), 1 => Just(13u8)])
            .prop_map(|(call, gap, payload_type)| Op::Browser { call, gap, payload_type }),
        2 => call.clone().prop_map(|call| Op::BrowserReport { call }),
        4 => (0u8..30).prop_map(|back| Op::Again { back }),
        3 => (0u8..30, any::<u16>()).prop_map(|(back, at)| Op::Forged { back, at }),
        12 => (call.clone(), 0u8..2, step).prop_map(|(call, ssrc, step)| Op::Agent { call, ssrc, step }),
        3 => (call.clone(), 0u8..2).prop_map(|(call, ssrc)| Op::AgentReport { call, ssrc }),
        2 => call.clone().prop_map(|call| Op::Check { call }),
        1 => Just(Op::Stranger),
        1 => call.clone().prop_map(|call| Op::Stale { call }),
        1 => (call, prop::collection::vec(any::<u8>(), 0..60))
            .prop_map(|(call, octets)| Op::Octets { call, octets }),
        2 => (0u32..60_000).prop_map(|micros| Op::Pause { micros }),
    ]
}

/// The peers of all calls.
struct Peers {
    browsers: Vec<Peer>,
    indices: Vec<u32>,
    agents: Vec<[u16; 2]>,
    sent: Vec<(FlowKey, Vec<u8>)>,
}

impl Peers {
    fn new(profile: Profile) -> Self {
        let peer = |call| Peer::new(&key(profile, key_of(call, 1)), &key(profile, key_of(call, 2)));
        Self {
            browsers: (0..CALLS).map(peer).collect(),
            indices: vec![65_400; CALLS.into()],
            agents: vec![[65_500, 100]; CALLS.into()],
            sent: vec![],
        }
    }

    fn seals(&mut self, call: u8, octets: Vec<u8>) -> (FlowKey, Vec<u8>) {
        let sent = (places(call).outside, octets);
        self.sent.push(sent.clone());
        sent
    }

    fn say(&mut self, op: Op) -> Option<(FlowKey, Vec<u8>)> {
        Some(match op {
            Op::Browser { call, gap, payload_type } => {
                let index = &mut self.indices[usize::from(call)];
                *index += u32::from(gap);
                let rtp = Rtp { payload_type, ..g711(5, *index as u16, *index * 160) };
                let octets = self.browsers[usize::from(call)].seal(&rtp.bytes());
                self.seals(call, octets)
            }
            Op::BrowserReport { call } => {
                let block = Block { ssrc: OUTSIDE_SSRC, highest: u32::from(OUTWARD_START) };
                let octets = self.browsers[usize::from(call)].seal_rtcp(&sender_report(5, 160, &[block]));
                self.seals(call, octets)
            }
            Op::Again { back } => self.sent.iter().rev().nth(back.into())?.clone(),
            Op::Forged { back, at } => {
                let (from, mut octets) = self.sent.iter().rev().nth(back.into())?.clone();
                let length = octets.len();
                octets[usize::from(at) % length] ^= 1 << (at % 8);
                (from, octets)
            }
            Op::Agent { call, ssrc, step } => {
                let sequence = &mut self.agents[usize::from(call)][usize::from(ssrc)];
                *sequence = sequence.wrapping_add_signed(step);
                (places(call).rtp, g711(u32::from(ssrc) + 50, *sequence, u32::from(*sequence) * 160).bytes())
            }
            Op::AgentReport { call, ssrc } => {
                let block = Block { ssrc: INSIDE_SSRC, highest: u32::from(INWARD_START) };
                (places(call).rtcp, sender_report(u32::from(ssrc) + 50, 320, &[block]))
            }
            Op::Check { call } => (places(call).outside, check().bytes()),
            Op::Stranger => (stranger(), check().bytes()),
            // A frame that waited in a ring: tagged as one call's, and of another's pair.
            Op::Stale { call } => (places(call).outside, vec![0x80; 40]),
            Op::Octets { call, octets } => (places(call).rtp, octets),
            Op::Pause { .. } => return None,
        })
    }
}

fn one_by_one(bench: &mut Bench, burst: &[Arrival]) -> Vec<Out> {
    let one = |packet: &Arrival| match packet.tag {
        Some(tag) => bench.tagged(tag, packet.from, &packet.octets),
        None => bench.send(packet.from, &packet.octets),
    };
    burst.iter().map(one).collect()
}

proptest! {
    #[test]
    fn a_burst_is_its_packets_one_by_one(ops in prop::collection::vec(op(), 1..600), gcm: bool) {
        let profile = if gcm { Profile::AeadAes128Gcm } else { Profile::AesCm128HmacSha1_80 };
        let (mut bursts, mut singles, mut peers) = (bench(profile), bench(profile), Peers::new(profile));
        let mut waiting = Vec::new();
        let mut forwarded = 0;
        for op in ops.into_iter().chain([Op::Pause { micros: 0 }]) {
            let stale = if let Op::Stale { call } = op {
                bursts.core.lookup(&places((call + 1) % CALLS).rtp)
            } else {
                None
            };
            if let Op::Pause { micros } = op {
                let (seen, wanted) = (bursts.burst(&waiting), one_by_one(&mut singles, &waiting));
                prop_assert_eq!(&seen, &wanted);
                forwarded += seen.iter().filter(|out| matches!(out, Out::Rtp(..) | Out::Rtcp(..))).count();
                waiting.clear();
                bursts.elapse(micros.into());
                singles.elapse(micros.into());
            } else if let Some((from, octets)) = peers.say(op) {
                let tag = stale.or_else(|| bursts.core.lookup(&from));
                waiting.push(Arrival { from, tag, octets });
            }
        }
        let (burst, single): (Vec<_>, Vec<_>) = (bursts.core.counters().collect(), singles.core.counters().collect());
        prop_assert_eq!(&burst, &single);
        for call in 0..CALLS {
            let call = CallId(call.into());
            prop_assert_eq!(bursts.core.report(call), singles.core.report(call));
            prop_assert_eq!(bursts.core.checkpoint_of(call), singles.core.checkpoint_of(call));
        }
        let sum = |counters: &[(&str, u64)]| {
            counters.iter().filter(|(name, _)| name.starts_with("forward")).map(|(_, value)| *value).sum::<u64>()
        };
        prop_assert_eq!(sum(&burst), forwarded as u64);
    }
}
