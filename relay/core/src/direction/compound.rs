//! RTCP on its way from one leg to the other, and what of it is answered here.

use arrayvec::ArrayVec;
use sallyport_plan::Passage;
use sallyport_wire::PacketBuf;

use super::{Direction, low, low_half};
use crate::Now;
use crate::feedback::{Bound, LOST};
use crate::limit::PICTURE;
use crate::reason::Reason;
use crate::reports;
use crate::resend::Asked;
use crate::rtcp::{self, Names};

/// What becomes of that which a compound asks for.
#[derive(Debug, Default)]
pub struct Lost {
    /// Packets that are to be sent again, by the numbers under which they left.
    pub again: ArrayVec<u16, LOST>,
    /// Those that were asked for too often, or with too many others.
    pub limited: u64,
    /// Those that their sender is asked for.
    pub forwarded: u64,
    /// The bandwidth that its sender asked for by TMMBR, which is owed an answer.
    pub bound: Option<Bound>,
}

impl Lost {
    /// Whether anything of it is answered here.
    pub fn is_answered(&self) -> bool {
        self.limited > 0 || !self.again.is_empty() || self.bound.is_some()
    }
}

impl Direction {
    /// Puts one open RTCP compound into the other leg's words; `reverse` is the direction that runs the other way, which may
    /// have packets that are to be sent again. Whether it asks for a whole picture.
    ///
    /// # Errors
    /// Why it does not leave.
    pub fn rewrite_rtcp(
        &mut self,
        buf: &mut PacketBuf<'_>,
        mut reverse: Option<&mut Self>,
        lost: &mut Lost,
        now: Now,
    ) -> Result<bool, Reason> {
        self.may_report()?;
        if self.rules.passage == Passage::Transparent {
            return rtcp::pass(buf.packet()).map(|()| false);
        }
        let heard = reports::hear(buf.packet(), reverse.as_ref().map(|reverse| reverse.rules.ssrc));
        let Self { stream, rules, packets, octets, cold, .. } = self;
        let round_trip = cold.reports.round_trip();
        let mut ring = reverse.as_mut().and_then(|reverse| reverse.ring.take());
        let names = Names {
            own_ssrc: rules.ssrc,
            source: stream.source(),
            timestamp_offset: stream.timestamp_offset(),
            counts: [low(*packets), low(*octets)],
            remb: cold.plan.extensions.remb,
            reverse: reverse.as_deref().and_then(|reverse| {
                Some((reverse.rules.ssrc, reverse.stream.origin()?, &reverse.cold.reports))
            }),
        };
        let (pictures, number) = &mut cold.pictures;
        let mut asks = false;
        let picture = || {
            asks = pictures.take(PICTURE, now);
            *number = number.wrapping_add(u8::from(asks));
            asks.then_some(*number)
        };
        let Lost { again, limited, forwarded, bound } = lost;
        let theirs = reverse.as_deref().filter(|reverse| reverse.rules.nack);
        let missing =
            theirs.and_then(|theirs| Some((theirs.cold.missing.as_ref()?, names.reverse?.1.offset)));
        // What is missing here as well its sender hears of from here.
        let asked_for = |sequence: u16| {
            missing.is_some_and(|(missing, offset)| missing.contains(sequence.wrapping_sub(low_half(offset))))
        };
        let mut named = 0;
        let answer = |sequence| {
            named += 1;
            // What one compound asks for beyond costs nobody a look.
            let asked = if named > LOST || asked_for(sequence) { Some(Asked::Enough) } else { None };
            match asked.or_else(|| Some(ring.as_mut()?.ask(sequence, round_trip, now))) {
                Some(Asked::Again) => again.try_push(sequence).is_ok(),
                Some(Asked::Enough) => {
                    *limited += 1;
                    true
                }
                Some(Asked::Gone) | None => false,
            }
        };
        let asked = rtcp::rewrite(buf, &names, picture, answer, bound);
        if let Some(reverse) = &mut reverse {
            reverse.ring = ring;
        }
        *forwarded = asked? as u64;
        let reverse = reverse.map(|reverse| {
            // Who reports on a stream knows it.
            reverse.names &= !heard.is_about_ours();
            let source = reverse.stream.origin().map(|origin| origin.source);
            (&mut reverse.cold.reports, source)
        });
        cold.reports.note(&heard, reverse, now);
        Ok(asks)
    }
}
