//! Keys, packets and chance for the tests. Not every test uses all of it.
#![allow(dead_code)]
#![allow(clippy::unwrap_used, reason = "a test's helpers fail as the test does")]

use std::process::Command;
use std::sync::Once;

use sallyport_plan::{KeyMaterial, Profile};
use sallyport_srtp::suites::{self, Backend};
use sallyport_srtp::{OpenError, Opened, Opener, OpenerState, SealError, SealedSource, Sealer, SealerState};
use sallyport_srtp::{RTCP_OVERHEAD, RTP_OVERHEAD};
use sallyport_wire::PacketBuf;

/// The two that every test goes through.
pub const PROFILES: [Profile; 2] = [Profile::AesCm128HmacSha1_80, Profile::AeadAes128Gcm];
/// With those that differ from them in the length of key or tag only; in the order of their numbers on the wire.
pub const ALL: [Profile; 6] = [
    Profile::AesCm128HmacSha1_80,
    Profile::AeadAes128Gcm,
    Profile::AeadAes256Gcm,
    Profile::AesCm256HmacSha1_80,
    Profile::AesCm128HmacSha1_32,
    Profile::AesCm256HmacSha1_32,
];

/// The backend that [`in_other_backends`] asks for, in whose processes all keys are for it.
fn force() {
    static FORCED: Once = Once::new();
    FORCED.call_once(|| {
        if let Ok(name) = std::env::var("SRTP_BACKEND") {
            suites::force(Backend::named(&name).unwrap()).unwrap();
            assert_eq!(suites::selected().backend.name(), name);
        }
    });
}

/// Runs all other tests of this program once more under each backend that is not the one chosen.
pub fn in_other_backends(this: &str) {
    let chosen = suites::selected().backend;
    for backend in Backend::ALL.into_iter().filter(|backend| *backend != chosen) {
        if !backend.is_supported() {
            println!("SKIPPED: this processor does not support {}", backend.name());
            continue;
        }
        let mut tests = Command::new(std::env::current_exe().unwrap());
        let status = tests.args(["-q", "--skip", this]).env("SRTP_BACKEND", backend.name()).status().unwrap();
        assert!(status.success(), "under {}", backend.name());
    }
}

/// A master key; another for each seed.
pub fn key(profile: Profile, seed: u8) -> KeyMaterial {
    force();
    let octets: Vec<u8> = (0..46u8).map(|n| n.wrapping_mul(37).wrapping_add(seed)).collect();
    let (key, salt) = octets.split_at(profile.key_len());
    KeyMaterial::new(profile, key, &salt[..profile.salt_len()]).unwrap()
}

/// Sealer and opener under one key.
pub fn pair(profile: Profile) -> (Sealer, Opener) {
    let key = key(profile, 1);
    (Sealer::new(&key).unwrap(), Opener::new(&key).unwrap())
}

/// A plain RTP packet: version 2, payload type 0.
pub fn rtp(ssrc: u32, sequence: u16, payload: &[u8]) -> Vec<u8> {
    let mut packet = vec![0x80, 0];
    packet.extend(sequence.to_be_bytes());
    packet.extend([0, 0, 0, 160]);
    packet.extend(ssrc.to_be_bytes());
    packet.extend(payload);
    packet
}

/// A plain RTCP compound: a receiver report without blocks and `words` of something behind it.
pub fn rtcp(ssrc: u32, words: u16) -> Vec<u8> {
    let mut packet = vec![0x80, 201];
    packet.extend((1 + words).to_be_bytes());
    packet.extend(ssrc.to_be_bytes());
    packet.extend((0..4 * words).map(|n| n as u8));
    packet
}

/// Runs `work` on a packet in a buffer with room around it; the packet as it is then, and what `work` said.
fn within<T>(packet: &[u8], tailroom: usize, work: impl FnOnce(&mut PacketBuf<'_>) -> T) -> (Vec<u8>, T) {
    let mut bytes = vec![0xee; 8];
    bytes.extend(packet);
    bytes.resize(bytes.len() + tailroom, 0xee);
    let mut buf = PacketBuf::new(&mut bytes, 8..8 + packet.len()).unwrap();
    let result = work(&mut buf);
    let range = buf.range();
    assert_eq!(range.start, 8, "the packet starts where it started");
    (bytes[range].to_vec(), result)
}

/// Seals RTP. A refused packet must be as it was.
pub fn seal(sealer: &mut Sealer, packet: &[u8]) -> Result<Vec<u8>, SealError> {
    let (sealed, result) = within(packet, RTP_OVERHEAD, |buf| sealer.seal_rtp(buf));
    if result.is_err() {
        assert_eq!(sealed, packet, "refused and changed");
    }
    result.map(|()| sealed)
}

/// Seals RTCP. A refused packet must be as it was.
pub fn seal_rtcp(sealer: &mut Sealer, packet: &[u8]) -> Result<Vec<u8>, SealError> {
    let (sealed, result) = within(packet, RTCP_OVERHEAD, |buf| sealer.seal_rtcp(buf));
    if result.is_err() {
        assert_eq!(sealed, packet, "refused and changed");
    }
    result.map(|()| sealed)
}

/// Opens RTP. A packet refused for anything but its tag must be as it was.
pub fn open(opener: &mut Opener, packet: &[u8]) -> Result<(Opened, Vec<u8>), OpenError> {
    let (plain, result) = within(packet, 0, |buf| opener.open_rtp(buf));
    if matches!(result, Err(error) if error != OpenError::Tag) {
        assert_eq!(plain, packet, "refused and changed");
    }
    result.map(|opened| (opened, plain))
}

/// Opens RTP; its index.
pub fn open_index(opener: &mut Opener, packet: &[u8]) -> Result<u64, OpenError> {
    open(opener, packet).map(|(opened, _)| opened.index)
}

/// Opens RTCP. A packet refused for anything but its tag must be as it was.
pub fn open_rtcp(opener: &mut Opener, packet: &[u8]) -> Result<(u32, Vec<u8>), OpenError> {
    let (plain, result) = within(packet, 0, |buf| opener.open_rtcp(buf));
    if matches!(result, Err(error) if error != OpenError::Tag) {
        assert_eq!(plain, packet, "refused and changed");
    }
    result.map(|index| (index, plain))
}

/// A sealer that has sealed up to these indices.
pub fn sealer_at(key: &KeyMaterial, ssrc: u32, rtp: Option<u64>, rtcp: u32) -> Sealer {
    let mut sealer = Sealer::new(key).unwrap();
    sealer.restore(&SealerState { sources: vec![SealedSource { ssrc, rtp, rtcp }] }, 0);
    sealer
}

/// An opener that has seen this one index of a source only.
pub fn opener_at(key: &KeyMaterial, ssrc: u32, rtp: u64) -> Opener {
    type Window = Option<(u64, u128)>;
    let window: Window = Some((rtp, 1));
    let sources: Vec<(u32, Window, Window)> = vec![(ssrc, window, None)];
    let bytes = postcard::to_allocvec(&(sources, Vec::<u64>::new())).unwrap();
    let state: OpenerState = postcard::from_bytes(&bytes).unwrap();
    let mut opener = Opener::new(key).unwrap();
    opener.restore(&state);
    opener
}

/// What the peer would send as this packet of its stream.
pub fn sealed_at(key: &KeyMaterial, ssrc: u32, index: u64, payload: &[u8]) -> Vec<u8> {
    let mut sealer = sealer_at(key, ssrc, index.checked_sub(1), 0);
    seal(&mut sealer, &rtp(ssrc, index as u16, payload)).unwrap()
}

/// Splitmix64: chance that repeats itself.
pub struct Random(pub u64);

impl Random {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// Less than `end`.
    pub fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }

    pub fn one_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }

    pub fn octets(&mut self, length: usize) -> Vec<u8> {
        (0..length).map(|_| self.next() as u8).collect()
    }

    /// An RTP packet with what a header can have: CSRC list, extension, marker, padding, any payload type.
    pub fn rtp(&mut self, ssrc: u32, sequence: u16, payload: usize) -> Vec<u8> {
        let csrc = if self.one_in(4) { self.below(16) as u8 } else { 0 };
        let extension = self.one_in(4).then(|| self.below(6) as u16);
        let padding = if self.one_in(8) { 1 + self.below(20) as u8 } else { 0 };
        let first = 0x80 | csrc | u8::from(extension.is_some()) << 4 | u8::from(padding > 0) << 5;
        let mut packet = rtp(ssrc, sequence, &[]);
        (packet[0], packet[1]) = (first, self.next() as u8);
        packet[4..8].copy_from_slice(&(self.next() as u32).to_be_bytes());
        packet.extend(self.octets(usize::from(csrc) * 4));
        if let Some(words) = extension {
            packet.extend([0xbe, 0xde]);
            packet.extend(words.to_be_bytes());
            packet.extend(self.octets(usize::from(words) * 4));
        }
        packet.extend(self.octets(payload));
        if padding > 0 {
            packet.extend(vec![0; usize::from(padding) - 1]);
            packet.push(padding);
        }
        packet
    }
}
