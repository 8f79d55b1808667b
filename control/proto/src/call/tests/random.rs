//! Whatever happens, in whatever order: the ledger balances and nothing panics.

use std::time::Duration;

use proptest::prelude::*;
use sallyport_plan::Refusal;

use super::{FINGERPRINT, Rig, address, sdp};
use crate::api::{Command, Input};
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
    Respond { bye: bool, status: u16, tag: &'static str, body: Body },
    Silence { bye: bool },
    Unreachable(u64),
    Ask { method: usize, tag: &'static str, body: Body, again: bool },
    Connect,
    Keys(bool),
    DtlsFailed,
    DtlsClosed,
    ConsentLost(bool),
    Trickle(String),
    Stun(Vec<u8>),
    Wait(u64),
    HangUp,
    Abandoned,
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
        Just(699)
    ];
    let respond = (any::<bool>(), status, tag(), body());
    let ask = (0..9_usize, tag(), body(), any::<bool>());
    prop_oneof![
        4 => Just(Act::Reserve),
        6 => any::<bool>().prop_map(Act::Installed),
        1 => Just(Act::Refused),
        1 => Just(Act::Away),
        2 => any::<bool>().prop_map(Act::Back),
        1 => Just(Act::Lost),
        12 => respond.prop_map(|(bye, status, tag, body)| Act::Respond { bye, status, tag, body }),
        1 => any::<bool>().prop_map(|bye| Act::Silence { bye }),
        1 => (0..9_u64).prop_map(Act::Unreachable),
        8 => ask.prop_map(|(method, tag, body, again)| Act::Ask { method, tag, body, again }),
        4 => Just(Act::Connect),
        3 => any::<bool>().prop_map(Act::Keys),
        1 => Just(Act::DtlsFailed),
        1 => Just(Act::DtlsClosed),
        1 => any::<bool>().prop_map(Act::ConsentLost),
        1 => ".{0,60}".prop_map(Act::Trickle),
        1 => proptest::collection::vec(any::<u8>(), 0..80).prop_map(Act::Stun),
        3 => (0..20_000_u64).prop_map(Act::Wait),
        1 => Just(Act::HangUp),
        1 => Just(Act::Abandoned),
    ]
}

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
    let of = |bye: bool| if bye { Method::Bye } else { Method::Invite };
    match act {
        Act::Respond { bye, status, tag, body } => {
            let challenge = "Digest realm=\"r\", nonce=\"n\", qop=\"auth\"";
            let headers = [("WWW-Authenticate", challenge), ("Proxy-Authenticate", challenge)];
            if !rig.requests(&of(bye)).is_empty() {
                rig.respond(&of(bye), status, tag, &body.octets(), &headers);
            }
        }
        Act::Silence { bye } => {
            if let Some((transaction, _)) = rig.requests(&of(bye)).pop() {
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

fn play(rig: &mut Rig, act: Act) {
    let version = rig.plans().last().map_or(0, |plan| plan.version);
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
        Act::DtlsClosed => rig.put(Input::DtlsClosed),
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
        sip => signalling(rig, sip),
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, max_shrink_iters: 20_000, ..ProptestConfig::default() })]

    #[test]
    fn every_sequence_leaves_nothing_behind(acts in proptest::collection::vec(act(), 1..60)) {
        let mut rig = Rig::new();
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
        next.at = rig.at.clone();
        for act in acts {
            if !is_over(&next) {
                play(&mut next, act);
            }
        }
        next.finish();
        rig.finish();
    }
}
