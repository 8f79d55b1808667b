//! Our re-INVITE to a browser: libraries know no word for a picture that the far side wants to show, but they answer an offer of
//! one, by their own rules with a camera or without.

use sallyport_plan::CallId;

use super::text::is_type;
use super::{ALLOW, Phone, PhoneCommand, Purpose, State};
use crate::sip::{Response, TransactionId};

/// How far it is with a picture that the far side wants to show.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum Picture {
    /// There is none, or it is settled.
    #[default]
    None,
    /// It waits for an offer of the browser's to be answered.
    Waits,
    /// Our offer is being made.
    Asked,
    /// The browser has it.
    Offered,
}

impl Picture {
    pub const fn is_offered(self) -> bool {
        matches!(self, Self::Offered)
    }
}

impl Phone {
    pub(super) fn picture_wanted(&mut self, call: CallId) {
        if let Some(leg) = self.legs.get_mut(&call).filter(|leg| leg.picture == Picture::None) {
            leg.picture = Picture::Waits;
        }
        self.ask_for_picture(call);
    }

    /// One exchange after the other.
    pub(super) fn ask_for_picture(&mut self, call: CallId) {
        let Some(leg) = self.legs.get_mut(&call) else { return };
        let free = matches!(leg.state, State::Up) && leg.offering.is_none();
        if leg.picture == Picture::Waits && free && self.lost.is_none() {
            leg.picture = Picture::Asked;
            self.commands.push_back(PhoneCommand::AskPicture(call));
        }
    }

    pub(super) fn offer_picture(&mut self, call: CallId, offer: Option<&str>) {
        let Some(leg) = self.legs.get_mut(&call).filter(|leg| leg.picture == Picture::Asked) else { return };
        let (Some(offer), None, None) = (offer, &leg.offering, self.lost) else {
            leg.picture = if leg.offering.is_some() { Picture::Waits } else { Picture::None };
            return;
        };
        leg.picture = Picture::Offered;
        let mut request = leg.dialog.invite(offer, Vec::new());
        // What the inside is told of us is not what browsers are.
        request.headers.retain(|(name, _)| name != "Allow" && name != "Supported");
        request.headers.push(("Allow".into(), ALLOW.into()));
        self.send(Purpose::Picture(call), request);
    }

    /// The same 2xx may come again, and wants its ACK again.
    pub(super) fn picture_answered(&mut self, call: CallId, transaction: TransactionId, response: &Response) {
        let Some(leg) = self.legs.get_mut(&call) else { return };
        let first = std::mem::take(&mut leg.picture) == Picture::Offered;
        if (200..300).contains(&response.status) {
            leg.dialog.refresh(response.contact.as_deref());
            self.commands.push_back(PhoneCommand::Ack(leg.dialog.ack(response.cseq, &[])));
            if first && is_type(response.content_type.as_deref(), "application/sdp") {
                let answer = String::from_utf8_lossy(&response.body).into_owned();
                self.commands.push_back(PhoneCommand::PictureAnswer { call, answer });
            }
            return;
        }
        self.clients.remove(&transaction);
        match response.status {
            408 | 481 => {
                self.legs.remove(&call);
                self.commands.push_back(PhoneCommand::HangUp(call));
            }
            // Its own offer is on its way: ours comes behind that.
            491 => leg.picture = Picture::Waits,
            _ => {}
        }
    }

    pub(super) fn picture_unanswered(&mut self, call: CallId) {
        if let Some(leg) = self.legs.get_mut(&call) {
            leg.picture = Picture::None;
        }
    }
}
