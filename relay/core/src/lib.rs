//! The translator, sans-IO: plans in, packets in, verdicts out.
//!
//! One [`Translator`] belongs to one worker. It is told what to do by [`Translator::install`] and [`Translator::remove`]
//! and asked about packets by [`Translator::translate_burst`] (or [`Translator::translate`], one by one), in any order; after each, events may
//! be waiting in [`Translator::poll_event`]; [`Translator::poll_timeout`], [`Translator::poll_report`] and [`Translator::poll_dial`] say when
//! it wants to be woken.
//!
//! Contract: every packet moves exactly one counter, a [`Verdict::Drop`] that of its [`Reason`]; a [`Verdict::Punt`] leaves
//! the bytes as they came; only a [`Cleared`] packet is forwarded, and nobody else can make one. What leaves on a leg is one
//! stream under one SSRC whose index only grows, whatever happens on the other leg; only between plain peers that asked for no
//! translation everything leaves as it came, and is judged all the same.
//!
//! What it is not: it has no clock, no socket, no lock and no log, and allocates nothing per packet.
//!
//! ```
//! use sallyport_core::{Limits, Now, Translator, Verdict};
//! use sallyport_plan::{
//!     CallId, Clock, Digits, Direction, DirectionIndex, Extensions, FlowKey, Format, Medium, Mute, Passage, Plan, Protection, Pt, PtMap, Resend, Ssrc, Zone,
//! };
//! use sallyport_wire::PacketBuf;
//!
//! let flow = |zone, local: &str, remote: &str| {
//!     FlowKey { zone, local: local.parse().unwrap(), remote: remote.parse().unwrap() }
//! };
//! let outside = flow(Zone::Outside, "192.0.2.1:10000", "198.51.100.7:51000");
//! let inside = flow(Zone::Inside, "10.0.0.1:20000", "10.0.0.9:4000");
//! let direction = |index, reverse, from, to, ssrc| Direction {
//!     index: DirectionIndex(index),
//!     medium: Medium::Audio,
//!     ingress: vec![from],
//!     open: Some(Protection::Plain),
//!     seal: Some(Protection::Plain),
//!     rtp: to,
//!     rtcp: to,
//!     passage: Passage::Translated,
//!     ssrc: Ssrc(ssrc),
//!     payload_types: vec![PtMap { from: Pt(0), to: Pt(0), format: Format::Media(Clock::Hz8000) }],
//!     extensions: Extensions::default(),
//!     digits: Digits::Pass,
//!     resend: Resend::Never,
//!     fork: None,
//!     learns: false,
//!     reverse: DirectionIndex(reverse),
//!     mute: Mute::Open,
//! };
//! let directions = vec![direction(0, 1, outside, inside, 7), direction(1, 0, inside, outside, 8)];
//! let plan = Plan { call: CallId(1), version: 1, directions, consents: vec![], record: vec![] };
//!
//! let mut core = Translator::new(0, Limits { calls: 1, directions: 2 }, [0; 32]);
//! let changes = core.install(plan, Now(0)).unwrap();
//! let (from, tag) = changes.insert[0];
//!
//! let mut frame = [0; 256];
//! frame[64..76].copy_from_slice(&[0x80, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 99]);
//! let mut buf = PacketBuf::new(&mut frame, 64..236).unwrap();
//! let Verdict::Forward(cleared) = core.translate(tag, &from, &mut buf, Now(20_000)) else { unreachable!() };
//! assert_eq!(*cleared.egress(), inside);
//! assert_eq!(buf.packet()[8..12], [0, 0, 0, 7]);
//! ```

#![forbid(unsafe_code)]

mod arrivals;
mod asks;
mod burst;
mod checkpoint;
mod consent;
mod continuity;
mod dial;
mod direction;
mod event;
mod extensions;
mod feedback;
mod fork;
mod install;
mod latch;
mod ledger;
mod limit;
mod missing;
mod packet;
mod quality;
mod reason;
mod rekey;
mod reports;
mod resend;
mod rtcp;
mod stats;
mod stream;
mod table;
mod translator;

pub use burst::{Cleared, Inbound};
pub use checkpoint::{Checkpoint, DirectionState};
pub use event::Digit;
pub use fork::FORK_ROOM;
pub use ledger::KeyId;
pub use limit::{Sources, resent_within};
pub use packet::{Payload, Verdict};
pub use quality::{Arrival, Quality};
pub use reason::Reason;
pub use resend::RESEND_ROOM;
pub use stream::StreamState;
pub use table::{DirectionId, Flows, Tag};
pub use translator::{CoreEvent, FlowChanges, Limits, Removed, Translator};

/// Monotonic time in microseconds; its zero is the caller's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Now(pub u64);

impl Now {
    /// Later by so many microseconds.
    #[must_use]
    pub const fn plus(self, micros: u64) -> Self {
        Self(self.0.saturating_add(micros))
    }

    /// Microseconds since `earlier`, 0 where that lies ahead.
    pub const fn since(self, earlier: Self) -> u64 {
        self.0.saturating_sub(earlier.0)
    }
}
