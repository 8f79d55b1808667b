//! Browsers that speak SIP over WebSocket: what a library sends, and what it hears.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use boring::hash::{MessageDigest, hash};
use sallyport_plan::Zone;

use super::browser::{Browser, value};
use super::harness::{Control, Net, TOKEN, until};
use super::pbx::{Pbx, line};
use super::relay::Relay;
use super::websocket::Browser as Socket;

struct Lab {
    control: Control,
    relay: Relay,
    pbx: Pbx,
}

fn lab(sections: &[(&str, &str)]) -> Lab {
    let net = Net::new();
    let pbx = Pbx::start(net.pbx());
    let mut all = vec![("agents", "register = false")];
    if !sections.iter().any(|(name, _)| *name == "agents") {
        all.push(("agents", "numbers = 'open'"));
    }
    all.extend_from_slice(sections);
    let control = Control::start(net, &all);
    let relay = Relay::start(&control.socket(), &control.net);
    control.wait_until_ready();
    Lab { control, relay, pbx }
}

impl Lab {
    fn is_clean(&self) {
        self.control.wait_until_idle();
        self.relay.wait_until_empty();
        until("no dialog is left", || self.pbx.state().talking.is_empty());
    }

    /// Browsers signed in.
    fn sessions(&self) -> u64 {
        let metrics = self.control.ask("GET", "/metrics").text();
        let line = metrics.lines().find_map(|line| line.strip_prefix("sallyport_sessions "));
        line.unwrap_or_else(|| panic!("{metrics}")).parse().unwrap()
    }

    /// An INVITE of the inside for a number; its Call-ID names it.
    fn ring(&self, number: &str, call_id: &str) {
        let (sip, pbx) = (self.control.net.sip(), self.control.net.pbx());
        let invite = format!(
            "INVITE sip:{number}@{sip} SIP/2.0\r\nVia: SIP/2.0/UDP {pbx};branch=z9hG4bK{call_id};rport\r\nMax-Forwards: 70\r\n\
             From: <sip:1000@{pbx}>;tag=pbx\r\nTo: <sip:{number}@{sip}>\r\nCall-ID: {call_id}\r\nCSeq: 1 INVITE\r\n\
             Contact: <sip:agent@{pbx}>\r\nContent-Length: 0\r\n\r\n"
        );
        self.pbx.say(&self.pbx.with_sdp(&invite, &self.pbx.sdp()), sip);
    }

    /// The ACK to our 200 on an INVITE of the inside.
    fn acknowledge(&self, call_id: &str) {
        let (sip, pbx) = (self.control.net.sip(), self.control.net.pbx());
        let is = |answer: &&String| answer.starts_with("SIP/2.0 200 ") && line(answer, "Call-ID") == call_id;
        until("the inside is answered", || self.pbx.state().answers.iter().any(|answer| is(&answer)));
        let success = self.pbx.state().answers.iter().find(is).cloned().unwrap();
        let ack = format!(
            "ACK sip:sallyport@{sip} SIP/2.0\r\nVia: SIP/2.0/UDP {pbx};branch=z9hG4bKack{call_id}\r\nMax-Forwards: 70\r\n\
             From: {}\r\nTo: {}\r\nCall-ID: {call_id}\r\nCSeq: 1 ACK\r\nContent-Length: 0\r\n\r\n",
            line(&success, "From"),
            line(&success, "To"),
        );
        self.pbx.say(&ack, sip);
    }
}

/// A SIP library in a page, with one dialog at a time.
struct Phone {
    socket: Socket,
    number: &'static str,
    instance: usize,
    cseq: u32,
    call_id: String,
    /// To of its requests in the dialog.
    far: String,
}

impl Phone {
    fn new(control: &Control, number: &'static str) -> Self {
        static NEXT: AtomicUsize = AtomicUsize::new(1);
        let instance = NEXT.fetch_add(1, Ordering::Relaxed);
        let call_id = format!("{number}x{instance}");
        Self { socket: Socket::open(control), number, instance, cseq: 0, call_id, far: String::new() }
    }

    fn text(&mut self, method: &str, uri: &str, more: &str, body: &str) -> String {
        if method != "ACK" && method != "CANCEL" {
            self.cseq += 1;
        }
        let (number, instance, cseq, call_id) = (self.number, self.instance, self.cseq, &self.call_id);
        let branch = if method == "CANCEL" { "INVITE" } else { method };
        let kind = if body.is_empty() || more.contains("Content-Type") {
            ""
        } else {
            "Content-Type: application/sdp\r\n"
        };
        let to = if self.far.is_empty() { format!("<{uri}>") } else { self.far.clone() };
        format!(
            "{method} {uri} SIP/2.0\r\nVia: SIP/2.0/WS x.invalid;branch=z9hG4bK{call_id}{branch}{cseq}\r\nMax-Forwards: 69\r\n\
             From: <sip:{number}@lab.example>;tag=own\r\nTo: {to}\r\nCall-ID: {call_id}\r\nCSeq: {cseq} {method}\r\n\
             Contact: <sip:k{number}@x.invalid;transport=ws>;+sip.instance=\"<urn:uuid:{instance}>\";reg-id=1\r\n\
             {more}{kind}Content-Length: {}\r\n\r\n{body}",
            body.len()
        )
    }

    fn send(&mut self, method: &str, uri: &str, more: &str, body: &str) {
        let text = self.text(method, uri, more, body);
        self.socket.send(&text);
    }

    /// The next message that begins so; others are passed over.
    fn hear(&mut self, start: &str) -> String {
        let mut passed = Vec::new();
        while let Some(text) = self.socket.hear() {
            if text.starts_with(start) {
                return text;
            }
            passed.push(text);
        }
        panic!("no {start}, but {passed:?}")
    }

    fn register(&mut self, more: &str) -> String {
        let aor = format!("sip:{}@lab.example", self.number);
        self.far = format!("<{aor}>");
        self.send("REGISTER", "sip:lab.example", more, "");
        self.far.clear();
        self.socket.hear().expect("an answer")
    }

    /// Answers a request.
    fn reply(&mut self, request: &str, status: &str, body: &str) {
        let tag = if line(request, "To").contains("tag=") { "" } else { ";tag=own" };
        let kind = if body.is_empty() { "" } else { "Content-Type: application/sdp\r\n" };
        let copied: String = ["Via", "From", "Call-ID", "CSeq"]
            .map(|name| format!("{name}: {}\r\n", line(request, name)))
            .concat();
        let text = format!(
            "SIP/2.0 {status}\r\n{copied}To: {}{tag}\r\nContact: <sip:k{}@x.invalid;transport=ws>\r\n{kind}Content-Length: {}\r\n\r\n{body}",
            line(request, "To"),
            self.number,
            body.len()
        );
        self.socket.send(&text);
    }

    /// Calls, and is in the dialog that the 200 opens; the answer.
    fn call(&mut self, to: &str, offer: &str) -> String {
        self.send("INVITE", &format!("sip:{to}@lab.example"), "", offer);
        let success = self.hear("SIP/2.0 200 ");
        self.enter(line(&success, "To"));
        self.send("ACK", "sip:x@lab.example", "", "");
        body(&success).to_owned()
    }

    fn enter(&mut self, far: &str) {
        far.clone_into(&mut self.far);
    }

    fn within(&mut self, method: &str, more: &str, body: &str) -> String {
        self.send(method, "sip:sallyport@lab.example;transport=ws", more, body);
        self.hear("SIP/2.0 ")
    }

    /// Is in the dialog of an INVITE of the gateway.
    fn invited(&mut self, invite: &str) {
        self.call_id = line(invite, "Call-ID").to_owned();
        self.far = line(invite, "From").to_owned();
        self.cseq = 100;
    }
}

fn body(message: &str) -> &str {
    message.split_once("\r\n\r\n").unwrap().1
}

#[test]
fn a_number_is_registered_renewed_and_forgotten() {
    let lab = lab(&[]);
    let mut phone = Phone::new(&lab.control, "2000");
    let answer = phone.register("Expires: 600\r\nSupported: path, gruu, outbound\r\n");
    assert!(answer.starts_with("SIP/2.0 200 "), "{answer}");
    assert!(line(&answer, "Contact").starts_with("<sip:k2000@x.invalid;transport=ws>;+sip.instance="));
    assert!(line(&answer, "Contact").ends_with(";expires=600") && line(&answer, "Date").ends_with(" GMT"));
    assert!(phone.register("Expires: 120\r\n").contains(";expires=120\r\n"));
    assert!(phone.register("Expires: 5\r\n").starts_with("SIP/2.0 423 "));
    assert_eq!(lab.sessions(), 1);
    let gone = phone.register("Expires: 0\r\n");
    assert!(gone.starts_with("SIP/2.0 200 ") && !gone.contains("Contact:"), "{gone}");
    until("nobody is signed in", || lab.sessions() == 0);
    lab.ring("2000", "late");
    until("nobody is there", || {
        lab.pbx.state().answers.iter().any(|answer| answer.starts_with("SIP/2.0 480"))
    });
}

#[test]
fn a_token_is_shown_as_a_bearer_in_the_url_or_by_a_digest() {
    let lab = lab(&[("agents", "numbers = 'token'")]);
    let mut phone = Phone::new(&lab.control, "2000");
    let challenge = phone.register("Expires: 600\r\n");
    assert!(challenge.starts_with("SIP/2.0 401 "), "{challenge}");
    let digest = |challenge: &str, password: &str, count: u32| {
        let mut challenges = challenge.lines().filter(|line| line.starts_with("WWW-Authenticate: "));
        let last = challenges.next_back().expect("libraries keep the last challenge");
        let nonce = last.split('"').nth(3).unwrap();
        let md5 = |text: String| -> String {
            let digest = hash(MessageDigest::md5(), text.as_bytes()).unwrap();
            digest.iter().map(|octet| format!("{octet:02x}")).collect()
        };
        let (one, two) = (md5(format!("2000:sallyport:{password}")), md5("REGISTER:sip:lab.example".into()));
        let response = md5(format!("{one}:{nonce}:{count:08x}:c:auth:{two}"));
        format!(
            "Authorization: Digest algorithm=MD5, username=\"2000\", realm=\"sallyport\", nonce=\"{nonce}\", \
             uri=\"sip:lab.example\", response=\"{response}\", qop=auth, cnonce=\"c\", nc={count:08x}\r\n"
        )
    };
    assert!(phone.register(&digest(&challenge, "wrong", 1)).starts_with("SIP/2.0 401 "));
    let again = phone.register(&digest(&challenge, TOKEN, 1));
    assert!(
        again.starts_with("SIP/2.0 401 ") && again.contains("stale=true"),
        "a count is used once: {again}"
    );
    assert!(phone.register(&digest(&challenge, TOKEN, 2)).starts_with("SIP/2.0 401 "), "nor is an old nonce");
    assert!(phone.register(&digest(&again, TOKEN, 1)).starts_with("SIP/2.0 200 "));
    assert!(
        phone.register(&digest(&again, TOKEN, 1)).starts_with("SIP/2.0 200 "),
        "asked no more on this connection"
    );
    let mut other = Phone::new(&lab.control, "2001");
    assert!(other.register("Authorization: Bearer nonsense\r\n").starts_with("SIP/2.0 401 "));
    let bearer = format!("Authorization: Bearer {TOKEN}\r\n");
    assert!(other.register(&bearer).starts_with("SIP/2.0 200 "));
    let mut third = Phone::new(&lab.control, "2002");
    third.socket = Socket::open_at(&lab.control, &format!("/sip?token={}", TOKEN.replace(' ', "%20")));
    assert!(third.register("").starts_with("SIP/2.0 200 "));
    assert!(!lab.control.log().contains(TOKEN));
}

#[test]
fn customers_call_open_destinations_without_being_registered() {
    let lab = lab(&[("http", "anonymous = ['1000']")]);
    let mut phone = Phone::new(&lab.control, "guest");
    let browser = Browser::new(&lab.relay, lab.control.net.browser(1));
    phone.send("INVITE", "sip:1001@lab.example", "", &browser.offer("actpass"));
    let refused = phone.hear("SIP/2.0 4");
    assert!(refused.starts_with("SIP/2.0 401 "), "{refused}");
    phone.call("1000", &browser.offer("actpass"));
    assert!(phone.within("BYE", "", "").starts_with("SIP/2.0 200 "));
    lab.is_clean();
    until("nobody is signed in", || lab.sessions() == 0);
}

#[test]
fn a_call_out_connects_holds_and_ends_from_either_side() {
    let lab = lab(&[]);
    let mut phone = Phone::new(&lab.control, "2000");
    phone.register("");
    let mut browser = Browser::new(&lab.relay, lab.control.net.browser(1));
    let offer = browser.offer("actpass");
    phone.send("INVITE", "sip:late@lab.example", "", &offer);
    phone.hear("SIP/2.0 100 ");
    let ringing = phone.hear("SIP/2.0 180 ");
    assert!(line(&ringing, "To").contains(";tag=") && body(&ringing).is_empty());
    let success = phone.hear("SIP/2.0 200 ");
    assert_eq!(line(&success, "To"), line(&ringing, "To"));
    phone.enter(line(&success, "To"));
    phone.send("ACK", "sip:x@lab.example", "", "");
    browser.connect(body(&success));
    until("the relay has the keys", || {
        lab.relay.state().plans.values().any(|plan| {
            plan.directions.iter().any(|one| one.ingress[0].zone == Zone::Outside && one.open.is_some())
        })
    });
    let held = phone.within("INVITE", "", &offer.replace("a=sendrecv", "a=sendonly"));
    assert!(held.starts_with("SIP/2.0 200 ") && body(&held).contains("a=recvonly"), "{held}");
    phone.send("ACK", "sip:x@lab.example", "", "");
    let resumed = phone.within("UPDATE", "", &offer);
    assert!(resumed.starts_with("SIP/2.0 200 ") && body(&resumed).contains("a=sendrecv"), "{resumed}");
    let refreshed = phone.within("UPDATE", "Session-Expires: 90;refresher=uac\r\n", "");
    assert!(refreshed.starts_with("SIP/2.0 200 ") && body(&refreshed).is_empty());
    for (method, more, text, status) in [
        ("OPTIONS", "", "", "200"),
        ("INVITE", "", "", "488"),
        ("INVITE", "Content-Type: text/plain\r\n", "hold!", "415"),
        ("INFO", "Content-Type: application/dtmf-relay\r\n", "Signal=R\r\n", "400"),
        ("REFER", "", "", "400"),
        ("NOTIFY", "Event: refer\r\n", "", "481"),
    ] {
        let answer = phone.within(method, more, text);
        assert!(answer.starts_with(&format!("SIP/2.0 {status} ")), "{method} {answer}");
        if method == "INVITE" {
            phone.send("ACK", "sip:x@lab.example", "", "");
        }
    }
    phone.cseq -= 5;
    assert!(phone.within("OPTIONS", "", "").starts_with("SIP/2.0 500 "), "out of order");
    phone.cseq += 50;
    assert!(phone.within("BYE", "", "").starts_with("SIP/2.0 200 "));
    assert!(phone.within("OPTIONS", "", "").starts_with("SIP/2.0 481 "));
    lab.is_clean();
    phone.far.clear();
    phone.call("hangup", &offer);
    let bye = phone.hear("BYE ");
    assert!(
        bye.contains("Reason: ") && bye.starts_with("BYE sip:k2000@x.invalid;transport=ws SIP/2.0\r\n"),
        "{bye}"
    );
    phone.reply(&bye, "200 OK", "");
    lab.is_clean();
}

#[test]
fn early_media_comes_with_183_and_the_same_answer_with_200() {
    let lab = lab(&[]);
    let mut phone = Phone::new(&lab.control, "2000");
    phone.register("");
    let browser = Browser::new(&lab.relay, lab.control.net.browser(1));
    phone.send("INVITE", "sip:early@lab.example", "", &browser.offer("actpass"));
    let early = phone.hear("SIP/2.0 183 ");
    let success = phone.hear("SIP/2.0 200 ");
    assert!(!value(body(&early), "a=ice-ufrag:").is_empty());
    assert_eq!(body(&early), body(&success));
    phone.enter(line(&success, "To"));
    phone.send("ACK", "sip:x@lab.example", "", "");
    phone.within("BYE", "", "");
    lab.is_clean();
}

#[test]
fn a_call_that_fails_or_is_cancelled_has_its_status() {
    let lab = lab(&[]);
    let mut phone = Phone::new(&lab.control, "2000");
    phone.register("");
    let offer = Browser::new(&lab.relay, lab.control.net.browser(1)).offer("actpass");
    for (to, offer, status) in [
        ("busy", offer.as_str(), "486"),
        ("decline", &offer, "603"),
        ("nocodec", &offer, "488"),
        ("1000", "v=0\r\nnonsense", "488"),
    ] {
        phone.far.clear();
        phone.send("INVITE", &format!("sip:{to}@lab.example"), "", offer);
        let refused = loop {
            let answer = phone.hear("SIP/2.0 ");
            if !answer.starts_with("SIP/2.0 1") {
                break answer;
            }
        };
        assert!(refused.starts_with(&format!("SIP/2.0 {status} ")), "{to}: {refused}");
        phone.enter(line(&refused, "To"));
        phone.send("ACK", &format!("sip:{to}@lab.example"), "", "");
    }
    phone.far.clear();
    phone.send("INVITE", "sip:ring@lab.example", "", &offer);
    phone.hear("SIP/2.0 180 ");
    phone.send("CANCEL", "sip:ring@lab.example", "", "");
    assert!(line(&phone.hear("SIP/2.0 200 "), "CSeq").ends_with(" CANCEL"));
    phone.hear("SIP/2.0 487 ");
    until("the inside is cancelled", || !lab.pbx.heard("CANCEL").is_empty());
    lab.is_clean();
}

#[test]
fn a_call_in_rings_all_and_is_taken_by_the_first() {
    let lab = lab(&[]);
    let (mut phone, mut other) = (Phone::new(&lab.control, "2000"), Phone::new(&lab.control, "2000"));
    phone.register("");
    other.register("");
    lab.ring("2000", "in1");
    let (invite, second) = (phone.hear("INVITE "), other.hear("INVITE "));
    assert!(invite.starts_with("INVITE sip:k2000@x.invalid;transport=ws SIP/2.0\r\n"), "{invite}");
    assert!(line(&invite, "From").starts_with("<sip:1000@lab.example>;tag="), "{invite}");
    assert!(!invite.contains(&lab.control.net.sip().ip().to_string()), "no address of the inside: {invite}");
    assert_eq!(value(body(&invite), "a=setup:"), "actpass");
    assert_eq!(body(&invite), body(&second));
    phone.reply(&invite, "180 Ringing", "");
    let mut browser = Browser::called(&lab.relay, lab.control.net.browser(1));
    phone.reply(&invite, "200 OK", &browser.offer("active"));
    let ack = phone.hear("ACK ");
    assert!(line(&ack, "To").contains(";tag=own"));
    lab.acknowledge("in1");
    let cancel = other.hear("CANCEL ");
    assert!(line(&cancel, "Reason").contains("cause=200"), "{cancel}");
    other.reply(&cancel, "200 OK", "");
    other.reply(&second, "487 Request Terminated", "");
    other.hear("ACK ");
    browser.connect(body(&invite));
    phone.invited(&invite);
    assert!(phone.within("BYE", "", "").starts_with("SIP/2.0 200 "));
    until("the inside is hung up", || !lab.pbx.heard("BYE").is_empty());
    lab.control.wait_until_idle();
}

#[test]
fn a_call_in_that_nobody_wants_or_that_is_given_up_ends() {
    let lab = lab(&[]);
    let mut phone = Phone::new(&lab.control, "2000");
    phone.register("");
    lab.ring("2000", "in1");
    let invite = phone.hear("INVITE ");
    phone.reply(&invite, "486 Busy Here", "");
    phone.hear("ACK ");
    until("the caller hears that", || {
        lab.pbx.state().answers.iter().any(|answer| answer.starts_with("SIP/2.0 486"))
    });
    lab.ring("2000", "in2");
    let invite = phone.hear("INVITE ");
    phone.reply(&invite, "200 OK", "v=0\r\nnonsense");
    phone.hear("ACK ");
    assert!(line(&phone.hear("BYE "), "Reason").contains("488"), "an answer that cannot be one");
    until("the caller hears that", || {
        lab.pbx.state().answers.iter().any(|answer| answer.starts_with("SIP/2.0 488"))
    });
    lab.control.wait_until_idle();
}

#[test]
fn a_browser_that_comes_back_has_its_call_and_goes_on() {
    let lab = lab(&[]);
    let mut phone = Phone::new(&lab.control, "2000");
    phone.register("");
    let offer = Browser::new(&lab.relay, lab.control.net.browser(1)).offer("actpass");
    phone.call("1000", &offer);
    phone.socket = Socket::open(&lab.control);
    std::thread::sleep(Duration::from_millis(200));
    let (call_id, far) = (phone.call_id.clone(), phone.far.clone());
    phone.call_id = "another".into();
    assert!(phone.register("").starts_with("SIP/2.0 200 "));
    (phone.call_id, phone.far) = (call_id, far);
    assert_eq!(lab.control.status()["calls"]["active"], 1, "the call goes on");
    assert!(phone.within("UPDATE", "", "").starts_with("SIP/2.0 200 "), "and its dialog");
    assert!(phone.within("BYE", "", "").starts_with("SIP/2.0 200 "));
    lab.is_clean();
    until("one session is left", || lab.sessions() == 1);
}
