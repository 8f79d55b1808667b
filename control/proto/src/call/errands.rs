//! What a browser wants of the inside in the middle of a call: digits, user data, a transfer, other media.

use std::time::Instant;

use super::Call;
use crate::api::{Command, Transfer};
use crate::error::AcceptError;
use crate::sdp::{AnswerParts, BrowserOffer, browser_answer};
use crate::sip::Method;

impl Call {
    /// The browser offers anew: it holds, or resumes.
    ///
    /// # Errors
    /// [`AcceptError`]: nothing has changed then.
    pub fn renegotiate(&mut self, offer: &str, now: Instant) -> Result<(), AcceptError> {
        if self.cause.is_some() || !self.replied {
            return Err(AcceptError::Gone);
        }
        let offer = BrowserOffer::parse(offer)?;
        let (Some(ice), Some(answer)) = (&self.outside.ice, &self.inside.answer) else {
            return Err(AcceptError::Gone);
        };
        self.outside.version += 1;
        self.outside.direction = offer.direction;
        let cname = format!("{:08x}", self.ssrc.0);
        let parts = AnswerParts {
            session: (self.session, self.outside.version),
            ufrag: ice.ufrag(),
            password: ice.password(),
            candidates: ice.lines(),
            lite: self.settings.ice_lite,
            fingerprint: &self.settings.fingerprint,
            ssrc: self.ssrc.0,
            cname: &cname,
            chosen: &self.inside.chosen,
            direction: answer.direction,
        };
        let text = browser_answer(&offer, &parts);
        self.commands.push_back(Command::Renegotiated(text));
        self.replan(now);
        Ok(())
    }

    /// Digits go as INFO (draft-kaplan-dispatch-info-dtmf-package's plain form, `application/dtmf-relay`).
    pub(super) fn dtmf(&mut self, digits: &str, duration: u16) {
        for digit in digits.chars().filter(|digit| "0123456789ABCD*#".contains(*digit)) {
            let body = format!("Signal={digit}\r\nDuration={duration}\r\n");
            self.info("application/dtmf-relay", body.into_bytes());
        }
    }

    /// User data of the browser.
    pub(super) fn info(&mut self, content_type: &str, body: Vec<u8>) {
        if !self.inside.answered || self.cause.is_some() {
            return;
        }
        let mut request = self.inside.dialog.next(Method::Info);
        request.content_type = Some(content_type.to_owned());
        request.body = body;
        let transaction = self.transaction();
        self.commands.push_back(Command::Sip { transaction, request });
    }

    /// A REFER (RFC 3515).
    pub(super) fn transfer(&mut self, transfer: Transfer) {
        if !self.inside.answered || self.cause.is_some() {
            return;
        }
        let Transfer::To(to) = transfer else { return };
        let Some(uri) = super::inside::destination(&to, &self.settings.sip.domain) else { return };
        let mut request = self.inside.dialog.next(Method::Other("REFER".into()));
        request.headers.push(("Refer-To".into(), format!("<{uri}>")));
        request.contact = Some(self.inside.dialog.contact.clone());
        let transaction = self.transaction();
        self.commands.push_back(Command::Sip { transaction, request });
    }
}
