//! A transfer that the far end asks for (RFC 3515, RFC 5589): we call whom it names, the browser stays where it is.

use std::time::Instant;

use super::Call;
use super::inside::{Calling, Line};
use super::peer::{PENDING, UNKNOWN, answer};
use super::requests::Purpose;
use super::secrecy::{self, Secrets};
use super::video::Saying;
use crate::api::EndCause;
use crate::sdp::{Crypto, InsideAnswer, InsideOffer};
use crate::sip::header::{name_addr, uri_of};
use crate::sip::{Dialog, Method, Request, Response, TransactionId};

/// Characters of a URI that we are sent to.
const URI_MAX: usize = 512;

/// One under way.
#[derive(Debug)]
pub(super) struct Referral {
    pub calling: Calling,
    /// Session id of its descriptions.
    session: u64,
    /// Keys of our offer to it, of sound and picture.
    crypto: [Vec<Crypto>; 2],
    /// Value of Event in its NOTIFYs.
    event: String,
    /// Status that the far end was told last; nobody wants to know more than the last one possible.
    told: u16,
    /// Nobody listens to its NOTIFYs any more.
    pub silent: bool,
}

/// Whom a Refer-To names, and the Replaces that goes along.
struct Target {
    uri: String,
    replaces: Option<String>,
}

/// Text of a URI header, unescaped; `None` where it is not what a header may hold.
fn unescaped(text: &str) -> Option<String> {
    let mut octets = Vec::new();
    let mut rest = text.bytes();
    while let Some(octet) = rest.next() {
        octets.push(match octet {
            b'%' => {
                let digits = [rest.next()?, rest.next()?];
                u8::from_str_radix(std::str::from_utf8(&digits).ok()?, 16).ok()?
            }
            other => other,
        });
    }
    let text = String::from_utf8(octets).ok()?;
    (!text.chars().any(char::is_control)).then_some(text)
}

/// A `sip:` URI that an INVITE may be sent to, without its headers.
pub(super) fn callable(uri: &str) -> Option<&str> {
    let base = uri.split('?').next()?;
    let (scheme, rest) = base.split_once(':')?;
    let octet = |octet: u8| octet.is_ascii_alphanumeric() || b"-_.!~*'()+$&=,/;:@[]%".contains(&octet);
    let invites = |part: &str| {
        part.split_once('=')
            .is_none_or(|(name, value)| !name.eq_ignore_ascii_case("method") || value == "INVITE")
    };
    let sound = scheme.eq_ignore_ascii_case("sip") && (1..=URI_MAX).contains(&rest.len());
    (sound && rest.bytes().all(octet) && rest.split(';').skip(1).all(invites)).then_some(base)
}

fn target(refer_to: &str) -> Option<Target> {
    let uri = uri_of(refer_to);
    let base = callable(uri)?;
    let headers = uri.split_once('?').map_or("", |(_, headers)| headers);
    let mut headers = headers.split('&').filter_map(|header| header.split_once('='));
    let replaces = headers.find(|(name, _)| name.eq_ignore_ascii_case("Replaces"));
    let replaces = match replaces {
        Some((_, value)) => Some(unescaped(value)?),
        None => None,
    };
    Some(Target { uri: base.to_owned(), replaces })
}

impl Call {
    /// The next tag of ours: all of one call begin alike, so that each leads to it.
    pub(super) fn next_tag(&self) -> String {
        let (base, last) = self.inside.dialog.local_tag().split_once('-').unwrap_or((self.sip_tag(), "0"));
        format!("{base}-{}", last.parse::<u32>().unwrap_or_default().wrapping_add(1))
    }

    /// A REFER within the dialog.
    pub(super) fn referred(
        &mut self,
        transaction: TransactionId,
        request: &Request,
        now: Instant,
    ) -> Option<Response> {
        if self.cause.is_some() {
            return Some(answer(request, UNKNOWN));
        }
        if self.inside.referral.is_some() {
            return Some(answer(request, PENDING));
        }
        let mut refer_to = request.header("Refer-To").chain(request.header("r"));
        let (Some(wanted), None) = (refer_to.next(), refer_to.next()) else {
            return Some(answer(request, (400, "Bad Request")));
        };
        let Some(target) = target(wanted) else { return Some(answer(request, (603, "Decline"))) };
        let mut response = answer(request, (202, "Accepted"));
        response.contact = Some(self.inside.dialog.contact.clone());
        self.reply(transaction, response);
        self.refer_to(target, request, now);
        None
    }

    fn refer_to(&mut self, target: Target, request: &Request, now: Instant) {
        let Target { uri, replaces } = target;
        let known = request.header("Referred-By").chain(request.header("b")).next().map(str::to_owned);
        let by = known.unwrap_or_else(|| name_addr(&request.from));
        let mut headers = vec![("Referred-By".to_owned(), by)];
        if let Some(replaces) = replaces {
            headers.push(("Require".to_owned(), "replaces".to_owned()));
            headers.push(("Replaces".to_owned(), replaces));
        }
        let own = &self.inside.dialog;
        let dialog = Dialog {
            from: format!("{};tag={}", name_addr(&own.from), self.next_tag()),
            to: format!("<{uri}>"),
            call_id: self.random.hex(16),
            cseq: 0,
            remote_cseq: None,
            remote_tag: None,
            target: uri,
            route: Vec::new(),
            updates: false,
            ..own.clone()
        };
        // Of several in one dialog each has its number (RFC 3515 section 2.4.6).
        let first = !std::mem::replace(&mut self.inside.referred, true);
        let event = if first { "refer".to_owned() } else { format!("refer;id={}", request.cseq) };
        let session = self.random.u64() >> 2;
        let calling = Calling::new(dialog, headers);
        self.inside.referral =
            Some(Referral { calling, session, event, told: 0, silent: false, crypto: Default::default() });
        self.progress(100);
        self.send_invite(Line::Referred, now);
    }

    /// The offer to the one whom we were sent to: our ports, what the browser was told.
    pub(super) fn referred_offer(&mut self) -> String {
        let (codecs, direction) = (self.offered(), self.outside.direction);
        let (policy, mut video) = (self.settings.sip.policy.srtp, self.video.says(Saying::Offer));
        let (Some(referral), Some(own)) = (&mut self.inside.referral, &self.inside.offer) else {
            return String::new();
        };
        let [sound, picture] = &mut referral.crypto;
        let keying = secrecy::first_lines(policy, sound, &mut self.random);
        if let Some(video) = &mut video {
            video.keying = secrecy::first_lines(policy, picture, &mut self.random);
        }
        let offer = InsideOffer { session: referral.session, ..own.clone() };
        offer.text(1, &codecs, direction, video.as_ref(), &[], &keying)
    }

    /// Tells the far end how far it is, each status once.
    pub(super) fn progress(&mut self, status: u16) {
        let Some(referral) = self.inside.referral.as_mut() else { return };
        if referral.silent || referral.told == status || self.inside.gone {
            return;
        }
        referral.told = status;
        let event = referral.event.clone();
        let state = if status < 200 { "active;expires=180" } else { "terminated;reason=noresource" };
        let mut request = self.inside.dialog.next(Method::Notify);
        request.contact = Some(self.inside.dialog.contact.clone());
        request.headers.push(("Event".into(), event));
        request.headers.push(("Subscription-State".into(), state.into()));
        request.content_type = Some("message/sipfrag;version=2.0".into());
        request.body = format!("SIP/2.0 {status} {}\r\n", words(status)).into_bytes();
        self.ask(Purpose::Progress, request);
    }

    /// A NOTIFY of ours has its answer.
    pub(super) fn progress_settled(&mut self, status: u16) {
        if let Some(referral) = self.inside.referral.as_mut().filter(|_| status >= 300) {
            referral.silent = true;
        }
    }

    /// Whom we were sent to has answered, and has its ACK.
    pub(super) fn referral_answered(&mut self, response: &Response, now: Instant) {
        self.deadlines.referral = None;
        let Some(referral) = &self.inside.referral else { return };
        let (mut dialog, session) = (referral.calling.dialog.clone(), referral.session);
        let answer = InsideAnswer::parse(&response.body).ok().filter(InsideAnswer::has_address);
        // It may have crossed our CANCEL.
        let wanted = self.cause.is_none() && !referral.calling.is_cancelled();
        let [sound, picture] = &referral.crypto;
        let fit = answer.filter(|_| wanted).and_then(|mut answer| {
            let policy = self.settings.sip.policy.srtp;
            let keys = secrecy::all_taken(policy, [sound, picture], &mut answer).ok()?;
            self.fit(answer, keys).ok()
        });
        let Some(fit) = fit else {
            let bye = dialog.bye(Vec::new());
            self.ask(Purpose::Farewell, bye);
            if self.cause.is_none() {
                self.referral_failed(488, now);
            }
            return;
        };
        self.progress(response.status);
        let Some(referral) = self.inside.referral.take() else { return };
        self.switch_to(dialog, session, now);
        self.inside.owner = true;
        self.inside.invite = Some(referral.calling);
        self.adopt(fit);
        self.timer_agreed(response, now);
        self.replan(now);
        self.settle_direction(now);
    }

    /// Another dialog is the call's inside from now on: what was under way in the former one is of no interest.
    pub(super) fn switch_to(&mut self, dialog: Dialog, session: u64, now: Instant) {
        self.retire_reinvite();
        self.replaced_by(dialog, now);
        let inside = &mut self.inside;
        if let Some(offer) = &mut inside.offer {
            offer.session = session;
        }
        (inside.version, inside.said, inside.told) = (1, None, self.outside.direction);
        (inside.unacked, inside.transferring, inside.referred) = (None, false, false);
        inside.digits.clear();
        inside.invited = None;
        // Whoever is there now has keys of its own.
        inside.sdes = Secrets::default();
        inside.timer = super::timer::Timer::default();
        (self.deadlines.glare, self.deadlines.refresh, self.deadlines.expiry) = (None, None, None);
    }

    /// Nobody is there in whose favour the far end could leave; where it has left already the call is over.
    pub(super) fn referral_failed(&mut self, status: u16, now: Instant) {
        self.deadlines.referral = None;
        self.progress(status);
        self.inside.referral = None;
        if self.inside.gone {
            self.end(EndCause::Rejected(status), now);
        }
    }
}

/// The words of RFC 3261 section 21 for what a transfer comes to.
const fn words(status: u16) -> &'static str {
    match status {
        100 => "Trying",
        180 => "Ringing",
        200..=299 => "OK",
        486 => "Busy Here",
        603 => "Decline",
        101..=199 => "Progress",
        _ => "Failed",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refer_to_names_whom_to_call_and_whom_to_replace() {
        let cases = [
            ("<sip:1002@10.0.0.5:5060;transport=udp>", Some(("sip:1002@10.0.0.5:5060;transport=udp", None))),
            ("sip:1002@pbx;x=y", Some(("sip:1002@pbx", None))),
            (
                "\"B\" <sip:b@pbx?Replaces=a%40b%3Bto-tag%3D1%3Bfrom-tag%3D2&Require=replaces>",
                Some(("sip:b@pbx", Some("a@b;to-tag=1;from-tag=2"))),
            ),
            ("<sip:b@pbx?Replaces=a%0d%0aX:y>", None),
            ("<sip:b@pbx?Replaces=a%4>", None),
            ("<sip:b@pbx;method=BYE>", None),
            ("<sip:b@pbx;method=INVITE>", Some(("sip:b@pbx;method=INVITE", None))),
            ("<tel:+1>", None),
            ("<http://example.com>", None),
            ("<sip:>", None),
            ("<sip:a b@pbx>", None),
        ];
        for (value, expected) in cases {
            let found = target(value).map(|target| (target.uri, target.replaces));
            let expected = expected.map(|(uri, replaces)| (uri.to_owned(), replaces.map(str::to_owned)));
            assert_eq!(found, expected, "{value}");
        }
    }
}
