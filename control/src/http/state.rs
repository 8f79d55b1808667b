//! The appliance's state: status, metrics, health, and the document that describes the API.

use std::collections::BTreeMap;
use std::net::IpAddr;

use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use sallyport_plan::{Status as RelayStatus, Zone};
use serde::Serialize;
use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityScheme};
use utoipa::{Modify, OpenApi, ToSchema};

use super::Shared;
use super::connection::Peer;
use super::problem::Problem;
use crate::metrics;
use crate::sip::{PeerState, View};

/// `outside` or `inside`.
pub const fn zone(zone: Zone) -> &'static str {
    match zone {
        Zone::Outside => "outside",
        Zone::Inside => "inside",
    }
}

/// State of the appliance.
#[derive(Debug, Serialize, ToSchema)]
pub struct Status {
    /// Version of control.
    version: &'static str,
    /// Seconds since control started.
    uptime_s: u64,
    calls: CallCounts,
    /// Browsers signed in.
    sessions: u64,
    /// Numbers at the SIP server by state: `registering`, `registered`, `failed` or `unregistering`.
    registrations: BTreeMap<&'static str, u64>,
    relay: Relay,
    sip: Sip,
}

/// SIP inside.
#[derive(Debug, Serialize, ToSchema)]
pub struct Sip {
    /// Our peers, the best first.
    peers: Vec<SipPeer>,
    /// Messages that were refused or dropped, by reason.
    refused: BTreeMap<&'static str, u64>,
}

/// A SIP server of ours.
#[derive(Debug, Serialize, ToSchema)]
pub struct SipPeer {
    /// As configured.
    name: String,
    /// Where it is.
    address: String,
    /// `UDP`, `TCP` or `TLS`.
    transport: &'static str,
    /// Whether calls go there; absent while nobody knows.
    #[serde(skip_serializing_if = "Option::is_none")]
    alive: Option<bool>,
    /// Why not; empty if it is alive.
    reason: String,
}

impl Sip {
    fn new(view: &View) -> Self {
        let peer = |peer: &PeerState| SipPeer {
            name: peer.name.clone(),
            address: peer.address.to_string(),
            transport: peer.transport.name(),
            alive: peer.alive,
            reason: peer.reason.clone(),
        };
        Self { peers: view.peers.iter().map(peer).collect(), refused: view.refused.clone() }
    }
}

/// Calls by what they are about.
#[derive(Debug, Serialize, ToSchema)]
pub struct CallCounts {
    /// Being set up.
    setup: u64,
    /// Established.
    active: u64,
}

/// State of the relay; all zero while it is away.
#[derive(Debug, Default, Serialize, ToSchema)]
pub struct Relay {
    /// Whether it is there.
    connected: bool,
    interfaces: Vec<Interface>,
    /// Workers.
    workers: u32,
    /// Who encrypts: `avx512`, `shani` or `portable`.
    srtp: String,
    /// Calls installed.
    calls: u32,
    /// Directions installed.
    directions: u32,
    /// Kernel flow entries.
    flows: u32,
    /// Port pairs taken.
    ports: u32,
    frames: Frames,
    /// Every counter of kernel and relay.
    counters: BTreeMap<String, u64>,
}

/// Packet memory.
#[derive(Debug, Default, Serialize, ToSchema)]
pub struct Frames {
    /// Frames in all.
    total: u64,
    /// Frames that nobody can account for; must stay 0.
    missing: u64,
}

/// What one interface runs on.
#[derive(Debug, Serialize, ToSchema)]
pub struct Interface {
    name: String,
    /// `outside` or `inside`.
    zone: &'static str,
    /// `xdp`, `generic` or `socket`.
    path: String,
    /// RX queues served.
    queues: u32,
    /// Whether the driver works on the relay's memory itself; otherwise the kernel copies each packet.
    zero_copy: bool,
    #[schema(value_type = Vec<String>)]
    addresses: Vec<IpAddr>,
    port_min: u16,
    port_max: u16,
    /// Inside: the UDP port of browsers there; absent where there is none for them.
    #[serde(skip_serializing_if = "Option::is_none")]
    browsers: Option<u16>,
    /// Outside: the TCP port of browsers that UDP does not reach; absent where there is none.
    #[serde(skip_serializing_if = "Option::is_none")]
    tcp: Option<u16>,
    /// Whether the network card spreads UDP over its RX queues by ports as well as by addresses.
    hashes_ports: bool,
}

impl Relay {
    fn new(status: RelayStatus) -> Self {
        let interface = |interface: sallyport_plan::InterfaceStatus| Interface {
            name: interface.name,
            zone: zone(interface.zone),
            path: interface.path,
            queues: interface.queues,
            zero_copy: interface.zero_copy,
            addresses: interface.addresses,
            port_min: interface.port_min,
            port_max: interface.port_max,
            browsers: interface.browsers,
            tcp: interface.tcp,
            hashes_ports: interface.hashes_ports,
        };
        Self {
            connected: true,
            interfaces: status.interfaces.into_iter().map(interface).collect(),
            workers: status.workers,
            srtp: status.srtp,
            calls: status.calls,
            directions: status.directions,
            flows: status.flows,
            ports: status.ports,
            frames: Frames { total: status.frames.0, missing: status.frames.1 },
            counters: status.counters.into_iter().map(|counter| (counter.name, counter.value)).collect(),
        }
    }
}

fn ending() -> Problem {
    Problem::new(StatusCode::SERVICE_UNAVAILABLE, "ending", "the appliance is ending")
}

/// State of the appliance, at most a second old.
#[utoipa::path(get, path = "/v1/status", security(("token" = [])),
    responses((status = 200, body = Status), (status = 401, body = Problem, content_type = "application/problem+json")))]
pub async fn status(State(shared): State<Shared>, headers: HeaderMap) -> Result<Json<Status>, Problem> {
    shared.access.token(&headers)?;
    let overview = shared.calls.overview().await.ok_or_else(ending)?;
    Ok(Json(Status {
        version: env!("CARGO_PKG_VERSION"),
        uptime_s: shared.begun.elapsed().as_secs(),
        calls: CallCounts { setup: overview.setup, active: overview.active },
        sessions: overview.sessions,
        registrations: overview.registrations.into_iter().collect(),
        relay: overview.relay.map(Relay::new).unwrap_or_default(),
        sip: Sip::new(&shared.sip.borrow()),
    }))
}

/// Metrics in the OpenMetrics text format: numbers only, no address. Who may read them is `[http] metrics`.
#[utoipa::path(get, path = "/metrics", security(("token" = []), ()),
    responses((status = 200, content_type = "application/openmetrics-text", body = String),
        (status = "4XX", body = Problem, content_type = "application/problem+json")))]
pub async fn metrics(
    State(shared): State<Shared>,
    peer: Extension<Peer>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    shared.access.metrics(&headers, peer.0.0)?;
    let overview = shared.calls.overview().await.ok_or_else(ending)?;
    let browsers = shared.counts.all();
    let text =
        metrics::encode(&overview, (shared.access.sign_ins(), &browsers), &shared.sip.borrow().clone())
            .map_err(|error| Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "metrics", error.to_string()))?;
    let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    Ok(([(header::CONTENT_TYPE, kind)], text).into_response())
}

/// Whether control runs.
#[utoipa::path(get, path = "/healthz", responses((status = 200, body = String)))]
pub async fn healthz() -> &'static str {
    "ok\n"
}

/// Whether new calls are taken: the relay is there, candidates are known, nobody drains.
#[utoipa::path(get, path = "/readyz", responses((status = 200, body = String),
    (status = 503, body = Problem, content_type = "application/problem+json")))]
pub async fn readyz(State(shared): State<Shared>) -> Result<&'static str, Problem> {
    let overview = shared.calls.overview().await.ok_or_else(ending)?;
    let missing = if overview.draining {
        "the appliance is ending"
    } else if overview.relay.is_none() {
        "the relay is away"
    } else if !overview.candidates_known {
        "the STUN server has not answered yet"
    } else {
        return Ok("ready\n");
    };
    Err(Problem::new(StatusCode::SERVICE_UNAVAILABLE, "not_ready", missing))
}

/// The API's document.
#[derive(OpenApi)]
#[openapi(
    info(title = "Sallyport", description = "Calls between browsers outside and telephony inside."),
    modifiers(&Token),
    paths(
        super::calls::create,
        super::calls::list,
        super::calls::show,
        super::calls::trickle,
        super::calls::hang_up,
        super::calls::events,
        super::errands::accept,
        super::errands::claim,
        super::errands::decline,
        super::errands::renegotiate,
        super::errands::dtmf,
        super::errands::info,
        super::errands::transfer,
        super::recording::begin,
        super::recording::end,
        super::agents::sign_in,
        super::agents::sign_out,
        super::agents::renew,
        super::socket::socket,
        super::hanging::sign_in_by_get,
        super::hanging::sign_in_by_post,
        super::hanging::hear,
        super::hanging::say,
        super::hanging::sign_out,
        super::agents::events,
        status,
        metrics,
        healthz,
        readyz,
    )
)]
struct Document;

struct Token;

impl Modify for Token {
    fn modify(&self, document: &mut utoipa::openapi::OpenApi) {
        let scheme = SecurityScheme::Http(HttpBuilder::new().scheme(HttpAuthScheme::Bearer).build());
        document.components.get_or_insert_default().add_security_scheme("token", scheme);
    }
}

/// Describes the API (OpenAPI 3.1).
pub async fn openapi() -> Json<utoipa::openapi::OpenApi> {
    Json(Document::openapi())
}
