//! Brings control up in order, and down again.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use nix::ifaddrs::getifaddrs;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

use crate::calls::{self, Calls};
use crate::config::Config;
use crate::dtls::Identity;
use crate::http::Server;
use crate::{downlink, ng, sip};

/// How long calls may take to end on a drain.
const DRAIN_PATIENCE: Duration = Duration::from_secs(5);

/// Runs until a signal: `SIGTERM` leaves media running for the next control, `SIGINT` hangs up all calls first.
///
/// # Errors
/// What keeps control from starting, in words.
pub async fn run(config: Config) -> anyhow::Result<()> {
    let config = Arc::new(config);
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let (handle, inbox) = calls::channel();
    let identity = Identity::new().context("no DTLS identity")?;
    let listen = sip_address(&config)?;
    let stack = sip::spawn(&config, listen, handle.clone()).await.context("SIP cannot be served")?;
    let http = Server::bind(config.clone(), handle.clone()).await.context("HTTP cannot be served")?;
    let ng = ng::bind(&config.ng, handle.clone()).await.context("NG cannot be served")?;
    let relay = downlink::spawn(config.relay.socket.clone(), handle.clone());
    let owner = tokio::spawn(Calls::new(config.clone(), identity, relay, stack).run(inbox));
    ng.spawn();
    let (stop, stopped) = watch::channel(false);
    let server = tokio::spawn(http.run(stopped));
    let rest: Vec<String> = config.http.listen.iter().map(ToString::to_string).collect();
    let status = format!("REST on {}, SIP on {listen}", rest.join(" and "));
    tracing::info!("up");
    let _ = sd_notify::notify(&[sd_notify::NotifyState::Ready, sd_notify::NotifyState::Status(&status)]);

    tokio::select! {
        _ = terminate.recv() => tracing::info!("ending; media goes on"),
        _ = interrupt.recv() => {
            tracing::info!("ending; calls are hung up");
            let _ = tokio::time::timeout(DRAIN_PATIENCE, handle.drain()).await;
        }
    }
    let _ = stop.send(true);
    let _ = tokio::time::timeout(Duration::from_secs(1), server).await;
    owner.abort();
    Ok(())
}

/// Where SIP is heard: configured, or the first inside address.
fn sip_address(config: &Config) -> anyhow::Result<SocketAddr> {
    if let Some(listen) = config.sip.listen {
        return Ok(listen);
    }
    // Whom we call decides the family; without a server IPv4 comes first.
    let wanted =
        |address: &IpAddr| config.sip.server.is_none_or(|server| server.is_ipv4() == address.is_ipv4());
    let configured = &config.inside.addresses;
    if let Some(address) = configured.iter().find(|address| wanted(address)).or(configured.first()) {
        return Ok(SocketAddr::new(*address, 5060));
    }
    let name = &config.inside.interface;
    let addresses = getifaddrs().context("interfaces cannot be read")?;
    let found = addresses.filter(|entry| entry.interface_name == *name).filter_map(|entry| {
        let address = entry.address?;
        let v4 = address.as_sockaddr_in().map(|v4| IpAddr::V4(v4.ip()));
        let v6 = address.as_sockaddr_in6().filter(|v6| !v6.ip().is_unicast_link_local());
        v4.or_else(|| v6.map(|v6| IpAddr::V6(v6.ip())))
    });
    let found: Vec<IpAddr> = found.collect();
    let address = found.iter().find(|address| wanted(address)).or(found.first());
    let address = address.with_context(|| format!("interface {name} has no address for SIP"))?;
    Ok(SocketAddr::new(*address, 5060))
}
