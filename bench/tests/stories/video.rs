//! Calls with a picture: Chromium outside, a GStreamer phone inside.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use sallyport_lab::appliance::{Appliance, Setup, Way, programs};
use sallyport_lab::browser::{self, Browser, Call, FILM};
use sallyport_lab::film::Film;
use sallyport_lab::net::{AGENT, STUN};
use sallyport_lab::tone::{self, Expected, listen};
use sallyport_lab::{Lab, Options};

use crate::stage::{possible, until};

/// Red as GStreamer's source has it, and what an encoder may make of it.
fn is_red([red, green, blue]: [u8; 3]) -> bool {
    red > 180 && green < 70 && blue < 70
}

/// Chromium's test picture is mostly green.
fn is_green([red, green, blue]: [u8; 3]) -> bool {
    green > 80 && green > red.saturating_add(20) && green > blue.saturating_add(20)
}

fn talk(way: Way, lose: bool) {
    let lab = Lab::new(Options::default()).unwrap();
    let film = Film::start(&lab, AGENT.into(), lose).unwrap();
    let mut setup = Setup::new(programs().unwrap(), way);
    setup.server = SocketAddr::from((AGENT, 5060));
    let appliance = Appliance::start(&lab, &setup).unwrap();
    let browser = Browser::start_with(&lab, &browser::Setup::default(), FILM.into()).unwrap();
    browser.camera().unwrap();
    let call = Call {
        url: appliance.call_url("1000"),
        token: Some(appliance.token().into()),
        stun: Some(STUN.to_string()),
        trickle: true,
    };
    let answered = browser.call(&call).unwrap();
    assert!(answered.answer.contains("m=video 9 "), "{}", answered.answer);
    browser.wait_connected(Duration::from_secs(20)).unwrap();
    let connected = Instant::now();
    // The phone's first key frame left before the browser had keys: it has to be asked for another.
    until("a picture outside", Duration::from_secs(10), || browser.film().unwrap().decoded > 0);
    let outside = connected.elapsed();
    let first = film.wait_for("picture", Duration::from_secs(10)).unwrap();
    let inside = connected.elapsed();
    eprintln!("first picture after {outside:?} outside, {inside:?} inside");
    assert!(is_green(first.colour.unwrap()), "{first:?}");
    until("a red picture outside", Duration::from_secs(5), || is_red(browser.film().unwrap().colour));
    if lose {
        film.wait_for("lost", Duration::from_secs(1)).unwrap();
        assert!(browser.film().unwrap().was_asked > 0, "the lost key frame was asked for again");
    }
    both_run(&film, &browser);
    // Off and on again, while the sound goes on.
    browser.turn("inactive").unwrap();
    std::thread::sleep(Duration::from_secs(1));
    let before = browser.film().unwrap();
    std::thread::sleep(Duration::from_secs(1));
    let after = browser.film().unwrap();
    assert!(after.sent - before.sent < 5, "{before:?} {after:?}");
    browser.turn("sendrecv").unwrap();
    both_run(&film, &browser);
    let status = appliance.status().unwrap();
    for dropped in ["drop_malformed", "drop_no_room", "drop_bad_tag", "drop_stale_flow"] {
        assert_eq!(status.counter(dropped), 0, "{dropped}");
    }
    assert_eq!(browser.hang_up().unwrap(), 204);
    film.wait_for("over", Duration::from_secs(5)).unwrap();
}

/// A call of sound to which the browser adds its camera after three seconds.
fn adds_a_camera(way: Way) {
    let lab = Lab::new(Options::default()).unwrap();
    let film = Film::start(&lab, AGENT.into(), false).unwrap();
    let mut setup = Setup::new(programs().unwrap(), way);
    setup.server = SocketAddr::from((AGENT, 5060));
    let appliance = Appliance::start(&lab, &setup).unwrap();
    let browser = Browser::start_with(&lab, &browser::Setup::default(), FILM.into()).unwrap();
    let call = Call {
        url: appliance.call_url("1000"),
        token: Some(appliance.token().into()),
        stun: Some(STUN.to_string()),
        trickle: true,
    };
    let answered = browser.call(&call).unwrap();
    assert!(!answered.answer.contains("m=video"), "{}", answered.answer);
    browser.wait_connected(Duration::from_secs(20)).unwrap();
    std::thread::sleep(Duration::from_secs(3));
    let sounds = || {
        browser.record().unwrap();
        std::thread::sleep(Duration::from_secs(2));
        let expected = Expected { tone: tone::AGENT, other: tone::BROWSER, seconds: 1.5 };
        let heard = listen(&browser.recorded().unwrap(), expected);
        heard.judge(expected).unwrap_or_else(|fault| panic!("{fault}: {heard}"));
    };
    sounds();
    let answer = browser.add_camera().unwrap();
    assert!(answer.contains("m=video 9 ") && answer.contains("a=group:BUNDLE 0 1"), "{answer}");
    let added = Instant::now();
    film.wait_for("added", Duration::from_secs(1)).unwrap();
    let first = film.wait_for("picture", Duration::from_secs(10)).unwrap();
    assert!(is_green(first.colour.unwrap()), "{first:?}");
    until("a red picture outside", Duration::from_secs(10), || is_red(browser.film().unwrap().colour));
    eprintln!("pictures both ways {:?} after the answer", added.elapsed());
    both_run(&film, &browser);
    sounds();
    let status = appliance.status().unwrap();
    for dropped in ["drop_malformed", "drop_no_room", "drop_bad_tag", "drop_stale_flow", "continuity_broken"]
    {
        assert_eq!(status.counter(dropped), 0, "{dropped}");
    }
    assert_eq!(browser.hang_up().unwrap(), 204);
    film.wait_for("over", Duration::from_secs(5)).unwrap();
    until("nothing is left", Duration::from_secs(10), || appliance.status().unwrap().holds_nothing());
}

/// Both sides see at least ten pictures a second for two seconds.
fn both_run(film: &Film, browser: &Browser) {
    let seen = || film.told().iter().rev().find_map(|told| told.pictures).unwrap_or(0);
    until("pictures go on", Duration::from_secs(5), || {
        let (before, before_inside) = (browser.film().unwrap().decoded, seen());
        std::thread::sleep(Duration::from_secs(2));
        let (after, after_inside) = (browser.film().unwrap().decoded, seen());
        after - before >= 20 && after_inside - before_inside >= 20
    });
}

#[test]
fn a_picture_arrives_both_ways_by_native_xdp() {
    if possible() {
        talk(Way::Xdp, false);
    }
}

#[test]
fn a_lost_key_frame_is_asked_for_again_by_sockets() {
    if possible() {
        talk(Way::Socket, true);
    }
}

#[test]
fn a_camera_is_added_in_mid_call_by_native_xdp() {
    if possible() {
        adds_a_camera(Way::Xdp);
    }
}

#[test]
fn a_camera_is_added_in_mid_call_by_sockets() {
    if possible() {
        adds_a_camera(Way::Socket);
    }
}
