//! The door for SIP over WebSocket (RFC 7118).

use axum::Extension;
use axum::extract::ws::WebSocketUpgrade;
use axum::extract::ws::rejection::WebSocketUpgradeRejection;
use axum::extract::{Query, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};

use serde::Deserialize;

use super::Shared;
use super::connection::{Local, Peer};
use super::problem::Problem;
use crate::message::Visitor;
use crate::sip::MESSAGE_MAX;

/// Seconds until another attempt is worth while.
const RETRY_S: u32 = 10;

/// What a browser shows in the URL: its WebSocket API takes no headers.
#[derive(Deserialize, Default)]
#[serde(default)]
pub struct Shown {
    /// A bearer token.
    token: Option<String>,
    /// Password of the number, for the SIP server.
    password: String,
}

/// Lets a browser in that speaks the sub-protocol `sip`.
pub async fn sip(
    State(shared): State<Shared>,
    (peer, local): (Extension<Peer>, Extension<Local>),
    Query(shown): Query<Shown>,
    headers: HeaderMap,
    upgrade: Result<WebSocketUpgrade, WebSocketUpgradeRejection>,
) -> Response {
    let upgrade = match upgrade {
        Ok(upgrade) => upgrade.protocols(["sip"]),
        Err(_) => return upgrade_required("this path speaks SIP over WebSocket only (RFC 7118)"),
    };
    if upgrade.selected_protocol().is_none() {
        let text = "the WebSocket sub-protocol must be \"sip\" (RFC 7118 section 4.1)";
        return Problem::new(StatusCode::BAD_REQUEST, "subprotocol", text).into_response();
    }
    if !shared.access.may_connect(&headers) {
        let text = "pages of this origin may not connect; see [http] origins";
        return Problem::new(StatusCode::FORBIDDEN, "origin", text).into_response();
    }
    let visitor = Visitor {
        client: shared.access.client(&headers, peer.0.0).group(),
        zone: shared.caller(&headers, *peer, *local).zone,
        token: shown.token.or_else(|| bearer(&headers).map(str::to_owned)),
        password: shown.password,
    };
    let Some(place) = shared.gate.enter(visitor) else {
        let text = "there are as many WebSocket connections as there may be";
        return Problem::new(StatusCode::SERVICE_UNAVAILABLE, "full", text).retry(RETRY_S).into_response();
    };
    upgrade
        .max_message_size(MESSAGE_MAX)
        .max_frame_size(MESSAGE_MAX)
        .on_upgrade(move |socket| place.follow(socket, peer.0.0, shared.secure))
}

/// The bearer token of a request (RFC 6750 section 2.1).
fn bearer(headers: &HeaderMap) -> Option<&str> {
    headers.get(header::AUTHORIZATION)?.to_str().ok()?.strip_prefix("Bearer ").map(str::trim)
}

/// RFC 9110 section 15.5.22.
pub(super) fn upgrade_required(text: &str) -> Response {
    let mut response = Problem::new(StatusCode::UPGRADE_REQUIRED, "upgrade", text).into_response();
    let headers = response.headers_mut();
    headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
    headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
    response
}
