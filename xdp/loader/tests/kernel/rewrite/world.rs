//! A call between two telephones inside: the first has a port each for RTP and RTCP, the second one for both.

use std::path::PathBuf;

use sallyport_abi::{Counter, Egress, FlowKey, INSIDE, OUTSIDE, Tally, Target};
use sallyport_xdp::{Kernel, Rewrite};

use crate::frames::{address, udp};
use crate::lab::{Lab, index};
use crate::runner::{By, Runner};

/// One way: zone, our address and port, and the telephone's.
pub type Path = (u8, &'static str, &'static str);

pub const MACS: ([u8; 6], [u8; 6]) = ([2, 0, 0, 0, 0, 0x11], [2, 0, 0, 0, 0, 0x22]);
pub const TRAFFIC_CLASS: u8 = 0xb8;
/// PCMU, PCMA, telephone-event, and the highest one.
pub const TYPES: [u8; 4] = [0, 8, 101, 127];

/// RTP and RTCP of a telephone.
#[derive(Clone, Copy)]
pub struct Phone {
    pub rtp: Path,
    pub rtcp: Path,
}

pub const V4: [Phone; 2] = [
    Phone {
        rtp: (INSIDE, "10.0.0.1:21000", "10.0.0.8:4000"),
        rtcp: (INSIDE, "10.0.0.1:21001", "10.0.0.8:4001"),
    },
    Phone {
        rtp: (INSIDE, "10.0.0.1:21002", "10.0.0.7:5000"),
        rtcp: (INSIDE, "10.0.0.1:21002", "10.0.0.7:5000"),
    },
];
pub const V6: [Phone; 2] = [
    Phone {
        rtp: (INSIDE, "[fd00::1]:21000", "[fd00::8]:4000"),
        rtcp: (INSIDE, "[fd00::1]:21001", "[fd00::18]:4001"),
    },
    Phone {
        rtp: (INSIDE, "[fd00::1]:21002", "[fd00::7]:5000"),
        rtcp: (INSIDE, "[fd00::1]:21002", "[fd00::7]:5000"),
    },
];
/// The second one is outside.
pub const ACROSS: [Phone; 2] = [
    V4[0],
    Phone {
        rtp: (OUTSIDE, "192.0.2.1:10000", "192.0.2.77:5000"),
        rtcp: (OUTSIDE, "192.0.2.1:10000", "192.0.2.77:5000"),
    },
];

pub fn key((zone, local, remote): Path) -> FlowKey {
    FlowKey::new(zone, address(local), address(remote))
}

/// Sends each telephone's flows to the other one. Tallies: 0 and 1 of the first, 2 of the second.
pub fn steer(kernel: &mut Kernel, phones: &[Phone; 2], egress: &dyn Fn(u8) -> Egress) {
    let payload_types = TYPES.iter().fold([0u64; 2], |mut bits, kind| {
        bits[usize::from(kind / 64)] |= 1 << (kind % 64);
        bits
    });
    let flows = [(phones[0].rtp, 1), (phones[0].rtcp, 1), (phones[1].rtp, 0)];
    for ((from, other), tally) in flows.into_iter().zip(0..) {
        let key = key(from);
        let target = |(zone, local, remote): Path| {
            Target::new(&key, address(local), address(remote), &egress(zone)).unwrap()
        };
        let rewrite =
            Rewrite { rtp: target(phones[other].rtp), rtcp: target(phones[other].rtcp), payload_types };
        kernel.clear_tally(tally).unwrap();
        kernel.steer_flow(&key, 0x0100_0001, 1, Some((&rewrite, tally))).unwrap();
    }
}

/// What became of a frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Sent {
    /// Back by the interface that it came in by: RTP or RTCP, and the frame.
    Back(Counter, Vec<u8>),
    /// By another interface.
    Across(Counter, Vec<u8>),
    /// To the worker, as it came but for what lies behind the datagram.
    Worker,
    /// Nowhere: its entry was another flow's by then.
    Stale,
}

const XDP_DROP: u32 = 1;
const XDP_TX: u32 = 3;
const XDP_REDIRECT: u32 = 4;

/// Octets of IP that the interface which it leaves by carries.
pub const MTU: u16 = 1700;

/// The program with such a call.
pub struct World {
    pub runner: Runner,
    /// Where its maps are pinned.
    pub pins: PathBuf,
}

impl World {
    /// In the appliance's namespace.
    pub fn new(lab: &Lab, phones: &[Phone; 2]) -> Self {
        let mut runner = Runner::new(lab);
        let egress = |zone| Egress {
            ifindex: index(if zone == INSIDE { "i0" } else { "o0" }),
            source_mac: MACS.0,
            destination_mac: MACS.1,
            dscp: TRAFFIC_CLASS >> 2,
            back: zone == INSIDE,
            mtu: MTU,
        };
        steer(&mut runner.kernel, phones, &egress);
        Self { runner, pins: lab.pins() }
    }

    /// Runs a frame that comes in inside. Exactly one counter moves, and the tally of the packet's flow if it is RTP that
    /// is sent on.
    pub fn run(&mut self, what: &str, frame: &[u8]) -> Sent {
        let (counters, tallies) = (self.runner.kernel.counters(), self.tallies());
        let (verdict, out) = self.runner.test_run(By::Inside, 0, &[], frame);
        let after = self.runner.kernel.counters();
        let moved: Vec<_> = after.iter().zip(&counters).filter(|(after, before)| after != before).collect();
        let [((name, value), (_, before))] = moved[..] else { panic!("{what}: {moved:?}") };
        assert_eq!(*value, before + 1, "{what}: {name}");
        let counter = Counter::ALL.into_iter().find(|counter| counter.name() == *name).unwrap();
        let packets = |tallies: &[Tally; 3]| tallies.iter().map(|tally| tally.packets).sum::<u64>();
        let counted = packets(&self.tallies()) - packets(&tallies);
        assert_eq!(counted, u64::from(counter == Counter::RewriteRtp), "{what}");
        match (verdict, counter) {
            (XDP_TX, Counter::RewriteRtp | Counter::RewriteRtcp) => Sent::Back(counter, out),
            (XDP_REDIRECT, Counter::RewriteRtp | Counter::RewriteRtcp) => Sent::Across(counter, out),
            (XDP_DROP, Counter::DropStaleFlow) => Sent::Stale,
            (XDP_REDIRECT, Counter::RedirectFlow) => {
                assert!(frame.starts_with(&out[16..]), "{what}: the frame was changed");
                Sent::Worker
            }
            other => panic!("{what}: {other:?}"),
        }
    }

    pub fn tallies(&self) -> [Tally; 3] {
        [0, 1, 2].map(|place| self.runner.kernel.tally(place).unwrap())
    }
}

/// A frame that a telephone sends.
pub fn sent_by((_, local, remote): Path, payload: &[u8]) -> Vec<u8> {
    udp(remote, local, payload)
}
