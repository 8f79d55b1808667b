//! The plan of a direction, as the packet path reads it.

use sallyport_plan::{Clock, Digits, Direction as Plan, FlowKey, Format, Mute, Passage, PtMap};

use crate::extensions::Extensions;
use crate::reason::Reason;

/// The plan, as the packet path reads it.
pub struct Rules {
    pub ingress: [Option<FlowKey>; 2],
    pub rtp: FlowKey,
    pub rtcp: FlowKey,
    pub ssrc: u32,
    /// Clock of the first sound or picture, which events run beside.
    pub clock: Clock,
    pub mute: Mute,
    pub passage: Passage,
    pub digits: Digits,
    /// Whether a payload type is one of retransmissions.
    pub repeats: bool,
    /// Whether what leaves is copied.
    pub forks: bool,
    /// Id of transport-wide sequence numbers.
    pub transport_wide: Option<u8>,
    /// Header extensions that leave; all others are taken out.
    pub extensions: Option<Box<Extensions>>,
    payload_types: [Leaves; 128],
}

impl Rules {
    pub fn new(plan: &Plan) -> Self {
        let mut payload_types = [Leaves::UNMAPPED; 128];
        for map in &plan.payload_types {
            if let Some(entry) = payload_types.get_mut(usize::from(map.from.0)) {
                *entry = Leaves::new(map);
            }
        }
        let media = |map: &PtMap| if let Format::Media(clock) = map.format { Some(clock) } else { None };
        Self {
            ingress: [plan.ingress.first().copied(), plan.ingress.get(1).copied()],
            rtp: plan.rtp,
            rtcp: plan.rtcp,
            ssrc: plan.ssrc.0,
            clock: plan.payload_types.iter().find_map(media).unwrap_or(Clock::Hz8000),
            mute: plan.mute,
            passage: plan.passage,
            digits: plan.digits,
            repeats: plan.payload_types.iter().any(|map| matches!(map.format, Format::Rtx(_))),
            forks: plan.fork.is_some(),
            transport_wide: plan.extensions.transport_wide,
            extensions: Extensions::new(&plan.extensions),
            payload_types,
        }
    }

    /// What a payload type becomes.
    pub fn leaves(&self, payload_type: u8) -> Option<Leaves> {
        self.payload_types
            .get(usize::from(payload_type))
            .copied()
            .filter(|leaves| *leaves != Leaves::UNMAPPED)
    }

    /// Whether a packet of this type may leave as it came.
    pub fn lets_pass(&self, payload_type: u8) -> Result<(), Reason> {
        match self.mute {
            _ if self.leaves(payload_type).is_none() => Err(Reason::PayloadType),
            Mute::Held => Err(Reason::Held),
            Mute::Open => Ok(()),
        }
    }
}

/// What a payload type becomes, in two octets: the type, then the clocks that it comes and leaves with, then whether it is one
/// of named events.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Leaves(u16);

impl Leaves {
    const UNMAPPED: Self = Self(u16::MAX);
    /// Of retransmissions: a clock that there is none of, behind the type of what they repeat.
    const RTX: u16 = 0xe << 7;

    pub fn new(map: &PtMap) -> Self {
        let (from, to, event) = match map.format {
            Format::Media(clock) => (clock, clock, 0),
            Format::Event { from, to } => (from, to, 1),
            Format::Rtx(of) => return Self(u16::from(of.0 & 0x7f) | Self::RTX),
        };
        Self(u16::from(map.to.0 & 0x7f) | (from as u16) << 7 | (to as u16) << 11 | event << 15)
    }

    pub const fn payload_type(self) -> u8 {
        (self.0 & 0x7f) as u8
    }

    pub const fn is_event(self) -> bool {
        self.0 >> 15 == 1
    }

    /// The payload type of what such packets repeat, as it comes.
    pub fn repeats(self) -> Option<u8> {
        (self.0 >> 7 & 0xf == Self::RTX >> 7).then_some(self.payload_type())
    }

    /// Rates in Hz, as it comes and as it leaves.
    pub fn clocks(self) -> (u32, u32) {
        let hz = |at: u16| Clock::ALL.get(usize::from(self.0 >> at & 0xf)).map_or(0, |clock| clock.hz());
        (hz(7), hz(11))
    }
}
