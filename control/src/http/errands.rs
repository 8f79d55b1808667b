//! What a browser asks of a call that is there: to take it or not, other media, digits, user data, a transfer.

use axum::Extension;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use sallyport_proto::{Input, Transfer};
use serde::Deserialize;
use utoipa::ToSchema;

use super::Shared;
use super::access;
use super::body::{Whole, json};
use super::calls::{Name, SDP, call_problem, create_problem, text};
use super::checks::{INFO_MAX, check_destination, check_digits, is_media_type, wrong};
use super::connection::{Local, Peer};
use super::problem::Problem;

/// Why a call is not taken.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Decline {
    /// SIP status that the caller hears if nobody else takes it: 486 (busy) unless told, 400 to 699.
    #[serde(default = "busy")]
    status: u16,
}

const fn busy() -> u16 {
    486
}

/// Digits to send.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Dtmf {
    /// `0-9A-D*#`, 64 at the most.
    digits: String,
    /// Milliseconds for each, 40 to 6000.
    #[serde(default = "tone")]
    duration: u16,
}

const fn tone() -> u16 {
    160
}

/// Whom the far end is to talk with: one of the two.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct TransferRequest {
    /// Blind: a user, `user@host`, or a `sip:` URI of those.
    to: Option<String>,
    /// Attended: the far end of another call of the same browser, by its id.
    onto: Option<String>,
}

/// Takes a call that rings at the session's browser: an offer for an answer. Of several browsers the first one has it.
#[utoipa::path(post, path = "/v1/calls/{id}/accept", params(("id" = String, Path), ("Sallyport-Session" = String, Header)),
    request_body(content = String, content_type = "application/sdp"),
    responses((status = 200, description = "The answer", body = String, content_type = "application/sdp"),
        (status = 409, description = "It does not ring there any more", body = Problem, content_type = "application/problem+json"),
        (status = "4XX", body = Problem, content_type = "application/problem+json")))]
pub async fn accept(
    State(shared): State<Shared>,
    Name(id): Name,
    Extension(peer): Extension<Peer>,
    Extension(local): Extension<Local>,
    headers: HeaderMap,
    Whole(body): Whole,
) -> Result<Response, Problem> {
    let offer = text(&headers, SDP, body)?;
    let caller = shared.caller(&headers, peer, local);
    let created = shared.calls.accept(id, offer, caller).await.map_err(create_problem)?;
    Ok(([(header::CONTENT_TYPE, SDP)], created.answer).into_response())
}

/// Makes a call the session's that was a session's of this browser before control was replaced: since then it is nobody's.
#[utoipa::path(post, path = "/v1/calls/{id}/claim", params(("id" = String, Path), ("Sallyport-Session" = String, Header)),
    responses((status = 204, description = "It is the session's"), (status = 404, body = Problem, content_type = "application/problem+json")))]
pub async fn claim(
    State(shared): State<Shared>,
    Name(id): Name,
    headers: HeaderMap,
) -> Result<StatusCode, Problem> {
    let session = access::session(&headers).ok_or_else(super::calls::unknown_session)?;
    shared.calls.claim(id, session).await.map_err(call_problem)?;
    Ok(StatusCode::NO_CONTENT)
}

/// Does not take a call that rings at the session's browser. The body may be empty.
#[utoipa::path(post, path = "/v1/calls/{id}/decline", params(("id" = String, Path), ("Sallyport-Session" = String, Header)),
    request_body(content = Decline, content_type = "application/json"),
    responses((status = 204, description = "Declined"), (status = "4XX", body = Problem, content_type = "application/problem+json")))]
pub async fn decline(
    State(shared): State<Shared>,
    Name(id): Name,
    headers: HeaderMap,
    Whole(body): Whole,
) -> Result<StatusCode, Problem> {
    let body = body?;
    let Decline { status } = if body.is_empty() { Decline { status: busy() } } else { json(&headers, body)? };
    if !(400..=699).contains(&status) {
        return Err(wrong("status", "status must lie between 400 and 699"));
    }
    let session = access::session(&headers).ok_or_else(super::calls::unknown_session)?;
    shared.calls.decline(id, session, status).await.map_err(call_problem)?;
    Ok(StatusCode::NO_CONTENT)
}

/// Offers other media in the middle of a call: hold, resume, an ICE restart, another connection (another certificate: a page that was
/// loaded anew), a picture that is added (the inside is asked first, 20 s at the most). 409 while an earlier offer is not answered.
#[utoipa::path(put, path = "/v1/calls/{id}/offer", params(("id" = String, Path)),
    request_body(content = String, content_type = "application/sdp"),
    responses((status = 200, description = "The answer", body = String, content_type = "application/sdp"),
        (status = "4XX", description = "Nothing has changed", body = Problem, content_type = "application/problem+json")))]
pub async fn renegotiate(
    State(shared): State<Shared>,
    Name(id): Name,
    headers: HeaderMap,
    Whole(body): Whole,
) -> Result<Response, Problem> {
    let offer = text(&headers, SDP, body)?;
    shared.may(&headers, id).await.map_err(call_problem)?;
    let answer = shared.calls.renegotiate(id, offer).await.map_err(create_problem)?;
    Ok(([(header::CONTENT_TYPE, SDP)], answer).into_response())
}

/// Sends digits to the far end.
#[utoipa::path(post, path = "/v1/calls/{id}/dtmf", params(("id" = String, Path)),
    request_body(content = Dtmf, content_type = "application/json"),
    responses((status = 204, description = "On their way"), (status = "4XX", body = Problem, content_type = "application/problem+json")))]
pub async fn dtmf(
    State(shared): State<Shared>,
    Name(id): Name,
    headers: HeaderMap,
    Whole(body): Whole,
) -> Result<StatusCode, Problem> {
    let Dtmf { digits, duration } = json(&headers, body?)?;
    check_digits(&digits, duration)?;
    shared.may(&headers, id).await.map_err(call_problem)?;
    shared.calls.act(id, Input::Dtmf { digits, duration }).await.map_err(call_problem)?;
    Ok(StatusCode::NO_CONTENT)
}

/// Sends user data to the far end: any type, 8 KiB at the most.
#[utoipa::path(post, path = "/v1/calls/{id}/info", params(("id" = String, Path)),
    request_body(content = String, content_type = "text/plain"),
    responses((status = 204, description = "On its way"), (status = "4XX", body = Problem, content_type = "application/problem+json")))]
pub async fn info(
    State(shared): State<Shared>,
    Name(id): Name,
    headers: HeaderMap,
    Whole(body): Whole,
) -> Result<StatusCode, Problem> {
    let body = body?;
    let content_type = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
    let Some(content_type) = content_type.filter(|value| is_media_type(value)) else {
        let detail = "Content-Type must say what the user data is";
        return Err(Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "media_type", detail));
    };
    if body.is_empty() || body.len() > INFO_MAX {
        let detail = "user data has 1 to 8192 octets";
        return Err(Problem::new(StatusCode::PAYLOAD_TOO_LARGE, "body", detail));
    }
    shared.may(&headers, id).await.map_err(call_problem)?;
    let input = Input::Info { content_type: content_type.to_owned(), body: body.to_vec() };
    shared.calls.act(id, input).await.map_err(call_problem)?;
    Ok(StatusCode::NO_CONTENT)
}

/// Has the far end talk with somebody else. What becomes of it is told as `transfer`.
#[utoipa::path(post, path = "/v1/calls/{id}/transfer", params(("id" = String, Path)),
    request_body(content = TransferRequest, content_type = "application/json"),
    responses((status = 204, description = "Asked for"), (status = "4XX", body = Problem, content_type = "application/problem+json")),
    security(("token" = []), ()))]
pub async fn transfer(
    State(shared): State<Shared>,
    Name(id): Name,
    headers: HeaderMap,
    Whole(body): Whole,
) -> Result<StatusCode, Problem> {
    let request: TransferRequest = json(&headers, body?)?;
    shared.may(&headers, id).await.map_err(call_problem)?;
    match (request.to, request.onto) {
        (Some(to), None) => {
            check_destination(&to)?;
            match access::session(&headers) {
                Some(session) => shared.calls.may_call(session, to.clone()).await.map_err(create_problem)?,
                None => drop(shared.access.call(&headers, &to)?),
            }
            shared.calls.act(id, Input::Transfer(Transfer::To(to))).await.map_err(call_problem)?;
        }
        (None, Some(onto)) => {
            let other = onto.parse().map_err(|_| wrong("destination", "onto must be the id of a call"))?;
            shared.may(&headers, other).await.map_err(call_problem)?;
            shared.calls.transfer_onto(id, other).await.map_err(call_problem)?;
        }
        _ => return Err(wrong("destination", "either to or onto says where the transfer leads")),
    }
    Ok(StatusCode::NO_CONTENT)
}
