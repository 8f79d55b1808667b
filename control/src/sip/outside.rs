//! Requests outside of any dialog: what we answer ourselves.

use sallyport_proto::sip::{ALLOW, Method, Request, Response};

use super::guard::AGENT;
use crate::random;

/// The answer to a request without a tag in To; `None` for an ACK, which has none.
pub fn answer(request: &Request) -> Option<Response> {
    let (status, reason) = match &request.method {
        Method::Ack => return None,
        Method::Options => (200, "OK"),
        // The calls'.
        Method::Invite => return None,
        Method::Bye | Method::Cancel | Method::Info | Method::Update | Method::Notify | Method::Prack => {
            (481, "Call/Transaction Does Not Exist")
        }
        // Within a dialog it is obeyed; who asks without one may not have us call somebody.
        Method::Refer => (603, "Decline"),
        Method::Register | Method::Subscribe | Method::Other(_) => (405, "Method Not Allowed"),
    };
    let mut response = Response::to_request(request, status, reason);
    response.to = format!("{};tag={}", response.to, random::hex::<8>());
    response.headers.push(("Allow".into(), ALLOW.into()));
    response.headers.push(("Server".into(), AGENT.into()));
    if request.method == Method::Options {
        response.headers.push(("Accept".into(), "application/sdp".into()));
    }
    Some(response)
}
