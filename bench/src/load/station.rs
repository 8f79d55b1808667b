//! One end of the load on AF_XDP sockets of its own, so that sending and hearing cost the generator little beside what is
//! measured.
//!
//! The product's own kernel program runs on the far end of the cable: it knows the load's flows and names the call of each
//! packet, everything else (ARP, say) passes to the kernel.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use anyhow::Context;
use nix::net::if_::if_nametoindex;
use sallyport_abi::FlowKey;
use sallyport_io::{AfXdpPort, Burst, Egress, FrameSize, HEADROOM, Mode, Port, Queue};
use sallyport_wire::PacketBuf;
use sallyport_wire::frame::Link;
use sallyport_xdp::{Attachment, Kernel, Options};

use super::net::{Row, Side};

/// Frames of each queue.
const FRAMES: u32 = 4096;
/// Ports of the load.
const PORTS: std::ops::RangeInclusive<u16> = 20_000..=65_000;
/// Flows that a station can expect.
const FLOWS: u32 = 1 << 16;

/// One end of the load.
pub struct Station {
    ports: Vec<AfXdpPort>,
    kernel: Option<Kernel>,
    zone: u8,
    link: Link,
    pins: PathBuf,
}

impl Station {
    /// Opens a socket on each queue of the side's far interface.
    ///
    /// # Errors
    /// What the system says.
    pub fn open(row: &Row, side: Side) -> anyhow::Result<Self> {
        let pins = std::env::temp_dir().join(row.namespace(side.far())).join("bpf");
        let folder = pins.clone();
        let address: IpAddr = side.far_address().parse()?;
        let (zone, link, queues) = (side.zone(), side.link(), row.queues);
        row.within(side.far(), move || {
            let ifindex = if_nametoindex(side.far_interface())?;
            let mut kernel = Kernel::load(&Options { pins: folder, max_flows: FLOWS })?;
            kernel.clear_flows()?;
            kernel.attach(ifindex, zone, Some(Attachment::Native))?;
            let mut ports = Vec::new();
            for queue in 0..queues {
                let queue = Queue { ifindex, queue, zone, mode: Mode::Native, mtu: 1500 };
                let port = AfXdpPort::open(&[queue], FRAMES, FrameSize::Ordinary)?;
                for (ifindex, queue, socket) in port.sockets() {
                    kernel.register(ifindex, queue, socket)?;
                }
                ports.push(port);
            }
            kernel.set_media(zone, address, PORTS, None)?;
            Ok(Self { ports, kernel: Some(kernel), zone, link, pins })
        })
    }

    /// From now on packets from `remote` to `local` are call `at`'s.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn expect(&mut self, at: u32, local: SocketAddr, remote: SocketAddr) -> anyhow::Result<()> {
        let kernel = self.kernel.as_mut().context("the station is closed")?;
        Ok(kernel.insert_flow(&FlowKey::new(self.zone, local, remote), at, 1)?)
    }

    /// Forgets all calls.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn forget(&mut self) -> anyhow::Result<()> {
        let kernel = self.kernel.as_mut().context("the station is closed")?;
        Ok(kernel.clear_flows()?)
    }

    /// Puts a packet onto one of the cable's queues; `write` makes it in place from `length` octets of room. Whether it
    /// was taken.
    pub fn send(
        &mut self,
        queue: usize,
        path: (SocketAddr, SocketAddr),
        length: usize,
        write: impl FnOnce(&mut PacketBuf<'_>) -> bool,
    ) -> bool {
        let queues = self.ports.len();
        let port = &mut self.ports[queue % queues];
        let Some(frame) = port.allocate() else { return false };
        let made = PacketBuf::new(port.buffer(&frame), HEADROOM..HEADROOM + length).ok();
        let made = made.and_then(|mut packet| write(&mut packet).then(|| packet.range()));
        let Some(range) = made else {
            port.release(frame);
            return false;
        };
        let (local, remote) = path;
        port.transmit(frame, range, &Egress { zone: self.zone, local, remote, link: Some(self.link) }).is_ok()
    }

    /// Hands everything to the kernel.
    pub fn flush(&mut self) {
        for port in &mut self.ports {
            if port.pending() > 0 {
                // What was not taken waits for the next time.
                let _ = port.flush();
            }
        }
    }

    /// Gives each packet that has come to `take`, with its call.
    pub fn receive(&mut self, burst: &mut Burst, mut take: impl FnMut(u32, &mut PacketBuf<'_>)) {
        for port in &mut self.ports {
            if port.receive(burst).is_err() {
                continue;
            }
            for received in burst.drain() {
                let packet = PacketBuf::new(port.buffer(&received.frame), received.payload);
                if let (Some((at, _)), Ok(mut packet)) = (received.tag, packet) {
                    take(at, &mut packet);
                }
                port.release(received.frame);
            }
        }
    }
}

impl Drop for Station {
    fn drop(&mut self) {
        if let Some(kernel) = self.kernel.take() {
            kernel.detach_all();
        }
        let _ = nix::mount::umount(&self.pins);
        if let Some(folder) = self.pins.parent() {
            let _ = std::fs::remove_dir_all(folder);
        }
    }
}
