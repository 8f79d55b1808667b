//! What crosses the socket between control and relay.

use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;
use core::net::{IpAddr, SocketAddr};

use serde::{Deserialize, Serialize};

use crate::flow::{FlowKey, Zone};
use crate::id::CallId;
use crate::plan::{DirectionIndex, Medium, Plan};
use crate::quality::Quality;

/// What control asks of the relay. Each is answered by the events named.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Command {
    /// First on a connection. Answer: [`Event::Hello`]; on another version also the end of the connection.
    Hello {
        /// [`crate::VERSION`] of the sender.
        version: u16,
    },
    /// Reserve port pairs inside, RTP on the even port, beside those that the call has. Answer: [`Event::Reserved`] with the new
    /// ones, or [`Event::Refused`]. Pairs stay with the call until `Remove`, or until this connection ends without an installed
    /// plan.
    Reserve {
        /// For whom.
        call: CallId,
        /// IPv4 or IPv6: the family of this address decides, the address itself is the far end if known.
        toward: IpAddr,
        /// How many, 1 to 8 in all.
        pairs: u8,
    },
    /// Obey this plan: the first, or a newer version. Answer: [`Event::Installed`] or [`Event::Refused`]; when
    /// refused, what ran before runs on.
    Install(Plan),
    /// End the call: flows, directions, ports, keys. Answer: [`Event::Removed`], also for an unknown call.
    Remove {
        /// Which call.
        call: CallId,
    },
    /// Send a datagram of ICE or DTLS from one of our media addresses. No answer.
    Send {
        /// From `local` to `remote`, leaving by `zone`.
        path: FlowKey,
        /// UDP payload, at most 1,500 octets.
        payload: Vec<u8>,
    },
    /// Read back all that runs. Answer: an [`Event::Running`] for each call, then [`Event::Listed`].
    List,
    /// Statistics of one call. Answer: [`Event::Report`] or [`Event::Refused`].
    Report {
        /// Which call.
        call: CallId,
    },
    /// State of the relay. Answer: [`Event::Status`].
    Status,
    /// Send digits as named events (RFC 4733) in the stream of a direction, behind those that it was told before; its media is
    /// held while each lasts. No answer; what cannot be sent is lost.
    Dial {
        /// Which call.
        call: CallId,
        /// Which direction.
        direction: DirectionIndex,
        /// Codes (0 to 9, 10 for star, 11 for hash, 12 to 15 for A to D) and milliseconds.
        digits: Vec<(u8, u16)>,
    },
    /// Ask whoever sends on a direction for a whole picture, by PLI (RFC 4585) and FIR (RFC 5104), unless it was asked just now.
    /// No answer.
    Picture {
        /// Which call.
        call: CallId,
        /// Which direction.
        direction: DirectionIndex,
    },
}

/// What the relay reports.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Event {
    /// Answer to `Hello`.
    Hello {
        /// [`crate::VERSION`] of the relay.
        version: u16,
        /// Media addresses and ports by zone.
        status: Status,
    },
    /// Ports reserved, in the order asked for.
    Reserved {
        /// For whom.
        call: CallId,
        /// Our addresses inside.
        ports: Vec<PortPair>,
    },
    /// The plan runs: flows are in place, the peers may be told.
    Installed {
        /// Which call.
        call: CallId,
        /// Which version.
        version: u32,
    },
    /// A command was not obeyed and changed nothing.
    Refused {
        /// Which call.
        call: CallId,
        /// Why.
        refusal: Refusal,
    },
    /// The call is gone.
    Removed {
        /// Which call.
        call: CallId,
        /// Last statistics; empty for an unknown call.
        directions: Vec<DirectionReport>,
    },
    /// A datagram of ICE or DTLS that only control can answer.
    Punt {
        /// Where it came from (`remote`) and to (`local`).
        path: FlowKey,
        /// The call whose flow it came on; `None` for STUN from an unknown address.
        call: Option<CallId>,
        /// UDP payload.
        payload: Vec<u8>,
    },
    /// A direction that learns hears its peer from another port than its plan says. Told again as long as the plan does not name
    /// it.
    Source {
        /// Which call.
        call: CallId,
        /// The flow by which the packets come.
        flow: FlowKey,
    },
    /// Consent of a nominated pair lapsed (RFC 7675 section 5.1): nothing is sent there any more.
    ConsentLost {
        /// Which call.
        call: CallId,
        /// Which pair.
        flow: FlowKey,
    },
    /// A nominated pair has no TCP connection, or none any more: nothing can be sent there, and what its browser nominates
    /// instead is to be taken at once. Consent lapses in its time.
    Disconnected {
        /// Which call.
        call: CallId,
        /// Which pair.
        flow: FlowKey,
    },
    /// A named event (RFC 4733) has ended on a direction whose digits are told of: once for each, however often its end was sent.
    Digit {
        /// Which call.
        call: CallId,
        /// Which direction.
        direction: DirectionIndex,
        /// Its code: 0 to 9, 10 for star, 11 for hash, 12 to 15 for A to D (RFC 4733 section 3.2).
        event: u8,
        /// How long it lasted, in milliseconds.
        duration: u16,
    },
    /// One running call, as installed.
    Running(Plan),
    /// All running calls have been named.
    Listed,
    /// Statistics of one call.
    Report {
        /// Which call.
        call: CallId,
        /// By direction.
        directions: Vec<DirectionReport>,
    },
    /// State of the relay.
    Status(Status),
    /// Whoever sends on a direction wants a whole picture of the other side, which has been asked for it by RTCP.
    Picture {
        /// Which call.
        call: CallId,
        /// Which direction the wish came on.
        direction: DirectionIndex,
    },
}

/// RTP and RTCP port of one medium.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct PortPair {
    /// Even port.
    pub rtp: SocketAddr,
    /// The port above.
    pub rtcp: SocketAddr,
}

/// Why a command was not obeyed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Refusal {
    /// The plan contradicts itself or the contract.
    Malformed,
    /// More than the contract allows.
    TooLarge,
    /// Another call, or another direction, owns this flow.
    FlowTaken,
    /// Two directions would seal under one key and SSRC.
    KeyReuse,
    /// An address that is not one of our media addresses of that zone, or a port that was not reserved.
    NotOurs,
    /// A version not above the installed one.
    Stale,
    /// No such call.
    UnknownCall,
    /// No port pair is free.
    NoPorts,
    /// Calls, directions or flows are at their limit.
    Full,
    /// No route or no answer from the next hop.
    Unreachable,
    /// The kernel refused; the relay's log says what.
    Kernel,
}

impl Refusal {
    /// One sentence for people.
    pub const fn text(self) -> &'static str {
        match self {
            Self::Malformed => "the plan contradicts itself",
            Self::TooLarge => "the plan is larger than the contract allows",
            Self::FlowTaken => "another direction already owns this flow",
            Self::KeyReuse => "two directions would seal under one key and SSRC",
            Self::NotOurs => "an address or port is not one that the relay serves",
            Self::Stale => "a newer version of the plan is installed",
            Self::UnknownCall => "the relay has no such call",
            Self::NoPorts => "no media port pair is free",
            Self::Full => "the relay is at its limit of calls",
            Self::Unreachable => "no route to the far end, or its next hop does not answer",
            Self::Kernel => "the kernel refused a map entry",
        }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.text())
    }
}

impl core::error::Error for Refusal {}

/// A named number that only grows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counter {
    /// Snake case, stable: `drop_replay`, `forward_rtp`, `xdp_drop_unknown_flow`.
    pub name: String,
    /// Since the relay started.
    pub value: u64,
}

/// Statistics of one direction.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DirectionReport {
    /// Which direction.
    pub index: DirectionIndex,
    /// What kind of medium it carries.
    pub medium: Medium,
    /// Zone that its packets come from.
    pub from: Zone,
    /// RTP packets that left, those that the kernel forwarded included.
    pub packets: u64,
    /// RTP payload octets that left.
    pub octets: u64,
    /// RTP packets missing on arrival, by sequence number (RFC 3550 section 6.4.1; may be negative). Not counted
    /// while the direction is transparent: reports then pass from end to end.
    pub lost: i64,
    /// Dropped packets by reason; reasons at zero are left out.
    pub drops: Vec<Counter>,
    /// How well its packets arrive. All zero while the direction is transparent: reports then pass from end to end, and
    /// packets that the kernel forwards are counted, not looked at.
    pub quality: Quality,
}

/// What one interface runs on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct InterfaceStatus {
    /// Its name.
    pub name: String,
    /// Its side.
    pub zone: Zone,
    /// `xdp` (native), `generic` or `socket`.
    pub path: String,
    /// RX queues served, one worker each; 0 on the socket path.
    pub queues: u32,
    /// Whether the driver works on the relay's memory itself; otherwise the kernel copies each packet.
    pub zero_copy: bool,
    /// Our media addresses there.
    pub addresses: Vec<IpAddr>,
    /// Lowest media port.
    pub port_min: u16,
    /// Highest media port.
    pub port_max: u16,
    /// Inside: the one UDP port, on each of `addresses`, for browsers inside; `None` where there is none for them. Outside
    /// always `None`: there `port_min` is the browsers'.
    pub browsers: Option<u16>,
    /// Outside: the one TCP port, on each of `addresses`, for browsers that UDP does not reach (RFC 6544); `None` where there is
    /// none. A path from there is a TCP connection's.
    pub tcp: Option<u16>,
    /// Whether the network card, as asked, spreads UDP over its RX queues by ports as well as by addresses. Where it does not,
    /// or nobody can tell, all packets between two addresses come by one queue.
    pub hashes_ports: bool,
}

/// State of the relay.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// Interfaces, outside first.
    pub interfaces: Vec<InterfaceStatus>,
    /// Workers.
    pub workers: u32,
    /// Who encrypts: `avx512`, `shani` or `portable`.
    pub srtp: String,
    /// Calls installed.
    pub calls: u32,
    /// Directions installed.
    pub directions: u32,
    /// Kernel flow entries.
    pub flows: u32,
    /// Port pairs taken (resting ones apart).
    pub ports: u32,
    /// UMEM frames in all, and those that no ring or worker can account for (must stay 0).
    pub frames: (u64, u64),
    /// Every counter of kernel and relay.
    pub counters: Vec<Counter>,
}
