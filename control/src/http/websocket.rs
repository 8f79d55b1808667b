//! The door for SIP over WebSocket (RFC 7118).

use axum::Extension;
use axum::extract::State;
use axum::extract::ws::WebSocketUpgrade;
use axum::extract::ws::rejection::WebSocketUpgradeRejection;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};

use super::Shared;
use super::connection::Peer;
use super::problem::Problem;
use crate::sip::MESSAGE_MAX;

/// Seconds until another attempt is worth while.
const RETRY_S: u32 = 10;

/// Lets a browser in that speaks the sub-protocol `sip`.
pub async fn sip(
    State(shared): State<Shared>,
    peer: Extension<Peer>,
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
    let client = shared.access.client(&headers, peer.0.0).group();
    let Some(place) = shared.gate.enter(client) else {
        let text = "there are as many WebSocket connections as there may be";
        return Problem::new(StatusCode::SERVICE_UNAVAILABLE, "full", text).retry(RETRY_S).into_response();
    };
    upgrade
        .max_message_size(MESSAGE_MAX)
        .max_frame_size(MESSAGE_MAX)
        .on_upgrade(move |socket| place.follow(socket, peer.0.0, shared.secure))
}

/// RFC 9110 section 15.5.22.
pub(super) fn upgrade_required(text: &str) -> Response {
    let mut response = Problem::new(StatusCode::UPGRADE_REQUIRED, "upgrade", text).into_response();
    let headers = response.headers_mut();
    headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
    headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
    response
}
