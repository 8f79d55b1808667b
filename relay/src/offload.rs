//! The kernel's part: which interfaces run XDP in which mode, and whose packets are whose.

mod placed;

use std::collections::BTreeMap;
use std::path::Path;
use std::thread;
use std::time::Duration;

use anyhow::Context;
use nix::time::{ClockId, clock_gettime};
use sallyport_abi::{ACTION_REWRITE, FlowKey as KernelKey, Tally};
use sallyport_core::Tag;
use sallyport_io::{AfXdpPort, FrameSize, Mode, OpenError, Queue};
use sallyport_plan::{CallId, DirectionIndex, FlowKey, Zone};
use sallyport_xdp::{Attachment, Kernel, MapError, Options, Rewrite};

use crate::config::PathChoice;
use crate::facts::Interface;
use crate::netdev;
use crate::netlink::Netlink;
use placed::{Flows, Owner};

/// UMEM frames for each socket of a worker: half of them receive, which bridges 10 ms in which the worker does not run at
/// 100,000 packets a second.
const FRAMES: u32 = 2048;
/// How long ago the last packet of a source that still sends may have come: five of its packets.
const HEARD: Duration = Duration::from_millis(100);
/// Kernel flow entries a call: outside, inside RTP and RTCP, each from its port and from any, and as many again while a plan is
/// swapped.
const FLOWS_PER_CALL: u32 = 10;

/// The loaded program and what it runs on.
pub struct Offload {
    kernel: Kernel,
    /// Outside first.
    attached: [Attached; 2],
    drivers: [Driver; 2],
    flows: Flows,
}

/// What an interface runs.
#[derive(Debug, Clone, Copy)]
struct Attached {
    attachment: Attachment,
    /// RX queues served.
    queues: u32,
    /// Whether the driver works on the workers' memory itself.
    zero_copy: bool,
}

/// What an interface does with frames that a native program sends.
#[derive(Debug, Clone, Copy)]
struct Driver {
    /// One end of a virtual cable: it sends nothing back to where it came from unless a program sits at its other end.
    veth: bool,
    /// Whether it sends frames that are redirected to it.
    takes_frames: bool,
}

impl Driver {
    /// As the kernel describes it, once the program is attached. Where it does not say, drivers of hardware are believed.
    fn of(ifindex: u32) -> Self {
        let veth = Netlink::open().and_then(|mut netlink| netlink.is_veth(ifindex)).unwrap_or(true);
        Self { veth, takes_frames: netdev::takes_frames(ifindex).unwrap_or(!veth) }
    }
}

impl Offload {
    /// Loads and attaches the program on both interfaces, and opens one port per worker.
    ///
    /// # Errors
    /// What failed, in words; nothing stays attached then.
    pub fn open(
        interfaces: &[Interface; 2],
        wanted: PathChoice,
        pins: &Path,
        workers: u32,
        max_calls: u32,
    ) -> anyhow::Result<(Self, Vec<AfXdpPort>)> {
        let options = Options { pins: pins.into(), max_flows: max_calls.saturating_mul(FLOWS_PER_CALL) };
        let mut kernel = Kernel::load(&options).context("the XDP program does not load")?;
        match Self::start(&mut kernel, interfaces, wanted, workers) {
            Ok((attached, ports)) => {
                let flows = Flows::new(kernel.tallies().context("the map of tallies cannot be read")?);
                let drivers = [0, 1].map(|at| Driver::of(interfaces[at].ifindex));
                Ok((Self { kernel, attached, drivers, flows }, ports))
            }
            Err(error) => {
                kernel.detach_all();
                Err(error)
            }
        }
    }

    fn start(
        kernel: &mut Kernel,
        interfaces: &[Interface; 2],
        wanted: PathChoice,
        workers: u32,
    ) -> anyhow::Result<([Attached; 2], Vec<AfXdpPort>)> {
        // Flows of a former relay name its directions, not ours.
        kernel.clear_flows().context("the flow map cannot be cleared")?;
        let [outside, inside] = interfaces;
        kernel.set_frame_max(u32::try_from(frame_size(interfaces).packet_max()).unwrap_or(u32::MAX));
        let attachments = [attach(kernel, outside, wanted)?, attach(kernel, inside, wanted)?];
        let mut queues = [outside.queues, inside.queues];
        let ports = loop {
            match open_ports(interfaces, attachments, queues, workers) {
                Ok(ports) => break ports,
                // The device was made with more queues than it runs.
                Err(OpenError::NoQueue { ifindex, queue }) if queue > 0 => {
                    let at = usize::from(ifindex == inside.ifindex);
                    queues[at] = queue;
                }
                Err(error) => return Err(error).context("AF_XDP sockets do not open"),
            }
        };
        for port in &ports {
            for (ifindex, queue, socket) in port.sockets() {
                kernel.register(ifindex, queue, socket).context("an AF_XDP socket does not register")?;
            }
        }
        for interface in interfaces {
            for address in &interface.addresses {
                let range = interface.port_min..=interface.port_max;
                kernel
                    .set_media(interface.zone as u8, *address, range, interface.browsers)
                    .context("a media address is refused")?;
            }
        }
        kernel.forget_former().context("a former relay's interfaces cannot be let go")?;
        // All sockets of a memory are alike.
        let zero_copy = ports.iter().all(AfXdpPort::zero_copy);
        let attached =
            [0, 1].map(|at| Attached { attachment: attachments[at], queues: queues[at], zero_copy });
        Ok((attached, ports))
    }

    /// Takes down what a former relay left at work under `pins`: its program would take every media packet before a UDP
    /// socket could hear it.
    ///
    /// # Errors
    /// What the system says of the pins.
    pub fn clear(pins: &Path) -> anyhow::Result<()> {
        sallyport_xdp::clear(pins).context("a former relay's XDP program cannot be taken down")
    }

    /// Adds, moves or changes a flow of a direction: its packets go to the worker, or the kernel sends them on itself.
    ///
    /// # Errors
    /// What the kernel says, such as a full map.
    pub fn place_flow(
        &mut self,
        flow: &FlowKey,
        owner: Owner,
        tag: Tag,
        rewrite: Option<Rewrite>,
    ) -> Result<(), MapError> {
        self.flows.place(&mut self.kernel, flow, (owner, tag), rewrite)
    }

    /// Removes a flow; one that is not there is no error.
    pub fn remove_flow(&mut self, flow: &FlowKey) {
        self.flows.remove(&mut self.kernel, flow);
    }

    /// RTP packets and octets of payload that the kernel has sent on for a call, by direction; `flows` are those that the
    /// call has now.
    pub fn forwarded<'a>(
        &self,
        call: CallId,
        flows: impl Iterator<Item = &'a FlowKey>,
    ) -> BTreeMap<DirectionIndex, Tally> {
        self.flows.forwarded(&self.kernel, call, flows)
    }

    /// Forgets what was counted of a call that is gone.
    pub fn forget(&mut self, call: CallId) {
        self.flows.forget(call);
    }

    /// Whether the kernel sends on what comes by a flow, and something has come just now.
    pub fn is_heard(&self, flow: &FlowKey) -> bool {
        let sent_on = self.kernel.flow(&kernel_key(flow)).ok().flatten();
        let last = sent_on.filter(|flow| flow.action == ACTION_REWRITE).map_or(0, |flow| flow.last_seen_ns);
        let now = clock_gettime(ClockId::CLOCK_MONOTONIC).map(Duration::from).unwrap_or_default();
        last > 0 && now.saturating_sub(Duration::from_nanos(last)) < HEARD
    }

    /// How frames that the kernel sends on itself leave: back by the interface they came in by (`true`), or redirected to
    /// one. `None` where they would be lost.
    pub fn leaves_back(&self, from: Zone, to: Zone) -> Option<bool> {
        let (way, egress) = (self.of(from).attachment, self.drivers[usize::from(to == Zone::Inside)]);
        match way {
            // The network stack sends for a program of its own, whatever the driver.
            Attachment::Generic => Some(from == to),
            Attachment::Native if from == to && !egress.veth => Some(true),
            Attachment::Native => {
                (egress.takes_frames && self.of(to).attachment == Attachment::Native).then_some(false)
            }
        }
    }

    /// The kernel's counters by name.
    pub fn counters(&self) -> Vec<(&'static str, u64)> {
        self.kernel.counters()
    }

    /// Flow entries in the kernel.
    pub fn flows(&self) -> usize {
        self.kernel.flow_count()
    }

    /// `xdp` or `generic`.
    pub fn path(&self, zone: Zone) -> &'static str {
        match self.of(zone).attachment {
            Attachment::Native => "xdp",
            Attachment::Generic => "generic",
        }
    }

    /// RX queues served.
    pub fn queues(&self, zone: Zone) -> u32 {
        self.of(zone).queues
    }

    /// Whether the driver works on the workers' memory itself; otherwise the kernel copies each packet.
    pub fn zero_copy(&self, zone: Zone) -> bool {
        self.of(zone).zero_copy
    }

    fn of(&self, zone: Zone) -> Attached {
        let [outside, inside] = self.attached;
        if zone == Zone::Outside { outside } else { inside }
    }

    /// Lets go of the program: pinned for the next relay, or taken down.
    pub fn end(self, keep: bool) {
        if !keep {
            self.kernel.detach_all();
        }
    }
}

/// The kernel's name of a flow.
pub fn kernel_key(flow: &FlowKey) -> KernelKey {
    KernelKey::new(flow.zone as u8, flow.local, flow.remote)
}

fn attach(kernel: &mut Kernel, interface: &Interface, wanted: PathChoice) -> anyhow::Result<Attachment> {
    let wanted = match wanted {
        PathChoice::Xdp => Some(Attachment::Native),
        PathChoice::Generic => Some(Attachment::Generic),
        PathChoice::Auto | PathChoice::Socket => None,
    };
    kernel
        .attach(interface.ifindex, interface.zone as u8, wanted)
        .with_context(|| format!("XDP does not attach to {}", interface.name))
}

/// What frames have to hold: what comes by the one leaves by the other.
pub fn frame_size(interfaces: &[Interface; 2]) -> FrameSize {
    let [outside, inside] = interfaces;
    FrameSize::of_mtu(outside.mtu.max(inside.mtu))
}

/// One port per worker; worker `w` of `n` serves queues `w`, `w + n`, ... of both interfaces, so that a packet can leave
/// by the worker that received it.
fn open_ports(
    interfaces: &[Interface; 2],
    attachments: [Attachment; 2],
    queues: [u32; 2],
    workers: u32,
) -> Result<Vec<AfXdpPort>, OpenError> {
    let most = queues[0].min(queues[1]);
    // More workers than processors would only wake each other up for smaller bursts.
    let processors =
        thread::available_parallelism().map_or(1, |count| u32::try_from(count.get()).unwrap_or(1));
    let workers = if workers == 0 { most.min(processors) } else { workers.min(most) };
    (0..workers)
        .map(|worker| {
            let mut own = Vec::new();
            for (at, interface) in interfaces.iter().enumerate() {
                let mode = match attachments[at] {
                    Attachment::Native => Mode::Native,
                    Attachment::Generic => Mode::Generic,
                };
                let zone = interface.zone as u8;
                let served = (worker..queues[at]).step_by(workers as usize);
                let (ifindex, mtu) = (interface.ifindex, interface.egress_mtu());
                own.extend(served.map(|queue| Queue { ifindex, queue, zone, mode, mtu }));
            }
            let sockets = u32::try_from(own.len()).unwrap_or(u32::MAX);
            let frames = FRAMES.saturating_mul(sockets).min(AfXdpPort::FRAMES_MAX);
            AfXdpPort::open(&own, frames, frame_size(interfaces))
        })
        .collect()
}
