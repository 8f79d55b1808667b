//! A registration through its life, against a server that the tests play.

use super::*;

fn settings() -> RegistrationSettings {
    RegistrationSettings {
        domain: "pbx.example".into(),
        place: "10.0.0.1:5060".into(),
        expires: Duration::from_secs(300),
        user_agent: "sallyport/test".into(),
    }
}

fn begun(password: &str) -> Registration {
    let party = Party { user: "1001".into(), display_name: String::new(), password: password.into() };
    Registration::new(settings(), party, Seed([3; 32]))
}

/// The REGISTER that is sent now, and nothing else.
fn sent(registration: &mut Registration) -> (TransactionId, Request) {
    match registration.poll_command() {
        Some(RegistrationCommand::Send { transaction, request }) => {
            assert!(registration.poll_command().is_none());
            (transaction, *request)
        }
        other => panic!("{other:?}"),
    }
}

fn state(registration: &mut Registration) -> RegistrationState {
    match registration.poll_command() {
        Some(RegistrationCommand::State(state)) => state,
        other => panic!("{other:?}"),
    }
}

fn answer(request: &Request, status: u16, headers: &[(&str, &str)]) -> Response {
    let mut response = Response::to_request(request, status, "");
    for (name, value) in headers {
        match *name {
            "Contact" => response.contact = Some((*value).to_owned()),
            _ => response.headers.push(((*name).into(), (*value).into())),
        }
    }
    response
}

fn reply(registration: &mut Registration, now: Instant, status: u16, headers: &[(&str, &str)]) {
    let (transaction, request) = sent(registration);
    registration.handle_response(now, transaction, &answer(&request, status, headers));
}

fn expires(request: &Request) -> &str {
    request.header("Expires").next().unwrap()
}

fn wait(registration: &Registration, now: Instant) -> u64 {
    registration.poll_timeout().unwrap().saturating_duration_since(now).as_secs()
}

#[test]
fn it_registers_refreshes_and_unregisters_under_one_call_id() {
    let (mut registration, now) = (begun(""), Instant::now());
    let (first, request) = sent(&mut registration);
    assert_eq!((request.uri.as_str(), expires(&request)), ("sip:pbx.example", "300"));
    assert_eq!(request.contact.as_deref(), Some("<sip:1001@10.0.0.1:5060>"));
    assert_eq!(request.to, "<sip:1001@pbx.example>");
    let contact = "<sip:1001@10.0.0.2>;expires=30, <sip:1001@10.0.0.1:5060;ob>;expires=120";
    registration.handle_response(now, first, &answer(&request, 100, &[]));
    registration.handle_response(now, first, &answer(&request, 200, &[("Contact", contact)]));
    assert_eq!(state(&mut registration), RegistrationState::Registered);
    assert_eq!(wait(&registration, now), 90, "30 s before 120 s are over");
    registration.handle_timeout(now + Duration::from_secs(89));
    assert!(registration.poll_command().is_none());
    let later = now + Duration::from_secs(90);
    registration.handle_timeout(later);
    let (second, again) = sent(&mut registration);
    assert_eq!((again.call_id, again.cseq), (request.call_id.clone(), request.cseq + 1));
    assert_eq!(again.from, request.from);
    // A late answer to the former one means nothing.
    registration.handle_response(later, first, &answer(&request, 403, &[]));
    registration.handle_response(later, second, &answer(&request, 200, &[("Expires", "3600")]));
    assert!(registration.poll_command().is_none(), "nothing new");
    assert_eq!(wait(&registration, later), 2880, "80 % of an hour");
    registration.unwant();
    assert_eq!(state(&mut registration), RegistrationState::Unregistering);
    let (last, request) = sent(&mut registration);
    assert_eq!((expires(&request), request.cseq), ("0", 3));
    registration.handle_response(later, last, &answer(&request, 200, &[]));
    assert_eq!(state(&mut registration), RegistrationState::Ended);
    assert!(registration.poll_command().is_none() && registration.poll_timeout().is_none());
}

#[test]
fn a_refresh_comes_in_time_whatever_is_granted() {
    for (granted, expected) in
        [(3600, 2880), (300, 240), (120, 90), (61, 31), (60, 30), (10, 5), (1, 1), (0, 1)]
    {
        let wait = refresh(Duration::from_secs(granted));
        assert_eq!(wait.as_secs(), expected, "{granted}");
    }
}

#[test]
fn challenges_are_answered_stale_ones_again_and_wrong_passwords_once() {
    const NONCE: [(&str, &str); 1] =
        [("WWW-Authenticate", "Digest realm=\"pbx\", nonce=\"n1\", qop=\"auth\", algorithm=SHA-256")];
    const STALE: [(&str, &str); 1] = [(
        "WWW-Authenticate",
        "Digest realm=\"pbx\", nonce=\"n2\", qop=\"auth\", algorithm=SHA-256, stale=true",
    )];
    let (mut registration, now) = (begun("secret"), Instant::now());
    reply(&mut registration, now, 401, &NONCE);
    let (transaction, request) = sent(&mut registration);
    let proof = request.header("Authorization").next().unwrap().to_owned();
    assert!(proof.contains("username=\"1001\"") && proof.contains("nc=00000001"), "{proof}");
    registration.handle_response(now, transaction, &answer(&request, 200, &[]));
    assert_eq!(state(&mut registration), RegistrationState::Registered);
    // The refresh carries the next count under the same nonce, and survives a new one.
    registration.handle_timeout(now + Duration::from_secs(240));
    let (transaction, request) = sent(&mut registration);
    assert!(request.header("Authorization").next().unwrap().contains("nc=00000002"));
    registration.handle_response(now, transaction, &answer(&request, 401, &STALE));
    let (transaction, request) = sent(&mut registration);
    assert!(request.header("Authorization").next().unwrap().contains("nonce=\"n2\""));
    // The same question again says that the password is wrong.
    registration.handle_response(now, transaction, &answer(&request, 401, &NONCE));
    assert_eq!(state(&mut registration), RegistrationState::Failed { status: Some(401) });
    assert!(registration.poll_command().is_none(), "it is not tried on and on");
    registration.want("another");
    assert_eq!(state(&mut registration), RegistrationState::Registering);
    reply(&mut registration, now, 401, &NONCE);
    reply(&mut registration, now, 200, &[]);
    assert_eq!(state(&mut registration), RegistrationState::Registered);
}

#[test]
fn without_a_password_a_challenge_is_a_refusal() {
    let (mut registration, now) = (begun(""), Instant::now());
    reply(&mut registration, now, 401, &[("WWW-Authenticate", "Digest realm=\"pbx\", nonce=\"n\"")]);
    let failed = state(&mut registration);
    assert!(failed.is_refusal() && registration.poll_command().is_none(), "{failed:?}");
}

#[test]
fn too_short_a_time_is_asked_for_again_as_long_as_it_must_be() {
    let (mut registration, now) = (begun(""), Instant::now());
    reply(&mut registration, now, 423, &[("Min-Expires", "600")]);
    let (transaction, request) = sent(&mut registration);
    assert_eq!(expires(&request), "600");
    // One that asks for the same again is not followed for ever.
    registration.handle_response(now, transaction, &answer(&request, 423, &[("Min-Expires", "600")]));
    assert_eq!(state(&mut registration), RegistrationState::Failed { status: Some(423) });
}

#[test]
fn it_waits_as_told_or_longer_and_longer() {
    let (mut registration, mut now) = (begun(""), Instant::now());
    reply(&mut registration, now, 503, &[("Retry-After", "7 (busy);duration=3")]);
    let failed = state(&mut registration);
    assert!(failed == RegistrationState::Failed { status: Some(503) } && !failed.is_refusal());
    assert_eq!(wait(&registration, now), 7);
    for longest in [60, 120, 240, 480, 960, 1800, 1800] {
        now = registration.poll_timeout().unwrap();
        registration.handle_timeout(now);
        let (transaction, _) = sent(&mut registration);
        registration.handle_lost(now, transaction);
        if longest == 60 {
            assert_eq!(state(&mut registration), RegistrationState::Failed { status: None });
        }
        let wait = wait(&registration, now);
        assert!((longest / 2..=longest).contains(&wait), "{wait} of {longest}");
    }
    now = registration.poll_timeout().unwrap();
    registration.handle_timeout(now);
    reply(&mut registration, now, 404, &[]);
    assert!(state(&mut registration).is_refusal());
    assert_eq!(wait(&registration, now), 600);
}

#[test]
fn who_goes_while_it_registers_is_taken_back_and_who_comes_back_is_registered_anew() {
    let (mut registration, now) = (begun(""), Instant::now());
    let (transaction, request) = sent(&mut registration);
    registration.unwant();
    assert_eq!(state(&mut registration), RegistrationState::Unregistering);
    assert!(registration.poll_command().is_none(), "one REGISTER at a time");
    registration.handle_response(now, transaction, &answer(&request, 200, &[]));
    let (transaction, request) = sent(&mut registration);
    assert_eq!(expires(&request), "0");
    registration.want("");
    assert_eq!(state(&mut registration), RegistrationState::Registering);
    registration.handle_response(now, transaction, &answer(&request, 200, &[]));
    let (transaction, request) = sent(&mut registration);
    assert_eq!(expires(&request), "300");
    registration.handle_response(now, transaction, &answer(&request, 200, &[]));
    assert_eq!(state(&mut registration), RegistrationState::Registered);
}

#[test]
fn a_server_that_does_not_answer_keeps_nobody_from_ending() {
    let (mut registration, now) = (begun(""), Instant::now());
    let (transaction, _) = sent(&mut registration);
    registration.handle_lost(now, transaction);
    assert_eq!(state(&mut registration), RegistrationState::Failed { status: None });
    // The server may have heard it: it is told.
    registration.unwant();
    assert_eq!(state(&mut registration), RegistrationState::Unregistering);
    let (transaction, request) = sent(&mut registration);
    assert_eq!(expires(&request), "0");
    registration.handle_lost(now, transaction);
    assert_eq!(state(&mut registration), RegistrationState::Ended);
    // A number that was refused has nothing to be taken back.
    let mut registration = begun("");
    reply(&mut registration, now, 403, &[]);
    state(&mut registration);
    registration.unwant();
    assert_eq!(state(&mut registration), RegistrationState::Unregistering);
    assert_eq!(state(&mut registration), RegistrationState::Ended);
}

#[test]
fn what_a_server_may_have_forgotten_is_told_again_soon() {
    let (mut registration, now) = (begun(""), Instant::now());
    reply(&mut registration, now, 200, &[("Expires", "3600")]);
    assert_eq!(state(&mut registration), RegistrationState::Registered);
    registration.renew(now, Duration::from_secs(5));
    assert!(registration.poll_timeout().unwrap() <= now + Duration::from_secs(5));
    registration.handle_timeout(now + Duration::from_secs(5));
    reply(&mut registration, now, 503, &[("Retry-After", "1000")]);
    assert_eq!(state(&mut registration), RegistrationState::Failed { status: Some(503) });
    assert_eq!(wait(&registration, now), 1000);
    registration.renew(now, Duration::from_secs(5));
    assert!(wait(&registration, now) <= 5, "another server may take it");
    // Who was refused stays so, who leaves is not told again.
    registration.handle_timeout(now + Duration::from_secs(5));
    reply(&mut registration, now, 403, &[]);
    assert_eq!(state(&mut registration), RegistrationState::Failed { status: Some(403) });
    registration.renew(now, Duration::from_secs(5));
    assert_eq!(wait(&registration, now), 600);
}
