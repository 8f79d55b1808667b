//! Copies of a call for a recorder, or for somebody who listens in: an administrator's business.

use std::net::SocketAddr;

use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use sallyport_proto::{Input, Recorded};
use serde::Deserialize;
use utoipa::ToSchema;

use super::Shared;
use super::body::{Whole, json};
use super::calls::{Name, call_problem};
use super::checks::wrong;
use super::problem::Problem;

/// Where copies go.
#[derive(Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct RecordingRequest {
    /// `ADDRESS:PORT` for RTP of the browser's sound and of the far end's; RTCP goes one port above each. They lie in the
    /// configuration's `[recording] networks`, and are of one IP version. Without it the configured recorder is invited.
    to: Option<[String; 2]>,
}

/// Has a call recorded by the configured recorder, or its sound copied to two addresses. What becomes of it is told as `recording`. The
/// body may be empty.
#[utoipa::path(post, path = "/v1/calls/{id}/recording", params(("id" = String, Path)),
    request_body(content = RecordingRequest, content_type = "application/json"),
    responses((status = 202, description = "Under way"),
        (status = 403, description = "Not there", body = Problem, content_type = "application/problem+json"),
        (status = 409, description = "It is being recorded, not answered yet, or there is no recorder", body = Problem, content_type = "application/problem+json"),
        (status = "4XX", body = Problem, content_type = "application/problem+json")),
    security(("token" = [])))]
pub async fn begin(
    State(shared): State<Shared>,
    Name(id): Name,
    headers: HeaderMap,
    Whole(body): Whole,
) -> Result<StatusCode, Problem> {
    shared.access.token(&headers)?;
    let body = body?;
    let RecordingRequest { to } =
        if body.is_empty() { RecordingRequest::default() } else { json(&headers, body)? };
    let wish = match to {
        Some([one, other]) => Recorded::To(listeners(&shared, &one, &other)?),
        None => Recorded::Server,
    };
    shared.calls.act(id, Input::Record(wish)).await.map_err(call_problem)?;
    Ok(StatusCode::ACCEPTED)
}

/// Ends the recording of a call, or the copies.
#[utoipa::path(delete, path = "/v1/calls/{id}/recording", params(("id" = String, Path)),
    responses((status = 204, description = "Nothing is copied any more"),
        (status = "4XX", body = Problem, content_type = "application/problem+json")),
    security(("token" = [])))]
pub async fn end(
    State(shared): State<Shared>,
    Name(id): Name,
    headers: HeaderMap,
) -> Result<StatusCode, Problem> {
    shared.access.token(&headers)?;
    shared.calls.act(id, Input::Record(Recorded::Stop)).await.map_err(call_problem)?;
    Ok(StatusCode::NO_CONTENT)
}

/// Two addresses that copies may go to: both leave by port pairs of one IP version.
fn listeners(shared: &Shared, one: &str, other: &str) -> Result<[SocketAddr; 2], Problem> {
    let both = [listener(shared, one)?, listener(shared, other)?];
    if both[0].is_ipv4() == both[1].is_ipv4() {
        return Ok(both);
    }
    Err(wrong("listener", "to names two addresses of one IP version"))
}

/// An address that copies may go to.
fn listener(shared: &Shared, text: &str) -> Result<SocketAddr, Problem> {
    let address = text.parse::<SocketAddr>().ok().filter(|address| (1..u16::MAX).contains(&address.port()));
    let address = address.ok_or_else(|| wrong("listener", "to names two ADDRESS:PORT, ports 1 to 65534"))?;
    if shared.listeners.iter().any(|network| network.contains(address.ip())) {
        return Ok(address);
    }
    let text = "copies go to [recording] networks of the configuration only";
    Err(Problem::new(StatusCode::FORBIDDEN, "listener", text))
}
