//! The state of one direction, and the way of one packet through it.

use sallyport_plan::{CallId, Direction as Plan, Mute, Protection, Pt};
use sallyport_srtp::{KeyError, OpenError, Opener, SealError, Sealer};
use sallyport_wire::PacketBuf;
use sallyport_wire::rtp::{self, Header};

use crate::Now;
use crate::packet::{Cleared, Payload};
use crate::reason::{Drops, Reason};
use crate::rtcp::{self, Names};
use crate::stream::Stream;

/// Names a direction within the relay: worker in the top 8 bits, slot below. Kernel flows carry it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct DirectionId(pub u32);

impl DirectionId {
    /// Of a worker's slot.
    pub const fn new(worker: u8, slot: u32) -> Self {
        Self(((worker as u32) << 24) | (slot & 0x00ff_ffff))
    }

    /// The worker that owns the direction.
    pub const fn worker(self) -> u8 {
        (self.0 >> 24) as u8
    }

    /// Its slot there.
    pub const fn slot(self) -> usize {
        (self.0 & 0x00ff_ffff) as usize
    }
}

/// What a packet of a known flow carries: whose it is. The epoch tells a slot's owners apart over time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Tag {
    /// Which direction.
    pub direction: DirectionId,
    /// Which owner of its slot.
    pub epoch: u32,
}

/// The opening half.
pub enum Open {
    /// The handshake has not ended.
    Waiting,
    /// The leg is plain.
    Plain,
    /// The leg is SRTP.
    Srtp(Box<Opener>),
}

/// The sealing half.
pub enum Seal {
    /// The handshake has not ended.
    Waiting,
    /// The leg is plain.
    Plain,
    /// The leg is SRTP.
    Srtp(Box<Sealer>),
}

impl Open {
    pub fn new(protection: Option<&Protection>) -> Result<Self, KeyError> {
        Ok(match protection {
            None => Self::Waiting,
            Some(Protection::Plain) => Self::Plain,
            Some(Protection::Srtp(key)) => Self::Srtp(Box::new(Opener::new(key)?)),
        })
    }
}

impl Seal {
    pub fn new(protection: Option<&Protection>) -> Result<Self, KeyError> {
        Ok(match protection {
            None => Self::Waiting,
            Some(Protection::Plain) => Self::Plain,
            Some(Protection::Srtp(key)) => Self::Srtp(Box::new(Sealer::new(key)?)),
        })
    }
}

/// No such payload type on this leg.
const UNMAPPED: u8 = 0xff;

/// One direction as it runs.
pub struct Direction {
    pub call: CallId,
    pub plan: Plan,
    pub open: Open,
    pub seal: Seal,
    pub stream: Stream,
    /// Slot of the direction that runs the other way.
    pub reverse: usize,
    /// Consent of a pair that it receives from or sends to has lapsed.
    pub lapsed: bool,
    pub drops: Drops,
    pub packets: u64,
    pub octets: u64,
    payload_types: [u8; 128],
}

impl Direction {
    pub fn new(call: CallId, plan: Plan, open: Open, seal: Seal) -> Self {
        let payload_types = table(&plan);
        Self {
            call,
            plan,
            open,
            seal,
            stream: Stream::default(),
            reverse: usize::MAX,
            lapsed: false,
            drops: Drops::default(),
            packets: 0,
            octets: 0,
            payload_types,
        }
    }

    /// Takes over a newer plan; state and counters stay.
    pub fn swap(&mut self, plan: Plan) {
        self.payload_types = table(&plan);
        self.plan = plan;
    }

    /// Opens, rewrites and seals one RTP packet.
    pub fn rtp(&mut self, buf: &mut PacketBuf<'_>, now: Now) -> Result<Cleared, Reason> {
        if self.lapsed {
            return Err(Reason::ConsentLost);
        }
        match &mut self.open {
            Open::Waiting => return Err(Reason::Early),
            Open::Plain => {}
            Open::Srtp(opener) => {
                opener.open_rtp(buf).map_err(open_reason)?;
            }
        }
        let octets = self.rewrite(buf, now)?;
        match &mut self.seal {
            Seal::Waiting => return Err(Reason::Early),
            Seal::Plain => {}
            Seal::Srtp(sealer) => sealer.seal_rtp(buf).map_err(seal_reason)?,
        }
        self.packets += 1;
        self.octets += octets;
        Ok(Cleared::new(self.plan.rtp, Payload::Rtp))
    }

    /// Rewrites an open packet; octets of its payload.
    fn rewrite(&mut self, buf: &mut PacketBuf<'_>, now: Now) -> Result<u64, Reason> {
        let header = Header::parse(buf.packet()).map_err(|_| Reason::Malformed)?;
        let padding = header.padding_len().map_err(|_| Reason::Malformed)?;
        let octets = (header.payload_len() - padding) as u64;
        let payload_type = self.payload_types[usize::from(header.payload_type())];
        if payload_type == UNMAPPED {
            return Err(Reason::PayloadType);
        }
        if self.plan.mute == Mute::Held {
            return Err(Reason::Held);
        }
        if matches!(self.seal, Seal::Waiting) {
            return Err(Reason::Early);
        }
        let clock = clock(Pt(header.payload_type()), &self.plan);
        let place = self.stream.place(header.ssrc(), header.sequence(), header.timestamp(), clock, now)?;
        // Extensions and contributing sources were agreed with one leg only.
        rtp::strip_extension(buf).map_err(|_| Reason::Malformed)?;
        let packet = buf.packet_mut();
        rtp::set_payload_type(packet, payload_type);
        rtp::set_sequence(packet, place.sequence);
        rtp::set_timestamp(packet, place.timestamp);
        rtp::set_ssrc(packet, self.plan.ssrc.0);
        Ok(octets)
    }

    /// What RTCP that runs with this direction needs to know; `reverse` runs the other way.
    pub fn names(&self, reverse: &Self) -> Names {
        Names {
            out_ssrc: self.plan.ssrc.0,
            in_ssrc: self.stream.source(),
            timestamp_offset: self.stream.timestamp_offset(),
            reverse_out_ssrc: reverse.plan.ssrc.0,
            reverse_in_ssrc: reverse.stream.source(),
            reverse_sequence_offset: reverse.stream.sequence_offset(),
        }
    }

    /// Opens, rewrites and seals one RTCP compound; whose names it speaks, the caller says.
    pub fn rtcp(
        &mut self,
        buf: &mut PacketBuf<'_>,
        names: impl FnOnce(&Self) -> Option<Names>,
    ) -> Result<Cleared, Reason> {
        if self.lapsed {
            return Err(Reason::ConsentLost);
        }
        match &mut self.open {
            Open::Waiting => return Err(Reason::Early),
            Open::Plain => {}
            Open::Srtp(opener) => {
                opener.open_rtcp(buf).map_err(open_reason)?;
            }
        }
        if matches!(self.seal, Seal::Waiting) {
            return Err(Reason::Early);
        }
        let names = names(self).ok_or(Reason::RtcpSource)?;
        rtcp::rewrite(buf, &names)?;
        if let Seal::Srtp(sealer) = &mut self.seal {
            sealer.seal_rtcp(buf).map_err(seal_reason)?;
        }
        Ok(Cleared::new(self.plan.rtcp, Payload::Rtcp))
    }
}

fn table(plan: &Plan) -> [u8; 128] {
    let mut table = [UNMAPPED; 128];
    for map in &plan.payload_types {
        if let Some(entry) = table.get_mut(usize::from(map.from.0)) {
            *entry = map.to.0 & 0x7f;
        }
    }
    table
}

/// Clock rate in Hz: the static types' own (RFC 3551 section 6), 90 kHz for other video, 48 kHz for other audio. It
/// only sets the timestamp step over a re-basing.
fn clock(payload_type: Pt, plan: &Plan) -> u32 {
    match (payload_type.0, plan.medium) {
        (0..=9 | 11..=18, sallyport_plan::Medium::Audio) => 8000,
        (_, sallyport_plan::Medium::Audio) => 48_000,
        (_, sallyport_plan::Medium::Video) => 90_000,
    }
}

fn open_reason(error: OpenError) -> Reason {
    match error {
        OpenError::Short | OpenError::Malformed => Reason::Malformed,
        OpenError::Tag => Reason::BadTag,
        OpenError::Replay => Reason::Replay,
        OpenError::TooOld => Reason::TooOld,
        OpenError::NotEncrypted => Reason::NotEncrypted,
    }
}

fn seal_reason(error: SealError) -> Reason {
    match error {
        SealError::Room => Reason::NoRoom,
        SealError::Malformed => Reason::Malformed,
        SealError::IndexReuse => Reason::IndexReuse,
        SealError::Exhausted | SealError::Sources => Reason::Exhausted,
    }
}
