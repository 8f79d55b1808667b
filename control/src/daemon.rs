//! Brings control up in order, and down again.

use std::future::Future;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use nix::ifaddrs::getifaddrs;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::calls::{self, Calls};
use crate::config::Config;
use crate::dtls::Identity;
use crate::gateway::{self, Gateway};
use crate::http::Server;
use crate::identity::Identities;
use crate::{downlink, ng, sip, stun};

/// How long calls may take to end on a drain.
const DRAIN_PATIENCE: Duration = Duration::from_secs(5);
/// How long calls in setup may take to be cancelled, where media of others goes on.
const LEAVE_PATIENCE: Duration = Duration::from_secs(1);

/// Tasks that live as long as the process: none may end, or panic, while the others go on without it.
#[derive(Default)]
struct Tasks(JoinSet<&'static str>);

impl Tasks {
    fn add(&mut self, name: &'static str, task: impl Future<Output = ()> + Send + 'static) {
        self.0.spawn(async move {
            task.await;
            name
        });
    }

    /// Waits until one has ended; why the process cannot go on.
    async fn ended(&mut self) -> anyhow::Error {
        match self.0.join_next().await {
            Some(Ok(name)) => anyhow::anyhow!("{name} ended; the process ends, to be started anew"),
            Some(Err(error)) => {
                anyhow::anyhow!("a task failed ({error}); the process ends, to be started anew")
            }
            None => std::future::pending().await,
        }
    }
}

/// Says once where keys of media go through the open.
fn warn_of_told_keys(config: &Config) {
    if config.tells_keys() {
        tracing::warn!(
            "[inside] srtp: keys of media travel in SIP messages by UDP or TCP; use transport tls"
        );
    }
}

/// Runs until a signal: `SIGTERM` leaves media running for the next control and cancels what is not up yet, `SIGINT`
/// hangs up all calls first.
///
/// # Errors
/// What keeps control from starting, or which part of it has failed, in words.
pub async fn run(config: Config) -> anyhow::Result<()> {
    let config = Arc::new(config);
    warn_of_told_keys(&config);
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let (handle, inbox) = calls::channel();
    let identity = Identity::new().context("no DTLS identity")?;
    let listen = sip_address(&config)?;
    let sip = sip::bind(&config, listen, handle.clone()).await.context("SIP cannot be served")?;
    let identities = Arc::new(Identities::new(&config).map_err(anyhow::Error::msg)?);
    let http =
        Server::bind(config.clone(), handle.clone(), identities.clone(), sip.gate.clone(), sip.sender.view())
            .await
            .context("HTTP cannot be served")?;
    let ng = ng::bind(&config.ng, handle.clone()).await.context("NG cannot be served")?;
    let (relay, link) = downlink::link(config.relay.socket.clone(), handle.clone());
    let (stop, stopped) = watch::channel(false);
    let mut tasks = Tasks::default();
    tasks.add("the link to the relay", link);
    if stun::is_wanted(&config) {
        tasks.add("the STUN lookup", stun::look_up(config.outside.stun.clone(), handle.clone()));
    }
    let (told, browsers) = gateway::channel();
    let phones =
        Gateway::new(&config, identities.clone(), (handle.clone(), sip.sender.clone()), told.clone());
    tasks.add("the gateway", phones.run(browsers));
    tasks.add("the calls", Calls::new(config.clone(), identity, relay, sip.sender, told).run(inbox));
    for (name, task) in sip.tasks {
        tasks.add(name, task);
    }
    for (name, task) in ng.tasks() {
        tasks.add(name, task);
    }
    let mut server = Tasks::default();
    server.add("HTTP", http.run(stopped));
    let rest: Vec<String> = config.http.listen.iter().map(ToString::to_string).collect();
    let status = format!("REST on {}, SIP on {listen}", rest.join(" and "));
    tracing::info!("up");
    let _ = sd_notify::notify(&[sd_notify::NotifyState::Ready, sd_notify::NotifyState::Status(&status)]);

    let outcome = tokio::select! {
        _ = terminate.recv() => {
            tracing::info!("ending; media goes on");
            let _ = tokio::time::timeout(LEAVE_PATIENCE, handle.leave()).await;
            Ok(())
        }
        _ = interrupt.recv() => {
            tracing::info!("ending; calls are hung up");
            let _ = tokio::time::timeout(DRAIN_PATIENCE, handle.drain()).await;
            Ok(())
        }
        error = tasks.ended() => Err(error),
        error = server.ended() => Err(error),
    };
    let _ = stop.send(true);
    let _ = tokio::time::timeout(Duration::from_secs(1), server.ended()).await;
    outcome
}

/// Where SIP is heard: configured, or the first inside address.
fn sip_address(config: &Config) -> anyhow::Result<SocketAddr> {
    if let Some(listen) = config.sip.listen {
        return Ok(listen);
    }
    // Whom we call decides the family; without a server IPv4 comes first.
    let servers = config.sip.servers().map_err(anyhow::Error::msg)?;
    let server = servers.iter().find_map(|server| server.address);
    let wanted = |address: &IpAddr| server.is_none_or(|server| server.is_ipv4() == address.is_ipv4());
    let configured = &config.inside.addresses;
    if let Some(address) = configured.iter().find(|address| wanted(address)).or(configured.first()) {
        return Ok(SocketAddr::new(*address, 5060));
    }
    let name = &config.inside.interface;
    let found = addresses(name);
    let address = found.iter().find(|address| wanted(address)).or(found.first());
    let address = address.with_context(|| format!("interface {name} has no address for SIP"))?;
    Ok(SocketAddr::new(*address, 5060))
}

/// Addresses of an interface as it stands; those of IPv6 that only its link knows are none.
pub fn addresses(interface: &str) -> Vec<IpAddr> {
    let Ok(entries) = getifaddrs() else { return Vec::new() };
    let own = entries.filter(|entry| entry.interface_name == *interface).filter_map(|entry| {
        let address = entry.address?;
        let v4 = address.as_sockaddr_in().map(|v4| IpAddr::V4(v4.ip()));
        let v6 = address.as_sockaddr_in6().filter(|v6| !v6.ip().is_unicast_link_local());
        v4.or_else(|| v6.map(|v6| IpAddr::V6(v6.ip())))
    });
    own.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_task_that_ends_or_panics_ends_the_process() {
        let mut tasks = Tasks::default();
        tasks.add("one that stays", std::future::pending());
        tasks.add("the calls", async {});
        assert!(tasks.ended().await.to_string().starts_with("the calls ended"));
        tasks.add("another", async { panic!("a defect") });
        assert!(tasks.ended().await.to_string().starts_with("a task failed"));
        let waits = tokio::time::timeout(Duration::from_millis(50), tasks.ended()).await;
        assert!(waits.is_err(), "the others go on");
    }
}
