//! Telephony's media under keys of `a=crypto` (RFC 4568), without its signalling: for a SIPp whose offers change the key.
//!
//! It does what a far end has to: seals under its new key once it has read our answer, opens under all keys that it knows of, and
//! its network reorders packets.

use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::Context;
use sallyport_proto::sdp::Crypto;
use sallyport_srtp::{Opener, RTP_OVERHEAD, Sealer};
use sallyport_wire::PacketBuf;

use crate::namespace::Namespace;

const INTERVAL: Duration = Duration::from_millis(20);
/// RTP header and 20 ms of G.711.
const PACKET: usize = 12 + 160;
/// Packets under a former key that are overtaken by as many under the next.
const OVERTAKEN: usize = 3;

/// What it has seen.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Tally {
    /// Packets sent.
    pub sent: u64,
    /// Packets that came and verified under one of the keys that were told.
    pub heard: u64,
    /// Packets that did not.
    pub broken: u64,
    /// Keys of the other side that something came under.
    pub keys: u64,
}

/// One address and port. It ends with [`Secret::stop`].
#[derive(Debug)]
pub struct Secret {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<anyhow::Result<Tally>>,
}

impl Secret {
    /// Listens and, once it has heard somebody, speaks, under the keys of these lines (`1 AES_CM_... inline:...`) one after the
    /// other. `messages`: the SIP that was read so far, in which the other side's keys are found: each new one is the answer to the
    /// offer of the next of ours.
    ///
    /// # Errors
    /// What the system says of the address; a line that is none.
    pub fn start(
        namespace: &Namespace,
        address: SocketAddr,
        lines: &[&str],
        messages: impl Fn() -> String + Send + 'static,
    ) -> anyhow::Result<Self> {
        let socket = namespace.within(|| UdpSocket::bind(address))??;
        socket.set_read_timeout(Some(Duration::from_millis(2)))?;
        let own = lines.iter().map(|line| parse(line)).collect::<anyhow::Result<Vec<_>>>()?;
        let stop = Arc::new(AtomicBool::new(false));
        let mut speaker =
            Speaker { socket, own, theirs: Vec::new(), late: Vec::new(), tally: Tally::default() };
        let mine = stop.clone();
        let thread = thread::spawn(move || speaker.run(&mine, messages));
        Ok(Self { stop, thread })
    }

    /// Ends it; what it has seen.
    ///
    /// # Errors
    /// What went wrong on the way.
    pub fn stop(self) -> anyhow::Result<Tally> {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().map_err(|_| anyhow::anyhow!("the speaker failed"))?
    }
}

fn parse(line: &str) -> anyhow::Result<Crypto> {
    Crypto::parse(line).map_err(|flaw| anyhow::anyhow!("{}", flaw.text()))
}

/// A key of the other side.
struct Theirs {
    line: Crypto,
    opener: Opener,
    heard: bool,
}

struct Speaker {
    socket: UdpSocket,
    own: Vec<Crypto>,
    theirs: Vec<Theirs>,
    /// Packets of the other side under a key that is not read yet.
    late: Vec<(Instant, Vec<u8>)>,
    tally: Tally,
}

impl Speaker {
    fn run(&mut self, stop: &AtomicBool, messages: impl Fn() -> String) -> anyhow::Result<Tally> {
        let (mut sealer, mut sealing) = (None, usize::MAX);
        let (mut peer, mut next, mut number) = (None, Instant::now(), 0u16);
        let mut held: Vec<Vec<u8>> = Vec::new();
        while !stop.load(Ordering::Relaxed) {
            self.read(&messages())?;
            peer = self.hear().or(peer);
            let Some(peer) = peer.filter(|_| Instant::now() >= next) else { continue };
            next += INTERVAL;
            let due = self.theirs.len().saturating_sub(1).min(self.own.len() - 1);
            if due != sealing {
                let key = &self.own.get(due).context("no key")?.key;
                sealer = Some(Sealer::new(key).map_err(|error| anyhow::anyhow!("{error:?}"))?);
                sealing = due;
            }
            let Some(sealer) = &mut sealer else { continue };
            number += 1;
            held.push(seal(sealer, number)?);
            // The last ones under a former key come behind the first ones under the next.
            if held.len() >= OVERTAKEN {
                for packet in held.drain(..).rev() {
                    self.socket.send_to(&packet, peer)?;
                    self.tally.sent += 1;
                }
            }
        }
        self.tally.broken += self.late.len() as u64;
        self.tally.keys = self.theirs.iter().filter(|theirs| theirs.heard).count() as u64;
        Ok(self.tally)
    }

    /// Keys of the other side that are new: of an offer with several lines the one of our suite.
    fn read(&mut self, messages: &str) -> anyhow::Result<()> {
        for line in messages.lines().filter_map(|line| line.trim_end().strip_prefix("a=crypto:")) {
            let line = parse(line)?;
            let own = self.own.iter().any(|own| own.key == line.key);
            let known = self.theirs.iter().any(|theirs| theirs.line.key == line.key);
            let suite = self.own.first().is_some_and(|own| own.key.profile() == line.key.profile());
            if !own && !known && suite {
                let opener = Opener::new(&line.key).map_err(|error| anyhow::anyhow!("{error:?}"))?;
                self.theirs.push(Theirs { line, opener, heard: false });
            }
        }
        Ok(())
    }

    /// Takes one packet; who sent it.
    fn hear(&mut self) -> Option<SocketAddr> {
        let mut room = [0; 2048];
        let come = self.socket.recv_from(&mut room).ok();
        if let Some((length, _)) = come {
            self.late.push((Instant::now(), room[..length].to_vec()));
        }
        for (at, packet) in std::mem::take(&mut self.late) {
            if self.opens(&packet) {
                self.tally.heard += 1;
            } else if at.elapsed() < Duration::from_millis(200) {
                self.late.push((at, packet));
            } else {
                self.tally.broken += 1;
            }
        }
        come.map(|(_, from)| from)
    }

    fn opens(&mut self, packet: &[u8]) -> bool {
        let reports = packet.get(1).is_some_and(|second| (192..=223).contains(second));
        self.theirs.iter_mut().any(|theirs| {
            let mut room = packet.to_vec();
            let length = room.len();
            let Ok(mut buf) = PacketBuf::new(&mut room, 0..length) else { return false };
            let opened = match reports {
                true => theirs.opener.open_rtcp(&mut buf).is_ok(),
                false => theirs.opener.open_rtp(&mut buf).is_ok(),
            };
            theirs.heard |= opened;
            opened
        })
    }
}

fn seal(sealer: &mut Sealer, number: u16) -> anyhow::Result<Vec<u8>> {
    let mut room = [0xd5; PACKET + RTP_OVERHEAD];
    room[..2].copy_from_slice(&[0x80, 0]);
    room[2..4].copy_from_slice(&number.to_be_bytes());
    room[4..8].copy_from_slice(&(u32::from(number) * 160).to_be_bytes());
    room[8..12].copy_from_slice(b"secr");
    let mut buf = PacketBuf::new(&mut room, 0..PACKET).map_err(|_| anyhow::anyhow!("no room"))?;
    sealer.seal_rtp(&mut buf).map_err(|error| anyhow::anyhow!("sealing: {error:?}"))?;
    Ok(buf.packet().to_vec())
}
