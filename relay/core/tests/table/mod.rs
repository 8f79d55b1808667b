//! Golden packets: state, bytes in, verdict, bytes out, and which counters move. Data only, so that any runner can play a
//! case: the core itself, a UDP port, AF_XDP on a cable. Include it by path; it needs the crates plan, wire, srtp and core.
//!
//! Between two packets of a case lie [`STEP`] microseconds; a case that depends on it is [`Case::timed`].

#![allow(dead_code, unused_imports, clippy::cast_possible_truncation)]

mod cases;
pub mod world;

pub use cases::cases;

use sallyport_core::Reason;
use sallyport_plan::{DirectionIndex, FlowKey, Plan, Profile};

use world::{INSIDE_SSRC, INWARD, OUTSIDE_SSRC, OUTWARD, Paths, Peer, Rtp};

/// Microseconds between two packets.
pub const STEP: u64 = 20_000;

/// One story: a plan, and packets that meet it in this order.
pub struct Case {
    pub name: &'static str,
    pub plan: Plan,
    pub steps: Vec<Step>,
    /// Whether bytes out depend on the time between packets.
    pub timed: bool,
}

/// What happens next.
pub enum Step {
    /// A newer plan is installed.
    Install(Plan),
    /// A datagram arrives.
    Packet(Datagram),
}

/// A datagram, what must become of it, and what it moves.
pub struct Datagram {
    pub from: FlowKey,
    pub bytes: Vec<u8>,
    pub expect: Expect,
    pub moves: Moves,
}

/// The verdict.
#[derive(Debug, PartialEq, Eq)]
pub enum Expect {
    Forward {
        to: FlowKey,
        rtcp: bool,
        bytes: Vec<u8>,
    },
    /// Back to where it came from.
    Reply(Vec<u8>),
    Consumed,
    Heard,
    Answered,
    /// To control, with the call where its flow is known; the bytes are as they came.
    Punt {
        known: bool,
    },
    Drop(Reason),
}

impl Expect {
    /// The one counter of the worker that moves.
    pub fn counter(&self) -> &'static str {
        match self {
            Self::Forward { rtcp: false, .. } => "forward_rtp",
            Self::Forward { rtcp: true, .. } => "forward_rtcp",
            Self::Reply(_) => "reply_stun",
            Self::Consumed => "consume_stun",
            Self::Heard => "consume_event",
            Self::Answered => "consume_rtcp",
            Self::Punt { known: true } => "punt_call",
            Self::Punt { known: false } => "punt_unknown",
            Self::Drop(reason) => reason.name(),
        }
    }
}

/// What moves in the report of one direction: nothing does in any other.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Moves {
    /// Which direction; `None` where no direction owns the packet.
    pub direction: Option<DirectionIndex>,
    pub packets: u64,
    pub octets: u64,
    pub lost: i64,
}

/// Writes a case. It plays the browser, and seals what the relay must seal, in the same order.
pub struct Script {
    case: Case,
    paths: Paths,
    browser: Option<Peer>,
    relay: Option<Peer>,
}

impl Script {
    fn new(name: &'static str, plan: Plan, profile: Option<Profile>, paths: Paths) -> Self {
        let peer = |seals, opens| profile.map(|p| Peer::new(&world::key(p, seals), &world::key(p, opens)));
        let browser = peer(world::FROM_BROWSER, world::TO_BROWSER);
        let relay = peer(world::TO_BROWSER, world::FROM_BROWSER);
        let case = Case { name, plan, steps: vec![], timed: false };
        Self { case, paths, browser, relay }
    }

    fn end(self) -> Case {
        self.case
    }

    fn install(&mut self, plan: Plan) {
        self.case.steps.push(Step::Install(plan));
    }

    fn packet(&mut self, from: FlowKey, bytes: Vec<u8>, expect: Expect, moves: Moves) {
        self.case.steps.push(Step::Packet(Datagram { from, bytes, expect, moves }));
    }

    /// The direction that a flow feeds.
    fn fed_by(&self, flow: FlowKey) -> Option<DirectionIndex> {
        let Paths { outside, rtp, rtcp } = self.paths;
        if flow == outside {
            return Some(INWARD);
        }
        (flow == rtp || flow == rtcp).then_some(OUTWARD)
    }

    fn drops(&mut self, from: FlowKey, bytes: Vec<u8>, reason: Reason) {
        self.drops_and_loses(from, bytes, reason, 0);
    }

    fn drops_and_loses(&mut self, from: FlowKey, bytes: Vec<u8>, reason: Reason, lost: i64) {
        let moves = Moves { direction: self.fed_by(from), lost, ..Moves::default() };
        self.packet(from, bytes, Expect::Drop(reason), moves);
    }

    fn punts(&mut self, from: FlowKey, bytes: Vec<u8>) {
        let known = self.fed_by(from).is_some();
        self.packet(from, bytes, Expect::Punt { known }, Moves::default());
    }

    fn replies(&mut self, bytes: Vec<u8>, answer: Vec<u8>) {
        self.packet(self.paths.outside, bytes, Expect::Reply(answer), Moves::default());
    }

    /// The browser's packet as it travels.
    fn sealed(&mut self, rtp: &Rtp) -> Vec<u8> {
        let bytes = rtp.bytes();
        self.browser.as_mut().map_or_else(|| bytes.clone(), |browser| browser.seal(&bytes))
    }

    fn sealed_rtcp(&mut self, rtcp: &[u8]) -> Vec<u8> {
        self.browser.as_mut().map_or_else(|| rtcp.to_vec(), |browser| browser.seal_rtcp(rtcp))
    }

    /// The browser sends `rtp`; the agent gets it as the `nth` packet of its stream (from 0), with this payload type.
    fn inward(&mut self, rtp: &Rtp, payload_type: u8, nth: i16, timestamp: u32, lost: i64) {
        let from = self.paths.outside;
        let bytes = self.sealed(rtp);
        let sequence = world::INWARD_START.wrapping_add_signed(nth);
        let out = Rtp { payload_type, ..rtp.leaves(INSIDE_SSRC, sequence, timestamp) };
        let expect = Expect::Forward { to: self.paths.rtp, rtcp: false, bytes: out.bytes() };
        let octets = rtp.payload.len() as u64;
        self.packet(from, bytes, expect, Moves { direction: Some(INWARD), packets: 1, octets, lost });
    }

    /// The agent sends `rtp`; the browser gets it likewise.
    fn outward(&mut self, rtp: &Rtp, payload_type: u8, nth: i16, timestamp: u32, lost: i64) {
        self.outward_as(rtp, &Rtp { payload_type, ..rtp.clone() }, nth, timestamp, lost);
    }

    /// The same, with another payload.
    fn outward_as(&mut self, rtp: &Rtp, leaves: &Rtp, nth: i16, timestamp: u32, lost: i64) {
        let sequence = world::OUTWARD_START.wrapping_add_signed(nth);
        let out = leaves.leaves(OUTSIDE_SSRC, sequence, timestamp).bytes();
        let out = self.relay.as_mut().map_or_else(|| out.clone(), |relay| relay.seal(&out));
        let expect = Expect::Forward { to: self.paths.outside, rtcp: false, bytes: out };
        let octets = rtp.payload.len() as u64;
        let moves = Moves { direction: Some(OUTWARD), packets: 1, octets, lost };
        self.packet(self.paths.rtp, rtp.bytes(), expect, moves);
    }

    /// The browser sends an event, of which control is told.
    fn heard(&mut self, rtp: &Rtp) {
        let bytes = self.sealed(rtp);
        let moves = Moves { direction: Some(INWARD), ..Moves::default() };
        self.packet(self.paths.outside, bytes, Expect::Heard, moves);
    }

    /// The browser sends a compound; the agent gets `out`.
    fn inward_rtcp(&mut self, rtcp: &[u8], out: Vec<u8>) {
        let bytes = self.sealed_rtcp(rtcp);
        let expect = Expect::Forward { to: self.paths.rtcp, rtcp: true, bytes: out };
        let moves = Moves { direction: Some(INWARD), ..Moves::default() };
        self.packet(self.paths.outside, bytes, expect, moves);
    }

    /// The agent sends a compound; the browser gets `out`.
    fn outward_rtcp(&mut self, rtcp: Vec<u8>, out: &[u8]) {
        let bytes = self.relay.as_mut().map_or_else(|| out.to_vec(), |relay| relay.seal_rtcp(out));
        let expect = Expect::Forward { to: self.paths.outside, rtcp: true, bytes };
        self.packet(self.paths.rtcp, rtcp, expect, Moves { direction: Some(OUTWARD), ..Moves::default() });
    }
}
