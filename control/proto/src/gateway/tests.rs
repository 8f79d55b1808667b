//! A phone, with the test as its browser and as its daemon.

use std::sync::Arc;
use std::time::{Duration, Instant};

use sallyport_plan::CallId;

use super::{GRACE, Phone, PhoneAct, PhoneCommand, PhoneInput, PhoneSettings, Refusal, Secret};
use crate::api::{CallEvent, EndCause};
use crate::random::Seed;
use crate::sip::header::tag_of;
use crate::sip::{Method, Request, Response, TransactionId};

const OFFER: &str = "v=0\r\noffer";

struct Rig {
    phone: Phone,
    now: Instant,
    next: u64,
    cseq: u32,
}

fn rig(challenges: bool) -> Rig {
    let settings = PhoneSettings { agent: "test".into(), secrets: vec![Secret("token".into())], challenges };
    let phone = Phone::new(Arc::new(settings), Seed([7; 32]), None);
    Rig { phone, now: Instant::now(), next: 500, cseq: 0 }
}

fn request(method: &str, uri: &str, cseq: u32) -> Request {
    Request {
        method: Method::from(method),
        uri: uri.into(),
        from: "<sip:2000@lab.example>;tag=own".into(),
        to: "<sip:2000@lab.example>".into(),
        call_id: "c1".into(),
        cseq,
        route: Vec::new(),
        record_route: Vec::new(),
        contact: Some("<sip:k@x.invalid;transport=ws>;+sip.instance=\"<urn:uuid:1>\";reg-id=1".into()),
        content_type: None,
        headers: Vec::new(),
        body: Vec::new(),
    }
}

fn with_offer(mut request: Request) -> Request {
    request.content_type = Some("application/sdp".into());
    request.body = OFFER.into();
    request
}

impl Rig {
    fn happens(&mut self, input: PhoneInput) -> Vec<PhoneCommand> {
        self.phone.handle(self.now, input);
        std::iter::from_fn(|| self.phone.poll_command()).collect()
    }

    fn asks(&mut self, request: Request) -> Vec<PhoneCommand> {
        self.next += 1;
        self.happens(PhoneInput::Request { transaction: TransactionId(self.next), request })
    }

    fn passes(&mut self, time: Duration) -> Vec<PhoneCommand> {
        self.now += time;
        self.phone.handle_timeout(self.now);
        std::iter::from_fn(|| self.phone.poll_command()).collect()
    }

    fn register(&mut self) {
        self.cseq += 1;
        let done = self.asks(request("REGISTER", "sip:lab.example", self.cseq));
        assert!(matches!(&done[..], [PhoneCommand::SignIn { number: Some(number), .. }] if number == "2000"));
        assert_eq!(statuses(&self.happens(PhoneInput::SignedIn(Ok(None)))), [200]);
    }

    /// A call that is up: its name, and a request of the browser in its dialog.
    fn call(&mut self, call_id: &str) -> (CallId, Request) {
        let mut invite = with_offer(request("INVITE", "sip:1000@lab.example", 1));
        call_id.clone_into(&mut invite.call_id);
        let done = self.asks(invite.clone());
        let Some(PhoneCommand::Create { call, to, .. }) = done.last() else { panic!("{done:?}") };
        assert_eq!(to, "1000");
        let (call, outcome) = (*call, Ok(("answer".to_owned(), true)));
        let done = self.happens(PhoneInput::Created { call, outcome });
        let [PhoneCommand::Reply { response, .. }] = &done[..] else { panic!("{done:?}") };
        assert_eq!((response.status, response.body.as_slice()), (200, &b"answer"[..]));
        (call, Request { to: response.to.clone(), cseq: 2, body: Vec::new(), content_type: None, ..invite })
    }

    /// A call that rings: its name, its INVITE and that's number.
    fn rings(&mut self) -> (CallId, Request, TransactionId) {
        let call = CallId(77);
        let done = self.happens(PhoneInput::Incoming { call, from: "1000".into(), offer: OFFER.into() });
        let [PhoneCommand::Send { transaction, request }] = &done[..] else { panic!("{done:?}") };
        assert_eq!(
            (request.method.clone(), request.uri.as_str()),
            (Method::Invite, "sip:k@x.invalid;transport=ws")
        );
        assert_eq!(request.body, OFFER.as_bytes());
        (call, request.clone(), *transaction)
    }
}

fn statuses(done: &[PhoneCommand]) -> Vec<u16> {
    let status = |command: &PhoneCommand| match command {
        PhoneCommand::Reply { response, .. } => Some(response.status),
        _ => None,
    };
    done.iter().filter_map(status).collect()
}

fn sent(done: &[PhoneCommand]) -> Vec<&Request> {
    let mut requests = Vec::new();
    for command in done {
        if let PhoneCommand::Send { request, .. } = command {
            requests.push(request);
        }
    }
    requests
}

fn answer(invite: &Request, status: u16, body: &str) -> Response {
    let mut response = Response::to_request(invite, status, "");
    response.to.push_str(";tag=far");
    response.contact = Some("<sip:k@x.invalid>".into());
    if !body.is_empty() {
        response.content_type = Some("application/sdp".into());
        response.body = body.into();
    }
    response
}

#[test]
fn a_register_is_judged_by_its_parts() {
    let mut rig = rig(true);
    assert_eq!(statuses(&rig.asks(request("REGISTER", "sip:lab.example", 1))), [401], "challenged unasked");
    type Spoil = fn(&mut Request);
    let cases: [(&str, Spoil, u16); 5] = [
        ("another's", |request| request.from = "<sip:1@lab.example>;tag=a".into(), 403),
        (
            "nobody's",
            |request| {
                (request.to, request.from) = ("<sip:lab.example>".into(), "<sip:lab.example>;tag=a".into())
            },
            404,
        ),
        ("too short", |request| request.headers.push(("Expires".into(), "10".into())), 423),
        ("star", |request| request.contact = Some("*".into()), 400),
        ("no contact", |request| request.contact = None, 200),
    ];
    for (name, change, status) in cases {
        let mut wrong = request("REGISTER", "sip:lab.example", 2);
        change(&mut wrong);
        assert_eq!(statuses(&rig.asks(wrong)), [status], "{name}");
    }
    let mut shown = request("REGISTER", "sip:lab.example", 3);
    shown.headers.push(("Authorization".into(), "Bearer a.b.c".into()));
    let done = rig.asks(shown);
    assert!(
        matches!(&done[..], [PhoneCommand::SignIn { token: Some(Secret(token)), .. }] if token == "a.b.c"),
        "a token is judged elsewhere"
    );
    assert_eq!(statuses(&rig.happens(PhoneInput::SignedIn(Err(Refusal::plain(403))))), [403]);
    assert!(rig.phone.name().is_none());
}

#[test]
fn a_registration_is_renewed_ends_in_time_and_then_signs_out() {
    let mut rig = rig(false);
    rig.register();
    assert_eq!(rig.phone.name(), Some(("2000", "\"<urn:uuid:1>\" 1")));
    rig.passes(Duration::from_secs(500));
    assert_eq!(statuses(&rig.asks(request("REGISTER", "sip:lab.example", 1))), [500], "an old CSeq");
    assert_eq!(statuses(&rig.asks(request("REGISTER", "sip:lab.example", 2))), [200], "renewed at once");
    assert!(rig.passes(Duration::from_secs(500)).is_empty());
    assert_eq!(rig.passes(Duration::from_secs(101)), [PhoneCommand::SignOut]);
}

#[test]
fn a_call_out_is_told_as_it_goes() {
    let mut rig = rig(false);
    let done = rig.asks(with_offer(request("INVITE", "sip:1000@lab.example;user=phone", 1)));
    assert_eq!(statuses(&done), [100]);
    assert!(matches!(done.last(), Some(PhoneCommand::SignIn { number: None, .. })), "a customer");
    let done = rig.happens(PhoneInput::SignedIn(Ok(None)));
    let [PhoneCommand::Create { call, to, .. }] = &done[..] else { panic!("{done:?}") };
    let (call, to) = (*call, to.clone());
    assert_eq!(to, "1000");
    let event = |event| PhoneInput::Event { call, event };
    assert_eq!(statuses(&rig.happens(event(CallEvent::Ringing))), [180]);
    assert!(rig.happens(event(CallEvent::Ringing)).is_empty(), "said once");
    let early = rig.happens(PhoneInput::Created { call, outcome: Ok(("answer".into(), false)) });
    assert_eq!(statuses(&early), [183]);
    let done = rig.happens(event(CallEvent::Answered));
    let [PhoneCommand::Reply { response, .. }] = &done[..] else { panic!("{done:?}") };
    assert_eq!((response.status, response.body.as_slice()), (200, &b"answer"[..]));
    let done = rig.happens(event(CallEvent::Ended { cause: EndCause::RemoteHangUp }));
    let [bye] = sent(&done)[..] else { panic!("{done:?}") };
    assert_eq!((bye.method.clone(), bye.uri.as_str()), (Method::Bye, "sip:k@x.invalid;transport=ws"));
    assert_eq!(done.last(), Some(&PhoneCommand::SignOut), "a customer without a call is nobody");
}

#[test]
fn a_call_that_fails_early_or_late_has_its_status() {
    let mut rig = rig(false);
    rig.register();
    for (early, cause, status) in [
        (false, EndCause::RingTimeout, 486),
        (true, EndCause::RingTimeout, 480),
        (true, EndCause::NoCodec, 488),
    ] {
        let done = rig.asks(with_offer(request("INVITE", "sip:1000@lab.example", 1)));
        let Some(PhoneCommand::Create { call, .. }) = done.last() else { panic!("{done:?}") };
        let call = *call;
        if early {
            rig.happens(PhoneInput::Created { call, outcome: Ok(("answer".into(), false)) });
        }
        let mut done = rig.happens(PhoneInput::Event { call, event: CallEvent::Ended { cause } });
        done.extend(rig.happens(PhoneInput::Created { call, outcome: Err(Refusal::plain(486)) }));
        assert_eq!(statuses(&done), [status]);
    }
    for (change, status) in [("text/plain", 415), ("", 488)] {
        let mut wrong = with_offer(request("INVITE", "sip:1000@lab.example", 1));
        wrong.content_type = Some(change.to_owned()).filter(|kind| !kind.is_empty());
        if change.is_empty() {
            wrong.body.clear();
        }
        assert_eq!(statuses(&rig.asks(wrong)), [status]);
    }
}

#[test]
fn a_cancelled_call_is_abandoned_and_its_answer_hung_up() {
    let mut rig = rig(false);
    rig.register();
    let done = rig.asks(with_offer(request("INVITE", "sip:1000@lab.example", 1)));
    let Some(PhoneCommand::Create { call, .. }) = done.last() else { panic!("{done:?}") };
    let call = *call;
    let done = rig.happens(PhoneInput::Cancelled(TransactionId(rig.next)));
    assert_eq!(statuses(&done), [487]);
    assert_eq!(done.last(), Some(&PhoneCommand::Abandon(call)));
    let late = rig.happens(PhoneInput::Created { call, outcome: Ok(("answer".into(), true)) });
    assert_eq!(late, [PhoneCommand::HangUp(call)]);
}

#[test]
fn offers_in_a_call_are_answered_one_at_a_time() {
    let mut rig = rig(false);
    rig.register();
    let (call, within) = rig.call("c2");
    let offer = |cseq| with_offer(Request { method: Method::Invite, cseq, ..within.clone() });
    assert!(matches!(&rig.asks(offer(2))[..], [PhoneCommand::Renegotiate { .. }]));
    assert_eq!(statuses(&rig.asks(offer(3))), [500], "the first is not answered yet");
    assert_eq!(statuses(&rig.happens(PhoneInput::Renegotiated { call, outcome: Ok("new".into()) })), [200]);
    rig.asks(offer(4));
    assert_eq!(
        statuses(&rig.happens(PhoneInput::Renegotiated { call, outcome: Err(Refusal::plain(488)) })),
        [488]
    );
    let bye = Request { method: Method::Bye, cseq: 5, ..within.clone() };
    let done = rig.asks(bye.clone());
    assert_eq!((statuses(&done), done.last()), (vec![200], Some(&PhoneCommand::HangUp(call))));
    assert_eq!(statuses(&rig.asks(Request { cseq: 6, ..bye })), [481]);
}

#[test]
fn a_picture_of_the_far_side_is_offered_by_an_invite_within_the_call() {
    let mut rig = rig(false);
    rig.register();
    let (call, within) = rig.call("c2");
    let wants = |rig: &mut Rig| rig.happens(PhoneInput::Event { call, event: CallEvent::VideoOffered });
    let offers =
        |rig: &mut Rig| rig.happens(PhoneInput::PictureOffer { call, offer: Some("v=0\r\npicture".into()) });
    // An offer of the browser's comes first.
    let own = |cseq: u32| with_offer(Request { method: Method::Invite, cseq, ..within.clone() });
    rig.asks(own(20));
    assert_eq!(wants(&mut rig), []);
    let done = rig.happens(PhoneInput::Renegotiated { call, outcome: Ok("new".into()) });
    assert!(done.contains(&PhoneCommand::AskPicture(call)), "{done:?}");
    let done = offers(&mut rig);
    let [PhoneCommand::Send { transaction, request }] = &done[..] else { panic!("{done:?}") };
    assert_eq!((&request.method, &request.body[..]), (&Method::Invite, &b"v=0\r\npicture"[..]));
    assert!(tag_of(&request.to).is_some() && request.contact.is_some(), "{request:?}");
    assert_eq!(statuses(&rig.asks(own(21))), [491], "ours comes first");
    let mut response = answer(request, 200, "taken");
    response.to.clone_from(&request.to);
    let answered = PhoneInput::Response { transaction: *transaction, response: response.clone() };
    let done = rig.happens(answered);
    let taken = PhoneCommand::PictureAnswer { call, answer: "taken".into() };
    assert!(matches!(&done[..], [PhoneCommand::Ack(_), second] if *second == taken), "{done:?}");
    let again = rig.happens(PhoneInput::Response { transaction: *transaction, response });
    assert!(matches!(&again[..], [PhoneCommand::Ack(_)]), "{again:?}");
    // One that is not taken, and one that crosses the browser's own offer.
    for (status, later) in [(488, false), (491, true)] {
        assert_eq!(wants(&mut rig), [PhoneCommand::AskPicture(call)]);
        let done = offers(&mut rig);
        let [PhoneCommand::Send { transaction, request }] = &done[..] else { panic!("{done:?}") };
        let mut response = answer(request, status, "");
        response.to.clone_from(&request.to);
        assert_eq!(rig.happens(PhoneInput::Response { transaction: *transaction, response }), []);
        rig.asks(own(status.into()));
        let done = rig.happens(PhoneInput::Renegotiated { call, outcome: Ok("new".into()) });
        assert_eq!(done.contains(&PhoneCommand::AskPicture(call)), later, "{status}");
    }
    assert_eq!(rig.happens(PhoneInput::PictureOffer { call, offer: None }), [], "there is nothing to offer");
    assert_eq!(wants(&mut rig), [PhoneCommand::AskPicture(call)]);
}

#[test]
fn a_call_in_is_taken_by_the_answer_and_lost_by_a_bye() {
    let mut rig = rig(false);
    rig.register();
    let (call, invite, transaction) = rig.rings();
    let success = answer(&invite, 200, "answer");
    assert!(rig.happens(PhoneInput::Response { transaction, response: answer(&invite, 180, "") }).is_empty());
    let done = rig.happens(PhoneInput::Response { transaction, response: success.clone() });
    assert!(
        matches!(&done[..], [PhoneCommand::Ack(ack), PhoneCommand::Take { answer, .. }]
            if tag_of(&ack.to) == Some("far") && answer == "answer"),
        "{done:?}"
    );
    let again = rig.happens(PhoneInput::Response { transaction, response: success });
    assert!(matches!(&again[..], [PhoneCommand::Ack(_)]), "each 2xx has its ACK");
    let lost = rig.happens(PhoneInput::Took { call, outcome: Err(Refusal::plain(481)) });
    assert_eq!(sent(&lost)[0].method, Method::Bye);
}

#[test]
fn a_call_in_ends_as_the_browser_or_another_one_says() {
    let mut rig = rig(false);
    rig.register();
    for (status, told) in [(486, 486), (603, 603), (302, 480), (408, 480)] {
        let (call, invite, transaction) = rig.rings();
        let done = rig.happens(PhoneInput::Response { transaction, response: answer(&invite, status, "") });
        assert_eq!(done, [PhoneCommand::Decline { call, status: told }]);
    }
    let (call, invite, transaction) = rig.rings();
    let done = rig.happens(PhoneInput::Taken(call));
    let [PhoneCommand::Cancel { request, .. }] = &done[..] else { panic!("{done:?}") };
    assert!(request.header("Reason").next().unwrap().contains("cause=200"));
    let crossing =
        rig.happens(PhoneInput::Response { transaction, response: answer(&invite, 200, "answer") });
    assert!(
        matches!(&crossing[..], [PhoneCommand::Ack(_), PhoneCommand::Send { request, .. }] if request.method == Method::Bye)
    );
    let (call, _, transaction) = rig.rings();
    assert_eq!(rig.happens(PhoneInput::Silence(transaction)), [PhoneCommand::Decline { call, status: 480 }]);
}

#[test]
fn a_refer_is_followed_by_notifies_to_its_end() {
    let mut rig = rig(false);
    rig.register();
    let (call, within) = rig.call("c2");
    let mut refer = Request { method: Method::Refer, cseq: 9, ..within };
    refer.headers.push(("Refer-To".into(), "<sip:1001@lab.example>".into()));
    let done = rig.asks(refer);
    assert_eq!(statuses(&done), [202]);
    assert_eq!(sent(&done)[0].body, b"SIP/2.0 100 Trying\r\n");
    let input = PhoneAct::TransferTo("1001".into());
    assert_eq!(done.last(), Some(&PhoneCommand::Act { call, input }));
    let done = rig.happens(PhoneInput::Event { call, event: CallEvent::Transfer { status: 200 } });
    let notify = sent(&done)[0];
    assert_eq!(notify.header("Event").collect::<Vec<_>>(), ["refer;id=9"]);
    assert!(notify.header("Subscription-State").next().unwrap().starts_with("terminated"));
    assert_eq!(notify.body, b"SIP/2.0 200 OK\r\n");
    assert!(rig.happens(PhoneInput::Event { call, event: CallEvent::Transfer { status: 200 } }).is_empty());
}

#[test]
fn a_refer_with_replaces_names_another_call_in_either_order_of_tags() {
    let mut rig = rig(false);
    rig.register();
    let (call, within) = rig.call("c2");
    let (onto, other) = rig.call("c3");
    let far = tag_of(&other.to).unwrap();
    for (cseq, to, from) in [(5, far, "own"), (6, "own", far)] {
        let mut refer = Request { method: Method::Refer, cseq, ..within.clone() };
        let value = format!("<sip:1001@lab.example?Replaces=c3%3Bto-tag%3D{to}%3Bfrom-tag%3D{from}>");
        refer.headers.push(("Refer-To".into(), value));
        let input = PhoneAct::TransferOnto(onto);
        assert_eq!(rig.asks(refer).last(), Some(&PhoneCommand::Act { call, input }));
        rig.happens(PhoneInput::Event { call, event: CallEvent::Transfer { status: 503 } });
    }
    let mut wrong = Request { method: Method::Refer, cseq: 7, ..within };
    wrong
        .headers
        .push(("Refer-To".into(), "<sip:1001@lab.example?Replaces=c3%3Bto-tag%3Dx%3Bfrom-tag%3Dy>".into()));
    assert_eq!(statuses(&rig.asks(wrong)), [403]);
}

#[test]
fn a_connection_that_is_gone_leaves_its_calls_a_while() {
    let mut rig = rig(false);
    rig.register();
    let (call, _) = rig.call("c2");
    let (ringing, ..) = rig.rings();
    let done = rig.happens(PhoneInput::Disconnected);
    assert_eq!(
        done,
        [PhoneCommand::Decline { call: ringing, status: 480 }],
        "what rings there rings elsewhere"
    );
    assert!(rig.passes(GRACE - Duration::from_secs(1)).is_empty() && !rig.phone.is_over());
    assert_eq!(rig.passes(Duration::from_secs(1)), [PhoneCommand::HangUp(call), PhoneCommand::SignOut]);
    assert!(rig.phone.is_over());
}

#[test]
fn a_browser_that_comes_back_goes_on_with_its_dialogs() {
    let mut former = rig(false);
    former.register();
    let (call, within) = former.call("c2");
    former.happens(PhoneInput::Disconnected);
    let mut rig = rig(false);
    rig.asks(request("REGISTER", "sip:lab.example", 1));
    rig.phone.adopt(&mut former.phone);
    assert_eq!(statuses(&rig.happens(PhoneInput::SignedIn(Ok(None)))), [200]);
    assert!(former.phone.is_over() && former.passes(GRACE).is_empty(), "nothing is left there to hang up");
    let bye = Request { method: Method::Bye, cseq: 9, ..within };
    assert_eq!(rig.asks(bye).last(), Some(&PhoneCommand::HangUp(call)));
}

fn with(mut request: Request, headers: &[(&str, &str)]) -> Request {
    request.headers.extend(headers.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())));
    request
}

fn reply(done: &[PhoneCommand]) -> &Response {
    let found = done.iter().find_map(|command| match command {
        PhoneCommand::Reply { response, .. } if response.status >= 200 => Some(response),
        _ => None,
    });
    found.unwrap_or_else(|| panic!("{done:?}"))
}

#[test]
fn what_an_invite_depends_on_and_is_not_there_is_named() {
    let mut rig = rig(false);
    rig.register();
    let invite = || with_offer(request("INVITE", "sip:1000@lab.example", 1));
    let done = rig.asks(with(invite(), &[("Require", "100rel, timer, Replaces")]));
    let refused = reply(&done);
    assert_eq!((refused.status, refused.header("Unsupported").next()), (420, Some("100rel, Replaces")));
    let done = rig.asks(with(invite(), &[("Replaces", "a;to-tag=b;from-tag=c")]));
    assert_eq!(statuses(&done), [481]);
    let done = rig.asks(with(invite(), &[("Supported", "100rel, timer"), ("Session-Expires", "60")]));
    let refused = reply(&done);
    assert_eq!((refused.status, refused.header("Min-SE").next()), (422, Some("90")));
}

#[test]
fn a_session_that_its_browser_does_not_refresh_ends() {
    let mut rig = rig(false);
    rig.register();
    let (call, within) = rig.call("c3");
    let update = |cseq| {
        let update = Request { method: Method::Update, cseq, ..within.clone() };
        with(update, &[("Supported", "timer"), ("Session-Expires", "120;refresher=uac")])
    };
    let done = rig.asks(update(2));
    let agreed = reply(&done);
    assert_eq!(agreed.header("Session-Expires").next(), Some("120;refresher=uac"));
    assert_eq!(agreed.header("Require").next(), Some("timer"));
    assert!(rig.passes(Duration::from_secs(80)).is_empty());
    assert_eq!(statuses(&rig.asks(update(3))), [200]);
    assert!(rig.passes(Duration::from_secs(80)).is_empty(), "it was refreshed");
    let done = rig.passes(Duration::from_secs(9));
    assert!(done.contains(&PhoneCommand::HangUp(call)), "32 s before its end: {done:?}");
    assert_eq!(sent(&done)[0].method, Method::Bye);
}

#[test]
fn a_session_that_is_ours_to_refresh_is_refreshed_and_ends_with_its_dialog() {
    let mut rig = rig(false);
    rig.register();
    let (call, within) = rig.call("c4");
    let update = Request { method: Method::Update, cseq: 2, ..within };
    let done = rig.asks(with(update, &[("Session-Expires", "100;refresher=uas")]));
    assert_eq!(reply(&done).header("Session-Expires").next(), Some("100;refresher=uas"));
    let refresh = |rig: &mut Rig, seconds, status| {
        let done = rig.passes(Duration::from_secs(seconds));
        let [PhoneCommand::Send { transaction, request }] = &done[..] else { panic!("{done:?}") };
        assert_eq!((&request.method, request.body.len()), (&Method::Update, 0));
        assert_eq!(request.header("Session-Expires").next(), Some("100;refresher=uac"));
        rig.happens(PhoneInput::Response { transaction: *transaction, response: answer(request, status, "") })
    };
    assert!(refresh(&mut rig, 51, 200).is_empty());
    assert!(refresh(&mut rig, 51, 491).is_empty(), "refused for now");
    assert_eq!(refresh(&mut rig, 6, 481), [PhoneCommand::HangUp(call)]);
}
