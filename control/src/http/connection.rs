//! Connections of HTTP/1.1: accepted whatever befalls one of them, bounded in number and in patience.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::Request;
use hyper::server::conn::http1::Builder;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, watch};
use tower::ServiceExt;

use super::tls::Acceptor;

/// Connections served at once, those that still shake hands included; beyond, the system's queue holds them. Watchers
/// of events keep theirs open.
pub const PLACES: usize = 1024;
/// How long a request's head may take, from the connection's begin or the last answer on: idle connections end by it.
const HEAD_PATIENCE: Duration = Duration::from_secs(10);
/// Octets that a request's head may have.
const HEAD_MAX: usize = 16 * 1024;
/// After an error of the listening socket: out of descriptors, most likely, and none is free a moment later.
const PAUSE: Duration = Duration::from_millis(100);

/// Where a request came from, as a request's extension.
#[derive(Debug, Clone, Copy)]
pub struct Peer(pub SocketAddr);

/// At which address of ours a request came in, as a request's extension.
#[derive(Debug, Clone, Copy)]
pub struct Local(pub IpAddr);

/// Serves until `stop` turns true.
pub async fn serve(
    listener: TcpListener,
    tls: Option<Acceptor>,
    router: Router,
    places: Arc<Semaphore>,
    mut stop: watch::Receiver<bool>,
) {
    let mut served = tokio::task::JoinSet::new();
    let mut complained = false;
    loop {
        let next = async {
            let place = places.clone().acquire_owned().await;
            (place, listener.accept().await)
        };
        let (place, accepted) = tokio::select! {
            next = next => next,
            _ = stop.wait_for(|stop| *stop) => break,
        };
        // Nobody closes the semaphore.
        let Ok(place) = place else { break };
        match accepted {
            Ok((stream, peer)) => {
                complained = false;
                let (tls, router, stop) = (tls.clone(), router.clone(), stop.clone());
                while served.try_join_next().is_some() {}
                let local = stream.local_addr().map_or(Ipv4Addr::UNSPECIFIED.into(), |local| local.ip());
                let ends = (Peer(peer), Local(local.to_canonical()));
                served.spawn(async move {
                    match tls {
                        None => follow(stream, ends, router, stop).await,
                        Some(tls) => {
                            if let Some(stream) = tls.accept(stream).await {
                                follow(stream, ends, router, stop).await;
                            }
                        }
                    }
                    drop(place);
                });
            }
            Err(error) => {
                if !std::mem::replace(&mut complained, true) {
                    tracing::warn!(%error, "a connection cannot be accepted; trying on");
                }
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
    drop(listener);
    while served.join_next().await.is_some() {}
}

async fn follow(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    (peer, local): (Peer, Local),
    router: Router,
    mut stop: watch::Receiver<bool>,
) {
    let service = router.map_request(move |mut request: Request<_>| {
        request.extensions_mut().insert(peer);
        request.extensions_mut().insert(local);
        request
    });
    // Not the builder that finds out the version: it waits for the first octet for ever.
    let mut builder = Builder::new();
    builder.timer(TokioTimer::new()).header_read_timeout(HEAD_PATIENCE).max_buf_size(HEAD_MAX);
    let service = TowerToHyperService::new(service);
    let mut connection = pin!(builder.serve_connection(TokioIo::new(stream), service).with_upgrades());
    // How a stranger's connection ends is of no interest.
    tokio::select! {
        _ = connection.as_mut() => return,
        _ = stop.wait_for(|stop| *stop) => connection.as_mut().graceful_shutdown(),
    }
    let _ = connection.await;
}
