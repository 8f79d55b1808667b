//! Telephony's media without its signalling: plays a tone to whomever it hears, and keeps what it hears.
//!
//! For SIPp, whose scenarios speak of addresses and ports in their descriptions and play nothing there.

use std::net::{SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use sallyport_wire::rtp::Header;

use crate::namespace::Namespace;
use crate::pcap::Captured;
use crate::tone;
use crate::wav::Wav;

/// Samples a second of G.711.
const RATE: u32 = 8000;
/// Samples of a packet.
const PACKET: usize = 160;
/// Between two packets.
const INTERVAL: Duration = Duration::from_millis(20);

#[derive(Debug, Default)]
struct Shared {
    stop: AtomicBool,
    heard: Mutex<Vec<i16>>,
}

/// One address and port with a tone of its own, PCMU. It ends when it is dropped.
#[derive(Debug)]
pub struct Speaker {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

impl Speaker {
    /// Listens; it plays once it has heard somebody.
    ///
    /// # Errors
    /// What the system says of the address.
    pub fn start(namespace: &Namespace, address: SocketAddr, tone: u32) -> anyhow::Result<Self> {
        let socket = namespace.within(|| UdpSocket::bind(address))??;
        let shared = Arc::new(Shared::default());
        let mine = shared.clone();
        let samples: Vec<u8> = tone::sine(tone, RATE, 1).samples.into_iter().map(to_ulaw).collect();
        let thread = thread::spawn(move || play(&socket, &samples, &mine));
        Ok(Self { shared, thread: Some(thread) })
    }

    /// Forgets what it heard so far.
    pub fn record(&self) {
        self.shared.heard.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }

    /// What it heard since, packet behind packet; nothing where none came.
    pub fn heard(&self) -> Wav {
        let samples = self.shared.heard.lock().unwrap_or_else(PoisonError::into_inner).clone();
        Wav { rate: RATE, samples }
    }
}

impl Drop for Speaker {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn play(socket: &UdpSocket, samples: &[u8], shared: &Shared) {
    let (mut room, mut peer, mut at) = ([0; 2048], None, 0_u32);
    let mut next = Instant::now();
    while !shared.stop.load(Ordering::Relaxed) {
        let wait = next.saturating_duration_since(Instant::now());
        if wait.is_zero() {
            if let Some(peer) = peer {
                let _ = socket.send_to(&packet(samples, at), peer);
            }
            (at, next) = (at.wrapping_add(1), next + INTERVAL);
            continue;
        }
        if socket.set_read_timeout(Some(wait)).is_err() {
            return;
        }
        let Ok((length, source)) = socket.recv_from(&mut room) else { continue };
        if let Some(payload) = room.get(..length).and_then(voice) {
            peer = Some(source);
            let mut heard = shared.heard.lock().unwrap_or_else(PoisonError::into_inner);
            heard.extend(payload.iter().map(|octet| from_ulaw(*octet)));
        }
    }
}

/// The next packet: version 2, payload type 0, an SSRC of no meaning.
fn packet(samples: &[u8], at: u32) -> Vec<u8> {
    let mut octets = vec![0x80, 0];
    octets.extend_from_slice(&(at as u16).to_be_bytes());
    octets.extend_from_slice(&at.wrapping_mul(PACKET as u32).to_be_bytes());
    octets.extend_from_slice(&[0, 0, 0x53, 0x50]);
    let begin = (at as usize).wrapping_mul(PACKET) % samples.len();
    octets.extend((0..PACKET).map(|offset| samples[(begin + offset) % samples.len()]));
    octets
}

/// The payload of a packet of PCMU.
fn voice(datagram: &[u8]) -> Option<&[u8]> {
    let header = Header::parse(datagram).ok().filter(|header| header.payload_type() == 0)?;
    datagram.get(header.header_len()..)
}

/// What was captured on its way to an address, as a recording.
pub fn toward(captured: &[Captured], address: SocketAddr) -> Wav {
    let voices =
        captured.iter().filter(|one| one.destination == address).filter_map(|one| voice(&one.payload));
    Wav { rate: RATE, samples: voices.flatten().map(|octet| from_ulaw(*octet)).collect() }
}

/// A sample as ITU-T G.711 writes it (mu-law).
pub fn to_ulaw(sample: i16) -> u8 {
    const BIAS: i32 = 0x84;
    let (sign, size) = if sample < 0 { (0x80, -i32::from(sample)) } else { (0, i32::from(sample)) };
    let size = size.min(32_635) + BIAS;
    // With the bias added the highest bit is one of eight.
    let exponent = 24_u32.saturating_sub(size.unsigned_abs().leading_zeros());
    let mantissa = (size >> (exponent + 3)) & 0x0f;
    !(sign | (exponent << 4) as u8 | mantissa as u8)
}

/// A sample that ITU-T G.711 wrote so (mu-law).
pub fn from_ulaw(octet: u8) -> i16 {
    let octet = !octet;
    let (exponent, mantissa) = (i16::from(octet >> 4 & 7), i16::from(octet & 0x0f));
    let size = (((mantissa << 3) + 0x84) << exponent) - 0x84;
    if octet & 0x80 == 0 { size } else { -size }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mu_law_keeps_a_sample_but_for_a_small_part_of_it() {
        for octet in 0..=255_u8 {
            // There are two zeroes.
            assert!(to_ulaw(from_ulaw(octet)) == octet || octet == 0x7f, "{octet}");
        }
        for sample in (-32_000..32_000).step_by(7) {
            let difference = (i32::from(from_ulaw(to_ulaw(sample))) - i32::from(sample)).abs();
            assert!(difference <= i32::from(sample).abs() / 16 + 4, "{sample}: {difference}");
        }
        assert_eq!((from_ulaw(0xff), from_ulaw(0x80), from_ulaw(0)), (0, 32_124, -32_124));
    }
}
