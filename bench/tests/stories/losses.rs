//! What gets lost of a browser's picture on its way to us.

use std::time::{Duration, Instant};

use sallyport_lab::appliance::Way;

use crate::stage::possible;
use crate::video::{Seen, seen};

/// A tenth of the packets of the browser's picture is lost for ten seconds; the phone inside knows no NACK.
fn lose_of_the_browser(way: Way) {
    let seen = seen(way, false);
    let before = seen.browser.film().unwrap();
    seen.lose("iifname");
    let Seen { lab: _lab, film, appliance, browser, .. } = seen;
    let pictures = || film.told().iter().rev().find_map(|told| told.pictures).unwrap_or(0);
    let (first, begin) = (pictures(), Instant::now());
    std::thread::sleep(Duration::from_secs(10));
    let (shown, seconds) = (pictures() - first, begin.elapsed().as_secs_f64());
    let after = browser.film().unwrap();
    eprintln!("{shown} pictures in {seconds:.1} s, {before:?} {after:?}");
    assert!(after.sent_again > before.sent_again + 5, "{before:?} {after:?}");
    // Some come too late for the phone, which waits 40 ms, the more where the machine is busy. Where nobody asked again it would
    // be one in half a second: twenty.
    let asked = after.was_asked - before.was_asked;
    assert!(asked <= 10, "{asked} key frames were asked for");
    // Of fifteen a second at the least; a machine that has much else to do shows fewer.
    assert!(shown as f64 > 10.0 * seconds, "the picture went on: {shown} in {seconds} s");
    let status = appliance.status().unwrap();
    assert!(status.counter("nack_asked") > 5);
    assert!(status.counter("rtx_recovered") > 5);
    for never in ["drop_index_reuse", "drop_bad_tag", "continuity_broken"] {
        assert_eq!(status.counter(never), 0, "{never}");
    }
    assert_eq!(browser.hang_up().unwrap(), 204);
    film.wait_for("over", Duration::from_secs(5)).unwrap();
}

#[test]
fn what_is_lost_of_the_browser_s_picture_is_asked_for_by_native_xdp() {
    if possible() {
        lose_of_the_browser(Way::Xdp);
    }
}

#[test]
fn what_is_lost_of_the_browser_s_picture_is_asked_for_by_sockets() {
    if possible() {
        lose_of_the_browser(Way::Socket);
    }
}
