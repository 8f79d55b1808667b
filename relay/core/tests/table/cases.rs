//! The cases.

use sallyport_core::Reason;
use sallyport_plan::{Mute, Plan, Profile};
use sallyport_wire::stun::{self, Class};

use super::world::{
    self, Block, Check, INSIDE_SSRC, INWARD_START, LOCAL_PWD, OUTSIDE_SSRC, OUTWARD_START, Rtp, answer,
    check, counted, description, full_picture, g711, goodbye, nack, paths, paths6, picture_loss, plan,
    plan_with_consent, receiver_report, sender_report, stranger,
};
use super::{Case, Expect, Moves, Script};

const PROFILES: [Profile; 2] = [Profile::AesCm128HmacSha1_80, Profile::AeadAes128Gcm];
const GCM: Option<Profile> = Some(Profile::AeadAes128Gcm);
/// The browser's own SSRC, and the agent's.
const BROWSER: u32 = 0xb0b0_0001;
const AGENT: u32 = 0xa9e2_0002;

/// All of them.
pub fn cases() -> Vec<Case> {
    let mut cases = vec![];
    for profile in PROFILES {
        cases.extend([media(profile), forgeries(profile), reports(profile), forged_reports(profile)]);
    }
    cases.extend([media_over_ipv6(), header_parts(), payload_types(), early(), held(), plain_both_ways()]);
    cases.extend([losses_and_reordering(), restarts(), repeated_inside(), broken_rtp(), foreign_kinds()]);
    cases.extend([feedback_and_goodbyes(), wishes(), reports_of_strangers(), broken_rtcp()]);
    cases.extend([checks(), checks_over_ipv6(), bad_checks(), foreign_checks(), strangers()]);
    cases
}

fn srtp(name: &'static str, profile: Profile) -> Script {
    Script::new(name, plan(Some(profile), paths()), Some(profile), paths())
}

/// Both ways, a few packets; the first timestamps stay as they are.
fn media(profile: Profile) -> Case {
    let mut script = srtp("media passes both ways", profile);
    for n in 0..3u16 {
        let timestamp = 7000 + 160 * u32::from(n);
        script.inward(&g711(BROWSER, 65_535u16.wrapping_add(n), timestamp), 0, n as i16, timestamp, 0);
        script.outward(&g711(AGENT, 40_000 + n, timestamp), 0, n as i16, timestamp, 0);
    }
    script.end()
}

fn media_over_ipv6() -> Case {
    let mut script = Script::new("media passes over IPv6", plan(GCM, paths6()), GCM, paths6());
    script.inward(&g711(BROWSER, 1, 2), 0, 0, 2, 0);
    script.outward(&g711(AGENT, 3, 4), 0, 0, 4, 0);
    script.end()
}

fn forgeries(profile: Profile) -> Case {
    let mut script = srtp("forged, repeated, old and cut packets die", profile);
    let outside = paths().outside;
    let first = script.sealed(&g711(BROWSER, 1000, 0));
    // As if it had been lost on the way; it will come too late.
    script.inward(&g711(BROWSER, 1001, 160), 0, 0, 160, 0);
    for at in [1, 5, 9, 13, first.len() - 1] {
        let mut forged = first.clone();
        forged[at] ^= 0x01;
        script.drops(outside, forged, Reason::BadTag);
    }
    script.drops(outside, first[..first.len() - 1].to_vec(), Reason::BadTag);
    script.drops(outside, first[..20].to_vec(), Reason::Malformed);
    script.drops(outside, g711(BROWSER, 1002, 320).bytes(), Reason::BadTag);
    let last = script.sealed(&g711(BROWSER, 1127, 320));
    let expect = g711(BROWSER, 1127, 320).leaves(INSIDE_SSRC, INWARD_START + 126, 320).bytes();
    let expect = Expect::Forward { to: paths().rtp, rtcp: false, bytes: expect };
    let moves = Moves { direction: Some(world::INWARD), packets: 1, octets: 16, lost: 125 };
    script.packet(outside, last.clone(), expect, moves);
    script.drops(outside, last, Reason::Replay);
    script.inward(&g711(BROWSER, 1128, 480), 0, 127, 480, 0);
    // 128 behind the highest: below the replay window.
    script.drops(outside, first, Reason::TooOld);
    script.end()
}

fn header_parts() -> Case {
    let mut script = srtp("marker, padding and CSRC stay, extensions go", Profile::AeadAes128Gcm);
    let odd = |rtp: Rtp| Rtp {
        marker: true,
        csrc: vec![5, 6],
        extension: Some(vec![[0x10, 0xff, 0, 0], [0x22, 1, 2, 3]]),
        padding: 3,
        ..rtp
    };
    script.inward(&odd(g711(BROWSER, 9, 9)), 0, 0, 9, 0);
    script.outward(&odd(g711(AGENT, 9, 9)), 0, 0, 9, 0);
    let bare = |rtp: Rtp| Rtp { extension: Some(vec![]), payload: vec![], padding: 255, ..rtp };
    script.inward(&bare(g711(BROWSER, 10, 9)), 0, 1, 9, 0);
    script.outward(&bare(g711(AGENT, 10, 9)), 0, 1, 9, 0);
    script.end()
}

fn payload_types() -> Case {
    let mut script = srtp("payload types are mapped, others die without a trace", Profile::AeadAes128Gcm);
    let of = |payload_type, rtp: Rtp| Rtp { payload_type, ..rtp };
    script.inward(&of(111, g711(BROWSER, 1, 0)), 96, 0, 0, 0);
    script.outward(&of(96, g711(AGENT, 1, 0)), 111, 0, 0, 0);
    let noise = script.sealed(&of(13, g711(BROWSER, 2, 960)));
    script.drops(paths().outside, noise, Reason::PayloadType);
    script.drops(paths().rtp, of(13, g711(AGENT, 2, 960)).bytes(), Reason::PayloadType);
    // Of another source: a retransmission stream that nobody asked for.
    let foreign = script.sealed(&of(97, g711(77, 50_000, 960)));
    script.drops(paths().outside, foreign, Reason::PayloadType);
    script.inward(&of(126, g711(BROWSER, 3, 1920)), 101, 2, 1920, 0);
    script.outward(&of(101, g711(AGENT, 3, 1920)), 126, 2, 1920, 0);
    script.end()
}

fn early() -> Case {
    let mut script = Script::new("media before the handshake dies", plan(None, paths()), None, paths());
    let mut browser = Script::new("", plan(GCM, paths()), GCM, paths());
    let (outside, rtp, rtcp) = (paths().outside, paths().rtp, paths().rtcp);
    script.drops(outside, browser.sealed(&g711(BROWSER, 1, 0)), Reason::Early);
    script.drops(outside, g711(BROWSER, 2, 0).bytes(), Reason::Early);
    script.drops(outside, browser.sealed_rtcp(&receiver_report(BROWSER, &[])), Reason::Early);
    for n in 0..3 {
        script.drops(rtp, g711(AGENT, 7 + n, 0).bytes(), Reason::Early);
    }
    script.drops(rtcp, sender_report(AGENT, 0, &[]), Reason::Early);
    script.punts(outside, vec![22, 0xfe, 0xfd, 0, 0]);
    script.install(Plan { version: 2, ..plan(GCM, paths()) });
    script.browser = browser.browser;
    script.relay = browser.relay;
    script.inward(&g711(BROWSER, 3, 480), 0, 0, 480, 0);
    script.outward(&g711(AGENT, 10, 480), 0, 0, 480, 0);
    script.end()
}

/// Hold and resume: the stream goes on without a gap, timestamps follow the source's clock, nothing counts as lost.
fn held() -> Case {
    let mut script = srtp("what is held stays here and leaves no gap", Profile::AeadAes128Gcm);
    let (outside, rtp) = (paths().outside, paths().rtp);
    script.inward(&g711(BROWSER, 1, 160), 0, 0, 160, 0);
    script.outward(&g711(AGENT, 1, 160), 0, 0, 160, 0);
    let mut hold = Plan { version: 2, ..plan(GCM, paths()) };
    hold.directions.iter_mut().for_each(|direction| direction.mute = Mute::Held);
    script.install(hold);
    for n in 2..5u16 {
        let sealed = script.sealed(&g711(BROWSER, n, 160 * u32::from(n)));
        script.drops(outside, sealed, Reason::Held);
        script.drops(rtp, g711(AGENT, n, 160 * u32::from(n)).bytes(), Reason::Held);
    }
    let report = [receiver_report(BROWSER, &[]), description(BROWSER, "browser")].concat();
    script.inward_rtcp(
        &report,
        [receiver_report(INSIDE_SSRC, &[]), description(INSIDE_SSRC, "11110001")].concat(),
    );
    script.install(Plan { version: 3, ..plan(GCM, paths()) });
    script.inward(&g711(BROWSER, 5, 800), 0, 1, 800, 0);
    script.outward(&g711(AGENT, 5, 800), 0, 1, 800, 0);
    // A duplicate, which reception statistics count as one packet too many.
    script.drops_and_loses(rtp, g711(AGENT, 4, 640).bytes(), Reason::Late, -1);
    script.inward(&g711(BROWSER, 7, 1120), 0, 3, 1120, 1);
    script.end()
}

fn plain_both_ways() -> Case {
    let mut plain = plan(GCM, paths());
    let open = plain.directions[1].open.clone();
    plain.directions[0].open.clone_from(&open);
    plain.directions[1].seal = open;
    let mut script = Script::new("plain legs on both sides", plain, None, paths());
    script.inward(&g711(BROWSER, 1, 2), 0, 0, 2, 0);
    script.outward(&g711(AGENT, 3, 4), 0, 0, 4, 0);
    script.end()
}

fn losses_and_reordering() -> Case {
    let mut script = srtp("losses and reordering stay what they are", Profile::AeadAes128Gcm);
    for (sequence, nth, lost) in
        [(100, 0, 0), (101, 1, 0), (105, 5, 3), (103, 3, -1), (102, 2, -1), (99, -1, -1)]
    {
        let timestamp = 160 * u32::from(sequence);
        script.inward(&g711(BROWSER, sequence, timestamp), 0, nth, timestamp, lost);
        script.outward(&g711(AGENT, sequence, timestamp), 0, nth, timestamp, lost);
    }
    script.end()
}

/// The agent's source changes or starts anew: music, a transfer, a device that resets.
fn restarts() -> Case {
    let mut script = srtp("a restart inside is no break outside", Profile::AeadAes128Gcm);
    script.case.timed = true;
    let rtp = paths().rtp;
    script.outward(&g711(AGENT, 60_000, 1_000_000), 0, 0, 1_000_000, 0);
    script.outward(&g711(AGENT, 60_001, 1_000_160), 0, 1, 1_000_160, 0);
    // 20 ms later by the clock of a static type: 160.
    script.outward(&g711(0x77, 5, 9), 0, 2, 1_000_320, 0);
    script.outward(&g711(0x77, 6, 169), 0, 3, 1_000_480, 0);
    script.drops_and_loses(rtp, g711(0x77, 4, 0).bytes(), Reason::Late, -1);
    // The same source jumps by more than 1000, with another clock: the first is in doubt. 60 ms after the last that left.
    script.drops(rtp, g711(0x77, 1007, 0).bytes(), Reason::OutOfSequence);
    script.outward(&g711(0x77, 1008, 0), 0, 4, 1_000_960, 0);
    // Back by the replay window, and its clock goes on.
    script.drops(rtp, g711(0x77, 880, 160).bytes(), Reason::OutOfSequence);
    script.outward(&g711(0x77, 881, 320), 0, 5, 1_001_280, 0);
    // A packet of the source before is far away, and another that is not the next one.
    script.drops(rtp, g711(AGENT, 60_002, 1_000_320).bytes(), Reason::OutOfSequence);
    script.drops(rtp, g711(AGENT, 60_004, 1_000_640).bytes(), Reason::OutOfSequence);
    // Opus counts at 48 kHz.
    let opus = Rtp { payload_type: 96, ..g711(0x78, 1, 0) };
    script.outward(&opus, 111, 6, 1_001_280 + 2880, 0);
    // Events are counted at 8 kHz inside and at 48 kHz outside, with Opus's timestamps.
    let event = Rtp { payload_type: 102, payload: vec![5, 0x8a, 3, 0x20], ..g711(0x78, 2, 960) };
    let left = Rtp { payload_type: 110, payload: vec![5, 0x8a, 18, 192], ..event.clone() };
    script.outward_as(&event, &left, 7, 1_001_280 + 3840, 0);
    script.end()
}

/// A plain leg has no replay window; the sealer keeps the index from being used twice.
fn repeated_inside() -> Case {
    let mut script = srtp("a packet repeated inside is not sealed twice", Profile::AeadAes128Gcm);
    script.outward(&g711(AGENT, 1, 160), 0, 0, 160, 0);
    script.drops_and_loses(paths().rtp, g711(AGENT, 1, 160).bytes(), Reason::IndexReuse, -1);
    script.drops_and_loses(paths().rtp, g711(AGENT, 1, 999).bytes(), Reason::IndexReuse, -1);
    script.outward(&g711(AGENT, 2, 320), 0, 1, 320, 0);
    script.end()
}

fn broken_rtp() -> Case {
    let mut script = srtp("broken RTP dies", Profile::AeadAes128Gcm);
    let (outside, rtp) = (paths().outside, paths().rtp);
    let whole = g711(AGENT, 1, 160).bytes();
    for cut in [2, 11] {
        script.drops(rtp, whole[..cut].to_vec(), Reason::Malformed);
        script.drops(outside, whole[..cut].to_vec(), Reason::Malformed);
    }
    let mut contributors = whole.clone();
    contributors[0] |= 0x0f;
    script.drops(rtp, contributors.clone(), Reason::Malformed);
    script.drops(outside, contributors, Reason::Malformed);
    let mut extension = whole.clone();
    extension[0] |= 0x10;
    extension[14..16].copy_from_slice(&[0xff, 0xff]);
    script.drops(rtp, extension, Reason::Malformed);
    for count in [0, 17] {
        let mut padded = Rtp { payload_type: 0, ..g711(AGENT, 1, 160) }.bytes();
        padded[0] |= 0x20;
        *padded.last_mut().unwrap() = count;
        script.drops(rtp, padded, Reason::Malformed);
    }
    // The browser's padding lies under the tag.
    let mut padded = g711(BROWSER, 1, 160);
    padded.payload.push(200);
    let mut bytes = padded.bytes();
    bytes[0] |= 0x20;
    let sealed = script.browser.as_mut().map(|browser| browser.seal(&bytes)).unwrap();
    script.drops(outside, sealed, Reason::Malformed);
    script.end()
}

fn foreign_kinds() -> Case {
    let mut script = srtp("kinds of packets that a leg does not carry die", Profile::AeadAes128Gcm);
    let (outside, rtp, rtcp) = (paths().outside, paths().rtp, paths().rtcp);
    for first in [4, 19, 64, 79, 127, 192, 255] {
        script.drops(outside, vec![first, 0, 0, 0], Reason::Unexpected);
    }
    for from in [outside, rtp, rtcp] {
        script.drops(from, vec![], Reason::Unexpected);
        script.drops(from, vec![0x80], Reason::Unexpected);
    }
    script.drops(rtp, vec![22, 0xfe, 0xfd, 0], Reason::Unexpected);
    script.drops(rtp, check().bytes(), Reason::Unexpected);
    script.punts(outside, vec![20]);
    script.punts(outside, vec![63, 1, 2, 3]);
    // Without a consent, all ICE is control's.
    script.punts(outside, check().bytes());
    script.end()
}

/// Reports speak of the streams as their reader knows them.
fn reports(profile: Profile) -> Case {
    let mut script = srtp("reports are translated both ways", profile);
    script.inward(&g711(BROWSER, 500, 1000), 0, 0, 1000, 0);
    script.outward(&g711(AGENT, 65_535, 9000), 0, 0, 9000, 0);
    script.outward(&g711(AGENT, 0, 9160), 0, 1, 9160, 0);
    let heard = Block { ssrc: OUTSIDE_SSRC, highest: u32::from(OUTWARD_START) + 1 };
    let stray = Block { ssrc: 0xdead, highest: 5 };
    let from =
        [sender_report(BROWSER, 1000, &[stray, heard]), description(BROWSER, "{secret machine}")].concat();
    let back = Block { ssrc: AGENT, highest: 0x1_0000 };
    let report = counted(sender_report(INSIDE_SSRC, 1000, &[back]), 1);
    script.inward_rtcp(&from, [report, description(INSIDE_SSRC, "11110001")].concat());
    let heard = Block { ssrc: INSIDE_SSRC, highest: u32::from(INWARD_START) };
    let from = [sender_report(AGENT, 9160, &[heard, stray]), goodbye(AGENT)].concat();
    let back = Block { ssrc: BROWSER, highest: 500 };
    let report = counted(sender_report(OUTSIDE_SSRC, 9160, &[back]), 2);
    script.outward_rtcp(from, &[report, description(OUTSIDE_SSRC, "22220002")].concat());
    // A receiver's SSRC need not be its sender's.
    let to = [receiver_report(INSIDE_SSRC, &[]), description(INSIDE_SSRC, "11110001")].concat();
    script.inward_rtcp(&receiver_report(1, &[stray]), to);
    // Padding at the end of the compound, and a profile's extension.
    let mut padded = receiver_report(AGENT, &[heard]);
    padded.extend([0, 0, 0, 0, 0, 0, 0, 4]);
    padded[0] |= 0x20;
    padded[3] += 2;
    let to = [receiver_report(OUTSIDE_SSRC, &[back]), description(OUTSIDE_SSRC, "22220002")].concat();
    script.outward_rtcp(padded, &to);
    script.end()
}

fn forged_reports(profile: Profile) -> Case {
    let mut script = srtp("forged, repeated and unencrypted reports die", profile);
    let outside = paths().outside;
    let report = receiver_report(BROWSER, &[]);
    let sealed = script.sealed_rtcp(&report);
    for at in [1, 6, sealed.len() - 1] {
        let mut forged = sealed.clone();
        forged[at] ^= 0x01;
        script.drops(outside, forged, Reason::BadTag);
    }
    let index_at = if profile == Profile::AeadAes128Gcm { sealed.len() - 4 } else { sealed.len() - 14 };
    let mut clear = sealed.clone();
    clear[index_at] &= 0x7f;
    script.drops(outside, clear, Reason::NotEncrypted);
    let mut other = sealed.clone();
    other[index_at + 3] ^= 0x01;
    script.drops(outside, other, Reason::BadTag);
    script.drops(outside, report.clone(), Reason::Malformed);
    let to = [receiver_report(INSIDE_SSRC, &[]), description(INSIDE_SSRC, "11110001")].concat();
    let expect = Expect::Forward { to: paths().rtcp, rtcp: true, bytes: to };
    let moves = Moves { direction: Some(world::INWARD), ..Moves::default() };
    script.packet(outside, sealed.clone(), expect, moves);
    script.drops(outside, sealed, Reason::Replay);
    script.end()
}

fn feedback_and_goodbyes() -> Case {
    let mut script = srtp("feedback on nothing that was sent and goodbyes end here", Profile::AeadAes128Gcm);
    let (outside, rtcp) = (paths().outside, paths().rtcp);
    let feedback = script.sealed_rtcp(&picture_loss(BROWSER, OUTSIDE_SSRC));
    script.drops(outside, feedback, Reason::RtcpEmpty);
    script.drops(rtcp, goodbye(AGENT), Reason::RtcpEmpty);
    script.drops(rtcp, description(AGENT, "agent@inside"), Reason::RtcpEmpty);
    let reduced = [picture_loss(BROWSER, OUTSIDE_SSRC), receiver_report(BROWSER, &[])].concat();
    let to = [receiver_report(INSIDE_SSRC, &[]), description(INSIDE_SSRC, "11110001")].concat();
    script.inward_rtcp(&reduced, to);
    script.end()
}

/// Wishes go on to whoever sends the stream, under the names that it has there; pictures not too often.
fn wishes() -> Case {
    let mut script = srtp("receivers' wishes reach the sender", Profile::AeadAes128Gcm);
    script.inward(&g711(BROWSER, 500, 1000), 0, 0, 1000, 0);
    script.outward(&g711(AGENT, 65_535, 9000), 0, 0, 9000, 0);
    script.outward(&g711(AGENT, 0, 9160), 0, 1, 9160, 0);
    let head = |ssrc, name| [receiver_report(ssrc, &[]), description(ssrc, name)].concat();
    let inside = || head(INSIDE_SSRC, "11110001");
    let asked = [inside(), picture_loss(INSIDE_SSRC, AGENT), full_picture(INSIDE_SSRC, AGENT, 1)].concat();
    script.inward_rtcp(&picture_loss(BROWSER, OUTSIDE_SSRC), asked);
    let too_soon = script.sealed_rtcp(&full_picture(BROWSER, OUTSIDE_SSRC, 9));
    script.drops(paths().outside, too_soon, Reason::RateLimited);
    let lost = nack(BROWSER, OUTSIDE_SSRC, &[(OUTWARD_START, 1)]);
    script.inward_rtcp(&lost, [inside(), nack(INSIDE_SSRC, AGENT, &[(65_535, 1)])].concat());
    let lost = nack(BROWSER, OUTSIDE_SSRC, &[(OUTWARD_START + 2, 0), (OUTWARD_START - 200, 0)]);
    let nobody_has_it = script.sealed_rtcp(&lost);
    script.drops(paths().outside, nobody_has_it, Reason::RtcpEmpty);
    let outside = || head(OUTSIDE_SSRC, "22220002");
    let asked =
        [outside(), picture_loss(OUTSIDE_SSRC, BROWSER), full_picture(OUTSIDE_SSRC, BROWSER, 1)].concat();
    script.outward_rtcp(full_picture(AGENT, INSIDE_SSRC, 77), &asked);
    let lost = nack(AGENT, INSIDE_SSRC, &[(INWARD_START, 0)]);
    let whole = [receiver_report(AGENT, &[]), lost].concat();
    script.outward_rtcp(whole, &[outside(), nack(OUTSIDE_SSRC, BROWSER, &[(500, 0)])].concat());
    script.end()
}

fn reports_of_strangers() -> Case {
    let mut script =
        srtp("reports of another source, or of a former one, are not passed on", Profile::AeadAes128Gcm);
    script.case.timed = true;
    let rtcp = paths().rtcp;
    script.drops(rtcp, sender_report(AGENT, 9, &[]), Reason::RtcpSource);
    script.outward(&g711(AGENT, 7, 160), 0, 0, 160, 0);
    script.drops(rtcp, sender_report(AGENT + 1, 9, &[]), Reason::RtcpSource);
    script.outward(&g711(0x77, 50, 7160), 0, 1, 160 + 320, 0);
    script.drops(rtcp, sender_report(AGENT, 9, &[]), Reason::RtcpSource);
    // What the browser heard before the change is nothing that the new source sent.
    let old = Block { ssrc: OUTSIDE_SSRC, highest: u32::from(OUTWARD_START) };
    let new = Block { ssrc: OUTSIDE_SSRC, highest: u32::from(OUTWARD_START) + 1 };
    let tail = description(INSIDE_SSRC, "11110001");
    script
        .inward_rtcp(&receiver_report(1, &[old]), [receiver_report(INSIDE_SSRC, &[]), tail.clone()].concat());
    let back = Block { ssrc: 0x77, highest: 50 };
    script.inward_rtcp(&receiver_report(1, &[new]), [receiver_report(INSIDE_SSRC, &[back]), tail].concat());
    // Its timestamps are shifted by what its packets are shifted by: 480 - 7160.
    let report = counted(sender_report(OUTSIDE_SSRC, 480, &[]), 2);
    let to = [report, description(OUTSIDE_SSRC, "22220002")].concat();
    script.outward_rtcp(sender_report(0x77, 7160, &[]), &to);
    script.end()
}

fn broken_rtcp() -> Case {
    let mut script = srtp("broken RTCP dies", Profile::AeadAes128Gcm);
    let (outside, rtcp) = (paths().outside, paths().rtcp);
    let whole = sender_report(AGENT, 0, &[Block { ssrc: 1, highest: 2 }]);
    for cut in [2, 3, 4, 8, 27, 28, 51] {
        script.drops(rtcp, whole[..cut].to_vec(), Reason::Malformed);
    }
    let mut many = whole.clone();
    many[0] = 0x9f;
    script.drops(rtcp, many, Reason::Malformed);
    script.drops(rtcp, [whole.clone(), vec![0x80]].concat(), Reason::Malformed);
    script.drops(rtcp, [whole, vec![0x40, 201, 0, 0]].concat(), Reason::Malformed);
    script.drops(outside, vec![0x80, 200, 0, 6, 1, 2, 3, 4], Reason::Malformed);
    // Sealed well, broken within.
    let sealed = script.sealed_rtcp(&[0x82, 201, 0, 1, 0, 0, 0, 7]);
    script.drops(outside, sealed, Reason::Malformed);
    script.end()
}

fn ice(name: &'static str) -> Script {
    Script::new(name, plan_with_consent(GCM, paths()), GCM, paths())
}

fn checks() -> Case {
    let mut script = ice("checks of the pair are answered");
    let mapped = paths().outside.remote;
    script.replies(check().bytes(), answer(check().id, mapped, LOCAL_PWD));
    let nominating = Check { use_candidate: true, id: *b"transaction2", ..check() };
    script.replies(nominating.bytes(), answer(nominating.id, mapped, LOCAL_PWD));
    // Some leave FINGERPRINT out; on a pair that carries nothing else with the cookie there is no doubt.
    let bare = Check { fingerprint: false, id: *b"transaction3", ..check() };
    script.replies(bare.bytes(), answer(bare.id, mapped, LOCAL_PWD));
    let indication = Check { class: Class::Indication, username: None, password: None, ..check() };
    script.packet(paths().outside, indication.bytes(), Expect::Consumed, Moves::default());
    script.end()
}

fn checks_over_ipv6() -> Case {
    let mut script =
        Script::new("checks are answered over IPv6", plan_with_consent(GCM, paths6()), GCM, paths6());
    script.replies(check().bytes(), answer(check().id, paths6().outside.remote, LOCAL_PWD));
    script.end()
}

fn bad_checks() -> Case {
    let mut script = ice("checks without the password die");
    let outside = paths().outside;
    let guess = Check { password: Some("not-the-password-but-long".into()), ..check() };
    script.drops(outside, guess.bytes(), Reason::StunIntegrity);
    script.drops(outside, Check { password: None, ..check() }.bytes(), Reason::StunIntegrity);
    let whole = check().bytes();
    let mut crc = whole.clone();
    *crc.last_mut().unwrap() ^= 1;
    script.drops(outside, crc, Reason::Malformed);
    let mut method = Check { fingerprint: false, ..check() }.bytes();
    method[1] = 0x03;
    script.drops(outside, method, Reason::Malformed);
    script.drops(outside, whole[..whole.len() - 4].to_vec(), Reason::Malformed);
    script.drops(outside, whole[..10].to_vec(), Reason::Malformed);
    let mut attribute = whole;
    attribute[22..24].copy_from_slice(&[0xff, 0xf0]);
    script.drops(outside, attribute, Reason::Malformed);
    script.end()
}

/// What only the agent in control can judge.
fn foreign_checks() -> Case {
    let mut script = ice("checks of another generation and role conflicts go to control");
    let outside = paths().outside;
    for name in ["other:theirUfrag", "ourU:other", "ourU", "ourU:", "ourUtheirUfrag", ""] {
        script.punts(outside, Check { username: Some(name.into()), ..check() }.bytes());
    }
    script.punts(outside, Check { username: None, ..check() }.bytes());
    script.punts(outside, Check { role: stun::ICE_CONTROLLED, ..check() }.bytes());
    // Answers to checks that were not ours.
    script.punts(outside, answer(*b"never-sent-1", outside.local, world::REMOTE_PWD));
    script.punts(outside, Check { class: Class::Error, ..check() }.bytes());
    script.end()
}

fn strangers() -> Case {
    let mut script = ice("strangers reach control with STUN only, and not often");
    let stranger = stranger();
    let sealed = script.sealed(&g711(BROWSER, 1, 0));
    script.drops(stranger, sealed, Reason::UnknownFlow);
    script.drops(stranger, g711(BROWSER, 1, 0).bytes(), Reason::UnknownFlow);
    script.drops(stranger, vec![22, 0xfe, 0xfd, 0], Reason::UnknownFlow);
    script.drops(stranger, vec![0, 1, 0, 0], Reason::UnknownFlow);
    script.drops(stranger, vec![], Reason::UnknownFlow);
    script.punts(stranger, check().bytes());
    let inside = sallyport_plan::FlowKey { zone: sallyport_plan::Zone::Inside, ..stranger };
    script.drops(inside, check().bytes(), Reason::UnknownFlow);
    script.drops(inside, g711(AGENT, 1, 0).bytes(), Reason::UnknownFlow);
    script.end()
}
