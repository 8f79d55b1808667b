//! Who may do what: bearer tokens (RFC 6750), anonymous destinations, origins (CORS).

use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use sallyport_plan::Zone;

use super::Shared;
use super::connection::{Local, Peer};
use super::problem::Problem;
use crate::config::{Config, Metrics};
use crate::identity::{Bearer, Counts, Credentials, Denied, Identities};
use crate::message::{By, CallError, Caller, RenewError, SessionId, SignIn, SignInError, SignedIn};

/// Header that names the session of who asks: its id, a secret.
pub const SESSION: &str = "sallyport-session";
/// Seconds until another attempt is worth while.
const RETRY_FULL: u32 = 30;

/// What the configuration allows.
pub struct Access {
    identities: Arc<Identities>,
    inside: Inside,
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

/// Addresses of ours that only the inside reaches.
#[derive(Debug, Clone, Default)]
struct Inside {
    /// As configured; empty: those of `interface`.
    addresses: Vec<IpAddr>,
    interface: String,
    /// As configured, of the outside: they are not inside, whatever interface has them.
    outside: Vec<IpAddr>,
}

impl Inside {
    fn new(config: &Config) -> Self {
        // One interface for both sides has no addresses that only the inside reaches, unless they are named.
        let shared = config.inside.interface == config.outside.interface;
        Self {
            addresses: config.inside.addresses.clone(),
            interface: if shared { String::new() } else { config.inside.interface.clone() },
            outside: config.outside.addresses.clone(),
        }
    }

    fn holds(&self, local: IpAddr) -> bool {
        if self.outside.contains(&local) {
            return false;
        }
        if !self.addresses.is_empty() {
            return self.addresses.contains(&local);
        }
        !self.interface.is_empty() && crate::daemon::addresses(&self.interface).contains(&local)
    }
}

impl Access {
    /// From the configuration.
    pub fn new(config: &Config, identities: Arc<Identities>) -> Self {
        Self {
            identities,
            inside: Inside::new(config),
            origins: config.http.origins.clone(),
            proxies: config.http.proxies.clone(),
            metrics: config.http.metrics,
        }
    }

    /// Judges a sign-in, for all transports; the token may come as a header instead of as one of the credentials. Whoever
    /// signs the browser in then tells [`Self::settle`] what became of it, or uses [`Shared::sign_in`], which does both.
    ///
    /// # Errors
    /// The problem to answer with.
    pub fn sign_in(
        &self,
        headers: &HeaderMap,
        peer: SocketAddr,
        credentials: &Credentials,
    ) -> Result<SignIn, Problem> {
        let client = self.client(headers, peer).group();
        let given = || bearer(headers).map(str::to_owned);
        let token = credentials.token.clone().or_else(given);
        self.identities.admit(client, &Credentials { token, ..credentials.clone() }).map_err(denied_problem)
    }

    /// Tells what became of a sign-in that [`Self::sign_in`] let pass.
    pub fn settle(
        &self,
        headers: &HeaderMap,
        peer: SocketAddr,
        credentials: &Credentials,
        outcome: Result<(), &SignInError>,
    ) {
        let client = self.client(headers, peer).group();
        let given = || bearer(headers).map(str::to_owned);
        let token = credentials.token.clone().or_else(given);
        self.identities.settle(client, &Credentials { token, ..credentials.clone() }, outcome);
    }

    /// Who asks for a call, and at which interface: inside where the connection came to an address of ours that only the
    /// inside reaches. Whom a proxy names may be anywhere, so that it is outside.
    pub fn caller(&self, headers: &HeaderMap, peer: SocketAddr, local: IpAddr) -> Caller {
        let through = headers.contains_key("x-forwarded-for") || headers.contains_key(header::FORWARDED);
        let zone = if !through && self.inside.holds(local) { Zone::Inside } else { Zone::Outside };
        Caller { client: Some(self.client(headers, peer).group()), zone, session: session(headers) }
    }

    /// Sign-ins by what became of them.
    pub fn sign_ins(&self) -> Counts {
        self.identities.counts()
    }

    /// Who asks something of a call.
    pub fn by(&self, headers: &HeaderMap) -> By {
        match session(headers) {
            _ if self.token(headers).is_ok() => By::Administrator,
            Some(session) => By::Session(session),
            None => By::Anybody,
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

    /// Whether the request carries one of the configuration's tokens.
    ///
    /// # Errors
    /// The problem to answer with.
    pub fn token(&self, headers: &HeaderMap) -> Result<(), Problem> {
        if bearer(headers).is_some_and(|token| self.identities.is_administrator(token)) {
            return Ok(());
        }
        let text = "this needs a bearer token of the configuration's [http] tokens";
        Err(Problem::new(StatusCode::UNAUTHORIZED, "token", text))
    }

    /// Whether the request may call `to`: with a token those that it names, without one the destinations that are open to
    /// all. Gives whether it has a token.
    ///
    /// # Errors
    /// The problem to answer with.
    pub fn call(&self, headers: &HeaderMap, to: &str) -> Result<bool, Problem> {
        if self.identities.anybody().allows(to) {
            return Ok(bearer(headers).is_some_and(|token| self.identities.bearer(token).is_ok()));
        }
        let Some(token) = bearer(headers) else {
            let text = "this destination needs a bearer token";
            return Err(Problem::new(StatusCode::UNAUTHORIZED, "token", text));
        };
        let Bearer { reach, .. } = self.identities.bearer(token).map_err(denied_problem)?;
        if reach.allows(to) { Ok(true) } else { Err(forbidden_problem()) }
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

impl Shared {
    /// Signs a browser in, for all transports.
    ///
    /// # Errors
    /// The problem to answer with.
    pub async fn sign_in(
        &self,
        headers: &HeaderMap,
        peer: Peer,
        credentials: &Credentials,
    ) -> Result<SignedIn, Problem> {
        self.sign_in_as(headers, peer, credentials).await.map(|(signed_in, _)| signed_in)
    }

    /// As [`Self::sign_in`], and tells the number: the token may be what names it.
    ///
    /// # Errors
    /// The problem to answer with.
    pub async fn sign_in_as(
        &self,
        headers: &HeaderMap,
        peer: Peer,
        credentials: &Credentials,
    ) -> Result<(SignedIn, Option<String>), Problem> {
        let sign_in = self.access.sign_in(headers, peer.0, credentials)?;
        let number = sign_in.party.as_ref().map(|party| party.user.clone());
        let outcome = self.calls.sign_in(sign_in).await;
        self.access.settle(headers, peer.0, credentials, outcome.as_ref().map(|_| ()));
        let signed_in = outcome.map_err(|error| sign_in_problem(&error))?;
        Ok((signed_in, number))
    }

    /// Gives a session another token's time and reach, for all transports.
    ///
    /// # Errors
    /// The problem to answer with.
    pub async fn renew(
        &self,
        headers: &HeaderMap,
        peer: Peer,
        (session, token): (SessionId, Option<&str>),
    ) -> Result<(), Problem> {
        let client = self.access.client(headers, peer.0).group();
        let token = token.or_else(|| bearer(headers)).ok_or_else(|| denied_problem(Denied::NoToken))?;
        let renewal = self.access.identities.renew(client, token).map_err(denied_problem)?;
        self.calls.renew(session, renewal).await.map_err(|error| match error {
            RenewError::Unknown => super::calls::unknown_session(),
            RenewError::OtherNumber => denied_problem(Denied::OtherNumber),
        })
    }

    /// Whether who asks may ask something of a call: its session's, an administrator's, or nobody's.
    ///
    /// # Errors
    /// [`CallError::Unknown`].
    pub async fn may(&self, headers: &HeaderMap, id: sallyport_plan::CallId) -> Result<(), CallError> {
        self.calls.may(id, self.access.by(headers)).await
    }

    /// Who asks for a call.
    pub fn caller(&self, headers: &HeaderMap, peer: Peer, local: Local) -> Caller {
        self.access.caller(headers, peer.0, local.0)
    }
}

/// The bearer token of a request (RFC 6750 section 2.1).
fn bearer(headers: &HeaderMap) -> Option<&str> {
    let value = headers.get(header::AUTHORIZATION)?.to_str().ok()?;
    let token = value.strip_prefix("Bearer ")?.trim();
    (!token.is_empty()).then_some(token)
}

/// The session that a request names. What is no name at all is the name of no session.
pub fn session(headers: &HeaderMap) -> Option<SessionId> {
    let value = headers.get(SESSION)?;
    Some(value.to_str().ok().and_then(|text| text.parse().ok()).unwrap_or(SessionId(0)))
}

/// What a browser is told that does not get in.
pub fn denied_problem(denied: Denied) -> Problem {
    let text = denied.text();
    match denied {
        Denied::Malformed(_) => Problem::new(StatusCode::BAD_REQUEST, "credentials", text),
        Denied::Token(_) | Denied::NoToken => Problem::new(StatusCode::UNAUTHORIZED, "token", text),
        Denied::NoPassword => Problem::new(StatusCode::UNAUTHORIZED, "password", text),
        Denied::OtherNumber => Problem::new(StatusCode::FORBIDDEN, "other_number", text),
        Denied::Limited(wait) => {
            let seconds = u32::try_from(wait.as_secs()).unwrap_or(u32::MAX).saturating_add(1);
            Problem::new(StatusCode::TOO_MANY_REQUESTS, "too_many_sign_ins", text).retry(seconds)
        }
    }
}

/// What a browser is told that is not signed in.
pub fn sign_in_problem(error: &SignInError) -> Problem {
    let unavailable = |kind, text: &str| Problem::new(StatusCode::SERVICE_UNAVAILABLE, kind, text);
    match error {
        SignInError::Full => {
            unavailable("full", "as many browsers are signed in as may be").retry(RETRY_FULL)
        }
        SignInError::Draining => unavailable("draining", "the appliance is ending and signs nobody in"),
        SignInError::TooMany => {
            let text = "as many browsers are signed in with this number, or by this client, as may be";
            Problem::new(StatusCode::TOO_MANY_REQUESTS, "too_many_sessions", text).retry(RETRY_FULL)
        }
        SignInError::Refused { status } => {
            let text = "the SIP server does not take this number with this password";
            Problem { sip_status: *status, ..Problem::new(StatusCode::FORBIDDEN, "refused", text) }
        }
        SignInError::Unreachable => {
            let text = "the SIP server takes no registrations now";
            Problem::new(StatusCode::GATEWAY_TIMEOUT, "sip_unreachable", text).retry(RETRY_FULL)
        }
    }
}

/// What a browser is told whose token is worth nothing any more.
pub fn expired_problem() -> Problem {
    let text = "the session's token has expired; renew it, or sign in anew";
    Problem::new(StatusCode::UNAUTHORIZED, "expired", text)
}

/// What a browser is told that may not call there.
pub fn forbidden_problem() -> Problem {
    Problem::new(StatusCode::FORBIDDEN, "destination", "this destination may not be called with this token")
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
        let exposed = HeaderValue::from_static("Location, ETag, Retry-After");
        headers.insert(header::ACCESS_CONTROL_EXPOSE_HEADERS, exposed);
        if preflight {
            let methods = HeaderValue::from_static("GET, POST, PUT, PATCH, DELETE");
            headers.insert(header::ACCESS_CONTROL_ALLOW_METHODS, methods);
            let allowed = HeaderValue::from_static(
                "Authorization, Content-Type, If-Match, Last-Event-ID, Sallyport-Session",
            );
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
        with_metrics(Metrics::Local)
    }

    fn with_metrics(metrics: Metrics) -> Access {
        let mut config = Config::default();
        config.http.tokens = vec!["first token".into(), "second token".into()];
        config.http.anonymous = vec!["1000".into()];
        config.http.origins = vec!["https://shop.example".into()];
        config.http.proxies = vec!["10.0.0.9".parse().unwrap()];
        config.http.metrics = metrics;
        config.inside.addresses = vec!["10.0.0.1".parse().unwrap(), "fd00::1".parse().unwrap()];
        let identities = Arc::new(Identities::new(&config).unwrap());
        Access::new(&config, identities)
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
        assert!(access.token(&with(header::AUTHORIZATION, "Bearer ")).is_err());
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
            let access = with_metrics(metrics);
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

    #[test]
    fn who_comes_to_an_address_inside_is_inside_unless_a_proxy_speaks_for_it() {
        let access = access();
        let forwarded = with(header::HeaderName::from_static("x-forwarded-for"), "203.0.113.1");
        let peer = "10.0.0.7:4000".parse().unwrap();
        for (headers, local, zone) in [
            (HeaderMap::new(), "10.0.0.1", Zone::Inside),
            (HeaderMap::new(), "fd00::1", Zone::Inside),
            (HeaderMap::new(), "198.51.100.7", Zone::Outside),
            (HeaderMap::new(), "127.0.0.1", Zone::Outside),
            (forwarded, "10.0.0.1", Zone::Outside),
        ] {
            assert_eq!(access.caller(&headers, peer, local.parse().unwrap()).zone, zone, "{local}");
        }
    }

    #[test]
    fn who_asks_of_a_call_is_an_administrator_a_session_or_anybody() {
        let access = access();
        let id = "000102030405060708090a0b0c0d0e0f";
        let mut named = with(header::HeaderName::from_static(SESSION), id);
        assert_eq!(access.by(&named), By::Session(id.parse().unwrap()));
        assert_eq!(
            access.by(&with(header::HeaderName::from_static(SESSION), "x")),
            By::Session(SessionId(0))
        );
        assert_eq!(access.by(&HeaderMap::new()), By::Anybody);
        named.extend(with(header::AUTHORIZATION, "Bearer first token"));
        assert_eq!(access.by(&named), By::Administrator);
    }
}
