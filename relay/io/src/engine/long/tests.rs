use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use proptest::prelude::*;

use super::super::{CONTINUED, Shares};
use super::*;
use crate::port::{Burst, FRAME_SIZE, Port};
use crate::ring::Descriptor;
use crate::testing::{FakeEngine, Kernel, LINK, engine, ours, packet, theirs};

fn v6(last: u16, port: u16) -> SocketAddr {
    SocketAddr::from(([0x2001, 0xdb8, 0, 0, 0, 0, 0, last], port))
}

fn egress(v4: bool) -> Egress {
    let (local, remote) = if v4 { (ours(), theirs()) } else { (v6(1, 10_000), v6(7, 4_000)) };
    Egress { zone: 1, local, remote, link: Some(LINK) }
}

/// Transmits a payload that begins at `start` of its frame.
fn send(engine: &mut FakeEngine, start: usize, payload: &[u8], v4: bool) -> Result<(), TransmitError> {
    let frame = engine.allocate().unwrap();
    let range = start..start + payload.len();
    engine.buffer(&frame)[range.clone()].copy_from_slice(payload);
    engine.transmit(frame, range, &egress(v4))
}

/// UDP payloads of what the kernel was given, in order; fragments are put together as their receiver does it.
fn received(engine: &mut FakeEngine, kernel: &Mutex<Kernel>, mtu: usize) -> Vec<Vec<u8>> {
    let sent: Vec<Descriptor> = std::mem::take(&mut kernel.lock().unwrap().sent);
    let (mut open, mut payloads) = (BTreeMap::new(), Vec::new());
    for descriptor in sent {
        let (index, start) = super::super::locate(descriptor.address, FRAME_SIZE);
        let frame = engine.chunks.chunk(index)[start..start + descriptor.length as usize].to_vec();
        assert!(frame.len() - 18 <= mtu, "{} octets of IP by an MTU of {mtu}", frame.len() - 18);
        if let Ok(datagram) = frame::parse(&frame) {
            payloads.push(frame[datagram.payload].to_vec());
            continue;
        }
        let ip = &frame[18..];
        let (header, id, place, more) = if ip[0] >> 4 == 4 {
            let place = usize::from(u16::from_be_bytes([ip[6] & 0x1f, ip[7]])) * 8;
            (20, u32::from(u16::from_be_bytes([ip[4], ip[5]])), place, ip[6] & 0x20 != 0)
        } else {
            let place = u16::from_be_bytes([ip[42], ip[43]]);
            let id = u32::from_be_bytes(ip[44..48].try_into().unwrap());
            (48, id, usize::from(place & !7), place & 1 != 0)
        };
        let datagram: &mut Vec<u8> = open.entry((ip[0] >> 4, id)).or_default();
        assert_eq!(datagram.len(), place, "fragments leave in order");
        datagram.extend(&ip[header..]);
        if !more {
            let datagram = open.remove(&(ip[0] >> 4, id)).unwrap();
            assert_eq!(usize::from(u16::from_be_bytes([datagram[4], datagram[5]])), datagram.len());
            payloads.push(datagram[8..].to_vec());
        }
    }
    assert!(open.is_empty(), "a datagram without its end");
    payloads
}

proptest! {
    /// Whatever the lengths, the MTU and the frames that are left: what was accepted arrives whole and in order, what was not
    /// leaves nothing on the ring, and every frame comes back.
    #[test]
    fn datagrams_longer_than_the_mtu_arrive_whole(
        lengths in prop::collection::vec((1usize..1720, any::<bool>(), HEADROOM..HEADROOM + 8), 1..40),
        mtu in 576usize..1600,
        frames in 16u32..64,
        hoarded in 0usize..16,
    ) {
        let shares = Shares { fill: 4, transmit: frames / 2 };
        let (mut engine, kernels) = engine(1, frames, shares);
        engine.channels[0].mtu = mtu;
        let hoard: Vec<_> = std::iter::from_fn(|| engine.allocate()).take(hoarded.min(frames as usize - 8)).collect();
        let (mut wanted, mut cut) = (Vec::new(), 0);
        for (n, (length, v4, start)) in (0u8..).zip(lengths) {
            let payload = vec![n; length];
            let (free, pending) = (engine.frames().free, engine.pending());
            if free == 0 {
                break;
            }
            let needs_cut = length + if v4 { 28 } else { 48 } > mtu;
            match send(&mut engine, start, &payload, v4) {
                Ok(()) => {
                    cut += u64::from(needs_cut);
                    wanted.push(payload);
                }
                Err(error) => {
                    prop_assert_eq!(error, TransmitError::Full);
                    prop_assert_eq!((engine.frames().free, engine.pending()), (free, pending));
                }
            }
            prop_assert_eq!(engine.frames().missing(), 0);
        }
        engine.flush().unwrap();
        prop_assert_eq!(engine.counters().fragmented, [cut, 0]);
        prop_assert_eq!(engine.counters().transmitted as usize, wanted.len());
        prop_assert_eq!(received(&mut engine, &kernels[0], mtu), wanted);
        kernels[0].lock().unwrap().complete(frames as usize);
        engine.flush().unwrap();
        hoard.into_iter().for_each(|frame| engine.release(frame));
        let count = engine.frames();
        prop_assert_eq!((count.transmit, count.held, count.missing()), (0, 0, 0));
        prop_assert_eq!((engine.channels[0].flying, engine.counters().corrupt), (0, 0));
    }

    /// A packet that comes in several parts is the packet, where it fits into a frame; else it is counted, and never seen.
    #[test]
    fn parts_are_put_together_or_dropped(
        packets in prop::collection::vec((prop::collection::vec(1usize..1000, 1..5), any::<bool>()), 1..20),
    ) {
        let (mut engine, kernels) = engine(1, 64, Shares { fill: 16, transmit: 8 });
        let (mut burst, mut wanted, mut too_long, mut n) = (Burst::new(), Vec::new(), 0, 0u8);
        for (cuts, hurried) in packets {
            n += 1;
            let bytes = packet(&vec![n; cuts.iter().sum::<usize>()]);
            let mut rest = bytes.as_slice();
            for (nth, cut) in cuts.iter().enumerate() {
                let last = nth + 1 == cuts.len();
                let (now, later) = rest.split_at(if last { rest.len() } else { *cut });
                rest = later;
                show(&mut engine, &kernels[0], now, if last { 0 } else { CONTINUED });
                // As a burst that ends in the middle of a packet.
                if hurried {
                    engine.receive(&mut burst).unwrap();
                }
            }
            engine.receive(&mut burst).unwrap();
            if HEADROOM + bytes.len() <= FRAME_SIZE {
                wanted.push(vec![n; cuts.iter().sum()]);
            } else {
                too_long += 1;
            }
            let seen: Vec<_> = burst.drain().collect();
            prop_assert_eq!(seen.len(), usize::from(HEADROOM + bytes.len() <= FRAME_SIZE));
            for received in seen {
                let payload = engine.buffer(&received.frame)[received.payload.clone()].to_vec();
                prop_assert_eq!(Some(&payload), wanted.last());
                engine.release(received.frame);
            }
            prop_assert_eq!(engine.frames().missing(), 0);
        }
        prop_assert_eq!((engine.counters().truncated, engine.counters().malformed), (too_long, 0));
        prop_assert_eq!(engine.frames().held, 0);
    }
}

/// Lets a part come in; a frame holds 1,728 octets of it.
fn show(engine: &mut FakeEngine, kernel: &Arc<Mutex<Kernel>>, octets: &[u8], options: u32) {
    let mut kernel = kernel.lock().unwrap();
    let parts = octets.chunks(FRAME_SIZE - HEADROOM);
    let count = parts.len();
    for (nth, part) in parts.enumerate() {
        let address = kernel.stock().expect("a frame to receive into");
        let (index, _) = super::super::locate(address, FRAME_SIZE);
        engine.chunks.chunk(index)[HEADROOM..HEADROOM + part.len()].copy_from_slice(part);
        let options = if nth + 1 < count { CONTINUED } else { options };
        let length = u32::try_from(part.len()).unwrap();
        let shown = kernel.receive.push(Descriptor { address: address + HEADROOM as u64, length, options });
        assert!(shown, "the receive ring has room");
    }
    kernel.receive.publish();
}

#[test]
fn long_ipv4_that_fits_may_be_cut_by_routers_and_short_may_not() {
    let (mut engine, kernels) = engine(1, 32, Shares { fill: 4, transmit: 16 });
    let mut ids = Vec::new();
    for (length, v4, flags) in [(1252, true, 0x40), (1253, true, 0), (1472, true, 0), (1452, false, 0)] {
        send(&mut engine, HEADROOM, &vec![1; length], v4).unwrap();
        engine.flush().unwrap();
        let descriptor = *kernels[0].lock().unwrap().sent.last().unwrap();
        let (index, start) = super::super::locate(descriptor.address, FRAME_SIZE);
        let frame = &engine.chunks.chunk(index)[start..start + descriptor.length as usize];
        assert_eq!(frame::parse(frame).unwrap().payload.len(), length);
        if v4 {
            assert_eq!(frame[24..26], [flags, 0], "{length}");
            ids.push(u16::from_be_bytes([frame[22], frame[23]]));
        }
    }
    assert_eq!((ids[0], ids[2]), (0, ids[1].wrapping_add(1)), "an identification where somebody may cut");
    assert_eq!(engine.counters().fragmented, [0, 0]);
}

#[test]
fn what_would_be_too_many_fragments_is_refused() {
    let (mut engine, _kernels) = engine(1, 32, Shares { fill: 4, transmit: 16 });
    engine.channels[0].mtu = 200;
    assert_eq!(send(&mut engine, HEADROOM, &[1; 1700], true), Err(TransmitError::Short));
    assert_eq!((engine.frames().missing(), engine.pending(), engine.frames().transmit), (0, 0, 0));
}
