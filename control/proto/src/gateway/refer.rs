//! REFER of the browser: a transfer of its far end, and what it is told of that (RFC 3515).

use sallyport_plan::CallId;

use super::text::{called, reason, refer_to};
use super::{Phone, PhoneAct, PhoneCommand, Purpose, Refusal, State};
use crate::sip::{Method, Request, TransactionId};

/// Seconds that a browser is told of a transfer.
const EXPIRES: u32 = 180;

/// A browser that is told how far a transfer is.
#[derive(Debug, Clone, Copy)]
pub struct Subscription {
    /// CSeq of the REFER.
    id: u32,
}

impl Phone {
    pub(super) fn referred(
        &mut self,
        call: CallId,
        transaction: TransactionId,
        request: &Request,
    ) -> Result<(), Refusal> {
        let leg = self.legs.get(&call).ok_or(Refusal::plain(481))?;
        if !matches!(leg.state, State::Up) {
            return Err(Refusal::because(403, "the call is not established"));
        }
        if leg.subscription.is_some() {
            return Err(Refusal::plain(491));
        }
        let mut values = request.header("Refer-To");
        let (Some(value), None) = (values.next(), values.next()) else {
            return Err(Refusal::because(400, "a REFER needs one Refer-To"));
        };
        let (uri, headers) = refer_to(value);
        let replaces = headers.iter().find(|(name, _)| name.eq_ignore_ascii_case("Replaces"));
        let act = match replaces {
            Some((_, replaces)) => {
                let onto = self.named(replaces).filter(|onto| *onto != call);
                let text = "Replaces names no other established call of this browser";
                PhoneAct::TransferOnto(onto.ok_or(Refusal::because(403, text))?)
            }
            None => {
                let to =
                    called(&uri, &self.host).ok_or(Refusal::because(400, "the Refer-To names nobody"))?;
                PhoneAct::TransferTo(to)
            }
        };
        let mut response = self.answer(request, 202);
        response.contact = Some(self.contact());
        self.reply(transaction, response);
        if let Some(leg) = self.legs.get_mut(&call) {
            leg.subscription = Some(Subscription { id: request.cseq });
        }
        self.notify(call, 100);
        self.commands.push_back(PhoneCommand::Act { call, input: act });
        Ok(())
    }

    /// The established call that a Replaces names (RFC 3891); which tag is whose depends on the library.
    fn named(&self, replaces: &str) -> Option<CallId> {
        let mut parts = replaces.split(';').map(str::trim);
        let call_id = parts.next()?;
        let tags: Vec<&str> =
            parts.filter_map(|part| part.split_once('=')).map(|(_, tag)| tag.trim()).collect();
        let same = |leg: &super::Leg| {
            let own = leg.dialog.local_tag();
            matches!(leg.state, State::Up)
                && leg.dialog.call_id == call_id
                && tags.contains(&own)
                && leg.dialog.remote_tag.as_deref().is_some_and(|tag| tags.contains(&tag))
        };
        self.legs.iter().find(|(_, leg)| same(leg)).map(|(call, _)| *call)
    }

    /// How far a transfer is; a final status is the last word.
    pub(super) fn notify(&mut self, call: CallId, status: u16) {
        let Some(leg) = self.legs.get_mut(&call) else { return };
        let Some(Subscription { id }) = leg.subscription else { return };
        let state = if status < 200 {
            format!("active;expires={EXPIRES}")
        } else {
            "terminated;reason=noresource".into()
        };
        if status >= 200 {
            leg.subscription = None;
        }
        let mut request = leg.dialog.next(Method::Notify);
        request.contact = Some(leg.dialog.contact.clone());
        request.headers.push(("Event".into(), format!("refer;id={id}")));
        request.headers.push(("Subscription-State".into(), state));
        request.content_type = Some("message/sipfrag;version=2.0".into());
        request.body = format!("SIP/2.0 {status} {}\r\n", reason(status)).into_bytes();
        self.send(Purpose::Within(call), request);
    }
}
