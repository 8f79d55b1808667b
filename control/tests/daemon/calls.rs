//! Calls from the offer to the last BYE.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use sallyport_plan::{Profile, Protection, Refusal, Zone};

use super::browser::{Browser, value};
use super::harness::{Control, Net, TOKEN, head, until};
use super::lifecycle::connected;
use super::pbx::{Pbx, line};
use super::relay::Relay;

struct Lab {
    control: Control,
    relay: Relay,
    pbx: Pbx,
}

fn lab(sections: &[(&str, &str)]) -> Lab {
    let net = Net::new();
    let pbx = Pbx::start(net.pbx());
    let control = Control::start(net, sections);
    let relay = Relay::start(&control.socket(), &control.net);
    control.wait_until_ready();
    Lab { control, relay, pbx }
}

impl Lab {
    fn browser(&self, number: u16) -> Browser {
        Browser::new(&self.relay, self.control.net.browser(number))
    }

    /// Nothing is left anywhere.
    fn is_clean(&self) {
        self.control.wait_until_idle();
        self.relay.wait_until_empty();
        until("no dialog is left", || self.pbx.state().talking.is_empty());
    }

    /// A call that fails by what `to` or the lab does: HTTP status, problem type, SIP status.
    fn failure(&self, to: &str) -> (u16, String, Option<u64>) {
        let answer = self.control.call(to, &self.browser(1).offer("actpass"));
        let problem = answer.problem();
        (answer.status, problem["type"].as_str().unwrap().to_owned(), problem["sip_status"].as_u64())
    }
}

/// Keys of the plan that runs: what we open from outside, and what we seal toward it.
fn outside_keys(relay: &Relay) -> (Protection, Protection) {
    let state = relay.state();
    let plan = state.plans.values().next().unwrap();
    let from =
        |zone| plan.directions.iter().find(move |direction| direction.ingress[0].zone == zone).unwrap();
    (from(Zone::Outside).open.clone().unwrap(), from(Zone::Inside).seal.clone().unwrap())
}

#[test]
fn a_call_is_set_up_in_both_roles_of_dtls_and_its_keys_reach_the_relay() {
    for (setup, transport) in [("actpass", "udp"), ("active", "tcp"), ("passive", "udp")] {
        let line = format!("transport = '{transport}'");
        let lab = lab(&[("sip", &line)]);
        let mut browser = lab.browser(1);
        let created = lab.control.call("1000", &browser.offer(setup));
        assert_eq!(created.status, 201, "{}", created.text());
        assert_eq!(created.header("content-type"), "application/sdp");
        assert!(!created.header("etag").is_empty());
        let path = created.header("location").to_owned();
        assert_eq!(path.strip_prefix("/v1/calls/").map(str::len), Some(32));
        let answer = created.text();
        let expected = match setup {
            "passive" => "active",
            _ => "passive",
        };
        assert_eq!(value(&answer, "a=setup:"), expected, "{setup}");
        let done = browser.connect(&answer);
        until("the call is connected", || lab.control.ask("GET", &path).json()["state"] == "connected");
        let (open, seal) = outside_keys(&lab.relay);
        assert!(
            open == Protection::Srtp(done.send) && seal == Protection::Srtp(done.receive),
            "the same keys"
        );
        if expected == "passive" {
            assert_eq!(done.profile, Profile::AeadAes128Gcm, "as the server we choose");
        }
        let shown = lab.control.ask("GET", &path).json();
        assert_eq!(
            (&shown["legs"]["outside"]["ice"], &shown["legs"]["outside"]["dtls"]),
            (&"connected".into(), &"connected".into())
        );
        assert_eq!(shown["legs"]["outside"]["profile"], done.profile.name());
        assert_eq!(shown["legs"]["inside"]["sip_status"], 200);
        assert_eq!(shown["media"]["directions"].as_array().unwrap().len(), 2, "{shown}");
        assert_eq!(shown["media"]["directions"][0]["drops"]["drop_replay"], 3);
        for direction in shown["media"]["directions"].as_array().unwrap() {
            let quality = &direction["quality"];
            // The lab's relay says so, and of G.711 without loss the E-model 93.2.
            assert_eq!(
                ["received", "loss_percent", "jitter_ms", "round_trip_ms", "mos"]
                    .map(|name| quality[name].as_f64()),
                [99.0, 0.0, 4.0, 30.0, 4.41].map(Some),
                "{quality}"
            );
            assert_eq!(
                (&quality["stay"]["p99_us"], &quality["reported"]),
                (&8.into(), &serde_json::Value::Null)
            );
        }
        assert!(!shown.to_string().contains("127."), "no address in the view of a call");
        assert_eq!(lab.control.ask("DELETE", &path).status, 204);
        assert!(browser.hears_a_record(), "the browser is told by close_notify");
        lab.is_clean();
        assert_eq!(lab.control.ask("DELETE", &path).status, 404);
        assert_eq!(lab.pbx.heard("ACK").len(), 1);
        assert!(!lab.control.log().contains(TOKEN));
    }
}

#[test]
fn media_waits_for_the_fingerprint() {
    let lab = lab(&[]);
    let mut browser = lab.browser(1);
    let offer = browser.offer("actpass");
    let fingerprint = value(&offer, "a=fingerprint:sha-256 ").to_owned();
    let other: String = fingerprint.chars().rev().collect();
    let created = lab.control.call("1000", &offer.replace(&fingerprint, &other));
    assert_eq!(created.status, 201);
    browser.connect(&created.text());
    lab.is_clean();
    let sealed = |plan: &sallyport_plan::Plan| {
        plan.directions.iter().any(|direction| matches!(direction.seal, Some(Protection::Srtp(_))))
    };
    assert!(!lab.relay.state().installed.iter().any(sealed), "no key of a stranger reaches the relay");
    let metrics = lab.control.send("GET", "/metrics", &[], b"").text();
    assert!(metrics.contains("fingerprint_mismatch"), "{metrics}");
}

#[test]
fn dtls_survives_swapped_doubled_and_lost_datagrams() {
    type Carry = fn(usize, Vec<Vec<u8>>) -> Vec<Vec<u8>>;
    let swapped: Carry = |_, datagrams| datagrams.into_iter().rev().collect();
    let doubled: Carry =
        |_, datagrams| datagrams.into_iter().flat_map(|datagram| [datagram.clone(), datagram]).collect();
    let lossy: Carry = |round, datagrams| if round % 3 == 0 { Vec::new() } else { datagrams };
    for carry in [swapped, doubled, lossy] {
        for setup in ["actpass", "passive"] {
            let lab = lab(&[]);
            let mut browser = lab.browser(1);
            let created = lab.control.call("1000", &browser.offer(setup));
            let done = browser.connect_through(&created.text(), carry);
            let path = created.header("location");
            until("the call is connected", || lab.control.ask("GET", path).json()["state"] == "connected");
            let (open, _) = outside_keys(&lab.relay);
            assert!(open == Protection::Srtp(done.send));
            assert_eq!(lab.control.ask("DELETE", path).status, 204);
            lab.is_clean();
        }
    }
}

#[test]
fn candidates_may_trickle() {
    let lab = lab(&[]);
    let mut browser = lab.browser(1);
    let created = lab.control.call("1000", &browser.offer("actpass"));
    let path = created.header("location");
    let fragment = browser.fragment();
    let kind = ("Content-Type", "application/trickle-ice-sdpfrag");
    let patched = lab.control.send("PATCH", path, &[kind], fragment.as_bytes());
    assert_eq!((patched.status, patched.body.len()), (204, 0));
    let broken = lab.control.send("PATCH", path, &[kind], b"this is no fragment");
    assert_eq!(broken.status, 400);
    broken.problem();
    browser.connect(&created.text());
    assert_eq!(lab.control.ask("DELETE", path).status, 204);
    lab.is_clean();
}

#[test]
fn whatever_the_called_side_does_is_told_and_leaves_nothing() {
    let lab = lab(&[]);
    let cases = [
        ("busy", 502, "rejected", Some(486)),
        ("decline", 502, "rejected", Some(603)),
        ("nosdp", 502, "protocol", None),
        ("garbage", 502, "protocol", None),
        ("nocodec", 502, "no_codec", None),
    ];
    for (to, status, kind, sip) in cases {
        let (got, problem, sip_status) = lab.failure(to);
        assert_eq!((got, problem.as_str()), (status, format!("urn:sallyport:{kind}").as_str()), "{to}");
        if sip.is_some() {
            assert_eq!(sip_status, sip, "{to}");
        }
        lab.is_clean();
    }
    let acknowledged =
        |request: &String| ["busy", "decline"].iter().any(|user| request.contains(&format!("<sip:{user}@")));
    assert_eq!(
        lab.pbx.heard("ACK").iter().filter(|ack| acknowledged(ack)).count(),
        2,
        "refusals are acknowledged"
    );
    let metrics = lab.control.send("GET", "/metrics", &[], b"").text();
    assert!(metrics.contains("rejected"), "{metrics}");
}

#[test]
fn a_server_that_is_not_there_is_told() {
    let net = Net::new();
    let control = Control::start(net, &[("sip", "transport = 'tcp'")]);
    let relay = Relay::start(&control.socket(), &control.net);
    control.wait_until_ready();
    let answer = control.call("1000", &Browser::new(&relay, control.net.browser(1)).offer("actpass"));
    assert_eq!(
        (answer.status, answer.problem()["type"].as_str()),
        (504, Some("urn:sallyport:sip_unreachable"))
    );
    control.wait_until_idle();
    relay.wait_until_empty();
}

#[test]
fn ringing_ends_in_time_by_a_cancel() {
    let lab = lab(&[("sip", "ring_timeout_s = 1")]);
    assert_eq!(lab.failure("ring"), (504, "urn:sallyport:ring_timeout".into(), None));
    until("it is cancelled", || lab.pbx.heard("CANCEL").len() == 1);
    let cancels = lab.pbx.heard("CANCEL");
    assert_eq!(line(&cancels[0], "Via"), line(&lab.pbx.heard("INVITE")[0], "Via"));
    lab.is_clean();
}

#[test]
fn a_client_that_goes_away_cancels_its_call() {
    let lab = lab(&[]);
    let offer = lab.browser(1).offer("actpass");
    let token = format!("Bearer {TOKEN}");
    let headers = [("Content-Type", "application/sdp"), ("Authorization", token.as_str())];
    let mut stream = TcpStream::connect(lab.control.net.http()).unwrap();
    stream.write_all(&head("POST", "/v1/calls?to=ring", &headers, offer.len())).unwrap();
    stream.write_all(offer.as_bytes()).unwrap();
    until("it rings", || lab.control.status()["calls"]["setup"] == 1 && !lab.pbx.heard("INVITE").is_empty());
    until("the view says so", || lab.control.ask("GET", "/v1/calls").json()[0]["state"] == "ringing");
    drop(stream);
    until("it is cancelled", || lab.pbx.heard("CANCEL").len() == 1);
    lab.is_clean();
}

#[test]
fn the_server_s_challenge_is_answered() {
    let lab = lab(&[("sip", "password = 'secret'")]);
    let created = lab.control.call("guarded", &lab.browser(1).offer("actpass"));
    assert_eq!(created.status, 201, "{}", created.text());
    assert!(lab.pbx.heard("INVITE").len() >= 2);
    assert_eq!(lab.control.ask("DELETE", created.header("location")).status, 204);
    lab.is_clean();
    assert!(!lab.control.log().contains("secret"));
}

#[test]
fn a_challenged_bye_ends_the_dialog() {
    let lab = lab(&[("sip", "password = 'secret'")]);
    let created = lab.control.call("secret", &lab.browser(1).offer("actpass"));
    assert_eq!(created.status, 201, "{}", created.text());
    assert_eq!(lab.control.ask("DELETE", created.header("location")).status, 204);
    lab.is_clean();
    let byes = lab.pbx.heard("BYE");
    assert_eq!(byes.len(), 2);
    assert!(byes[1].contains("Proxy-Authorization: Digest "));
}

#[test]
fn a_wrong_password_is_a_refusal() {
    let lab = lab(&[("sip", "password = 'wrong'")]);
    assert_eq!(lab.failure("guarded"), (502, "urn:sallyport:rejected".into(), Some(407)));
    lab.is_clean();
}

#[test]
fn noise_between_the_answers_does_no_harm() {
    let lab = lab(&[]);
    let created = lab.control.call("noise", &lab.browser(1).offer("actpass"));
    assert_eq!(created.status, 201);
    assert_eq!(lab.control.ask("DELETE", created.header("location")).status, 204);
    lab.is_clean();
}

#[test]
fn the_called_side_may_hang_up_and_send_media_early() {
    let lab = lab(&[]);
    let early = lab.control.call("early", &lab.browser(1).offer("actpass"));
    assert_eq!(early.status, 201);
    let path = early.header("location");
    assert_eq!(lab.control.ask("GET", path).json()["state"], "early", "answered by the 183 already");
    until("the 200 is seen", || lab.control.ask("GET", path).json()["state"] == "answered");
    assert_eq!(lab.control.ask("DELETE", path).status, 204);
    let created = lab.control.call("hangup", &lab.browser(2).offer("actpass"));
    assert_eq!(created.status, 201);
    lab.is_clean();
    until("the BYE is answered", || {
        lab.pbx.state().answers.iter().any(|answer| answer.starts_with("SIP/2.0 200 "))
    });
    assert_eq!(lab.control.ask("GET", created.header("location")).status, 404);
}

#[test]
fn the_called_side_moves_holds_and_asks_for_an_offer() {
    let lab = lab(&[]);
    let (path, _browser) = connected(&lab.control, &lab.relay, 1);
    let ack = lab.pbx.heard("ACK").remove(0);
    let target = || lab.relay.state().plans.values().next().unwrap().directions[0].clone();
    let before = target();
    let ask = |method: &str, cseq: u32, sdp: &str| {
        let request = lab.pbx.request(method, &ack, cseq);
        let request = if sdp.is_empty() { request } else { lab.pbx.with_sdp(&request, sdp) };
        lab.pbx.send_datagram(&request, lab.control.net.sip());
        lab.pbx.state().answers.last().unwrap().clone()
    };
    let acknowledge = |cseq: u32, sdp: &str| {
        let request = lab.pbx.request("ACK", &ack, cseq);
        let request = if sdp.is_empty() { request } else { lab.pbx.with_sdp(&request, sdp) };
        lab.pbx.drop_datagram(&request, lab.control.net.sip());
    };
    let sdp = lab.pbx.sdp();
    let held = ask("INVITE", 1, &sdp.replace(&before.rtp.remote.ip().to_string(), "0.0.0.0"));
    assert!(held.starts_with("SIP/2.0 200 ") && held.contains("a=inactive"), "{held}");
    acknowledge(1, "");
    until("it is held", || target().mute == sallyport_plan::Mute::Held);
    assert_eq!(target().rtp, before.rtp, "where media went");
    let offered = ask("INVITE", 2, "");
    assert!(offered.starts_with("SIP/2.0 200 ") && offered.contains("m=audio 20000 RTP/AVP 0"), "{offered}");
    assert!(ask("UPDATE", 3, &sdp).starts_with("SIP/2.0 491 "), "an offer is open");
    acknowledge(2, &sdp.replace("m=audio 30000", "m=audio 30100"));
    until("it has moved", || {
        target().rtp.remote.port() == 30100 && target().mute == sallyport_plan::Mute::Open
    });
    let refused = ask("INVITE", 4, &sdp.replace("RTP/AVP 0", "RTP/AVP 8"));
    assert!(refused.starts_with("SIP/2.0 488 "), "{refused}");
    assert_eq!(lab.control.ask("GET", &path).json()["state"], "connected");
    assert_eq!(lab.control.ask("DELETE", &path).status, 204);
    lab.is_clean();
}

#[test]
fn the_relay_s_refusals_end_the_call() {
    let lab = lab(&[]);
    lab.relay.state().refuse_reserve = Some(Refusal::NoPorts);
    assert_eq!(lab.failure("1000"), (503, "urn:sallyport:relay_refused".into(), None));
    assert!(lab.pbx.heard("INVITE").is_empty(), "nobody is called without ports");
    lab.relay.state().is_mute = true;
    assert_eq!(lab.failure("1000").0, 503);
    lab.relay.state().is_mute = false;
    lab.relay.state().refuse_install = Some(Refusal::Unreachable);
    let mut browser = lab.browser(3);
    let answer = lab.control.call("1000", &browser.offer("actpass"));
    assert_eq!(answer.status, 201, "no plan is installed before ICE has found a pair");
    assert!(browser.try_connect(&answer.text(), Duration::from_secs(1)).is_none());
    lab.is_clean();
    assert!(lab.relay.state().installed.is_empty());
}

#[test]
fn lost_consent_ends_the_call() {
    let lab = lab(&[]);
    let (path, _browser) = connected(&lab.control, &lab.relay, 1);
    let call = path.rsplit('/').next().unwrap().parse().unwrap();
    lab.relay.lose_consent(call);
    lab.is_clean();
    assert_eq!(lab.control.ask("GET", &path).status, 404);
    assert_eq!(lab.pbx.heard("BYE").len(), 1);
}

#[test]
fn events_are_told_from_the_first_to_the_last() {
    let lab = lab(&[]);
    let mut browser = lab.browser(1);
    let created = lab.control.call("late", &browser.offer("actpass"));
    let path = created.header("location").to_owned();
    let mut stream = TcpStream::connect(lab.control.net.http()).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    stream.write_all(&head("GET", &format!("{path}/events"), &[], 0)).unwrap();
    browser.connect(&created.text());
    until("the call is connected", || lab.control.ask("GET", &path).json()["state"] == "connected");
    assert_eq!(lab.control.ask("DELETE", &path).status, 204);
    let mut all = String::new();
    stream.read_to_string(&mut all).expect("the stream ends with the call");
    assert!(all.contains("content-type: text/event-stream"), "{all}");
    let names: Vec<&str> = all.lines().filter_map(|line| line.strip_prefix("event: ")).collect();
    assert_eq!(names, ["ringing", "answered", "connected", "ended"]);
    let last = all.lines().rfind(|line| line.starts_with("data: ")).unwrap();
    assert_eq!(serde_json::from_str::<serde_json::Value>(&last[6..]).unwrap()["cause"], "hang_up");
}

#[test]
fn the_stun_server_s_view_becomes_a_candidate() {
    use sallyport_wire::stun::{BINDING, Builder, Class, Message};
    let net = Net::new();
    let _pbx = Pbx::start(net.pbx());
    let stun = format!("stun = '{}'\nadvertised = ['203.0.113.77']", net.stun());
    let server = net.stun();
    let control = Control::start(net, &[("outside", &stun)]);
    let relay = Relay::start(&control.socket(), &control.net);
    let inbox = relay.hear(server);
    let (_, lost) = inbox.recv_timeout(Duration::from_secs(5)).unwrap();
    let (path, payload) = inbox.recv_timeout(Duration::from_secs(5)).expect("asked again");
    assert_eq!((path.local, lost.len()), (control.net.media(), payload.len()));
    assert_eq!(control.send("GET", "/readyz", &[], b"").status, 503, "not before the answer, for a while");
    let request = Message::parse(&payload).unwrap();
    let mut room = [0; 64];
    let builder = Builder::new(&mut room, Class::Success, BINDING, request.transaction_id()).unwrap();
    let length = builder.xor_mapped_address("198.51.100.9:4321".parse().unwrap()).unwrap().finish();
    relay.punt(server, &room[..length]);
    control.wait_until_ready();
    let answer = control.call("1000", &Browser::new(&relay, control.net.browser(1)).offer("actpass"));
    let candidates: Vec<String> =
        answer.text().lines().filter(|line| line.starts_with("a=candidate:")).map(str::to_owned).collect();
    assert!(candidates.iter().any(|line| line.contains(" 198.51.100.9 4321 typ srflx")), "{candidates:?}");
    assert!(candidates.iter().any(|line| line.contains(" 203.0.113.77 10000 typ ")), "{candidates:?}");
    let host = format!(" {} 10000 typ host", control.net.media().ip());
    assert!(candidates.iter().any(|line| line.contains(&host)), "{candidates:?}");
}

#[test]
fn a_stun_server_may_have_a_name() {
    let control = Control::start(Net::new(), &[("outside", "stun = 'localhost:3478'")]);
    let relay = Relay::start(&control.socket(), &control.net);
    let inbox = relay.hear("127.0.0.1:3478".parse().unwrap());
    let (path, payload) = inbox.recv_timeout(Duration::from_secs(5)).unwrap();
    assert_eq!(path.local, control.net.media());
    assert!(sallyport_wire::stun::is_stun(&payload));
    control.wait_until_ready();
}

#[test]
fn a_stun_server_that_is_silent_keeps_nobody_waiting() {
    let net = Net::new();
    let stun = format!("stun = '{}'", net.stun());
    let control = Control::start(net, &[("outside", &stun)]);
    let _relay = Relay::start(&control.socket(), &control.net);
    control.wait_until_ready();
}

#[test]
fn two_hundred_calls_leave_nothing() {
    let lab = lab(&[]);
    let before = lab.control.descriptors();
    let connected = |number: u16| {
        let mut browser = lab.browser(number);
        let created = lab.control.call("1000", &browser.offer("actpass"));
        assert_eq!(created.status, 201, "{}", created.text());
        browser.connect(&created.text());
        created.header("location").to_owned()
    };
    std::thread::scope(|scope| {
        for part in 0..8_u16 {
            let (lab, connected) = (&lab, &connected);
            scope.spawn(move || {
                for number in 0..25 {
                    let path = connected(part * 25 + number);
                    assert_eq!(lab.control.ask("DELETE", &path).status, 204);
                }
            });
        }
    });
    lab.is_clean();
    assert_eq!(lab.pbx.heard("BYE").len(), 200);
    until("the relay says that nothing is left", || {
        let relay = lab.control.status()["relay"].take();
        ["calls", "directions", "ports", "flows"].iter().all(|number| relay[*number] == 0)
    });
    until("descriptors are given back", || lab.control.descriptors() <= before + 1);
}
