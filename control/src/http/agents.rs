//! Browsers that are signed in over HTTP: agents who can be called, customers who want news of all their calls.

use std::convert::Infallible;

use axum::extract::{FromRequestParts, Path, State};
use axum::http::request::Parts;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use futures_util::{Stream, stream};
use sallyport_proto::RegistrationState;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::Shared;
use super::body::{Whole, json};
use super::calls::{describe, unknown_session};
use super::connection::Peer;
use super::problem::Problem;
use crate::identity::Credentials;
use crate::message::{Message, SessionEvent, SessionId};

/// Who signs in.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
#[derive(Default)]
pub struct SignInRequest {
    /// An agent's directory number; absent: the token's, or a customer.
    number: Option<String>,
    /// The number's SIP password, where the SIP server asks for one.
    password: String,
    /// Shown to those whom the agent calls.
    display_name: String,
}

/// Who is signed in.
#[derive(Debug, Serialize, ToSchema)]
pub struct Session {
    /// 32 hexadecimal digits, a secret: header `Sallyport-Session` of what the browser asks for.
    id: String,
    /// The agent's number; absent for a customer.
    #[serde(skip_serializing_if = "Option::is_none")]
    number: Option<String>,
    /// Seconds without a reader of its events after which the session ends, and its calls with it.
    expires: u64,
}

/// Signs a browser in. It stays so as long as its events are read.
#[utoipa::path(post, path = "/v1/sessions", request_body(content = SignInRequest, content_type = "application/json"),
    responses((status = 201, description = "Signed in; Location names the session", body = Session),
        (status = "4XX", description = "Not with these credentials, or not so often", body = Problem, content_type = "application/problem+json"),
        (status = "5XX", description = "Not now", body = Problem, content_type = "application/problem+json")),
    security(("token" = []), ()))]
pub async fn sign_in(
    State(shared): State<Shared>,
    Extension(peer): Extension<Peer>,
    headers: HeaderMap,
    Whole(body): Whole,
) -> Result<Response, Problem> {
    let SignInRequest { number, password, display_name } = json(&headers, body?)?;
    let credentials = Credentials { number, password, display_name, token: None };
    let (signed_in, number) = shared.sign_in_as(&headers, peer, &credentials).await?;
    let id = signed_in.id;
    shared.mailboxes.keep(signed_in, shared.calls.clone(), shared.grace);
    let session = Session { id: id.to_string(), number, expires: shared.grace.as_secs() };
    let location = [(header::LOCATION, format!("/v1/sessions/{id}"))];
    Ok((StatusCode::CREATED, location, Json(session)).into_response())
}

/// Gives a session the time and the reach of another token, in the Authorization header; by whatever way it signed in. Without,
/// a session ends once its token has expired and its last call is over.
#[utoipa::path(put, path = "/v1/sessions/{id}/token", params(("id" = String, Path)), security(("token" = [])),
    responses((status = 204, description = "Renewed"),
        (status = 403, description = "Another number's token", body = Problem, content_type = "application/problem+json"),
        (status = "4XX", body = Problem, content_type = "application/problem+json")))]
pub async fn renew(
    State(shared): State<Shared>,
    Name(id): Name,
    Extension(peer): Extension<Peer>,
    headers: HeaderMap,
) -> Result<StatusCode, Problem> {
    shared.renew(&headers, peer, (id, None)).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Signs a browser out: its calls end, its number is taken back from the SIP server with the last browser that has it.
#[utoipa::path(delete, path = "/v1/sessions/{id}", params(("id" = String, Path)),
    responses((status = 204, description = "Signed out"), (status = 404, body = Problem, content_type = "application/problem+json")))]
pub async fn sign_out(State(shared): State<Shared>, Name(id): Name) -> Result<StatusCode, Problem> {
    if !shared.calls.is_signed_in(id).await {
        return Err(unknown_session());
    }
    shared.calls.tell(Message::SignOut(id));
    Ok(StatusCode::NO_CONTENT)
}

/// What happens to a browser, as it happens: `incoming` and `taken` of calls that ring there, `registration` of its number,
/// `signed_out`, and all events of its calls, each with `call`. `Last-Event-ID` goes on behind that event; without it all
/// events that are kept come again.
#[utoipa::path(get, path = "/v1/sessions/{id}/events", params(("id" = String, Path)),
    responses((status = 200, description = "Server-sent events", content_type = "text/event-stream"),
        (status = 404, body = Problem, content_type = "application/problem+json")))]
pub async fn events(
    State(shared): State<Shared>,
    Name(id): Name,
    headers: HeaderMap,
) -> Result<Sse<impl Stream<Item = Result<Event, Infallible>>>, Problem> {
    let last = headers.get("last-event-id").and_then(|value| value.to_str().ok()?.parse().ok());
    let reader = shared.mailboxes.read(id, last.unwrap_or(0)).ok_or_else(unknown_session)?;
    let news = stream::unfold(reader, |mut reader| async move {
        let (number, event) = reader.next().await?;
        Some((Ok(news(number, &event)), reader))
    });
    Ok(Sse::new(news).keep_alive(KeepAlive::default()))
}

fn news(number: u64, event: &SessionEvent) -> Event {
    let (name, data) = match event {
        SessionEvent::Incoming { call, from, to, headers, video } => {
            let headers: Vec<_> = headers.iter().map(|(name, value)| [name, value]).collect();
            let call = call.to_string();
            let what = serde_json::json!({ "call": call, "from": from, "to": to, "headers": headers, "video": video });
            ("incoming", what)
        }
        SessionEvent::Taken { call } => ("taken", serde_json::json!({ "call": call.to_string() })),
        SessionEvent::Call { call, event } => {
            let mut data = describe(event);
            data["call"] = call.to_string().into();
            (event.name(), data)
        }
        SessionEvent::Registration { state } => {
            let mut data = serde_json::json!({ "state": state.name() });
            if let RegistrationState::Failed { status: Some(status) } = state {
                data["sip_status"] = (*status).into();
            }
            ("registration", data)
        }
        SessionEvent::SignedOut { reason } => ("signed_out", serde_json::json!({ "reason": reason })),
    };
    Event::default().id(number.to_string()).event(name).data(data.to_string())
}

/// The session that a path names. What is no name at all is the name of no session.
pub struct Name(SessionId);

impl<S: Send + Sync> FromRequestParts<S> for Name {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let text = Path::<String>::from_request_parts(parts, state).await;
        let id = text.ok().and_then(|Path(text)| text.parse().ok());
        id.map(Self).ok_or_else(unknown_session)
    }
}
