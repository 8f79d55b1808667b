//! A translator under test with a clock of its own, and short words for what is asked of it.

#![allow(dead_code)]

use sallyport_core::{
    CoreEvent, Inbound, Limits, Now, Payload, RESEND_ROOM, Reason, Tag, Translator, Verdict,
};
use sallyport_plan::{CallId, DirectionReport, FlowKey};
use sallyport_wire::PacketBuf;

use crate::table::world::{HEAD, TAIL};

/// What became of a packet, with the bytes that leave.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Out {
    Rtp(FlowKey, Vec<u8>),
    Rtcp(FlowKey, Vec<u8>),
    Reply(Vec<u8>),
    Punt(Option<CallId>),
    Consumed,
    Heard,
    Answered,
    Drop(Reason),
}

impl Out {
    /// Of a verdict, and the octets that the packet has by then.
    pub fn of(verdict: &Verdict, octets: &[u8]) -> Self {
        let octets = octets.to_vec();
        match verdict {
            Verdict::Forward(cleared) => match cleared.payload() {
                Payload::Rtp => Self::Rtp(*cleared.egress(), octets),
                Payload::Rtcp => Self::Rtcp(*cleared.egress(), octets),
            },
            Verdict::Reply(_) => Self::Reply(octets),
            Verdict::Punt(call) => Self::Punt(*call),
            Verdict::Consumed => Self::Consumed,
            Verdict::Heard => Self::Heard,
            Verdict::Answered => Self::Answered,
            Verdict::Drop(reason) => Self::Drop(*reason),
        }
    }

    /// The bytes of what was forwarded.
    pub fn forwarded(self) -> Vec<u8> {
        match self {
            Self::Rtp(_, bytes) | Self::Rtcp(_, bytes) => bytes,
            other => panic!("not forwarded: {other:?}"),
        }
    }
}

/// A packet of a burst.
pub struct Arrival {
    pub from: FlowKey,
    pub tag: Option<Tag>,
    pub octets: Vec<u8>,
}

pub struct Bench {
    pub core: Translator,
    pub now: Now,
}

impl Bench {
    pub fn new(calls: usize, directions: usize) -> Self {
        Self { core: Translator::new(3, Limits { calls, directions }, [7; 32]), now: Now(1_000_000) }
    }

    pub fn elapse(&mut self, micros: u64) {
        self.now = self.now.plus(micros);
    }

    /// A packet by its flow, as on the socket path.
    pub fn send(&mut self, from: FlowKey, bytes: &[u8]) -> Out {
        let tag = self.core.lookup(&from);
        self.judge(tag, from, bytes, TAIL)
    }

    /// A packet with a tag of its own, as in a frame that waited in a ring.
    pub fn tagged(&mut self, tag: Tag, from: FlowKey, bytes: &[u8]) -> Out {
        self.judge(Some(tag), from, bytes, TAIL)
    }

    /// A packet in a buffer with little room behind it.
    pub fn cramped(&mut self, from: FlowKey, bytes: &[u8], tail: usize) -> Out {
        let tag = self.core.lookup(&from);
        self.judge(tag, from, bytes, tail)
    }

    fn judge(&mut self, tag: Option<Tag>, from: FlowKey, bytes: &[u8], tail: usize) -> Out {
        let mut room = [vec![0xEE; HEAD], bytes.to_vec(), vec![0xEE; tail]].concat();
        let mut buf = PacketBuf::new(&mut room, HEAD..HEAD + bytes.len()).unwrap();
        let verdict = match tag {
            Some(tag) => self.core.translate(tag, &from, &mut buf, self.now),
            None => self.core.unknown(&from, &mut buf, self.now),
        };
        Out::of(&verdict, buf.packet())
    }

    /// Packets at once.
    pub fn burst(&mut self, arrivals: &[Arrival]) -> Vec<Out> {
        let room = |arrival: &Arrival| [vec![0xEE; HEAD], arrival.octets.clone(), vec![0xEE; TAIL]].concat();
        let mut rooms: Vec<Vec<u8>> = arrivals.iter().map(room).collect();
        let mut bufs: Vec<PacketBuf<'_>> = rooms
            .iter_mut()
            .map(|room| {
                let end = room.len() - TAIL;
                PacketBuf::new(room, HEAD..end).unwrap()
            })
            .collect();
        let packets = arrivals.iter().zip(&mut bufs);
        let mut packets: Vec<_> =
            packets.map(|(arrival, buf)| Inbound::new(arrival.from, arrival.tag, buf)).collect();
        self.core.translate_burst(&mut packets, self.now);
        packets.iter().map(|packet| Out::of(&packet.verdict, packet.buf.packet())).collect()
    }

    /// What the timer sends now.
    pub fn timeout(&mut self) -> Vec<(FlowKey, Vec<u8>)> {
        let mut sent = Vec::new();
        self.core.handle_timeout(self.now, &mut |flow, bytes| sent.push((*flow, bytes.to_vec())));
        sent
    }

    /// What it reports now by itself.
    pub fn reports(&mut self) -> Vec<(FlowKey, Vec<u8>)> {
        let mut sent = Vec::new();
        while self.core.poll_report().is_some_and(|at| at <= self.now) {
            self.core.handle_reports(self.now, &mut |flow, bytes| sent.push((*flow, bytes.to_vec())));
        }
        sent
    }

    /// What it sends once more.
    pub fn resends(&mut self) -> Vec<(FlowKey, Vec<u8>)> {
        let mut room = [0; RESEND_ROOM];
        let mut sent = Vec::new();
        while let Some((to, length)) = self.core.poll_resend(self.now, &mut room) {
            sent.push((to, room[..length].to_vec()));
            self.core.resent(true);
        }
        sent
    }

    pub fn events(&mut self) -> Vec<CoreEvent> {
        std::iter::from_fn(|| self.core.poll_event()).collect()
    }

    pub fn report(&self, index: usize) -> DirectionReport {
        self.core.report(CallId(1)).unwrap().swap_remove(index)
    }

    pub fn counter(&self, name: &str) -> u64 {
        self.core.counters().find(|(found, _)| *found == name).unwrap().1
    }
}
