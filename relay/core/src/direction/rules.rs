//! The plan of a direction, as the packet path reads it.

use sallyport_plan::{Clock, Digits, Direction as Plan, Format, Mute, Passage, PtMap};

use super::path::Path;
use crate::extensions::Extensions;
use crate::reason::Reason;

/// The plan, as the packet path reads it.
pub struct Rules {
    /// The flow that feeds it with RTP; `None`: the plan has it.
    pub ingress: Option<Path>,
    /// Where RTP goes; `None`: the plan has it.
    pub rtp: Option<Path>,
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
    /// Whether its sender is asked for what is missing.
    pub nack: bool,
    /// Id of transport-wide sequence numbers.
    pub transport_wide: Option<u8>,
    /// Header extensions that leave; all others are taken out.
    pub extensions: Option<Box<Extensions>>,
    payload_types: PayloadTypes,
}

impl Rules {
    pub fn new(plan: &Plan) -> Self {
        let media = |map: &PtMap| if let Format::Media(clock) = map.format { Some(clock) } else { None };
        Self {
            ingress: plan.ingress.first().and_then(Path::of),
            rtp: Path::of(&plan.rtp),
            ssrc: plan.ssrc.0,
            clock: plan.payload_types.iter().find_map(media).unwrap_or(Clock::Hz8000),
            mute: plan.mute,
            passage: plan.passage,
            digits: plan.digits,
            nack: plan.extensions.nack,
            repeats: plan.payload_types.iter().any(|map| matches!(map.format, Format::Rtx(_))),
            forks: plan.fork.is_some(),
            transport_wide: plan.extensions.transport_wide,
            extensions: Extensions::new(&plan.extensions),
            payload_types: PayloadTypes::new(&plan.payload_types),
        }
    }

    /// Whether it has to know what is missing.
    pub const fn watches(&self) -> bool {
        self.repeats || self.nack
    }

    /// What a payload type becomes.
    #[inline]
    pub fn leaves(&self, payload_type: u8) -> Option<Leaves> {
        self.payload_types.leaves(payload_type)
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

/// Payload types that lie at hand: more than sound has.
const NEAR: usize = 8;

/// What payload types become.
struct PayloadTypes {
    /// The first ones, an octet each; where there are fewer, the rest are none.
    near: u64,
    becomes: [Leaves; NEAR],
    others: Box<[(u8, Leaves)]>,
}

impl PayloadTypes {
    /// One in each octet of a word.
    const EACH: u64 = u64::MAX / 0xff;

    /// Of one that the list has twice the last entry counts.
    fn new(maps: &[PtMap]) -> Self {
        let mut all: Vec<(u8, Leaves)> = Vec::with_capacity(maps.len());
        for map in maps {
            let leaves = Leaves::new(map);
            match all.iter_mut().find(|(from, _)| *from == map.from.0) {
                Some((_, former)) => *former = leaves,
                None => all.push((map.from.0, leaves)),
            }
        }
        let (first, others) = all.split_at(all.len().min(NEAR));
        let mut near = [u8::MAX; NEAR];
        let mut becomes = [Leaves::UNMAPPED; NEAR];
        for ((from, leaves), entry) in near.iter_mut().zip(&mut becomes).zip(first) {
            (*from, *leaves) = *entry;
        }
        Self { near: u64::from_le_bytes(near), becomes, others: others.into() }
    }

    #[inline]
    fn leaves(&self, payload_type: u8) -> Option<Leaves> {
        // The octet that is the same becomes 0, and the lowest such octet is found by the borrow that it alone takes.
        let differ = self.near ^ (u64::from(payload_type) * Self::EACH);
        let same = differ.wrapping_sub(Self::EACH) & !differ & (Self::EACH << 7);
        if same != 0 {
            let leaves = self.becomes.get(same.trailing_zeros() as usize / 8).copied();
            return leaves.filter(|leaves| *leaves != Leaves::UNMAPPED);
        }
        self.others.iter().find(|(from, _)| *from == payload_type).map(|(_, leaves)| *leaves)
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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use sallyport_plan::Pt;

    use super::*;

    proptest! {
        #[test]
        fn payload_types_are_found_among_few_and_many(maps in prop::collection::vec((0u8..128, 0u8..128), 0..33)) {
            let media = Format::Media(Clock::Hz8000);
            let plan: Vec<_> = maps.iter().map(|(from, to)| PtMap { from: Pt(*from), to: Pt(*to), format: media }).collect();
            let types = PayloadTypes::new(&plan);
            for payload_type in 0..=u8::MAX {
                let expected = maps.iter().rfind(|(from, _)| *from == payload_type).map(|(_, to)| *to);
                prop_assert_eq!(types.leaves(payload_type).map(Leaves::payload_type), expected);
            }
        }
    }
}
