//! Who may do what: bearer tokens (RFC 6750), anonymous destinations, origins (CORS).

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use super::Shared;
use super::problem::Problem;
use crate::config::{Http, Metrics};

/// What the configuration allows.
pub struct Access {
    tokens: Vec<String>,
    anonymous: Vec<String>,
    origins: Vec<String>,
    proxies: Vec<IpAddr>,
    metrics: Metrics,
}

/// Who asks, as far as can be told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Client {
    address: IpAddr,
    /// Whether it is a program of this machine that speaks for itself.
    local: bool,
}

impl Client {
    /// What is counted as one client: an address, of IPv6 the 64 bits that one subscriber has.
    pub fn group(self) -> IpAddr {
        match self.address {
            IpAddr::V4(_) => self.address,
            IpAddr::V6(v6) => Ipv6Addr::from_bits(v6.to_bits() >> 64 << 64).into(),
        }
    }
}

impl Access {
    /// From `[http]`.
    pub fn new(config: &Http) -> Self {
        Self {
            tokens: config.tokens.clone(),
            anonymous: config.anonymous.clone(),
            origins: config.origins.clone(),
            proxies: config.proxies.clone(),
            metrics: config.metrics,
        }
    }

    /// Who asks: the peer, or whom a proxy of ours names (the last value of X-Forwarded-For is its own).
    pub fn client(&self, headers: &HeaderMap, peer: SocketAddr) -> Client {
        let peer = peer.ip().to_canonical();
        let forwarded = headers.get_all("x-forwarded-for").iter().next_back();
        let named = forwarded.and_then(|value| value.to_str().ok()?.rsplit(',').next()?.trim().parse().ok());
        let through = forwarded.is_some() || headers.contains_key(header::FORWARDED);
        match named.filter(|_| self.proxies.contains(&peer)) {
            Some(address) => Client { address, local: false },
            None => Client { address: peer, local: peer.is_loopback() && !through },
        }
    }

    /// Whether the request may read the metrics.
    ///
    /// # Errors
    /// The problem to answer with.
    pub fn metrics(&self, headers: &HeaderMap, peer: SocketAddr) -> Result<(), Problem> {
        match self.metrics {
            Metrics::Open => Ok(()),
            Metrics::Local if self.client(headers, peer).local => Ok(()),
            Metrics::Local | Metrics::Token => self.token(headers),
            Metrics::Off => Err(super::problem::nothing_here()),
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

    /// Whether the request may call `to`: with a token anybody, without one the destinations that are open to all. Gives
    /// whether it has a token.
    ///
    /// # Errors
    /// The problem to answer with.
    pub fn call(&self, headers: &HeaderMap, to: &str) -> Result<bool, Problem> {
        let open = self.anonymous.iter().any(|open| open == "*" || open == to);
        match self.token(headers) {
            Ok(()) => Ok(true),
            Err(_) if open => Ok(false),
            Err(problem) => Err(problem),
        }
    }

    /// Whether a page may open a WebSocket: no page asks, or one of ours or of an origin that is allowed. Browsers do not
    /// hold WebSockets to CORS; the server has to (RFC 6455 section 10.2).
    pub fn may_connect(&self, headers: &HeaderMap) -> bool {
        let Some(origin) = headers.get(header::ORIGIN) else { return true };
        let host = headers.get(header::HOST).and_then(|host| host.to_str().ok());
        let place = origin.to_str().ok().and_then(|origin| origin.split_once("://")).map(|(_, place)| place);
        let same = host.is_some_and(|host| place.is_some_and(|place| place.eq_ignore_ascii_case(host)));
        same || self.origin(headers).is_some()
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
            proxies: vec!["10.0.0.9".parse().unwrap()],
            metrics: Metrics::Local,
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
        assert!(matches!(access.call(&HeaderMap::new(), "1000"), Ok(false)));
        assert!(matches!(access.call(&with(header::AUTHORIZATION, "Bearer first token"), "1000"), Ok(true)));
        assert!(access.call(&HeaderMap::new(), "10000").is_err());
        assert!(access.call(&with(header::AUTHORIZATION, "Bearer first token"), "10000").is_ok());
    }

    #[test]
    fn a_client_is_who_connects_or_whom_a_proxy_of_ours_names() {
        let access = access();
        let name = header::HeaderName::from_static("x-forwarded-for");
        let client = |peer: &str, forwarded: Option<&str>| {
            let headers = forwarded.map(|value| with(name.clone(), value)).unwrap_or_default();
            let client = access.client(&headers, SocketAddr::new(peer.parse().unwrap(), 1));
            (client.group().to_string(), client.local)
        };
        for (peer, forwarded, group, local) in [
            ("198.51.100.7", None, "198.51.100.7", false),
            ("::ffff:198.51.100.7", None, "198.51.100.7", false),
            ("2001:db8:1:2:3:4:5:6", None, "2001:db8:1:2::", false),
            ("198.51.100.7", Some("203.0.113.1"), "198.51.100.7", false),
            ("10.0.0.9", Some("203.0.113.9, 203.0.113.1"), "203.0.113.1", false),
            ("10.0.0.9", Some("nonsense"), "10.0.0.9", false),
            ("127.0.0.1", None, "127.0.0.1", true),
            ("127.0.0.1", Some("203.0.113.1"), "127.0.0.1", false),
        ] {
            assert_eq!(client(peer, forwarded), (group.to_owned(), local), "{peer} {forwarded:?}");
        }
    }

    #[test]
    fn metrics_are_for_whom_the_configuration_names() {
        let token = with(header::AUTHORIZATION, "Bearer first token");
        let (near, far) = ("127.0.0.1:9".parse().unwrap(), "198.51.100.7:9".parse().unwrap());
        for (metrics, expected) in [
            (Metrics::Open, [true, true, true]),
            (Metrics::Local, [true, false, true]),
            (Metrics::Token, [false, false, true]),
            (Metrics::Off, [false, false, false]),
        ] {
            let access = Access { metrics, ..access() };
            let may = [(HeaderMap::new(), near), (HeaderMap::new(), far), (token.clone(), far)]
                .map(|(headers, peer)| access.metrics(&headers, peer).is_ok());
            assert_eq!(may, expected, "{metrics:?}");
        }
    }

    #[test]
    fn only_pages_of_ours_or_of_an_allowed_origin_open_websockets() {
        let access = access();
        for (origin, may) in [
            (None, true),
            (Some("https://shop.example"), true),
            (Some("https://appliance.example:8443"), true),
            (Some("https://appliance.example"), false),
            (Some("https://evil.example"), false),
            (Some("null"), false),
        ] {
            let mut headers = with(header::HOST, "appliance.example:8443");
            headers.extend(origin.map(|origin| (header::ORIGIN, HeaderValue::from_str(origin).unwrap())));
            assert_eq!(access.may_connect(&headers), may, "{origin:?}");
        }
    }

    #[test]
    fn foreign_origins_are_not_marked() {
        let access = access();
        assert!(access.origin(&with(header::ORIGIN, "https://shop.example")).is_some());
        assert!(access.origin(&with(header::ORIGIN, "https://evil.example")).is_none());
    }
}
