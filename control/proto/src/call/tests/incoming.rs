//! Calls from the inside.

use std::time::{Duration, Instant};

use is::IceCreds;
use sallyport_plan::{CallId, PortPair, Zone};

use super::{INVITE, address, invite, offer, sdp, settings};
use crate::api::{CallState, Command, EndCause, Input};
use crate::call::Call;
use crate::error::{AcceptError, OfferError};
use crate::random::Seed;
use crate::sip::{Method, Request, Response, TransactionId};

fn begin(body: &[u8]) -> Result<Call, Box<Response>> {
    let name = (CallId(9), Seed([5; 32]), 0);
    Call::incoming(name, settings(""), "2000".into(), INVITE, invite(body, &[]), Instant::now())
}

fn done(call: &mut Call) -> Vec<Command> {
    std::iter::from_fn(|| call.poll_command()).collect()
}

fn reserve(call: &mut Call) {
    let ports = PortPair { rtp: address("10.0.0.1:20000"), rtcp: address("10.0.0.1:20001") };
    call.handle(Instant::now(), Input::Reserved(vec![ports]));
}

fn replies(done: &[Command]) -> Vec<Response> {
    let of = |command: &Command| match command {
        Command::SipReply { transaction: INVITE, response } => Some(response.clone()),
        _ => None,
    };
    done.iter().filter_map(of).collect()
}

fn answer(done: &[Command]) -> Option<&str> {
    done.iter().find_map(|command| match command {
        Command::Answer(text) => Some(text.as_str()),
        _ => None,
    })
}

fn take(call: &mut Call) -> Result<(), AcceptError> {
    call.accept(&offer(&IceCreds::new(), ""), Zone::Outside, Instant::now())
}

#[test]
fn it_rings_and_is_taken_with_the_payload_types_of_the_offer() {
    let body = sdp("10.0.0.9", "96 0 101", "a=rtpmap:96 opus/48000/2\r\n");
    for ports_first in [true, false] {
        let mut call = begin(&body).unwrap();
        assert_eq!(call.view().state, CallState::Ringing);
        assert_eq!((call.view().from.as_str(), call.view().incoming), ("1000", true));
        let mut all = done(&mut call);
        if ports_first {
            reserve(&mut call);
            take(&mut call).unwrap();
        } else {
            take(&mut call).unwrap();
            assert!(replies(&done(&mut call)).is_empty(), "there are no ports yet");
            reserve(&mut call);
        }
        all.extend(done(&mut call));
        let statuses: Vec<u16> = replies(&all).iter().map(|reply| reply.status).collect();
        assert_eq!(statuses, [180, 200]);
        let ok = replies(&all).pop().unwrap();
        let text = String::from_utf8(ok.body).unwrap();
        assert!(text.contains("m=audio 20000 RTP/AVP 96 0 101\r\n"), "{text}");
        assert!(ok.to.starts_with("<sip:2000@pbx>;tag=") && ok.contact.is_some());
        assert!(answer(&all).is_some_and(|text| text.contains("m=audio 9 UDP/TLS/RTP/SAVPF 111 0 110")));
        assert_eq!(take(&mut call), Err(AcceptError::Gone), "it is taken");
        let request = Request { method: Method::Ack, to: ok.to, ..invite(b"", &[]) };
        call.handle(Instant::now(), Input::SipRequest { transaction: TransactionId(71), request });
        call.handle(Instant::now(), Input::HangUp);
        let bye = done(&mut call).into_iter().find_map(|command| match command {
            Command::Sip { request, .. } => Some(request),
            _ => None,
        });
        let bye = bye.unwrap();
        assert_eq!((bye.method, bye.uri.as_str()), (Method::Bye, "sip:anna@10.0.0.9"));
        assert_eq!(
            (bye.to.as_str(), bye.route.as_slice()),
            ("\"Anna\" <sip:1000@pbx>;tag=pbx", &["<sip:10.0.0.5;lr>".to_owned()][..])
        );
    }
}

#[test]
fn without_an_offer_the_answer_comes_in_the_ack() {
    let mut call = begin(b"").unwrap();
    reserve(&mut call);
    take(&mut call).unwrap();
    let all = done(&mut call);
    let ok = replies(&all).pop().unwrap();
    assert!(ok.status == 200 && answer(&all).is_none());
    let offered = String::from_utf8(ok.body).unwrap();
    assert!(offered.contains("m=audio 20000 RTP/AVP 0 8 107 101 102"), "{offered}");
    let request = Request { method: Method::Ack, to: ok.to, ..invite(&sdp("10.0.0.9", "8", ""), &[]) };
    call.handle(Instant::now(), Input::SipRequest { transaction: TransactionId(71), request });
    assert!(
        answer(&done(&mut call)).is_some_and(|text| text.contains("m=audio 9 UDP/TLS/RTP/SAVPF 8 126\r\n"))
    );
}

#[test]
fn whoever_gives_up_ends_it() {
    type Step = fn(&mut Call);
    let cases: [(Step, u16, EndCause); 4] = [
        (|call| call.handle(Instant::now(), Input::SipCancelled(INVITE)), 487, EndCause::Cancelled),
        (|call| call.handle(Instant::now(), Input::Decline(486)), 486, EndCause::Declined),
        (|call| call.handle(Instant::now(), Input::HangUp), 603, EndCause::HangUp),
        (|call| call.handle_timeout(Instant::now() + Duration::from_secs(61)), 480, EndCause::RingTimeout),
    ];
    for (step, status, cause) in cases {
        let mut call = begin(&sdp("10.0.0.9", "0", "")).unwrap();
        reserve(&mut call);
        step(&mut call);
        let all = done(&mut call);
        assert_eq!(replies(&all).last().map(|reply| reply.status), Some(status));
        let ended = crate::api::CallEvent::Ended { cause };
        assert!(all.contains(&Command::Notify(ended)) && all.contains(&Command::Remove));
        assert_eq!(all.last(), Some(&Command::Ended));
    }
}

#[test]
fn what_cannot_be_used_is_refused_or_rings_on() {
    assert_eq!(begin(b"nonsense").unwrap_err().status, 488);
    assert_eq!(begin(&sdp("10.0.0.9", "18", "")).unwrap_err().status, 488);
    assert_eq!(begin(&sdp("0.0.0.0", "0", "")).unwrap_err().status, 488);
    let mut call = begin(&sdp("10.0.0.9", "0", "")).unwrap();
    reserve(&mut call);
    let bad = call.accept("v=1", Zone::Outside, Instant::now());
    assert!(matches!(bad, Err(AcceptError::Offer(OfferError::Malformed(_)))), "{bad:?}");
    assert_eq!(take(&mut call), Ok(()));
}

#[test]
fn a_browser_takes_a_call_by_answering_our_offer() {
    let mut call = begin(&sdp("10.0.0.9", "8 101", "")).unwrap();
    done(&mut call);
    let text = call.offer(Zone::Outside).unwrap();
    assert_eq!(call.offer(Zone::Outside).unwrap(), text, "all browsers get the same");
    let ours = crate::sdp::BrowserOffer::parse(&text).unwrap();
    assert!(text.contains("a=setup:actpass") && text.contains("a=candidate:") && text.contains(" PCMA/8000"));
    reserve(&mut call);
    let theirs = offer(&IceCreds::new(), "");
    assert!(matches!(call.take("nonsense", Zone::Outside, Instant::now()), Err(AcceptError::Offer(_))));
    assert_eq!(call.take(&theirs, Zone::Inside, Instant::now()), Err(AcceptError::Gone), "not offered there");
    call.take(&theirs.replace("actpass", "active"), Zone::Outside, Instant::now()).unwrap();
    let done = done(&mut call);
    assert_eq!(replies(&done)[0].status, 200);
    assert_eq!(call.ice_ufrag(), ours.ufrag, "it is the agent of the offer that checks");
    assert!(answer(&done).unwrap().contains(&ours.ufrag));
    assert_eq!(call.offer(Zone::Outside), Err(AcceptError::Gone));
    assert_eq!(call.take(&theirs, Zone::Outside, Instant::now()), Err(AcceptError::Gone));
}
