//! The kernel's part: which interfaces run XDP in which mode, and whose packets are whose.

use std::path::Path;

use anyhow::Context;
use sallyport_abi::FlowKey as KernelKey;
use sallyport_core::Tag;
use sallyport_io::{AfXdpPort, Mode, OpenError, Queue};
use sallyport_plan::{FlowKey, Zone};
use sallyport_xdp::{Attachment, Kernel, MapError, Options};

use crate::config::PathChoice;
use crate::facts::{Interface, processors};

/// UMEM frames for each socket of a worker: half of them receive, which bridges 10 ms in which the worker does not run at
/// 100,000 packets a second.
const FRAMES: u32 = 2048;
/// Kernel flow entries a call: outside, inside RTP, inside RTCP, and as many again while a plan is swapped.
const FLOWS_PER_CALL: u32 = 8;

/// The loaded program and what it runs on.
pub struct Offload {
    kernel: Kernel,
    attached: Attached,
}

/// Zone, mode and RX queues of each interface.
type Attached = [(Zone, Attachment, u32); 2];

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
            Ok((attached, ports)) => Ok((Self { kernel, attached }, ports)),
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
    ) -> anyhow::Result<(Attached, Vec<AfXdpPort>)> {
        // Flows of a former relay name its directions, not ours.
        kernel.clear_flows().context("the flow map cannot be cleared")?;
        let [outside, inside] = interfaces;
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
                    .set_media(interface.zone as u8, *address, range)
                    .context("a media address is refused")?;
            }
        }
        kernel.forget_former().context("a former relay's interfaces cannot be let go")?;
        let attached =
            [(Zone::Outside, attachments[0], queues[0]), (Zone::Inside, attachments[1], queues[1])];
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

    /// Adds or moves a flow.
    ///
    /// # Errors
    /// What the kernel says, such as a full map.
    pub fn insert_flow(&mut self, flow: &FlowKey, tag: Tag) -> Result<(), MapError> {
        self.kernel.insert_flow(&kernel_key(flow), tag.direction.0, tag.epoch)
    }

    /// Removes a flow; one that is not there is no error.
    pub fn remove_flow(&mut self, flow: &FlowKey) {
        if let Err(error) = self.kernel.remove_flow(&kernel_key(flow)) {
            tracing::debug!(%error, "a flow was not in the kernel");
        }
    }

    /// The kernel's counters by name.
    pub fn counters(&self) -> Vec<(&'static str, u64)> {
        self.kernel.counters()
    }

    /// Flow entries in the kernel.
    pub fn flows(&self) -> usize {
        self.kernel.flows().len()
    }

    /// `xdp` or `generic`.
    pub fn path(&self, zone: Zone) -> &'static str {
        match self.of(zone).0 {
            Attachment::Native => "xdp",
            Attachment::Generic => "generic",
        }
    }

    /// RX queues served.
    pub fn queues(&self, zone: Zone) -> u32 {
        self.of(zone).1
    }

    fn of(&self, zone: Zone) -> (Attachment, u32) {
        let [outside, inside] = self.attached;
        let (_, attachment, queues) = if zone == Zone::Outside { outside } else { inside };
        (attachment, queues)
    }

    /// Lets go of the program: pinned for the next relay, or taken down.
    pub fn end(self, keep: bool) {
        if !keep {
            self.kernel.detach_all();
        }
    }
}

fn kernel_key(flow: &FlowKey) -> KernelKey {
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

/// One port per worker; worker `w` of `n` serves queues `w`, `w + n`, ... of both interfaces, so that a packet can leave
/// by the worker that received it.
fn open_ports(
    interfaces: &[Interface; 2],
    attachments: [Attachment; 2],
    queues: [u32; 2],
    workers: u32,
) -> Result<Vec<AfXdpPort>, OpenError> {
    let most = queues[0].min(queues[1]);
    let workers = if workers == 0 { most.min(processors()) } else { workers.min(most) };
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
                own.extend(served.map(|queue| Queue { ifindex: interface.ifindex, queue, zone, mode }));
            }
            let sockets = u32::try_from(own.len()).unwrap_or(u32::MAX);
            AfXdpPort::open(&own, FRAMES.saturating_mul(sockets).min(AfXdpPort::FRAMES_MAX))
        })
        .collect()
}
