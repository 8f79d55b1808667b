//! Sign-ins of every kind, and tokens good and bad.

use std::time::{SystemTime, UNIX_EPOCH};

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use ring::signature::{Ed25519KeyPair, KeyPair};
use serde_json::{Value, json};

use super::*;

const SECRET: &str = "a secret of thirty-two octets, or more";
const OTHER: &str = "another secret of thirty-two octets...";

fn pair() -> Ed25519KeyPair {
    Ed25519KeyPair::from_seed_unchecked(&[7; 32]).unwrap()
}

fn token(header: &Value, claims: &Value, sign: impl Fn(&[u8]) -> Vec<u8>) -> String {
    let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
    let message = format!("{}.{}", part(header), part(claims));
    let signature = URL_SAFE_NO_PAD.encode(sign(message.as_bytes()));
    format!("{message}.{signature}")
}

fn hs256(secret: &str, claims: &Value) -> String {
    let key = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, secret.as_bytes());
    let sign = |message: &[u8]| ring::hmac::sign(&key, message).as_ref().to_vec();
    token(&json!({ "alg": "HS256", "typ": "JWT" }), claims, sign)
}

fn eddsa(claims: &Value) -> String {
    let pair = pair();
    token(&json!({ "alg": "EdDSA" }), claims, |message| pair.sign(message).as_ref().to_vec())
}

fn soon() -> i64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    i64::try_from(now).unwrap() + 60
}

fn config(numbers: Numbers) -> Config {
    let mut config = Config::default();
    config.agents.numbers = numbers;
    config.http.tokens = vec!["an opaque token".into()];
    config.http.anonymous = vec!["9000".into()];
    config.identity.hs256 = vec![OTHER.into(), SECRET.into()];
    config.identity.ed25519 = vec![STANDARD.encode(pair().public_key())];
    config
}

fn identities(numbers: Numbers) -> Identities {
    Identities::new(&config(numbers)).unwrap()
}

fn client() -> IpAddr {
    "198.51.100.7".parse().unwrap()
}

fn with(number: Option<&str>, password: &str, token: Option<String>) -> Credentials {
    let display_name = "Ann".to_owned();
    Credentials { number: number.map(str::to_owned), password: password.into(), display_name, token }
}

#[test]
fn each_mode_asks_for_what_it_says() {
    let agent = || Some(hs256(SECRET, &json!({ "sub": "1001", "exp": soon() })));
    let customer = || Some(hs256(SECRET, &json!({ "exp": soon() })));
    let opaque = || Some("an opaque token".to_owned());
    let (limits, number) = (Numbers::Token, Some("1001"));
    // Mode, number, password, token: whether an agent gets in, and whether the SIP server verifies it.
    let cases = [
        (limits, number, "", None, Err(Denied::NoToken)),
        (limits, number, "secret", None, Err(Denied::NoToken)),
        (limits, number, "", agent(), Ok(false)),
        (limits, None, "", agent(), Ok(false)),
        (limits, Some("1002"), "", agent(), Err(Denied::OtherNumber)),
        (limits, number, "", customer(), Err(Denied::OtherNumber)),
        (limits, number, "", opaque(), Ok(false)),
        (Numbers::Password, number, "", None, Err(Denied::NoPassword)),
        (Numbers::Password, number, "secret", None, Ok(true)),
        (Numbers::Password, number, "", agent(), Ok(false)),
        (Numbers::Password, Some("1002"), "secret", agent(), Err(Denied::OtherNumber)),
        (Numbers::Password, number, "secret", customer(), Ok(true)),
        (Numbers::Open, number, "", None, Ok(false)),
    ];
    for (mode, number, password, token, expected) in cases {
        let credentials = with(number, password, token);
        let outcome = identities(mode).admit(client(), &credentials);
        assert_eq!(
            outcome.as_ref().map(|sign_in| sign_in.verify).map_err(Clone::clone),
            expected,
            "{mode:?}"
        );
        if let Ok(sign_in) = outcome {
            assert_eq!(sign_in.party.unwrap().user, "1001");
            assert_eq!((sign_in.reach, sign_in.client), (Reach::Anybody, None));
        }
    }
}

#[test]
fn a_customer_calls_whom_its_token_or_the_configuration_names() {
    let reach = |token: Option<String>| {
        let sign_in = identities(Numbers::Token).admit(client(), &with(None, "", token)).unwrap();
        assert!(sign_in.party.is_none());
        (sign_in.reach, sign_in.client.is_some())
    };
    let only = |to: &str| Reach::Only(vec![to.into()]);
    assert_eq!(reach(None), (only("9000"), true));
    let claims = json!({ "exp": soon(), "sallyport": { "to": ["1000"] } });
    assert_eq!(reach(Some(eddsa(&claims))), (only("1000"), true));
    assert_eq!(reach(Some(hs256(SECRET, &json!({ "exp": soon() })))), (only("9000"), true));
    assert_eq!(reach(Some("an opaque token".into())), (Reach::Anybody, false));
    assert!(only("*").allows("1") && !only("9000").allows("900"));
}

#[test]
fn tokens_are_believed_under_their_own_key_and_in_their_time_only() {
    let identities = identities(Numbers::Token);
    let claims = json!({ "sub": "1001", "exp": soon(), "name": "Ann" });
    for good in [hs256(SECRET, &claims), hs256(OTHER, &claims), eddsa(&claims)] {
        assert_eq!(identities.bearer(&good).unwrap().number.as_deref(), Some("1001"), "{good}");
    }
    // The public key as a secret is the classic confusion of algorithms.
    let key = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, pair().public_key().as_ref());
    let confused = token(&json!({ "alg": "HS256" }), &claims, |message| {
        ring::hmac::sign(&key, message).as_ref().to_vec()
    });
    let signed = hs256(SECRET, &claims);
    let (message, _) = signed.rsplit_once('.').unwrap();
    let crit = json!({ "alg": "EdDSA", "crit": ["b64"], "b64": false });
    let past = json!({ "sub": "1001", "exp": soon() - 60 - 31 });
    let leeway = json!({ "sub": "1001", "exp": soon() - 60 - 20 });
    assert!(identities.bearer(&hs256(SECRET, &leeway)).is_ok());
    for (bad, expected) in [
        (confused, "none of ours"),
        (hs256("a third secret of thirty-two octets....", &claims), "none of ours"),
        (format!("{message}."), "none of ours"),
        (message.to_owned(), "none of ours"),
        (token(&json!({ "alg": "none" }), &claims, |_| Vec::new()), "none of ours"),
        (token(&json!({ "alg": "HS512" }), &claims, |_| vec![0; 64]), "none of ours"),
        (token(&crit, &claims, |message| pair().sign(message).as_ref().to_vec()), "extension"),
        (signed.replace('.', ".."), "none of ours"),
        ("x".repeat(5000), "too long"),
        (hs256(SECRET, &past), "expired"),
        (hs256(SECRET, &json!({ "sub": "1001" })), "lacks a claim"),
        (hs256(SECRET, &json!({ "sub": "1001", "exp": "soon" })), "claim"),
        (hs256(SECRET, &json!({ "sub": "1001", "exp": soon(), "nbf": soon() })), "not valid yet"),
        (hs256(SECRET, &json!({ "sub": "1001", "exp": soon(), "nbf": "x" })), "wrong kind"),
        (hs256(SECRET, &json!({ "sub": "1001", "exp": soon(), "aud": "others" })), "audience"),
        (hs256(SECRET, &json!({ "sub": 1001, "exp": soon() })), "wrong kind"),
        (hs256(SECRET, &json!({ "sub": "10 01", "exp": soon() })), "no directory number"),
    ] {
        match identities.bearer(&bad) {
            Err(Denied::Token(text)) => assert!(text.contains(expected), "{bad}: {text}"),
            other => panic!("{bad}: {other:?}"),
        }
    }
}

#[test]
fn issuer_and_audience_are_required_where_they_are_configured() {
    let mut config = config(Numbers::Token);
    config.identity.issuer = "https://id.example".into();
    config.identity.audience = "sallyport".into();
    let identities = Identities::new(&config).unwrap();
    for (issuer, audience, good) in [
        (json!("https://id.example"), json!("sallyport"), true),
        (json!("https://id.example"), json!(["other", "sallyport"]), true),
        (json!("https://id.example"), json!(null), false),
        (json!("https://id.example"), json!("other"), false),
        (json!("https://evil.example"), json!("sallyport"), false),
        (json!(null), json!("sallyport"), false),
    ] {
        let claims = json!({ "sub": "1", "exp": soon(), "iss": issuer, "aud": audience });
        assert_eq!(identities.bearer(&eddsa(&claims)).is_ok(), good, "{claims}");
    }
}

#[test]
fn keys_that_are_none_are_refused_by_name() {
    let pem = "-----BEGIN PUBLIC KEY-----\nMCowBQYDK2VwAyEAGb9ECWmEzf6FQbrBZ9w7lshQhqowtrbLDFw4rXAxZuE=\n-----END PUBLIC KEY-----\n";
    for (hs256, ed25519, good) in [
        (vec![SECRET], vec![pem], true),
        (vec![], vec!["Gb9ECWmEzf6FQbrBZ9w7lshQhqowtrbLDFw4rXAxZuE="], true),
        (vec![], vec!["Gb9ECWmEzf6FQbrBZ9w7lshQhqowtrbLDFw4rXAxZuE"], true),
        (vec!["a short secret"], vec![], false),
        (vec![], vec!["Gb9ECWmEzf6FQbrBZ9w7lshQhqowtrbLDFw4rXAx"], false),
        (vec![], vec!["-----BEGIN PUBLIC KEY-----\nMFk=\n-----END PUBLIC KEY-----\n"], false),
        (vec![], vec!["no key at all"], false),
    ] {
        let texts = |list: Vec<&str>| list.into_iter().map(str::to_owned).collect::<Vec<_>>();
        let mut config = Config::default();
        config.identity.hs256 = texts(hs256);
        config.identity.ed25519 = texts(ed25519.clone());
        let outcome = Identities::new(&config);
        assert_eq!(outcome.is_ok(), good, "{ed25519:?}");
        assert!(
            outcome.err().is_none_or(|text| text.starts_with("[identity]") && !text.contains("secret of"))
        );
    }
}

#[test]
fn what_cannot_be_a_number_a_name_or_a_password_is_denied() {
    let identities = identities(Numbers::Open);
    for (number, name, password) in [
        ("", "", ""),
        ("1 2", "", ""),
        ("1@evil", "", ""),
        ("1;x", "", ""),
        ("1\r\nX: y", "", ""),
        ("1", "a\r\nX: y", ""),
        ("1", "", "a\nb"),
        (&"1".repeat(65), "", ""),
        ("1", &"n".repeat(129), ""),
        ("1", "", &"p".repeat(257)),
    ] {
        let credentials = Credentials { display_name: name.into(), ..with(Some(number), password, None) };
        let outcome = identities.admit(client(), &credentials);
        assert!(matches!(outcome, Err(Denied::Malformed(_))), "{credentials:?} {outcome:?}");
    }
    assert!(!format!("{:?}", with(Some("1"), "hush", Some("token".into()))).contains("hush"));
}

#[test]
fn wrong_passwords_use_up_a_client_s_and_a_number_s_sign_ins() {
    let mut config = config(Numbers::Password);
    (config.agents.sign_ins_per_minute, config.agents.number_sign_ins_per_minute) = (20, 10);
    let identities = Identities::new(&config).unwrap();
    let wrong = with(Some("1001"), "wrong", None);
    for _ in 0..2 {
        identities.admit(client(), &wrong).unwrap();
        identities.settle(client(), &wrong, Err(&SignInError::Refused { status: Some(403) }));
    }
    let elsewhere = "203.0.113.9".parse().unwrap();
    assert!(matches!(identities.admit(elsewhere, &wrong), Err(Denied::Limited(_))), "the number is used up");
    let other = with(Some("1002"), "right", None);
    identities.admit(client(), &other).unwrap();
    for _ in 0..3 {
        identities.settle(client(), &other, Err(&SignInError::Refused { status: Some(403) }));
    }
    assert!(matches!(identities.admit(client(), &other), Err(Denied::Limited(_))), "the client is used up");
    let token = with(Some("1001"), "", Some(hs256(SECRET, &json!({ "sub": "1001", "exp": soon() }))));
    assert!(identities.admit(elsewhere, &token).is_ok(), "a token is not held up by strangers");
    assert_eq!((identities.counts().denied, identities.counts().limited), (5, 2));
}
