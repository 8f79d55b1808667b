//! Flag by flag: what each does to an SDP or a plan.

use super::*;

const KEY: &str = "a=crypto:1 AES_CM_128_HMAC_SHA1_80 inline:d0RmdmcmVCspeEc3QGZiNWpVLFJhQX1cfHAwJSoj\r\n";

fn muxed() -> String {
    format!("{PHONE}a=rtcp-mux\r\n")
}

/// The line that begins so.
fn line<'a>(sdp: &'a str, start: &str) -> &'a str {
    sdp.lines().find(|line| line.starts_with(start)).unwrap_or_default()
}

#[test]
fn transport_protocol_is_the_other_sides_profile() {
    for (flag, keys) in [
        ("RTP/AVP", ""),
        ("RTP/AVPF", ""),
        ("RTP/SAVP", "a=crypto:"),
        ("RTP/SAVPF", "a=crypto:"),
        ("UDP/TLS/RTP/SAVP", "a=fingerprint:"),
        ("UDP/TLS/RTP/SAVPF", "a=fingerprint:"),
    ] {
        let (bridge, text) = offered(PHONE, flag);
        assert!(line(&text, "m=audio").contains(&format!(" {flag} ")), "{flag}: {text}");
        for kind in ["a=crypto:", "a=fingerprint:", "a=candidate:"] {
            let wanted = kind == keys || (kind == "a=candidate:" && keys == "a=fingerprint:");
            assert_eq!(text.contains(kind), wanted, "{flag}: {kind} in {text}");
        }
        let zone = if keys == "a=fingerprint:" { Zone::Outside } else { Zone::Inside };
        assert_eq!(bridge.sides[1].zone, zone, "{flag}");
    }
    let (_, text) = offered(PHONE, "transport-protocol=FOO/BAR");
    assert!(line(&text, "m=audio").contains(" RTP/AVP "), "as the offerer's: {text}");
    assert_eq!(request("offer", PHONE, "transport-protocol=FOO/BAR").flags.unknown, ["FOO/BAR"]);
}

#[test]
fn ice_is_a_browsers_and_never_telephonys() {
    for word in ["remove", "force", "force-relay", "optional", "default"] {
        let (_, inside) = offered(WEB, &format!("RTP/AVP ICE={word}"));
        assert!(!inside.contains("ice-") && !inside.contains("candidate"), "{word}: {inside}");
        let (_, outside) = offered(PHONE, &format!("UDP/TLS/RTP/SAVPF ICE={word}"));
        assert!(outside.contains("a=ice-ufrag:") && outside.contains(" typ host"), "{word}: {outside}");
    }
    // The one thing that it decides: whether the old name for a browser's profile means a browser.
    assert!(offered(PHONE, "RTP/SAVPF ICE=remove").1.contains("a=crypto:"));
    assert!(offered(PHONE, "RTP/SAVPF ICE=force").1.contains("a=fingerprint:"));
}

#[test]
fn each_word_of_rtcp_mux_has_its_effect_in_offer_answer_and_plan() {
    // Offer, flags; is it offered on, is the offerer's taken, sockets toward the offerer and toward the other side.
    for (mux, flags, offered_on, taken, sockets) in [
        (true, "", true, false, [2, 2]),
        (true, "rtcp-mux-demux", false, true, [1, 2]),
        (true, "rtcp-mux-accept", true, true, [1, 2]),
        (true, "rtcp-mux-reject", false, false, [2, 2]),
        (true, "rtcp-mux-accept rtcp-mux-reject", false, false, [2, 2]),
        (false, "", false, false, [2, 2]),
        (false, "rtcp-mux-offer", true, false, [2, 2]),
        (false, "rtcp-mux-require", true, false, [2, 2]),
    ] {
        let (mut bridge, offer) = offered(&if mux { muxed() } else { PHONE.into() }, flags);
        assert_eq!(offer.contains("a=rtcp-mux\r\n"), offered_on, "{flags}: {offer}");
        let same = line(&offer, "a=rtcp:") == "a=rtcp:20002";
        assert_eq!(same, flags == "rtcp-mux-require", "{flags}: {offer}");
        let (plan, answer) = answered(&mut bridge, PHONE);
        assert_eq!(answer.contains("a=rtcp-mux\r\n"), taken, "{flags}: {answer}");
        let ingress = [plan.directions[0].ingress.len(), plan.directions[1].ingress.len()];
        assert_eq!(ingress, sockets, "{flags}");
    }
    let (mut bridge, _) = offered(PHONE, "rtcp-mux-offer");
    let (plan, _) = answered(&mut bridge, &muxed());
    assert_eq!((plan.directions[0].ingress.len(), plan.directions[1].ingress.len()), (2, 1));
    assert_eq!(plan.directions[0].rtcp, plan.directions[0].rtp, "RTCP goes where RTP goes");
}

#[test]
fn dtls_chooses_the_role_where_there_is_a_choice() {
    for (offer, answer, setup) in [
        ("", "", "passive"),
        ("", "DTLS=passive", "passive"),
        ("", "DTLS=active", "active"),
        ("DTLS=active", "", "active"),
    ] {
        let (mut bridge, _) = offered(WEB, &format!("RTP/AVP {offer}"));
        bridge.request(Instant::now(), &request("answer", PHONE, answer));
        assert_eq!(line(&said(&mut bridge), "a=setup:"), format!("a=setup:{setup}"), "{offer} {answer}");
    }
    let (mut bridge, _) = offered(&WEB.replace("setup:actpass", "setup:active"), "RTP/AVP");
    bridge.request(Instant::now(), &request("answer", PHONE, "DTLS=active"));
    assert_eq!(line(&said(&mut bridge), "a=setup:"), "a=setup:passive", "the browser has chosen");
}

#[test]
fn dtls_off_and_sdes_off_are_about_what_is_offered() {
    let (mut bridge, offer) = offered(WEB, "RTP/AVP ICE=remove rtcp-mux-demux DTLS=off SDES-off");
    assert!(line(&offer, "m=audio").contains(" RTP/AVP "), "{offer}");
    bridge.request(Instant::now(), &request("answer", PHONE, "DTLS=off"));
    assert!(said(&mut bridge).contains("a=fingerprint:sha-256 "), "the browser gets what it offered");
    let (mut bridge, _) = offered(&(PHONE.replace("RTP/AVP", "RTP/SAVP") + KEY), "RTP/AVP SDES-off");
    assert!(answered(&mut bridge, PHONE).1.contains("a=crypto:1 AES_CM_128_HMAC_SHA1_80 inline:"));
    assert!(offered(PHONE, "RTP/SAVPF SDES-off").1.contains("a=fingerprint:"), "not SDES means DTLS");
    assert!(begin(PHONE, "UDP/TLS/RTP/SAVPF DTLS=off").unwrap_err().contains("DTLS is off"));
}

#[test]
fn sdes_words_choose_suites() {
    let suites = |flags: &str| -> Vec<String> {
        let (_, text) = offered(PHONE, &format!("RTP/SAVP {flags}"));
        let keys = text.lines().filter_map(|line| line.strip_prefix("a=crypto:"));
        keys.map(|key| key.split(' ').nth(1).unwrap().to_owned()).collect()
    };
    let all = ["AEAD_AES_128_GCM", "AES_CM_128_HMAC_SHA1_80", "AEAD_AES_256_GCM", "AES_256_CM_HMAC_SHA1_80"];
    assert_eq!(suites(""), all);
    assert_eq!(suites("SDES-no-AEAD_AES_128_GCM SDES-no-AEAD_AES_256_GCM"), [all[1], all[3]]);
    assert_eq!(suites("SDES=only-AES_CM_128_HMAC_SHA1_80"), [all[1]]);
    assert_eq!(suites("SDES-nonew SDES-pad SDES-lifetime SDES-static"), all, "these change nothing");
}

#[test]
fn replace_takes_out_what_names_the_offerer() {
    for (flags, origin, name) in [
        ("", "o=ph 17 1 IN IP4 10.0.0.9", "s=call"),
        ("replace-origin", "o=ph 17 1 IN IP4 10.0.0.1", "s=call"),
        ("replace-username", "o=- 17 1 IN IP4 10.0.0.9", "s=call"),
        ("replace-origin-full", "o=- 17 1 IN IP4 10.0.0.1", "s=call"),
        ("replace-session-name", "o=ph 17 1 IN IP4 10.0.0.9", "s=-"),
        ("replace-session-connection replace-sdp-version", "o=ph 17 1 IN IP4 10.0.0.9", "s=call"),
    ] {
        let (_, text) = offered(PHONE, flags);
        assert_eq!((line(&text, "o="), line(&text, "s=")), (origin, name), "{flags}");
        assert_eq!(line(&text, "c="), "c=IN IP4 10.0.0.1", "always");
    }
}

#[test]
fn direction_names_interfaces() {
    let options = BridgeSettings { internal: vec!["core".into()], ..BridgeSettings::default() };
    let begin = |sdp: &str, flags: &str| {
        let (when, options) = ((Instant::now(), 0), Arc::new(options.clone()));
        Bridge::new(CallId(1), settings(), options, Seed([9; 32]), when, &request("offer", sdp, flags))
    };
    for flags in [
        "direction=external direction=core",
        "direction=pub direction=CORE",
        "direction=nowhere direction=core",
    ] {
        assert!(begin(WEB, &format!("RTP/AVP {flags}")).is_ok(), "{flags}");
    }
    assert!(begin(WEB, "RTP/AVP direction=core direction=external").unwrap_err().contains("interface"));
    assert!(begin(PHONE, "RTP/AVP direction=core direction=external").unwrap_err().contains("interface"));
    // Toward the browsers' interface the old name for their profile means DTLS.
    let (_, text) = offered(PHONE, "RTP/SAVPF direction=priv direction=pub");
    assert!(text.contains("a=fingerprint:"), "{text}");
    // As words of their own, as older modules write them.
    assert!(begin(WEB, "RTP/AVP external internal").is_ok());
}

#[test]
fn address_family_is_that_of_telephonys_ports() {
    for (flags, own) in
        [("", "IP4 10.0.0.1"), ("address-family=IP6", "IP6 fd00::1"), ("address-family=IP4", "IP4 10.0.0.1")]
    {
        let (mut bridge, text) = offered(WEB, &format!("RTP/AVP {flags}"));
        assert_eq!(line(&text, "c="), format!("c=IN {own}"), "{flags}");
        let other = if own.starts_with("IP6") {
            PHONE.to_owned()
        } else {
            PHONE.replace("IP4 10.0.0.9", "IP6 fd00::9")
        };
        bridge.request(Instant::now(), &request("answer", &other, ""));
        let Some(Command::Fail(failure)) = commands(&mut bridge).pop() else {
            panic!("{flags}: a wrong family")
        };
        assert!(failure.text.contains("Address family"), "{}", failure.text);
    }
}

#[test]
fn mid_is_generated_kept_and_left_out() {
    assert_eq!(line(&offered(PHONE, "").1, "a=mid:"), "");
    assert_eq!(line(&offered(PHONE, "generate-mid").1, "a=mid:"), "a=mid:0");
    assert_eq!(line(&offered(PHONE, "UDP/TLS/RTP/SAVPF").1, "a=mid:"), "a=mid:0", "browsers need it");
    assert_eq!(line(&offered(WEB, "RTP/AVP").1, "a=mid:"), "");
    let (mut bridge, offer) = offered(WEB, "RTP/AVP generate-mid");
    assert_eq!(line(&offer, "a=mid:"), "a=mid:a");
    bridge.request(Instant::now(), &request("answer", PHONE, ""));
    let answer = said(&mut bridge);
    assert!(answer.contains("a=group:BUNDLE a\r\n") && answer.contains("a=mid:a\r\n"), "{answer}");
}

#[test]
fn what_is_about_sources_changes_nothing_and_is_known() {
    let (mut plain, offer) = offered(PHONE, "");
    let (plan, answer) = answered(&mut plain, PHONE);
    let words = "trust-address symmetric port-latching media-handover loop-protect weak-source";
    let (mut bridge, with) = offered(PHONE, words);
    assert_eq!((with, answered_with(&mut bridge, PHONE, words)), (offer, (plan, answer)));
    assert!(request("offer", PHONE, words).flags.unknown.is_empty());
}

/// The plan that follows where the phone of the offer is heard from another port.
fn moved(bridge: &mut Bridge, plan: &Plan) -> Option<Plan> {
    let mut flow = plan.directions[0].ingress[0];
    flow.remote.set_port(40_000);
    bridge.handle(Instant::now(), Input::Source(flow));
    commands(bridge).into_iter().find_map(|command| match command {
        Command::Install(plan) => Some(plan),
        _ => None,
    })
}

#[test]
fn a_phone_is_heard_from_another_port_and_sent_to_there_unless_a_flag_says_no() {
    let ports =
        |plan: &Plan| (plan.directions[0].ingress[0].remote.port(), plan.directions[1].rtp.remote.port());
    let (mut bridge, _) = offered(PHONE, "");
    let (plan, _) = answered(&mut bridge, PHONE);
    assert!(plan.directions.iter().all(|direction| direction.learns));
    let next = moved(&mut bridge, &plan).unwrap();
    assert_eq!((ports(&plan), ports(&next)), ((4000, 4000), (40_000, 40_000)));
    assert!(moved(&mut bridge, &plan).is_none(), "that is known");
    let mut adopted = Bridge::restore(&next, settings(), Arc::default(), Seed([3; 32])).unwrap();
    assert!(moved(&mut adopted, &plan).is_none(), "and outlives control");

    let (mut bridge, _) = offered(PHONE, "asymmetric");
    let (plan, _) = answered(&mut bridge, PHONE);
    assert_eq!(ports(&moved(&mut bridge, &plan).unwrap()), (40_000, 4000));

    let (mut bridge, _) = offered(PHONE, "strict-source");
    let (plan, _) = answered(&mut bridge, PHONE);
    assert!(plan.directions.iter().all(|direction| !direction.learns));
    assert!(moved(&mut bridge, &plan).is_none());
}

#[test]
fn codecs_are_taken_out_of_offers_and_answers() {
    let formats = |flags: &str| {
        let (_, text) = offered(PHONE, flags);
        line(&text, "m=audio").split(" RTP/AVP ").nth(1).unwrap().to_owned()
    };
    assert_eq!(formats(""), "8 0 101");
    assert_eq!(formats("codec-strip-PCMU"), "8 101");
    assert_eq!(formats("codec-mask-pcma/8000"), "0 101");
    assert_eq!(formats("codec-consume-PCMA"), "0 101");
    assert_eq!(formats("codec-strip-all codec-except-PCMA"), "8");
    assert_eq!(formats("codec-strip-all codec-offer-PCMU codec-offer-telephone-event"), "0 101");
    assert_eq!(formats("codec-strip-full codec-except-PCMU"), "0");
    assert_eq!(formats("codec-strip-telephone-event codec-accept-G729"), "8 0");
    assert_eq!(formats("codec-strip-PCMA/16000"), "8 0 101", "another clock rate is another codec");
    let (_, text) = offered(PHONE, "codec-strip-telephone-event");
    assert!(!text.contains(":101 "), "neither map nor parameters stay: {text}");
    assert!(begin(PHONE, "codec-strip-PCMU codec-strip-PCMA").unwrap_err().contains("No codec"));
    let (mut bridge, _) = offered(PHONE, "");
    let (plan, answer) = answered_with(&mut bridge, PHONE, "codec-strip-PCMU");
    assert!(answer.contains(" RTP/AVP 8 101\r\n"), "{answer}");
    let passes: Vec<u8> = plan.directions[0].payload_types.iter().map(|map| map.from.0).collect();
    assert!(passes.contains(&8) && !passes.contains(&0), "{passes:?}");
}

#[test]
fn sound_and_pictures_are_carried_in_their_places_and_the_rest_declined() {
    let more = "m=video 4010 RTP/AVP 96\r\na=rtpmap:96 VP8/90000\r\nm=audio 4020 RTP/AVP 8\r\n\
        m=application 4030 UDP/DTLS/SCTP webrtc-datachannel\r\na=sctp-port:5000\r\nm=image 4040 udptl t38\r\n\
        m=text 4050 RTP/AVP 98\r\na=rtpmap:98 t140/1000\r\nm=video 4060 TCP/RTP/AVP 96\r\n";
    let (mut bridge, offer) = offered(&format!("{PHONE}{more}"), "");
    let sections = |sdp: &str| -> Vec<String> {
        sdp.lines()
            .filter(|line| line.starts_with("m="))
            .map(|line| line.split(' ').take(3).collect::<Vec<_>>().join(" "))
            .collect()
    };
    let declined =
        ["m=application 0 UDP/DTLS/SCTP", "m=image 0 udptl", "m=text 0 RTP/AVP", "m=video 0 TCP/RTP/AVP"];
    assert_eq!(
        sections(&offer)[..3],
        ["m=audio 20002 RTP/AVP", "m=video 20006 RTP/AVP", "m=audio 20010 RTP/AVP"]
    );
    assert_eq!(sections(&offer)[3..], declined);
    assert!(offer.contains("VP8") && !offer.contains("sctp-port"), "{offer}");
    // One that answers with less, or accepts what we declined.
    let (plan, text) = answered(&mut bridge, PHONE);
    assert_eq!(sections(&text)[..3], ["m=audio 20000 RTP/AVP", "m=video 0 RTP/AVP", "m=audio 0 RTP/AVP"]);
    assert_eq!(plan.directions.len(), 2);
    let (plan, text) = answered(&mut bridge, &format!("{PHONE}{more}"));
    assert_eq!(
        sections(&text)[..3],
        ["m=audio 20000 RTP/AVP", "m=video 20004 RTP/AVP", "m=audio 20008 RTP/AVP"]
    );
    assert_eq!(sections(&text)[3..], declined);
    let indices: Vec<u8> = plan.directions.iter().map(|direction| direction.index.0).collect();
    assert_eq!(indices, [0, 1, 2, 3, 4, 5]);
    // All sound refused, the picture in use; then nothing at all.
    let (head, _) = PHONE.split_once("m=").unwrap();
    let film = format!(
        "{head}m=audio 0 RTP/AVP 0\r\nm=video 4070 RTP/AVP 96\r\na=rtpmap:96 VP8/90000\r\nm=audio 0 RTP/AVP 8\r\n"
    );
    bridge.request(Instant::now(), &request("offer", &film, ""));
    assert_eq!(
        sections(&said(&mut bridge)),
        ["m=audio 0 RTP/AVP", "m=video 20006 RTP/AVP", "m=audio 0 RTP/AVP"]
    );
    let (plan, text) = answered(&mut bridge, &film.replace("4070", "4080"));
    assert_eq!(sections(&text), ["m=audio 0 RTP/AVP", "m=video 20004 RTP/AVP", "m=audio 0 RTP/AVP"]);
    let mutes: Vec<Mute> = plan.directions.iter().map(|direction| direction.mute).collect();
    assert_eq!(mutes, [Mute::Held, Mute::Held, Mute::Open, Mute::Open, Mute::Held, Mute::Held]);
    assert_eq!(plan.directions[2].rtp.remote.port(), 4080);
    bridge.request(Instant::now(), &request("offer", &PHONE.replace("m=audio 4000", "m=audio 0"), ""));
    assert_eq!(sections(&said(&mut bridge)), ["m=audio 0 RTP/AVP"]);
    assert_eq!(bridge.view().state, CallState::Connected, "the call goes on");
}
