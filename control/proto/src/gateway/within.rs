//! Requests of the browser within its dialogs.

use sallyport_plan::CallId;

use super::calling::offered;
use super::text::is_type;
use super::timers::long_enough;
use super::{Phone, PhoneAct, PhoneCommand, Refusal, State};
use crate::sip::header::tag_of;
use crate::sip::{Method, Request, TransactionId};

/// Milliseconds of a digit whose length is not said.
const DIGIT_MS: u16 = 100;

impl Phone {
    pub(super) fn within(&mut self, transaction: TransactionId, request: Request) {
        let Some(call) = self.leg_of(&request) else {
            if request.method != Method::Ack {
                self.refuse(transaction, &request, Refusal::plain(481));
            }
            return;
        };
        let Some(leg) = self.legs.get_mut(&call) else { return };
        if request.method == Method::Ack {
            return;
        }
        if !leg.dialog.admit(&request) {
            self.refuse(
                transaction,
                &request,
                Refusal::because(500, "the CSeq is not higher than the last one"),
            );
            return;
        }
        if let Err(refusal) = self.obey(call, transaction, &request) {
            self.refuse(transaction, &request, refusal);
        }
    }

    /// RFC 3261 section 12.2.2.
    fn leg_of(&self, request: &Request) -> Option<CallId> {
        let (own, theirs) = (tag_of(&request.to), tag_of(&request.from));
        let same = |leg: &super::Leg| {
            leg.dialog.call_id == request.call_id
                && Some(leg.dialog.local_tag()) == own
                && leg.dialog.remote_tag.as_deref() == theirs
        };
        self.legs.iter().find(|(_, leg)| same(leg)).map(|(call, _)| *call)
    }

    fn obey(&mut self, call: CallId, transaction: TransactionId, request: &Request) -> Result<(), Refusal> {
        match request.method {
            Method::Bye => {
                self.good(transaction, request);
                self.bye(call);
                Ok(())
            }
            Method::Invite => self.reinvited(call, transaction, request),
            Method::Update if !request.body.is_empty() => self.reinvited(call, transaction, request),
            Method::Update => {
                long_enough(request)?;
                if let Some(leg) = self.legs.get_mut(&call) {
                    leg.dialog.refresh(request.contact.as_deref());
                }
                let mut response = self.answer(request, 200);
                response.contact = Some(self.contact());
                self.agree(call, request, &mut response);
                self.reply(transaction, response);
                Ok(())
            }
            Method::Options => {
                self.good(transaction, request);
                Ok(())
            }
            Method::Info => self.told(call, transaction, request),
            Method::Refer => self.referred(call, transaction, request),
            Method::Notify | Method::Prack | Method::Cancel => Err(Refusal::plain(481)),
            Method::Ack | Method::Register | Method::Subscribe | Method::Other(_) => Err(Refusal::plain(405)),
        }
    }

    pub(super) fn good(&mut self, transaction: TransactionId, request: &Request) {
        let response = self.answer(request, 200);
        self.reply(transaction, response);
    }

    /// The browser hangs up; before the answer that is a way to cancel (RFC 3261 section 15.1.1).
    fn bye(&mut self, call: CallId) {
        if matches!(self.legs.get(&call).map(|leg| &leg.state), Some(State::Calling(_))) {
            self.give_up(call);
            return;
        }
        self.legs.remove(&call);
        self.commands.push_back(PhoneCommand::HangUp(call));
    }

    /// Holds, resumes, restarts ICE.
    fn reinvited(
        &mut self,
        call: CallId,
        transaction: TransactionId,
        request: &Request,
    ) -> Result<(), Refusal> {
        offered(request)?;
        long_enough(request)?;
        let pending = Refusal::plain(491);
        let leg = self.legs.get_mut(&call).ok_or(Refusal::plain(481))?;
        if leg.offering.is_some() {
            return Err(Refusal { retry_after: Some(1), ..Refusal::plain(500) });
        }
        // Ours comes first (RFC 3261 section 14.2).
        if !matches!(leg.state, State::Up) || leg.picture.is_offered() {
            return Err(pending);
        }
        leg.dialog.refresh(request.contact.as_deref());
        leg.offering = Some((transaction, request.clone()));
        let offer = String::from_utf8_lossy(&request.body).into_owned();
        self.commands.push_back(PhoneCommand::Renegotiate { call, offer });
        Ok(())
    }

    pub(super) fn renegotiated(&mut self, call: CallId, outcome: Result<String, Refusal>) {
        let Some((transaction, request)) = self.legs.get_mut(&call).and_then(|leg| leg.offering.take())
        else {
            return;
        };
        self.ask_for_picture(call);
        match outcome {
            Ok(answer) => {
                let mut response = self.answer(&request, 200);
                response.contact = Some(self.contact());
                response.content_type = Some("application/sdp".into());
                response.body = answer.into_bytes();
                self.agree(call, &request, &mut response);
                self.reply(transaction, response);
            }
            Err(refusal) => self.refuse(transaction, &request, refusal),
        }
    }

    /// INFO: a digit, or user data (RFC 6086).
    fn told(&mut self, call: CallId, transaction: TransactionId, request: &Request) -> Result<(), Refusal> {
        let kind = request.content_type.as_deref();
        if !request.body.is_empty() {
            let act = if is_type(kind, "application/dtmf-relay") || is_type(kind, "application/dtmf") {
                let text = String::from_utf8_lossy(&request.body).into_owned();
                let (digit, duration) = digit(&text).ok_or(Refusal::because(400, "no digit is named"))?;
                PhoneAct::Dtmf(digit, duration)
            } else {
                let kind = kind.ok_or(Refusal::plain(415))?;
                PhoneAct::Info(kind.to_owned(), request.body.clone())
            };
            self.commands.push_back(PhoneCommand::Act { call, input: act });
        }
        self.good(transaction, request);
        Ok(())
    }
}

/// `Signal=5` and `Duration=160` of `application/dtmf-relay`, or the digit alone of `application/dtmf`.
fn digit(text: &str) -> Option<(char, u16)> {
    let line = |name: &str| {
        text.lines().find_map(|line| {
            let (have, value) = line.split_once('=')?;
            have.trim().eq_ignore_ascii_case(name).then(|| value.trim())
        })
    };
    let signal = line("Signal").unwrap_or_else(|| text.trim());
    let mut characters = signal.chars();
    let digit = characters.next()?.to_ascii_uppercase();
    (characters.next().is_none() && "0123456789ABCD*#".contains(digit)).then_some(())?;
    let duration = line("Duration").and_then(|text| text.parse().ok()).unwrap_or(DIGIT_MS);
    Some((digit, duration))
}

#[cfg(test)]
mod tests {
    use super::digit;

    #[test]
    fn digits_are_read_as_both_libraries_write_them() {
        assert_eq!(digit("Signal=5\r\nDuration=160"), Some(('5', 160)));
        assert_eq!(digit("Signal= #\nDuration= 250\n"), Some(('#', 250)));
        assert_eq!(digit("a"), Some(('A', 100)));
        for wrong in ["", "Signal=55", "Signal=R\r\n", "Duration=100"] {
            assert_eq!(digit(wrong), None, "{wrong}");
        }
    }
}
