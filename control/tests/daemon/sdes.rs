//! Keys of the inside's media by `a=crypto` (RFC 4568), through the daemon.

use sallyport_plan::{Profile, Protection, Zone};

use super::browser::Browser;
use super::harness::{Control, Net, until};
use super::pbx::{KEY, Pbx, line};
use super::relay::Relay;

/// Keys inside of the plan that runs: what we seal, and what we open.
fn inside_keys(relay: &Relay) -> (Protection, Protection) {
    let state = relay.state();
    let plan = state.plans.values().next().unwrap();
    let from =
        |zone| plan.directions.iter().find(move |direction| direction.ingress[0].zone == zone).unwrap();
    (from(Zone::Outside).seal.clone().unwrap(), from(Zone::Inside).open.clone().unwrap())
}

/// The keys that an INVITE or an answer of ours offers.
fn offered(message: &str) -> Vec<&str> {
    message.lines().filter_map(|line| line.strip_prefix("a=crypto:")).collect()
}

#[test]
fn keys_are_agreed_on_changed_and_told_to_nobody() {
    for (srtp, profile) in [("optional", "RTP/AVP"), ("required", "RTP/SAVP")] {
        let net = Net::new();
        let pbx = Pbx::start(net.pbx());
        let section = format!("srtp = '{srtp}'");
        let control = Control::start(net, &[("inside", &section)]);
        let relay = Relay::start(&control.socket(), &control.net);
        control.wait_until_ready();
        let mut browser = Browser::new(&relay, control.net.browser(1));
        let created = control.call("secret-media", &browser.offer("actpass"));
        assert_eq!(created.status, 201, "{}", created.text());
        browser.connect(&created.text());
        let path = created.header("location").to_owned();
        until("the call is connected", || control.ask("GET", &path).json()["state"] == "connected");
        let invite = pbx.heard("INVITE").pop().unwrap();
        assert!(invite.contains(&format!("{profile} ")), "{invite}");
        let lines = offered(&invite);
        assert_eq!(lines.len(), 4);
        let (Protection::Srtp(seals), Protection::Srtp(opens)) = inside_keys(&relay) else {
            panic!("the inside is plain")
        };
        assert_eq!((seals.profile(), opens.profile()), (Profile::AesCm128HmacSha1_80, opens.profile()));
        // The far end changes its key in the middle of the call: the plan has it, and another of ours.
        let other = KEY.replace("d0Rm", "AAAA");
        let ack = pbx.heard("ACK").pop().unwrap();
        let crypto = format!("a=crypto:9 AES_CM_128_HMAC_SHA1_80 inline:{other}\r\n");
        let sdp = pbx.sdp().replace("RTP/AVP", profile) + &crypto;
        pbx.send_datagram(&pbx.with_sdp(&pbx.request("INVITE", &ack, 2), &sdp), control.net.sip());
        let answer = pbx.state().answers.pop().unwrap();
        assert!(answer.starts_with("SIP/2.0 200"), "{answer}");
        let ours = offered(&answer);
        assert!(ours.len() == 1 && ours[0].starts_with("9 AES_CM_128_HMAC_SHA1_80 inline:"), "{answer}");
        until("the plan has their new key", || inside_keys(&relay).1 != Protection::Srtp(opens.clone()));
        assert!(inside_keys(&relay).0 == Protection::Srtp(seals.clone()), "ours may not be known there yet");
        pbx.drop_datagram(&pbx.request("ACK", &ack, 2), control.net.sip());
        until("the plan has our new key", || inside_keys(&relay).0 != Protection::Srtp(seals.clone()));
        // No log and no view names a key.
        let shown = control.ask("GET", &path).text() + &control.status().to_string() + &control.log();
        let keys =
            lines.iter().chain(&ours).filter_map(|line| line.split("inline:").nth(1)).chain([KEY, &other]);
        for key in keys {
            assert!(!shown.contains(key.split('|').next().unwrap()), "a key is told");
        }
        let warned = control.log().matches("keys of media travel in SIP messages").count();
        assert_eq!(warned, 1, "said once: {}", control.log());
        assert_eq!(control.ask("DELETE", &path).status, 204);
        assert!(!line(&invite, "Call-ID").is_empty());
        control.wait_until_idle();
        relay.wait_until_empty();
    }
}

#[test]
fn a_far_end_without_keys_is_refused_where_they_are_required() {
    let net = Net::new();
    let pbx = Pbx::start(net.pbx());
    let control = Control::start(net, &[("inside", "srtp = 'required'")]);
    let relay = Relay::start(&control.socket(), &control.net);
    control.wait_until_ready();
    let created = control.call("1000", &Browser::new(&relay, control.net.browser(1)).offer("actpass"));
    assert_eq!(created.status, 502, "{}", created.text());
    assert_eq!(created.problem()["type"], "urn:sallyport:protocol");
    control.wait_until_idle();
    relay.wait_until_empty();
    until("it was told BYE", || pbx.heard("BYE").len() == 1);
}
