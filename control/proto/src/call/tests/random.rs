//! Whatever happens, in whatever order: the ledger balances and nothing panics.

use std::time::Duration;

use proptest::prelude::*;
use sallyport_plan::Refusal;

use super::{FINGERPRINT, Rig, address, sdp};
use crate::api::{Command, Input, Transfer};
use crate::sip::{Method, TransactionId};

/// One thing that happens.
#[derive(Debug, Clone)]
enum Act {
    Reserve,
    Installed(bool),
    Refused,
    Away,
    Back(bool),
    Lost,
    Respond {
        method: usize,
        status: u16,
        tag: &'static str,
        body: Body,
        rseq: u32,
    },
    Silence {
        method: usize,
    },
    Unreachable(u64),
    Ask {
        method: usize,
        tag: &'static str,
        body: Body,
        again: bool,
    },
    Connect,
    Keys(bool),
    DtlsFailed,
    DtlsClosed(bool),
    ConsentLost(bool),
    Trickle(String),
    Stun(Vec<u8>),
    Wait(u64),
    HangUp,
    Abandoned,
    /// The browser holds, resumes, starts ICE over.
    Turn(usize),
    Restart,
    /// It starts over by another connection, checks there, and its handshake ends well or not.
    StartOver(u8),
    Check,
    NextKeys(bool),
    NextFailed,
    /// The browser wants something of the far end.
    Wish(usize),
    /// The far end transfers, tells of a transfer, sends a body.
    Refer(bool),
    Notify(usize),
    Info(bool),
    /// A call from the inside: it is taken, cancelled, declined, acknowledged; another INVITE replaces it.
    Take,
    Cancelled,
    Decline,
    Acknowledge(Body),
    Replace(Body),
    Prack(bool),
}

#[derive(Debug, Clone, Copy)]
enum Body {
    None,
    Good,
    Other,
    Held,
    NoCodec,
    NoAddress,
    Garbage,
}

impl Body {
    fn octets(self) -> Vec<u8> {
        match self {
            Self::None => Vec::new(),
            Self::Good => sdp("10.0.0.5", "0 8 101", ""),
            Self::Other => sdp("10.0.0.6", "8 0", "m=video 4 RTP/AVP 99\r\n"),
            Self::Held => sdp("10.0.0.5", "0", "a=inactive\r\n"),
            Self::NoCodec => sdp("10.0.0.5", "18", ""),
            Self::NoAddress => sdp("0.0.0.0", "0", ""),
            Self::Garbage => b"v=0\r\nm=audio".to_vec(),
        }
    }
}

fn body() -> impl Strategy<Value = Body> {
    let bodies =
        [Body::None, Body::Good, Body::Other, Body::Held, Body::NoCodec, Body::NoAddress, Body::Garbage];
    (0..14_usize).prop_map(move |at| *bodies.get(at).unwrap_or(&Body::Good))
}

fn tag() -> impl Strategy<Value = &'static str> {
    prop_oneof![6 => Just("pbx"), 1 => Just("fork"), 1 => Just("")]
}

fn act() -> impl Strategy<Value = Act> {
    let status = prop_oneof![
        Just(100_u16),
        Just(180),
        Just(183),
        Just(200),
        Just(200),
        Just(401),
        Just(407),
        Just(486),
        Just(487),
        Just(202),
        Just(302),
        Just(422),
        Just(481),
        Just(491),
        Just(699)
    ];
    let ours = prop_oneof![5 => Just(0_usize), 1 => 1..OURS.len()];
    let respond = (ours.clone(), status, tag(), body(), 0..4_u32);
    let ask = (0..9_usize, tag(), body(), any::<bool>());
    prop_oneof![
        4 => Just(Act::Reserve),
        6 => any::<bool>().prop_map(Act::Installed),
        1 => Just(Act::Refused),
        1 => Just(Act::Away),
        2 => any::<bool>().prop_map(Act::Back),
        1 => Just(Act::Lost),
        14 => respond.prop_map(|(method, status, tag, body, rseq)| {
            Act::Respond { method, status, tag, body, rseq }
        }),
        1 => ours.prop_map(|method| Act::Silence { method }),
        1 => (0..9_u64).prop_map(Act::Unreachable),
        8 => ask.prop_map(|(method, tag, body, again)| Act::Ask { method, tag, body, again }),
        4 => Just(Act::Connect),
        3 => any::<bool>().prop_map(Act::Keys),
        1 => Just(Act::DtlsFailed),
        1 => any::<bool>().prop_map(Act::DtlsClosed),
        1 => any::<bool>().prop_map(Act::ConsentLost),
        1 => ".{0,60}".prop_map(Act::Trickle),
        1 => proptest::collection::vec(any::<u8>(), 0..80).prop_map(Act::Stun),
        3 => (0..20_000_u64).prop_map(Act::Wait),
        1 => Just(Act::HangUp),
        1 => Just(Act::Abandoned),
        10 => later(),
    ]
}

/// What happens in the middle of a call, and to one from the inside.
fn later() -> impl Strategy<Value = Act> {
    prop_oneof![
        3 => (0..4_usize).prop_map(Act::Turn),
        1 => Just(Act::Restart),
        3 => (1..4_u8).prop_map(Act::StartOver),
        3 => Just(Act::Check),
        3 => any::<bool>().prop_map(Act::NextKeys),
        1 => Just(Act::NextFailed),
        2 => (0..4_usize).prop_map(Act::Wish),
        2 => any::<bool>().prop_map(Act::Refer),
        2 => (0..6_usize).prop_map(Act::Notify),
        1 => any::<bool>().prop_map(Act::Info),
        3 => Just(Act::Take),
        1 => Just(Act::Cancelled),
        1 => Just(Act::Decline),
        3 => body().prop_map(Act::Acknowledge),
        1 => body().prop_map(Act::Replace),
        1 => any::<bool>().prop_map(Act::Prack),
    ]
}

/// Requests of ours that are answered.
const OURS: [Method; 7] =
    [Method::Invite, Method::Bye, Method::Update, Method::Refer, Method::Info, Method::Notify, Method::Prack];

const METHODS: [Method; 8] = [
    Method::Invite,
    Method::Ack,
    Method::Bye,
    Method::Cancel,
    Method::Options,
    Method::Info,
    Method::Update,
    Method::Notify,
];

fn is_over(rig: &Rig) -> bool {
    matches!(rig.done.last(), Some(Command::Ended))
}

fn signalling(rig: &mut Rig, act: Act) {
    let of = |method: usize| OURS.get(method).cloned().unwrap_or(Method::Invite);
    match act {
        Act::Respond { method, status, tag, body, rseq } => {
            let challenge = "Digest realm=\"r\", nonce=\"n\", qop=\"auth\"";
            let rseq = rseq.to_string();
            let mut headers = vec![
                ("WWW-Authenticate", challenge),
                ("Proxy-Authenticate", challenge),
                ("Min-SE", "2000"),
                ("Session-Expires", "1800;refresher=uac"),
                ("RSeq", rseq.as_str()),
            ];
            if rseq != "0" {
                headers.push(("Require", "100rel"));
            }
            if !rig.requests(&of(method)).is_empty() {
                rig.respond(&of(method), status, tag, &body.octets(), &headers);
            }
        }
        Act::Silence { method } => {
            if let Some((transaction, _)) = rig.requests(&of(method)).pop() {
                rig.put(Input::SipTimeout(transaction));
            }
        }
        Act::Unreachable(number) => rig.put(Input::SipTransportError(TransactionId(number))),
        Act::Ask { method, tag, body, again } => {
            let method = METHODS.get(method).cloned().unwrap_or(Method::Other("DANCE".into()));
            if again {
                rig.remote_cseq = rig.remote_cseq.saturating_sub(1);
            }
            rig.ask(method, tag, &body.octets());
        }
        _ => {}
    }
}

#[expect(clippy::too_many_lines, reason = "one arm for each act")]
fn middle(rig: &mut Rig, act: Act) {
    match act {
        Act::Turn(direction) => {
            let name = ["sendrecv", "sendonly", "recvonly", "inactive"][direction];
            let _ = rig.offers_again(|text| text.replace("a=sendrecv", &format!("a={name}")));
        }
        Act::Restart => {
            let text = super::offer(&is::IceCreds::new(), "");
            let _ = rig.offers_again(|_| text);
        }
        Act::StartOver(which) => {
            let _ = rig.starts_over([which; 32], &format!("198.51.100.7:4100{which}"));
        }
        Act::Check => rig.checks_again(),
        Act::NextKeys(right) => {
            let offered = rig.call.successor.as_ref().map(|one| one.fingerprint()).filter(|_| right);
            rig.shakes_hands(offered.unwrap_or([0; 32]));
        }
        Act::NextFailed => rig.put(Input::NextDtlsFailed("failed".into())),
        Act::Wish(wish) => rig.put(match wish {
            0 => Input::Transfer(Transfer::To("1002".into())),
            1 => Input::Transfer(Transfer::To("no user".into())),
            2 => Input::Dtmf { digits: "12#".into(), duration: 100 },
            _ => Input::Info { content_type: "application/json".into(), body: b"{}".to_vec() },
        }),
        Act::Refer(good) => {
            let to = if good { "<sip:1002@10.0.0.8>" } else { "<tel:+1>" };
            rig.ask_with(Method::Refer, "pbx", b"", None, &[("Refer-To", to)]);
        }
        Act::Notify(which) => {
            let (event, state, body) = [
                ("refer", "active", "SIP/2.0 180 Ringing"),
                ("refer", "terminated", "SIP/2.0 200 OK"),
                ("refer", "terminated", "SIP/2.0 486 Busy"),
                ("refer", "terminated;reason=rejected", ""),
                ("talk", "active", ""),
                ("", "", "x"),
            ][which];
            let headers = [("Event", event), ("Subscription-State", state)];
            rig.ask_with(Method::Notify, "pbx", body.as_bytes(), None, &headers);
        }
        Act::Info(good) => {
            let body = if good { &b"Signal=1"[..] } else { b"Signal=" };
            rig.ask_with(Method::Info, "pbx", body, Some("application/dtmf-relay"), &[]);
        }
        Act::Take => {
            let _ = rig.take();
        }
        Act::Cancelled => rig.put(Input::SipCancelled(super::INVITE)),
        Act::Decline => rig.put(Input::Decline(486)),
        Act::Acknowledge(body) => {
            // Of whatever of ours waits for it.
            let cseq = rig.call.inside.unacked.as_ref().map_or(5, |unacked| unacked.cseq);
            let after = std::mem::replace(&mut rig.remote_cseq, cseq);
            rig.ask(Method::Ack, "pbx", &body.octets());
            rig.remote_cseq = after;
        }
        Act::Replace(body) => super::transfer::try_replace(rig, &body.octets()),
        Act::Prack(good) => {
            let of = |reply: &crate::sip::Response| reply.header("RSeq").next().map(str::to_owned);
            let rseq = rig.replies(super::INVITE).iter().find_map(of).filter(|_| good);
            let rack = format!("{} 5 INVITE", rseq.unwrap_or_else(|| "1".into()));
            rig.ask_with(Method::Prack, "pbx", b"", None, &[("RAck", &rack)]);
        }
        sip => signalling(rig, sip),
    }
}

fn play(rig: &mut Rig, act: Act) {
    let version = rig.plans().last().or(rig.record().as_ref()).map_or(0, |plan| plan.version);
    match act {
        Act::Reserve => rig.reserve(),
        Act::Installed(right) => rig.put(Input::Installed(if right { version } else { version + 7 })),
        Act::Refused => rig.put(Input::Refused(Refusal::Unreachable)),
        Act::Away => rig.put(Input::RelayAway),
        Act::Back(arrived) => rig.put(Input::RelayBack(if arrived { version } else { 1 })),
        Act::Lost => rig.put(Input::RelayLost),
        Act::Connect => {
            if rig.answer().is_some() {
                rig.meet();
                rig.ice(Duration::from_millis(300));
            }
        }
        Act::Keys(right) => {
            if rig.done.iter().any(|command| matches!(command, Command::Dtls(_))) {
                rig.keys(if right { FINGERPRINT } else { [0; 32] });
            }
        }
        Act::DtlsFailed => rig.put(Input::DtlsFailed("failed".into())),
        Act::DtlsClosed(returns) => rig.put(Input::DtlsClosed { returns }),
        Act::ConsentLost(current) => {
            if let Some(plan) = rig.plans().pop() {
                let mut flow = plan.consents[0].flow;
                if !current {
                    flow.remote = address("203.0.113.1:1");
                }
                rig.put(Input::ConsentLost(flow));
            }
        }
        Act::Trickle(text) => {
            let candidates = vec![format!("candidate:{text}"), text];
            rig.put(Input::Trickle { ufrag: None, candidates, end: false });
        }
        Act::Stun(payload) => {
            let (local, remote) = (super::media(), rig.at[0]);
            let path = sallyport_plan::FlowKey { zone: sallyport_plan::Zone::Outside, local, remote };
            rig.put(Input::Stun { path, payload });
        }
        Act::Wait(millis) => rig.wait(Duration::from_millis(millis)),
        Act::HangUp => rig.put(Input::HangUp),
        Act::Abandoned => rig.put(Input::Abandoned),
        other => middle(rig, other),
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1000, max_shrink_iters: 20_000, ..ProptestConfig::default() })]

    #[test]
    fn every_sequence_leaves_nothing_behind(acts in proptest::collection::vec(act(), 1..60)) {
        let mut rig = Rig { keeps: false, ..Rig::new() };
        for act in acts {
            play(&mut rig, act);
        }
        rig.finish();
    }

    #[test]
    fn every_sequence_in_the_middle_of_a_call_leaves_nothing_behind(
        acts in proptest::collection::vec(act(), 1..30),
    ) {
        let mut rig = Rig { obedient: false, acknowledges: false, ..Rig::connected() };
        for act in acts {
            play(&mut rig, act);
        }
        rig.finish();
    }

    #[test]
    fn every_sequence_of_an_adopted_call_leaves_nothing_behind(
        acts in proptest::collection::vec(act(), 1..30), answered in any::<bool>(),
    ) {
        let rig = Rig::connected();
        let plan = rig.plans()[usize::from(answered)].clone();
        let mut next = Rig::restored(&plan, rig.now);
        next.at.clone_from(&rig.at);
        for act in acts {
            if !is_over(&next) {
                play(&mut next, act);
            }
        }
        next.finish();
        rig.finish();
    }

    #[test]
    fn every_sequence_of_a_call_from_the_inside_leaves_nothing_behind(
        acts in proptest::collection::vec(act(), 1..50), body in body(), count in 0..4_usize,
    ) {
        let headers = [("Require", "100rel"), ("Supported", "timer"), ("Session-Expires", "100;refresher=uas")];
        let rig = Rig::incoming(&body.octets(), &headers[..count]);
        if let Ok(mut rig) = rig {
            (rig.acknowledges, rig.keeps) = (false, false);
            for act in acts {
                play(&mut rig, act);
            }
            rig.finish();
        }
    }

    #[test]
    fn every_sequence_in_the_middle_of_a_call_from_the_inside_leaves_nothing_behind(
        acts in proptest::collection::vec(act(), 1..30),
    ) {
        let mut rig = Rig { obedient: false, ..Rig::called() };
        for act in acts {
            play(&mut rig, act);
        }
        rig.finish();
    }
}
