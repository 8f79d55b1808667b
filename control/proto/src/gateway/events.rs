//! What happens to calls, as requests to the browser.

use sallyport_plan::CallId;

use super::{Phone, Purpose, State};
use crate::api::CallEvent;
use crate::sip::Method;

impl Phone {
    pub(super) fn event(&mut self, call: CallId, event: CallEvent) {
        match event {
            CallEvent::Ringing => self.rings(call),
            CallEvent::Answered => self.answered(call),
            CallEvent::Ended { cause } => self.over(call, &cause),
            CallEvent::Transfer { status } => self.notify(call, status),
            CallEvent::Info { content_type, body } => self.tell(call, content_type, body),
            CallEvent::Dtmf { digit, duration } => {
                let body = format!("Signal={digit}\r\nDuration={duration}\r\n");
                self.tell(call, "application/dtmf-relay".into(), body.into_bytes());
            }
            CallEvent::VideoOffered => self.picture_wanted(call),
            // Early media comes with our answer; the rest is media, or has no word in SIP's libraries.
            _ => {}
        }
    }

    fn tell(&mut self, call: CallId, content_type: String, body: Vec<u8>) {
        let Some(leg) = self.legs.get_mut(&call) else { return };
        if !matches!(leg.state, State::Up) {
            return;
        }
        let mut request = leg.dialog.next(Method::Info);
        request.content_type = Some(content_type);
        request.body = body;
        self.send(Purpose::Within(call), request);
    }
}
