//! Calls over HTTP: an offer comes by POST, candidates by PATCH, the end by DELETE, news as server-sent events.

use std::collections::BTreeMap;
use std::convert::Infallible;

use axum::body::Bytes;
use axum::extract::rejection::QueryRejection;
use axum::extract::{FromRequestParts, Path, Query, State};
use axum::http::request::Parts;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use futures_util::{Stream, StreamExt, stream};
use sallyport_plan::{CallId, DirectionReport};
use sallyport_proto::{CallEvent, CallView};
use serde::{Deserialize, Serialize};
use tokio_stream::wrappers::BroadcastStream;
use utoipa::{IntoParams, ToSchema};

use super::Shared;
use super::access;
use super::body::Whole;
use super::connection::{Local, Peer};
use super::problem::Problem;
use super::quality::Quality;
use crate::message::{CallError, CreateError, Shown, Wish};

/// Seconds until another attempt is worth while: some call will have ended.
const RETRY_FULL: u32 = 5;
const RETRY_CLIENT: u32 = 30;
pub const SDP: &str = "application/sdp";
const FRAGMENT: &str = "application/trickle-ice-sdpfrag";

/// Query of `POST /v1/calls`.
#[derive(Debug, Deserialize, IntoParams)]
pub struct Destination {
    /// Whom to call: a user, `user@host`, or a `sip:` URI of those.
    to: String,
}

/// Begins a call. Waits until the called side has answered with a session description; a client that goes away before
/// cancels the call.
#[utoipa::path(post, path = "/v1/calls", params(Destination), request_body(content = String, content_type = "application/sdp"),
    responses((status = 201, description = "The answer; Location names the call", body = String, content_type = "application/sdp"),
        (status = "4XX", description = "The request cannot become a call", body = Problem, content_type = "application/problem+json"),
        (status = "5XX", description = "The call was not set up", body = Problem, content_type = "application/problem+json")),
    security(("token" = []), ()))]
pub async fn create(
    State(shared): State<Shared>,
    query: Result<Query<Destination>, QueryRejection>,
    Extension(peer): Extension<Peer>,
    Extension(local): Extension<Local>,
    headers: HeaderMap,
    Whole(body): Whole,
) -> Result<Response, Problem> {
    let Query(Destination { to }) = query.map_err(|rejected| {
        Problem::new(
            StatusCode::BAD_REQUEST,
            "destination",
            format!("?to= is missing: {}", rejected.body_text()),
        )
    })?;
    let mut caller = shared.caller(&headers, peer, local);
    // Whom a session may call is known where it is known.
    if caller.session.is_none() && shared.access.call(&headers, &to)? {
        caller.client = None;
    }
    let offer = text(&headers, SDP, body)?;
    let wish = Wish { to, offer, caller, headers: Vec::new() };
    let created = shared.calls.create(wish).await.map_err(create_problem)?;
    let location = format!("/v1/calls/{}", created.id);
    let tag = format!("\"{}\"", created.id);
    let head = [(header::LOCATION, location), (header::ETAG, tag), (header::CONTENT_TYPE, SDP.to_owned())];
    Ok((StatusCode::CREATED, head, created.answer).into_response())
}

/// More candidates of the browser (RFC 8840).
#[utoipa::path(patch, path = "/v1/calls/{id}", params(("id" = String, Path)),
    request_body(content = String, content_type = "application/trickle-ice-sdpfrag"),
    responses((status = 204, description = "Taken"), (status = "4XX", body = Problem, content_type = "application/problem+json")))]
pub async fn trickle(
    State(shared): State<Shared>,
    Name(id): Name,
    headers: HeaderMap,
    Whole(body): Whole,
) -> Result<StatusCode, Problem> {
    let fragment = text(&headers, FRAGMENT, body)?;
    shared.may(&headers, id).await.map_err(call_problem)?;
    shared.calls.trickle(id, fragment).await.map_err(call_problem)?;
    Ok(StatusCode::NO_CONTENT)
}

/// Hangs up.
#[utoipa::path(delete, path = "/v1/calls/{id}", params(("id" = String, Path)),
    responses((status = 204, description = "Hung up"), (status = 404, body = Problem, content_type = "application/problem+json")))]
pub async fn hang_up(
    State(shared): State<Shared>,
    Name(id): Name,
    headers: HeaderMap,
) -> Result<StatusCode, Problem> {
    shared.may(&headers, id).await.map_err(call_problem)?;
    shared.calls.hang_up(id).await.map_err(call_problem)?;
    Ok(StatusCode::NO_CONTENT)
}

/// One call with its statistics. The name of a call is a secret that its caller has; it needs no token.
#[utoipa::path(get, path = "/v1/calls/{id}", params(("id" = String, Path)),
    responses((status = 200, body = Call), (status = 404, body = Problem, content_type = "application/problem+json")))]
pub async fn show(
    State(shared): State<Shared>,
    Name(id): Name,
    headers: HeaderMap,
) -> Result<Json<Call>, Problem> {
    shared.may(&headers, id).await.map_err(call_problem)?;
    let Shown { view, directions } = shared.calls.show(id).await.map_err(call_problem)?;
    Ok(Json(Call::new(&view, &directions)))
}

/// All calls.
#[utoipa::path(get, path = "/v1/calls", security(("token" = [])),
    responses((status = 200, body = Vec<Call>), (status = 401, body = Problem, content_type = "application/problem+json")))]
pub async fn list(State(shared): State<Shared>, headers: HeaderMap) -> Result<Json<Vec<Call>>, Problem> {
    shared.access.token(&headers)?;
    let views = shared.calls.list().await;
    Ok(Json(views.iter().map(|view| Call::new(view, &[])).collect()))
}

/// What happens to a call, as it happens: `ringing`, `early`, `answered`, `connected`, `held`, `resumed`, `dtmf`, `info`, `transfer`,
/// `renewed`, `not_renewed`, `recording`, `talk`, `hold`, `video_offered`, and `ended`, the last one.
#[utoipa::path(get, path = "/v1/calls/{id}/events", params(("id" = String, Path)),
    responses((status = 200, description = "Server-sent events", content_type = "text/event-stream"),
        (status = 404, body = Problem, content_type = "application/problem+json")))]
pub async fn events(
    State(shared): State<Shared>,
    Name(id): Name,
    headers: HeaderMap,
) -> Result<Sse<impl Stream<Item = Result<Event, Infallible>>>, Problem> {
    shared.may(&headers, id).await.map_err(call_problem)?;
    let (told, coming) = shared.calls.watch(id).await.map_err(call_problem)?;
    let coming = BroadcastStream::new(coming).filter_map(|event| std::future::ready(event.ok()));
    let all = stream::iter(told).chain(coming).map(move |event| Ok(news(id, &event)));
    Ok(Sse::new(all).keep_alive(KeepAlive::default()))
}

fn news(id: CallId, event: &CallEvent) -> Event {
    let mut data = describe(event);
    data["id"] = id.to_string().into();
    Event::default().event(event.name()).data(data.to_string())
}

/// What there is to tell of an event beside its name.
pub fn describe(event: &CallEvent) -> serde_json::Value {
    let mut data = serde_json::json!({});
    if let CallEvent::Ended { cause } = event {
        data["cause"] = cause.name().into();
        data["detail"] = cause.text().into();
    }
    match event {
        CallEvent::Info { content_type, body } => {
            data["content_type"] = content_type.as_str().into();
            data["body"] = String::from_utf8_lossy(body).into();
        }
        CallEvent::Dtmf { digit, duration } => {
            data["digit"] = digit.to_string().into();
            data["duration"] = (*duration).into();
        }
        CallEvent::Transfer { status } => data["status"] = (*status).into(),
        CallEvent::Recording { on, failed } => {
            data["recording"] = (*on).into();
            data["failed"] = (*failed).into();
        }
        CallEvent::NotRenewed { detail } => data["detail"] = detail.as_str().into(),
        _ => {}
    }
    data
}

/// The call that a path names. What is no name at all is the name of no call.
pub struct Name(pub CallId);

impl<S: Send + Sync> FromRequestParts<S> for Name {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let text = Path::<String>::from_request_parts(parts, state).await;
        let id = text.ok().and_then(|Path(text)| text.parse().ok());
        id.map(Self).ok_or_else(|| call_problem(CallError::Unknown))
    }
}

/// The body as text of the one type that the path takes.
pub fn text(headers: &HeaderMap, wanted: &str, body: Result<Bytes, Problem>) -> Result<String, Problem> {
    let given = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    if !given.split(';').next().unwrap_or_default().trim().eq_ignore_ascii_case(wanted) {
        let detail = format!("Content-Type must be {wanted}");
        return Err(Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "media_type", detail));
    }
    String::from_utf8(body?.into())
        .map_err(|_| Problem::new(StatusCode::BAD_REQUEST, "body", "the body is not UTF-8 text"))
}

/// What a client is told whose call is not set up.
pub fn create_problem(error: CreateError) -> Problem {
    let unavailable = |kind, text: &str| Problem::new(StatusCode::SERVICE_UNAVAILABLE, kind, text);
    match error {
        CreateError::Offer(error) => Problem::new(status(error.http_status()), "offer", error.to_string()),
        CreateError::Failed(failure) => Problem {
            sip_status: failure.sip_status.filter(|status| *status >= 200),
            ..Problem::new(status(failure.http_status()), failure.cause.name(), failure.text.clone())
        },
        CreateError::NoRelay => unavailable("no_relay", "the media relay is away; try again"),
        CreateError::NoServer => unavailable("no_sip_server", "no SIP server is configured ([sip] server)"),
        CreateError::Draining => unavailable("draining", "the appliance is ending and takes no new calls"),
        CreateError::Full => unavailable("full", "there are as many calls as there may be").retry(RETRY_FULL),
        CreateError::Forbidden => access::forbidden_problem(),
        CreateError::Expired => access::expired_problem(),
        CreateError::UnknownSession => unknown_session(),
        CreateError::Gone => Problem::new(StatusCode::CONFLICT, "gone", "the call does not ring any more"),
        CreateError::TooMany => {
            let text = "this client has as many calls as one may have without a token";
            Problem::new(StatusCode::TOO_MANY_REQUESTS, "too_many_calls", text).retry(RETRY_CLIENT)
        }
    }
}

/// Nobody is signed in under this name.
pub fn unknown_session() -> Problem {
    Problem::new(StatusCode::NOT_FOUND, "unknown_session", "nobody is signed in under this name")
}

fn status(code: u16) -> StatusCode {
    StatusCode::from_u16(code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
}

/// What a client is told who asks something of a call in vain.
pub fn call_problem(error: CallError) -> Problem {
    match error {
        CallError::Unknown => Problem::new(StatusCode::NOT_FOUND, "unknown_call", "there is no such call"),
        CallError::Forbidden => access::forbidden_problem(),
        CallError::Expired => access::expired_problem(),
        CallError::NotYet => {
            let text = "the relay has not told yet which calls run";
            Problem::new(StatusCode::SERVICE_UNAVAILABLE, "not_ready", text).retry(1)
        }
        CallError::NotRecordable => {
            let text = "the call is recorded already, or not answered yet";
            Problem::new(StatusCode::CONFLICT, "not_recordable", text)
        }
        CallError::NoRecorder => {
            let text = "the configuration names no [recording] server";
            Problem::new(StatusCode::CONFLICT, "no_recorder", text)
        }
        CallError::Fragment(error) => Problem::new(StatusCode::BAD_REQUEST, "fragment", error.to_string()),
    }
}

/// A call as REST shows it.
#[derive(Debug, Serialize, ToSchema)]
pub struct Call {
    /// 32 hexadecimal digits.
    id: String,
    /// `reserving`, `calling`, `ringing`, `early`, `answered`, `connected`, `ending` or `ended`.
    state: &'static str,
    /// `in` (from the telephony to a browser) or `out`.
    direction: &'static str,
    /// Who calls: a number.
    from: String,
    /// Whom it calls.
    to: String,
    /// When it began, in milliseconds since the Unix epoch.
    created: u64,
    /// Whether copies of its sound go to a recorder, or to somebody who listens in.
    recording: bool,
    /// Both legs.
    legs: Legs,
    /// What the relay carries for it.
    media: Media,
}

/// Both legs of a call.
#[derive(Debug, Serialize, ToSchema)]
pub struct Legs {
    outside: OutsideLeg,
    inside: InsideLeg,
}

/// The browser's leg.
#[derive(Debug, Serialize, ToSchema)]
pub struct OutsideLeg {
    /// `new`, `checking`, `connected` or `failed`.
    ice: &'static str,
    /// As for ICE.
    dtls: &'static str,
    /// SRTP profile, such as `AEAD_AES_128_GCM`.
    profile: Option<&'static str>,
}

/// Telephony's leg.
#[derive(Debug, Serialize, ToSchema)]
pub struct InsideLeg {
    /// Last status of the INVITE.
    sip_status: Option<u16>,
    /// Codec, such as `PCMU/8000`.
    codec: Option<String>,
    /// Encoding of the picture, such as `VP8/90000`; null without one.
    video: Option<String>,
}

/// What the relay carries.
#[derive(Debug, Serialize, ToSchema)]
pub struct Media {
    /// Version of the plan that runs; 0 before the first.
    plan: u32,
    directions: Vec<Direction>,
}

/// One direction.
#[derive(Debug, Serialize, ToSchema)]
pub struct Direction {
    /// Its number within the call.
    index: u8,
    /// `outside` or `inside`: where its packets come from.
    from: &'static str,
    /// RTP packets that left.
    packets: u64,
    /// RTP payload octets that left.
    octets: u64,
    /// RTP packets missing on arrival.
    lost: i64,
    /// Dropped packets by reason.
    drops: BTreeMap<String, u64>,
    /// How well its packets arrive; null before the first one, and where RTP passes unchanged between plain peers.
    quality: Option<Quality>,
}

impl Call {
    pub(super) fn new(view: &CallView, directions: &[DirectionReport]) -> Self {
        let direction = |(at, report): (usize, &DirectionReport)| Direction {
            index: report.index.0,
            from: super::state::zone(report.from),
            packets: report.packets,
            octets: report.octets,
            lost: report.lost,
            drops: report.drops.iter().map(|drop| (drop.name.clone(), drop.value)).collect(),
            // Directions of a medium come in pairs.
            quality: Quality::new(report, directions.get(at ^ 1), view.codec.as_deref()),
        };
        Self {
            id: view.id.to_string(),
            state: view.state.name(),
            direction: if view.incoming { "in" } else { "out" },
            from: view.from.clone(),
            to: view.to.clone(),
            created: view.created,
            recording: view.recording,
            legs: Legs {
                outside: OutsideLeg {
                    ice: view.ice.name(),
                    dtls: view.dtls.name(),
                    profile: view.profile.map(|profile| profile.name()),
                },
                inside: InsideLeg {
                    sip_status: view.sip_status,
                    codec: view.codec.clone(),
                    video: view.video.clone(),
                },
            },
            media: Media {
                plan: view.version,
                directions: directions.iter().enumerate().map(direction).collect(),
            },
        }
    }
}
