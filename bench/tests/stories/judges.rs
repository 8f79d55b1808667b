//! Short calls with every trouble at the wrap of the outgoing numbers, judged by SRTP that is not ours. Those of 70,000 packets
//! are `bench judge`'s. Stories play beside others on the same processors, so gaps are measured more generously here.

use sallyport_bench::judge::{Options, Who, play};
use sallyport_bench::path::PathChoice;

use crate::stage::possible;

const GAP_MS: u32 = 200;

fn judged(who: Who, path: PathChoice, turn: usize) {
    if !possible() {
        return;
    }
    if who == Who::Aiortc && sallyport_lab::aiortc::python().is_none() {
        eprintln!("SKIPPED: aiortc is not installed (.ci/aiortc)");
        assert!(std::env::var("CI").as_deref() != Ok("true"), "nothing is skipped in CI");
        return;
    }
    let options = Options { who, packets: 70_000, short: true, turn, path, gap: GAP_MS, json: None };
    let verdict = play(&options, &mut |text| println!("{text}")).unwrap();
    assert!(verdict.passed(), "{verdict}");
}

#[test]
fn aiortc_refuses_no_packet_whatever_happens_by_native_xdp() {
    judged(Who::Aiortc, PathChoice::Xdp, 0);
}

#[test]
fn aiortc_refuses_no_packet_whatever_happens_by_sockets() {
    judged(Who::Aiortc, PathChoice::Socket, 5);
}

#[test]
fn baresip_refuses_no_packet_whatever_happens_by_native_xdp() {
    judged(Who::Baresip, PathChoice::Xdp, 0);
}

#[test]
fn baresip_refuses_no_packet_whatever_happens_by_sockets() {
    judged(Who::Baresip, PathChoice::Socket, 3);
}

#[test]
fn chromium_refuses_no_packet_whatever_happens_by_native_xdp() {
    judged(Who::Chromium, PathChoice::Xdp, 2);
}
