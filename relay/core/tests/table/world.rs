//! The world of the cases: one call between a browser outside and an agent inside, its keys, and the words both speak.

use std::net::SocketAddr;

use hmac::{Hmac, KeyInit, Mac};
use sallyport_plan::{
    CallId, Clock, Consent, Digits, Direction, DirectionIndex, Extensions, FlowKey, Format, IceRole,
    KeyMaterial, Medium, Mute, Passage, Plan, Profile, Protection, Pt, PtMap, Resend, Ssrc, Zone,
};
use sallyport_srtp::{Opener, Sealer};
use sallyport_wire::PacketBuf;
use sallyport_wire::stun::{self, Builder, Class, TransactionId};
use sha1::Sha1;

/// Browser to agent.
pub const INWARD: DirectionIndex = DirectionIndex(0);
/// Agent to browser.
pub const OUTWARD: DirectionIndex = DirectionIndex(1);
/// SSRC that the relay announces inside.
pub const INSIDE_SSRC: u32 = 0x1111_0001;
/// SSRC that the relay announces outside.
pub const OUTSIDE_SSRC: u32 = 0x2222_0002;
/// First sequence numbers that leave on either direction of call 1: they follow from the names, also after a restart.
pub const INWARD_START: u16 = 0x03f5;
/// See [`INWARD_START`].
pub const OUTWARD_START: u16 = 0x29f3;
/// Room behind a packet.
pub const TAIL: usize = 64;
/// Room in front of it.
pub const HEAD: usize = 64;

/// Both peers' and our addresses.
#[derive(Debug, Clone, Copy)]
pub struct Paths {
    /// The browser's pair.
    pub outside: FlowKey,
    /// The agent's RTP.
    pub rtp: FlowKey,
    /// The agent's RTCP.
    pub rtcp: FlowKey,
}

fn flow(zone: Zone, local: &str, remote: &str) -> FlowKey {
    let address = |text: &str| text.parse::<SocketAddr>().unwrap();
    FlowKey { zone, local: address(local), remote: address(remote) }
}

/// IPv4 on both sides.
pub fn paths() -> Paths {
    Paths {
        outside: flow(Zone::Outside, "192.0.2.1:10000", "198.51.100.7:51000"),
        rtp: flow(Zone::Inside, "10.0.0.1:20000", "10.0.0.9:4000"),
        rtcp: flow(Zone::Inside, "10.0.0.1:20001", "10.0.0.9:4001"),
    }
}

/// IPv6 on both sides.
pub fn paths6() -> Paths {
    Paths {
        outside: flow(Zone::Outside, "[2001:db8::1]:10000", "[2001:db8:7::7]:51000"),
        rtp: flow(Zone::Inside, "[fd00::1]:20000", "[fd00::9]:4000"),
        rtcp: flow(Zone::Inside, "[fd00::1]:20001", "[fd00::9]:4001"),
    }
}

/// A source that nobody knows.
pub fn stranger() -> FlowKey {
    flow(Zone::Outside, "192.0.2.1:10000", "203.0.113.66:6666")
}

/// A master key made of one octet.
pub fn key(profile: Profile, octet: u8) -> KeyMaterial {
    KeyMaterial::new(profile, &[octet; 16][..profile.key_len()], &[!octet; 14][..profile.salt_len()]).unwrap()
}

/// What the browser seals with.
pub const FROM_BROWSER: u8 = 0x11;
/// What the relay seals with toward the browser.
pub const TO_BROWSER: u8 = 0x22;
/// What a browser inside seals with, and what the relay seals with toward it.
pub const FROM_AGENT: u8 = 0x33;
/// See [`FROM_AGENT`].
pub const TO_AGENT: u8 = 0x44;

const SOUND: [Format; 2] = [Format::Media(Clock::Hz8000), Format::Media(Clock::Hz48000)];
const EVENT: Format = Format::Event { from: Clock::Hz8000, to: Clock::Hz8000 };
const SLOWED: Format = Format::Event { from: Clock::Hz48000, to: Clock::Hz8000 };
/// Payload types outside and inside: Opus is renumbered, G.711 is not, comfort noise has no place outside; events are counted
/// at 8 kHz inside, whatever their clock outside.
const TYPES: [(u8, u8, Format); 5] =
    [(0, 0, SOUND[0]), (8, 8, SOUND[0]), (111, 96, SOUND[1]), (126, 101, EVENT), (110, 102, SLOWED)];

/// The same on the way back.
fn back(format: Format) -> Format {
    match format {
        Format::Event { from, to } => Format::Event { from: to, to: from },
        media @ (Format::Media(_) | Format::Rtx(_)) => media,
    }
}

/// SRTP outside, plain RTP inside; `None` before the handshake has ended.
pub fn plan(profile: Option<Profile>, paths: Paths) -> Plan {
    let srtp = |octet| profile.map(|profile| Protection::Srtp(key(profile, octet)));
    let map = |(from, to, format): (u8, u8, Format)| PtMap { from: Pt(from), to: Pt(to), format };
    let inward = Direction {
        index: INWARD,
        medium: Medium::Audio,
        ingress: vec![paths.outside],
        open: srtp(FROM_BROWSER),
        seal: Some(Protection::Plain),
        rtp: paths.rtp,
        rtcp: paths.rtcp,
        passage: Passage::Translated,
        ssrc: Ssrc(INSIDE_SSRC),
        payload_types: TYPES.map(map).to_vec(),
        extensions: Extensions::default(),
        digits: Digits::Pass,
        resend: Resend::Never,
        fork: None,
        learns: false,
        reverse: OUTWARD,
        mute: Mute::Open,
    };
    let outward = Direction {
        index: OUTWARD,
        medium: Medium::Audio,
        ingress: vec![paths.rtp, paths.rtcp],
        open: Some(Protection::Plain),
        seal: srtp(TO_BROWSER),
        rtp: paths.outside,
        rtcp: paths.outside,
        passage: Passage::Translated,
        ssrc: Ssrc(OUTSIDE_SSRC),
        payload_types: TYPES.map(|(outside, inside, format)| map((inside, outside, back(format)))).to_vec(),
        extensions: Extensions::default(),
        digits: Digits::Pass,
        resend: Resend::Never,
        fork: None,
        learns: false,
        reverse: INWARD,
        mute: Mute::Open,
    };
    Plan { call: CallId(1), version: 1, directions: vec![inward, outward], consents: vec![], record: vec![] }
}

/// The same call, SRTP inside as well.
pub fn plan_sealed_inside(profile: Profile) -> Plan {
    let mut plan = plan(Some(profile), paths());
    plan.directions[0].seal = Some(Protection::Srtp(key(profile, TO_AGENT)));
    plan.directions[1].open = Some(Protection::Srtp(key(profile, FROM_AGENT)));
    plan
}

/// The same call, with the browser's pair kept alive.
pub fn plan_with_consent(profile: Option<Profile>, paths: Paths) -> Plan {
    Plan { consents: vec![consent(paths.outside)], ..plan(profile, paths) }
}

pub const LOCAL_UFRAG: &str = "ourU";
pub const LOCAL_PWD: &str = "our-password-of-22-chars";
pub const REMOTE_UFRAG: &str = "theirUfrag";
pub const REMOTE_PWD: &str = "their-password-of-some-more-characters";
pub const TIE_BREAKER: u64 = 0x0102_0304_0506_0708;

/// ICE of a nominated pair; the browser controls.
pub fn consent(flow: FlowKey) -> Consent {
    Consent {
        flow,
        local_ufrag: LOCAL_UFRAG.into(),
        local_pwd: LOCAL_PWD.into(),
        remote_ufrag: REMOTE_UFRAG.into(),
        remote_pwd: REMOTE_PWD.into(),
        role: IceRole::Controlled(TIE_BREAKER),
    }
}

/// An RTP packet before it is bytes.
#[derive(Debug, Clone)]
pub struct Rtp {
    pub payload_type: u8,
    pub marker: bool,
    pub sequence: u16,
    pub timestamp: u32,
    pub ssrc: u32,
    pub csrc: Vec<u32>,
    /// Words of a one-byte-header extension (RFC 8285).
    pub extension: Option<Vec<[u8; 4]>>,
    pub payload: Vec<u8>,
    /// Octets of padding, 0 for none.
    pub padding: u8,
}

/// G.711 with eight octets that tell its number.
pub fn g711(ssrc: u32, sequence: u16, timestamp: u32) -> Rtp {
    let payload =
        [u64::from(sequence) << 32, u64::from(timestamp)].iter().flat_map(|n| n.to_be_bytes()).collect();
    Rtp {
        payload_type: 0,
        marker: false,
        sequence,
        timestamp,
        ssrc,
        csrc: vec![],
        extension: None,
        payload,
        padding: 0,
    }
}

impl Rtp {
    /// The same packet as it must leave: other SSRC, sequence and timestamp, no extension.
    pub fn leaves(&self, ssrc: u32, sequence: u16, timestamp: u32) -> Self {
        Self { ssrc, sequence, timestamp, extension: None, ..self.clone() }
    }

    pub fn bytes(&self) -> Vec<u8> {
        let flags = 0x80 | (u8::from(self.padding > 0) << 5) | (u8::from(self.extension.is_some()) << 4);
        let mut bytes = vec![flags | self.csrc.len() as u8, (u8::from(self.marker) << 7) | self.payload_type];
        bytes.extend(self.sequence.to_be_bytes());
        bytes.extend(self.timestamp.to_be_bytes());
        bytes.extend(self.ssrc.to_be_bytes());
        self.csrc.iter().for_each(|csrc| bytes.extend(csrc.to_be_bytes()));
        if let Some(words) = &self.extension {
            bytes.extend([0xbe, 0xde]);
            bytes.extend((words.len() as u16).to_be_bytes());
            words.iter().for_each(|word| bytes.extend(word));
        }
        bytes.extend(&self.payload);
        if self.padding > 0 {
            bytes.resize(bytes.len() + usize::from(self.padding) - 1, 0);
            bytes.push(self.padding);
        }
        bytes
    }
}

/// One report block (RFC 3550 section 6.4.1): source, highest sequence number; the rest is recognisable filling.
#[derive(Debug, Clone, Copy)]
pub struct Block {
    pub ssrc: u32,
    pub highest: u32,
}

/// Filling of a block: fraction and packets lost, jitter; it answers no report.
const BLOCK: ([u8; 4], [u8; 12]) = ([0x19, 0, 0, 5], [0, 0, 0, 9, 0, 0, 0, 0, 0, 0, 0, 0]);

fn blocks(bytes: &mut Vec<u8>, blocks: &[Block]) {
    for block in blocks {
        bytes.extend(block.ssrc.to_be_bytes());
        bytes.extend(BLOCK.0);
        bytes.extend(block.highest.to_be_bytes());
        bytes.extend(BLOCK.1);
    }
}

/// A sender report: source, RTP timestamp, blocks.
pub fn sender_report(ssrc: u32, timestamp: u32, reports: &[Block]) -> Vec<u8> {
    let mut bytes = vec![0x80 | reports.len() as u8, 200, 0, (6 + 6 * reports.len()) as u8];
    bytes.extend(ssrc.to_be_bytes());
    bytes.extend([0xee, 0, 0, 1, 0x80, 0, 0, 0]);
    bytes.extend(timestamp.to_be_bytes());
    bytes.extend([0, 0, 0, 50, 0, 0, 0x1f, 0x40]);
    blocks(&mut bytes, reports);
    bytes
}

/// The same, as a relay sends it on that has sent so many packets of 16 octets itself.
pub fn counted(mut report: Vec<u8>, packets: u32) -> Vec<u8> {
    report[20..24].copy_from_slice(&packets.to_be_bytes());
    report[24..28].copy_from_slice(&(16 * packets).to_be_bytes());
    report
}

/// A receiver report.
pub fn receiver_report(ssrc: u32, reports: &[Block]) -> Vec<u8> {
    let mut bytes = vec![0x80 | reports.len() as u8, 201, 0, (1 + 6 * reports.len()) as u8];
    bytes.extend(ssrc.to_be_bytes());
    blocks(&mut bytes, reports);
    bytes
}

/// A source description with a CNAME.
pub fn description(ssrc: u32, cname: &str) -> Vec<u8> {
    let mut chunk = ssrc.to_be_bytes().to_vec();
    chunk.extend([1, cname.len() as u8]);
    chunk.extend(cname.bytes());
    chunk.push(0);
    chunk.resize(chunk.len().next_multiple_of(4), 0);
    let mut bytes = vec![0x81, 202, 0, (chunk.len() / 4) as u8];
    bytes.extend(chunk);
    bytes
}

/// A goodbye.
pub fn goodbye(ssrc: u32) -> Vec<u8> {
    let mut bytes = vec![0x81, 203, 0, 1];
    bytes.extend(ssrc.to_be_bytes());
    bytes
}

/// A picture loss indication (RFC 4585 section 6.3.1).
pub fn picture_loss(sender: u32, media: u32) -> Vec<u8> {
    let mut bytes = vec![0x81, 206, 0, 2];
    bytes.extend(sender.to_be_bytes());
    bytes.extend(media.to_be_bytes());
    bytes
}

/// A full intra request of one entry (RFC 5104 section 4.3.1).
pub fn full_picture(sender: u32, media: u32, number: u8) -> Vec<u8> {
    let mut bytes = vec![0x84, 206, 0, 4];
    [sender, 0, media, u32::from(number) << 24].iter().for_each(|word| bytes.extend(word.to_be_bytes()));
    bytes
}

/// A generic negative acknowledgement (RFC 4585 section 6.2.1): packets, and bits for the sixteen behind each.
pub fn nack(sender: u32, media: u32, entries: &[(u16, u16)]) -> Vec<u8> {
    let mut bytes = vec![0x81, 205, 0, (2 + entries.len()) as u8];
    [sender, media].iter().for_each(|word| bytes.extend(word.to_be_bytes()));
    entries.iter().for_each(|(packet, behind)| {
        bytes.extend(packet.to_be_bytes());
        bytes.extend(behind.to_be_bytes());
    });
    bytes
}

fn in_place<E: std::fmt::Debug>(
    bytes: &[u8],
    work: impl FnOnce(&mut PacketBuf<'_>) -> Result<(), E>,
) -> Vec<u8> {
    let mut room = [vec![0; HEAD], bytes.to_vec(), vec![0; TAIL]].concat();
    let mut buf = PacketBuf::new(&mut room, HEAD..HEAD + bytes.len()).unwrap();
    work(&mut buf).unwrap();
    buf.packet().to_vec()
}

/// One end of an SRTP leg.
pub struct Peer {
    sealer: Sealer,
    opener: Opener,
}

impl Peer {
    pub fn new(seals: &KeyMaterial, opens: &KeyMaterial) -> Self {
        Self { sealer: Sealer::new(seals).unwrap(), opener: Opener::new(opens).unwrap() }
    }

    pub fn seal(&mut self, rtp: &[u8]) -> Vec<u8> {
        in_place(rtp, |buf| self.sealer.seal_rtp(buf))
    }

    pub fn seal_rtcp(&mut self, rtcp: &[u8]) -> Vec<u8> {
        in_place(rtcp, |buf| self.sealer.seal_rtcp(buf))
    }

    pub fn open(&mut self, srtp: &[u8]) -> Vec<u8> {
        in_place(srtp, |buf| self.opener.open_rtp(buf).map(drop))
    }

    /// A packet that may not be for it, or have come before.
    pub fn try_open(&mut self, srtp: &[u8]) -> Option<Vec<u8>> {
        let mut room = [vec![0; HEAD], srtp.to_vec(), vec![0; TAIL]].concat();
        let mut buf = PacketBuf::new(&mut room, HEAD..HEAD + srtp.len()).unwrap();
        self.opener.open_rtp(&mut buf).ok()?;
        Some(buf.packet().to_vec())
    }

    pub fn open_rtcp(&mut self, srtcp: &[u8]) -> Vec<u8> {
        in_place(srtcp, |buf| self.opener.open_rtcp(buf).map(drop))
    }
}

fn hmac(password: &str) -> impl FnOnce(&[u8]) -> [u8; 20] {
    let mut mac = <Hmac<Sha1> as KeyInit>::new_from_slice(password.as_bytes()).unwrap();
    move |bytes| {
        mac.update(bytes);
        mac.finalize().into_bytes().into()
    }
}

/// A check as a browser sends it, with what may be wrong about it.
#[derive(Debug, Clone)]
pub struct Check {
    pub class: Class,
    pub id: TransactionId,
    pub username: Option<String>,
    pub password: Option<String>,
    pub use_candidate: bool,
    pub role: u16,
    pub fingerprint: bool,
}

/// The browser's own check.
pub fn check() -> Check {
    Check {
        class: Class::Request,
        id: *b"transaction1",
        username: Some(format!("{LOCAL_UFRAG}:{REMOTE_UFRAG}")),
        password: Some(LOCAL_PWD.into()),
        use_candidate: false,
        role: stun::ICE_CONTROLLING,
        fingerprint: true,
    }
}

impl Check {
    pub fn bytes(&self) -> Vec<u8> {
        let mut room = [0; 512];
        let mut builder = Builder::new(&mut room, self.class, stun::BINDING, self.id).unwrap();
        if let Some(name) = &self.username {
            builder = builder.attribute(stun::USERNAME, &[name.as_bytes()]).unwrap();
        }
        builder = builder.attribute(stun::PRIORITY, &[&[0x6e, 0xff, 0xff, 0xff]]).unwrap();
        builder = builder.attribute(self.role, &[&[9; 8]]).unwrap();
        if self.use_candidate {
            builder = builder.attribute(stun::USE_CANDIDATE, &[]).unwrap();
        }
        if let Some(password) = &self.password {
            builder = builder.integrity(hmac(password)).unwrap();
        }
        let length = if self.fingerprint { builder.fingerprint().unwrap() } else { builder.finish() };
        room[..length].to_vec()
    }
}

/// The answer to a check.
pub fn answer(id: TransactionId, mapped: SocketAddr, password: &str) -> Vec<u8> {
    let mut room = [0; 128];
    let builder = Builder::new(&mut room, Class::Success, stun::BINDING, id).unwrap();
    let builder = builder.xor_mapped_address(mapped).unwrap().integrity(hmac(password)).unwrap();
    let length = builder.fingerprint().unwrap();
    room[..length].to_vec()
}

/// Whether a message's MESSAGE-INTEGRITY is of this password.
pub fn has_integrity(bytes: &[u8], password: &str) -> bool {
    let message = stun::Message::parse(bytes).unwrap();
    message.has_integrity(|pieces| hmac(password)(&pieces.concat()), |one, other| one == other)
}
