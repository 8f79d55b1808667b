//! A browser as far as a call needs one: an offer over HTTP, ICE as the controlling side, DTLS-SRTP, G.711. Hundreds fit
//! where one Chromium does.
//!
//! DTLS is the product's own binding of BoringSSL, so this is no independent judge of it: that is what Chromium and the
//! tests of `control` are for.

mod speaking;

use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use is::stun::{StunMessage, StunPacket};
use is::{Candidate, IceAgent, IceAgentEvent, IceCreds, Protocol};
use sallyport_control::dtls::{Done, Dtls, Identity, Step};
use sallyport_proto::DtlsRole;
use sallyport_srtp::{Opener, RTP_OVERHEAD, Sealer};
use sallyport_wire::PacketBuf;

use crate::appliance::Appliance;
use crate::net::{Lab, Place};
pub use speaking::Speaking;

/// How long the socket is waited for at once.
const GLANCE: Duration = Duration::from_millis(2);
/// How long the check that nominates may take to arrive.
const SETTLE: Duration = Duration::from_millis(20);
/// Between two packets of G.711.
pub const INTERVAL: Duration = Duration::from_millis(20);
/// RTP header and 20 ms of G.711.
const PACKET: usize = 12 + 160;
/// How long an answer over HTTP may take.
const ANSWER: Duration = Duration::from_secs(40);

/// A caller outside.
pub struct Caller {
    socket: UdpSocket,
    address: SocketAddr,
    agent: IceAgent,
    identity: Identity,
    dtls: Option<Dtls>,
    role: DtlsRole,
    peer: Option<SocketAddr>,
    http: ureq::Agent,
    place: crate::Namespace,
}

/// What the appliance answered to an offer.
#[derive(Debug, Clone)]
pub struct Placed {
    /// Path of the call.
    pub location: String,
    /// SDP.
    pub answer: String,
}

/// Media of a connected call.
pub struct Media {
    sealer: Sealer,
    opener: Opener,
    peer: SocketAddr,
    ssrc: u32,
    sequence: u16,
    timestamp: u32,
}

/// What a talk was.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Talk {
    /// RTP packets sent.
    pub sent: u64,
    /// RTP packets that came and verified.
    pub heard: u64,
    /// Packets that looked like RTP and did not verify.
    pub broken: u64,
}

impl Caller {
    /// One with a socket at an address of a place.
    ///
    /// # Errors
    /// What the system says.
    pub fn new(lab: &Lab, place: Place, address: IpAddr) -> anyhow::Result<Self> {
        Self::at(lab.namespace(place), address)
    }

    /// One in a namespace, with a socket at an address there.
    ///
    /// # Errors
    /// What the system says.
    pub fn at(namespace: crate::Namespace, address: IpAddr) -> anyhow::Result<Self> {
        let socket = namespace.within(|| UdpSocket::bind((address, 0)))??;
        socket.set_read_timeout(Some(GLANCE))?;
        let address = socket.local_addr()?;
        let mut agent = IceAgent::new(IceCreds::new());
        agent.set_controlling(true);
        agent.add_local_candidate(Candidate::host(address, "udp")?);
        let identity = Identity::new()?;
        let http = ureq::Agent::config_builder().timeout_global(Some(ANSWER)).http_status_as_error(false);
        let (http, role) = (http.build().into(), DtlsRole::Active);
        Ok(Self { socket, address, agent, identity, dtls: None, role, peer: None, http, place: namespace })
    }

    /// Its own address.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// What it offers: G.711, one candidate. `setup` is `actpass`, `active` or `passive` (RFC 5763 section 5).
    pub fn offer(&self, setup: &str) -> String {
        let creds = self.agent.local_credentials();
        let fingerprint: Vec<_> =
            self.identity.fingerprint().iter().map(|octet| format!("{octet:02X}")).collect();
        let (ip, port) = (self.address.ip(), self.address.port());
        format!(
            "v=0\r\no=- {port} 2 IN IP4 127.0.0.1\r\ns=-\r\nt=0 0\r\na=group:BUNDLE 0\r\n\
             m=audio 9 UDP/TLS/RTP/SAVPF 0 8 126\r\nc=IN IP4 0.0.0.0\r\na=ice-ufrag:{}\r\na=ice-pwd:{}\r\n\
             a=fingerprint:sha-256 {}\r\na=setup:{setup}\r\na=mid:0\r\na=sendrecv\r\na=rtcp-mux\r\n\
             a=rtpmap:0 PCMU/8000\r\na=rtpmap:8 PCMA/8000\r\na=rtpmap:126 telephone-event/8000\r\n\
             a=candidate:1 1 udp 2130706431 {ip} {port} typ host\r\na=end-of-candidates\r\n",
            creds.ufrag,
            creds.pass,
            fingerprint.join(":"),
        )
    }

    /// Asks for a call.
    ///
    /// # Errors
    /// An answer that is not 201, with its body.
    pub fn place(&self, url: &str, token: &str, offer: &str) -> anyhow::Result<Placed> {
        self.place.within(|| {
            let request = self.http.post(url).header("Authorization", format!("Bearer {token}"));
            let mut response = request.content_type("application/sdp").send(offer)?;
            let location = response.headers().get("Location").and_then(|value| value.to_str().ok());
            let location = location.unwrap_or_default().to_owned();
            let answer = response.body_mut().read_to_string()?;
            if response.status().as_u16() != 201 {
                bail!("POST answers {}: {answer}", response.status());
            }
            Ok(Placed { location, answer })
        })?
    }

    /// Places a call through an appliance, as a browser on the Internet does.
    ///
    /// # Errors
    /// As [`Caller::place`].
    pub fn call(&self, appliance: &Appliance, user: &str) -> anyhow::Result<Placed> {
        self.place(&appliance.call_url(user), appliance.token(), &self.offer("actpass"))
    }

    /// Hangs up with DELETE; the status of the answer.
    ///
    /// # Errors
    /// No answer.
    pub fn hang_up(&self, appliance: &Appliance, placed: &Placed) -> anyhow::Result<u16> {
        let url = appliance.public_url(&placed.location);
        let token = appliance.token();
        self.place.within(|| {
            let request = self.http.delete(&url).header("Authorization", format!("Bearer {token}"));
            Ok(request.call()?.status().as_u16())
        })?
    }

    /// Its socket.
    pub fn socket(&self) -> &UdpSocket {
        &self.socket
    }

    /// Connects as an answer says: ICE, then DTLS.
    ///
    /// # Errors
    /// Where they fail, or not within `patience`.
    pub fn connect(&mut self, answer: &str, patience: Duration) -> anyhow::Result<Media> {
        let until = Instant::now() + patience;
        self.nominate(answer, patience)?;
        while Instant::now() < until {
            self.flush();
            if let Some(done) = self.step()? {
                return self.media(&done);
            }
            self.run_ice()?;
        }
        bail!("ICE is done, but DTLS is not, within {patience:?}")
    }

    /// Runs ICE until a pair is nominated, and no DTLS: where it sends to. [`Caller::connect`] goes on from there.
    ///
    /// # Errors
    /// Where it fails, or not within `patience`.
    pub fn nominate(&mut self, answer: &str, patience: Duration) -> anyhow::Result<SocketAddr> {
        let value = |start: &str| {
            let found = answer.lines().find_map(|line| line.strip_prefix(start)).map(str::trim);
            found.with_context(|| format!("no {start} in the answer")).map(ToOwned::to_owned)
        };
        self.agent
            .set_remote_credentials(IceCreds { ufrag: value("a=ice-ufrag:")?, pass: value("a=ice-pwd:")? });
        self.role = if value("a=setup:")? == "active" { DtlsRole::Passive } else { DtlsRole::Active };
        let lines = answer.lines().filter_map(|line| line.strip_prefix("a="));
        for line in lines.filter(|line| line.starts_with("candidate:")) {
            self.agent.add_remote_candidate(Candidate::from_sdp_string(line)?);
        }
        let (until, mut nominated) = (Instant::now() + patience, None);
        while Instant::now() < until {
            self.run_ice()?;
            match self.peer {
                // The far side learns of it by a check that is on its way now.
                Some(peer) if nominated.is_some_and(|at: Instant| at.elapsed() > SETTLE) => return Ok(peer),
                Some(_) => drop(nominated.get_or_insert_with(Instant::now)),
                None => {}
            }
            self.step()?;
        }
        bail!("no pair is nominated within {patience:?}")
    }

    fn media(&mut self, done: &Done) -> anyhow::Result<Media> {
        // The last flight is the browser's where it is the client.
        self.flush();
        let key = |error| anyhow::anyhow!("key: {error:?}");
        let (sealer, opener) =
            (Sealer::new(&done.send).map_err(key)?, Opener::new(&done.receive).map_err(key)?);
        let ssrc = u32::from(self.address.port()) << 8 | 1;
        let peer = self.peer.context("DTLS without a nominated pair")?;
        Ok(Media { sealer, opener, peer, ssrc, sequence: 1, timestamp: 0 })
    }

    /// Sends what ICE wants sent, and takes note of the nominated pair.
    fn run_ice(&mut self) -> anyhow::Result<()> {
        self.agent.handle_timeout(Instant::now());
        while let Some(transmit) = self.agent.poll_transmit() {
            // Without a route to a candidate the others are tried.
            let _ = self.socket.send_to(&transmit.contents, transmit.destination);
        }
        while let Some(event) = self.agent.poll_event() {
            if let IceAgentEvent::NominatedSend { destination, .. } = event {
                self.peer = Some(destination);
                if self.dtls.is_none() {
                    self.dtls = Some(Dtls::new(&self.identity, self.role).map_err(anyhow::Error::msg)?);
                }
            }
        }
        Ok(())
    }

    fn flush(&mut self) {
        while let Some(datagram) = self.dtls.as_mut().and_then(Dtls::poll_transmit) {
            if let Some(peer) = self.peer {
                let _ = self.socket.send_to(&datagram, peer);
            }
        }
    }

    /// Takes in one datagram, or lets the timers run.
    fn step(&mut self) -> anyhow::Result<Option<Done>> {
        let mut room = [0; 2048];
        let step = match self.socket.recv_from(&mut room) {
            Ok((length, from)) => match self.take(&room[..length], from) {
                Some(record) => self.dtls.as_mut().map_or(Step::Going, |dtls| dtls.receive(&record)),
                None => Step::Going,
            },
            Err(_) => {
                let now = Instant::now();
                let due =
                    self.dtls.as_mut().filter(|dtls| dtls.poll_timeout(now).is_some_and(|at| at <= now));
                due.map_or(Step::Going, Dtls::handle_timeout)
            }
        };
        match step {
            Step::Done(done) => Ok(Some(*done)),
            Step::Failed(text) => bail!("DTLS: {text}"),
            Step::Going | Step::Closed => Ok(None),
        }
    }

    /// Gives STUN to ICE; what is a DTLS record comes back.
    fn take(&mut self, datagram: &[u8], from: SocketAddr) -> Option<Vec<u8>> {
        if let Ok(message) = StunMessage::parse(datagram) {
            let packet =
                StunPacket { proto: Protocol::Udp, source: from, destination: self.address, message };
            self.agent.handle_packet(Instant::now(), packet);
            return None;
        }
        datagram.first().is_some_and(|first| (20..64).contains(first)).then(|| datagram.to_vec())
    }

    /// Talks for a while: a packet every 20 ms, everything that comes is verified, ICE goes on.
    ///
    /// # Errors
    /// What the system says of the socket.
    pub fn talk(&mut self, media: &mut Media, packets: u32) -> anyhow::Result<Talk> {
        let (begin, mut talk) = (Instant::now(), Talk::default());
        for at in 0..packets {
            media.send(&self.socket)?;
            talk.sent += 1;
            let next = begin + INTERVAL * (at + 1);
            while Instant::now() < next {
                self.hear(media, &mut talk)?;
            }
        }
        // What is still on its way.
        let until = Instant::now() + 5 * INTERVAL;
        while Instant::now() < until {
            self.hear(media, &mut talk)?;
        }
        Ok(talk)
    }

    fn hear(&mut self, media: &mut Media, talk: &mut Talk) -> anyhow::Result<()> {
        self.run_ice()?;
        let mut room = [0; 2048];
        let Ok((length, from)) = self.socket.recv_from(&mut room) else { return Ok(()) };
        match room.first() {
            Some(128..=191) => media.hear(&mut room, length, talk),
            _ => {
                if let Some(record) = self.take(&room[..length], from)
                    && let Some(dtls) = &mut self.dtls
                {
                    dtls.receive(&record);
                    self.flush();
                }
            }
        }
        Ok(())
    }
}

impl Media {
    /// Where it is sent.
    pub fn peer(&self) -> SocketAddr {
        self.peer
    }

    /// The next packet, sealed.
    ///
    /// # Errors
    /// None that occurs before 2^48 packets.
    pub fn seal(&mut self) -> anyhow::Result<Vec<u8>> {
        let mut room = [0xd5; PACKET + RTP_OVERHEAD];
        room[..2].copy_from_slice(&[0x80, 0]);
        room[2..4].copy_from_slice(&self.sequence.to_be_bytes());
        room[4..8].copy_from_slice(&self.timestamp.to_be_bytes());
        room[8..12].copy_from_slice(&self.ssrc.to_be_bytes());
        self.sequence = self.sequence.wrapping_add(1);
        self.timestamp = self.timestamp.wrapping_add(160);
        let mut buf = PacketBuf::new(&mut room, 0..PACKET).map_err(|_| anyhow::anyhow!("no room"))?;
        self.sealer.seal_rtp(&mut buf).map_err(|error| anyhow::anyhow!("sealing: {error:?}"))?;
        Ok(buf.packet().to_vec())
    }

    fn send(&mut self, socket: &UdpSocket) -> anyhow::Result<()> {
        let packet = self.seal()?;
        socket.send_to(&packet, self.peer)?;
        Ok(())
    }

    fn hear(&mut self, room: &mut [u8], length: usize, talk: &mut Talk) {
        // RTCP (RFC 5761 section 4) is no news.
        if room.get(1).is_some_and(|second| (192..=223).contains(second)) {
            return;
        }
        let opened =
            PacketBuf::new(room, 0..length).ok().and_then(|mut buf| self.opener.open_rtp(&mut buf).ok());
        match opened {
            Some(_) => talk.heard += 1,
            None => talk.broken += 1,
        }
    }
}
