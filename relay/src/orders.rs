//! What crosses between the uplink and a worker: orders one way, notices the other.

use std::net::{SocketAddr, UdpSocket};

use sallyport_core::{Checkpoint, Digit, FlowChanges, Removed, Tag};
use sallyport_io::FrameCount;
use sallyport_plan::{CallId, Counter, DirectionIndex, DirectionReport, FlowKey, Plan, Refusal};
use sallyport_wire::frame::Link;

use crate::nexthop::Links;

/// What the uplink asks of a worker. Each is answered by the notice of the same name, unless said otherwise.
pub enum Order {
    /// Obey a plan; packets leave by these links.
    Install {
        /// The plan.
        plan: Box<Plan>,
        /// Link headers of its egress paths; empty on the socket path.
        links: Links,
        /// Indices of a former relay to go on behind.
        checkpoint: Option<Checkpoint>,
    },
    /// End a call.
    Remove(CallId),
    /// Link headers that changed. No answer.
    Links(Links),
    /// Link headers that were not known when their plan was installed. No answer.
    Learn(Links),
    /// Paths that no plan names any more. No answer.
    Forget(Vec<FlowKey>),
    /// Flows of other workers, for frames that come without metadata. No answer.
    Routes {
        /// Flows and their tags.
        insert: Vec<(FlowKey, Tag)>,
        /// Flows that are gone.
        remove: Vec<FlowKey>,
    },
    /// Send a datagram. No answer.
    Send {
        /// From and to where.
        path: FlowKey,
        /// Its link header; `None` on the socket path.
        link: Option<Link>,
        /// UDP payload.
        payload: Vec<u8>,
    },
    /// Bind sockets for a call (socket path only).
    Bind {
        /// For whom.
        call: CallId,
        /// Where.
        addresses: Vec<SocketAddr>,
    },
    /// Close sockets (socket path only). No answer.
    Unbind(Vec<SocketAddr>),
    /// Give up the sockets of a call, open, to another worker (socket path only).
    Part {
        /// Whose.
        call: CallId,
        /// Their addresses.
        addresses: Vec<SocketAddr>,
    },
    /// Take over the sockets of a call. Answered by `Bound` where that fails only.
    Adopt {
        /// Whose.
        call: CallId,
        /// Bound ones.
        sockets: Vec<UdpSocket>,
    },
    /// Have a direction of a call send digits. No answer.
    Dial {
        /// Whose.
        call: CallId,
        /// Which.
        direction: DirectionIndex,
        /// In order.
        digits: Vec<Digit>,
    },
    /// Ask whoever sends on a direction for a picture. No answer.
    Picture {
        /// Whose.
        call: CallId,
        /// Which.
        direction: DirectionIndex,
    },
    /// Statistics of a call.
    Report(CallId),
    /// Counters and frames; the number comes back.
    Status(u64),
    /// End the thread. No answer.
    Stop,
}

/// What a worker tells the uplink.
#[derive(Debug)]
pub enum Notice {
    /// Outcome of `Install`.
    Installed {
        /// Which call.
        call: CallId,
        /// Kernel flows to add and remove, or why not.
        changes: Result<FlowChanges, Refusal>,
    },
    /// Outcome of `Remove`; `None` for an unknown call.
    Removed {
        /// Which call.
        call: CallId,
        /// Its flows and last statistics.
        removed: Option<Removed>,
    },
    /// Outcome of `Bind`.
    Bound {
        /// For whom.
        call: CallId,
        /// Whether all sockets are open; none is where one failed.
        bound: bool,
    },
    /// Outcome of `Part`.
    Parted {
        /// Whose.
        call: CallId,
        /// Those that were there.
        sockets: Vec<UdpSocket>,
    },
    /// Outcome of `Report`; `None` for an unknown call.
    Report {
        /// Which call.
        call: CallId,
        /// By direction.
        directions: Option<Vec<DirectionReport>>,
    },
    /// Outcome of `Status`.
    Status {
        /// The number asked with.
        ticket: u64,
        /// Every counter of the worker.
        counters: Vec<Counter>,
        /// Where its frames are.
        frames: FrameCount,
    },
    /// Indices of some calls; each call's come once a second.
    Checkpoint(Vec<Checkpoint>),
    /// A datagram for control.
    Punt {
        /// Where it came from.
        path: FlowKey,
        /// Whose flow; `None` for STUN from nowhere known.
        call: Option<CallId>,
        /// UDP payload.
        payload: Vec<u8>,
    },
    /// A digit was heard.
    Digit {
        /// Which call.
        call: CallId,
        /// Which direction.
        direction: DirectionIndex,
        /// Which digit, and for how long.
        digit: Digit,
    },
    /// A flow of a call has no TCP connection.
    Disconnected(FlowKey),
    /// Whoever sends on a direction wants a picture.
    Picture {
        /// Which call.
        call: CallId,
        /// Which direction.
        direction: DirectionIndex,
    },
    /// A peer is heard from a port that its plan does not name.
    Source {
        /// Which call.
        call: CallId,
        /// The flow by which it comes.
        flow: FlowKey,
    },
    /// Consent lapsed.
    ConsentLost {
        /// Which call.
        call: CallId,
        /// Which pair.
        flow: FlowKey,
    },
}
