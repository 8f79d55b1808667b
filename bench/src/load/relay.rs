//! Control's side of the relay's socket, as the harness needs it: reserve, install, ask.

use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use sallyport_plan::{
    CallId, Command, Digits, Direction, DirectionIndex, DirectionReport, Event, Extensions, FlowKey, Format,
    KeyMaterial, Mute, Passage, Plan, PortPair, Protection, Pt, PtMap, Resend, Ssrc, Status, Zone, decode,
    encode,
};

use super::mix::Mix;

/// How long the relay may take to answer.
const PATIENCE: Duration = Duration::from_secs(10);

/// A connection to the relay.
pub struct RelayClient {
    stream: UnixStream,
    pending: Vec<u8>,
}

/// One call of the load: who is outside, who is inside, under which keys.
#[derive(Clone)]
pub struct LoadCall {
    /// Its name at the relay.
    pub id: CallId,
    /// The browser's address.
    pub browser: SocketAddr,
    /// The agent's RTP address; RTCP is one port above.
    pub agent: SocketAddr,
    /// What the browser seals with.
    pub from_browser: KeyMaterial,
    /// What the relay seals with toward the browser.
    pub to_browser: KeyMaterial,
    /// SSRC announced inside.
    pub inside_ssrc: u32,
    /// SSRC announced outside.
    pub outside_ssrc: u32,
    /// What it sends.
    pub mix: Mix,
}

impl RelayClient {
    /// Connects and agrees on the contract's version; returns the relay's state too.
    ///
    /// # Errors
    /// Where the relay does not answer, or speaks another version.
    pub fn connect(socket: &Path) -> anyhow::Result<(Self, Status)> {
        let stream =
            UnixStream::connect(socket).with_context(|| format!("no relay at {}", socket.display()))?;
        stream.set_read_timeout(Some(Duration::from_millis(200)))?;
        let mut client = Self { stream, pending: Vec::new() };
        client.send(&Command::Hello { version: sallyport_plan::VERSION })?;
        let status = client.wait("hello", |event| match event {
            Event::Hello { version, status } if version == sallyport_plan::VERSION => Some(status),
            _ => None,
        })?;
        Ok((client, status))
    }

    fn send(&mut self, command: &Command) -> anyhow::Result<()> {
        let mut bytes = Vec::new();
        encode(command, &mut bytes)?;
        Ok(self.stream.write_all(&bytes)?)
    }

    fn wait<T>(&mut self, what: &str, mut wanted: impl FnMut(Event) -> Option<T>) -> anyhow::Result<T> {
        let until = Instant::now() + PATIENCE;
        let mut piece = [0; 65536];
        while Instant::now() < until {
            while let Some((event, used)) = decode::<Event>(&self.pending)? {
                self.pending.drain(..used);
                if let Event::Refused { refusal, .. } = event {
                    bail!("the relay refuses ({what}): {refusal}");
                }
                if let Some(found) = wanted(event) {
                    return Ok(found);
                }
            }
            match self.stream.read(&mut piece) {
                Ok(0) => bail!("the relay closed its socket ({what})"),
                Ok(n) => self.pending.extend_from_slice(&piece[..n]),
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error.into()),
            }
        }
        bail!("the relay does not answer ({what})")
    }

    /// Reserves one port pair.
    ///
    /// # Errors
    /// A refusal, or no answer.
    pub fn reserve(&mut self, call: CallId, toward: IpAddr) -> anyhow::Result<PortPair> {
        self.reserve_pairs(call, toward, 1)?.first().copied().context("no pair")
    }

    /// Reserves port pairs.
    ///
    /// # Errors
    /// A refusal, or no answer.
    pub fn reserve_pairs(
        &mut self,
        call: CallId,
        toward: IpAddr,
        pairs: u8,
    ) -> anyhow::Result<Vec<PortPair>> {
        self.send(&Command::Reserve { call, toward, pairs })?;
        self.wait("reserve", |event| match event {
            Event::Reserved { call: id, ports } if id == call => Some(ports),
            _ => None,
        })
    }

    /// Installs both directions of a call.
    ///
    /// # Errors
    /// A refusal, or no answer.
    pub fn install(&mut self, call: &LoadCall, media: SocketAddr, ports: PortPair) -> anyhow::Result<()> {
        self.install_plan(plan(call, media, ports))
    }

    /// Installs a plan.
    ///
    /// # Errors
    /// A refusal, or no answer.
    pub fn install_plan(&mut self, plan: Plan) -> anyhow::Result<()> {
        let id = plan.call;
        self.send(&Command::Install(plan))?;
        self.wait("install", |event| {
            matches!(event, Event::Installed { call, .. } if call == id).then_some(())
        })
    }

    /// Ends a call.
    ///
    /// # Errors
    /// No answer.
    pub fn remove(&mut self, call: CallId) -> anyhow::Result<()> {
        self.send(&Command::Remove { call })?;
        self.wait("remove", |event| {
            matches!(event, Event::Removed { call: id, .. } if id == call).then_some(())
        })
    }

    /// Statistics of a call.
    ///
    /// # Errors
    /// A refusal, or no answer.
    pub fn report(&mut self, call: CallId) -> anyhow::Result<Vec<DirectionReport>> {
        self.send(&Command::Report { call })?;
        self.wait("report", |event| match event {
            Event::Report { call: id, directions } if id == call => Some(directions),
            _ => None,
        })
    }

    /// Has a datagram of ICE or DTLS sent.
    ///
    /// # Errors
    /// What the socket says.
    pub fn say(&mut self, path: FlowKey, payload: &[u8]) -> anyhow::Result<()> {
        self.send(&Command::Send { path, payload: payload.to_vec() })
    }

    /// The next datagram that is punted: its path, its call, its payload.
    ///
    /// # Errors
    /// Where none comes.
    pub fn punt(&mut self) -> anyhow::Result<(FlowKey, Option<CallId>, Vec<u8>)> {
        self.wait("punt", |event| match event {
            Event::Punt { path, call, payload } => Some((path, call, payload)),
            _ => None,
        })
    }

    /// The relay's state.
    ///
    /// # Errors
    /// No answer.
    pub fn status(&mut self) -> anyhow::Result<Status> {
        self.send(&Command::Status)?;
        self.wait("status", |event| match event {
            Event::Status(status) => Some(status),
            _ => None,
        })
    }
}

/// One medium between a browser (SRTP, rtcp-mux) and an agent (RTP, RTCP apart).
pub fn plan(call: &LoadCall, media: SocketAddr, ports: PortPair) -> Plan {
    let outside = FlowKey { zone: Zone::Outside, local: media, remote: call.browser };
    let inside = |local: SocketAddr, remote: SocketAddr| FlowKey { zone: Zone::Inside, local, remote };
    let agent_rtcp = SocketAddr::new(call.agent.ip(), call.agent.port() + 1);
    let (rtp, rtcp) = (inside(ports.rtp, call.agent), inside(ports.rtcp, agent_rtcp));
    let payload_types = vec![PtMap {
        from: Pt(call.mix.payload_type()),
        to: Pt(call.mix.payload_type()),
        format: Format::Media(call.mix.clock()),
    }];
    let inward = Direction {
        index: DirectionIndex(0),
        medium: call.mix.medium(),
        ingress: vec![outside],
        open: Some(Protection::Srtp(call.from_browser.clone())),
        seal: Some(Protection::Plain),
        rtp,
        rtcp,
        passage: Passage::Translated,
        ssrc: Ssrc(call.inside_ssrc),
        payload_types: payload_types.clone(),
        extensions: Extensions::default(),
        digits: Digits::Pass,
        resend: Resend::Never,
        fork: None,
        learns: false,
        reverse: DirectionIndex(1),
        mute: Mute::Open,
    };
    let outward = Direction {
        index: DirectionIndex(1),
        medium: call.mix.medium(),
        ingress: vec![rtp, rtcp],
        open: Some(Protection::Plain),
        seal: Some(Protection::Srtp(call.to_browser.clone())),
        rtp: outside,
        rtcp: outside,
        passage: Passage::Translated,
        ssrc: Ssrc(call.outside_ssrc),
        payload_types,
        extensions: Extensions::default(),
        digits: Digits::Pass,
        resend: Resend::Never,
        fork: None,
        learns: false,
        reverse: DirectionIndex(0),
        mute: Mute::Open,
    };
    Plan { call: call.id, version: 1, directions: vec![inward, outward], consents: vec![], record: vec![] }
}
