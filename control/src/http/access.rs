//! Who may do what: bearer tokens (RFC 6750), anonymous destinations, origins (CORS).

use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use super::Shared;
use super::problem::Problem;
use crate::config::Http;

/// What the configuration allows.
pub struct Access {
    tokens: Vec<String>,
    anonymous: Vec<String>,
    origins: Vec<String>,
}

impl Access {
    /// From `[http]`.
    pub fn new(config: &Http) -> Self {
        Self {
            tokens: config.tokens.clone(),
            anonymous: config.anonymous.clone(),
            origins: config.origins.clone(),
        }
    }

    /// Whether the request carries one of our tokens.
    ///
    /// # Errors
    /// The problem to answer with.
    pub fn token(&self, headers: &HeaderMap) -> Result<(), Problem> {
        let given = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
        let given = given.and_then(|value| value.strip_prefix("Bearer ")).unwrap_or_default().trim();
        // Every token is compared to its end, whatever the others were.
        let known =
            self.tokens.iter().fold(false, |known, token| known | same(token.as_bytes(), given.as_bytes()));
        if known {
            Ok(())
        } else {
            let text = "this needs a bearer token of the configuration's [http] tokens";
            Err(Problem::new(StatusCode::UNAUTHORIZED, "token", text))
        }
    }

    /// Whether the request may call `to`: with a token anybody, without one the destinations that are open to all.
    ///
    /// # Errors
    /// The problem to answer with.
    pub fn call(&self, headers: &HeaderMap, to: &str) -> Result<(), Problem> {
        let open = self.anonymous.iter().any(|open| open == "*" || open == to);
        if open { Ok(()) } else { self.token(headers) }
    }

    fn origin<'a>(&self, headers: &'a HeaderMap) -> Option<&'a HeaderValue> {
        let origin = headers.get(header::ORIGIN)?;
        let given = origin.to_str().ok()?;
        self.origins.iter().any(|allowed| allowed == "*" || allowed == given).then_some(origin)
    }
}

/// Compares in a time that depends on the lengths only.
fn same(a: &[u8], b: &[u8]) -> bool {
    a.len() == b.len() && a.iter().zip(b).fold(0, |differing, (a, b)| differing | (a ^ b)) == 0
}

/// Answers preflights and marks answers for the origins that are allowed (Fetch, section 3.2).
pub async fn cross_origin(State(shared): State<Shared>, request: Request, next: Next) -> Response {
    let origin = shared.access.origin(request.headers()).cloned();
    let preflight = request.method() == Method::OPTIONS
        && request.headers().contains_key(header::ACCESS_CONTROL_REQUEST_METHOD);
    let mut response =
        if preflight { StatusCode::NO_CONTENT.into_response() } else { next.run(request).await };
    if let Some(origin) = origin {
        let headers = response.headers_mut();
        headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin);
        headers.insert(header::VARY, HeaderValue::from_static("Origin"));
        let exposed = HeaderValue::from_static("Location, ETag");
        headers.insert(header::ACCESS_CONTROL_EXPOSE_HEADERS, exposed);
        if preflight {
            let methods = HeaderValue::from_static("GET, POST, PATCH, DELETE");
            headers.insert(header::ACCESS_CONTROL_ALLOW_METHODS, methods);
            let allowed = HeaderValue::from_static("Authorization, Content-Type, If-Match");
            headers.insert(header::ACCESS_CONTROL_ALLOW_HEADERS, allowed);
            headers.insert(header::ACCESS_CONTROL_MAX_AGE, HeaderValue::from_static("600"));
        }
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    fn access() -> Access {
        Access {
            tokens: vec!["first token".into(), "second token".into()],
            anonymous: vec!["1000".into()],
            origins: vec!["https://shop.example".into()],
        }
    }

    fn with(name: header::HeaderName, value: &str) -> HeaderMap {
        HeaderMap::from_iter([(name, HeaderValue::from_str(value).unwrap())])
    }

    #[test]
    fn one_of_the_tokens_or_nothing() {
        let access = access();
        for (value, good) in [
            ("Bearer second token", true),
            ("Bearer first token", true),
            ("Bearer first toke", false),
            ("Basic first token", false),
            ("Bearer ", false),
        ] {
            assert_eq!(access.token(&with(header::AUTHORIZATION, value)).is_ok(), good, "{value}");
        }
        assert!(access.token(&HeaderMap::new()).is_err());
        let none = Access { tokens: vec![], ..access };
        assert!(none.token(&with(header::AUTHORIZATION, "Bearer ")).is_err());
    }

    #[test]
    fn open_destinations_need_no_token() {
        let access = access();
        assert!(access.call(&HeaderMap::new(), "1000").is_ok());
        assert!(access.call(&HeaderMap::new(), "10000").is_err());
        assert!(access.call(&with(header::AUTHORIZATION, "Bearer first token"), "10000").is_ok());
    }

    #[test]
    fn foreign_origins_are_not_marked() {
        let access = access();
        assert!(access.origin(&with(header::ORIGIN, "https://shop.example")).is_some());
        assert!(access.origin(&with(header::ORIGIN, "https://evil.example")).is_none());
    }
}
