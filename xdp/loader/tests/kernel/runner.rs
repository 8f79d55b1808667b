//! Runs one frame at a time through the loaded program, and tells all that it did.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::os::fd::{AsFd, OwnedFd};

use aya::{TestRun, TestRunOptions};
use rustix::net::{AddressFamily, SocketType, socket};
use sallyport_abi::{Counter, FlowKey, INSIDE, META_FLOW, META_MAGIC, META_PUNT, OUTSIDE};
use sallyport_xdp::{Attachment, Kernel};

use crate::frames::address;
use crate::lab::{Lab, index};

/// By which interface a frame comes in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum By {
    Outside,
    Inside,
    Unknown,
}

/// What became of a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    Pass(Counter),
    Drop(Counter),
    /// To its AF_XDP socket, as of this flow: direction and epoch.
    Flow(u32, u32),
    /// To the AF_XDP socket, for control.
    Punt,
}

/// The flows that are installed: zone, local, remote, direction, epoch.
pub const FLOWS: [(u8, &str, &str, u32, u32); 8] = [
    (OUTSIDE, "192.0.2.1:10000", "198.51.100.7:4000", 0x0100_0002, 7),
    (OUTSIDE, "[2001:db8::1]:10000", "[2001:db8:7::7]:4000", 0x0100_0003, 8),
    (INSIDE, "10.0.0.1:20000", "10.0.0.9:30000", 0x0200_0004, 9),
    (INSIDE, "[fd00::1]:29999", "[fd00::9]:30001", 0xffff_ffff, u32::MAX),
    (INSIDE, "203.0.113.5:20002", "10.0.0.9:30002", 5, 0),
    (OUTSIDE, "203.0.113.5:10000", "198.51.100.7:4000", 6, 0),
    (INSIDE, "10.0.0.1:10001", "10.0.0.77:50000", 0x0300_0007, 2),
    (INSIDE, "[fd00::1]:10001", "[fd00::77]:50000", 0x0300_0008, 3),
];

/// The media addresses: zone, address, ports, the browsers' port. The last one inside has none for browsers.
pub const MEDIA: [(u8, &str, RangeInclusive<u16>, Option<u16>); 6] = [
    (OUTSIDE, "192.0.2.1", 10000..=10000, Some(10000)),
    (OUTSIDE, "2001:db8::1", 10000..=10000, Some(10000)),
    (OUTSIDE, "203.0.113.5", 10000..=10000, Some(10000)),
    (INSIDE, "10.0.0.1", 20000..=29999, Some(10001)),
    (INSIDE, "fd00::1", 20000..=29999, Some(10001)),
    (INSIDE, "203.0.113.5", 20000..=29999, None),
];

const XDP_DROP: u32 = 1;
const XDP_PASS: u32 = 2;
const XDP_REDIRECT: u32 = 4;

/// The program on two interfaces, with sockets for queues 0 and 1 of each.
pub struct Runner {
    pub kernel: Kernel,
    _sockets: Vec<OwnedFd>,
    moved: BTreeMap<&'static str, u64>,
}

impl Runner {
    /// Loads, attaches and installs. In the appliance's namespace.
    pub fn new(lab: &Lab) -> Self {
        Self::with_sockets(lab, &[("o0", 0), ("o0", 1), ("i0", 0), ("i0", 1)])
    }

    /// As [`Runner::new`], with sockets for these queues.
    pub fn with_sockets(lab: &Lab, queues: &[(&str, u32)]) -> Self {
        let mut kernel = lab.kernel();
        for (device, zone) in [("o0", OUTSIDE), ("i0", INSIDE)] {
            kernel.attach(index(device), zone, Some(Attachment::Native)).unwrap();
        }
        let mut sockets = Vec::new();
        for (device, queue) in queues {
            // The map takes a socket that is not bound; it has only to be one.
            let xsk = socket(AddressFamily::XDP, SocketType::RAW, None).unwrap();
            kernel.register(index(device), *queue, xsk.as_fd()).unwrap();
            sockets.push(xsk);
        }
        for (zone, media, ports, browsers) in MEDIA {
            kernel.set_media(zone, media.parse().unwrap(), ports, browsers).unwrap();
        }
        for (zone, local, remote, direction, epoch) in FLOWS {
            kernel
                .insert_flow(&FlowKey::new(zone, address(local), address(remote)), direction, epoch)
                .unwrap();
        }
        Self { kernel, _sockets: sockets, moved: BTreeMap::new() }
    }

    /// Runs a frame: its fate, which is told by verdict, metadata and counters, all of which have to agree.
    pub fn run(&mut self, what: &str, by: By, queue: u32, frame: &[u8]) -> Fate {
        self.run_behind(what, by, queue, &[], frame)
    }

    /// As [`Runner::run`], with metadata of the driver in front of the frame.
    pub fn run_behind(&mut self, what: &str, by: By, queue: u32, driver: &[u8], frame: &[u8]) -> Fate {
        let counters: BTreeMap<_, _> = self.kernel.counters().into_iter().collect();
        let flows = self.kernel.flows();
        let (verdict, out) = self.test_run(by, queue, driver, frame);

        let after = self.kernel.counters();
        let changed: Vec<_> = after.into_iter().filter(|(name, value)| counters[name] != *value).collect();
        let [(name, value)] = changed[..] else { panic!("{what}: counters {changed:?}") };
        assert_eq!(value, counters[name] + 1, "{what}: {name}");
        *self.moved.entry(name).or_default() += 1;
        let counter = Counter::ALL.into_iter().find(|counter| counter.name() == name).unwrap();

        let fate = match (verdict, counter) {
            (XDP_PASS, counter) if name.starts_with("pass_") => Fate::Pass(counter),
            (XDP_DROP, counter) if name.starts_with("drop_") => Fate::Drop(counter),
            (XDP_REDIRECT, Counter::RedirectFlow | Counter::PuntStun) => {
                Self::redirected(what, counter, &out)
            }
            other => panic!("{what}: verdict and counter {other:?}"),
        };
        assert!(out.ends_with(frame), "{what}: the frame was changed");
        self.check_flows(what, &flows, fate, frame);
        fate
    }

    fn redirected(what: &str, counter: Counter, out: &[u8]) -> Fate {
        let word = |at: usize| u32::from_ne_bytes(out[at..at + 4].try_into().unwrap());
        let (magic, direction, epoch, kind) = (word(0), word(4), word(8), word(12));
        assert_eq!(magic, META_MAGIC, "{what}");
        match counter {
            Counter::RedirectFlow => {
                assert_eq!(kind, META_FLOW, "{what}");
                Fate::Flow(direction, epoch)
            }
            _ => {
                assert_eq!((kind, direction, epoch), (META_PUNT, 0, 0), "{what}");
                Fate::Punt
            }
        }
    }

    /// Only the flow that was hit counts, one packet and the octets that its UDP header names.
    fn check_flows(
        &self,
        what: &str,
        before: &[(FlowKey, sallyport_abi::FlowValue)],
        fate: Fate,
        frame: &[u8],
    ) {
        let after = self.kernel.flows();
        assert_eq!(before.len(), after.len(), "{what}");
        let unheard = [Counter::DropNoSocket, Counter::DropNoMeta].map(Fate::Drop);
        let mut hits = 0;
        for ((key, before), (_, after)) in before.iter().zip(&after) {
            if before == after {
                continue;
            }
            hits += 1;
            let datagram = sallyport_wire::frame::parse(frame).unwrap();
            // Port 0 stands for any.
            let port = if key.remote().port() == 0 { 0 } else { datagram.source.port() };
            let source = SocketAddr::new(datagram.source.ip(), port);
            assert_eq!((key.local(), key.remote()), (datagram.destination, source), "{what}");
            assert_eq!(after.packets, before.packets + 1, "{what}");
            assert_eq!(after.bytes, before.bytes + datagram.payload.len() as u64, "{what}");
            assert!(after.last_seen_ns > before.last_seen_ns, "{what}");
            assert_eq!((after.direction, after.epoch), (before.direction, before.epoch), "{what}");
            if !unheard.contains(&fate) {
                assert_eq!(fate, Fate::Flow(after.direction, after.epoch), "{what}");
            }
        }
        if !unheard.contains(&fate) {
            assert_eq!(hits, usize::from(matches!(fate, Fate::Flow(..))), "{what}");
        }
    }

    /// Verdict, and what went out: metadata, if any, and frame.
    pub fn test_run(&mut self, by: By, queue: u32, driver: &[u8], frame: &[u8]) -> (u32, Vec<u8>) {
        let device = match by {
            By::Outside => "o0",
            By::Inside => "i0",
            By::Unknown => "u0",
        };
        let input = [driver, frame].concat();
        let number = |length: usize| u32::try_from(length).unwrap();
        // struct xdp_md: data, data_end, data_meta, ingress_ifindex, rx_queue_index, egress_ifindex
        let context = [number(driver.len()), number(input.len()), 0, index(device), queue, 0];
        let context: Vec<u8> = context.into_iter().flat_map(u32::to_ne_bytes).collect();
        let mut out = vec![0; input.len() + 256];
        let options = TestRunOptions {
            data_in: Some(&input),
            data_out: Some(&mut out),
            ctx_in: Some(&context),
            ..TestRunOptions::default()
        };
        let result = self.kernel.test_program().unwrap().test_run(options).unwrap();
        out.truncate(result.data_size_out as usize);
        (result.return_value, out)
    }

    /// The counters that no frame has moved yet.
    pub fn unmoved(&self) -> Vec<&'static str> {
        Counter::ALL.map(Counter::name).into_iter().filter(|name| !self.moved.contains_key(name)).collect()
    }
}
