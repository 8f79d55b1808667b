//! Bodies that come whole and in time.

use std::time::Duration;

use axum::body::Bytes;
use axum::extract::{FromRequest, Request};
use axum::http::StatusCode;

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
