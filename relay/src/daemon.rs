//! Brings the relay up in order, and down again.

use std::fs::{File, TryLockError};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::sync::mpsc::{Sender, channel};
use std::time::{Instant, SystemTime};
use std::{io, thread};

use anyhow::{Context, bail};
use caps::{CapSet, Capability, CapsHashSet};
use nix::sched::{CpuSet, sched_getaffinity};
use nix::sys::eventfd::{EfdFlags, EventFd};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::unistd::Pid;
use sallyport_core::{Limits, Translator};
use sallyport_io::{AfXdpPort, TcpConnections, UdpPort};
use sallyport_plan::Zone;
use sallyport_srtp::suites::{self, Backend};
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use crate::config::{self, Config, PathChoice, Poll, SrtpChoice, WORKERS_MAX};
use crate::edge::Edge;
use crate::facts::{self, Interface};
use crate::hairpin::Own;
use crate::handoff::{self, Handoff};
use crate::link;
use crate::nexthop;
use crate::offload::{self, Offload};
use crate::ports::Ports;
use crate::sessions::{self, Sessions};
use crate::tcp;
use crate::uplink::{self, Message, Uplink, Waiting};
use crate::worker::{self, Handle, Worker};

/// Buffers of each worker on the socket path.
const SOCKET_FRAMES: u32 = 4096;

/// Runs until a signal: `SIGTERM` leaves calls for the next relay, `SIGINT` ends everything.
///
/// # Errors
/// What keeps the relay from starting, in words.
pub fn run(config: &Config) -> anyhow::Result<()> {
    choose_crypto(config.relay.srtp)?;
    let _alone = alone(&config.relay.socket)?;
    let mut interfaces = facts::read(config)?;
    if config.relay.hash_ports {
        interfaces.iter_mut().for_each(Interface::ask_to_hash_ports);
    }
    // UMEM is locked memory; only the hard limit of a root without CAP_SYS_RESOURCE can keep us from this.
    let _ = setrlimit(Resource::RLIMIT_MEMLOCK, u64::MAX, u64::MAX);
    let (inbox, messages) = channel();
    let mut signals = Signals::new([SIGTERM, SIGINT]).context("signals cannot be caught")?;
    if interfaces[0].tcp.is_some() {
        raise_descriptors();
    }
    let (offload, edges) = open_path(config, &interfaces)?;
    let connections = tcp::open(&interfaces[0], config.relay.max_calls as usize)
        .context("the TCP port of the browsers cannot be opened")?;
    keep_capabilities();
    let (sessions, orphans) = Sessions::open(config.relay.max_calls).context("no memory for sessions")?;
    let waiting = Waiting::new(AtomicUsize::new(0));
    let framed = offload.is_some();
    let own = Own::new(&interfaces);
    let (workers, tcp) = spawn_threads(edges, connections, framed, config, &own, &inbox, &waiting)?;
    let next_hops = framed.then(|| spawn_resolver(&interfaces, &inbox)).transpose()?;
    let mut uplink = Uplink {
        ports: Ports::new(&interfaces[1].addresses, config.inside.ports[0], config.inside.ports[1]),
        max_calls: config.relay.max_calls as usize,
        interfaces,
        own,
        offload,
        workers,
        tcp,
        next_hops,
        sessions,
        waiting,
        state: uplink::State::default(),
    };
    uplink.adopt(orphans);
    let control = inbox.clone();
    link::listen(&config.relay.socket, move |message| control.send(Message::Control(message)).is_ok())
        .with_context(|| format!("cannot listen on {}", config.relay.socket.display()))?;
    thread::Builder::new().name("signals".into()).spawn(move || {
        if let Some(signal) = signals.forever().next() {
            let _ = inbox.send(Message::Stop { keep: signal == SIGTERM });
        }
    })?;
    let status = uplink.describe();
    let _ = sd_notify::notify(&[sd_notify::NotifyState::Ready, sd_notify::NotifyState::Status(&status)]);
    uplink.run(&messages);
    let _ = std::fs::remove_file(&config.relay.socket);
    Ok(())
}

/// Takes the SRTP kernels that are asked for, or those that the suites choose, and says which.
fn choose_crypto(wanted: SrtpChoice) -> anyhow::Result<()> {
    let wanted = match wanted {
        SrtpChoice::Auto => None,
        SrtpChoice::Portable => Some(Backend::Portable),
        SrtpChoice::Shani => Some(Backend::Shani),
        SrtpChoice::Avx512 => Some(Backend::Avx512),
    };
    if let Some(wanted) = wanted
        && suites::force(wanted).is_err()
    {
        bail!("[relay] srtp = \"{}\": this machine's processor lacks what it needs", wanted.name());
    }
    let selection = suites::selected();
    if let Some(failed) = selection.failed {
        tracing::error!(
            failed = failed.name(),
            "SRTP kernels failed their self-test; the portable ones are used"
        );
    }
    tracing::info!(backend = selection.backend.name(), "SRTP");
    Ok(())
}

/// A lock beside the socket, held while it lives: a second relay would take program and flows away from the first.
fn alone(socket: &Path) -> anyhow::Result<File> {
    let path = socket.with_extension("lock");
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
    }
    let file = File::create(&path).with_context(|| format!("cannot write {}", path.display()))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => bail!("another relay runs: it holds {}", path.display()),
        Err(TryLockError::Error(error)) => {
            Err(error).with_context(|| format!("cannot lock {}", path.display()))
        }
    }
}

/// The way that packets take, and a port per worker.
fn open_path(config: &Config, interfaces: &[Interface; 2]) -> anyhow::Result<(Option<Offload>, Vec<Edge>)> {
    let relay = &config.relay;
    if relay.path != PathChoice::Socket {
        match Offload::open(interfaces, relay.path, &relay.pins, relay.workers, relay.max_calls) {
            Ok((offload, mut ports)) => {
                for zone in [Zone::Outside, Zone::Inside] {
                    tracing::info!(
                        ?zone,
                        path = offload.path(zone),
                        queues = offload.queues(zone),
                        zero_copy = offload.zero_copy(zone),
                        mtu = interfaces[usize::from(zone == Zone::Inside)].egress_mtu(),
                        "packets take AF_XDP"
                    );
                }
                tracing::info!(huge_pages = ports.iter().all(AfXdpPort::huge_pages), "packet memory");
                if relay.poll == Poll::Busy {
                    // All of them: the first that cannot must not keep the others from it.
                    let driven =
                        ports.iter_mut().map(AfXdpPort::poll_busily).filter(|driven| *driven).count();
                    tracing::info!(driven, workers = ports.len(), "workers poll busily");
                }
                let edges = ports.into_iter().map(|port| Edge::AfXdp(Box::new(port))).collect();
                return Ok((Some(offload), edges));
            }
            Err(error) if relay.path == PathChoice::Auto => {
                tracing::warn!("no XDP, so packets take UDP sockets, which is slower: {error:#}");
            }
            Err(error) => return Err(error),
        }
    }
    Offload::clear(&relay.pins)?;
    Ok((None, open_sockets(relay, interfaces)?))
}

/// A port per worker, all of which share the browsers' ports. Other sockets inside come with calls.
fn open_sockets(relay: &config::Relay, interfaces: &[Interface; 2]) -> anyhow::Result<Vec<Edge>> {
    raise_descriptors();
    for interface in interfaces.iter().filter(|interface| interface.lower_mtu.is_some()) {
        tracing::warn!(
            zone = ?interface.zone,
            mtu = interface.mtu,
            "the configured mtu is not obeyed by UDP sockets, which cut by the interface's: routers may cut IPv4 further, and \
             longer IPv6 is lost on a narrower link unless the interface is given its MTU"
        );
    }
    let workers = if relay.workers == 0 { facts::processors().min(WORKERS_MAX) } else { relay.workers };
    let ports = match share_sockets(relay, interfaces, workers) {
        Err(error) if relay.workers == 0 && error.kind() == io::ErrorKind::Unsupported => {
            tracing::warn!(%error, "packets cannot be steered to workers, so there is one");
            share_sockets(relay, interfaces, 1)
        }
        ports => ports,
    };
    let ports = ports.context("a media port of the browsers cannot be opened")?;
    tracing::info!(workers = ports.len(), "packets take UDP sockets");
    Ok(ports.into_iter().map(|port| Edge::Udp(Box::new(port))).collect())
}

/// A call takes two sockets or more, or a TCP connection, and what is given to a process at first is for 500 calls.
fn raise_descriptors() {
    if let Ok((_, most)) = getrlimit(Resource::RLIMIT_NOFILE) {
        let _ = setrlimit(Resource::RLIMIT_NOFILE, most, most);
    }
}

fn share_sockets(
    relay: &config::Relay,
    interfaces: &[Interface; 2],
    workers: u32,
) -> io::Result<Vec<UdpPort>> {
    let mut ports = Vec::new();
    for _ in 0..workers {
        let mut port = UdpPort::with_frames(SOCKET_FRAMES, offload::frame_size(interfaces))?;
        if relay.udp_offload {
            port.merge();
        }
        for interface in interfaces {
            port.belong(interface.zone as u8, &interface.name);
            port.mark(interface.zone as u8, interface.dscp);
            port.limit(interface.zone as u8, interface.mtu);
        }
        ports.push(port);
    }
    for interface in interfaces {
        for (address, port) in interface.addresses.iter().zip(interface.browsers.iter().cycle()) {
            UdpPort::share(&mut ports, interface.zone as u8, (*address, *port).into())?;
        }
    }
    Ok(ports)
}

/// The workers, and behind them whoever has the TCP connections, where there may be any.
fn spawn_threads(
    edges: Vec<Edge>,
    connections: Option<TcpConnections>,
    framed: bool,
    config: &Config,
    own: &Own,
    inbox: &Sender<Message>,
    waiting: &Waiting,
) -> anyhow::Result<(Vec<Handle>, Option<Handle>)> {
    let wakes: io::Result<Vec<Arc<EventFd>>> =
        edges.iter().map(|_| ()).chain(connections.iter().map(|_| ())).map(|()| wake()).collect();
    let mut wakes = wakes.context("no eventfd")?;
    let mut meshes = handoff::mesh(&wakes, connections.as_ref().map(|_| edges.len()));
    let (epoch, count) = (Instant::now(), edges.len());
    let notify = |at: u8| uplink::notifier(at, inbox.clone(), waiting.clone());
    let last = u8::try_from(count).context("more than 255 workers")?;
    let mut tcp = None;
    if let Some(connections) = connections
        && let (Some(handoff), Some(wake)) = (meshes.pop(), wakes.pop())
    {
        let spawned = tcp::spawn(connections, handoff, wake, epoch, notify(last));
        tcp = Some(spawned.context("the thread of the TCP connections does not start")?);
    }
    let crew = Crew { config, own, framed, epoch, ntp: ntp(), tcp: tcp.as_ref().map(|_| last) };
    let mut handles = Vec::new();
    for (index, ((edge, wake), handoff)) in (0u8..).zip(edges.into_iter().zip(wakes).zip(meshes)) {
        let worker = crew.worker(index, count, edge, wake, handoff)?;
        handles.push(worker::spawn(worker, notify(index)).context("a worker does not start")?);
    }
    Ok((handles, tcp))
}

/// What all workers have in common.
struct Crew<'a> {
    config: &'a Config,
    own: &'a Own,
    framed: bool,
    epoch: Instant,
    /// The wall clock then.
    ntp: u64,
    tcp: Option<u8>,
}

impl Crew<'_> {
    /// One of `count` workers.
    fn worker(
        &self,
        index: u8,
        count: usize,
        edge: Edge,
        wake: Arc<EventFd>,
        handoff: Handoff,
    ) -> anyhow::Result<Worker> {
        let relay = &self.config.relay;
        let calls = relay.max_calls as usize;
        let limits = Limits { calls, directions: calls * 4 };
        let processors = if relay.pin && count > 1 { processors(count) } else { Vec::new() };
        let translator = Translator::new(index, limits, seed().context("no randomness")?);
        Ok(Worker {
            index,
            edge,
            translator: translator
                .with_browsers(self.config.inside.browsers)
                .with_epoch(self.ntp)
                .with_ahead(sessions::ahead),
            own: self.own.clone(),
            handoff,
            tcp: self.tcp,
            wake,
            framed: self.framed,
            poll: relay.poll,
            residence: relay.residence,
            processor: processors.get(usize::from(index)).copied(),
            epoch: self.epoch,
        })
    }
}

/// A processor for each of several workers; none where there are too few for all. Worker `w` has queue `w`, whose interrupts
/// mostly come to the `w`th processor.
fn processors(workers: usize) -> Vec<usize> {
    let Ok(allowed) = sched_getaffinity(Pid::from_raw(0)) else { return Vec::new() };
    let allowed = (0..CpuSet::count()).filter(|at| allowed.is_set(*at).unwrap_or(false));
    let processors: Vec<usize> = allowed.take(workers).collect();
    if processors.len() == workers { processors } else { Vec::new() }
}

/// The wall clock in NTP's format: seconds since 1900 and their 2^32th parts (RFC 5905 section 6).
fn ntp() -> u64 {
    let since_1970 = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let parts = (u64::from(since_1970.subsec_nanos()) << 32) / 1_000_000_000;
    // The seconds wrap in 2036, as everybody's do.
    (since_1970.as_secs().wrapping_add(2_208_988_800) << 32) | parts
}

/// Random octets for transaction ids.
fn seed() -> io::Result<[u8; 32]> {
    let mut seed = [0; 32];
    io::Read::read_exact(&mut std::fs::File::open("/dev/urandom")?, &mut seed)?;
    Ok(seed)
}

fn wake() -> io::Result<Arc<EventFd>> {
    Ok(Arc::new(EventFd::from_value_and_flags(0, EfdFlags::EFD_NONBLOCK | EfdFlags::EFD_CLOEXEC)?))
}

fn spawn_resolver(
    interfaces: &[Interface; 2],
    inbox: &Sender<Message>,
) -> anyhow::Result<Sender<nexthop::Question>> {
    let answers = inbox.clone();
    let answer = move |answer| {
        let _ = answers.send(Message::NextHop(answer));
    };
    nexthop::spawn(interfaces.clone(), answer).context("rtnetlink cannot be asked")
}

/// From here on only what maps and AF_XDP sockets need. Capabilities belong to threads: this comes before any is made.
fn keep_capabilities() {
    let mut kept = CapsHashSet::new();
    kept.extend([Capability::CAP_BPF, Capability::CAP_NET_ADMIN, Capability::CAP_NET_RAW]);
    let held = caps::read(None, CapSet::Permitted).unwrap_or_default();
    let kept: CapsHashSet = kept.intersection(&held).copied().collect();
    for set in [CapSet::Effective, CapSet::Permitted] {
        if let Err(error) = caps::set(None, set, &kept) {
            tracing::warn!(%error, ?set, "capabilities are not dropped");
        }
    }
}

#[cfg(test)]
mod tests {
    /// `io` and `xdp/abi` must not know each other; here both are known.
    #[test]
    fn metadata_means_the_same_on_both_sides() {
        assert_eq!(sallyport_io::META_MAGIC, sallyport_abi::META_MAGIC);
        assert_eq!(sallyport_io::META_FLOW, sallyport_abi::META_FLOW);
        assert_eq!(sallyport_io::META_PUNT, sallyport_abi::META_PUNT);
        assert_eq!(sallyport_io::META_LEN, size_of::<sallyport_abi::Meta>());
    }
}
