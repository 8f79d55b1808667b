//! Calls for pages without WebSockets: one message per GET that hangs until there is one, messages by POST, offers and
//! answers as in ROAP (draft-jennings-rtcweb-signaling-01); docs/browsers.md.

mod talk;

use std::sync::Arc;
use std::time::Duration;

use axum::Extension;
use axum::Json;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Path, Query, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use serde_json::{Value, json};

use super::Shared;
use super::body::Whole;
use super::connection::{Local, Peer};
use super::guests::{Counts, Guest, Names, Origin};
use super::outbox::{Next, Reader};
use super::problem::Problem;
use crate::message::SessionId;
pub use talk::Talk;
use talk::{Errand, Said, told};

/// How long a GET hangs by default, at the least and at the most.
const HANGS_S: u64 = 30;
const HANGS_LEAST_S: u64 = 10;
const HANGS_MOST_S: u64 = 60;
/// Names the peer whose message an answer holds.
const PEER: HeaderName = HeaderName::from_static("sallyport-peer");

/// A sign-in.
#[derive(Debug, Default, Deserialize)]
pub struct Entry {
    #[serde(flatten)]
    names: Names,
    /// Whether progress of calls is told as well (`EVENT`).
    #[serde(default)]
    events: u8,
}

/// Query of the hanging GET.
#[derive(Debug, Deserialize)]
pub struct Wait {
    /// Seconds.
    timeout: Option<u64>,
    /// Number of the last message that was heard; default: of the last that was sent.
    after: Option<u64>,
}

/// Query of a message.
#[derive(Debug, Deserialize)]
pub struct To {
    to: Option<String>,
}

/// Signs in by the hanging GET: a customer, or an agent whose number needs no password.
#[utoipa::path(get, path = "/hanging/sign-in",
    params(("number" = Option<String>, Query), ("token" = Option<String>, Query), ("display_name" = Option<String>, Query),
        ("events" = Option<u8>, Query, description = "1: progress of calls is told as well")),
    responses((status = 200, description = "`session`, `number`, `timeout`", body = Value), (status = "4XX", body = Problem, content_type = "application/problem+json"),
        (status = "5XX", body = Problem, content_type = "application/problem+json")))]
pub async fn sign_in_by_get(
    State(shared): State<Shared>,
    query: Result<Query<Entry>, QueryRejection>,
    peer: Extension<Peer>,
    local: Extension<Local>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let Query(entry) = query.map_err(|rejected| bad(rejected.body_text()))?;
    if !entry.names.password.is_empty() {
        return Err(bad("a password comes by POST: addresses of pages end up in logs"));
    }
    enter(&shared, Origin { headers, peer: peer.0, local: local.0 }, entry).await
}

/// Signs in by the hanging GET: `number`, `password`, `token`, `display_name`, `events`, all of them optional.
#[utoipa::path(post, path = "/hanging/sign-in", request_body(content = Value, content_type = "application/json"),
    responses((status = 200, description = "`session`, `number`, `timeout`", body = Value), (status = "4XX", body = Problem, content_type = "application/problem+json"),
        (status = "5XX", body = Problem, content_type = "application/problem+json")))]
pub async fn sign_in_by_post(
    State(shared): State<Shared>,
    peer: Extension<Peer>,
    local: Extension<Local>,
    headers: HeaderMap,
    Whole(body): Whole,
) -> Result<Response, Problem> {
    let body = body?;
    let entry = if body.is_empty() { Ok(Entry::default()) } else { serde_json::from_slice(&body) };
    let entry = entry.map_err(|error| bad(error.to_string()))?;
    enter(&shared, Origin { headers, peer: peer.0, local: local.0 }, entry).await
}

async fn enter(shared: &Shared, from: Origin, entry: Entry) -> Result<Response, Problem> {
    let events = entry.events != 0;
    let tell = move |guest: &Guest, event| told(guest, event, events);
    let guest = shared.hanging.sign_in(shared, &from, entry.names, tell).await?;
    let body = json!({ "session": guest.id.to_string(), "number": guest.number, "timeout": HANGS_S });
    Ok(([(header::CACHE_CONTROL, "no-store")], Json(body)).into_response())
}

fn bad(text: impl Into<String>) -> Problem {
    Problem::new(StatusCode::BAD_REQUEST, "message", text)
}

fn guest(shared: &Shared, session: &str) -> Result<Arc<Guest>, Problem> {
    let id: Option<SessionId> = session.parse().ok();
    let unknown =
        || Problem::new(StatusCode::NOT_FOUND, "unknown_session", "there is no such session; sign in anew");
    id.and_then(|id| shared.hanging.find(id)).ok_or_else(unknown)
}

/// Reads for a request; whatever ends the request ends the reading.
struct Reading {
    guest: Arc<Guest>,
    reader: Reader,
}

impl Drop for Reading {
    fn drop(&mut self) {
        self.guest.outbox.leave(&self.reader);
    }
}

/// The next message, or 204 when none came in time.
#[utoipa::path(get, path = "/hanging/{session}",
    params(("session" = String, Path), ("timeout" = Option<u64>, Query, description = "seconds, 10 to 60"),
        ("after" = Option<u64>, Query, description = "`number` of the last message that was heard")),
    responses((status = 200, description = "A message, as in docs/browsers.md", body = Value), (status = 204, description = "None came"),
        (status = 410, description = "The session is over, or messages are lost", body = Problem, content_type = "application/problem+json"),
        (status = "4XX", body = Problem, content_type = "application/problem+json")))]
pub async fn hear(
    State(shared): State<Shared>,
    Path(session): Path<String>,
    query: Result<Query<Wait>, QueryRejection>,
) -> Result<Response, Problem> {
    let Query(wait) = query.map_err(|rejected| bad(rejected.body_text()))?;
    let guest = guest(&shared, &session)?;
    let after = wait.after.unwrap_or_else(|| guest.outbox.given());
    let lost =
        || Problem::new(StatusCode::GONE, "lost", "messages since then are not kept any more; sign in anew");
    let reader = guest.outbox.read_after(after).ok_or_else(lost)?;
    let mut reading = Reading { guest, reader };
    let patience = wait.timeout.unwrap_or(HANGS_S).clamp(HANGS_LEAST_S, HANGS_MOST_S);
    let next = {
        let Reading { guest, reader } = &mut reading;
        tokio::time::timeout(Duration::from_secs(patience), guest.outbox.next(reader)).await
    };
    let kept = [(header::CACHE_CONTROL, HeaderValue::from_static("no-store"))];
    match next {
        Ok(Next::Message(_, text)) => {
            let word: Value = serde_json::from_str(&text).unwrap_or_default();
            let mut response = (kept, [(header::CONTENT_TYPE, "application/json")], text).into_response();
            if let Some(peer) = word["from"].as_str().and_then(|peer| HeaderValue::from_str(peer).ok()) {
                response.headers_mut().insert(PEER, peer);
            }
            Ok(response)
        }
        Ok(Next::Over) => Err(Problem::new(StatusCode::GONE, "signed_out", "the session has ended")),
        Ok(Next::Replaced) | Err(_) => Ok((kept, StatusCode::NO_CONTENT).into_response()),
    }
}

/// A message to a peer. What comes of it is told by the hanging GET.
#[utoipa::path(post, path = "/hanging/{session}", params(("session" = String, Path), ("to" = Option<String>, Query)),
    request_body(content = Value, content_type = "application/json"),
    responses((status = 204, description = "Taken"), (status = "4XX", body = Problem, content_type = "application/problem+json")))]
pub async fn say(
    State(shared): State<Shared>,
    Path(session): Path<String>,
    query: Result<Query<To>, QueryRejection>,
    Whole(body): Whole,
) -> Result<StatusCode, Problem> {
    let guest = guest(&shared, &session)?;
    let Query(To { to }) = query.map_err(|rejected| bad(rejected.body_text()))?;
    let said: Said = serde_json::from_slice(&body?).map_err(|error| {
        Counts::add(&shared.counts.bad);
        bad(error.to_string())
    })?;
    Counts::add(&shared.counts.taken);
    Errand { shared: &shared, guest: &guest }.obey(said, to).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Signs out; calls end. `GET` and `POST` of `/hanging/{session}/sign-out` do the same.
#[utoipa::path(delete, path = "/hanging/{session}", params(("session" = String, Path)),
    responses((status = 204, description = "Signed out"), (status = "4XX", body = Problem, content_type = "application/problem+json")))]
pub async fn sign_out(
    State(shared): State<Shared>,
    Path(session): Path<String>,
) -> Result<StatusCode, Problem> {
    guest(&shared, &session)?.leave("signed_out");
    Ok(StatusCode::NO_CONTENT)
}
