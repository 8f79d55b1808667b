//! Frames through the kernel's own test run.

use std::thread::sleep;
use std::time::Duration;

use sallyport_abi::{Counter, FlowKey};

use crate::cases::{self, of};
use crate::frames::{rtp, stun, tagged, udp};
use crate::lab::Lab;
use crate::runner::{By, FLOWS, Fate, Runner};

/// Whether it is the key of an installed flow.
fn is(key: &FlowKey, flow: usize) -> bool {
    (key.local().to_string(), key.remote().to_string()) == (FLOWS[flow].1.into(), FLOWS[flow].2.into())
}

#[test]
fn every_frame_of_the_table_meets_its_fate() {
    let Some(lab) = Lab::quiet() else { return };
    let cases = cases::all();
    assert!(cases.len() >= 120, "{}", cases.len());
    lab.appliance(|| {
        let mut runner = Runner::new(&lab);
        runner.kernel.set_punt_rate(1000, 1000).unwrap();
        for case in &cases {
            let fate = runner.run(case.name, case.by, case.queue, &case.frame);
            assert_eq!(fate, case.fate, "{}", case.name);
        }
        // Those that need a state, a target or a driver: tests of their own, but for the driver without metadata, which is not
        // to be had here.
        let elsewhere = [
            "redirect_bare",
            "rewrite_rtp",
            "rewrite_rtcp",
            "drop_stale_flow",
            "drop_rate_limited",
            "drop_no_meta",
        ];
        assert_eq!(runner.unmoved(), elsewhere);
        runner.kernel.detach_all();
    });
}

/// Of a frame of which only the beginning came: too short to tell while addresses are missing, malformed behind.
#[test]
fn truncated_at_every_length() {
    let Some(lab) = Lab::quiet() else { return };
    lab.appliance(|| {
        let mut runner = Runner::new(&lab);
        for (flow, by, ip_header) in
            [(0, By::Outside, 20), (1, By::Outside, 40), (2, By::Inside, 20), (3, By::Inside, 40)]
        {
            for tag in [false, true] {
                let whole = of(flow, &crate::frames::rtp(20));
                let whole = if tag { tagged(whole, 0x8100, 7) } else { whole };
                let addresses = 14 + if tag { 4 } else { 0 } + ip_header;
                for length in 14..whole.len() {
                    let what = format!("flow {flow}, tag {tag}, {length} of {} octets", whole.len());
                    let wanted = match length < addresses {
                        true => Fate::Pass(Counter::PassNotIp),
                        false => Fate::Drop(Counter::DropMalformed),
                    };
                    assert_eq!(runner.run(&what, by, 0, &whole[..length]), wanted, "{what}");
                }
            }
        }
        runner.kernel.detach_all();
    });
}

#[test]
fn stun_of_one_source_is_limited_and_comes_back() {
    let Some(lab) = Lab::quiet() else { return };
    lab.appliance(|| {
        let mut runner = Runner::new(&lab);
        let sends = |runner: &mut Runner, from: &str, wanted: &[bool]| {
            let (by, to) = match from {
                from if from.starts_with("10.") => (By::Inside, "10.0.0.1:10001"),
                from if from.starts_with("[fd") => (By::Inside, "[fd00::1]:10001"),
                from if from.starts_with('[') => (By::Outside, "[2001:db8::1]:10000"),
                _ => (By::Outside, "192.0.2.1:10000"),
            };
            for (nth, admitted) in wanted.iter().enumerate() {
                let fate = runner.run(from, by, 0, &udp(from, to, &stun(1, 0)));
                let wanted = if *admitted { Fate::Punt } else { Fate::Drop(Counter::DropRateLimited) };
                assert_eq!(fate, wanted, "{from}, packet {nth}");
            }
        };
        // One a second: the tests below are over before a token comes back, but for the wait.
        runner.kernel.set_punt_rate(1, 3).unwrap();
        sends(&mut runner, "198.51.100.1:1", &[true, true, true, false, false]);
        sends(&mut runner, "198.51.100.1:2", &[false]);
        sends(&mut runner, "198.51.100.2:1", &[true, true, true, false]);
        sends(&mut runner, "[2001:db8:1:1::1]:1", &[true, true, true, false]);
        sends(&mut runner, "[2001:db8:1:1:ffff::2]:1", &[false]);
        sends(&mut runner, "[2001:db8:1:2::1]:1", &[true]);
        sends(&mut runner, "10.0.0.66:1", &[true, true, true, false]);
        sends(&mut runner, "[fd00:66::1]:1", &[true, true, true, false]);
        sleep(Duration::from_millis(1100));
        sends(&mut runner, "198.51.100.1:1", &[true, false]);
        sends(&mut runner, "[2001:db8:1:1:ffff::2]:1", &[true, false]);
        // A known flow has no limit, nor what is no STUN.
        for _ in 0..5 {
            assert_eq!(runner.run("known", By::Outside, 0, &of(0, &stun(1, 0))), Fate::Flow(0x0100_0002, 7));
        }
        runner.kernel.set_punt_rate(0, 50).unwrap();
        sends(&mut runner, "198.51.100.3:1", &[false]);
        runner.kernel.set_punt_rate(50, 0).unwrap();
        sends(&mut runner, "198.51.100.3:1", &[false]);
        runner.kernel.detach_all();
    });
}

/// Tokens come back at the rate, however the packets are spaced: none is lost to rounding.
#[test]
fn stun_passes_at_the_rate_that_is_set() {
    let Some(lab) = Lab::quiet() else { return };
    lab.appliance(|| {
        let mut runner = Runner::new(&lab);
        runner.kernel.set_punt_rate(100, 1).unwrap();
        let frame = udp("198.51.100.1:1", "192.0.2.1:10000", &stun(1, 0));
        let start = std::time::Instant::now();
        let mut passed = 0u32;
        while start.elapsed() < Duration::from_millis(500) {
            passed += u32::from(runner.run("stun", By::Outside, 0, &frame) == Fate::Punt);
            sleep(Duration::from_micros(700));
        }
        let most = start.elapsed().as_secs_f64() * 100.0 + 1.0;
        assert!(f64::from(passed) <= most && passed >= 25, "{passed} of {most}");
        runner.kernel.detach_all();
    });
}

/// A flood of STUN whose sources are made up meets a limit too.
#[test]
fn stun_of_all_sources_together_is_limited() {
    let Some(lab) = Lab::quiet() else { return };
    lab.appliance(|| {
        let mut runner = Runner::new(&lab);
        let start = std::time::Instant::now();
        let mut passed = 0u32;
        for nth in 0..4000u32 {
            let [_, _, high, low] = nth.to_be_bytes();
            let frame = udp(&format!("198.51.{high}.{low}:9"), "192.0.2.1:10000", &stun(1, 0));
            passed += u32::from(runner.run("flood", By::Outside, 0, &frame) == Fate::Punt);
        }
        let most = start.elapsed().as_secs_f64() * 5000.0 + 1000.0;
        assert!(f64::from(passed) <= most && passed >= 1000, "{passed} of {most}");
        runner.kernel.detach_all();
    });
}

#[test]
fn metadata_of_the_driver_is_never_taken_for_ours() {
    let Some(lab) = Lab::quiet() else { return };
    lab.appliance(|| {
        let mut runner = Runner::new(&lab);
        // Of the 256 octets in front the kernel keeps 40: with 204 of the driver there is no room for ours.
        for octets in [4, 16, 32, 64, 128, 200, 204, 216] {
            let what = format!("{octets} octets of the driver");
            let fate = runner.run_behind(&what, By::Outside, 0, &vec![0x11; octets], &of(0, b"rtp"));
            assert_eq!(fate, Fate::Drop(Counter::DropNoMeta), "{what}");
        }
        runner.kernel.detach_all();
    });
}

#[test]
fn a_flow_is_moved_removed_and_counted_anew() {
    let Some(lab) = Lab::quiet() else { return };
    lab.appliance(|| {
        let mut runner = Runner::new(&lab);
        let (key, _) = runner.kernel.flows()[0];
        let frame = udp(&key.remote().to_string(), &key.local().to_string(), b"twelve octet");
        let count = |runner: &Runner| {
            let (_, value) = runner.kernel.flows()[0];
            (value.packets, value.bytes)
        };
        for _ in 0..3 {
            runner.run("first", By::Outside, 0, &frame);
        }
        assert_eq!(count(&runner), (3, 36));
        runner.kernel.insert_flow(&key, 0x0300_0001, 2).unwrap();
        assert_eq!(count(&runner), (0, 0));
        assert_eq!(runner.run("moved", By::Outside, 0, &frame), Fate::Flow(0x0300_0001, 2));
        runner.kernel.remove_flow(&key).unwrap();
        assert_eq!(runner.run("removed", By::Outside, 0, &frame), Fate::Drop(Counter::DropUnknownFlow));
        assert!(runner.kernel.remove_flow(&key).is_err(), "removed twice");
        runner.kernel.clear_flows().unwrap();
        assert_eq!(runner.kernel.flows().len(), 0);
        runner.kernel.detach_all();
    });
}

/// Inside, remote port 0 in the map stands for every port of that address that has no flow of its own.
#[test]
fn what_comes_from_any_port_of_a_peer_that_may_move_is_the_worker_s() {
    let Some(lab) = Lab::quiet() else { return };
    lab.appliance(|| {
        let mut runner = Runner::new(&lab);
        let unknown = Fate::Drop(Counter::DropUnknownFlow);
        for (nth, flow) in [(0, 2), (1, 3)] {
            let (key, _) = runner.kernel.flows().into_iter().find(|(key, _)| is(key, flow)).unwrap();
            let any = FlowKey { remote_port: [0; 2], ..key };
            let from = |port: u16| {
                let mut remote = key.remote();
                remote.set_port(port);
                udp(&remote.to_string(), &key.local().to_string(), &rtp(160))
            };
            assert_eq!(runner.run("not yet", By::Inside, 0, &from(6000)), unknown);
            let (direction, epoch) = (0x0200_0010 + nth, 9);
            runner.kernel.insert_flow(&any, direction, epoch).unwrap();
            assert_eq!(runner.run("any", By::Inside, 0, &from(6000)), Fate::Flow(direction, epoch));
            assert_eq!(
                runner.run("its own", By::Inside, 0, &of(flow, &rtp(160))),
                Fate::Flow(FLOWS[flow].3, FLOWS[flow].4)
            );
            assert_eq!(runner.run("none", By::Inside, 0, &from(0)), Fate::Drop(Counter::DropSource));
            let stranger = if nth == 0 { "10.0.0.66:6000" } else { "[fd00:66::66]:6000" };
            let stranger = udp(stranger, &key.local().to_string(), &rtp(160));
            assert_eq!(runner.run("another address", By::Inside, 0, &stranger), unknown);
            let counted = runner.kernel.flow(&any).unwrap().unwrap();
            assert_eq!((counted.packets, counted.bytes), (1, 172));
            runner.kernel.remove_flow(&any).unwrap();
            assert_eq!(runner.run("no more", By::Inside, 0, &from(6000)), unknown);
            assert!(runner.kernel.flow(&any).unwrap().is_none());
        }
        // Browsers are found by ICE.
        let (key, _) = runner.kernel.flows().into_iter().find(|(key, _)| is(key, 0)).unwrap();
        runner.kernel.insert_flow(&FlowKey { remote_port: [0; 2], ..key }, 1, 1).unwrap();
        let mut remote = key.remote();
        remote.set_port(6000);
        let frame = udp(&remote.to_string(), &key.local().to_string(), &rtp(160));
        assert_eq!(runner.run("outside", By::Outside, 0, &frame), unknown);
        runner.kernel.detach_all();
    });
}
