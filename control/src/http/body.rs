//! Bodies that come whole and in time.

use std::time::Duration;

use axum::body::Bytes;
use axum::extract::{FromRequest, Request};
use axum::http::{HeaderMap, StatusCode, header};

use super::problem::Problem;

/// How long a body may take: 64 KiB over a poor line.
const PATIENCE: Duration = Duration::from_secs(10);

/// A request's body, or the problem with it: the path has to be judged first.
pub struct Whole(pub Result<Bytes, Problem>);

impl<S: Send + Sync> FromRequest<S> for Whole {
    type Rejection = std::convert::Infallible;

    async fn from_request(request: Request, state: &S) -> Result<Self, Self::Rejection> {
        let read = tokio::time::timeout(PATIENCE, Bytes::from_request(request, state)).await;
        let late = |_| Problem::new(StatusCode::REQUEST_TIMEOUT, "body", "the body takes too long");
        let refused = |rejected: axum::extract::rejection::BytesRejection| {
            Problem::new(rejected.status(), "body", rejected.body_text())
        };
        Ok(Self(read.map_err(late).and_then(|read| read.map_err(refused))))
    }
}

/// A body as JSON of one shape; its flaws are named.
///
/// # Errors
/// 415 for another type, 400 for what is no such JSON.
pub fn json<T: serde::de::DeserializeOwned>(headers: &HeaderMap, body: Bytes) -> Result<T, Problem> {
    const JSON: &str = "application/json";
    let given = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    if !given.split(';').next().unwrap_or_default().trim().eq_ignore_ascii_case(JSON) {
        let detail = format!("Content-Type must be {JSON}");
        return Err(Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "media_type", detail));
    }
    serde_json::from_slice(&body)
        .map_err(|error| Problem::new(StatusCode::BAD_REQUEST, "body", format!("the body: {error}")))
}
