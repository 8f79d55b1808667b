//! A telephone changes its SRTP key by one re-INVITE after the other: no packet is lost, either way.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use sallyport_lab::appliance::{Appliance, Setup, Way, programs};
use sallyport_lab::caller::Caller;
use sallyport_lab::net::{AGENT, BROWSER};
use sallyport_lab::secret::Secret;
use sallyport_lab::sipp::{self, Scenario, Sipp, Sound};
use sallyport_lab::{Lab, Options, Place};

use crate::stage::{possible, until};

const PATIENCE: Duration = Duration::from_secs(20);
/// What the telephone seals with: first and then by each of its offers.
const KEYS: [&str; 5] = [
    "2 AES_CM_128_HMAC_SHA1_80 inline:d0RmdmcmVCspeEc3QGZiNWpVLFJhQX1cfHAwJSoj",
    "2 AES_CM_128_HMAC_SHA1_80 inline:AAAAdmcmVCspeEc3QGZiNWpVLFJhQX1cfHAwJSoj",
    "2 AES_CM_128_HMAC_SHA1_80 inline:BBBBdmcmVCspeEc3QGZiNWpVLFJhQX1cfHAwJSoj",
    "2 AES_CM_128_HMAC_SHA1_80 inline:CCCCdmcmVCspeEc3QGZiNWpVLFJhQX1cfHAwJSoj",
    "2 AES_CM_128_HMAC_SHA1_80 inline:DDDDdmcmVCspeEc3QGZiNWpVLFJhQX1cfHAwJSoj",
];
/// Between two offers.
const APART: Duration = Duration::from_millis(1500);

fn keys_change(way: Way) {
    if !possible() {
        return;
    }
    let lab = Lab::new(Options::default()).unwrap();
    let at = |port| SocketAddr::new(IpAddr::V4(AGENT), port);
    let sound = |key| Sound { crypto: Some(key), ..Sound::at(at(30_400)) };
    let scenario =
        Scenario::called().answer("200 OK", Some(sound(KEYS[0]))).expect("ACK", None).pause(2 * APART);
    let scenario =
        KEYS[1..].iter().fold(scenario, |scenario, key| scenario.reinvite(sound(key)).pause(APART));
    let phone =
        sipp::Setup { name: "secret", at: at(5060), scenario: scenario.hung_up(), calls: 1, target: None };
    let phone = Arc::new(Sipp::start(&lab, &phone).unwrap());
    let read = phone.clone();
    let media =
        Secret::start(&lab.namespace(Place::Enterprise), at(30_400), &KEYS, move || read.said()).unwrap();
    let mut setup = Setup::new(programs().unwrap(), way);
    setup.server = at(5060);
    setup.more = toml::toml! {
        [inside]
        srtp = "required"
        [sip]
        probe_s = 0
    };
    let appliance = Appliance::start(&lab, &setup).unwrap();
    let mut browser = Caller::new(&lab, Place::Browser, IpAddr::V4(BROWSER)).unwrap();
    let placed = browser.call(&appliance, "1000").unwrap();
    let mut outside = browser.connect(&placed.answer, PATIENCE).unwrap();
    let talk = browser.talk(&mut outside, 500).unwrap();
    let inside = media.stop().unwrap();
    std::thread::sleep(Duration::from_millis(1100));
    let status = appliance.status().unwrap();
    assert_eq!(browser.hang_up(&appliance, &placed).unwrap(), 204);
    phone.finish(PATIENCE).unwrap();
    let drops: Vec<_> =
        status.counters().into_iter().filter(|(name, n)| name.starts_with("drop_") && *n > 0).collect();
    eprintln!("browser: {talk:?}, telephone: {inside:?}, {drops:?}");
    assert_eq!(status.counter("drop_bad_tag"), 0, "{drops:?}");
    assert_eq!((talk.broken, inside.broken), (0, 0));
    assert_eq!(inside.keys, 5, "each of our keys was used");
    // Of what was under way as either side began or ended some may be missing.
    assert!(talk.heard + 25 > inside.sent && talk.heard > 400, "{talk:?} {inside:?}");
    assert!(inside.heard + 25 > talk.sent, "{talk:?} {inside:?}");
    until("nothing is held", PATIENCE, || appliance.status().unwrap().holds_nothing());
}

#[test]
fn a_telephone_changes_its_key_without_a_lost_packet_by_native_xdp() {
    keys_change(Way::Xdp);
}

#[test]
fn a_telephone_changes_its_key_without_a_lost_packet_by_sockets() {
    keys_change(Way::Socket);
}
