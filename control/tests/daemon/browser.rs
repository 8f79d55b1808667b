//! A browser as far as signalling goes: offer, ICE as the controlling side, DTLS in the role that the answer leaves it.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use is::stun::{StunMessage, StunPacket};
use is::{Candidate, IceAgent, IceAgentEvent, IceCreds, Protocol};
use sallyport_control::dtls::{Done, Dtls, Identity, Step};
use sallyport_proto::DtlsRole;

use super::harness::SOON;
use super::relay::{Inbox, Relay};

/// The browser.
pub struct Browser {
    pub address: SocketAddr,
    agent: IceAgent,
    identity: Identity,
    relay: Relay,
    inbox: Inbox,
}

impl Browser {
    /// At an address behind the relay.
    pub fn new(relay: &Relay, address: SocketAddr) -> Self {
        let mut agent = IceAgent::new(IceCreds::new());
        agent.set_controlling(true);
        agent.add_local_candidate(Candidate::host(address, "udp").unwrap());
        let inbox = relay.hear(address);
        Self { address, agent, identity: Identity::new().unwrap(), relay: relay.clone(), inbox }
    }

    /// At an address behind the relay, to be called: it waits for the other side to nominate.
    pub fn called(relay: &Relay, address: SocketAddr) -> Self {
        let mut browser = Self::new(relay, address);
        browser.agent.set_controlling(false);
        browser
    }

    /// What it offers; `setup` as in RFC 5763.
    pub fn offer(&self, setup: &str) -> String {
        let creds = self.agent.local_credentials();
        let fingerprint: Vec<String> =
            self.identity.fingerprint().iter().map(|octet| format!("{octet:02X}")).collect();
        format!(
            "v=0\r\no=- 4611731400430051336 2 IN IP4 127.0.0.1\r\ns=-\r\nt=0 0\r\na=group:BUNDLE 0\r\n\
             a=msid-semantic: WMS\r\nm=audio 9 UDP/TLS/RTP/SAVPF 111 0 8 110 126\r\nc=IN IP4 0.0.0.0\r\n\
             a=rtcp:9 IN IP4 0.0.0.0\r\na=ice-ufrag:{}\r\na=ice-pwd:{}\r\na=ice-options:trickle\r\n\
             a=fingerprint:sha-256 {}\r\na=setup:{setup}\r\na=mid:0\r\na=extmap:1 urn:ietf:params:rtp-hdrext:ssrc-audio-level\r\n\
             a=sendrecv\r\na=rtcp-mux\r\na=rtpmap:111 opus/48000/2\r\na=fmtp:111 minptime=10;useinbandfec=1\r\n\
             a=rtpmap:0 PCMU/8000\r\na=rtpmap:8 PCMA/8000\r\na=rtpmap:110 telephone-event/48000\r\n\
             a=rtpmap:126 telephone-event/8000\r\na=ssrc:3735928559 cname:x\r\n",
            creds.ufrag,
            creds.pass,
            fingerprint.join(":"),
        )
    }

    /// A fragment with its candidate, for trickling (RFC 8840).
    pub fn fragment(&self) -> String {
        let creds = self.agent.local_credentials();
        format!(
            "a=ice-ufrag:{}\r\na=ice-pwd:{}\r\nm=audio 9 UDP/TLS/RTP/SAVPF 0\r\na=mid:0\r\n\
             a=candidate:1 1 udp 2130706431 {} {} typ host\r\na=end-of-candidates\r\n",
            creds.ufrag,
            creds.pass,
            self.address.ip(),
            self.address.port(),
        )
    }

    /// Connects as the answer says: ICE, then DTLS; gives the keys of its own end.
    pub fn connect(&mut self, answer: &str) -> Done {
        self.connect_through(answer, |_, datagrams| datagrams)
    }

    /// As [`Self::connect`], with DTLS datagrams to the daemon passing through `carry`.
    pub fn connect_through(
        &mut self,
        answer: &str,
        carry: impl FnMut(usize, Vec<Vec<u8>>) -> Vec<Vec<u8>>,
    ) -> Done {
        self.run(answer, SOON, carry).expect("ICE and DTLS connect")
    }

    /// As [`Self::connect`], but gives up after a while.
    pub fn try_connect(&mut self, answer: &str, patience: Duration) -> Option<Done> {
        self.run(answer, patience, |_, datagrams| datagrams)
    }

    fn run(
        &mut self,
        answer: &str,
        patience: Duration,
        mut carry: impl FnMut(usize, Vec<Vec<u8>>) -> Vec<Vec<u8>>,
    ) -> Option<Done> {
        let ufrag = value(answer, "a=ice-ufrag:").to_owned();
        let pass = value(answer, "a=ice-pwd:").to_owned();
        self.agent.set_remote_credentials(IceCreds { ufrag, pass });
        for candidate in
            answer.lines().filter_map(|line| line.strip_prefix("a=")).filter(|a| a.starts_with("candidate:"))
        {
            self.agent.add_remote_candidate(Candidate::from_sdp_string(candidate).unwrap());
        }
        let role = if value(answer, "a=setup:") == "active" { DtlsRole::Passive } else { DtlsRole::Active };
        let mut dtls = None;
        let begun = Instant::now();
        for round in 0.. {
            if begun.elapsed() > patience {
                break;
            }
            if let Some(done) = self.step(&mut dtls, role) {
                return Some(done);
            }
            if let Some(dtls) = &mut dtls {
                let out: Vec<Vec<u8>> = std::iter::from_fn(|| dtls.poll_transmit()).collect();
                carry(round, out).iter().for_each(|datagram| self.relay.punt(self.address, datagram));
            }
        }
        None
    }

    /// Takes in what has come, sends what ICE wants sent.
    fn step(&mut self, dtls: &mut Option<Dtls>, role: DtlsRole) -> Option<Done> {
        let now = Instant::now();
        self.agent.handle_timeout(now);
        while let Some(transmit) = self.agent.poll_transmit() {
            self.relay.punt(self.address, &transmit.contents);
        }
        while let Some(event) = self.agent.poll_event() {
            if matches!(event, IceAgentEvent::NominatedSend { .. }) && dtls.is_none() {
                *dtls = Some(Dtls::new(&self.identity, role).unwrap());
            }
        }
        let mut step = Step::Going;
        match self.inbox.recv_timeout(Duration::from_millis(5)) {
            Ok((path, payload)) => match StunMessage::parse(&payload) {
                Ok(message) => {
                    let (source, destination) = (path.local, path.remote);
                    let packet = StunPacket { proto: Protocol::Udp, source, destination, message };
                    self.agent.handle_packet(now, packet);
                }
                Err(_) => {
                    if let Some(dtls) = dtls {
                        step = dtls.receive(&payload);
                    }
                }
            },
            Err(_) => {
                if let Some(dtls) =
                    dtls.as_mut().filter(|dtls| dtls.poll_timeout(now).is_some_and(|at| at <= now))
                {
                    step = dtls.handle_timeout();
                }
            }
        }
        match step {
            Step::Done(done) => {
                // The last flight is the browser's where it is the client.
                while let Some(datagram) = dtls.as_mut().and_then(Dtls::poll_transmit) {
                    self.relay.punt(self.address, &datagram);
                }
                Some(*done)
            }
            Step::Failed(text) => panic!("{text}"),
            Step::Going | Step::Closed => None,
        }
    }

    /// Whether a close_notify or another record has come since; ICE is passed over.
    pub fn hears_a_record(&self) -> bool {
        let until = Instant::now() + Duration::from_secs(3);
        while Instant::now() < until {
            if let Ok((_, payload)) = self.inbox.recv_timeout(Duration::from_millis(100))
                && payload.first().is_some_and(|first| (20..64).contains(first))
            {
                return true;
            }
        }
        false
    }
}

/// The value of an SDP line.
pub fn value<'a>(sdp: &'a str, start: &str) -> &'a str {
    sdp.lines().find_map(|line| line.strip_prefix(start)).unwrap_or_else(|| panic!("no {start} in {sdp}"))
}
