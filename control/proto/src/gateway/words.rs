//! What happens to a phone, and what it wants done.

use std::time::Instant;

use sallyport_plan::CallId;

use super::{Refusal, Secret};
use crate::api::CallEvent;
use crate::sip::{Request, Response, TransactionId};

/// What happens to a phone.
#[derive(Debug)]
pub enum PhoneInput {
    /// The browser's request; ACK too, whose transaction is not answered. CANCEL is [`PhoneInput::Cancelled`].
    Request {
        /// The daemon's number for it.
        transaction: TransactionId,
        /// The request.
        request: Request,
    },
    /// The browser cancelled its INVITE; the CANCEL has its answer.
    Cancelled(TransactionId),
    /// A response to a request of ours.
    Response {
        /// The request's.
        transaction: TransactionId,
        /// The response.
        response: Response,
    },
    /// A request of ours got no final response, or could not be sent.
    Silence(TransactionId),
    /// What became of the oldest [`PhoneCommand::SignIn`] that has no outcome yet: until when what was shown is good.
    SignedIn(Result<Option<Instant>, Refusal>),
    /// What became of [`PhoneCommand::Create`].
    Created {
        /// Which call.
        call: CallId,
        /// Our answer, and whether the called side has answered: else it is early media.
        outcome: Result<(String, bool), Refusal>,
    },
    /// What became of [`PhoneCommand::Renegotiate`].
    Renegotiated {
        /// Which call.
        call: CallId,
        /// Our answer.
        outcome: Result<String, Refusal>,
    },
    /// What became of [`PhoneCommand::AskPicture`].
    PictureOffer {
        /// Which call.
        call: CallId,
        /// Our offer, an SDP; `None`: there is nothing to offer.
        offer: Option<String>,
    },
    /// A call rings.
    Incoming {
        /// Its name.
        call: CallId,
        /// Who calls: a number.
        from: String,
        /// Our offer, an SDP.
        offer: String,
    },
    /// What became of [`PhoneCommand::Take`].
    Took {
        /// Which call.
        call: CallId,
        /// Whether it is this browser's.
        outcome: Result<(), Refusal>,
    },
    /// A call that rang was taken by another browser.
    Taken(CallId),
    /// Something happened to a call.
    Event {
        /// Which.
        call: CallId,
        /// What.
        event: CallEvent,
    },
    /// The connection is gone.
    Disconnected,
    /// The session is: nobody is told anything any more.
    SignedOut,
}

/// What a phone wants done, in this order.
#[derive(Debug, PartialEq, Eq)]
pub enum PhoneCommand {
    /// Answer a request. A 2xx to INVITE is repeated until its ACK.
    Reply {
        /// The daemon's number of the request.
        transaction: TransactionId,
        /// The response.
        response: Response,
    },
    /// Send a request in a new transaction.
    Send {
        /// Names the transaction.
        transaction: TransactionId,
        /// The request.
        request: Request,
    },
    /// Cancel an INVITE.
    Cancel {
        /// The INVITE's transaction.
        invite: TransactionId,
        /// The CANCEL.
        request: Request,
    },
    /// Send an ACK to a 2xx.
    Ack(Request),
    /// Sign the browser in, beside what it is signed in as already. Comes back as [`PhoneInput::SignedIn`].
    SignIn {
        /// Its number; `None`: a customer, who can only call.
        number: Option<String>,
        /// How the browser names itself over its connections (RFC 5626 section 4.1); empty for not at all.
        instance: String,
        /// What it has shown.
        token: Option<Secret>,
    },
    /// Sign it out of everything: nothing rings, nothing goes on.
    SignOut,
    /// Begin a call. Comes back as [`PhoneInput::Created`].
    Create {
        /// Its name from now on.
        call: CallId,
        /// Whom to call.
        to: String,
        /// The browser's offer.
        offer: String,
        /// More headers of the browser's INVITE, not judged.
        headers: Vec<(String, String)>,
        /// What the browser has shown.
        token: Option<Secret>,
    },
    /// The browser gave up before the answer.
    Abandon(CallId),
    /// The browser takes a call that rings with its answer to our offer. Comes back as [`PhoneInput::Took`].
    Take {
        /// Which call.
        call: CallId,
        /// The browser's answer.
        answer: String,
    },
    /// The browser does not take a call that rings.
    Decline {
        /// Which call.
        call: CallId,
        /// 400..=699.
        status: u16,
    },
    /// The browser offers anew. Comes back as [`PhoneInput::Renegotiated`].
    Renegotiate {
        /// Which call.
        call: CallId,
        /// The browser's offer.
        offer: String,
    },
    /// The far side wants to show a picture: our offer of it is wanted. Comes back as [`PhoneInput::PictureOffer`].
    AskPicture(CallId),
    /// The browser has answered that offer.
    PictureAnswer {
        /// Which call.
        call: CallId,
        /// The browser's answer.
        answer: String,
    },
    /// Something is wanted of a call.
    Act {
        /// Which call.
        call: CallId,
        /// What.
        input: PhoneAct,
    },
    /// Hang up.
    HangUp(CallId),
}

/// What a browser wants of a call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PhoneAct {
    /// One digit, so many milliseconds long.
    Dtmf(char, u16),
    /// User data: type and octets.
    Info(String, Vec<u8>),
    /// Transfer the far end: a user, or `user@host`.
    TransferTo(String),
    /// Transfer the far end onto that of another call of this browser.
    TransferOnto(CallId),
}
