//! Calls with a picture: Chromium outside, a GStreamer phone inside.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use sallyport_lab::appliance::{Appliance, Setup, Way, programs};
use sallyport_lab::browser::{self, Answered, Browser, Call, FILM};
use sallyport_lab::film::{Codec, Film, Kind};
use sallyport_lab::net::{AGENT, Place, STUN};
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

/// An appliance between a browser and a phone with a picture.
struct World {
    lab: Lab,
    film: Film,
    appliance: Appliance,
    browser: Browser,
}

impl World {
    fn new(way: Way, kind: Kind, more: toml::Table) -> Self {
        let lab = Lab::new(Options::default()).unwrap();
        let film = Film::start(&lab, AGENT.into(), kind).unwrap();
        let mut setup = Setup::new(programs().unwrap(), way);
        (setup.server, setup.more) = (SocketAddr::from((AGENT, 5060)), more);
        let appliance = Appliance::start(&lab, &setup).unwrap();
        let browser = Browser::start_with(&lab, &browser::Setup::default(), FILM.into()).unwrap();
        Self { lab, film, appliance, browser }
    }

    fn call(&self) -> Answered {
        let answered = self.browser.call(&Call {
            url: self.appliance.call_url("1000"),
            token: Some(self.appliance.token().into()),
            stun: Some(STUN.to_string()),
            trickle: true,
        });
        answered.unwrap()
    }
}

/// A call with a picture that both sides see.
pub struct Seen {
    pub lab: Lab,
    pub film: Film,
    pub appliance: Appliance,
    pub browser: Browser,
    answer: String,
}

pub fn seen(way: Way, lose: bool) -> Seen {
    seen_by(way, Kind { lose, ..Kind::default() }, toml::Table::new())
}

fn seen_by(way: Way, kind: Kind, more: toml::Table) -> Seen {
    let lose = kind.lose;
    let world = World::new(way, kind, more);
    world.browser.camera().unwrap();
    let answered = world.call();
    let World { lab, film, appliance, browser } = world;
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
    Seen { lab, film, appliance, browser, answer: answered.answer }
}

fn talk(way: Way, lose: bool) {
    let Seen { lab: _lab, film, appliance, browser, .. } = seen(way, lose);
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

impl Seen {
    /// Has a tenth of the packets of the picture lost, retransmissions among them, where they pass the customer's router.
    /// `way`: `iifname` from the browser, `oifname` toward it.
    pub fn lose(&self, way: &str) {
        let type_of = |what: &str| -> u8 {
            let line = self.answer.lines().find(|line| line.starts_with("a=rtpmap:") && line.ends_with(what));
            let (number, _) = line.unwrap()["a=rtpmap:".len()..].split_once(' ').unwrap();
            number.parse().unwrap()
        };
        let (vp8, rtx) = (type_of(" VP8/90000"), type_of(" rtx/90000"));
        // The second octet of an RTP packet: marker and payload type.
        let types = [vp8, vp8 | 0x80, rtx, rtx | 0x80].map(|octet| octet.to_string()).join(", ");
        let rules = format!(
            "add table ip loss\nadd chain ip loss lossy {{ type filter hook forward priority -10; }}\n\
             add rule ip loss lossy {way} \"lan0\" udp length > 30 @th,72,8 {{ {types} }} numgen random mod 10 < 1 drop\n"
        );
        self.lab.namespace(Place::Nat).nft(&rules).unwrap();
    }
}

/// A tenth of the packets of the picture is lost toward the browser for ten seconds.
fn lose_toward_the_browser(way: Way) {
    let seen = seen(way, false);
    let before = seen.browser.film().unwrap();
    seen.lose("oifname");
    let Seen { lab: _lab, film, appliance, browser, .. } = seen;
    let begin = Instant::now();
    std::thread::sleep(Duration::from_secs(10));
    let after = browser.film().unwrap();
    let (pictures, seconds) = (after.decoded - before.decoded, begin.elapsed().as_secs_f64());
    eprintln!("{pictures} pictures in {seconds:.1} s, {before:?} {after:?}");
    assert!(after.nacked > before.nacked && after.repeated > before.repeated + 5, "{before:?} {after:?}");
    assert_eq!(after.asked, before.asked, "no key frame had to be asked for");
    // Of fifteen a second; a machine that has much else to do shows fewer.
    assert!(pictures as f64 > 10.0 * seconds, "the picture went on: {pictures} in {seconds} s");
    let status = appliance.status().unwrap();
    // Status may be a moment older than what the browser says.
    assert!(status.counter("nack_answered") > 5);
    assert_eq!(status.counter("nack_forwarded"), 0, "the phone was not asked for what is here");
    for never in ["drop_index_reuse", "drop_bad_tag", "continuity_broken"] {
        assert_eq!(status.counter(never), 0, "{never}");
    }
    assert_eq!(browser.hang_up().unwrap(), 204);
    film.wait_for("over", Duration::from_secs(5)).unwrap();
}

/// A call of sound to which the browser adds its camera after three seconds.
fn adds_a_camera(way: Way) {
    let world = World::new(way, Kind::default(), toml::Table::new());
    let answered = world.call();
    let World { lab: _lab, film, appliance, browser } = world;
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
    assert!(
        answer.contains("transport-wide-cc-extensions-01\r\n") && answer.contains("sdes:mid\r\n"),
        "{answer}"
    );
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

/// Chromium begins at 300 kbit/s; where nobody tells it what arrives it adds 8 % a second at the most, as reports show no loss.
#[test]
fn a_browser_that_is_told_what_arrives_sends_better_pictures() {
    if !possible() {
        return;
    }
    let level = toml::toml! {
        [sip]
        audio_level = true
    };
    let world = World::new(Way::Xdp, Kind::default(), level);
    world.browser.camera_of(640, 480, 30).unwrap();
    let answered = world.call();
    let World { lab: _lab, film, appliance, browser } = world;
    for line in
        ["transport-wide-cc-extensions-01\r\n", "sdes:mid\r\n", " transport-cc\r\n", "ssrc-audio-level\r\n"]
    {
        assert!(answered.answer.contains(line), "{line}: {}", answered.answer);
    }
    browser.wait_connected(Duration::from_secs(20)).unwrap();
    let connected = Instant::now();
    let mut best = 0.0_f64;
    until("more than three times what Chromium begins with", Duration::from_secs(10), || {
        let film = browser.film().unwrap();
        best = best.max(film.target_bitrate.unwrap_or(0.0));
        std::thread::sleep(Duration::from_millis(200));
        best > 1e6 && film.available_bitrate.is_some_and(|available| available > 1e6)
    });
    eprintln!("{best} bit/s are aimed at after {:?}", connected.elapsed());
    let (before, begin) = (browser.film().unwrap().sent_octets, Instant::now());
    both_run(&film, &browser);
    let sent = (browser.film().unwrap().sent_octets - before) as f64 * 8.0 / begin.elapsed().as_secs_f64();
    eprintln!("{sent:.0} bit/s are sent");
    let level = film.wait_for("level", Duration::from_secs(5)).unwrap().level.unwrap();
    assert!((1..60).contains(&level), "a tone is {level} dB below the loudest");
    let status = appliance.status().unwrap();
    for dropped in
        ["drop_malformed", "drop_no_room", "drop_bad_tag", "extension_malformed", "continuity_broken"]
    {
        assert_eq!(status.counter(dropped), 0, "{dropped}");
    }
    assert!(status.counter("feedback_rtcp") > 15);
    assert_eq!(browser.hang_up().unwrap(), 204);
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

/// The whole course with another phone; our answer to the browser.
fn passes(way: Way, kind: Kind, more: toml::Table) -> String {
    let Seen { lab: _lab, film, appliance, browser, answer } = seen_by(way, kind, more);
    let status = appliance.status().unwrap();
    for never in ["drop_malformed", "drop_bad_tag", "drop_index_reuse", "drop_no_codec", "continuity_broken"]
    {
        assert_eq!(status.counter(never), 0, "{never}");
    }
    // A key frame is to be had at any time, on either side.
    let asked = film.told().iter().filter(|told| told.what == "key").count();
    browser.turn("inactive").unwrap();
    std::thread::sleep(Duration::from_secs(1));
    browser.turn("sendrecv").unwrap();
    both_run(&film, &browser);
    eprintln!("asked for a key frame {asked} times at first, {:?}", browser.film().unwrap());
    assert_eq!(browser.hang_up().unwrap(), 204);
    film.wait_for("over", Duration::from_secs(5)).unwrap();
    until("nothing is left", Duration::from_secs(10), || appliance.status().unwrap().holds_nothing());
    answer
}

/// Sound by AES_CM_128_HMAC_SHA1_80, picture by AEAD_AES_128_GCM, as the phone chooses of what it is offered in each section.
#[test]
fn a_picture_is_encrypted_inside_under_keys_of_its_own_by_native_xdp() {
    if possible() {
        let required = toml::toml! {
            [inside]
            srtp = "required"
        };
        passes(Way::Xdp, Kind { srtp: true, ..Kind::default() }, required);
    }
}

#[test]
fn a_picture_is_encrypted_inside_under_keys_of_its_own_by_sockets() {
    if possible() {
        let optional = toml::toml! {
            [inside]
            srtp = "optional"
        };
        passes(Way::Socket, Kind { srtp: true, ..Kind::default() }, optional);
    }
}

#[test]
fn a_phone_that_speaks_h264_is_seen_and_sees() {
    if possible() {
        let answer = passes(Way::Xdp, Kind { codec: Codec::H264, ..Kind::default() }, toml::Table::new());
        assert!(answer.contains(" H264/90000\r\n") && !answer.contains(" VP8/90000\r\n"), "{answer}");
    }
}

#[test]
fn a_phone_that_speaks_vp9_is_seen_and_sees() {
    if possible() {
        let answer = passes(Way::Xdp, Kind { codec: Codec::Vp9, ..Kind::default() }, toml::Table::new());
        assert!(answer.contains(" VP9/90000\r\n") && !answer.contains(" VP8/90000\r\n"), "{answer}");
    }
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
fn what_is_lost_toward_the_browser_is_sent_again_by_native_xdp() {
    if possible() {
        lose_toward_the_browser(Way::Xdp);
    }
}

#[test]
fn a_camera_is_added_in_mid_call_by_native_xdp() {
    if possible() {
        adds_a_camera(Way::Xdp);
    }
}

#[test]
fn what_is_lost_toward_the_browser_is_sent_again_by_sockets() {
    if possible() {
        lose_toward_the_browser(Way::Socket);
    }
}

#[test]
fn a_camera_is_added_in_mid_call_by_sockets() {
    if possible() {
        adds_a_camera(Way::Socket);
    }
}
