//! Control dies in mid-call, and a new one takes over.

use std::net::SocketAddr;
use std::thread;
use std::time::{Duration, SystemTime};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use sallyport_bench::scene::Scene;
use sallyport_lab::appliance::{MEDIA_PORT, Way};
use sallyport_lab::capture::{Span, follow};
use sallyport_lab::net::{INSIDE, OUTSIDE};
use sallyport_lab::tone::{self, Expected, listen};
use serde_json::Value;

use crate::stage::{maps, possible, until};

/// How long the call goes on without control.
const ALONE: Duration = Duration::from_secs(60);

#[test]
fn a_call_outlives_control_by_a_minute_and_the_next_control_hangs_it_up() {
    if !possible() {
        return;
    }
    let scene = Scene::set_with(Way::Xdp, &mut |_| (), |setup| {
        setup.more = toml::toml! {
            [supervisor]
            restart_delay_ms = 70000
        };
    })
    .unwrap();
    let (answered, _) = scene.call().unwrap();
    let name = answered.location.rsplit('/').next().unwrap().to_owned();
    thread::sleep(Duration::from_secs(2));
    let before = scene.snapshot().unwrap();

    let control = scene.appliance.pid("sallyport-control").unwrap();
    let relay = scene.appliance.pid("sallyport-relay").unwrap();
    kill(Pid::from_raw(control), Signal::SIGKILL).unwrap();
    scene.browser.record().unwrap();
    let begin = SystemTime::now();
    thread::sleep(ALONE);
    let span = Span::between(begin, SystemTime::now());
    assert!(scene.appliance.pid("sallyport-control").is_err(), "control is still dead");
    let by_browser = scene.browser.recorded().unwrap();

    // The maps are read with control dead.
    let flows = maps(&scene.appliance, "flows");
    let zones: Vec<&str> = flows.iter().map(|flow| flow["zone"].as_str().unwrap()).collect();
    // Inside RTP and RTCP, each from its port and from any.
    assert_eq!(zones, ["outside", "inside", "inside", "inside", "inside"], "{flows:?}");
    let busy = flows.iter().filter(|flow| flow["packets"].as_u64().unwrap() > 3000).count();
    assert_eq!(busy, 2, "{flows:?}");

    // A new control, ten seconds later as configured, lists the call and hangs it up.
    let list = || -> Option<Value> { serde_json::from_str(&scene.appliance.get("/v1/calls").ok()?).ok() };
    until("a new control lists the call", Duration::from_secs(30), || {
        list().is_some_and(|calls| calls[0]["id"] == name.as_str())
    });
    let after = scene.snapshot().unwrap();
    assert_eq!(scene.appliance.pid("sallyport-relay").unwrap(), relay, "one relay all the time");
    let drops: Vec<_> = crate::stage::grown(&before.status, &after.status)
        .into_iter()
        .filter(|(name, _)| name.starts_with("drop_"))
        .collect();
    assert_eq!(drops, [], "the relay lost nothing");
    assert_eq!(scene.browser.hang_up().unwrap(), 204);
    scene.agent.process().wait_for_words("terminated", Duration::from_secs(5)).unwrap();
    until("everything is released", Duration::from_secs(5), || {
        scene.appliance.status().unwrap().holds_nothing()
    });

    // Audio both ways for the whole minute.
    let expected = |tone, other| Expected { tone, other, seconds: 55.0 };
    let by_browser_expected = expected(tone::AGENT, tone::BROWSER);
    let heard = listen(&by_browser, by_browser_expected);
    assert_eq!(heard.judge(by_browser_expected), Ok(()), "{heard:?}");
    let by_agent_expected = expected(tone::BROWSER, tone::AGENT);
    let heard = listen(&scene.agent.heard().unwrap(), by_agent_expected);
    assert_eq!(heard.judge(by_agent_expected), Ok(()), "{heard:?}");
    let (outside, inside) = (scene.outside.so_far().unwrap(), scene.inside.so_far().unwrap());
    let media = SocketAddr::from((OUTSIDE, MEDIA_PORT));
    let any = SocketAddr::from((INSIDE, 0));
    let inward = follow(&outside, media, &inside, any, span).unwrap();
    let outward = follow(&inside, any, &outside, media, span).unwrap();
    assert!(inward.sent > 2900 && outward.sent > 2900, "{} and {}", inward.sent, outward.sent);
    assert_eq!((inward.lost(), outward.lost()), (0, 0));
}
