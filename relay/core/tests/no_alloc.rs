//! The packet path allocates nothing: counted, for RTP, RTCP and STUN both ways and for everything that dies.

#![allow(clippy::unwrap_used, clippy::panic, clippy::cast_possible_truncation)]
// A global allocator can only be written with unsafe code.
#![allow(unsafe_code)]

mod table;

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

use sallyport_core::{FORK_ROOM, Inbound, Limits, Now, RESEND_ROOM, Translator, Verdict};
use sallyport_plan::{ExtensionMap, FlowKey, Fork, Plan, Profile, Pt, Resend, Ssrc};
use sallyport_wire::PacketBuf;
use table::world::*;
use table::{Datagram, STEP, Step};

thread_local! {
    static COUNT: Cell<u64> = const { Cell::new(0) };
}

struct Counting;

// SAFETY: every call goes to the system's allocator as it came; the count is a thread-local cell without a destructor.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        COUNT.set(COUNT.get() + 1);
        // SAFETY: the caller's promises are ours.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        COUNT.set(COUNT.get() + 1);
        // SAFETY: the caller's promises are ours.
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        COUNT.set(COUNT.get() + 1);
        // SAFETY: the caller's promises are ours.
        unsafe { System.realloc(pointer, layout, size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Calls of the allocator while `work` runs.
fn calls<T>(work: impl FnOnce() -> T) -> (u64, T) {
    let before = COUNT.get();
    let result = work();
    (COUNT.get() - before, result)
}

fn judge(core: &mut Translator, from: &FlowKey, buf: &mut PacketBuf<'_>, now: Now) -> Verdict {
    match core.lookup(from) {
        Some(tag) => core.translate(tag, from, buf, now),
        None => core.unknown(from, buf, now),
    }
}

#[test]
fn the_counter_counts() {
    assert_eq!(calls(|| ()).0, 0);
    assert_eq!(calls(|| Box::new(7)).0, 1);
}

#[test]
fn no_packet_of_the_case_table_allocates() {
    let mut packets = 0;
    for case in table::cases() {
        let mut core = Translator::new(0, Limits { calls: 1, directions: 2 }, [7; 32]);
        let mut now = Now(1_000_000);
        core.install(case.plan, now).unwrap();
        for step in case.steps {
            now = now.plus(STEP);
            match step {
                Step::Install(plan) => drop(core.install(plan, now).unwrap()),
                Step::Packet(Datagram { from, bytes, .. }) => {
                    let mut room = [vec![0; HEAD], bytes.clone(), vec![0; TAIL]].concat();
                    let mut buf = PacketBuf::new(&mut room, HEAD..HEAD + bytes.len()).unwrap();
                    let (count, _) = calls(|| judge(&mut core, &from, &mut buf, now));
                    assert_eq!(count, 0, "{}", case.name);
                    packets += 1;
                }
            }
        }
    }
    assert!(packets > 180, "{packets} packets");
}

#[test]
fn no_packet_between_two_keys_allocates() {
    let mut core = Translator::new(0, Limits { calls: 1, directions: 2 }, [7; 32]);
    let profile = Profile::AeadAes128Gcm;
    let next = Plan { version: 2, ..plan(Some(Profile::AesCm128HmacSha1_80), paths()) };
    core.install(plan(Some(profile), paths()), Now(0)).unwrap();
    core.install(next, Now(0)).unwrap();
    let peer = |profile| Peer::new(&key(profile, FROM_BROWSER), &key(profile, TO_BROWSER));
    let mut peers = [peer(profile), peer(Profile::AesCm128HmacSha1_80)];
    for n in 0..100u32 {
        let now = Now(u64::from(n) * STEP);
        let bytes = peers[usize::from(n % 2 > 0)].seal(&g711(9, n as u16, n * 160).bytes());
        let mut room = [vec![0; HEAD], bytes.clone(), vec![0; TAIL]].concat();
        let mut buf = PacketBuf::new(&mut room, HEAD..HEAD + bytes.len()).unwrap();
        let (count, verdict) = calls(|| judge(&mut core, &paths().outside, &mut buf, now));
        assert_eq!(count, 0, "{n}: {verdict:?}");
    }
}

#[test]
fn neither_long_streams_nor_changing_sources_allocate() {
    for profile in [Profile::AesCm128HmacSha1_80, Profile::AeadAes128Gcm] {
        let mut core = Translator::new(0, Limits { calls: 1, directions: 2 }, [7; 32]);
        core.install(plan(Some(profile), paths()), Now(0)).unwrap();
        let fresh = || Peer::new(&key(profile, FROM_BROWSER), &key(profile, TO_BROWSER));
        let mut browser = fresh();
        for n in 0..20_000u32 {
            // More sources than a context keeps apart: the peer needs another for each, the relay does not.
            if n % 1000 == 0 {
                browser = fresh();
            }
            let rtp = g711(n / 1000, n as u16, n * 160).bytes();
            for (from, bytes) in [(paths().outside, browser.seal(&rtp)), (paths().rtp, rtp)] {
                let mut room = [vec![0; HEAD], bytes.clone(), vec![0; TAIL]].concat();
                let mut buf = PacketBuf::new(&mut room, HEAD..HEAD + bytes.len()).unwrap();
                let now = Now(u64::from(n) * STEP);
                let (count, verdict) = calls(|| judge(&mut core, &from, &mut buf, now));
                assert!(count == 0 && matches!(verdict, Verdict::Forward(_)), "{n}: {verdict:?}");
            }
        }
    }
}

#[test]
fn neither_timers_nor_lapses_nor_events_allocate() {
    let mut core = Translator::new(0, Limits { calls: 300, directions: 600 }, [7; 32]);
    for n in 0..300u16 {
        let mut paths = paths();
        for (at, flow) in [&mut paths.outside, &mut paths.rtp, &mut paths.rtcp].into_iter().enumerate() {
            flow.remote.set_port(1000 + 3 * n + at as u16);
        }
        let call = sallyport_plan::CallId(n.into());
        core.install(Plan { call, ..plan_with_consent(None, paths) }, Now(0)).unwrap();
    }
    let (mut sent, mut events) = (0, 0);
    while let Some(now) = core.poll_timeout() {
        let (count, ()) = calls(|| core.handle_timeout(now, &mut |_, _| sent += 1));
        assert_eq!(count, 0);
        let (count, ()) = calls(|| {
            while core.poll_event().is_some() {
                events += 1;
            }
        });
        assert_eq!(count, 0);
    }
    assert_eq!(events, 300);
    assert!((300 * 5..=300 * 8).contains(&sent), "{sent} checks");
}

#[test]
fn no_report_allocates() {
    let profile = Profile::AeadAes128Gcm;
    let mut core = Translator::new(0, Limits { calls: 1, directions: 2 }, [7; 32]);
    let mut plan = plan(Some(profile), paths());
    plan.directions[0].extensions.transport_wide = Some(1);
    plan.directions[1].extensions.carried = vec![ExtensionMap { from: 1, to: 2 }];
    core.install(plan, Now(0)).unwrap();
    let mut browser = Peer::new(&key(profile, FROM_BROWSER), &key(profile, TO_BROWSER));
    let mut sent = 0;
    for n in 0..3000u32 {
        let now = Now(u64::from(n) * STEP);
        let number = [0x11, (n >> 8) as u8, n as u8, 0];
        let rtp = Rtp { extension: Some(vec![number]), ..g711(5, n as u16, n * 160) }.bytes();
        for (from, bytes) in [(paths().outside, browser.seal(&rtp)), (paths().rtp, rtp)] {
            let mut room = [vec![0; HEAD], bytes.clone(), vec![0; TAIL]].concat();
            let mut buf = PacketBuf::new(&mut room, HEAD..HEAD + bytes.len()).unwrap();
            assert_eq!(calls(|| judge(&mut core, &from, &mut buf, now)).0, 0);
        }
        assert_eq!(calls(|| core.handle_reports(now, &mut |_, _| sent += 1)).0, 0);
    }
    let fed_back = core.counters().find(|(name, _)| *name == "feedback_rtcp").unwrap().1;
    assert!((590..=610).contains(&fed_back), "{fed_back} in a minute");
    assert!((20..60).contains(&(sent - fed_back)), "{sent} reports of both directions in a minute");
}

#[test]
fn no_retransmission_allocates() {
    let profile = Profile::AeadAes128Gcm;
    let rtx = Resend::Rtx { ssrc: Ssrc(OUTSIDE_SSRC + 1), payload_types: vec![(Pt(0), Pt(97))] };
    for resend in [rtx, Resend::Same] {
        let mut core = Translator::new(0, Limits { calls: 1, directions: 2 }, [7; 32]);
        let mut kept = plan(Some(profile), paths());
        kept.directions[1].resend = resend;
        core.install(kept, Now(0)).unwrap();
        let mut browser = Peer::new(&key(profile, FROM_BROWSER), &key(profile, TO_BROWSER));
        let (mut first, mut sent) = (None, 0);
        for n in 0..3000u32 {
            let now = Now(u64::from(n) * STEP);
            let rtp = g711(5, n as u16, n * 160).bytes();
            let lost = nack(5, OUTSIDE_SSRC, &[(first.unwrap_or(0u16).wrapping_add(n as u16), 0)]);
            for (from, bytes) in [(paths().rtp, rtp), (paths().outside, browser.seal_rtcp(&lost))] {
                let mut room = [vec![0; HEAD], bytes.clone(), vec![0; TAIL]].concat();
                let mut buf = PacketBuf::new(&mut room, HEAD..HEAD + bytes.len()).unwrap();
                assert_eq!(calls(|| judge(&mut core, &from, &mut buf, now)).0, 0);
                first.get_or_insert_with(|| u16::from_be_bytes([buf.packet()[2], buf.packet()[3]]));
            }
            let mut room = [0; RESEND_ROOM];
            let (count, again) = calls(|| core.poll_resend(now, &mut room));
            assert_eq!(count, 0);
            sent += u32::from(again.is_some());
        }
        assert!(sent > 1000, "{sent} packets were sent again");
    }
}

#[test]
fn no_copy_allocates() {
    let mut core = Translator::new(0, Limits { calls: 1, directions: 2 }, [7; 32]);
    let mut copied = plan(Some(Profile::AeadAes128Gcm), paths());
    copied.directions[1].fork = Some(Fork { rtp: paths().rtp, rtcp: paths().rtcp });
    core.install(copied, Now(0)).unwrap();
    let mut sent = 0;
    for n in 0..3000u32 {
        let bytes = g711(5, n as u16, n * 160).bytes();
        let mut room = [vec![0; HEAD], bytes.clone(), vec![0; TAIL]].concat();
        let mut buf = PacketBuf::new(&mut room, HEAD..HEAD + bytes.len()).unwrap();
        let now = Now(u64::from(n) * STEP);
        assert_eq!(calls(|| judge(&mut core, &paths().rtp, &mut buf, now)).0, 0);
        let mut room = [0; FORK_ROOM];
        // Now and then nobody sends them, until there is no room left.
        if n % 1000 > 200 {
            let (count, copies) = calls(|| (0..200).filter(|_| core.poll_fork(&mut room).is_some()).count());
            assert_eq!(count, 0);
            sent += copies;
        }
    }
    let overflow = core.counters().find(|(name, _)| *name == "fork_overflow").unwrap().1;
    assert!(sent > 2000 && overflow > 0 && sent + overflow as usize == 3000, "{sent} and {overflow}");
}

#[test]
fn no_burst_allocates() {
    let profile = Profile::AesCm128HmacSha1_80;
    let mut core = Translator::new(0, Limits { calls: 1, directions: 2 }, [7; 32]);
    core.install(plan(Some(profile), paths()), Now(0)).unwrap();
    let mut browser = Peer::new(&key(profile, FROM_BROWSER), &key(profile, TO_BROWSER));
    let mut rooms: Vec<(FlowKey, Vec<u8>, usize)> = (0..200u32)
        .map(|n| {
            let rtp = g711(n % 2, n as u16, n * 160).bytes();
            let (from, bytes) =
                if n % 2 == 0 { (paths().outside, browser.seal(&rtp)) } else { (paths().rtp, rtp) };
            (from, [vec![0; HEAD], bytes.clone(), vec![0; TAIL]].concat(), bytes.len())
        })
        .collect();
    let mut bufs: Vec<_> = rooms
        .iter_mut()
        .map(|(from, room, length)| (*from, PacketBuf::new(room, HEAD..HEAD + *length).unwrap()))
        .collect();
    let mut burst: Vec<_> =
        bufs.iter_mut().map(|(from, buf)| Inbound::new(*from, core.lookup(from), buf)).collect();
    assert_eq!(calls(|| core.translate_burst(&mut burst, Now(1))).0, 0);
    assert!(burst.iter().all(|packet| matches!(packet.verdict, Verdict::Forward(_))));
}
