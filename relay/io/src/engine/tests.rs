use std::collections::VecDeque;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};

use proptest::prelude::*;

use super::*;
use crate::meta::{META_LEN, META_MAGIC, META_PUNT};
use crate::port::FRAME_SIZE;
use crate::testing::{Answer, FakeEngine, Kernel, LINK, deliver, engine, ours, packet, theirs};

const SMALL: Shares = Shares { fill: 8, transmit: 6 };

fn egress(zone: u8, link: bool) -> Egress {
    Egress { zone, local: ours(), remote: theirs(), link: link.then_some(LINK) }
}

/// Allocates a frame, writes a serial number into it, transmits it.
fn send(engine: &mut FakeEngine, serial: u64, egress: &Egress) -> Result<(), TransmitError> {
    let frame = engine.allocate().expect("a free frame");
    engine.buffer(&frame)[HEADROOM..HEADROOM + 8].copy_from_slice(&serial.to_be_bytes());
    engine.transmit(frame, HEADROOM..HEADROOM + 8, egress)
}

/// Payload of what the kernel was given to send.
fn payload(engine: &mut FakeEngine, descriptor: Descriptor) -> Vec<u8> {
    let (index, start) = locate(descriptor.address, FRAME_SIZE);
    let bytes = &engine.chunks.chunk(index)[start..start + descriptor.length as usize];
    let datagram = frame::parse(bytes).expect("a well-formed frame");
    assert_eq!((datagram.source, datagram.destination), (ours(), theirs()));
    assert_eq!((datagram.vlan, datagram.destination_mac), (Some(7), LINK.destination_mac));
    bytes[datagram.payload].to_vec()
}

#[derive(Debug, Clone)]
enum Step {
    Deliver { to: usize, count: u8, broken: bool, tag: Option<(u32, u32)> },
    Keep { by: usize },
    Receive,
    Forward { at: usize, zone: u8, link: bool, fits: bool },
    Release { at: usize },
    Allocate,
    Flush { answers: Vec<Answer>, by: usize },
    Complete { by: usize, count: u8 },
}

fn answer() -> impl Strategy<Value = Answer> {
    prop_oneof![
        (0usize..6).prop_map(Answer::Take),
        prop::sample::select(vec![libc::EAGAIN, libc::ENOBUFS, libc::EINTR, libc::EBUSY, libc::ENETDOWN])
            .prop_map(Answer::Fail),
        Just(Answer::Busy),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        3 => (0usize..2, 1u8..12, any::<bool>(), any::<Option<(u32, u32)>>())
            .prop_map(|(to, count, broken, tag)| Step::Deliver { to, count, broken, tag }),
        1 => (0usize..2).prop_map(|by| Step::Keep { by }),
        4 => Just(Step::Receive),
        8 => (any::<usize>(), 1u8..4, prop::bool::weighted(0.9), prop::bool::weighted(0.9))
            .prop_map(|(at, zone, link, fits)| Step::Forward { at, zone, link, fits }),
        1 => any::<usize>().prop_map(|at| Step::Release { at }),
        2 => Just(Step::Allocate),
        3 => (prop::collection::vec(answer(), 0..4), 0usize..2)
            .prop_map(|(answers, by)| Step::Flush { answers, by }),
        3 => (0usize..2, 1u8..16).prop_map(|(by, count)| Step::Complete { by, count }),
    ]
}

/// Serial number and tag of a packet on its way in.
type Incoming = (u64, Option<(u32, u32)>);

/// The engine, its kernel, and what must be true of both.
struct Model {
    engine: FakeEngine,
    kernels: Vec<Arc<Mutex<Kernel>>>,
    burst: Burst,
    /// Frames in the user's hands, with their payloads.
    held: Vec<(Frame, Range<usize>)>,
    /// By socket: serials and tags that came in and were not received yet.
    incoming: [VecDeque<Incoming>; 2],
    /// By socket: serials that were accepted and not seen by the kernel yet.
    outgoing: [VecDeque<u64>; 2],
    seen: [usize; 2],
    serial: u64,
    broken: u64,
    forwarded: u64,
}

impl Model {
    const FRAMES: u32 = 32;

    fn new() -> Self {
        let (engine, kernels) = engine(2, Self::FRAMES, SMALL);
        Self {
            engine,
            kernels,
            burst: Burst::new(),
            held: Vec::new(),
            incoming: Default::default(),
            outgoing: Default::default(),
            seen: [0; 2],
            serial: 0,
            broken: 0,
            forwarded: 0,
        }
    }

    fn step(&mut self, step: Step) {
        match step {
            Step::Deliver { to, count, broken, tag } => self.deliver(to, count, broken, tag),
            Step::Keep { by } => self.kernels[by].lock().unwrap().keep(),
            Step::Receive => self.receive(),
            Step::Forward { at, zone, link, fits } => self.forward(at, zone, link, fits),
            Step::Release { at } => {
                if !self.held.is_empty() {
                    let (frame, _) = self.held.swap_remove(at % self.held.len());
                    self.engine.release(frame);
                }
            }
            Step::Allocate => {
                let free = self.engine.frames().free;
                let frame = self.engine.allocate();
                assert!(frame.is_some() || free == 0);
                self.held.extend(frame.map(|frame| (frame, HEADROOM..HEADROOM + 8)));
            }
            Step::Flush { answers, by } => {
                let fatal = answers.iter().any(|answer| matches!(answer, Answer::Fail(libc::ENETDOWN)));
                self.kernels[by].lock().unwrap().answers.extend(answers);
                let result = self.engine.flush();
                assert!(fatal || result.is_ok());
                self.kernels[by].lock().unwrap().answers.clear();
            }
            Step::Complete { by, count } => self.kernels[by].lock().unwrap().complete(count.into()),
        }
        self.check();
    }

    fn deliver(&mut self, to: usize, count: u8, broken: bool, tag: Option<(u32, u32)>) {
        for _ in 0..count {
            self.serial += 1;
            let mut packet = packet(&self.serial.to_be_bytes());
            if broken {
                packet.truncate(packet.len() - 1);
            }
            if deliver(&mut self.engine.chunks, &self.kernels[to], &packet, tag) {
                if broken {
                    self.broken += 1;
                } else {
                    self.incoming[to].push_back((self.serial, tag));
                }
            }
        }
    }

    fn receive(&mut self) {
        let count = self.engine.receive(&mut self.burst).unwrap();
        assert_eq!(count, self.burst.len());
        for received in self.burst.drain() {
            let (serial, tag) = self.incoming[usize::from(received.zone) - 1].pop_front().unwrap();
            assert_eq!(self.engine.buffer(&received.frame)[received.payload.clone()], serial.to_be_bytes());
            assert_eq!((received.local, received.remote), (ours(), theirs()));
            assert_eq!((received.tag, received.vlan), (tag, Some(7)));
            assert_eq!(received.source_mac, Some(LINK.source_mac));
            self.held.push((received.frame, received.payload));
        }
        assert!(self.incoming.iter().all(VecDeque::is_empty), "the burst has room for all");
        assert_eq!(self.engine.counters().malformed, self.broken);
    }

    fn forward(&mut self, at: usize, zone: u8, link: bool, fits: bool) {
        if self.held.is_empty() {
            return;
        }
        let (frame, range) = self.held.swap_remove(at % self.held.len());
        self.serial += 1;
        self.engine.buffer(&frame)[range.clone()].copy_from_slice(&self.serial.to_be_bytes());
        let range = if fits { range } else { 8..16 };
        let result = self.engine.transmit(frame, range, &egress(zone, link));
        let full = matches!(result, Err(TransmitError::Full | TransmitError::Io));
        // Each socket has a share of its own.
        assert!(!full || self.engine.channels[usize::from(zone) - 1].flying == SMALL.transmit);
        if zone == 3 {
            assert_eq!(result, Err(TransmitError::NoSocket));
        } else if !link {
            assert_eq!(result, Err(TransmitError::NoLink));
        } else if !full {
            assert_eq!(result, if fits { Ok(()) } else { Err(TransmitError::Short) });
        }
        if result.is_ok() {
            self.forwarded += 1;
            self.outgoing[usize::from(zone) - 1].push_back(self.serial);
        }
    }

    /// Every frame is in one place; what was sent is what was accepted, in order, once.
    fn check(&mut self) {
        let count = self.engine.frames();
        assert_eq!((count.missing(), count.lost, count.total), (0, 0, Self::FRAMES.into()), "{count:?}");
        assert_eq!(count.held as usize, self.held.len());
        let (mut waiting, mut receiving, mut transmitting) = (0, 0, 0);
        for (at, kernel) in self.kernels.iter().enumerate() {
            let kernel = kernel.lock().unwrap();
            let channel = &self.engine.channels[at];
            let filled = channel.fill.waiting() as usize;
            waiting += filled;
            receiving += kernel.kept.len() + kernel.receive.waiting() as usize;
            transmitting += channel.transmit.waiting() as usize
                + kernel.flying.len()
                + kernel.completion.waiting() as usize;
            assert_eq!(
                channel.stocked as usize,
                filled + kernel.kept.len() + kernel.receive.waiting() as usize
            );
        }
        assert_eq!((count.fill as usize, count.receive as usize), (waiting, receiving));
        assert_eq!(count.transmit as usize, transmitting);
        assert_eq!(
            self.engine.pending(),
            self.engine.channels.iter().map(|c| c.transmit.waiting() as usize).sum()
        );
        for at in 0..2 {
            let sent = self.kernels[at].lock().unwrap().sent[self.seen[at]..].to_vec();
            self.seen[at] += sent.len();
            for descriptor in sent {
                let serial = self.outgoing[at].pop_front().expect("accepted before it was sent");
                assert_eq!(payload(&mut self.engine, descriptor), serial.to_be_bytes());
            }
        }
        assert_eq!(self.engine.counters().transmitted, self.forwarded);
        assert_eq!(self.engine.counters().corrupt, 0);
    }

    /// Lets all work end: every frame is free or waits for a packet.
    fn finish(mut self) {
        for (frame, _) in std::mem::take(&mut self.held) {
            self.engine.release(frame);
        }
        self.engine.flush().unwrap();
        self.check();
        assert!(self.outgoing.iter().all(VecDeque::is_empty));
        for kernel in &self.kernels {
            kernel.lock().unwrap().complete(64);
        }
        self.receive();
        for (frame, _) in std::mem::take(&mut self.held) {
            self.engine.release(frame);
        }
        self.receive();
        let count = self.engine.frames();
        assert_eq!((count.transmit, count.held), (0, 0));
        assert_eq!(count.fill + count.receive, u64::from(2 * SMALL.fill));
        self.check();
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn frames_are_conserved_and_packets_kept_in_order(steps in prop::collection::vec(step(), 1..120)) {
        let mut model = Model::new();
        for step in steps {
            model.step(step);
        }
        model.finish();
    }
}

#[test]
fn one_flush_takes_as_many_calls_as_the_budget_of_the_kernel_asks_for() {
    let (mut engine, kernels) = engine(1, 256, Shares::of(256, 1));
    for serial in 0..96 {
        send(&mut engine, serial, &egress(1, true)).unwrap();
    }
    assert_eq!((engine.pending(), kernels[0].lock().unwrap().kicks), (96, 0));
    engine.flush().unwrap();
    assert_eq!((engine.pending(), kernels[0].lock().unwrap().sent.len()), (0, 96));
    assert_eq!(kernels[0].lock().unwrap().kicks, 3, "EAGAIN with an empty ring needs no further call");
}

#[test]
fn a_kernel_that_takes_nothing_is_not_asked_for_ever() {
    let (mut engine, kernels) = engine(1, 256, Shares::of(256, 1));
    for serial in 0..10 {
        send(&mut engine, serial, &egress(1, true)).unwrap();
    }
    kernels[0].lock().unwrap().answers.extend([Answer::Fail(libc::EAGAIN); 50]);
    engine.flush().unwrap();
    assert_eq!((engine.pending(), kernels[0].lock().unwrap().kicks), (10, 2));
    kernels[0].lock().unwrap().answers.clear();
    engine.flush().unwrap();
    assert_eq!((engine.pending(), kernels[0].lock().unwrap().sent.len()), (0, 10));
}

#[test]
fn packets_that_the_device_drops_are_counted_and_their_frames_come_back() {
    let (mut engine, kernels) = engine(1, 256, Shares::of(256, 1));
    for serial in 0..5 {
        send(&mut engine, serial, &egress(1, true)).unwrap();
    }
    kernels[0].lock().unwrap().answers.extend([Answer::Busy, Answer::Busy]);
    engine.flush().unwrap();
    assert_eq!((engine.counters().refused, engine.pending()), (2, 0));
    kernels[0].lock().unwrap().complete(5);
    engine.flush().unwrap();
    assert_eq!((engine.frames().transmit, engine.frames().missing()), (0, 0));
}

#[test]
fn an_interface_that_is_down_does_not_hold_up_the_other() {
    let (mut engine, kernels) = engine(2, 256, Shares::of(256, 2));
    let limit = Shares::of(256, 2).transmit;
    send(&mut engine, 1, &egress(1, true)).unwrap();
    send(&mut engine, 2, &egress(2, true)).unwrap();
    kernels[0].lock().unwrap().answers.extend([Answer::Fail(libc::ENETDOWN); 2]);
    assert_eq!(engine.flush().unwrap_err().raw_os_error(), Some(libc::ENETDOWN));
    assert_eq!((engine.pending(), kernels[1].lock().unwrap().sent.len()), (1, 1));
    kernels[1].lock().unwrap().complete(1);
    for serial in 3..=u64::from(limit) + 1 {
        send(&mut engine, serial, &egress(1, true)).unwrap();
    }
    assert_eq!(send(&mut engine, 0, &egress(1, true)), Err(TransmitError::Io), "down");
    for serial in 0..u64::from(limit) {
        send(&mut engine, serial, &egress(2, true)).expect("the other has its own share");
    }
    assert!(engine.flush().is_err());
    assert!(engine.frames().free >= 1, "a full transmit share leaves frames for the user");
    engine.flush().unwrap();
    assert_eq!((engine.pending(), engine.frames().missing()), (0, 0));
    assert_eq!(send(&mut engine, 0, &egress(1, true)), Err(TransmitError::Full), "up, and not completed yet");
}

#[test]
fn a_driver_that_polls_by_itself_gets_no_call() {
    let (mut engine, kernels) = engine(1, 256, Shares::of(256, 1));
    kernels[0].lock().unwrap().answers.extend([Answer::Fail(libc::EINVAL)]);
    let channel = &mut engine.channels[0];
    channel.transmit.memory_for_tests().cells.wants_wakeup.store(false, Ordering::Relaxed);
    send(&mut engine, 1, &egress(1, true)).unwrap();
    engine.flush().unwrap();
    assert_eq!((engine.pending(), kernels[0].lock().unwrap().kicks), (1, 0));
}

#[test]
fn sockets_share_a_burst_fairly_and_leave_no_room_unused() {
    let (mut engine, kernels) = engine(2, 512, Shares::of(512, 2));
    let mut burst = Burst::new();
    for _ in 0..100 {
        for kernel in &kernels {
            assert!(deliver(&mut engine.chunks, kernel, &packet(b"x"), None));
        }
    }
    assert_eq!(engine.receive(&mut burst).unwrap(), 64);
    let (outside, inside): (Vec<_>, Vec<_>) = burst.drain().partition(|received| received.zone == 1);
    assert_eq!((outside.len(), inside.len()), (32, 32));
    outside.into_iter().chain(inside).for_each(|received| engine.release(received.frame));
    let (mut total, mut zone_two_alone) = (64, 0);
    while engine.receive(&mut burst).unwrap() > 0 {
        total += burst.len();
        zone_two_alone = zone_two_alone.max(burst.len());
        burst.drain().collect::<Vec<_>>().into_iter().for_each(|received| engine.release(received.frame));
    }
    assert_eq!((total, zone_two_alone, engine.frames().missing()), (200, 64, 0));
    let counters = engine.counters();
    assert_eq!((counters.received, counters.kernel_starved, counters.kernel_dropped), (200, 2, 4));
}

#[test]
fn with_room_for_one_sockets_take_turns() {
    let (mut engine, kernels) = engine(2, 512, Shares::of(512, 2));
    let mut burst = Burst::new();
    for _ in 0..70 {
        for kernel in &kernels {
            assert!(deliver(&mut engine.chunks, kernel, &packet(b"x"), None));
        }
    }
    assert_eq!(engine.receive(&mut burst).unwrap(), Burst::CAPACITY);
    let mut zones = Vec::new();
    for _ in 0..4 {
        // The burst stays full but for one place.
        let mut rest: Vec<Received> = burst.drain().collect();
        engine.release(rest.pop().unwrap().frame);
        rest.into_iter().for_each(|received| burst.push(received).unwrap());
        assert_eq!(engine.receive(&mut burst).unwrap(), 1);
        let mut all: Vec<Received> = burst.drain().collect();
        zones.push(all.last().unwrap().zone);
        all.drain(..).for_each(|received| burst.push(received).unwrap());
    }
    burst.drain().collect::<Vec<_>>().into_iter().for_each(|received| engine.release(received.frame));
    assert!(zones == [2, 1, 2, 1] || zones == [1, 2, 1, 2], "{zones:?}");
}

#[test]
fn metadata_is_believed_once_and_only_with_its_magic() {
    let (mut engine, kernels) = engine(1, 64, Shares { fill: 1, transmit: 8 });
    let mut burst = Burst::new();
    for tag in [Some((7, 9)), None, Some((8, 10)), None] {
        assert!(deliver(&mut engine.chunks, &kernels[0], &packet(b"x"), tag));
        assert_eq!(engine.receive(&mut burst).unwrap(), 1);
        let received = burst.drain().next().unwrap();
        assert_eq!(received.tag, tag);
        let meta = HEADROOM - META_LEN;
        assert_eq!(engine.buffer(&received.frame)[meta..meta + 4], [0; 4]);
        // What looks like metadata, written by a user, does not survive until the next reception.
        engine.buffer(&received.frame)[meta..meta + 4].copy_from_slice(&META_MAGIC.to_ne_bytes());
        engine.buffer(&received.frame)[meta + 12..HEADROOM].copy_from_slice(&1u32.to_ne_bytes());
        engine.release(received.frame);
        // The freed frame is stocked next.
        let spare: Vec<Frame> = std::iter::from_fn(|| engine.allocate()).collect();
        engine.receive(&mut burst).unwrap();
        spare.into_iter().for_each(|frame| engine.release(frame));
    }
    assert_eq!(meta::take(&mut [0; 15]), None);
    let mut punt = [0; 20];
    punt[4..8].copy_from_slice(&META_MAGIC.to_ne_bytes());
    punt[16..20].copy_from_slice(&META_PUNT.to_ne_bytes());
    assert_eq!(meta::take(&mut punt), None);
    assert_eq!(punt[4..8], [0; 4]);
}

#[test]
fn nonsense_from_the_kernel_gives_no_frame_away() {
    let (mut engine, kernels) = engine(2, 32, SMALL);
    let mut burst = Burst::new();
    let held = engine.allocate().unwrap();
    let before = engine.frames();
    {
        let mut kernel = kernels[0].lock().unwrap();
        let others = kernels[1].lock().unwrap().fill.pop().unwrap();
        for address in [u64::MAX, 32 * FRAME_SIZE as u64, others] {
            kernel.show(address, 64);
            assert!(kernel.completion.push(address));
        }
        kernel.completion.publish();
    }
    assert_eq!(engine.receive(&mut burst).unwrap(), 0);
    assert_eq!(engine.counters().corrupt, 6);
    assert_eq!(engine.frames().missing(), 0);
    assert_eq!(engine.frames().held, before.held);
    // A packet said to reach over the end of its frame.
    let address = kernels[0].lock().unwrap().stock().unwrap();
    kernels[0].lock().unwrap().show(address + 320, 4096);
    assert_eq!(engine.receive(&mut burst).unwrap(), 0);
    assert_eq!((engine.counters().malformed, engine.frames().missing()), (1, 0));
    engine.release(held);
}

#[test]
fn a_dropped_frame_is_counted_as_lost() {
    let (mut engine, _) = engine(1, 64, Shares::of(64, 1));
    drop(engine.allocate());
    let count = engine.frames();
    assert_eq!((count.lost, count.held, count.missing()), (1, 0, 1));
}

#[test]
fn a_frame_of_another_port_is_refused() {
    let (mut one, _) = engine(1, 64, Shares::of(64, 1));
    let (mut other, _) = engine(1, 64, Shares::of(64, 1));
    let frame = other.allocate().unwrap();
    assert!(one.buffer(&frame).is_empty());
    assert_eq!(one.transmit(frame, 400..410, &egress(1, true)), Err(TransmitError::Foreign));
    assert_eq!((one.frames().missing(), other.frames().lost), (0, 1));
}

#[test]
fn shares_leave_frames_for_everybody() {
    for (frames, sockets) in [(256, 1), (512, 2), (4096, 2), (65_536, 255), (1000, 3)] {
        let shares = Shares::of(frames, sockets);
        let spare = frames - (shares.fill + shares.transmit) * sockets;
        assert!(shares.fill >= 64 && shares.transmit >= 64 && spare >= 32, "{frames} {sockets} {shares:?}");
    }
}
