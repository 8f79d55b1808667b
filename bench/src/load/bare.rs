//! A forwarder with nothing but the packets' own work: the floor that the relay is held against. By AF_XDP with SRTP, or by
//! UDP sockets without any cryptography.
//!
//! It runs as a process of its own (`bench bare`), knows a fixed number of calls, and learns nothing.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::os::fd::AsFd;
use std::time::Duration;

use clap::Args;
use nix::net::if_::if_nametoindex;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use sallyport_abi::FlowKey;
use sallyport_io::{AfXdpPort, Burst, Egress, FrameSize, Mode, Port, Queue, UdpPort};
use sallyport_srtp::{Opener, Sealer};
use sallyport_wire::PacketBuf;
use sallyport_xdp::{Attachment, Kernel, Options as KernelOptions};

use super::drive::End;
use super::mix::Mix;
use super::net::{INSIDE, OUTSIDE, Row, Side};
use super::target::{FIRST, MEDIA, Middle, Target, agent, browser, call, keys};

/// Frames of the port: for each queue as many as the relay has.
const FRAMES_OF_QUEUE: u32 = 2048 * 2;

/// Options of `bench bare`.
#[derive(Args)]
pub struct Options {
    /// Calls that it knows.
    #[arg(long)]
    calls: usize,
    /// `aes-cm` or `gcm` by AF_XDP; `none`: plain, by UDP sockets.
    #[arg(long)]
    suite: String,
    /// Queues of each interface.
    #[arg(long)]
    queues: u32,
    /// Where its program is pinned.
    #[arg(long)]
    pins: std::path::PathBuf,
}

/// Both ways of a call.
struct Way {
    inward: Egress,
    outward: Egress,
    keys: Option<(Opener, Sealer)>,
}

/// The appliance's address toward agent `at`.
fn toward_browser(at: usize) -> anyhow::Result<SocketAddr> {
    Ok(SocketAddr::new(INSIDE.parse()?, FIRST + 2 * u16::try_from(at)?))
}

fn way(at: usize, suite: &str) -> anyhow::Result<Way> {
    let media = SocketAddr::new(OUTSIDE.parse()?, MEDIA);
    let egress =
        |side: Side, local, remote| Egress { zone: side.zone(), local, remote, link: Some(side.back_link()) };
    let keys = match suite {
        "none" => None,
        suite => {
            let call = call(at, suite, Mix::default())?;
            let wrong = |error| anyhow::anyhow!("key: {error:?}");
            Some((
                Opener::new(&call.from_browser).map_err(wrong)?,
                Sealer::new(&call.to_browser).map_err(wrong)?,
            ))
        }
    };
    Ok(Way {
        inward: egress(Side::Inside, toward_browser(at)?, agent(at)?),
        outward: egress(Side::Outside, media, browser(at)?),
        keys,
    })
}

/// Forwards until it is ended.
///
/// # Errors
/// What keeps it from starting.
pub fn run(options: &Options) -> anyhow::Result<()> {
    // A socket a call.
    let (_, most) = getrlimit(Resource::RLIMIT_NOFILE)?;
    setrlimit(Resource::RLIMIT_NOFILE, most, most)?;
    let mut ways: Vec<Way> =
        (0..options.calls).map(|at| way(at, &options.suite)).collect::<anyhow::Result<_>>()?;
    let frames = FRAMES_OF_QUEUE * options.queues;
    if options.suite == "none" {
        let mut port = UdpPort::new(frames)?;
        port.bind(Side::Outside.zone(), ways[0].outward.local)?;
        let mut whose = HashMap::new();
        for (at, way) in ways.iter().enumerate() {
            port.bind(Side::Inside.zone(), way.inward.local)?;
            whose.insert(way.outward.remote, at);
            whose.insert(way.inward.remote, at);
        }
        return forward(&mut port, &mut ways, |_, remote| whose.get(&remote).copied());
    }
    let mut kernel = Kernel::load(&KernelOptions { pins: options.pins.clone(), max_flows: 1 << 16 })?;
    kernel.clear_flows()?;
    let mut queues = Vec::new();
    for side in [Side::Outside, Side::Inside] {
        let ifindex = if_nametoindex(side.near_interface())?;
        kernel.attach(ifindex, side.zone(), Some(Attachment::Native))?;
        let mode = Mode::Native;
        queues.extend((0..options.queues).map(|queue| Queue {
            ifindex,
            queue,
            zone: side.zone(),
            mode,
            mtu: 1500,
        }));
        kernel.set_media(side.zone(), side.near_address().parse()?, MEDIA..=65_000, None)?;
    }
    let mut port = AfXdpPort::open(&queues, frames, FrameSize::Ordinary)?;
    for (ifindex, queue, socket) in port.sockets() {
        kernel.register(ifindex, queue, socket)?;
    }
    for (at, way) in ways.iter().enumerate() {
        let at = u32::try_from(at)?;
        for egress in [&way.inward, &way.outward] {
            kernel.insert_flow(&FlowKey::new(egress.zone, egress.local, egress.remote), at, 1)?;
        }
    }
    forward(&mut port, &mut ways, |tag, _| Some(tag?.0 as usize))
}

fn forward(
    port: &mut dyn Port,
    ways: &mut [Way],
    whose: impl Fn(Option<(u32, u32)>, SocketAddr) -> Option<usize>,
) -> anyhow::Result<()> {
    let mut burst = Burst::new();
    loop {
        let nap = if port.pending() > 0 { Duration::from_millis(1) } else { Duration::from_secs(1) };
        {
            let descriptors = port.descriptors();
            let mut polled: Vec<PollFd<'_>> =
                descriptors.iter().map(|fd| PollFd::new(fd.as_fd(), PollFlags::POLLIN)).collect();
            poll(&mut polled, PollTimeout::try_from(nap)?)?;
        }
        while port.receive(&mut burst)? > 0 {
            for received in burst.drain() {
                let way = whose(received.tag, received.remote).and_then(|at| ways.get_mut(at));
                let outside = received.zone == Side::Outside.zone();
                let packet = PacketBuf::new(port.buffer(&received.frame), received.payload).ok();
                let passed = packet.zip(way).and_then(|(mut packet, way)| {
                    let good = match &mut way.keys {
                        None => true,
                        Some((opener, _)) if outside => opener.open_rtp(&mut packet).is_ok(),
                        Some((_, sealer)) => sealer.seal_rtp(&mut packet).is_ok(),
                    };
                    good.then(|| (packet.range(), if outside { &way.inward } else { &way.outward }))
                });
                match passed {
                    Some((range, egress)) => drop(port.transmit(received.frame, range, egress)),
                    None => port.release(received.frame),
                }
            }
            port.flush()?;
        }
    }
}

/// The forwarder as a target.
pub struct Bare {
    program: Middle,
    suite: String,
    calls: usize,
    pins: std::path::PathBuf,
}

impl Bare {
    /// Starts one for `calls` calls.
    ///
    /// # Errors
    /// Where it does not start.
    pub fn start(row: &Row, suite: &str, calls: usize) -> anyhow::Result<Self> {
        let pins = std::env::temp_dir().join(format!("{}-bare", row.name)).join("bpf");
        let own = std::env::current_exe()?.display().to_string();
        let pins_text = pins.display().to_string();
        let (calls_text, queues) = (calls.to_string(), row.queues.to_string());
        let arguments =
            ["bare", "--suite", suite, "--calls", &calls_text, "--queues", &queues, "--pins", &pins_text];
        let arguments = arguments.map(str::to_owned);
        let mut program = Middle::start(row, &own, &arguments)?;
        // It has no way to say that it is ready; its memory tells.
        std::thread::sleep(Duration::from_millis(1500));
        program.wait(|| Some(()))?;
        Ok(Self { program, suite: suite.into(), calls, pins })
    }
}

impl Target for Bare {
    fn name(&self) -> String {
        if self.suite == "none" {
            "plain sockets, no SRTP".into()
        } else {
            format!("bare AF_XDP {}", self.suite)
        }
    }

    fn extend(&mut self, ends: &mut Vec<End>, calls: usize) -> anyhow::Result<()> {
        anyhow::ensure!(calls <= self.calls, "the bare forwarder knows {} calls only", self.calls);
        for at in ends.len()..calls {
            let call = call(at, &self.suite, Mix::default())?;
            let plain = self.suite == "none";
            ends.push(End {
                browser: call.browser,
                agent: call.agent,
                toward_agent: SocketAddr::new(OUTSIDE.parse()?, MEDIA),
                toward_browser: toward_browser(at)?,
                keys: (!plain).then(|| keys(&call.from_browser, &call.to_browser)).transpose()?,
                sequence: 0,
            });
        }
        Ok(())
    }

    fn learns(&self) -> bool {
        false
    }

    fn cost(&self) -> Option<(f64, u64)> {
        self.program.cost()
    }
}

impl Drop for Bare {
    fn drop(&mut self) {
        self.program.end();
        let _ = sallyport_xdp::clear(&self.pins);
        let _ = nix::mount::umount(&self.pins);
        if let Some(folder) = self.pins.parent() {
            let _ = std::fs::remove_dir_all(folder);
        }
    }
}
