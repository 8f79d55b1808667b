//! Sound and a picture under the signalling of somebody else, who speaks rtpengine's NG protocol.

use sallyport_plan::{DirectionIndex, Medium, Mute, Protection, Refusal};
use sallyport_proto::ng::Value;

use super::browser::{Browser, value};
use super::harness::until;
use super::ng::{Lab, inward, lab, outward, request, text, to};
use super::ng_told::at;

/// A browser's offer with a picture in the bundle.
fn with_film(offer: &str) -> String {
    offer.replace("BUNDLE 0", "BUNDLE 0 1")
        + "m=video 9 UDP/TLS/RTP/SAVPF 96 97\r\nc=IN IP4 0.0.0.0\r\na=mid:1\r\na=sendrecv\r\na=rtcp-mux\r\na=rtcp-rsize\r\n\
           a=rtpmap:96 VP8/90000\r\na=rtcp-fb:96 nack\r\na=rtcp-fb:96 nack pli\r\na=rtpmap:97 rtx/90000\r\na=fmtp:97 apt=96\r\n"
}

impl Lab {
    /// What a telephone with a picture says.
    fn film_phone(&self, port: u16) -> String {
        format!("{}m=video {} RTP/AVP 120\r\na=rtpmap:120 VP8/90000\r\n", self.phone(port), port + 10)
    }

    /// Who sends and who rests, by direction, once the plan is so.
    fn runs(&self, mutes: &[Mute]) {
        until("the plan runs", || {
            let state = self.relay.state();
            let plan = state.plans.values().next();
            plan.is_some_and(|plan| {
                let keyed = plan.directions.iter().all(|one| one.open.is_some() && one.seal.is_some());
                keyed && plan.directions.iter().map(|one| one.mute).eq(mutes.iter().copied())
            })
        });
    }
}

/// Members of a request of the called side.
fn swapped<'a>(sdp: &str, more: Vec<(&'a str, Value)>) -> Vec<(&'a str, Value)> {
    let mut members = more;
    members.extend([("from-tag", Value::text("two")), ("to-tag", Value::text("one"))]);
    members[0] = ("sdp", Value::text(sdp));
    members
}

#[test]
fn a_browser_calls_a_phone_with_a_picture_which_rests_and_comes_back() {
    let lab = lab("");
    let mut browser = Browser::new(&lab.relay, lab.browser(1));
    let offer = with_film(&browser.offer("actpass"));
    let inside = lab.sdp(&request("offer", "film", inward(&offer)));
    let ports = lab.relay.state().ports.values().next().unwrap().clone();
    assert_eq!(ports.len(), 2);
    assert!(inside.contains(&format!("m=video {} RTP/AVP 96\r\n", ports[1].rtp.port())), "{inside}");
    let answer = lab.sdp(&request("answer", "film", to("two", inward(&lab.film_phone(30_000)))));
    assert!(answer.contains("a=group:BUNDLE 0 1\r\n") && answer.contains("a=ssrc-group:FID "), "{answer}");
    let done = browser.connect(&answer);
    lab.runs(&[Mute::Open; 4]);
    {
        let state = lab.relay.state();
        let plan = state.plans.values().next().unwrap();
        let film = &plan.directions[2];
        assert_eq!((film.index, film.medium), (DirectionIndex(2), Medium::Video));
        assert_eq!(film.open, Some(Protection::Srtp(done.send)), "one association");
        assert_eq!((film.rtp.local, film.rtp.remote.port()), (ports[1].rtp, 30_010));
        assert_eq!(plan.directions[3].ingress[1].local, ports[1].rtcp);
    }
    told(&lab);
    let call = lab.control.ask("GET", "/v1/calls").json()[0]["id"].as_str().unwrap().to_owned();
    assert_eq!(
        lab.control.ask("GET", &format!("/v1/calls/{call}")).json()["legs"]["inside"]["video"],
        "VP8/90000"
    );
    // The phone drops its picture and takes it up again.
    let dropped = lab.film_phone(30_000).replace("m=video 30010", "m=video 0");
    let offered = lab.sdp(&request("offer", "film", swapped(&dropped, outward(""))));
    assert!(offered.contains("m=video 0 ") && offered.contains("a=group:BUNDLE 0\r\n"), "{offered}");
    let refused = with_film(&browser.offer("active")).replace("m=video 9", "m=video 0");
    lab.sdp(&request("answer", "film", swapped(&refused, inward(""))));
    lab.runs(&[Mute::Open, Mute::Open, Mute::Held, Mute::Held]);
    let offered = lab.sdp(&request("offer", "film", swapped(&lab.film_phone(30_000), outward(""))));
    assert!(offered.contains("UDP/TLS/RTP/SAVPF 96 97\r\n"), "under the browser's numbers: {offered}");
    lab.sdp(&request("answer", "film", swapped(&with_film(&browser.offer("active")), inward(""))));
    lab.runs(&[Mute::Open; 4]);
    assert_eq!(lab.relay.state().ports.values().next().unwrap().len(), 2, "no further ports");
    lab.ask(&request("delete", "film", vec![]));
    lab.is_clean();
}

/// What `query` tells of both sections of both sides.
fn told(lab: &Lab) {
    let query = lab.ask(&request("query", "film", vec![]));
    for (tag, protocol) in [("one", "UDP/TLS/RTP/SAVPF"), ("two", "RTP/AVP")] {
        for (place, kind) in [(0, "audio"), (1, "video")] {
            let medium = at(&query, &format!("tags/{tag}/medias/{place}"));
            assert_eq!(at(medium, "index"), &Value::Int(place + 1));
            assert_eq!((text(medium, "type"), text(medium, "protocol")), (kind, protocol));
        }
    }
    let port = |path: &str| at(&query, path).clone();
    assert_eq!(port("tags/two/medias/0/streams/0/endpoint/port"), Value::Int(30_000));
    assert_eq!(port("tags/two/medias/1/streams/0/endpoint/port"), Value::Int(30_010));
    let local = port("tags/one/medias/0/streams/0/local port");
    assert_eq!(port("tags/one/medias/1/streams/0/local port"), local, "one path outside");
}

#[test]
fn a_picture_is_added_in_mid_call_where_there_are_ports_and_a_new_control_goes_on() {
    let mut lab = lab("");
    let mut browser = Browser::called(&lab.relay, lab.browser(1));
    let offer = lab.sdp(&request("offer", "added", outward(&lab.phone(30_000))));
    lab.sdp(&request(
        "answer",
        "added",
        to("two", inward(&browser.offer("active").replace("111 0 8 110 126", "8 126"))),
    ));
    browser.connect(&offer);
    lab.runs(&[Mute::Open; 2]);
    lab.relay.state().refuse_reserve = Some(Refusal::NoPorts);
    let without = lab.sdp(&request("offer", "added", to("two", outward(&lab.film_phone(30_000)))));
    assert!(without.contains("m=video 0 "), "{without}");
    lab.sdp(&request(
        "answer",
        "added",
        to("two", inward(&browser.offer("active").replace("111 0 8 110 126", "8 126"))),
    ));
    lab.runs(&[Mute::Open; 2]);
    lab.relay.state().refuse_reserve = None;
    let with = lab.sdp(&request("offer", "added", to("two", outward(&lab.film_phone(30_000)))));
    assert!(with.contains("a=group:BUNDLE 0 1\r\n") && with.contains(" UDP/TLS/RTP/SAVPF 120\r\n"), "{with}");
    let taken = with_film(&browser.offer("active").replace("111 0 8 110 126", "8 126"));
    let taken = taken
        .replace("96 97", "120")
        .replace(":96 ", ":120 ")
        .replace("a=rtpmap:97 rtx/90000\r\na=fmtp:97 apt=96\r\n", "");
    let inside = lab.sdp(&request("answer", "added", to("two", inward(&taken))));
    assert_eq!(value(&inside[inside.find("m=video").unwrap()..], "m=video ").split(' ').nth(2), Some("120"));
    lab.runs(&[Mute::Open; 4]);
    lab.control.restart();
    lab.control.wait_until_ready();
    let hold = lab.film_phone(30_000) + "a=inactive\r\n";
    lab.sdp(&request("offer", "added", to("two", outward(&hold))));
    lab.sdp(&request(
        "answer",
        "added",
        to("two", inward(&(taken + "a=inactive\r\n").replace("a=mid:1\r\na=sendrecv", "a=mid:1"))),
    ));
    lab.runs(&[Mute::Open, Mute::Open, Mute::Held, Mute::Held]);
    lab.ask(&request("delete", "added", vec![]));
    lab.is_clean();
}
