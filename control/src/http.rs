//! REST over HTTP: calls, events, state, metrics, and the door for SIP over WebSocket. Every error is a problem document (RFC 9457).

mod access;
mod agents;
mod body;
mod calls;
mod checks;
mod connection;
mod errands;
mod guests;
mod hanging;
mod mailbox;
mod outbox;
mod pages;
mod problem;
mod quality;
mod recording;
mod socket;
mod state;
mod tls;
mod websocket;

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context;
use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::routing::{delete, get, post, put};
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, watch};

use crate::config::Config;
use crate::identity::Identities;
use crate::message::Handle;
use crate::ng::Network;
use crate::places::Places;
use crate::sip::{Gate, View};
use access::Access;

/// Octets that a request's body may have.
const BODY_MAX: usize = 64 * 1024;

/// What all handlers share.
#[derive(Clone)]
pub struct Shared {
    calls: Handle,
    access: Arc<Access>,
    mailboxes: mailbox::Mailboxes,
    /// How long a browser that hears no events stays signed in.
    grace: Duration,
    begun: Instant,
    gate: Gate,
    sip: watch::Receiver<View>,
    /// Whether we speak HTTPS.
    secure: bool,
    /// Connections of the JSON WebSocket, and who is signed in there.
    places: Places,
    sockets: guests::Guests,
    /// Who is signed in by the hanging GET.
    hanging: guests::Guests,
    counts: Arc<guests::Counts>,
    /// How long a browser may be away before it is signed out.
    linger: Duration,
    /// Where administrators may send copies of calls.
    listeners: Arc<[Network]>,
}

/// Listening sockets, not yet served.
pub struct Server {
    listeners: Vec<TcpListener>,
    tls: Option<tls::Acceptor>,
    router: Router,
}

impl Server {
    /// Binds all configured addresses.
    ///
    /// # Errors
    /// What the system says of an address, or what is wrong with the certificate.
    pub async fn bind(
        config: Arc<Config>,
        calls: Handle,
        identities: Arc<Identities>,
        gate: Gate,
        sip: watch::Receiver<View>,
    ) -> anyhow::Result<Self> {
        let tls = tls::Acceptor::load(&config.http.certificate, &config.http.key)?;
        let mut listeners = Vec::new();
        for address in &config.http.listen {
            listeners.push(TcpListener::bind(address).await.with_context(|| format!("{address}"))?);
        }
        let access = Arc::new(Access::new(&config, identities));
        let shared = Shared {
            calls,
            access,
            begun: Instant::now(),
            mailboxes: mailbox::Mailboxes::default(),
            grace: Duration::from_secs(config.agents.grace_s.into()),
            gate,
            sip,
            secure: tls.is_some(),
            places: Places::default(),
            sockets: guests::Guests::new("seq"),
            // `seq` is ROAP's there.
            hanging: guests::Guests::new("number"),
            counts: Arc::default(),
            linger: Duration::from_secs(config.agents.grace_s.into()),
            listeners: config.recording.networks().map_err(anyhow::Error::msg)?.into(),
        };
        let router = router(shared, config.http.demo);
        Ok(Self { listeners, tls, router })
    }

    /// Serves until `stop` turns true.
    pub async fn run(self, stop: watch::Receiver<bool>) {
        let places = Arc::new(Semaphore::new(connection::PLACES));
        let mut served = tokio::task::JoinSet::new();
        for listener in self.listeners {
            let (tls, router) = (self.tls.clone(), self.router.clone());
            served.spawn(connection::serve(listener, tls, router, places.clone(), stop.clone()));
        }
        while let Some(ended) = served.join_next().await {
            if ended.is_err() && !*stop.borrow() {
                tracing::error!("HTTP is not served any more");
                return;
            }
        }
    }
}

fn router(shared: Shared, demo: bool) -> Router {
    Router::new()
        .merge(pages::router(demo))
        .route("/v1/calls", post(calls::create).get(calls::list))
        .route("/v1/calls/{id}", get(calls::show).patch(calls::trickle).delete(calls::hang_up))
        .route("/v1/calls/{id}/events", get(calls::events))
        .route("/v1/calls/{id}/accept", post(errands::accept))
        .route("/v1/calls/{id}/decline", post(errands::decline))
        .route("/v1/calls/{id}/claim", post(errands::claim))
        .route("/v1/calls/{id}/offer", put(errands::renegotiate))
        .route("/v1/calls/{id}/dtmf", post(errands::dtmf))
        .route("/v1/calls/{id}/info", post(errands::info))
        .route("/v1/calls/{id}/transfer", post(errands::transfer))
        .route("/v1/calls/{id}/recording", post(recording::begin).delete(recording::end))
        .route("/v1/sessions", post(agents::sign_in))
        .route("/v1/sessions/{id}", delete(agents::sign_out))
        .route("/v1/sessions/{id}/token", put(agents::renew))
        .route("/v1/sessions/{id}/events", get(agents::events))
        .route("/v1/status", get(state::status))
        .route("/v1/openapi.json", get(state::openapi))
        .route("/v1/socket", get(socket::socket))
        .route("/hanging/sign-in", get(hanging::sign_in_by_get).post(hanging::sign_in_by_post))
        .route("/hanging/{session}", get(hanging::hear).post(hanging::say).delete(hanging::sign_out))
        .route("/hanging/{session}/sign-out", get(hanging::sign_out).post(hanging::sign_out))
        .route("/sip", get(websocket::sip))
        .route("/metrics", get(state::metrics))
        .route("/healthz", get(state::healthz))
        .route("/readyz", get(state::readyz))
        .fallback(problem::not_found)
        .method_not_allowed_fallback(problem::method_not_allowed)
        .layer(axum::middleware::from_fn_with_state(shared.clone(), access::cross_origin))
        .layer(DefaultBodyLimit::max(BODY_MAX))
        .with_state(shared)
}
